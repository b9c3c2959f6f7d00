"""What goes wrong under load, one fault after the other, and how long until it is safe: `python -m bench.faults [NAME ...]`

    python -m bench.faults --list
    python -m bench.faults --count 10 --out faults.jsonl       a line a trial; goes on where a file ends that is there
    python -m bench.faults --of faults.jsonl                   the table of docs/safety.md

A twin of two trays over real SSH, `burnin run` and its guard in processes of their own, all in a network namespace (packets are
really dropped there). Each trial begins under load. Safe: no load process that has to go lives on any tray, looked for in /proc.
Afterwards what was frozen or cut is let go, and what the run says is held against what is expected; processes and files that are
left on the trays are counted. `load_fraction` is below the usual 0.95, as in bench.chaos: eight load processes share two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shlex
import signal
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.soak import named
from burnin.rack.load import load_rack
from burnin.store import care
from burnin.transport.bmcs import services as services_of
from burnin.twin.faults import parse
from burnin.twin.rackstate import RackState
from burnin.twin.tray import RACK, descendants
from burnin.twin.up import Twin, running

SUITE = """
suite: faults
about: load, until something goes wrong
lease: {lease} s
load_fraction: 0.6
sample: 500 ms
sample_slow: 1 s
coverage: {{metrics: [gpu.temp, gpu.power]}}
stages:
  - {{stage: audit, steps: [inventory]}}
  - {{stage: idle, phase: idle, for: 3 s, settle: 1 s, steps: [idle-baseline]}}
  - {{stage: load, phase: load, for: {load} s, settle: 6 s, load: {{}}, steps: [gpu-load]}}
"""
DOUBLE = """
suite: double
about: a program that forks twice, away from whoever started it
lease: {lease} s
stages:
  - stage: own
    steps:
      - program:
          argv: [sh, -c, "for i in 1 2 3; do (setsid sh -c 'sleep 600 & sleep 600' &) ; done; sleep 600"]
          max: 10 min
          verdict: {{exit: [0]}}
"""


@dataclass
class Trial:
    """One run under load."""

    twin: Twin
    place: Path
    process: subprocess.Popen[bytes]
    guard: int
    load: dict[str, list[int]]
    undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def db(self) -> Path:
        """The run's database."""
        return self.place / "runs.db"

    def of(self, tray: str, word: bytes) -> list[int]:
        """Processes on a tray with this word."""
        return named(self.twin.trays[tray].pid, word)

    def freeze(self, *pids: int) -> None:
        """SIGSTOP, until the trial is over."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            self.undo.append(lambda pid=pid: kill(pid, signal.SIGCONT))  # type: ignore[misc]

    def kill(self, *pids: int) -> None:
        """SIGKILL."""
        for pid in pids:
            kill(pid, signal.SIGKILL)

    def cut(self, tray: str) -> None:
        """Drop every packet to and from a tray, until `join`."""
        address = self.twin.trays[tray].host
        for number, where in ((1, "to"), (2, "from")):
            rule("add", "pref", str(number), where, address, "blackhole")
        self.undo.append(self.join)

    def join(self) -> None:
        """Let packets through again."""
        for number in (1, 2):
            with contextlib.suppress(subprocess.CalledProcessError):
                rule("del", "pref", str(number))


@dataclass(frozen=True)
class Fault:
    """`how`: the injection, for the table. `gone`: trays whose load has to end (none: load goes on). `word` and `says`: what the
    run is to say, in its verdict or log. `within_s`: the promise; twice as long and a few seconds more is looked."""

    name: str
    how: str
    inject: Callable[[Trial], object]
    ends: str
    within_s: float
    gone: tuple[str, ...] = ("t00", "t01")
    lease_s: float = 15
    load_s: float = 600
    codes: tuple[int, ...] = (3,)
    says: str = ""
    suite: str = SUITE
    policy: bool = False
    tmpfs: bool = False
    hold_s: float = 0
    """How long the fault lasts before it is undone."""
    plants: tuple[str, ...] = ()
    """Planted in the twin, to begin AT_S after its load (@)."""


# ---------------------------------------------------------------- the faults

AT_S = 12
"""Seconds of load after which a planted fault begins."""


def planted(trial: Trial) -> float:
    """Wait until what was planted begins: when it did, monotonic."""
    head = RackState.open(str(trial.twin.private / RACK)).head
    began = head["load_s"] + AT_S
    time.sleep(max(0.0, began - time.monotonic()))
    return began


def starve(trial: Trial) -> None:
    """The holder of one tray gets no memory any more: whatever it allocates beyond what it has fails."""
    for pid in trial.of("t01", b"hold"):
        has = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (has // 2, has // 2))


def lame(trial: Trial) -> None:
    """Everything on the management network waits in one queue, half a second at the most, and what is more is dropped."""
    network("ip link set lo mtu 1500")
    network("tc qdisc add dev lo root tbf rate 1mbit burst 6000 latency 500ms")
    trial.undo.append(sound)


def sound() -> None:
    """The network as it was; what the queue did is said."""
    with contextlib.suppress(subprocess.CalledProcessError):
        print(network("tc -s qdisc show dev lo"), flush=True)
        network("tc qdisc del dev lo root")
        network("ip link set lo mtu 65536")


def network(command: str) -> str:
    """A command to its end: what it says."""
    return subprocess.run(shlex.split(command), check=True, capture_output=True, text=True).stdout


def reboot(trial: Trial) -> None:
    """A tray is restarted by its BMC, as a person does who thinks that it hangs."""
    at = services_of(load_rack(trial.twin.rack_file))["t01"]
    login = (at.user, at.secret.reveal())
    with httpx.Client(base_url=at.url, verify=ssl.create_default_context(cafile=str(at.ca)), auth=login) as bmc:
        system = bmc.get(bmc.get("/redfish/v1/Systems").json()["Members"][0]["@odata.id"]).json()
        target = system["Actions"]["#ComputerSystem.Reset"]["target"]
        bmc.post(target, json={"ResetType": "ForceRestart"}).raise_for_status()


def frozen(trial: Trial) -> None:
    """All that lives on one tray stands still for 20 s, its load too."""
    root = trial.twin.trays["t01"].pid
    pids = [root, *descendants(root)]
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    time.sleep(20)
    for pid in pids:
        kill(pid, signal.SIGCONT)


def flap(trial: Trial) -> None:
    """Both trays are cut for 45 s."""
    for pref, tray in enumerate(("t00", "t01")):
        for number, where in enumerate(("to", "from")):
            rule("add", "pref", str(1 + 2 * pref + number), where, trial.twin.trays[tray].host, "blackhole")
    time.sleep(45)
    for number in range(1, 5):
        rule("del", "pref", str(number))


def lossy(trial: Trial) -> None:
    """For 20 s one tray's packets are dropped for 60 ms of each 400."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        trial.cut("t01")
        time.sleep(0.06)
        trial.join()
        time.sleep(0.34)


def fill(trial: Trial) -> None:
    """Nothing is left of the file system that the database is on."""
    with (trial.place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def services(trial: Trial) -> list[int]:
    """The process that answers Redfish for all BMCs, shelves and the CDU."""
    trays = {place.pid for place in trial.twin.trays.values()}
    children = Path(f"/proc/{trial.twin.pid}/task/{trial.twin.pid}/children").read_text().split()
    return [int(pid) for pid in children if int(pid) not in trays]


def tell(trial: Trial, *words: str) -> None:
    """A command to its end."""
    subprocess.run(
        [sys.executable, "-m", "burnin", "stop", "last", *words, "--db", str(trial.db)], check=False, capture_output=True
    )


def blocked(trial: Trial) -> None:
    """The whole run stands still for 5 s."""
    os.kill(trial.process.pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(trial.process.pid, signal.SIGCONT)


FAULTS = [
    Fault("controller killed", "SIGKILL to the run; lease 15 s", lambda t: t.kill(t.process.pid), "guard", 2, codes=(-9,)),
    Fault("controller and guard killed", "SIGKILL to both; lease 5 s", lambda t: t.kill(t.guard, t.process.pid), "lease", 6,
          lease_s=5, codes=(-9,)),
    Fault("controller frozen", "SIGSTOP to the run; lease 4 s", lambda t: t.freeze(t.process.pid), "guard or lease", 5, lease_s=4,
          says="the run was silent for", hold_s=10),
    Fault("controller blocked for 5 s", "SIGSTOP, SIGCONT after 5 s; lease 15 s", blocked, "-", 0, (), load_s=25, codes=(0,)),
    Fault("guard killed", "SIGKILL", lambda t: t.kill(t.guard), "run", 3, says="nothing heats unguarded"),
    Fault("guard frozen", "SIGSTOP", lambda t: t.freeze(t.guard), "run, after 5 s", 7.5, says="the guard was silent"),
    Fault("agent killed", "SIGKILL to the holder", lambda t: t.kill(*t.of("t01", b"hold")), "its load itself", 1.5, ("t01",),
          load_s=25, says="t01"),
    Fault("agent frozen", "SIGSTOP to the holder", lambda t: t.freeze(*t.of("t01", b"hold")), "deadlines, 5 s", 6, ("t01",),
          load_s=25, says="t01"),
    Fault("SSH server killed", "SIGKILL; lease 5 s", lambda t: t.kill(t.twin.trays["t01"].pid), "lease", 6, ("t01",), lease_s=5,
          load_s=25, says="t01: "),
    Fault("tray cut off", "all its packets dropped for 20 s (ip rule, blackhole); lease 5 s", lambda t: t.cut("t01"), "lease", 6,
          ("t01",), lease_s=5, load_s=30, says="nothing was heard", hold_s=20),
    Fault("management network gone for 45 s", "all packets of both trays dropped; lease 60 s, leak policy enabled", flap, "-", 0,
          (), lease_s=60, load_s=75, codes=(0, 3), policy=True),
    Fault("packets lost", "15 % of the time, for 20 s", lossy, "-", 0, (), load_s=30, codes=(0,)),
    Fault("all BMCs, shelves, CDU frozen", "SIGSTOP to their server", lambda t: t.freeze(*services(t)), "guard: unread", 12,
          says="guard"),
    Fault("database's disk full", "tmpfs, filled", fill, "run", 20, codes=(4,), tmpfs=True),
    Fault("^C", "SIGINT to the run", lambda t: kill(t.process.pid, signal.SIGINT), "run", 2.5, codes=(130,)),
    Fault("`stop`", "command", tell, "run, down the ramp", 5, says="stopped before its end"),
    Fault("`stop --emergency`", "command", lambda t: tell(t, "--emergency"), "guard", 3, says="emergency stop by"),
    Fault("load that forks twice, controller and guard killed", "a program of setsid grandchildren; SIGKILL; lease 5 s",
          lambda t: t.kill(t.guard, t.process.pid), "lease", 7, lease_s=5, codes=(-9,), suite=DOUBLE),
    Fault("agent out of memory", "RLIMIT_AS of the holder set to half of what it has", starve, "-", 0, (), load_s=40,
          codes=(0, 3)),
    Fault("packets late and lost", "tc tbf: 1 Mbit/s, up to 0.5 s in the queue, the rest dropped, for 20 s", lame, "-", 0, (),
          load_s=45, codes=(0, 3), hold_s=20),
    Fault("trays' clocks jump an hour", "the twin's `clock_skew`: one ahead, one back, under load", planted, "-", 0, (),
          load_s=40, codes=(0,), plants=(f"clock_skew:t00:3600@{AT_S}", f"clock_skew:t01:-3600@{AT_S}")),
    Fault("tray rebooted", "ForceRestart by its BMC; boots in 4 s", reboot, "the tray itself", 2, ("t01",), load_s=60,
          says="t01"),
    Fault("tray loses its power", "the twin's `tray_dead`", planted, "the tray itself", 2, ("t01",), load_s=60, says="t01",
          plants=(f"tray_dead:t01:{AT_S}",)),
    Fault("tray frozen", "SIGSTOP to every process on it for 20 s, then SIGCONT; lease 5 s", frozen, "lease, once it goes on", 26,
          ("t01",), lease_s=5, load_s=60, says="t01"),
    Fault("tray's disk full", "the twin's `tray_disk_full`", planted, "-", 0, (), load_s=40, codes=(0, 3),
          plants=(f"tray_disk_full:t01@{AT_S}",)),
    Fault("a BMC is dead", "the twin's `bmc_dead`", planted, "guard: unread", 13, says="guard",
          plants=(f"bmc_dead:t01.bmc@{AT_S}",)),
    Fault("a BMC is slow", "the twin's `bmc_slow`: 10 s for every answer", planted, "guard: unread", 13, says="guard",
          plants=(f"bmc_slow:t01.bmc:10@{AT_S}",)),
    Fault("a BMC lies", "a leak; its detectors say OK and Enabled (`bmc_lies`), their voltage says wet", planted,
          "guard: the voltage", 4, codes=(1, 3), says="leak", plants=(f"bmc_lies:t01.bmc@{AT_S}", f"leak:t01:600@{AT_S}")),
    Fault("a BMC is stale", "a leak; its BMC answers what it said at rest (`bmc_stale`)", planted,
          "guard: its power stands still", 130, load_s=170, says="bmc_stale",
          plants=("bmc_stale:t01.bmc", f"leak:t01:600@{AT_S}")),
    Fault("a BMC turns stale in steady load", "a leak; its BMC answers what it said before (`bmc_stale`)", planted, "-", 0, (),
          load_s=40,
          codes=(0, 3), plants=(f"bmc_stale:t01.bmc@{AT_S - 5}", f"leak:t01:600@{AT_S}")),
]  # fmt: skip


# ---------------------------------------------------------------- one trial


def kill(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def rule(*words: str) -> None:
    """`ip rule`, at once also for connections that are open."""
    subprocess.run(["ip", "rule", *words], check=True, capture_output=True)
    subprocess.run(["ip", "route", "flush", "cache"], check=True)


def alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def until(what: Callable[[], object], seconds: float) -> float | None:
    """Seconds until it was so; None when it never was."""
    begun = time.monotonic()
    while not what():
        if time.monotonic() - begun > seconds:
            return None
        time.sleep(0.01)
    return time.monotonic() - begun


def burning(twin: Twin, word: bytes) -> dict[str, list[int]]:
    """Load processes of each tray, found by a word in their arguments."""
    return {tray: named(place.pid, word) for tray, place in twin.trays.items()}


def enable_policy(twin: Twin) -> None:
    """Have each BMC mind its leaks, as a site does, and wait for no waiver."""
    for part, at in services_of(load_rack(twin.rack_file)).items():
        if part.startswith("t"):
            login = (at.user, at.secret.reveal())
            with httpx.Client(base_url=at.url, verify=ssl.create_default_context(cafile=str(at.ca)), auth=login) as client:
                members = client.get("/redfish/v1/Chassis").json()["Members"]
                paths = [f"{one['@odata.id']}/Oem/Nvidia/Policies/LeakDetectionPolicy" for one in members]
                path = next(path for path in paths if client.get(path).status_code == 200)
                client.patch(path, json={"PolicyEnabled": True}).raise_for_status()
    text = twin.rack_file.read_text().splitlines(keepends=True)
    text = [line for line in text if "interlock: leak_policy" not in line]
    if not any("interlock:" in line for line in text):
        text = [line for line in text if not line.startswith("waive:")]
    twin.rack_file.write_text("".join(text))


@contextlib.contextmanager
def begun(fault: Fault, twin: Twin, place: Path) -> Iterator[Trial]:
    """A run under load."""
    (place / "suite.yaml").write_text(fault.suite.format(lease=fault.lease_s, load=fault.load_s))
    words = ["run", str(place / "suite.yaml"), str(twin.rack_file), "--db", str(place / "runs.db"), "--plain"]
    with (place / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "burnin", *words, "--operator", "faults", "--json", str(place / "verdict.json")],
            stdout=said, stderr=said,
        )  # fmt: skip
    word, count = (b"sleep", 7) if fault.suite is DOUBLE else (b"work", 4)
    trial = Trial(twin, place, process, 0, {})
    try:
        if until(lambda: all(len(found) >= count for found in burning(twin, word).values()), 150) is None:
            raise SystemExit(f"{fault.name}: the load never came up: {(place / 'said').read_text()[-2000:]}")
        time.sleep(2)
        trial.load = burning(twin, word)
        (trial.guard,) = named(process.pid, b"burnin.run.guard_process")
        yield trial
    finally:
        for undo in trial.undo:
            undo()
        kill(process.pid, signal.SIGKILL)
        process.wait()


def attempt(fault: Fault, twin: Twin, place: Path) -> dict[str, Any]:
    """One trial: what came of it."""
    with begun(fault, twin, place) as trial:
        before = {tray: files(twin, tray) for tray in twin.trays}
        must = [pid for tray in fault.gone for pid in trial.load[tray]]
        stay = [pid for tray, pids in trial.load.items() if tray not in fault.gone for pid in pids]
        began = time.monotonic()
        since = fault.inject(trial)
        began = since if isinstance(since, float) else began
        safe_s = None
        if must:
            until(lambda: not any(map(alive, must)), 2 * fault.within_s + 10)
            safe_s = time.monotonic() - began if not any(map(alive, must)) else None
        others = all(map(alive, stay))
        time.sleep(max(0.0, began + fault.hold_s - time.monotonic()))
        for undo in trial.undo:
            undo()
        trial.undo.clear()
        if -9 not in fault.codes and fault.load_s > 100 and not fault.says and fault.codes != (4,):
            until(lambda: trial.process.poll() is not None, 30)
        try:
            code: int | None = trial.process.wait(150)
        except subprocess.TimeoutExpired:
            code = None
        until(lambda: not any(alive(pid) for pids in burning(twin, b"work").values() for pid in pids), 20)
        left = [pid for pids in trial.load.values() for pid in pids if alive(pid)]
        left += [pid for pids in burning(twin, b"work").values() for pid in pids]
        text = said(trial)
        after = {tray: files(twin, tray) for tray in twin.trays}
    why = []
    if must and safe_s is None:
        why.append("load was not seen to end")
    if not others:
        why.append("load ended elsewhere, too")
    if code not in fault.codes:
        why.append(f"exit code {code}")
    if fault.says not in text:
        why.append(f"nothing says {fault.says!r}")
    if left:
        why.append(f"{len(left)} processes are left: {left}")
    new = {tray: sorted(after[tray] - before[tray]) for tray in after if after[tray] - before[tray]}
    if new:
        why.append(f"files are left: {new}")
    return {
        "fault": fault.name, "safe_s": safe_s, "code": code, "left": len(left), "not": "; ".join(why),
        "first": first(trial), "found": found(trial), "load_average": os.getloadavg()[0],
    }  # fmt: skip


def files(twin: Twin, tray: str) -> set[str]:
    """What lies in a tray's home beyond what the twin itself keeps there, and the agent, which stays: its code may come late."""
    home = twin.trays[tray].dir / "home"
    found = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()} if home.is_dir() else set()
    return {name for name in found if not name.startswith(".burnin/agent-")}


def said(trial: Trial) -> str:
    """Verdict, log and output, as one text."""
    out = [(trial.place / "said").read_text()]
    if (trial.place / "verdict.json").exists():
        out.append((trial.place / "verdict.json").read_text())
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(f"file:{trial.db}?mode=ro", uri=True)) as db:
        out += [text for (text,) in db.execute("SELECT text FROM log")]
        out += [f"{tray}: {why}" for tray, why in db.execute("SELECT tray, why FROM tray_state")]
    out += [f"damage: {line}" for line in care.check(trial.db).damage]
    return "\n".join(out)


def first(trial: Trial) -> str:
    """What the run says first."""
    try:
        document = json.loads((trial.place / "verdict.json").read_text())
    except (OSError, ValueError):
        lines = (trial.place / "said").read_text().strip().splitlines()
        return lines[-1][:160] if trial.process.returncode == 4 and lines else "-"
    found = [f"{one['part']} {one['signature']}" for one in document["findings"] if one["severity"] != "WATCH"]
    why = next((one["why"] for one in document["holds"]), ", ".join(found))
    return f"{document['verdict']}{': ' + why[:110] if why else ''}"


def found(trial: Trial) -> list[str]:
    """What FAILs and HOLDs."""
    try:
        document = json.loads((trial.place / "verdict.json").read_text())
    except (OSError, ValueError):
        return []
    return [f"{one['severity']} {one['part']} {one['signature']}" for one in document["findings"] if one["severity"] != "WATCH"]


# ---------------------------------------------------------------- all of them


@contextlib.contextmanager
def disk(fault: Fault, folder: Path) -> Iterator[Path]:
    """A place for the run's files: 4 MB of their own where the fault is a full disk."""
    place = Path(tempfile.mkdtemp(dir=folder))
    if fault.tmpfs:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "burnin-faults", str(place)], check=True)
    try:
        yield place
    finally:
        if fault.tmpfs:
            subprocess.run(["umount", "-l", str(place)], check=True)


def table(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Markdown, one line a fault."""
    head = "| what happens | how injected | what ends the load | n | s until safe, p50 / max | promised"
    yield f"{head} | said first | left | not as expected |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for fault in FAULTS:
        mine = [row for row in rows if row["fault"] == fault.name]
        if mine:
            took = [row["safe_s"] for row in mine if row["safe_s"] is not None]
            times = f"{statistics.median(took):.2f} / {max(took):.2f}" if took else "load goes on" if not fault.gone else "never"
            wrong = "; ".join(sorted({row["not"] for row in mine if row["not"]})) or "-"
            promised = f"{fault.within_s:g}" if fault.gone else "-"
            left = max(row["left"] for row in mine)
            head = f"| {fault.name} | {fault.how} | {fault.ends} | {len(mine)} | {times} | {promised}"
            yield f"{head} | {mine[-1]['first'].replace('|', '/')} | {left} | {wrong} |"


def main() -> int:
    """Trials, then the table; 1 when something was not as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="faults (default: all)")
    parser.add_argument("--count", type=int, default=1, help="trials of each, with those that the file has")
    parser.add_argument("--out", type=Path, default=Path("faults.jsonl"))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--of", type=Path, help="only the table, of a file that is there")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        print("\n".join(fault.name for fault in FAULTS))
        return 0
    if given.of:
        print("\n".join(table([json.loads(line) for line in given.of.read_text().splitlines()])))
        return 0
    if not given.inside:  # a network of our own: packets are dropped there, and nobody else's
        return subprocess.run(
            ["unshare", "--net", "--mount", sys.executable, "-m", "bench.faults", "--inside", *sys.argv[1:]]
        ).returncode
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run("ip rule add pref 100 lookup local && ip rule del pref 0", shell=True, check=True)
    wanted = [fault for fault in FAULTS if not given.names or fault.name in given.names]
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    with tempfile.TemporaryDirectory(prefix="burnin-faults-") as folder:
        for fault in wanted:
            while sum(row["fault"] == fault.name for row in rows) < given.count:
                where = Path(tempfile.mkdtemp(dir=folder))
                plants = [parse(one) for one in fault.plants]
                with running("gb300-nvl72", 41, plants, where=where, trays=2, switches=0) as twin, disk(fault, where) as place:
                    if fault.policy:
                        enable_policy(twin)
                    rows.append(attempt(fault, twin, place))
                print(json.dumps(rows[-1]), flush=True)
                with given.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(table(rows)))
    return 1 if any(row["not"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
