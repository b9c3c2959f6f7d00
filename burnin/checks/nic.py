"""Do the network links stay up, and are they clean?

InfiniBand counts symbol errors, Ethernet frames with a wrong checksum: a card is judged by what its kind of port counts.
Which ports must have a link is a matter of the site: a step `with: {up: [n0, n1]}` makes it a measurement; without it
only links that were up and went down are seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from burnin.checks import around
from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import Measurement
from burnin.telemetry.series import Series

_CABLE = "re-seat or replace the cable or transceiver; if it stays, swap ports to tell the card from the switch"
_COUNT = "re-seat the network cards of this tray; if it was built with fewer, say so in the step (with: {count: ...})"
COUNT = Quantity("nic.count", "1", "network cards on the bus", advisory=True, action=_COUNT)
FLAPS = Quantity("nic.link_flaps.growth", "1", "times a link of this card went down since the run began", action=_CABLE)
SYMBOLS = Quantity("nic.symbol_errors.growth", "1", "InfiniBand symbols wrong after error correction", action=_CABLE)
CHECKSUMS = Quantity("nic.crc_errors.growth", "1", "Ethernet frames received with a wrong checksum", action=_CABLE)
UP = Quantity("nic.ports_up", "1", "ports with a link, of cards that must have one", action=_CABLE)


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Every card that must be there, and the count."""
    count = around.expected(context, context.profile.topology.nics_per_tray)
    out = [around.counted(context, evidence, COUNT, "host.nics", count, usual=True)]
    wanted = {f"{context.tray}.{name}" for name in context.args.get("up", ())}
    cards = sorted({*around.parts(context, evidence, "n", "nic.link_flaps", count), *wanted})
    for part in cards:
        out.append(around.growth(context, evidence, FLAPS, part, "nic.link_flaps"))
        out += _errors(context, evidence, part)
        if part in wanted:
            out.append(around.of(context, evidence, UP, part, "nic.ports_up", Series.lowest))
    if not cards and count != 0:
        out.append(FLAPS.unknown(context.tray, "lost" if evidence.lost else "missing", "no network card was read on this tray"))
    return out


def _errors(context: Context, evidence: Evidence, part: str) -> Iterator[Measurement]:
    """What this card's ports count; with no port that counts anything, the silence."""
    both = ((SYMBOLS, "nic.symbol_errors"), (CHECKSUMS, "nic.crc_errors"))
    offered = [pair for pair in both if evidence.why_absent(part, pair[1]) != "not_supported"]
    for quantity, metric in offered or both[:1]:
        yield around.growth(context, evidence, quantity, part, metric)


Card = Annotated[str, Field(pattern=r"^n\d{1,2}$", description="a card of the tray: n0, n1 ...")]


class Args(around.Count):
    """`up`: cards (n0, n1 ...) whose link must be up."""

    up: list[Card] = Field(default_factory=list)


CHECK = Check(
    name="nic",
    about="link flaps and errors of every network card, and links where they must be",
    quantities=(COUNT, FLAPS, SYMBOLS, CHECKSUMS, UP),
    judge=judge,
    metrics=("host.nics", "nic.link_flaps", "nic.symbol_errors", "nic.crc_errors", "nic.ports_up"),
    explains=("nic.speed", "nic.temp", "nic.ack_timeouts"),
    args=Args,
)
