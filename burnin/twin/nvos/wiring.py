"""Who plugs where in a twin rack: every NVLink to a port of an NVSwitch, drawn from the seed. Only NVOS and NVML tell it.

Link numbers are dealt to chips, and on each chip GPUs to ports, so that no rule in a reader can guess it. A chip's port number
stands on its part id (s3.a1.p44); its NVOS name (acp17) is dealt as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from burnin.twin.identity import RackId
from burnin.twin.model import Model


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a switch tray: its NVOS name, chip (from 0) and number on it; the link it ends (t07.g2.l13)."""

    name: str
    asic: int
    number: int
    link: str

    def part(self, tray: str) -> str:
        """s3.a1.p44"""
        return f"{tray}.a{self.asic}.p{self.number}"


def wire(model: Model, seed: int) -> dict[str, tuple[Port, ...]]:
    """Switch tray -> its ports, acp1 first; empty where the profile's links do not spread evenly over its switch trays."""
    topology, links = model.topology, model.gpu.nvlinks
    if not topology.switch_trays or links % topology.switch_trays:
        return {}
    chance = Random(f"{model.profile}/{seed}/wiring")
    asics = links // topology.switch_trays
    gpus = [gpu for tray in topology.trays() for gpu in topology.gpus(tray)]
    planes = list(range(links))
    chance.shuffle(planes)
    out = {}
    for at, tray in enumerate(topology.switches()):
        ends = [(asic, number) for asic in range(asics) for number in range(len(gpus))]
        dealt = {asic: chance.sample(gpus, len(gpus)) for asic in range(asics)}
        chance.shuffle(ends)
        out[tray] = tuple(
            Port(f"acp{n}", asic, number, f"{dealt[asic][number]}.l{planes[at * asics + asic]}")
            for n, (asic, number) in enumerate(ends, 1)
        )
    return out


def guid(rack: RackId, tray: str, asic: int) -> str:
    """An NVSwitch's GUID."""
    return f"0x{Random(f'{rack.chassis}/{tray}/a{asic}').getrandbits(48) | 0x9C63 << 48:016x}"
