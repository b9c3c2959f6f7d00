"""All NVLinks of a rack in one table, from both ends: pure.

Who plugs where is not public, so it is read: NVOS names each NVSwitch's host, chip and ports, and to which port of which GUID
each is plugged (iblinkinfo); NVML says each GPU's GUID. A GPU's fabric port is its NVLink's number plus 1 (assumption:
InfiniBand counts ports from 1, NVML links from 0; where both ends then disagree about being up, the row proves nothing).
An end that was not read is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnin.checks import nvos
from burnin.checks.switch_ports import names
from burnin.checks.tools import Outcome, Reading
from burnin.events import Result

Ends = Mapping[str, tuple[str, str]]
_CHIP = re.compile(r"(?:[^;]*;)?([^:;]{1,80}):[^:/]{1,80}/U(\d)")
"""MF0;HOST:MODEL/U1"""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: is it up, and by how much its errors grew (None: not read twice)."""

    up: bool | None
    errors: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One NVLink. `link` t07.g2.l13 and `port` s3.a1.p44; None where that side did not say who it is."""

    link: str | None
    port: str | None
    gpu: End | None
    switch: End | None

    @property
    def both(self) -> bool:
        """True when both ends are known and were read."""
        return self.link is not None and self.port is not None and self.gpu is not None and self.switch is not None

    @property
    def agree(self) -> bool | None:
        """Do both ends say the same of being up? None where one does not say."""
        if not self.both or self.gpu is None or self.switch is None or self.gpu.up is None or self.switch.up is None:
            return None
        return self.gpu.up == self.switch.up

    @property
    def erring(self) -> tuple[bool, bool]:
        """Did errors grow at the GPU's end, at the switch's end?"""
        return bool(self.gpu and self.gpu.errors), bool(self.switch and self.switch.errors)

    @property
    def result(self) -> Result:
        """PASS takes both ends, up and without new errors; errors at one end are bad whatever the other says."""
        if any(self.erring) or (self.both and self.gpu and self.switch and self.gpu.up is False and self.switch.up is False):
            return Result.FAIL
        ends = (self.gpu, self.switch)
        whole = self.both and all(end is not None and end.up and end.errors == 0 for end in ends)
        return Result.PASS if whole else Result.UNKNOWN


def ends(hosts: Mapping[str, str], fabrics: Sequence[Reading]) -> dict[str, tuple[str, int]]:
    """Port (s3.a1.p44) -> GUID and port number that it is plugged to, from every fabric that was read.

    `hosts`: host name -> switch tray. A port of which two fabrics say different things is left out.
    """
    out, doubtful = dict[str, tuple[str, int]](), set[str]()
    for reading in fabrics:
        nodes = {row.part: str(row.value) for row in nvos.rows(reading, "node")}
        for row in nvos.rows(reading, "peer"):
            chip = _CHIP.fullmatch(nodes.get(row.part, ""))
            tray = hosts.get(chip[1]) if chip else None
            if chip is None or tray is None or chip[2] == "0":
                continue
            port = f"{tray}.a{int(chip[2]) - 1}.p{row.part.rpartition('/')[2]}"
            guid, _, number = str(row.value).partition("/")
            peer = (guid, int(number))
            if out.setdefault(port, peer) != peer:
                doubtful.add(port)
    return {port: peer for port, peer in out.items() if port not in doubtful}


def table(
    gpus: Mapping[str, str], links: Mapping[str, End], peers: Mapping[str, tuple[str, int]], ports: Mapping[str, End]
) -> list[Row]:
    """Every link and every port once, joined where they can be. `gpus`: GUID -> t07.g2, in either order of its bytes."""
    out, joined, taken = list[Row](), dict[str, str](), set[str]()
    for port, (guid, number) in sorted(peers.items()):
        gpu = gpus.get(guid) or gpus.get(bytes.fromhex(guid)[::-1].hex())
        link = f"{gpu}.l{number - 1}" if gpu else ""
        if link in links:
            joined.setdefault(link, port)
            if joined[link] != port:
                taken |= {joined[link], port}  # two ports say that they end in one link
    for link, end in links.items():
        at = joined.get(link)
        port_ = at if at not in taken else None
        out.append(Row(link, port_, end, ports.get(port_) if port_ else None))
    known = {row.port for row in out}
    out += [Row(None, port, None, end) for port, end in ports.items() if port not in known]
    return out


def port_ends(tray: str, before: Reading, now: Reading, counter: str = "symbol_errors") -> dict[str, End]:
    """The ports of one switch tray that say chip and number: up, and what `counter` grew by between two readings."""
    old = {row.part: row.value for row in nvos.rows(before, counter)} if nvos.sound(before) else {}
    new = {row.part: row.value for row in nvos.rows(now, counter)}
    state = {row.part: row.result for row in nvos.rows(now, "port")}
    out = {}
    for name, part in names(tray, now).items():
        was, is_ = old.get(name), new.get(name)
        errors = is_ - was if isinstance(was, float) and isinstance(is_, float) and is_ >= was else None
        if part != tray:
            out[part] = End({Outcome.PASS: True, Outcome.FAIL: False}.get(state[name]), errors)
    return out
