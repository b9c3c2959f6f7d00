"""The agent's parts one by one: spool, deadlines, load with its local limits, sampler with its watchdog, kernel log."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent import host
from burnin.agent.fields import Reading
from burnin.agent.lease import Deadlines
from burnin.agent.load import KILL_NS, SENSOR_LOST_NS, TEND_NS, Loads
from burnin.agent.sampler import Cadence, Sample, Sampler, Table
from burnin.agent.spool import Spool
from burnin.agent.work import uuid_bytes

S = 1_000_000_000
BURN = {"kind": "burn", "args": {"kernel": "tensor_burn"}}


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.ns = 1000 * S

    def __call__(self) -> int:
        return self.ns


# ---------------------------------------------------------------- spool


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(0, 45), st.integers(200, 2000))
def test_spool_gives_every_record_that_it_kept_once_and_in_order(sizes: list[int], since: int, limit: int) -> None:
    spool = Spool("boot", lambda: 7, limit=limit)
    for size in sizes:
        spool.add("note", {"text": "x" * size})
    seq, got = since, b""
    while True:
        lines, seq_after = spool.lines(seq, most=64)
        if not lines:
            break
        got, seq = got + lines, seq_after
    numbers = [int(line.split(b",")[2]) for line in got.splitlines()]
    assert numbers == list(range(max(since, spool.first), len(sizes)))
    assert spool.next == len(sizes)


def test_spool_forgets_what_is_stored_and_says_what_it_dropped() -> None:
    spool = Spool("boot", lambda: 7, limit=300)
    for i in range(20):
        spool.add("note", {"text": f"{i:02}"})
    assert spool.first > 0, "beyond the limit the oldest go, and `first` shows it"
    spool.forget(17)
    assert (spool.first, spool.next) == (18, 20)
    spool.forget(5)
    assert spool.first == 18


# ---------------------------------------------------------------- deadlines and load


def test_deadlines_are_seen_by_another_process() -> None:
    deadlines = Deadlines.create(3)
    deadlines.set(1, 123456789)
    code = (
        "import sys; from burnin.agent.lease import Deadlines; d = Deadlines(int(sys.argv[1]), 3); print(d.until(1)); d.set(2, 5)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(deadlines.fd)], pass_fds=(deadlines.fd,), capture_output=True, check=True
    )
    assert out.stdout.strip() == b"123456789"
    assert deadlines.until(2) == 5


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Rig:
    """Loads with real processes that ignore their deadlines, and everything that was told."""

    def __init__(self, clock: Clock, code: str = "import time; time.sleep(60)") -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.clock, self._code = clock, code
        self.loads = Loads(["g0", "g1"], self._spawn, lambda kind, **body: self.told.append((kind, body)), clock)

    def _spawn(self, gpu: str, spec: dict[str, Any], fd: int, slot: int, slots: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", self._code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(process)
        return process

    def start(self, cutoff_c: float = 0.0, max_s: float = 1000.0, lease_s: float = 10.0) -> None:
        self.loads.renew(self.clock.ns + int(lease_s * S))
        assert self.loads.start({"g0": BURN}, cutoff_c, max_s, set()) == {"g0": "starting"}

    def cuts(self) -> list[tuple[str, str]]:
        return [(body["gpu"], body["why"]) for kind, body in self.told if kind == "cut"]

    def pass_time(self, seconds: float, margin: float | None = 30.0) -> None:
        """Half a second at a time, with a margin read each time unless None."""
        for _ in range(int(seconds * 2)):
            self.clock.ns += S // 2
            if margin is not None:
                self.loads.margin("g0", margin, self.clock.ns)
            self.loads.cut_off(set())

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()


@pytest.fixture
def rig(clock: Clock) -> Any:
    rig = Rig(clock)
    yield rig
    rig.end()


def test_no_load_without_a_lease(rig: Rig) -> None:
    with pytest.raises(ValueError, match="no lease"):
        rig.loads.start({"g0": BURN}, 0.0, 100.0, set())
    assert rig.processes == []


def test_load_lives_while_the_lease_is_renewed_and_ends_when_it_is_not(rig: Rig) -> None:
    rig.start(lease_s=10)
    for _ in range(5):
        rig.pass_time(8)
        rig.loads.renew(rig.clock.ns + 10 * S)
    assert rig.cuts() == []
    rig.pass_time(9.5)
    assert rig.cuts() == []
    rig.pass_time(1)
    assert rig.cuts() == [("g0", "lease")]


def test_a_lease_that_comes_late_does_not_heal_the_one_that_ran_out(rig: Rig) -> None:
    rig.start(lease_s=10)
    rig.clock.ns += 11 * S  # a frozen holder wakes up, and finds a renewal in its socket
    rig.loads.margin("g0", 30.0, rig.clock.ns)
    rig.loads.renew(rig.clock.ns + 10 * S)
    assert rig.cuts() == [("g0", "lease")]


def test_load_does_not_outlive_a_frozen_holder_for_a_long_lease(rig: Rig) -> None:
    seen = Deadlines(rig.loads._deadlines.fd, 2)
    rig.start(lease_s=60)
    assert seen.until(0) == rig.clock.ns + 5 * S, "without a turn of the holder nobody keeps the margin"
    rig.pass_time(20)
    assert seen.until(0) == rig.clock.ns + 5 * S
    rig.pass_time(37)
    assert seen.until(0) == rig.clock.ns + 3 * S, "the lease is the end whatever the holder does"
    rig.loads.end()
    rig.loads.cut_off(set())
    assert seen.until(0) == 0, "what was ended stays so"


@pytest.mark.parametrize(("margin", "cut"), [(1.0, []), (0.0, [("g0", "margin")]), (-3.0, [("g0", "margin")])])
def test_load_ends_when_the_margin_is_used_up(rig: Rig, margin: float, cut: list[tuple[str, str]]) -> None:
    rig.start(cutoff_c=0.0, lease_s=100)
    rig.pass_time(2, margin=margin)
    assert rig.cuts() == cut


def test_a_margin_from_before_the_load_is_not_taken_for_its_own(rig: Rig) -> None:
    rig.loads.margin("g0", -5.0, rig.clock.ns - S)
    rig.start(lease_s=100)
    rig.loads.cut_off(set())
    assert rig.cuts() == []


def test_load_ends_when_its_sensor_is_lost(rig: Rig) -> None:
    rig.start(lease_s=100)
    rig.pass_time(2)
    rig.pass_time(SENSOR_LOST_NS / S - 0.5, margin=None)
    assert rig.cuts() == []
    rig.pass_time(0.5, margin=None)
    assert rig.cuts() == [("g0", "sensor")]


def test_load_on_a_gpu_that_hangs_ends_at_once(rig: Rig) -> None:
    rig.start(lease_s=100)
    rig.loads.margin("g0", 30.0, rig.clock.ns)
    rig.loads.cut_off({"g0"})
    assert rig.cuts() == [("g0", "sensor")]
    assert rig.loads.start({"g1": BURN}, 0.0, 10.0, {"g1"}) == {"g1": "not readable"}


def test_load_ends_when_its_own_time_is_over(rig: Rig) -> None:
    rig.start(max_s=5, lease_s=100)
    rig.pass_time(4.5)
    assert rig.cuts() == []
    rig.pass_time(1)
    assert rig.cuts() == [("g0", "time")]


def test_a_process_that_does_not_see_its_deadline_is_killed(rig: Rig) -> None:
    rig.start()
    assert rig.loads.end() == ["g0"]
    rig.loads.tend()
    assert rig.processes[0].poll() is None, "it is given a moment"
    rig.clock.ns += KILL_NS
    rig.loads.tend()
    assert rig.processes[0].wait(10) == -9
    rig.loads.tend()
    assert rig.loads.burning == {}
    assert [kind for kind, _ in rig.told] == ["load", "note", "load"]


def test_what_a_load_process_says_is_passed_on_and_counted(clock: Clock) -> None:
    said = r'{"launches": 7, "wrong": 1}\nnot json\n[]\n{"state": "failed", "why": "cuInit -> 100"}'
    rig = Rig(clock, f"print('{said}', flush=True); raise SystemExit(3)")
    try:
        rig.start()
        rig.processes[0].wait(10)
        rig.loads.tend()
        assert rig.loads.counts == {"g0": {"launches": 7.0, "wrong": 1.0}}
        states = [body.get("state") for kind, body in rig.told if kind == "load"]
        assert states == ["starting", "failed", "gone"], "it explained itself: its exit status adds nothing"
    finally:
        rig.end()


def test_what_a_burning_load_counts_waits_for_a_look_and_its_end_does_not(clock: Clock) -> None:
    """The loop is woken by `speaking`."""
    code = r"""import os; os.write(1, b'{"state": "burning"}\n'); input(); os.write(1, b'{"launches": 7}\n'); input()"""
    rig = Rig(clock, code)
    try:
        rig.start()
        first, stdin = rig.processes[0], rig.processes[0].stdin
        assert stdin is not None and first.stdout is not None
        assert rig.loads.speaking.poll(10), "how it begins is heard at once"
        rig.loads.tend()
        rig.clock.ns += TEND_NS // 2
        stdin.write(b"\n")
        stdin.flush()
        assert select.select([first.stdout], [], [], 10)[0]
        assert not rig.loads.speaking.poll(0)
        rig.loads.tend()
        assert rig.loads.counts == {} and not rig.loads.leaving
        rig.clock.ns += TEND_NS
        rig.loads.tend()
        assert rig.loads.counts == {"g0": {"launches": 7.0}}
        rig.loads.end()
        assert rig.loads.leaving, "from now on it is looked at ten times a second"
    finally:
        rig.end()


def test_a_load_process_that_dies_without_a_word_is_a_failure(clock: Clock) -> None:
    rig = Rig(clock, "import os; os.kill(os.getpid(), 9)")
    try:
        rig.start()
        rig.processes[0].wait(10)
        rig.loads.tend()
        failed = [body for kind, body in rig.told if kind == "load" and body["state"] == "failed"]
        assert failed == [{"gpu": "g0", "state": "failed", "why": "the load process ended with status -9"}]
    finally:
        rig.end()


def test_uuid_as_nvml_prints_it_is_the_bytes_that_cuda_gives() -> None:
    assert uuid_bytes("GPU-00112233-4455-6677-8899-aabbccddeeff") == bytes.fromhex("00112233445566778899aabbccddeeff")


# ---------------------------------------------------------------- sampler


@given(st.lists(st.integers(0, 35), max_size=60))
def test_deadlines_stay_on_the_grid_however_late_a_sample_is(delays: list[int]) -> None:
    cadence, now = Cadence(100, 10), 100
    for delay in delays:
        now = max(now, cadence.due_ns) + delay
        cadence.advance(now)
        assert (cadence.due_ns - 100) % 10 == 0
        assert now < cadence.due_ns <= now + 10


class Source:
    """Gives 1, 2, 3 ...; hangs on an event when told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns: tuple[tuple[str, str], ...] = ((name, "a"), (name, "b"))
        self.hang: threading.Event | None = None
        self.entered = threading.Event()
        self.count = 0.0

    def read(self) -> list[Reading]:
        if self.hang is not None:
            self.entered.set()
            self.hang.wait(20)
        self.count += 1
        return [self.count, "not_supported"]


def test_a_source_that_hangs_is_left_behind_and_taken_back_when_it_returns() -> None:
    clock = Clock()
    good, bad = Source("g0"), Source("g1")
    bad.hang = threading.Event()
    samples: list[Sample] = []
    came = threading.Condition()

    def emit(sample: Sample) -> None:
        with came:
            samples.append(sample)
            came.notify_all()

    sampler = Sampler([Table("fast", [good, bad], 10 * S)], emit, clock, wait=lambda _: time.sleep(0.005), hang_s=2.0)

    def next_sample() -> Sample:
        """Let a period pass, and wait for what it brings."""
        with came:
            count = len(samples)
            clock.ns += 10 * S
            assert came.wait_for(lambda: len(samples) > count, 10)
            return samples[-1]

    sampler.start()
    assert bad.entered.wait(10)
    assert sampler.check() is None, "it is given its time"
    clock.ns += 2 * S
    with came:
        assert sampler.check() == "g1"
        assert came.wait_for(lambda: samples, 10), "another thread goes on without it"
    assert samples[0].readings() == ([2.0, None, None, None], {1: "not_supported", 2: "hung", 3: "hung"})
    assert sampler.hung == {"g1"}
    bad.hang.set()
    bad.hang = None
    for _ in range(200):
        sample = next_sample()
        if sample.readings()[0][2] is not None:
            break
    assert sample.readings()[0][2] is not None, "what came back is read again"
    assert sampler.hung == set()
    sampler.stop()


def test_a_defect_in_one_source_does_not_silence_the_others() -> None:
    clock, got = Clock(), threading.Event()
    samples: list[Sample] = []

    class Broken(Source):
        def read(self) -> list[Reading]:
            raise RuntimeError("a bug")

    def emit(sample: Sample) -> None:
        samples.append(sample)
        got.set()

    sampler = Sampler([Table("fast", [Broken("g0"), Source("g1")], S)], emit, clock)
    sampler.start()
    assert got.wait(10)
    sampler.stop()
    values, absent = samples[0].readings()
    assert values == [None, None, 1.0, None]
    assert absent[0] == "missing"
    assert sampler.trouble == "g0: RuntimeError: a bug"


def test_no_source_can_bring_a_number_that_is_none() -> None:
    samples: list[Sample] = []

    class Odd(Source):
        def read(self) -> list[Reading]:
            return [float("nan"), -float("inf")]

    sampler = Sampler([Table("fast", [Odd("g0"), Source("g1")], S)], samples.append, Clock(), wait=lambda _: sampler.stop())
    sampler._run(0)
    assert samples[0].readings() == ([None, None, 1.0, None], {0: "missing", 1: "missing", 3: "not_supported"})


# ---------------------------------------------------------------- kernel log


@pytest.mark.parametrize(
    ("line", "bdf", "code", "text"),
    [
        ("NVRM: Xid (PCI:0008:06:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
         "0008:06:00", 79, "GPU has fallen off the bus."),
        ("[1234.5] NVRM: Xid (PCI:0000:9B:00): 94, pid=7194, name=my proc::x, Contained: SM (0x1).",
         "0000:9b:00", 94, "pid=7194, name=my proc::x, Contained: SM (0x1)."),
        ("[...] NVRM: Xid (0000:03:00): 14, Channel 00000001", "0000:03:00", 14, "Channel 00000001"),
        ("NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x0)",
         "0018:01:00", 149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x0)"),
    ],
)  # fmt: skip
def test_xids_of_real_kernels(line: str, bdf: str, code: int, text: str) -> None:
    assert host.parse_xid(line) == host.Xid(bdf, code, text)


@pytest.mark.parametrize("line", ["NVRM: Xid error: xyz, invalid data", "", "NVRM: Xid (PCI:0000:05:00): seven, x", "Xid 79"])
def test_what_is_no_xid_is_none(line: str) -> None:
    assert host.parse_xid(line) is None


@given(st.text(max_size=300))
def test_no_kernel_line_makes_the_parser_fail(line: str) -> None:
    found = host.parse_xid(line)
    assert found is None or found.code >= 0


@pytest.mark.parametrize(
    ("bdf", "nvml", "same"),
    [("0008:06:00", "00000008:06:00.0", True), ("0000:9b:00", "00000000:9B:00.0", True),
     ("0008:06:00", "00000018:06:00.0", False), ("0008:06:00", None, False)],
)  # fmt: skip
def test_the_kernel_and_nvml_name_one_device_differently(bdf: str, nvml: str | None, same: bool) -> None:
    assert host.same_device(bdf, nvml) is same


def test_kernel_log_is_read_from_where_it_stood(tmp_path: Path) -> None:
    kmsg = tmp_path / "kmsg"
    kmsg.write_bytes(b"6,1,100,-;old\n")
    log = host.KernelLog(host.Roots("/proc", "/sys", str(tmp_path)))
    assert log.reason is None
    with kmsg.open("ab") as file:
        file.write(b"4,2,200,-;NVRM: Xid (PCI:0008:06:00): 63, x\n SUBSYSTEM=pci\n6,3,300,-;half")
        file.flush()
        assert log.poll() == ["NVRM: Xid (PCI:0008:06:00): 63, x"]
        file.write(b" line\n")
        file.flush()
        assert log.poll() == ["half line"]
    assert log.poll() == []


def test_a_kernel_log_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    assert host.KernelLog(host.Roots("/proc", "/sys", str(tmp_path))).reason == "missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; the plain user's case runs where tests are not root")
def test_a_kernel_log_without_permission_says_so(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text("")
    (tmp_path / "kmsg").chmod(0)
    assert host.KernelLog(host.Roots("/proc", "/sys", str(tmp_path))).reason == "no_permission"


def test_host_identity_reads_dmi_and_leaves_null_what_it_may_not(tmp_path: Path) -> None:
    dmi = tmp_path / "class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "product_serial").write_text("J100\n")
    found = host.identity(host.roots({"HOST_SYS": str(tmp_path)}))
    assert (found["serial"], found["bios"]) == ("J100", None)
    assert found["uid"] == os.getuid()
