"""NVLink, link by link: down, wrong, flapping, or with less margin than its peers. Parents first, and never one end alone.

The readings are those of the GPU's end. What many links of a GPU show is the GPU's, what the GPUs of a tray show is the
tray's connector or seat, and what is left is one link between two ends. Where a link ends is not public: where it was read
(check `link-ends`), what links of many trays share is the chip or the switch tray that they end in; else it is a link number, so
the rack is named and the number said.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from burnin.events import Finding, Severity
from burnin.rack.parts import parent, tray_of
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import MIN_TRAYS, Readings
from burnin.signatures.robust import median, medians
from burnin.signatures.zones import Seen, Zone, number
from burnin.telemetry.series import Floats, Series, Stretch

RATES, FEC, PAIRED = "nvlink.ber", "nvlink.fec", "nvlink.paired"
DOWN, ERRORS, RECOVERY, MARGIN = "nvlink.down", "nvlink.errors", "nvlink.recovery", "nvlink.margin"
_ERRORS = {
    "nvlink.effective_errors": "code words that error correction could not mend",
    "nvlink.symbol_errors": "symbols wrong after error correction",
    "nvlink.recovery_failed": "recoveries that failed",
}
_FEW = 3


def down(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Links that are down (FAIL where they stay so to the end), and what shares it (HOLD)."""
    grades: dict[str, tuple[Severity, float, str]] = {}
    known = _known(readings, "nvlink.state")
    for link in known:
        if readings.whole(link, "nvlink.state", Series.lowest) >= 1:
            continue
        values = readings.telemetry.of(link, "nvlink.state").known()
        off = int(np.count_nonzero(values < 1))
        if off:
            stays = bool(values[-1] < 1) and off >= min(number(row, "readings"), values.size)
            grade = Severity.FAIL if stays else Severity.HOLD
            grades[link] = (grade, float(off), f"down in {off} of {values.size} readings{', and to the end' if stays else ''}")
    return _named(DOWN, row, readings, grades, known)


def errors(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Errors that passed the error correction: the vendor's rule is none at all."""
    out = []
    for metric, what in _ERRORS.items():
        known = _known(readings, metric)
        grown = {link: readings.whole(link, metric, Series.growth) for link in known}
        bad = {
            link: (Severity.FAIL, count, f"{count:.0f} {what}") for link, count in grown.items() if count >= number(row, "floor")
        }
        out += _named(ERRORS, row, readings, bad, known)
    return out


def recovery(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Links that went down and came back by themselves: once is written down, twice holds."""
    known = _known(readings, "nvlink.recovery_ok")
    grown = {link: readings.whole(link, "nvlink.recovery_ok", Series.growth) for link in known}
    bad = {
        link: (
            Severity.HOLD if count >= number(row, "floor") else Severity.WATCH,
            count,
            f"recovered by itself {count:.0f} times",
        )
        for link, count in grown.items()
        if count >= 1
    }
    return _named(RECOVERY, row, readings, bad, known)


def rates(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Error rates behind the correction: the vendor's limit of the effective one fails, any symbol rate above its limit holds."""
    out = []
    rules = (("nvlink.effective_ber", "effective", Severity.FAIL), ("nvlink.symbol_ber", "symbol", Severity.HOLD))
    for metric, name, grade in rules:
        known = _known(readings, metric)
        worst = {link: readings.whole(link, metric, Series.highest) for link in known}
        bad = {
            link: (grade, rate, f"{metric.split('.')[1]} {rate:.2g}, limit {number(row, name):.2g}")
            for link, rate in worst.items()
            if rate > number(row, name)
        }
        out += _named(RATES, row, readings, bad, known)
    return out


def tails(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Code words that needed nearly all the correction there is: random errors never do, so any of them are bursts.

    From bins of the histogram, or from one count of its tail where telemetry has that instead.
    """
    grown: dict[str, float] = {}
    for metric in row.signals:
        for link in _known(readings, metric):
            count = readings.whole(link, metric, Series.growth)
            if count == count:
                grown[link] = grown.get(link, 0.0) + count
    bad = {
        link: (Severity.HOLD, count, f"{count:.0f} code words near the end of what can be corrected")
        for link, count in grown.items()
        if count >= number(row, "floor")
    }
    return _named(FEC, row, readings, bad, grown)


def paired(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Raw error rates that changed between the first load and the last: the same link is its own control."""
    loads = [load for load in readings.telemetry.phase("load") if "@" not in load.phase]
    if len(loads) < 2:
        return []
    first, last = (readings.once(MARGIN, load, partial(decades_of, readings, load)) for load in (loads[0], loads[-1]))
    change = last - first
    if not change.size or not readings.enough(medians(change)):
        return []
    family = readings.spread(PAIRED, "load", change - median(change), number(row, "sigma_min"))
    names = [f"{gpu}.l{i}" for gpus in readings.gpus for gpu in gpus for i in range(change.shape[2])]
    seen = zones.parts(row, loads[-1].stage, names, change.ravel(), family)
    return zones.findings(
        PAIRED, row, zones.collect([seen]),
        lambda s: f"its raw bit error rate rose by {s.excess:.1f} decades more than that of other links since the first load",
    )  # fmt: skip


def _known(readings: Readings, metric: str) -> list[str]:
    """Links that were read; none where the profile knows of none (an idle port of a lone GPU is not a fault)."""
    if not readings.topology.links_per_gpu:
        return []
    gpus = {gpu for row in readings.gpus for gpu in row}
    return [link for link in readings.telemetry.parts(metric) if parent(link) in gpus]


def _named(
    name: str, row: SignatureRow, readings: Readings, bad: Mapping[str, tuple[Severity, float, str]], known: Collection[str]
) -> list[Finding]:
    """Findings on the highest parts that share what links show; links keep their own grade, parents are HOLD at most."""
    out = []
    left = dict(bad)
    for part, links, what in _parents(
        readings, [link for link, (grade, _, _) in bad.items() if grade is not Severity.WATCH], known
    ):
        example = bad[links[0]][2]
        why = f"{len(links)} links share it ({what}); {links[0]}: {example}"
        one = zones.policy(name, row, part, Severity.HOLD, float(len(links)), why, links=links[:24])
        out.append(_of_switch(zones.doing(one, _ACTIONS[what.split()[0]].format(part=part))))
        for link in links:
            left.pop(link, None)
    for link, (grade, value, text) in sorted(left.items()):
        port = readings.ports.get(link)
        text = f"{text}; its other end is {port}" if port else text
        out.append(zones.policy(name, row, link, grade, value, text, **({"port": port} if port else {})))
    return out


def _of_switch(one: Finding) -> Finding:
    """With the switch tray as what is pulled, where a chip or a switch tray is named."""
    return replace(one, fru="NVLink switch tray") if is_switch(one.part) else one


def is_switch(part: str) -> bool:
    """True for a switch tray and its chips."""
    return part.startswith("s")


_ACTIONS = {
    "most": "look at fabric manager, switch trays and their power before any single part",
    "ends": "look at power, coolant and firmware of {part}, reset it, run again; if it stays, swap it with another switch tray",
    "link": "look at the switch plane and cartridge behind this link number; swap a switch tray to tell them apart",
    "GPUs": "re-seat {part} in its cartridge connectors once, then run again; if it stays, inspect pins, then the board",
    "links": "reset {part} and run again; compare the far ends of its links, then swap trays before replacing the board",
}


def _parents(readings: Readings, bad: list[str], known: Collection[str]) -> Iterator[tuple[str, list[str], str]]:
    """(part, links, what they share), highest first; links that nothing shares are not given."""
    left = set(bad)
    per_gpu, of_gpu = Counter(map(parent, bad)), Counter(map(parent, known))
    whole = [gpu for gpu in of_gpu if per_gpu[gpu] * 2 >= of_gpu[gpu]]
    if len(whole) * 2 > len(of_gpu) and len(of_gpu) > _FEW:
        yield "rack", sorted(left), "most links of most GPUs"
        return
    for part, links, what in _far_ends(readings, left, known):
        left -= set(links)
        yield part, links, what
    planes = Counter(link.rsplit(".", 1)[1] for link in left)
    measured = Counter(link.rsplit(".", 1)[1] for link in known)
    for plane, count in sorted(planes.items()):
        if count > 2 * _FEW and count * 2 >= measured[plane]:
            links = sorted(link for link in left if link.endswith("." + plane))
            left -= set(links)
            yield "rack", links, f"link number {plane[1:]} on GPUs of many trays"
    many = {gpu for gpu, count in Counter(map(parent, left)).items() if count >= _FEW and count * 4 >= of_gpu[gpu]}
    for tray, gpus in zip(readings.trays, readings.gpus, strict=True):
        here = [gpu for gpu in gpus if of_gpu[gpu]]
        shared = [gpu for gpu in here if gpu in many]
        if len(shared) > 1 and len(shared) * 4 >= len(here) * 3:
            yield tray, sorted(link for link in left if link.startswith(tray + ".")), "GPUs of one tray"
            left -= {link for link in left if link.startswith(tray + ".")}
        else:
            for gpu in shared:
                yield gpu, sorted(link for link in left if link.startswith(gpu + ".")), "links of one GPU"
                left -= {link for link in left if link.startswith(gpu + ".")}


def _far_ends(readings: Readings, bad: Collection[str], known: Collection[str]) -> list[tuple[str, list[str], str]]:
    """Chips, or whole switch trays, in which so many bad links end that it is not theirs alone; none where no port was read."""
    chips = {link: str(parent(readings.ports[link])) for link in known if link in readings.ports}
    of, here = Counter(chips.values()), Counter(chips[link] for link in bad if link in chips)
    hit = {chip for chip, count in here.items() if count > 2 * _FEW and count * 2 >= of[chip]}
    out = []
    for tray in sorted({tray_of(chip) for chip in hit}):
        ends = [chip for chip in sorted(hit) if tray_of(chip) == tray]
        whole = len(ends) > 1 and len(ends) == sum(tray_of(chip) == tray for chip in of)
        for part in [tray] if whole else ends:
            mine = sorted(link for link in bad if chips.get(link) in (ends if whole else [part]))
            out.append((part, mine, f"ends in {'the chips of one switch tray' if whole else 'one NVSwitch chip'}"))
    return out


# ---------------------------------------------------------------- margin


def margin(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Margin below that of peers, by raw bit errors: planes, trays, GPUs, then links, each less what is above it."""
    looks = [
        (load, readings.once(MARGIN, load, partial(decades_of, readings, load))) for load in readings.telemetry.phase("load")
    ]
    looks = [(load, ber) for load, ber in looks if ber.size and readings.enough(medians(ber))]
    alone = [readings.once("links apart", load, partial(_alone, readings, ber)) for load, ber in looks]
    far = (
        np.flatnonzero(np.any([links.ravel() >= number(row, "floor") for links in alone], axis=0)) if looks else np.empty(0, int)
    )
    seen = [_margins(readings, row, load, ber, far) for load, ber in looks]
    out = sorted({part for stage in seen for part, one in stage.items() if one.zone > Zone.FAMILY})  # of 1400 parts a few
    parts, planes = (
        [{part: stage[part] for part in out if part in stage and _shared(part) is shared} for stage in seen]
        for shared in (False, True)
    )

    def why(one: Seen) -> str:
        return f"raw bit error rate 10^{one.value:.1f}, {one.excess:.1f} dB less margin than its peers"

    shared = zones.findings(MARGIN, row, zones.collect(planes), why)
    return [
        *zones.findings(MARGIN, row, zones.collect(parts), why),
        *(_named_plane(one) for one in shared),
    ]


def _shared(part: str) -> bool:
    return "#" in part or is_switch(part)


def _named_plane(one: Finding) -> Finding:
    if "#" in one.part:
        return zones.on(one, "rack", f"link number {one.part.split('#')[1]} of all GPUs: ")
    return zones.doing(_of_switch(zones.on(one, one.part, "the links that end in it: ")), _ACTIONS["ends"].format(part=one.part))


def decades_of(readings: Readings, load: Stretch) -> Floats:
    """log10 of the mean raw bit error rate, by tray, slot and link; NaN where it was not read or says 0 (no link does)."""
    links = readings.topology.links_per_gpu or 0
    names = [f"{gpu}.l{link}" for gpu in readings.all_gpus for link in range(links)]
    mean = readings.means("link", names, "nvlink.raw_ber", load)
    return np.log10(np.where(mean > 0, mean, np.nan)).reshape(len(readings.trays), readings.topology.gpus_per_tray, links)


def lost_db(decades: Floats) -> Floats:
    """log10 of raw bit error rates -> margin lost in dB, but for a constant.

    A receiver of PAM4 in Gaussian noise errs at 3/8 erfc(x), x^2 going with the power ratio: healthy links that are normal in dB
    are so here, and not in decades, nor by the logarithm of decades, in which they look heavy-tailed. x by fixed point, with
    erfc(x) = 2 exp(-x^2) / (sqrt(pi) (x + sqrt(x^2 + 4 / pi))) to 1 %, hence 0.01 dB.
    """
    level = -math.log(10) * np.where(decades < _CHANCE, decades, np.nan) + math.log(0.75 / math.sqrt(math.pi))
    square = level.copy()
    for _ in range(12):
        square = np.maximum(level - np.log(np.sqrt(square) + np.sqrt(square + 4 / math.pi)), 0.01)
    out: Floats = -10 * np.log10(square)
    return out


_CHANCE = math.log10(0.375)


def _margins(readings: Readings, row: SignatureRow, load: Stretch, decades: Floats, far: NDArray[np.int64]) -> dict[str, Seen]:
    """Planes (as rack#number), trays, GPUs and links, each against its peers less what is above it; values stay decades.
    `far`: links that are beyond the floor in any stretch."""
    count, least = decades.shape[2], number(row, "sigma_min")
    ber = lost_db(decades)
    per_db = (10 ** (-median(ber.ravel()) / 10) + 0.5) / 10  # d log10(rate) / d dB of 3/8 erfc

    def among(
        what: str, names: list[str], value: Floats, apart: Floats, only: NDArray[np.int64] | None = None
    ) -> dict[str, Seen]:
        if what == "gpu":
            family = readings.family(f"{MARGIN}.{what}", load.phase, apart, least)
        else:
            family = readings.spread(f"{MARGIN}.{what}", load.phase, apart, least)
        return zones.parts(_of_level(row, what), load.stage, names, value.ravel(), family, per=per_db, only=only)

    numbers, group = _planes(readings, count)
    planes, rest = _less_planes(ber, numbers, group)
    gpu = medians(rest)
    tray = medians(readings.placed(f"{MARGIN}.gpu", load.phase, gpu))
    tray = tray - median(tray)
    names = readings.all_gpus
    out = among("plane", numbers, medians(_grouped(decades, group, len(numbers))), planes - median(planes))
    trays = among("tray", readings.trays, medians(medians(decades)), tray)
    for i, name in enumerate(readings.trays):
        if name in trays and trays[name].zone > Zone.FAMILY:
            gpu[i] = gpu[i] - tray[i]
    out |= trays | among("gpu", names, medians(decades), gpu)
    links = [f"{name}.l{i}" for name in names for i in range(count)]
    for link, s in among("link", links, decades, rest - medians(rest)[:, :, None], far).items():
        near = s.zone is Zone.WATCH and s.value >= number(row, "near")
        out[link] = s._replace(zone=Zone.HOLD) if near else s
    hot = [i for i, name in enumerate(numbers) if name in out and out[name].zone > Zone.FAMILY]
    told = {links[i] for i in np.flatnonzero(np.isin(group, hot))} if hot else set()
    return {part: s for part, s in out.items() if part not in told}


def _less_planes(ber: Floats, numbers: list[str], group: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(what links have that share a far end, what each has beyond that), in dB."""
    planes = medians(_grouped(ber, group, len(numbers)))
    return planes, ber - planes[group].reshape(ber.shape)


def _alone(readings: Readings, decades: Floats) -> Floats:
    """What each link has beyond its far end and its GPU, in dB."""
    _, rest = _less_planes(lost_db(decades), *_planes(readings, decades.shape[2]))
    out: Floats = rest - medians(rest)[:, :, None]
    return out


def _of_level(row: SignatureRow, what: str) -> SignatureRow:
    """The row with the `sure` of planes, trays, GPUs or links, where it has one."""
    own = row.limits.get(f"sure_{what}")
    return row.model_copy(update={"limits": {**row.limits, "sure": own}}) if own is not None else row


def _planes(readings: Readings, count: int) -> tuple[list[str], NDArray[np.int64]]:
    """(what links share at their other ends, which of them each link has): chips where all ports are known, else link numbers."""
    numbers = np.tile(np.arange(count), len(readings.all_gpus))
    if len(readings.ports) < numbers.size:
        return [f"rack#{i}" for i in range(count)], numbers
    chips = [str(parent(readings.ports.get(f"{gpu}.l{i}", "rack"))) for gpu in readings.all_gpus for i in range(count)]
    names = sorted(set(chips))
    if "None" in names or len(names) < MIN_TRAYS:
        return [f"rack#{i}" for i in range(count)], numbers
    return names, np.array([names.index(chip) for chip in chips])


def _grouped(values: Floats, group: NDArray[np.int64], groups: int) -> Floats:
    """A row for each group, filled up with NaN."""
    out = np.full((groups, int(np.bincount(group, minlength=groups).max(initial=0))), np.nan)
    for i in range(groups):
        mine = values.ravel()[group == i]
        out[i, : mine.size] = mine
    return out
