"""One Redfish service: who may ask, what a query means, who hears of events, and how bad its manners are."""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import parse_qsl, quote

import orjson

from burnin.twin.redfish.http import Answer, Connection, Request
from burnin.twin.redfish.tree import ROOT, Body, Tree, ref

PAGE = 50
"""Members in one page of a long collection."""
LEVELS = 6
MOST_EXPANDED = 4000
SESSION_S, MOST_SESSIONS = 1800, 32
BREATH_S = 30.0
"""Between two comments on a stream without events."""
SESSIONS = f"{ROOT}/SessionService/Sessions"
SSE = f"{ROOT}/EventService/SSE"
_OPEN = {"/redfish", ROOT, f"{ROOT}/odata"}
_SLOW_READER, _ALL = 1 << 20, 10**8


@dataclass(slots=True)
class Manners:
    """How a service behaves: seconds it takes for an answer, the share of requests that it answers with 503; whether its leak
    detectors deny what they read, and whether it always says what it said first."""

    slow_s: float = 0.0
    errors: float = 0.0
    lies: bool = False
    stale: bool = False


@dataclass(slots=True)
class Session:
    """One login."""

    number: str
    token: str
    user: str
    seen_s: float


class Service:
    """Answers requests about one tree. `clock_s`: a monotonic clock. `expands`: whether $expand is offered."""

    def __init__(
        self, tree: Tree, user: str, password: str, clock_s: Callable[[], float], chance: Random, *, expands: bool = True
    ) -> None:
        self.tree, self.manners = tree, Manners()
        self._user, self._password, self._clock_s, self._chance = user, password, clock_s, chance
        self._expands = expands
        self._sessions: dict[str, Session] = {}
        self._count = self._events = 0
        self._listeners: set[Connection] = set()
        self._said: dict[tuple[str, str], Answer] = {}
        self._breathed_s = clock_s()
        self.connections: set[Connection] = set()
        tree.put(
            f"{ROOT}/SessionService",
            "SessionService.v1_0_2.SessionService",
            {"ServiceEnabled": True, "SessionTimeout": SESSION_S, "Sessions": ref(SESSIONS)},
            "Session Service",
        )
        tree.collect(SESSIONS, "Session", [])

    async def answer(self, request: Request) -> Answer:
        """What this service says to one request."""
        if self.manners.slow_s:
            await asyncio.sleep(self.manners.slow_s)
        if self.manners.errors and self._chance.random() < self.manners.errors:
            return _error(503, "ServiceTemporarilyUnavailable", "The service is busy.", {"Retry-After": "1"})
        if request.method == "POST" and request.path in (SESSIONS, f"{SESSIONS}/Members"):
            return self._login(request)
        if request.path not in _OPEN and not self._known(request):
            return _error(401, "NoValidSession", "There is no valid session.", {"WWW-Authenticate": 'Basic realm="redfish"'})
        if request.method in ("GET", "HEAD"):
            return self._stale(request) if self.manners.stale else self._get(request)
        if request.method == "DELETE" and request.path.startswith(f"{SESSIONS}/"):
            return self._logout(request.path)
        if request.method == "POST":
            return self._act(self.tree.acts.get(request.path), request)
        if request.method == "PATCH":
            return self._act(self.tree.settable.get(request.path), request)
        return _error(405, "OperationNotAllowed", f"{request.method} is not allowed here.")

    # ---- who asks

    def _login(self, request: Request) -> Answer:
        try:
            given = orjson.loads(request.body)
            user, password = str(given["UserName"]), str(given["Password"])
        except (orjson.JSONDecodeError, TypeError, KeyError):
            return _error(400, "MalformedJSON", "The body names no UserName and Password.")
        if not self._is_account(user, password):
            return _error(401, "ResourceAtUriUnauthorized", "The user name or the password is wrong.")
        self._forget_old()
        if len(self._sessions) >= MOST_SESSIONS:
            return _error(503, "SessionLimitExceeded", "There are too many sessions.", {"Retry-After": "30"})
        self._count += 1
        session = Session(f"S{self._count:04}", secrets.token_urlsafe(16), user, self._clock_s())
        self._sessions[session.token] = session
        path = self.tree.put(f"{SESSIONS}/{session.number}", "Session.v1_5_0.Session", {"UserName": user}, "User Session")
        self.tree.collections[SESSIONS].append(path)
        return _json(201, self.tree.get(path), {"X-Auth-Token": session.token, "Location": path})

    def _logout(self, path: str) -> Answer:
        token = next((t for t, s in self._sessions.items() if f"{SESSIONS}/{s.number}" == path), None)
        if token is None:
            return _missing(path)
        self._end(token)
        return Answer(204)

    def _end(self, token: str) -> None:
        path = f"{SESSIONS}/{self._sessions.pop(token).number}"
        self.tree.collections[SESSIONS].remove(path)
        self.tree.drop(path)

    def forget_sessions(self) -> None:
        """As after a restart of the BMC: every token is void."""
        for token in list(self._sessions):
            self._end(token)

    def _forget_old(self) -> None:
        now = self._clock_s()
        for token in [t for t, s in self._sessions.items() if now - s.seen_s > SESSION_S]:
            self._end(token)

    def _is_account(self, user: str, password: str) -> bool:
        right = hmac.compare_digest(password.encode(), self._password.encode())
        return hmac.compare_digest(user.encode(), self._user.encode()) and right

    def _known(self, request: Request) -> bool:
        token = request.headers.get("x-auth-token")
        if token is not None:
            session = self._sessions.get(token)
            if session is None or self._clock_s() - session.seen_s > SESSION_S:
                return False
            session.seen_s = self._clock_s()
            return True
        kind, _, word = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(word, validate=True).decode().partition(":")
        except ValueError:
            return False
        return kind.lower() == "basic" and self._is_account(user, password)

    # ---- what is asked

    def _stale(self, request: Request) -> Answer:
        said = self._said.get((request.path, request.query)) or self._get(request)
        if said.status == 200 and said.stream is None:
            self._said[request.path, request.query] = said
        return said

    def _get(self, request: Request) -> Answer:
        if request.path == "/redfish":
            return _json(200, {"v1": f"{ROOT}/"})
        if request.path == SSE and self.tree.get(f"{ROOT}/EventService") is not None:
            return Answer(200, headers={"Content-Type": "text/event-stream"}, stream=self._listen)
        try:
            query = dict(parse_qsl(request.query, keep_blank_values=True))
            body = self._look(request.path, query)
        except ValueError as error:
            return _error(400, "QueryParameterValueFormatError", str(error))
        return _missing(request.path) if body is None else _json(200, body)

    def _look(self, path: str, query: dict[str, str]) -> Body | None:
        body = self.tree.get(path)
        if body is None:
            return None
        if path in self.tree.collections:
            members = self.tree.collections[path]
            skip, top = _number(query, "$skip", 0), _number(query, "$top", _ALL)
            page = members[skip : skip + min(top, PAGE)]
            body["Members@odata.count"] = len(members)
            body["Members"] = [self.tree.get(member) if path in self.tree.whole else ref(member) for member in page]
            if skip + len(page) < len(members) and len(page) < top:
                kept = "".join(f"&{key}={quote(value)}" for key, value in query.items() if key == "$expand")
                kept += f"&$top={top - len(page)}" if top != _ALL else ""
                body["Members@odata.nextLink"] = f"{path}?$skip={skip + len(page)}{kept}"
        if "$expand" in query:
            if not self._expands:
                raise ValueError("$expand is not supported")
            how, levels = _expansion(query["$expand"])
            body = _Expander(self, how).expand(body, levels, path)
        if "$select" in query:
            wanted = {name.split("/")[0] for name in query["$select"].split(",")}
            body = {key: value for key, value in body.items() if key in wanted or key.startswith("@odata")}
        return body

    def _act(self, do: Callable[[Body], None] | None, request: Request) -> Answer:
        if do is None:
            if self.tree.get(request.path) is None:
                return _missing(request.path)
            return _error(405, "OperationNotAllowed", f"{request.method} is not allowed here.")
        try:
            given = orjson.loads(request.body or b"{}")
            if not isinstance(given, dict):
                raise ValueError("the body is not an object")
            do(given)
        except ValueError as error:
            return _error(400, "ActionParameterNotSupported", str(error))
        return Answer(204)

    # ---- who listens

    def _listen(self, connection: Connection) -> None:
        self._listeners.add(connection)
        connection.closed.append(lambda: self._listeners.discard(connection))
        connection.write(b": here\n\n")

    def tell(self, record: Body) -> None:
        """Send one event to every listener; one that does not read is hung up on."""
        self._events += 1
        event = {
            "@odata.type": "#Event.v1_7_0.Event",
            "Id": str(self._events),
            "Name": "Event Log",
            "Events": [{"EventType": "Event", "MemberId": "0", **record}],
        }
        data = b"id: %d\ndata: %b\n\n" % (self._events, orjson.dumps(event))
        for listener in list(self._listeners):
            if listener.backlog > _SLOW_READER:
                listener.close()
            else:
                listener.write(data)

    def breathe(self, now_s: float) -> None:
        """Let listeners know now and then that the stream is still there."""
        if now_s - self._breathed_s >= BREATH_S:
            self._breathed_s = now_s
            for listener in self._listeners:
                listener.write(b": here\n\n")

    def hang_up(self) -> None:
        """Cut every connection, as when the power goes."""
        for connection in list(self.connections):
            connection.abort()


class _Expander:
    """Puts resources where links to them stand: `.` below the resource, `~` in its Links, `*` both."""

    def __init__(self, service: Service, how: str) -> None:
        self._service, self._how, self._left = service, how, MOST_EXPANDED

    def expand(self, body: Body, levels: int, path: str) -> Body:
        return {key: self._value(key, value, levels, path, key == "Links") for key, value in body.items()}

    def _value(self, key: str, value: Any, levels: int, path: str, in_links: bool) -> Any:
        if isinstance(value, list):
            return [self._value(key, item, levels, path, in_links) for item in value]
        if not isinstance(value, dict):
            return value
        target = value.get("@odata.id")
        if len(value) == 1 and isinstance(target, str):
            wanted = self._how == "*" or (self._how == "~") == in_links
            below = in_links or target.startswith(path + "/")
            if not wanted or not below or levels < 1 or self._left < 1 or path.startswith(target):
                return value
            self._left -= 1
            found = self._service._look(target, {})
            return value if found is None else self.expand(found, levels - 1, target)
        return {k: self._value(k, v, levels, path, in_links or k == "Links") for k, v in value.items()}


def _expansion(text: str) -> tuple[str, int]:
    how, _, rest = text.partition("(")
    if how not in (".", "*", "~") or (rest and not (rest.startswith("$levels=") and rest.endswith(")"))):
        raise ValueError(f"$expand={text} is not understood; expected . * or ~, and ($levels=N)")
    levels = rest[8:-1] if rest else "1"
    if not (levels.isascii() and levels.isdigit() and 1 <= int(levels) <= LEVELS):
        raise ValueError(f"$levels is 1 to {LEVELS}")
    return how, int(levels)


def _number(query: dict[str, str], name: str, usual: int) -> int:
    text = query.get(name, str(usual))
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ValueError(f"{name}={text} is not a number")
    return int(text)


def _json(status: int, body: Body | None, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, orjson.dumps(body), headers or {})


def _missing(path: str) -> Answer:
    return _error(404, "ResourceMissingAtURI", f"There is no resource at {path}.")


def _error(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> Answer:
    info = {"@odata.type": "#Message.v1_1_1.Message", "MessageId": f"Base.1.18.{code}", "Message": text, "MessageArgs": []}
    return _json(status, {"error": {"code": f"Base.1.18.{code}", "message": text, "@Message.ExtendedInfo": [info]}}, headers)
