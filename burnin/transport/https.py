"""One HTTPS service that speaks JSON and may be slow, half-broken or gone: session, requests, a stream of events.

TLS is checked against the site's CA alone; no proxy, no redirect, no compression; a bound on time, size and retries. What
goes wrong is a TrayError with one sentence, which never holds the password.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from burnin.errors import LoginRefused, TrayError, Unreachable
from burnin.transport.secret import Secret

USER = "root"
"""Who logs in where the rack file names nobody: the administrator of OpenBMC."""
CONNECT_S, BODY_MAX, EVENT_MAX = 5.0, 16 << 20, 1 << 20
RETRY_S = (0.2, 0.8)
"""Pauses before a GET is asked again; as many retries."""
LINKS = 4
"""Requests at once to one service: BMCs serve few, and answer all of them late when asked for more."""
KEPT_S = 60.0
"""An idle connection is used again for so long: a BMC is asked every 5 s, and a handshake is the dearest part of an answer."""
RENEW_S = 30.0
"""A client is replaced no more often: what was given up in a handshake holds its socket for a minute."""
REFUSED_S = 60.0
"""A login that was refused is not tried again for so long: BMCs lock accounts out."""
FULL_S = 60.0
"""A service that has no room for another session (controllers that were killed leave theirs until these time out) is asked with
name and password meanwhile, and for a session again after so long."""
SESSIONS = "/redfish/v1/SessionService/Sessions"
_BUSY = (429, 500, 502, 503, 504)
_NO_SESSIONS = (404, 405, 501)
_FULL, _FULL_WORDS = (429, 503, 507), (b"SessionLimitExceeded", b"CreateLimitReachedForResource")
"""How a login is answered where sessions have run out: DMTF's message registries have both words, the second one with 400."""


class RedfishError(TrayError):
    """A service that did not give what was asked for. `status`: its HTTP status, None where there was no answer."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class RedfishEndpoint:
    """One service: the part it speaks for, where it answers, whom it trusts, who we are there."""

    part: str
    url: str
    ca: Path
    secret: Secret
    user: str = USER


class Service:
    """See the module. Not connected before the first question; `close` logs out. Tasks may share it."""

    def __init__(self, at: RedfishEndpoint, timeout_s: float) -> None:
        """`timeout_s`: for one request, its retries included. Raises RedfishError for a CA file that cannot be used."""
        self.at, self._timeout_s = at, timeout_s
        try:
            trust = ssl.create_default_context(cafile=str(at.ca))
        except (OSError, ssl.SSLError) as error:
            raise RedfishError(f"{at.part}: the CA file {at.ca} cannot be used: {error}") from None
        self._trust, self._http = trust, self._fresh(trust)
        self._closing: set[asyncio.Task[None]] = set()
        self._renewed_s = float("-inf")
        self._origin = str(httpx.URL(at.url).copy_with(raw_path=b"/")).rstrip("/")
        self._turn = asyncio.Semaphore(LINKS)
        self._login = asyncio.Lock()
        self._headers: dict[str, str] | None = None
        self._session = ""
        self._full_until_s = float("inf")
        self._refused: tuple[float, LoginRefused] | None = None

    def _fresh(self, trust: ssl.SSLContext) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=trust,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=LINKS + 1, max_keepalive_connections=LINKS, keepalive_expiry=KEPT_S),
            timeout=httpx.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s)),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "OData-Version": "4.0"},
        )

    def _renew(self, used: httpx.AsyncClient) -> None:
        """Let a client go whose request was given up: httpx may never get that connection back, and has five."""
        if self._http is used and time.monotonic() >= self._renewed_s + RENEW_S:
            self._renewed_s = time.monotonic()
            self._http = self._fresh(self._trust)
            closing = asyncio.ensure_future(_close(used))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> Any:
        """What JSON came back, {} where nothing did. Only GET is asked again.

        Raises RedfishError (with the HTTP status), LoginRefused, Unreachable.
        """
        url, limit_s, used = self._url(path), timeout_s or self._timeout_s, self._http
        try:
            async with asyncio.timeout(limit_s):
                return await self._tries(method, url, path, None if body is None else orjson.dumps(body))
        except TimeoutError:
            self._renew(used)
            raise RedfishError(f"{self.at.part}: {path} was not answered within {limit_s:g} s") from None

    async def events(self, path: str, silent_s: float) -> AsyncIterator[Any]:
        """The JSON of each server-sent event; what is none is passed over.

        Raises RedfishError when the stream ends, or is silent for `silent_s`.
        """
        headers = {**await self._authorized(), "Accept": "text/event-stream"}
        patience = httpx.Timeout(silent_s, connect=CONNECT_S)
        try:
            async with self._http.stream("GET", self._url(path), headers=headers, timeout=patience) as response:
                if response.status_code != 200:
                    self._headers = None if response.status_code == 401 else self._headers
                    raise RedfishError(f"{self.at.part}: the event stream answers {response.status_code}", response.status_code)
                async for data in _events(response):
                    with contextlib.suppress(orjson.JSONDecodeError):
                        yield orjson.loads(self._without_secret(data))
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise self._broken("the event stream", error) from None
        raise RedfishError(f"{self.at.part}: the event stream ended")

    async def close(self) -> None:
        """Log out, as far as the service lets us, and close."""
        if self._session and self._headers:
            with contextlib.suppress(httpx.HTTPError, OSError, TimeoutError, TrayError):
                async with asyncio.timeout(2):
                    await self._once("DELETE", self._url(self._session), self._headers, None)
        self._session, self._headers = "", None
        await asyncio.gather(_close(self._http), *self._closing)

    # ---- one request

    def _url(self, path: str) -> str:
        """Raises RedfishError for a link that leads to another service."""
        path = path.removeprefix(self._origin)
        if not path.startswith("/") or path.startswith("//") or "\\" in path:
            raise RedfishError(f"{self.at.part}: a link to another place is not followed: {path[:80]}")
        return self._origin + path.split("#", 1)[0]

    async def _tries(self, method: str, url: str, path: str, body: bytes | None) -> Any:
        pauses, renewed = list(RETRY_S) if method == "GET" else [], False
        while True:
            headers = await self._authorized()
            try:
                async with self._turn:
                    status, content = await self._once(method, url, headers, body)
            except (httpx.HTTPError, httpx.StreamError, OSError) as error:
                if not pauses or _distrust(error):
                    raise self._broken(path, error) from None
                await asyncio.sleep(pauses.pop(0))
                continue
            if status == 401 and not renewed:
                renewed = True
                if self._headers is headers:
                    self._headers = None  # the session ended; another task may have a new one already
                continue
            if status in _BUSY and pauses:
                await asyncio.sleep(pauses.pop(0))
                continue
            return self._read(path, status, content)

    async def _once(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        own = {**headers, "Content-Type": "application/json"} if body is not None else headers
        async with self._http.stream(method, url, headers=own, content=body) as response:
            content = bytearray()
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > BODY_MAX:
                    raise RedfishError(f"{self.at.part}: an answer of more than {BODY_MAX >> 20} MiB", response.status_code)
            return response.status_code, self._without_secret(bytes(content))

    def _without_secret(self, content: bytes) -> bytes:
        """A service that sends the password back does not get it into evidence. Very short ones would spoil what is told."""
        secret = self.at.secret.reveal().encode()
        return content.replace(secret, b"***") if len(secret) >= 6 else content

    def _read(self, path: str, status: int, content: bytes) -> Any:
        if status == 401:
            raise LoginRefused(f"{self.at.part}: {path} is refused to {self.at.user} (HTTP 401)")
        if not 200 <= status < 300:
            raise RedfishError(f"{self.at.part}: {path} answers HTTP {status}", status)
        try:
            return orjson.loads(content) if content else {}
        except orjson.JSONDecodeError:
            raise RedfishError(f"{self.at.part}: {path} is not JSON", status) from None

    def _broken(self, path: str, error: Exception) -> TrayError:
        if why := _distrust(error):
            return RedfishError(f"{self.at.part}: {self._origin} shows a certificate that {self.at.ca} does not vouch for: {why}")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unreachable(f"{self.at.part}: {self._origin} does not answer: {str(error) or type(error).__name__}")
        return RedfishError(f"{self.at.part}: {path}: {str(error) or type(error).__name__}")

    # ---- session

    async def _authorized(self) -> dict[str, str]:
        async with self._login:
            if self._headers is None or time.monotonic() >= self._full_until_s:
                if self._refused is not None and time.monotonic() < self._refused[0] + REFUSED_S:
                    raise LoginRefused(str(self._refused[1]))
                try:
                    self._headers = await self._log_in()
                except LoginRefused as error:
                    self._refused = (time.monotonic(), error)
                    raise
            return self._headers

    async def _log_in(self) -> dict[str, str]:
        who, secret = self.at.user, self.at.secret
        try:
            async with self._http.stream(
                "POST",
                self._url(SESSIONS),
                content=orjson.dumps({"UserName": who, "Password": secret.reveal()}),
                headers={"Content-Type": "application/json"},
            ) as answer:
                status, token, session = answer.status_code, answer.headers.get("X-Auth-Token"), answer.headers.get("Location")
                said = b"" if 200 <= status < 300 else await _beginning(answer)
        except (httpx.HTTPError, OSError) as error:
            raise self._broken("login", error) from None
        good = 200 <= status < 300
        full = status in _FULL or any(word in said for word in _FULL_WORDS)
        self._session = session or "" if good and token else ""
        self._full_until_s = time.monotonic() + FULL_S if full else float("inf")
        if good and token:
            return {"X-Auth-Token": token}
        if good or full or status in _NO_SESSIONS:  # no session to be had: every request says who asks
            return {"Authorization": f"Basic {base64.b64encode(f'{who}:{secret.reveal()}'.encode()).decode()}"}
        if status in (400, 401, 403):
            raise LoginRefused(f"{self.at.part}: {self._origin} refuses the login of {who} (HTTP {status})")
        raise RedfishError(f"{self.at.part}: login answers HTTP {status}", status)


async def _beginning(answer: httpx.Response) -> bytes:
    """The first of what came: enough for the name of an error."""
    async for piece in answer.aiter_raw(8192):
        return piece
    return b""


async def _close(client: httpx.AsyncClient) -> None:
    """Whatever state its connections are in."""
    with contextlib.suppress(httpx.HTTPError, OSError, RuntimeError, KeyError, TimeoutError):
        async with asyncio.timeout(5):
            await client.aclose()


def _distrust(error: BaseException | None) -> str:
    """Why TLS was not believed; empty when it was."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """Server-sent events -> their data."""
    data, rest = bytearray(), b""
    async for piece in response.aiter_raw():
        *lines, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data += line[5:].removeprefix(b" ") + b"\n"
            elif not line and data:
                yield bytes(data)
                data.clear()
        if len(data) + len(rest) > EVENT_MAX:
            raise httpx.DecodingError(f"an event of more than {EVENT_MAX >> 20} MiB")
