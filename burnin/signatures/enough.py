"""How long is long enough: what a soak has shown so far, and what it may still have missed. Pure.

Minor events (corrected errors, recoveries, link events) are weighed as they come: Wald's sequential test of the rate of a
sound rack against that of a weak one. What compares parts needs its phases, drift its two days: a soak that was short could
not see them, whatever it did not show. The probability is a model's, and is printed as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from burnin.rack.schema import SignatureRow
from burnin.signatures.zones import number

ENOUGH = "soak.enough"


@dataclass(frozen=True, slots=True)
class Enough:
    """`word` enough | extend | weak; why; and the probability that the rack holds a weak part that was not named."""

    word: str
    why: tuple[str, ...]
    undetected: float


def decide(row: SignatureRow, hours: float, events: int, suspicious: bool) -> Enough:
    """`hours` under load, `events` minor ones in them; `suspicious`: a part is held or watched already.

    Never enough below `least` hours, nor with anything suspicious; `most` hours end it whatever is open.
    """
    open_points = []
    ratio = events * math.log(number(row, "weak_rate") / number(row, "sound_rate"))
    ratio -= (number(row, "weak_rate") - number(row, "sound_rate")) * hours
    accept = math.log(number(row, "beta") / (1 - number(row, "alpha")))
    reject = math.log((1 - number(row, "beta")) / number(row, "alpha"))
    if ratio >= reject:
        return Enough("weak", (f"{events} minor events in {hours:.1f} h are those of a weak rack",), undetected(row, hours))
    if ratio > accept:
        open_points.append(f"{events} minor events in {hours:.1f} h do not yet tell a sound rack from a weak one")
    if hours < number(row, "least"):
        open_points.append(f"{hours:.1f} of at least {number(row, 'least'):g} h under load")
    if suspicious:
        open_points.append("a part is watched or held")
    word = "extend" if open_points and hours < number(row, "most") else "enough"
    return Enough(word, tuple(open_points), undetected(row, hours))


def undetected(row: SignatureRow, hours: float) -> float:
    """P(weak part | none named): prior times what is missed, over what is not named at all. What only drift shows is missed in
    full before a day, and by `drift_24h` and not at all at two days (between them in a straight line)."""
    prior, share = number(row, "prior"), number(row, "drift_share")
    at_day = number(row, "drift_24h")
    drift = 0.0 if hours < 24 else min(1.0, at_day + (1 - at_day) * (hours - 24) / 24)
    power = (1 - share) * number(row, "power") * min(1.0, hours / 1.0) + share * drift
    return prior * (1 - power) / (1 - prior * power)


def sentence(one: Enough, version: str, racks: int = 0) -> str:
    """For a person: the word, what is open, and what the probability is worth."""
    text = f"{one.word}; {100 * one.undetected:.2g} % that a weak part is undetected"
    text += f" (simulated, twin {version}, validated on {racks} real racks)"
    return text + (f"; open: {'; '.join(one.why)}" if one.why else "")
