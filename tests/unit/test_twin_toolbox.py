"""The rest of a twin tray's tools: real forms, from the tray's own state, read by the product's own checks and parsers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Evidence
from burnin.checks.tools import PARSERS, Outcome, Reading
from burnin.errors import InputError
from burnin.events import Measurement, Result
from burnin.twin import identity
from burnin.twin.faults import parse
from burnin.twin.model import load, with_tools
from burnin.twin.tools.main import said
from burnin.twin.tools.versions import VERSIONS
from tests.sampled import some
from tests.unit.test_checks_tools import context
from tests.unit.twin_rack import Ward, ward

PEERS = {f"t{n:02}": True for n in range(18)}
GOOD = (Outcome.PASS, Outcome.MEASURED)
PORTS = [f"mlx5_{n}/1" for n in range(5)]


class Tools:
    """Tray t00 of a rack with these faults, loaded for `seconds`, and what its tools say."""

    def __init__(self, where: Path, *plants: str, seconds: float = 30, tools: dict[str, str] | None = None) -> None:
        self.rack: Ward = ward(where, *plants)
        if seconds:
            self.rack.load(1.0, os.getpid())
            self.rack.run(seconds, 0.5)
        planted, model = [parse(text) for text in plants], with_tools(self.rack.model, tools or {})
        built = identity.build(model, 1)
        standing = identity.swap(model, built, 1, planted)["t00"]
        bits = sum(int(plant.severity) for plant in planted if plant.kind == "host_bits")
        self.facts: dict[str, Any] = identity.for_emulation(model, standing, built.cluster_uuid)
        self.facts |= {"at": str(where / "t00"), "address": "127.0.1.1", "host_bits": bits}
        (where / "t00/tray.json").write_text(json.dumps(self.facts))

    def say(self, *words: str) -> tuple[str, str, int]:
        found = said(words[0], list(words[1:]), self.facts, self.rack.gpus, PEERS)
        assert found is not None
        return found

    def read(self, parser: str, *words: str) -> Reading:
        out, err, code = self.say(*words)
        return PARSERS[parser](out, code, err)

    def judged(self, name: str, **args: Any) -> list[Measurement]:
        """What the check says of t00."""
        who = {"gpus": [{"gpu": f"g{own['position']}", "index": own["index"], "bdf": own["bdf"]} for own in self.facts["gpus"]]}
        ctx, rounds = replace(context(name, **args), tray="t00"), list[list[Answer]]()
        while orders := CHECKS[name].orders(ctx, rounds):
            (order,) = orders
            if order.verb == "identify":
                rounds.append([Answer(order, True, who)])
                continue
            words = list(order.args["argv"]) if order.verb == "program" else order.args["script"].replace("'", "").split()[2:]
            out, err, code = self.say(*words)
            body = {"exit": code, "stdout": out, "stderr": err, "ended": "", "signal": None, "cut": False}
            rounds.append([Answer(order, True, body)])
        return CHECKS[name].judge(ctx, Evidence(answers=rounds))


def open_ones(found: Iterable[Measurement]) -> set[tuple[str, str, str]]:
    """(name, part, result) of all that is not PASS, but for values that nobody has a limit for."""
    return {(m.name, m.part, m.result.value) for m in found if m.result is not Result.PASS and "no limit" not in (m.why or "")}


ALL: dict[str, dict[str, Any]] = {
    "gpu-burn": {}, "hpl": {}, "stress-ng": {}, "stream": {}, "fio": {"device": "/dev/nvme1n1"}, "nvme-smart": {}, "mlxlink": {},
    "ibstat": {"ports": PORTS}, "ipmi-sel": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return Tools(tmp_path_factory.mktemp("healthy") / "rack")


@pytest.mark.parametrize("check", ALL)
def test_a_healthy_tray_is_well_by_every_tool(healthy: Tools, check: str) -> None:
    got = [m for m in healthy.judged(check, **ALL[check]) if m.name.endswith((".verdict", ".ports"))]
    assert got
    assert {m.result for m in got} == {Result.PASS}, [(m.name, m.part, m.why) for m in got]


FOUND = [
    ("sdc:t00.g1:0.2", "gpu-burn", ("gpu-burn.verdict", "t00.g1", "FAIL")),
    ("sdc:t00.g3:0.001", "gpu-burn", ("gpu-burn.verdict", "t00.g3", "FAIL")),
    ("sdc:t00.g0:0.3", "hpl", ("hpl.verdict", "t00", "FAIL")),
    ("sdc:t00.g2:0.05", "hpl", ("hpl.verdict", "t00", "FAIL")),
    ("host_bits:t00:1", "stress-ng", ("stress-ng.verdict", "t00", "FAIL")),
    ("host_bits:t00:900", "stress-ng", ("stress-ng.verdict", "t00", "FAIL")),
    ("host_bits:t00:3", "stream", ("stream.verdict", "t00", "FAIL")),
    ("nvme_media:t00.d1:1", "fio", ("fio.verdict", "t00", "FAIL")),
    ("nvme_media:t00.d1:60", "fio", ("fio.verdict", "t00", "FAIL")),
    ("nvme_media:t00.d0:3", "nvme-smart", ("nvme-smart.verdict", "t00.d0", "UNKNOWN")),
    ("nvme_media:t00.d4:50", "nvme-smart", ("nvme-smart.verdict", "t00.d4", "UNKNOWN")),
    ("nic_down:t00.n0:2", "mlxlink", ("mlxlink.verdict", "t00.n0", "FAIL")),
    ("nic_down:t00.n4:20", "mlxlink", ("mlxlink.verdict", "t00.n4", "FAIL")),
    ("nic_down:t00.n3:9", "ibstat", ("ibstat.ports", "t00", "FAIL")),
    ("cpu_edac:t00:1", "ipmi-sel", ("ipmi-sel.verdict", "t00", "UNKNOWN")),
    ("leak:t00:300", "ipmi-sel", ("ipmi-sel.verdict", "t00", "UNKNOWN")),
]


@pytest.mark.parametrize(("plant", "check", "wanted"), some(FOUND), ids=[f"{check} {plant}" for plant, check, _ in FOUND])
def test_what_is_planted_is_found_on_its_part(tmp_path: Path, plant: str, check: str, wanted: tuple[str, str, str]) -> None:
    found = open_ones(Tools(tmp_path / "rack", plant).judged(check, **ALL[check]))
    assert wanted in found
    assert {part for _, part, result in found if result == "FAIL"} <= {wanted[1]}


NEAR = [
    ("slow_gpu:t00.g1:0.3", "gpu-burn"), ("tim_void:t00.g1:1", "hpl"), ("cpu_edac:t00:9", "stress-ng"),
    ("cpu_hot:t00.c0:20", "stream"),
    ("nvme_media:t00.d2:5", "fio"), ("nic_down:t00.n1:3", "nvme-smart"), ("nic_flap:t00.n1:2", "mlxlink"),
    ("host_bits:t00:9", "ipmi-sel"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "check"), NEAR)
def test_the_neighbouring_fault_is_not_these_tools_to_find(tmp_path: Path, plant: str, check: str) -> None:
    got = [m for m in Tools(tmp_path / "rack", plant).judged(check, **ALL[check]) if m.name.endswith(".verdict")]
    assert {m.result for m in got} == {Result.PASS}, [(m.name, m.part, m.why) for m in got]


def test_what_moves_a_value_moves_the_tools_number(tmp_path: Path, healthy: Tools) -> None:
    """HPL goes at the slowest GPU's pace, fio and RDMA at their PCIe link's."""
    slow = Tools(tmp_path / "slow", "slow_gpu:t00.g2:0.25", "pcie_downtrain:t00.d1:0.6", seconds=2)

    def value(tools: Tools, check: str, name: str) -> float:
        found = next(m.value for m in tools.judged(check, **ALL[check]) if m.name == name)
        assert isinstance(found, float)
        return found

    assert value(slow, "hpl", "hpl.gflops") < 0.85 * value(healthy, "hpl", "hpl.gflops")
    assert value(slow, "fio", "fio.read") == pytest.approx(value(healthy, "fio", "fio.read") / 4, rel=1e-3)


# ---------------------------------------------------------------- both ends of a network test


def written(one: Tools, other: Tools, address: str) -> tuple[Reading, Reading]:
    """ib_write_bw between two trays."""
    port, ends = "18977", dict[str, Reading]()
    words = ("ib_write_bw", "-d", "mlx5_0", "-p", port, "--report_gbits", "-a", "-F")

    def serve() -> None:
        ends["server"] = other.read("ib_write_bw", *words)

    thread = threading.Thread(target=serve)
    thread.start()
    client = one.read("ib_write_bw", *words, address)
    thread.join(20)
    return client, ends["server"]


@pytest.mark.parametrize(("plant", "low", "high"), [("wrong_serial:t00", 90.0, 100.0), ("pcie_downtrain:t00.n0:0.9", 5.0, 8.0)])
def test_two_cards_write_as_fast_as_the_slower_of_them(tmp_path: Path, plant: str, low: float, high: float) -> None:
    near, far = Tools(tmp_path / "a", seconds=0), Tools(tmp_path / "b", plant, seconds=0)
    near.facts["nics"], far.facts["nics"] = {"ib_mlx5_0": [0, "127.0.0.1"]}, {"ib_mlx5_0": [0, "127.0.0.2"]}
    for one, other, address in ((near, far, "127.0.0.2"), (far, near, "127.0.0.1")):
        client, server = written(one, other, address)
        assert client.outcome in GOOD and server.outcome in GOOD, (client.whys, server.whys)
        best = [row.value for row in client.rows if row.name == "bandwidth"][-1]
        assert isinstance(best, float) and low < best < high


def test_a_port_that_is_down_writes_nothing(tmp_path: Path) -> None:
    dark = Tools(tmp_path / "rack", "nic_down:t00.n0:1")
    reading = dark.read("ib_write_bw", "ib_write_bw", "-d", "mlx5_0", "-p", "18978", "--report_gbits", "-a", "-F", "127.0.0.1")
    assert reading.outcome is Outcome.ERROR
    assert any("Down" in why for why in reading.whys)


# ---------------------------------------------------------------- versions


FORMS: dict[tuple[str, str], list[tuple[str, tuple[str, ...]]]] = {
    ("dcgmi", kind): [("dcgmi diag", ("dcgmi", "diag", "-r", "4", "-j")), ("dcgmi diag", ("dcgmi", "diag", "-r", "4"))]
    for kind in VERSIONS["dcgmi"]
}
FORMS |= {
    ("nvbandwidth", kind): [
        ("nvbandwidth", ("nvbandwidth", *form, "-t", "host_to_device_memcpy_ce", "device_to_device_memcpy_read_ce"))
        for form in ((), ("-j",))
    ]
    for kind in VERSIONS["nvbandwidth"]
}
FORMS |= {
    ("nccl-tests", kind): [("nccl-tests", ("all_reduce_perf", "-b", "1073741824", "-e", "17179869184", "-g", "4"))]
    for kind in VERSIONS["nccl-tests"]
}
FORMS |= {
    ("nvidia-imex-ctl", kind): [("nvidia-imex-ctl", ("nvidia-imex-ctl", "-N", *form)) for form in ((), ("-j",))]
    for kind in VERSIONS["nvidia-imex-ctl"]
}
FORMS |= {("hpl", kind): [("hpl", ("hpl.sh", "--dat", "HPL.dat"))] for kind in VERSIONS["hpl"]}
OTHERS = [
    ("hpl-mxp", ("hpl-mxp.sh", "--n", "258048")), ("nvme smart-log", ("nvme", "smart-log", "/dev/nvme2", "-o", "json")),
    ("mlxlink", ("mlxlink", "-d", "mlx5_1", "-c")), ("mlxlink", ("mlxlink", "-d", "mlx5_1", "-c", "--json")),
    ("ipmitool sel", ("ipmitool", "sel", "list")), ("ipmitool sel", ("ipmitool", "sel", "elist")), ("ibstat", ("ibstat",)),
]  # fmt: skip


def test_every_version_has_its_forms_here() -> None:
    assert set(FORMS) == {(tool, kind) for tool, kinds in VERSIONS.items() for kind in kinds}


@pytest.mark.parametrize(("tool", "kind"), FORMS)
def test_every_version_is_read_as_what_it_is(tmp_path: Path, tool: str, kind: str) -> None:
    made = Tools(tmp_path / "rack", seconds=0, tools={tool: kind})
    texts = set[str]()
    for parser, words in FORMS[tool, kind]:
        reading = made.read(parser, *words)
        assert reading.outcome in GOOD, reading.whys
        texts.add(made.say(*words)[0])
    assert len(texts) == len(FORMS[tool, kind])


@pytest.mark.parametrize(("parser", "words"), OTHERS, ids=[" ".join(words) for _, words in OTHERS])
def test_the_other_forms_are_read(healthy: Tools, parser: str, words: tuple[str, ...]) -> None:
    reading = healthy.read(parser, *words)
    assert reading.outcome in GOOD, reading.whys


BAD: dict[str, str] = {
    "dcgmi": "sdc:t00.g1:0.5", "nvbandwidth": "gpu_off_bus:t00.g1:1", "nccl-tests": "gpu_off_bus:t00.g1:1",
    "hpl": "sdc:t00.g1:0.5",
}  # fmt: skip


@pytest.mark.parametrize(("tool", "kind"), [one for one in FORMS if one[0] in BAD])
def test_every_version_shows_a_fault(tmp_path: Path, tool: str, kind: str) -> None:
    made = Tools(tmp_path / "rack", BAD[tool], tools={tool: kind}, seconds=5)
    for parser, words in FORMS[tool, kind]:
        reading = made.read(parser, *words)
        assert reading.outcome is (Outcome.FAIL if tool in ("dcgmi", "hpl") else Outcome.ERROR), reading.whys
        if tool == "dcgmi":
            bad = next(own["index"] for own in made.facts["gpus"] if own["position"] == 1)
            assert {row.part for row in reading.rows if row.result is Outcome.FAIL} - {""} == {f"GPU {bad}"}


def test_a_version_that_the_twin_has_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"dcgmi 9.*4\.4\.2"):
        with_tools(load("gb300-nvl72"), {"dcgmi": "9"})
