"""The holder on a tray's emulated NVML: what it costs, what it does with a driver that hangs, and how it lets NVML go."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from burnin import wire
from burnin.agent import host, readings
from burnin.agent.attachment import Attachment
from burnin.agent.halts import Halts
from burnin.agent.holder import Holder
from burnin.twin.emulate import fields, nvml
from tests.unit.twin_tray import Bench, bench

COUNTED = ("launches", "wrong", "edges", "edges_missed", "edge_late", "copied")
"""What a load process tells; nothing before the first one."""


class Rig:
    """A holder without a socket: `give` is an order, `until` lets its loop turn until something is so."""

    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch, *plants: str) -> None:
        self.tray: Bench = bench(where, *plants)
        self.tray.run(1)
        monkeypatch.setattr(pynvml, "nvmlLib", nvml.library(self.tray.facts, self.tray.state))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.setattr(readings, "SETTLE_NS", 100_000_000)  # no second's patience in a test
        empty = where / "empty"
        empty.mkdir()
        at = host.Roots("/proc", str(empty), str(empty))
        self.holder = Holder("run", "agent", lambda: pynvml, self._spawn, at, 600.0, str(where / "clocks.json"))
        self.holder.start()
        self._ids = 0

    def _spawn(self, *_: Any) -> Any:
        raise OSError("no load in this test")

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of all records of a kind."""
        lines, _ = self.holder.spool.lines(0, most=1 << 30)
        rows = [json.loads(line) for line in lines.splitlines()]
        return [row[4] for row in rows if row[0] == kind]

    def notes(self) -> str:
        return "\n".join(body["text"] for body in self.records("note"))

    def until(self, so: Callable[[], Any], seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while not (found := so()):
            assert time.monotonic() < end, self.records("note")
            with self.holder._turn:
                self.holder._run_posts()
                self.holder.tick()
            threading.Event().wait(0.002)
        return found

    def give(self, verb: str, **args: Any) -> dict[str, Any]:
        """An order and its reply."""
        self._ids += 1
        with self.holder._turn:
            self.holder.hear(wire.Order(str(self._ids), verb, args))
        reply: dict[str, Any] = self.until(lambda: next((r for r in self.records("reply") if r["id"] == str(self._ids)), None))
        return reply

    def sample(self, fast_s: float = 0.05, slow_s: float = 0.1, links_s: float = 60.0) -> None:
        assert self.give("sample", fast_s=fast_s, slow_s=slow_s, links_s=links_s)["ok"]

    def rows(self, table: int) -> list[dict[tuple[str, str], float | None]]:
        """Every sample of a table: column -> value."""
        columns = self.holder._readings.columns[table]
        return [dict(zip(columns, body["v"], strict=True)) for body in self.records("sample") if body["c"] == table]

    def why(self, table: int) -> dict[tuple[str, str], str]:
        """Reasons of the last `absent` record of a table."""
        columns = self.holder._readings.columns[table]
        said = [body["why"] for body in self.records("absent") if body["c"] == table]
        return {columns[int(i)]: why for i, why in said[-1].items()} if said else {}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*plants: str) -> Rig:
        made.append(Rig(tmp_path, monkeypatch, *plants))
        return made[-1]

    yield make
    for one in made:
        for gpu in one.tray.state.gpus:
            gpu["hung"] = 0
        one.holder.end()
        one.holder._readings.stop()


FAST, SLOW, LINKS, TRANSIENT = range(4)


def test_it_tells_what_it_costs_and_how_fast_the_driver_answers(rig: Callable[..., Rig]) -> None:
    one = rig()
    one.sample()
    row = one.until(lambda: next((r for r in one.rows(SLOW)[1:] if r[("", "nvml.latency")] is not None), None))
    cpu = {metric: value for (part, metric), value in row.items() if metric.startswith("agent.cpu")}
    assert set(cpu) == {"agent.cpu", "agent.cpu_fast", "agent.cpu_slow", "agent.cpu_links", "agent.cpu_transient"}
    share, whole = cpu["agent.cpu_fast"], cpu["agent.cpu"]
    assert share is not None and whole is not None and 0 < share < whole < 4
    assert cpu["agent.cpu_transient"] == 0, "nobody has asked for it"
    assert row[("", "agent.stretch")] == 1
    latency, longest = row[("", "nvml.latency")], row[("", "nvml.latency_max")]
    assert latency is not None and longest is not None and 0 < latency <= longest < 2000
    first = one.rows(SLOW)[0]
    assert first[("", "agent.cpu")] is None, "a share needs two looks"


def test_what_changes_within_a_second_is_read_only_when_asked_and_as_long(rig: Callable[..., Rig]) -> None:
    one = rig()
    assert "nothing is sampled" in one.give("transient", period_s=0.05, seconds=1.0)["error"]
    one.sample()
    one.until(lambda: len(one.rows(FAST)) > 5)
    assert one.rows(TRANSIENT) == []
    for wrong in (
        {"period_s": 0.01, "seconds": 1.0},
        {"period_s": 0.1, "seconds": 1e6},
        {"period_s": float("nan"), "seconds": 1.0},
    ):
        assert not one.give("transient", **wrong)["ok"]
    assert one.give("transient", period_s=0.05, seconds=600.0)["ok"]
    one.until(lambda: len(one.rows(TRANSIENT)) >= 6)
    row = one.rows(TRANSIENT)[0]
    assert set(row) == {(f"g{i}", metric) for i in range(4) for metric in ("transient.power", "transient.clock_sm")}
    assert all(value is not None and value > 0 for value in row.values())
    so_far, over = len(one.rows(TRANSIENT)), time.monotonic() + 1.5
    assert one.give("transient", period_s=0.05, seconds=1.0)["ok"], "another order takes the place of the first"
    one.until(lambda: time.monotonic() > over)
    assert not one.give("transient", period_s=0.01, seconds=1.0)["ok"], "what was read before an answer is recorded before it"
    again, before = len(one.rows(TRANSIENT)), len(one.rows(FAST))
    one.until(lambda: len(one.rows(FAST)) > before + 5)
    assert len(one.rows(TRANSIENT)) == again <= so_far + 23, "a second has twenty, the first, and two that were on their way"
    assert one.give("transient", period_s=0.05, seconds=600.0)["ok"]
    one.until(lambda: len(one.rows(TRANSIENT)) > again + 3)


def test_a_reading_is_taken_in_while_the_loop_sleeps_and_waits_while_it_is_busy(rig: Callable[..., Rig]) -> None:
    """The sampler's thread never waits for the loop: that could be sending to a slow channel."""
    one = rig()
    one.sample()
    nobody_turns = threading.Event().wait
    end, before = time.monotonic() + 20, len(one.rows(FAST))
    while len(one.rows(FAST)) < before + 5:
        assert time.monotonic() < end
        nobody_turns(0.01)
    with one.holder._turn:
        kept = len(one.rows(FAST))
        while len(one.holder._posts) < 5:
            assert time.monotonic() < end
            nobody_turns(0.01)
        assert len(one.rows(FAST)) == kept
    one.until(lambda: len(one.rows(FAST)) >= kept + 5)
    lines, _ = one.holder.spool.lines(0, most=1 << 30)
    assert [json.loads(line)[2] for line in lines.splitlines()] == list(range(len(lines.splitlines()))), "no gap, none twice"


@pytest.mark.parametrize("none", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_an_absent_reading_and_ends_nobody(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, none: float
) -> None:
    real = fields.write_fields

    def odd(gpu: Any, at: int, count: int, now_us: int) -> None:
        """Power, recovery action, count of C2C links, a link's state and its error rate come as doubles that are no number."""
        real(gpu, at, count, now_us)
        memory = memoryview((ctypes.c_ubyte * (40 * count)).from_address(at)).cast("B")
        for offset in range(0, 40 * count, 40):
            field, scope = struct.unpack_from("<II", memory, offset)
            if field in (170, 186, 230) or (scope == 3 and field in (165, 220)):
                struct.pack_into("<iId", memory, offset + 24, 0, 0, none)

    monkeypatch.setattr(nvml, "write_fields", odd)
    one = rig()
    one.sample()
    one.until(lambda: len(one.rows(FAST)) > 2 and one.rows(SLOW) and one.rows(LINKS))
    for table, part, metric in (
        (FAST, "g1", "gpu.power"), (FAST, "g1", "module.power"), (SLOW, "g1", "gpu.recovery_action"), (SLOW, "g1", "c2c.crc"),
        (LINKS, "g1.l3", "nvlink.state"), (LINKS, "g1.l3", "nvlink.effective_ber"),
    ):  # fmt: skip
        assert (one.rows(table)[-1][(part, metric)], one.why(table)[(part, metric)]) == (None, "missing"), metric
    assert one.rows(FAST)[-1][("g1", "gpu.temp")] is not None, "what is a number goes on"
    assert one.rows(SLOW)[-1][("g1", "ecc.dram_ue")] == one.rows(LINKS)[-1][("g1.l3", "nvlink.recovery_failed")] == 0
    assert one.rows(LINKS)[-1][("g1.l4", "nvlink.state")] == 1
    assert len(one.records("absent")) <= 4, "it is said when it changes"


def test_a_hung_call_is_found_reported_and_the_others_are_read(rig: Callable[..., Rig]) -> None:
    one = rig()
    one.sample()
    one.until(lambda: one.rows(FAST))
    one.tray.state.gpus[2]["hung"] = 1
    one.until(lambda: "g2: a driver call has not come back for 2 s" in one.notes())
    one.until(lambda: one.why(FAST).get(("g2", "gpu.temp")) == "hung")
    assert {part for (part, _), why in one.why(FAST).items() if why == "hung"} == {"g2"}
    last = one.rows(FAST)[-1]
    assert last[("g2", "gpu.temp")] is None and last[("g1", "gpu.temp")] is not None
    assert one.give("identify")["result"]["hung"] == ["g2"], "it still answers"
    one.tray.state.gpus[2]["hung"] = 0
    one.until(lambda: one.rows(FAST)[-1][("g2", "gpu.temp")] is not None)


def test_nvml_is_let_go_and_taken_again_and_the_counters_go_on(rig: Callable[..., Rig]) -> None:
    one = rig()
    one.sample()
    one.until(lambda: len(one.rows(FAST)) > 2)
    energy = one.rows(FAST)[-1][("g1", "gpu.energy")]
    users = pynvml.nvmlDeviceGetCount()
    assert users == 4
    assert one.give("release") == {"id": "2", "ok": True, "result": "let go by order"}
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()  # nothing of this process holds the library any more
    one.until(lambda: one.why(FAST).get(("g0", "gpu.temp")) == "missing")
    seen = len(one.rows(FAST))
    row = one.until(lambda: one.rows(FAST)[seen + 3 :])[-1]
    assert {v for (_, metric), v in row.items() if not metric.startswith("load.")} == {None}
    assert one.rows(SLOW)[-1][("", "host.load1")] is not None, "the host is read on"
    assert one.give("identify")["result"]["nvml"] == "let go by order"
    assert one.holder._handles.xid_reason == "let go by order"
    assert "NVML is let go" in one.give("state")["error"]
    assert "no GPU is being sampled" in one.give("load", gpus=["g0"], kernel="fma_burn", cutoff_margin_c=1, max_s=9)["error"]
    assert one.give("release")["ok"], "twice is once"
    one.tray.run(5)
    taken = one.give("take")["result"]
    assert taken == {"gpus": ["g0", "g1", "g2", "g3"], "lost": []}
    one.until(lambda: one.rows(FAST)[-1][("g1", "gpu.energy")] is not None)
    later = one.rows(FAST)[-1][("g1", "gpu.energy")]
    assert energy is not None and later is not None and later > energy
    assert one.why(FAST).keys() == {(f"g{i}", f"load.{what}") for i in range(4) for what in COUNTED}
    assert "let go by order: its metrics are missing" in one.notes() and "taken again" in one.notes()
    assert set(one.give("state")["result"]) == {"g0", "g1", "g2", "g3"}
    one.until(lambda: one.holder._handles.xid_reason is None)


def test_a_gpu_that_does_not_come_back_is_lost_and_the_columns_stay(rig: Callable[..., Rig]) -> None:
    one = rig()
    one.sample()
    columns = one.holder._readings.columns
    assert one.give("release")["ok"]
    one.tray.state.gpus[3]["lost"] = 1
    assert one.give("take")["result"] == {"gpus": ["g0", "g1", "g2"], "lost": ["g3"]}
    one.until(lambda: one.why(FAST).get(("g3", "gpu.temp")) == "lost")
    assert one.holder._readings.columns == columns
    assert one.rows(FAST)[-1][("g2", "gpu.temp")] is not None
    assert "g3 did not come back" in one.notes()
    one.holder.hear(wire.Lease(60))
    started = one.give("load", gpus=["g3"], kernel="fma_burn", cutoff_margin_c=1, max_s=9)["result"]
    assert started == {"g3": "not readable"}


def test_nvml_is_not_let_go_while_a_call_is_out(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnin.agent.grip.LEAVE_S", 0.2)
    one = rig()
    one.sample()
    one.until(lambda: one.rows(FAST))
    one.tray.state.gpus[0]["hung"] = 1
    one.until(lambda: one.why(FAST).get(("g0", "gpu.temp")) == "hung")
    assert "has not come back" in one.give("release")["error"]
    one.until(lambda: one.rows(FAST)[-1][("g1", "gpu.temp")] is not None)
    one.tray.state.gpus[0]["hung"] = 0
    one.until(lambda: one.rows(FAST)[-1][("g0", "gpu.temp")] is not None)


def test_each_network_card_is_dealt_to_one_gpus_process(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    one = rig()
    assert one.give("ports")["result"] == {}, "this tray shows no card"
    one.sample()
    one.until(lambda: one.rows(FAST))
    started: dict[str, Any] = {}
    monkeypatch.setattr(one.holder._loads, "start", lambda specs, *_: started.update(specs) or {})
    ways = {f"n{i}": {"device": "d", "own": "192.0.2.1", "peer": "192.0.2.2", "source": "192.0.2.3"} for i in range(5)}
    gpus = ["g0", "g1", "g2", "g3"]
    assert one.give("load", gpus=gpus, kernel="tensor_burn", cutoff_margin_c=0, max_s=9, nic=ways)["ok"]
    dealt = {gpu: [way["card"] for way in started[gpu]["args"]["ways"]] for gpu in gpus}
    assert dealt == {"g0": ["n0", "n4"], "g1": ["n1"], "g2": ["n2"], "g3": ["n3"]}
    assert started["g1"]["args"]["ways"][0] == {"card": "n1", **ways["n1"]}
    started.clear()
    assert one.give("load", gpus=["g2"], kernel="tensor_burn", cutoff_margin_c=0, max_s=9)["ok"]
    assert started["g2"]["args"]["ways"] == []


def test_a_halt_by_file_is_taken_once_and_answered_with_what_was_loaded(rig: Callable[..., Rig], tmp_path: Path) -> None:
    one = rig()
    ask, answer = tmp_path / "halt", tmp_path / "halted"
    ask.write_text("another-run\nnot this one\n")
    one.until(answer.exists)
    assert (answer.read_text(), one.holder._halts.why, ask.exists()) == ("another run's\n", {}, False)
    answer.unlink()
    ask.write_bytes(b"run\nleak of t01 \xff\n")
    one.until(answer.exists)
    assert (answer.read_text(), ask.exists()) == ("0\n", False)
    assert one.holder._halts.why == {"*": "leak of t01 \N{REPLACEMENT CHARACTER}"}
    answer.unlink()
    one.holder.tick()
    assert not answer.exists()


def test_the_kernel_tells_of_a_halt_by_file(tmp_path: Path) -> None:
    halts = Halts(str(tmp_path), "run", lambda why, gpus: [])
    (tmp_path / ".halt.1").write_text("run\nleak\n")
    os.read(halts.news, 4096)
    assert not select.select([halts.news], [], [], 0)[0]
    (tmp_path / ".halt.1").rename(tmp_path / "halt")
    assert select.select([halts.news], [], [], 10)[0]
    assert halts.read(list) == "" and (tmp_path / "halted").read_text() == "0\n"
    assert Halts(str(tmp_path / "none"), "run", lambda why, gpus: []).news == -1, "then it is looked for"


def test_what_waits_to_be_recorded_comes_before_what_is_told_after_it(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rig()
    monkeypatch.setattr(readings, "SETTLE_NS", 10**12)
    one.sample(slow_s=60.0)
    waiting = one.holder._readings._waiting
    end = time.monotonic() + 20
    while len(waiting) < 4:
        assert time.monotonic() < end
        threading.Event().wait(0.01)
    with one.holder._turn:
        told, latest = len(one.rows(FAST)), waiting[3].taken_ns
        one.holder.tell("note", text="now")
    lines = [json.loads(line) for line in one.holder.spool.lines(0, most=1 << 30)[0].splitlines()]
    at = next(i for i, (kind, _, _, _, body) in enumerate(lines) if kind == "note" and body["text"] == "now")
    taken = [body["n"] for kind, _, _, _, body in lines[:at] if kind == "sample" and body["c"] == FAST]
    assert len(taken) >= told + 4 and latest in taken and taken == sorted(set(taken))
    assert [seq for _, _, seq, _, _ in lines] == list(range(len(lines)))


def test_a_clock_is_answered_on_a_quiet_channel_before_what_was_recorded(tmp_path: Path) -> None:
    """What was recorded waits for an ordinary lease or an order; a clock is answered at once also between 64 kB and the next."""
    empty = tmp_path / "empty"
    empty.mkdir()
    at = host.Roots("/proc", str(empty), str(empty))
    holder = Holder("run", "agent", lambda: None, lambda *_: None, at, 600.0, str(tmp_path / "clocks.json"))  # type: ignore[arg-type]
    for number in range(40):
        holder.tell("note", text=f"{number}:" + 9000 * "x")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
        ours.sendall(b'["attach","run","-",0]\n')
        channel = Attachment(holder, theirs)
        assert channel.attach()
        heard = wire.Decoder()
        heard.feed(wire.MARK)
        records: list[wire.Record] = []

        def turn(said: bytes = b"") -> list[wire.Record]:
            ours.sendall(said)
            assert channel.receive() and channel.send()
            with contextlib.suppress(BlockingIOError):
                data = ours.recv(1 << 16)
                records.extend(heard.feed(data.removeprefix(b'["ok"]\n')))
            return records

        turn(wire.encode(wire.Lease(5.0, wire.HELD_BACK)) + wire.encode(wire.Order("c1", "clock", {})))
        assert [(one.kind, one.seq) for one in records] == [("hello", -1), ("reply", -1)]
        said = records[-1].body
        assert said == {"id": "c1", "ok": True, "result": {"mono_ns": said["result"]["mono_ns"]}} and holder.leased
        assert abs(said["result"]["mono_ns"] - time.monotonic_ns()) < 5e9
        turn(wire.encode(wire.Lease(5.0)) + wire.encode(wire.Order("c2", "clock", {})))
        turn(wire.encode(wire.Order("c3", "clock", {})))
        for _ in range(100):
            turn()
    assert [one.seq for one in records if one.kind == "note"] == list(range(40)), "all, once, each a whole line"
    asked = [one.body["id"] for one in records if one.kind == "reply"]
    assert asked == ["c1", "c2", "c3"]
    assert [one.kind for one in records].index("note") == 3, "c2 came with the lease, and was answered before"
    assert [one.body.get("id") for one in records].index("c3") < 20, "not after all that was recorded"


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_tray_without_memory_for_a_thread_says_so_and_goes_on(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    one = rig()
    one.sample()

    def none(*_: object) -> int:
        raise error

    monkeypatch.setattr("burnin.agent.holder.start_new_thread", none)
    reply = one.give("identify")
    assert not reply["ok"] and type(error).__name__ in reply["error"]
    seen = len(one.rows(FAST))
    one.until(lambda: len(one.rows(FAST)) > seen + 2)


def test_where_nobody_reads_nothing_is_heated(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the thread that reads: the order to sample fails, and load is refused for it."""
    one, start = rig(), threading.Thread.start

    def none(thread: threading.Thread) -> None:
        if thread.name.startswith("sampler"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none)
    reply = one.give("sample", fast_s=0.1, slow_s=0.1, links_s=0.1)
    assert not reply["ok"] and "can't start new thread" in reply["error"]
    reply = one.give("load", gpus=["g0"], kernel="tensor", cutoff_margin_c=0.0, max_s=5.0)
    assert not reply["ok"] and "no GPU is being sampled" in reply["error"]
    monkeypatch.undo()
    one.sample()
    seen = len(one.rows(FAST))
    one.until(lambda: len(one.rows(FAST)) > seen + 2)


@pytest.mark.parametrize("code", [12, 9, 999], ids=["no library", "no driver", "another error"])
def test_a_tray_without_nvml_is_read_but_for_its_gpus_and_refuses_load(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", refused)
    at = host.Roots("/proc", "/sys", str(tmp_path))
    one = Rig.__new__(Rig)
    one.holder = Holder("run", "agent", lambda: pynvml, one._spawn, at, 600.0, str(tmp_path / "clocks.json"))
    one._ids = 0
    one.holder.start()
    try:
        one.sample()
        row = one.until(lambda: one.rows(SLOW))[0]
        assert row["", "host.mem_available"] is not None and not any(part.startswith("g") for part, _ in row)
        assert [one.rows(table) for table in (FAST, LINKS, TRANSIENT)] == [[], [], []]
        hello = json.loads(one.holder.hello())[4]
        assert hello["nvml"] and hello["gpus"] == [] and one.give("identify")["result"]["nvml"] == hello["nvml"]
        load = {"gpus": ["g0"], "kernel": "mma", "cutoff_margin_c": 5.0, "max_s": 60.0}
        assert "no GPU is being sampled" in one.give("load", **load)["error"]
        assert "nothing is sampled" in one.give("transient", period_s=0.1, seconds=1.0)["error"]
    finally:
        one.holder.end()
        one.holder._readings.stop()
