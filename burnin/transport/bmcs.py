"""All Redfish services of one rack, and the door through which checks ask them.

Parts: `t07` and `t07.bmc` are the same BMC, `s3`/`s3.bmc` a switch tray's, `p4` a power shelf's, `cdu` the coolant's. A
service is spoken to when it is first asked, by one client that is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from burnin.errors import TrayError
from burnin.rack.load import RackFile
from burnin.transport.https import USER, RedfishEndpoint
from burnin.transport.modbus import ModbusEndpoint
from burnin.transport.redfish import Endpoint, Redfish, Resource, failed
from burnin.transport.secret import read_secret

CDU = "cdu"
REQUEST_S = 20.0
ACTS = ("post", "patch")


def services(file: RackFile) -> dict[str, Endpoint]:
    """Part (t07, s3, p4, cdu) -> where it answers. Raises InputError for a secret that cannot be read."""
    rack = file.rack

    def at(part: str, url: str, ca: str, secret: str, user: str | None) -> RedfishEndpoint:
        return RedfishEndpoint(part, url, file.resolve(ca), read_secret(secret, file.resolve), user or USER)

    out: dict[str, Endpoint] = {part: at(part, how.url, how.ca, how.secret, how.user) for part, how in rack.bmc.items()}
    if (cdu := rack.coolant) is not None and cdu.modbus is not None:
        out[CDU] = ModbusEndpoint(CDU, cdu.modbus)
    elif cdu is not None and cdu.redfish is not None and cdu.ca is not None and cdu.secret is not None:
        out[CDU] = at(CDU, cdu.redfish, cdu.ca, cdu.secret, cdu.user)
    return out


class Bmcs:
    """See the module. `close` logs out everywhere."""

    def __init__(self, at: Mapping[str, Endpoint]) -> None:
        self.parts = tuple(sorted(at))
        self._at = at
        self._clients: dict[str, Redfish] = {}

    def client(self, part: str) -> Redfish:
        """The service of a part. Raises TrayError where the rack file names none, or its CA cannot be used."""
        name = part.removesuffix(".bmc")
        if name not in self._at:
            what = "coolant" if name == CDU else f"bmc: {name}"
            raise TrayError(
                f"{part}: the rack file names no Redfish service for it; to do: state it there ({what}), then run again"
            )
        if name not in self._clients:
            self._clients[name] = Redfish(self._at[name], REQUEST_S)
        return self._clients[name]

    async def order(self, to: str, verb: str, args: Mapping[str, Any], timeout_s: float) -> Any:
        """Execute one order. Raises TrayError with one sentence; what was read until then is lost with it.

        get    args["paths"] -> {path: resource, or {"failed", "status"}}
        whole  args["paths"]: collections -> the same map, of each with its members
        walk   args["from"] (a path or several), "depth", "names" -> the same map
        post, patch   args["path"], args["body"] -> what came back
        `args["keep"]`: names of properties to keep of each resource, links and status aside (all, where it is not given).
        """
        client = self.client(to)
        try:
            async with asyncio.timeout(timeout_s):
                if verb in ACTS:
                    return await client.act(verb.upper(), args["path"], args.get("body") or {}, timeout_s)
                found = await {"get": _get, "whole": _whole, "walk": _walk}[verb](client, args)
        except TimeoutError:
            raise TrayError(f"{to}: its Redfish service did not answer all within {timeout_s:g} s") from None
        if found and all("failed" in body for body in found.values()):
            raise TrayError(next(iter(found.values()))["failed"])
        keep = args.get("keep")
        return {path: _thin(body, keep) for path, body in found.items()} if keep else found

    async def close(self) -> None:
        """Log out everywhere."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))


async def _get(client: Redfish, args: Mapping[str, Any]) -> dict[str, Resource]:
    async def one(path: str) -> Resource:
        try:
            return await client.get(path)
        except TrayError as error:
            return failed(str(error), getattr(error, "status", None))

    paths = list(args["paths"])
    return dict(zip(paths, await asyncio.gather(*map(one, paths)), strict=True))


async def _whole(client: Redfish, args: Mapping[str, Any]) -> dict[str, Resource]:
    found = await asyncio.gather(*(client.whole(path) for path in args["paths"]))
    return {path: body for one in found for path, body in one.items()}


async def _walk(client: Redfish, args: Mapping[str, Any]) -> dict[str, Resource]:
    begins = [args["from"]] if isinstance(args["from"], str) else args["from"]
    found = await asyncio.gather(*(client.walk(path, args.get("depth", 1), args.get("names", ())) for path in begins))
    return {path: body for one in found for path, body in one.items()}


_ALWAYS = ("@odata.id", "@odata.type", "Id", "Name", "Status", "failed", "status")


def _thin(body: Resource, keep: list[str]) -> Resource:
    return {name: value for name, value in body.items() if name in _ALWAYS or name in keep}
