"""Traffic over network cards beside a load: real sockets on the loopback, who sends to whom, and how it is judged."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnin.agent import hostdata, traffic
from burnin.agent.host import Roots
from burnin.agent.nccl import interfaces
from burnin.checks import CHECKS
from burnin.checks.base import Context, Evidence
from burnin.events import LogLine, Measurement, Result
from burnin.run.network import args, cards, ring
from burnin.suites.schema import Suite
from burnin.telemetry.series import Series, Stretch, Telemetry
from tests import build


def free(*hosts: str) -> int:
    """A port that is free on all of these loopback addresses."""
    with socket.socket() as one:
        one.bind((hosts[0], 0))
        return int(one.getsockname()[1])


def way(own: str, peer: str, source: str) -> dict[str, str]:
    return {"card": "n0", "device": "none", "own": own, "peer": peer, "source": source}


class Sink(threading.Thread):
    """The other tray: takes what comes from one address."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self.server = socket.create_server((host, port))
        self.got, self.closed = 0, threading.Event()
        self.start()

    def run(self) -> None:
        sock, _ = self.server.accept()
        with sock:
            while data := sock.recv(1 << 20):
                self.got += len(data)
        self.closed.set()


def test_what_is_sent_arrives_and_ends_with_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    port, before = free("127.0.0.31", "127.0.0.32"), threading.active_count()
    monkeypatch.setattr(traffic, "PORT", port)
    sink, going = Sink("127.0.0.32", port), threading.Event()
    going.set()
    with traffic.beside([way("127.0.0.31", "127.0.0.32", "127.0.0.33")], going.is_set) as short:
        until = time.monotonic() + 5
        while sink.got < 8 << 20 and time.monotonic() < until:
            time.sleep(0.01)
        assert sink.got >= 8 << 20
        assert short() == ""
        going.clear()
        assert sink.closed.wait(2), "no order was needed: the deadline alone ends it"
    sink.server.close()
    sink.join(2)
    assert threading.active_count() == before


def test_only_the_tray_that_was_named_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free("127.0.0.34")
    monkeypatch.setattr(traffic, "PORT", port)
    going = threading.Event()
    going.set()
    with traffic.beside([way("127.0.0.34", "127.0.0.36", "127.0.0.35")], going.is_set) as short:
        assert taken("127.0.0.35", port)
        assert not taken("127.0.0.37", port)
        until = time.monotonic() + 5
        while not short() and time.monotonic() < until:
            time.sleep(0.01)
        assert short().startswith("n0: no traffic from 127.0.0.34 to 127.0.0.36: ")


def taken(own: str, port: int) -> bool:
    """Are 8 MiB from this address taken?"""
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.34", port), 5, (own, 0)) as sock:
                for _ in range(8):
                    sock.sendall(bytes(1 << 20))
                return True
        except ConnectionRefusedError:
            time.sleep(0.02)
        except OSError:
            return False
    return False


# ---------------------------------------------------------------- what a tray has


def tree(root: Path, bdf: str, device: str, **files: object) -> str:
    at = root / "sys/devices" / bdf
    net = at / "net" / device
    (net / "statistics").mkdir(parents=True)
    (at / "class").write_text("0x020000\n")
    for name, text in {"type": 1, "operstate": "up", **files}.items():
        (net / name.replace("__", "/")).write_text(f"{text}\n")
    for folder, name, target in (("bus/pci/devices", bdf, at), ("class/net", device, net)):
        (root / "sys" / folder).mkdir(parents=True, exist_ok=True)
        (root / "sys" / folder / name).symlink_to(target)
    (net / "device").symlink_to(at)
    return device


def roots(root: Path) -> Roots:
    return Roots(*(str(root / word) for word in ("proc", "sys", "dev")))


def test_ports_say_why_they_have_no_traffic(tmp_path: Path) -> None:
    """`lo` stands for an interface with an address: it is the only one that every machine has."""
    tree(tmp_path, "0000:03:00.0", "lo")
    tree(tmp_path, "0000:04:00.0", "down0", operstate="down")
    tree(tmp_path, "0000:05:00.0", "noaddress0")
    (tmp_path / "sys/bus/pci/devices/0000:06:00.0").mkdir()
    (tmp_path / "sys/bus/pci/devices/0000:06:00.0/class").write_text("0x020700\n")
    assert traffic.ports(roots(tmp_path)) == {
        "n0": {"device": "lo", "address": "127.0.0.1"},
        "n1": {"why": "no link"},
        "n2": {"why": "no IPv4 address"},
        "n3": {"why": "no network interface"},
    }
    assert interfaces(str(tmp_path / "sys")) == {"lo": "127.0.0.1"}


def test_bytes_of_a_card_are_those_of_its_ports(tmp_path: Path) -> None:
    tree(tmp_path, "0000:03:00.0", "en0", statistics__tx_bytes=7_000, statistics__rx_bytes=11_000)
    at = tmp_path / "sys/bus/pci/devices/0000:04:00.0"
    port = at / "infiniband/mlx5_0/ports/1/counters"
    port.mkdir(parents=True)
    (at / "class").write_text("0x020700\n")
    for path, text in (("../link_layer", "InfiniBand"), ("port_xmit_data", "250"), ("port_rcv_data", "500")):
        (port / path).write_text(f"{text}\n")
    (tmp_path / "sys/class/infiniband").mkdir(parents=True)
    (tmp_path / "sys/class/infiniband/mlx5_0").symlink_to(at / "infiniband/mlx5_0")
    (at / "infiniband/mlx5_0/device").symlink_to(at)
    read = {
        (source.name, metric): value
        for source in hostdata.sources(roots(tmp_path), {})
        for (_, metric), value in zip(source.columns, source.read(), strict=True)
    }
    assert (read["n0", "nic.tx_bytes"], read["n0", "nic.rx_bytes"]) == (7_000.0, 11_000.0)
    assert (read["n1", "nic.tx_bytes"], read["n1", "nic.rx_bytes"]) == (1_000.0, 2_000.0), "InfiniBand counts words of four bytes"


# ---------------------------------------------------------------- who sends to whom


def port(number: int) -> dict[str, str]:
    return {"device": "ib0", "address": f"192.0.2.{number}"}


def test_cards_of_one_number_form_a_ring_and_the_rest_says_why() -> None:
    ports: dict[str, Mapping[str, Mapping[str, str]] | str] = {
        "t00": {"n0": port(1), "n1": {"why": "no link"}},
        "t01": {"n0": port(2), "n1": port(12)},
        "t02": "the agent does not answer",
        "t03": {"n0": port(4)},
    }
    ways, silent = ring(ports, ["n0", "n1"])
    assert {tray: way["n0"]["peer"] for tray, way in ways.items() if way} == {
        "t00": "192.0.2.2", "t01": "192.0.2.4", "t03": "192.0.2.1",
    }  # fmt: skip
    for tray, own in ways.items():
        if own:  # who sends here is who has this as its peer
            sender = next(t for t, other in ways.items() if other and other["n0"]["peer"] == own["n0"]["own"])
            assert own["n0"]["source"] == ways[sender]["n0"]["own"], tray
    assert silent == {
        "t00.n1": "no link",
        "t01.n1": "no other tray of this run has n1 on a network",
        "t02.n0": "the agent does not answer",
        "t02.n1": "the agent does not answer",
        "t03.n1": "there is no such card",
    }
    assert set(args(ways)) == {"t00", "t01", "t03"}


@pytest.mark.parametrize(
    ("wanted", "count", "want"), [(True, 2, ["n0", "n1"]), (True, None, []), (False, 5, []), (["n3"], 5, ["n3"])]
)
def test_which_cards_are_asked_for(wanted: bool | list[str], count: int | None, want: list[str]) -> None:
    assert cards(wanted, count) == want


# ---------------------------------------------------------------- judged

STRETCH = Stretch("all", "load", 0.0, 60.0, 10.0)


def judged(readings: dict[tuple[str, str], list[float]], nic: Any, log: tuple[LogLine, ...] = ()) -> dict[str, Measurement]:
    stage = {"stage": "all", "phase": "load", "for": "60 s", "load": {"nic": nic}, "steps": ["together"]}
    suite = Suite.model_validate({"suite": "s", "about": "a", "stages": [stage]})
    limits = build.limits(together__nic={"min": 1, "unit": "GB/s"})
    profile = build.profile(limits={name: one.model_dump(exclude_unset=True) for name, one in limits.items()})
    at = Context("t00", build.rack(), profile, suite, suite.stages[0], build.catalogue())
    series = {key: Series(np.arange(0, 60, 10.0), np.array(values)) for key, values in readings.items()}
    return {m.part: m for m in CHECKS["together"].judge(at, Evidence(telemetry=Telemetry(series), stretch=STRETCH, log=log))
            if m.name == "together.nic"}  # fmt: skip


def grows(gbps: float) -> list[float]:
    return [1e12 + gbps * 1e9 * t for t in range(0, 60, 10)]


def test_both_directions_must_flow_by_the_cards_own_count() -> None:
    good = {("t00.n0", "nic.tx_bytes"): grows(2.5), ("t00.n0", "nic.rx_bytes"): grows(2.0)}
    one = judged(good, ["n0"])["t00.n0"]
    assert (one.value, one.result) == (2.0, Result.PASS)
    half = {**good, ("t00.n0", "nic.rx_bytes"): grows(0.0)}
    one = judged(half, ["n0"])["t00.n0"]
    assert (one.value, one.result, one.reason) == (0.0, Result.UNKNOWN, "not_attained"), "never a pass, and no fault of the card"


def test_no_counter_no_card_and_no_count_are_unknown_with_the_reason() -> None:
    said = LogLine("t00.n1", 1.0, "load", "refused", "no traffic: no link", "controller")
    found = judged({}, ["n0", "n1"], (said,))
    assert {part: one.result for part, one in found.items()} == {"t00.n0": Result.UNKNOWN, "t00.n1": Result.UNKNOWN}
    assert found["t00.n1"].why == "no traffic: no link"
    assert "does not say how many network cards" in (judged({}, True)["t00"].why or "")
