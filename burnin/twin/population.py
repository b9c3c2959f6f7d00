"""One rack as arrays: its GPUs' own factors, its links' margins, what healthy parts do over hours. Drawn from a seed.

Silicon and trays are those that `physics.draw` gives the live rack of the same seed. GPUs are in the order t00.g0, t00.g1 ...;
arrays of GPUs have one row each, and columns where they change with time (knots).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
from ruamel.yaml import YAML

from burnin.rack.parts import tray_of
from burnin.rack.schema import Data
from burnin.telemetry.series import Floats
from burnin.twin import laws, physics
from burnin.twin.faults import Plant
from burnin.twin.model import Model
from burnin.twin.physics import GpuDraw, Tails, TrayDraw

LINKS = 18
"""NVLinks of a GPU of an NVL72."""


class Bursts(Data):
    """Errors that come together on a link whose margin is lost, more than correction mends (see `bursts_per_s`)."""

    at_db: float
    per_s: float
    decades_per_db: float
    most_per_s: float
    words: float


class LinkSpread(Data):
    """Margins of NVLinks, dB."""

    snr_db: float
    snr_sd: float
    gpu_sd: float
    asic_sd: float
    connector_sd: float
    length_sd: float
    repeat_decades: float
    burst: Bursts
    mbps: int
    idle_share: float


class MemorySpread(Data):
    """Corrected errors of a fleet: gamma distributed rates."""

    dram_ce_per_h: float
    dram_ce_shape: float
    sram_ce_per_h: float
    sram_ce_shape: float


class Soak(Data):
    """What temperatures do over hours."""

    creep_k_per_day: float
    wander_k: float
    supply_swing_k: float
    supply_swing_s: float
    supply_creep_k_per_day: float
    settle_k: float
    settle_s: float


class LoadSpread(Data):
    """How fast healthy GPUs work and copy."""

    launches_per_s: float
    rate_sd: float
    rate_repeat: float
    copy_sd: float
    copy_repeat: float


class RackFacts(Data):
    """What stands around the GPUs."""

    misc_w: float
    nic_c: float
    nvme_c: float


class Population(Data):
    """The file data/population.yaml."""

    links: LinkSpread
    memory: MemorySpread
    soak: Soak
    load: LoadSpread
    rack: RackFacts


@cache
def population() -> Population:
    """Spreads and habits of healthy parts."""
    return Population.model_validate(YAML(typ="safe").load(Path(__file__).parent / "data" / "population.yaml"))


@dataclass(frozen=True)
class Chance:
    """One stream of chance per purpose, so that what one thing draws never changes what another gets."""

    seed: int
    tails: Tails = "normal"

    def stream(self, purpose: str) -> np.random.Generator:
        """Readings' noise and the like."""
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence([self.seed, crc32(purpose.encode())])))

    def parts(self, purpose: str, *shape: int) -> Floats:
        """How parts differ: standard normal, or t5 of the same standard deviation."""
        stream = self.stream(purpose)
        out: Floats = stream.standard_normal(shape) if self.tails == "normal" else stream.standard_t(5, shape) * np.sqrt(3 / 5)
        return out


@dataclass(frozen=True)
class Silicon:
    """The factors of `physics.GpuDraw`, one row per GPU, and the tray's flow as a share of nominal. Columns: knots, or one."""

    capacitance: Floats
    voltage: Floats
    leakage: Floats
    tim: Floats
    plate: Floats
    convection: Floats
    temp_offset_k: Floats
    hbm_offset_k: Floats
    power_gain: Floats
    clock_max_mhz: Floats
    hbm: Floats
    loss: Floats
    flow: Floats


def silicon(model: Model, trays: dict[str, TrayDraw]) -> Silicon:
    """Arrays of shape (GPUs, 1)."""
    gpus = [gpu for tray in trays.values() for gpu in tray.gpus]
    flow = [tray.flow_lpm / model.coolant.tray_lpm for tray in trays.values() for _ in tray.gpus]
    own = {f.name: np.array([[getattr(gpu, f.name)] for gpu in gpus], float) for f in fields(GpuDraw)}
    return Silicon(**own, flow=np.array(flow)[:, None])


def planted(model: Model, trays: dict[str, TrayDraw], plants: Sequence[Plant], loaded_s: Floats) -> Silicon:
    """With faults of physics, each from its start on and as it grows; columns are moments (seconds after the first load)
    where one of them moves."""
    base = silicon(model, trays)
    out = {f.name: getattr(base, f.name) for f in fields(Silicon)}
    for plant in plants:
        if tray_of(plant.part) not in trays:
            continue
        weak = silicon(model, physics.weaken(trays, [replace(plant, start_s=None)]))
        part = plant.part_of_full(loaded_s)
        for name, now in out.items():
            by = getattr(weak, name) - getattr(base, name)
            if by.any():
                out[name] = now + by * (part if plant.moves else 1.0)
    return Silicon(**out)


# ---------------------------------------------------------------- links


def far_end(link: int) -> tuple[int, int]:
    """Switch tray and ASIC at the far end of a link number (assumption: in order; NVIDIA publishes no map)."""
    return link // 2, link % 2


def cartridge(link: int) -> int:
    """The cable cartridge that carries a link number (assumption: four cartridges, in order)."""
    return link * 4 // LINKS


def margins(model: Model, chance: Chance, plants: Sequence[Plant]) -> Floats:
    """Signal to noise ratio of every link in dB, shape (GPUs, links), with what was planted taken off."""
    spread = population().links
    trays, per_tray, links = model.topology.compute_trays, model.topology.gpus_per_tray, model.gpu.nvlinks
    gpus = trays * per_tray
    carts = [cartridge(link) for link in range(links)]
    connector = chance.parts("links.connector", trays, 4)[:, carts] if links else np.zeros((trays, 0))
    snr = (
        spread.snr_db
        + spread.snr_sd * chance.parts("links.own", gpus, links)
        + spread.gpu_sd * chance.parts("links.gpu", gpus, 1)
        + spread.asic_sd * chance.parts("links.asic", 1, links)
        + spread.length_sd * chance.parts("links.length", 1, links)
        + spread.connector_sd * np.repeat(connector, per_tray, axis=0)
    )
    for plant in plants:
        for gpu, link in weak_links(model, plant):
            snr[gpu, link] -= plant.severity
    return snr


def weak_links(model: Model, plant: Plant) -> Iterator[tuple[int, int]]:
    """(GPU, link) of the links that lose margin by a fault: one, a GPU's, a cartridge's at a tray, or a switch port's."""
    if plant.kind not in ("link_margin", "cartridge_margin", "switchport_margin"):
        return
    words, per_tray, links = plant.part.split("."), model.topology.gpus_per_tray, model.gpu.nvlinks
    gpus = range(model.topology.compute_trays * per_tray)
    if words[0].startswith("x"):
        yield from ((g, n) for g in gpus for n in range(links) if cartridge(n) == int(words[0][1:]))
    elif words[0].startswith("s"):
        end = (int(words[0][1:]), int(words[1][1:]) if len(words) > 1 else None)
        for n in range(links):
            tray, asic = far_end(n)
            if tray == end[0] and end[1] in (None, asic):
                yield from ((g, n) for g in gpus if len(words) < 3 or g == int(words[2][1:]))
    else:
        gpu = int(words[0][1:]) * per_tray + int(words[1][1:])
        yield from ((gpu, n) for n in range(links) if len(words) < 3 or n == int(words[2][1:]))


WORTH = 5e-5
"""Raw bit error rate below which correction lets not one code word through in a year."""


@cache
def _lost_words() -> tuple[Floats, Floats]:
    """log10 of the raw rate, and of the share of code words lost."""
    x = np.linspace(np.log10(WORTH), -1.0, 200)
    return x, np.log10([laws.code_word_loss(float(10**v)) for v in x])


def post_fec_per_s(raw: Floats, mbps: int) -> Floats:
    """Code words a second that correction cannot mend on a link, for its raw bit error rate."""
    x, y = _lost_words()
    loss = np.where(raw > WORTH, 10 ** np.interp(np.log10(np.maximum(raw, 1e-30)), x, y), 0.0)
    return np.asarray(mbps * 8e6 / 5440 * loss)


def bursts_per_s(lost_db: Floats) -> Floats:
    """Bursts a second that cost code words, of a link that a fault took so much margin from. None where none is lost.

    Real errors behind the correction come in bursts (reference signatures, section 4); how often is not published. Assumed: one
    a second at 3 dB, and 5 decades for each dB: between raw errors (1.1 decades) and random words lost (17).
    """
    burst = population().links.burst
    rate = burst.per_s * 10.0 ** (burst.decades_per_db * (np.minimum(lost_db, 100.0) - burst.at_db))
    return np.where(lost_db > 0, np.minimum(rate, burst.most_per_s), 0.0)
