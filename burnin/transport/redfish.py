"""Redfish of BMCs, power shelves and CDUs: resources, whole collections, walks along links, events.

What a service links to is only followed on the same service, and everything is bounded: pages, members, resources. A part
of an answer that could not be read stands in it as {"failed": why, "status": HTTP status}; it is never left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

from burnin.errors import TrayError
from burnin.transport.https import RedfishEndpoint, RedfishError, Service
from burnin.transport.modbus import ModbusEndpoint, ModbusService

PAGES_MAX, MEMBERS_MAX, WALK_MAX = 200, 20_000, 2_000
SILENT_S = 300.0
ROOT_AGAIN_S = 30.0
ROOT = "/redfish/v1"

Resource = dict[str, Any]
Endpoint = RedfishEndpoint | ModbusEndpoint
"""A CDU may speak Modbus instead: it is read as if it spoke Redfish."""


class Redfish:
    """One service. Not connected before the first question; `close` logs out. Tasks may share it."""

    _rootless_s = float("-inf")
    """When its root was last found to be broken: it is left alone for a while, with its retries."""

    def __init__(self, at: Endpoint, timeout_s: float = 20.0) -> None:
        """`timeout_s`: for one request, its retries included. Raises RedfishError for a CA file that cannot be used."""
        self.part = at.part
        self._service = ModbusService(at, timeout_s) if isinstance(at, ModbusEndpoint) else Service(at, timeout_s)
        self._root: Resource | None = None

    async def get(self, path: str, timeout_s: float | None = None) -> Resource:
        """One resource. Raises RedfishError (with the HTTP status), LoginRefused, Unreachable."""
        body = await self._service.ask("GET", path, timeout_s=timeout_s)
        if not isinstance(body, dict):
            raise RedfishError(f"{self.part}: {path} is not a Redfish resource")
        return body

    async def act(self, method: str, path: str, body: Mapping[str, Any], timeout_s: float | None = None) -> Resource:
        """POST or PATCH, once: never repeated on silence. What came back, {} where nothing did. Raises as `get` does."""
        if method not in ("POST", "PATCH"):
            raise ValueError(method)
        answer = await self._service.ask(method, path, body, timeout_s)
        return answer if isinstance(answer, dict) else {}

    async def root(self) -> Resource:
        """The service root, read once."""
        if self._root is None:
            self._root = await self.get(ROOT)
        return self._root

    async def events(self, silent_s: float = SILENT_S) -> AsyncIterator[Resource]:
        """What the service's event stream brings, until it ends or is silent for `silent_s`: then RedfishError.

        Raises RedfishError too where no stream is offered.
        """
        service = await self.get(_link((await self.root()).get("EventService")) or f"{ROOT}/EventService")
        uri = service.get("ServerSentEventUri")
        if not isinstance(uri, str) or service.get("ServiceEnabled") is False:
            raise RedfishError(f"{self.part}: no event stream is offered")
        async for event in self._service.events(uri, silent_s):
            if isinstance(event, dict):
                yield event

    async def close(self) -> None:
        """Log out and close."""
        await self._service.close()

    # ---- collections

    async def members(self, path: str, timeout_s: float | None = None) -> list[Resource]:
        """The members of a collection, whole, all pages. One that cannot be read is {"@odata.id", "failed", "status"}.

        A collection that gives fewer members than it says it has ends with such an entry. Raises as `get` does.
        """
        rows = await self._rows(path, timeout_s)
        return list(await asyncio.gather(*(self._member(row, timeout_s) for row in rows)))

    async def _rows(self, path: str, timeout_s: float | None) -> list[Resource]:
        """Members as the pages give them: links, or whole resources where the service expands them."""
        page = await self._first(path, timeout_s)
        out: list[Resource] = []
        stated, seen = page.get("Members@odata.count"), {path}
        while True:
            rows = page.get("Members")
            if not isinstance(rows, list):
                raise RedfishError(f"{self.part}: {path} is not a collection")
            out += [row if isinstance(row, dict) else failed("a member that is no resource", None) for row in rows]
            onward = page.get("Members@odata.nextLink") or page.get("@odata.nextLink")
            if not isinstance(onward, str):
                break
            if onward in seen or len(seen) > PAGES_MAX or len(out) > MEMBERS_MAX:
                return [*out, failed(f"{self.part}: {path} does not end", None, path)]
            seen.add(onward)
            page = await self.get(onward, timeout_s)
        if isinstance(stated, int) and stated > len(out):
            out.append(failed(f"{self.part}: {path} says {stated} members, and gives {len(out)}", None, path))
        return out

    async def _first(self, path: str, timeout_s: float | None) -> Resource:
        """A collection's first page, expanded where the service offers it and can."""
        query = await self._expansion()
        if query:
            try:
                page = await self.get(path + query, timeout_s)
                if isinstance(page.get("Members"), list):
                    return page
            except RedfishError as error:
                if error.status in (None, 404):
                    raise
        return await self.get(path, timeout_s)

    async def _expansion(self) -> str:
        if time.monotonic() < self._rootless_s + ROOT_AGAIN_S:
            return ""
        try:
            offered: Any = await self.root()
        except RedfishError as error:
            if error.status is None:
                raise
            self._rootless_s = time.monotonic()
            return ""  # a service whose root is broken may still give what stands below it, member by member
        for name in ("ProtocolFeaturesSupported", "ExpandQuery"):
            offered = offered.get(name)
            if not isinstance(offered, dict):
                return ""
        if offered.get("NoLinks") is True:
            return "?$expand=.($levels=1)" if offered.get("Levels") is True else "?$expand=."
        return "?$expand=*" if offered.get("ExpandAll") is True else ""

    async def _member(self, row: Resource, timeout_s: float | None) -> Resource:
        link = row.get("@odata.id")
        if len(row) > 1 or not isinstance(link, str):
            return row
        try:
            return {"@odata.id": link, **await self.get(link, timeout_s)}  # some bodies do not name themselves
        except TrayError as error:
            return failed(str(error), getattr(error, "status", None), link)

    # ---- walks

    async def walk(self, path: str, depth: int, names: Collection[str], timeout_s: float | None = None) -> dict[str, Resource]:
        """From `path` along the links called `names` (and every collection's members), `depth` links far.

        Resource path -> resource, or {"failed": why, "status": HTTP status or None}. Raises nothing a service can cause.
        """
        out: dict[str, Resource] = {}
        ahead = [path]
        for level in range(depth + 1):
            fresh = [one for one in dict.fromkeys(ahead) if one not in out][: max(0, WALK_MAX - len(out))]
            found = await asyncio.gather(*(self._found(one, level < depth, timeout_s) for one in fresh))
            ahead = []
            for resources in found:
                out.update(resources)
                ahead += [link for resource in resources.values() for link in links_of(resource, names)]
        if len(out) >= WALK_MAX:
            out[path] = failed(f"{self.part}: more than {WALK_MAX} resources below {path}", None)
        return out

    async def whole(self, path: str, timeout_s: float | None = None) -> dict[str, Resource]:
        """A collection's own path (with links to its members) and its members' by theirs. Raises nothing a service can cause."""
        try:
            rows = await self.members(path, timeout_s)
        except TrayError as error:
            return {path: failed(str(error), getattr(error, "status", None))}
        out: dict[str, Resource] = {path: {"Members": [{"@odata.id": row.get("@odata.id")} for row in rows]}}
        for number, row in enumerate(rows):
            name = row.get("@odata.id")
            if not isinstance(name, str) or name in out:
                name = f"{path}#/{number}"  # what has no name of its own must still be seen to be missing
            out[name] = row
        return out

    async def _found(self, path: str, onward: bool, timeout_s: float | None) -> dict[str, Resource]:
        """One resource by its path; a collection with its members, where there is a step left for them."""
        try:
            resource = await self.get(path, timeout_s)
        except TrayError as error:
            return {path: failed(str(error), getattr(error, "status", None))}
        if not onward or not isinstance(resource.get("Members"), list):
            return {path: resource}
        found = await self.whole(path, timeout_s)
        return {**found, path: {**resource, **found[path]}}


def failed(why: str, status: int | None, path: str | None = None) -> Resource:
    """What stands in the place of a resource that was not read."""
    return {**({"@odata.id": path} if path else {}), "failed": why, "status": status}


def links_of(resource: Mapping[str, Any], names: Collection[str]) -> Iterator[str]:
    """Paths of the links called `names` anywhere in a resource, in its order."""
    ahead: list[tuple[str, Any]] = [("", resource)]
    while ahead:
        name, value = ahead.pop()
        if isinstance(value, list):
            ahead += [(name, one) for one in reversed(value)]
        elif isinstance(value, dict):
            link = _link(value)
            if link and name in names:
                yield link
            ahead += reversed(value.items())


def _link(value: Any) -> str:
    link = value.get("@odata.id") if isinstance(value, dict) else None
    return link if isinstance(link, str) else ""
