"""What stands around a twin's GPUs, read by the real agent: all parts are there and healthy, each fault shows in its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from burnin.agent import hostdata, smart
from burnin.agent.host import Roots
from burnin.agent.kernel_log import parse_event
from burnin.rack.schema import Topology
from burnin.twin import hosttree, physics
from burnin.twin.around import FLAP_EVERY_S, SOON_S, Around
from burnin.twin.faults import parse
from burnin.twin.hardware import Hardware
from burnin.twin.host import KernelLog
from burnin.twin.model import Model, load, profiles
from burnin.twin.state import State

PROFILES = profiles()
START = 1_000_000_000_000


def seconds(s: float) -> int:
    return START + int(s * 1e9)


class Bench:
    """A tray's surroundings on the bench, and the agent's sources over them."""

    def __init__(self, where: Path, *plants: str, profile: str = "gb300-nvl72", shared: Path | None = None) -> None:
        self.model: Model = load(profile)
        (where / "root/dev").mkdir(parents=True)
        (where / "root/proc").mkdir()
        self.kmsg = where / "root/dev/kmsg"
        self.kmsg.touch()
        self.log = KernelLog(where, lambda: START)
        self.at = Roots(*(str(where / "root" / name) for name in ("proc", "sys", "dev")))
        self.around = Around("t00", where / "root", self.model, [parse(text) for text in plants], self.log, 1, shared)
        self.around.step(START, None, 0.0)
        gpus = {bdf: f"g{module - 1}" for bdf, module in zip(self.model.gpu.bdf, self.model.gpu.module_id, strict=True)}
        self.sources = hostdata.sources(self.at, gpus)
        self.names = hostdata.names(self.at, gpus)

    def read(self) -> dict[tuple[str, str], float | str]:
        return {
            column: value
            for source in self.sources
            for column, value in zip(source.columns, source.read(), strict=True)
        }  # fmt: skip

    def load(self, begun_s: float, until_s: float) -> None:
        """Full load from `begun_s` on, in steps of 0.1 s."""
        for tenth in range(round(begun_s * 10), round(until_s * 10) + 1):
            self.around.step(seconds(tenth / 10), seconds(begun_s), 1.0)

    def events(self) -> list[tuple[str, str]]:
        """(code, part) of everything that the kernel log says."""
        found = [parse_event(line) for line in self.kmsg.read_text().splitlines()]
        return [(event.code, self.names.get(event.device, "")) for event in found if event is not None]


def counted(readings: Mapping[tuple[str, str], float | str]) -> dict[tuple[str, str], float | str]:
    """Everything that a healthy tray has none of."""
    words = ("edac", "aer_", "flaps", "errors", "timeouts", "warning")
    return {key: value for key, value in readings.items() if any(word in key[1] for word in words)}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_healthy_tray_shows_every_part_and_no_error(tmp_path: Path, profile: str) -> None:
    bench = Bench(tmp_path, profile=profile)
    bench.around.step(seconds(2), None, 0.0)
    machine, got = bench.model.machine, bench.read()
    expected = {f"c{i}" for i in range(machine.sockets)} | {f"n{i}" for i in range(len(machine.nics))}
    expected |= {f"d{i}" for i in range(len(machine.nvmes))} | {f"g{i}" for i in range(bench.model.topology.gpus_per_tray)}
    assert {part for part, _ in got} == expected | {""}
    assert (got["", "host.cpus"], got["", "host.nics"], got["", "host.nvmes"]) == (
        machine.sockets, len(machine.nics), len(machine.nvmes),
    )  # fmt: skip
    assert {value for value in counted(got).values() if not isinstance(value, str)} == {0.0}
    absent = {metric for (part, metric), value in got.items() if isinstance(value, str)}
    no_rasdaemon = {"ras.mc", "ras.aer", "ras.mce"}
    assert absent <= {"cpu.edac_ce", "cpu.edac_ue", "nic.symbol_errors", "nic.crc_errors", "nic.ack_timeouts"} | no_rasdaemon
    assert {value for value in got.values() if isinstance(value, str)} <= {"not_supported"}
    assert 20 < float(got["c0", "cpu.temp"]) < 60 and got["c0", "cpu.temp_limit"] == 105
    for i, card in enumerate(machine.nics):
        assert (got[f"n{i}", "nic.ports_up"], got[f"n{i}", "nic.speed"]) == (card.ports, card.gbps / 8 * card.ports)
        assert bench.names[card.bdf[:-2]] == f"n{i}"
    for i, slot in enumerate(machine.nvmes):
        assert (got[f"d{i}", "pcie.gen"], got[f"d{i}", "pcie.width"]) == (slot.gen, slot.lanes)
        assert (got[f"d{i}", "nvme.spare"], got[f"d{i}", "nvme.used"]) == (1.0, 0.01)
        assert 25 < float(got[f"d{i}", "nvme.temp"]) < 55
    assert bench.events() == []


def test_cpus_warm_up_under_load_and_a_file_that_is_kept_open_shows_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    idle = float(bench.read()["c1", "cpu.temp"])
    bench.load(10, 110)
    assert 10 < float(bench.read()["c1", "cpu.temp"]) - idle < 25


FAULTS = [
    ("cpu_edac:t00:3", {("", "cpu.edac_ue"): 3.0}, {("memory_ue", ""), ("hardware_uncorrected", "")}),
    ("nic_flap:t00.n2:2", {("n2", "nic.link_flaps"): 2.0}, {("nic_link_down", "n2")}),
    ("nic_flap:t00.n4:2", {("n4", "nic.link_flaps"): 2.0}, {("nic_link_down", "n4")}),
    ("nvme_media:t00.d3:5", {("d3", "nvme.media_errors"): 5.0}, {("nvme_media", "d3")}),
    ("pcie_replay:t00.g2:10", {("g2", "pcie.aer_correctable"): 260.0}, set()),
    ("pcie_replay:t00.n1:10", {("n1", "pcie.aer_correctable"): 260.0}, set()),
    ("pcie_downtrain:t00.n0", {}, set()),
]


@pytest.mark.parametrize(("plant", "shows", "says"), FAULTS, ids=[plant for plant, _, _ in FAULTS])
def test_each_fault_shows_where_it_was_planted_and_nowhere_else(
    tmp_path: Path, plant: str, shows: dict[tuple[str, str], float], says: set[tuple[str, str]]
) -> None:
    bench = Bench(tmp_path, plant)
    assert set(counted(bench.read()).values()) <= {0.0, "not_supported"}, "nothing happens before the load"
    bench.load(10, 10 + SOON_S + 26)
    got = counted(bench.read())
    assert {key: value for key, value in got.items() if value not in (0.0, "not_supported")} == shows
    assert set(bench.events()) == says


def test_a_link_that_flaps_is_down_for_a_while_each_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "nic_flap:t00.n0:2")
    ports = []
    for tenth in range(0, int(SOON_S + 3 * FLAP_EVERY_S) * 10, 5):
        bench.around.step(seconds(tenth / 10), START, 1.0)
        got = bench.read()
        ports.append((got["n0", "nic.ports_up"], got["n0", "nic.speed"]))
    changes = [now for before, now in pairwise(ports) if before != now]
    assert changes == [(0.0, 0.0), (1.0, 100.0)] * 2


@pytest.mark.parametrize(("plant", "part", "lanes"), [("t00.n0", "n0", 8), ("t00.d1:0.6", "d1", 1), ("t00.d1", "d1", 2)])
def test_a_downtrained_link_has_fewer_lanes_than_both_ends_could(tmp_path: Path, plant: str, part: str, lanes: int) -> None:
    got = Bench(tmp_path, f"pcie_downtrain:{plant}").read()
    assert (got[part, "pcie.width"], got[part, "pcie.width_max"]) == (lanes, 16 if part == "n0" else 4)
    assert [p for (p, metric), v in got.items() if metric == "pcie.width" and v != got[p, "pcie.width_max"]] == [part]


def test_the_drives_health_log_is_the_one_of_the_standard(tmp_path: Path) -> None:
    Bench(tmp_path)
    page = (tmp_path / "root/dev/nvme0").read_bytes()
    assert len(page) == smart.SIZE
    assert smart.parse(page)._replace(temp_c=0) == smart.Health(0, 0, 1.0, 0.01, 0)


def test_faults_of_other_trays_do_not_happen_here(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "cpu_edac:t01", "nic_flap:t07.n0", "pcie_downtrain:t01.n0")
    bench.load(10, 30)
    assert set(counted(bench.read()).values()) <= {0.0, "not_supported"}


def test_the_twin_knows_its_own_topology() -> None:
    for name in PROFILES:
        model = load(name)
        assert isinstance(model.topology, Topology)
        assert [card.bdf for card in model.machine.nics] == sorted(card.bdf for card in model.machine.nics)
        assert [slot.bdf for slot in model.machine.nvmes] == sorted(slot.bdf for slot in model.machine.nvmes)


def test_trays_without_a_fault_here_share_what_does_not_move(tmp_path: Path) -> None:
    """They read like a tray with a tree of its own, and a tray with a fault has one of its own."""
    hosttree.furnish(hosttree.Tree(tmp_path / "shared"), load("gb300-nvl72"))
    own = Bench(tmp_path / "own")
    plain, flapping = (
        Bench(tmp_path / name, *plants, shared=tmp_path / "shared")
        for name, plants in (("plain", ()), ("weak", ("nvme_media:t00.d1",)))
    )
    assert plain.read() == own.read()
    assert plain.names == own.names
    flapping.load(0, SOON_S + 1)
    assert flapping.read()["d1", "nvme.media_errors"] == 2.0
    assert plain.read() == own.read()
    written = [one for one in (tmp_path / "plain").rglob("*") if not one.is_symlink()]
    assert len(written) < 80, "links are cheap; the tree of its own has hundreds of files"


def test_the_silicon_carries_its_surroundings_along(tmp_path: Path) -> None:
    """Work on the GPUs warms the CPUs, and starts the clock of the faults."""
    bench = Bench(tmp_path, "cpu_edac:t00:7")
    state = State.create(str(tmp_path / "state"), bench.model.topology.gpus_per_tray)
    draw = physics.draw(bench.model, 1)["t00"]
    hardware = Hardware("t00", bench.model, draw, (), state, bench.log, 1, bench.around)
    cold = float(bench.read()["c0", "cpu.temp"])
    for gpu in range(bench.model.topology.gpus_per_tray):
        slot = state.take_slot(os.getpid(), gpu)
        slot["activity_ppm"], slot["busy_ns"], slot["end_ns"] = 1_000_000, 60_000_000_000, seconds(60)
    for tenth in range(1, 600):
        hardware.step(seconds(tenth / 10))
    got = bench.read()
    assert float(got["c0", "cpu.temp"]) > cold + 8
    assert got["", "cpu.edac_ue"] == 7.0


def test_cores_that_work_show_in_stat_and_warm_the_cpu_and_no_other_do(tmp_path: Path) -> None:
    """Processes that take 7 of 8 cores for a minute, then none."""
    bench = Bench(tmp_path)
    bench.load(0, 1)
    bench.read()
    for s in range(2, 302):
        bench.around.step(seconds(s), seconds(0), 1.0)
    only_gpus = bench.read()
    for s in range(302, 602):
        bench.around.step(seconds(s), seconds(0), 1.0, 7.0 * (s - 301))
    with_cores = bench.read()
    for s in range(602, 902):
        bench.around.step(seconds(s), seconds(0), 0.0, 7.0 * 300)
    after = bench.read()
    assert float(only_gpus["", "cpu.util"]) < 0.1
    assert 0.87 < float(with_cores["", "cpu.util"]) < 0.95
    assert float(after["", "cpu.util"]) == 0.0
    assert float(with_cores["c0", "cpu.temp"]) > float(only_gpus["c0", "cpu.temp"]) + 4
    assert float(after["c0", "cpu.temp"]) < float(only_gpus["c0", "cpu.temp"])
