"""What the agent costs a tray: its holder at 10 Hz beside a plain pynvml loop, its size, and its start.

    python -m bench.agent [--seconds 10] [--repeat 5]

Both read the same tray of four GPUs through unmodified pynvml from the twin's emulated NVML: the fast metrics ten times a second,
the slow ones every 5 s, every NVLink once. The plain loop asks for one value at a time, as examples of pynvml do, and writes
JSON lines. The agent is the whole holder, with a channel attached that takes its records, kernel log, beats and local limits.
The empty process only wakes as often: what that costs is the machine's.
Before the time is taken the library is replaced by one that answers at once with what it had answered: a driver's time is not the
agent's. CPU is the process's own, in fresh processes in turn; medians of the repetitions. At 1 Hz is what suites ask for; where
load comes, goes and pulses they ask for power and clock at 10 Hz beside it.

Start: a holder without a driver until it listens, per Python that is found. `bench.agent child ...` is what the processes run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pynvml

from burnin.agent import links
from burnin.agent.fields import Call, Field, Number, Unread
from burnin.agent.holder import Holder
from burnin.agent.host import Roots
from burnin.agent.main import SOCKET
from burnin.agent.nvml import FAST_NUMBERS, SLOW_CALLS, SLOW_FIELDS, Gpus, fast_fields
from burnin.transport import package
from burnin.twin.emulate import nvml
from tests.unit.twin_tray import bench

HZ, SLOW_S, LINKS_S, LINKS = 10, 5.0, 3600.0, 18
WARM_S = 1.0
LOAD = """
import time
print('{"state": "burning"}', flush=True)
while True:
    time.sleep(1)
    print('{"launches": 1}', flush=True)
"""
"""A load process that only says once a second that it goes on."""
PEERS = {
    "ours": "burnin's holder",
    "plain": "plain pynvml loop",
    "empty": "empty, same wakes",
    "bursts": "1 Hz, power at 10 Hz",
    "loaded": "the same, under load",
    "usual": "burnin's holder, 1 Hz",
}


class Still:
    """A library that can be made to answer at once: memory keeps what the emulation wrote into it before, and no time is the
    driver's."""

    def __init__(self, library: Any) -> None:
        self._library, self.still, self.calls = library, False, 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        real = getattr(self._library, name)

        def answer(*given: Any) -> int:
            if not self.still:
                return int(real(*given))
            self.calls += 1
            return 0

        def wait(*given: Any) -> int:
            if not self.still:
                return int(real(*given))
            time.sleep(1.0)
            return int(pynvml.NVML_ERROR_TIMEOUT)

        found = wait if name.startswith("nvmlEventSetWait") else answer
        setattr(self, name, found)
        return found


class Window:
    """CPU of this process from now on, with a library that costs nothing."""

    def __init__(self) -> None:
        self._library = pynvml.nvmlLib
        self._library.still = True
        self._from = time.monotonic_ns(), time.process_time_ns()

    def close(self) -> dict[str, float]:
        """Share of a core, and calls a second."""
        wall, cpu = time.monotonic_ns() - self._from[0], time.process_time_ns() - self._from[1]
        return {"share": cpu / wall, "calls": self._library.calls / wall * 1e9}


def open_tray(folder: Path) -> None:
    """Give pynvml the emulated library of a tray at rest."""
    tray = bench(folder)
    tray.run(1)
    # pynvml's module state is what an application has: one library a process
    pynvml.nvmlLib = Still(nvml.library(tray.facts, tray.state))


# ---------------------------------------------------------------- the two, each in a process of its own


def plain(folder: Path, seconds: float) -> dict[str, float]:
    """The loop that everybody writes first."""
    open_tray(folder)
    opened = Gpus(pynvml)
    fast, each = fast_fields(opened.driver), links.fields(LINKS, opened.driver)

    def ask(handle: Any, fields: Sequence[Field], numbers: Sequence[Number], calls: Sequence[Call]) -> list[Any]:
        out: list[Any] = []
        for field in fields:
            (value,) = pynvml.nvmlDeviceGetFieldValues(handle, [(field.id, field.scope)])
            out.append(value.value.ullVal * field.scale if value.nvmlReturn == 0 else None)
        for number in numbers:
            try:
                said = getattr(pynvml, number.function)(handle, *number.words)
                out.append(getattr(said, "gpu", said))  # utilisation comes as a struct
            except pynvml.NVMLError:
                out.append(None)
        for call in calls:
            try:
                out += call.read(pynvml, handle)
            except (pynvml.NVMLError, Unread):
                out.append(None)
        return out

    window: Window | None = None
    begun, ticks = time.monotonic(), 0
    with open(os.devnull, "w") as sink:
        while True:
            for gpu in opened.gpus:
                row = {"gpu": gpu.name, "time": time.time(), "values": ask(gpu._handle, fast, FAST_NUMBERS, ())}
                if ticks % int(SLOW_S * HZ) == 0:
                    row["slow"] = ask(gpu._handle, SLOW_FIELDS, (), (*SLOW_CALLS, *links.CALLS))
                if ticks == 0:
                    row["links"] = ask(gpu._handle, each, (), ())
                sink.write(json.dumps(row) + "\n")
            ticks += 1
            if window is None and time.monotonic() - begun >= WARM_S:
                window = Window()
            elif window is not None and time.monotonic() - begun >= WARM_S + seconds:
                return window.close()
            time.sleep(max(0.0, begun + ticks / HZ - time.monotonic()))


def empty(folder: Path, seconds: float) -> dict[str, float]:
    """Wakes as often as the agent does, with two threads ten times a second each, and does nothing."""
    open_tray(folder)
    window = Window()

    def beat() -> None:
        never = threading.Event()
        for _ in range(int(seconds * HZ)):
            never.wait(1 / HZ)

    threads = [threading.Thread(target=beat) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return window.close()


def ours(folder: Path, seconds: float) -> dict[str, float]:
    """The holder, with a socket in `folder`; whoever attaches takes its records."""
    open_tray(folder)
    empty = folder / "empty"
    empty.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / SOCKET))
    listener.listen()

    def load(*_: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-ISc", LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    at = Roots("/proc", "/sys", str(empty))
    holder = Holder("bench", "agent", lambda: pynvml, load, at, 600.0, str(folder / "clocks.json"))
    holder.start()
    out: dict[str, float] = {}

    def measure() -> None:
        while not holder._readings.begun:
            time.sleep(0.1)
        time.sleep(WARM_S)
        window = Window()
        time.sleep(seconds)
        out.update(window.close())
        holder.end()

    threading.Thread(target=measure, daemon=True).start()
    holder.serve(listener)
    return out


def attach(path: Path, fast_s: float = 1 / HZ, bursts: bool = False, load: bool = False) -> None:
    """Order the holder to sample (`bursts`: power and clock ten times a second too; `load`: with load processes to be watched),
    and take what it says until it ends."""
    with socket.socket(socket.AF_UNIX) as link:
        while link.connect_ex(str(path)):
            time.sleep(0.02)
        link.sendall(b'["attach","bench","-",0]\n')
        link.sendall(b'["lease",60,-1]\n')
        periods = json.dumps({"fast_s": fast_s, "slow_s": SLOW_S, "links_s": LINKS_S})
        link.sendall(f'["order","1","sample",{periods}]\n'.encode())
        if bursts:
            link.sendall(f'["order","2","transient",{{"period_s":{1 / HZ},"seconds":600}}]\n'.encode())
        if load:
            words = {"gpus": ["g0", "g1", "g2", "g3"], "kernel": "mma", "cutoff_margin_c": 0.0, "max_s": 600.0}
            link.sendall(f'["order","3","load",{json.dumps(words)}]\n'.encode())
        while link.recv(1 << 16):
            pass


def child(what: str, seconds: float) -> dict[str, float]:
    """Measure one of them in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="burnin-bench-") as folder:
        words = [sys.executable, "-m", "bench.agent", "child", what, folder, str(seconds)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        if what not in ("plain", "empty"):
            attach(Path(folder) / SOCKET, 1 / HZ if what == "ours" else 1.0, what in ("bursts", "loaded"), what == "loaded")
        said, _ = process.communicate()
    result: dict[str, float] = json.loads(said)
    return result


# ---------------------------------------------------------------- start


def pythons() -> dict[str, str]:
    """Version -> interpreter, for every Python from 3.9 on that is found; this one first."""
    found = {".".join(map(str, sys.version_info[:2])): sys.executable}
    for minor in range(9, 16):
        named = f"3.{minor}"
        for place in (shutil.which(f"python{named}"), *map(str, Path.home().glob(f".pyenv/versions/{named}.*/bin/python"))):
            if place and subprocess.run([place, "-c", "import ctypes"], capture_output=True, check=False).returncode == 0:
                found.setdefault(named, place)
    return found


def start_ms(python: str, agent: package.Agent, later: bool) -> float:
    """CPU of a holder from exec until it listens, and was told to end. There is no driver: opening one is the driver's time.
    `later`: after a holder has kept bytecode there."""
    with tempfile.TemporaryDirectory(prefix="burnin-bench-") as folder:
        (Path(folder) / agent.name).write_bytes(agent.data)
        words = [python, "-I", "-S", agent.name]
        if later:
            subprocess.run([*words, "codes"], cwd=folder, env={}, check=True)
        words += ["hold", "bench"]
        pid = subprocess.Popen(words, cwd=folder, env={}, stderr=subprocess.DEVNULL).pid
        while not (Path(folder) / SOCKET).exists():
            time.sleep(0.01)
        os.kill(pid, signal.SIGTERM)
        _, _, used = os.wait4(pid, 0)
        return (used.ru_utime + used.ru_stime) * 1e3


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    runs = [{what: child(what, given.seconds) for what in PEERS} for _ in range(given.repeat)]
    mean = {what: {key: statistics.median(run[what][key] for run in runs) for key in ("share", "calls")} for what in PEERS}
    print(f"{HZ} Hz, four GPUs; share of a core without the library's time, and calls into the library a second\n")
    for what, name in PEERS.items():
        share = mean[what]["share"]
        spread = sorted(run[what]["share"] for run in runs)
        ratio = f" ({share / mean['ours']['share']:.2f}x)"
        print(f"{name:24} {share:8.3%}{ratio}   {spread[0]:.3%} to {spread[-1]:.3%}   {mean[what]['calls']:6.0f} calls/s")
    agent = package.build()
    print(f"\nzipapp {len(agent.data)} bytes\n\nstart of a holder, CPU: the first, and later ones")
    for version, python in pythons().items():
        runs = [[start_ms(python, agent, later) for later in (False, True)] for _ in range(given.repeat)]
        print(f"{version:6}" + "".join(f"{statistics.median(times):6.0f} ms" for times in zip(*runs, strict=True)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        measured = {"plain": plain, "empty": empty}.get(sys.argv[2], ours)
        print(json.dumps(measured(Path(sys.argv[3]), float(sys.argv[4]))), flush=True)
        os._exit(0)  # the holder's threads wait in the emulated driver
    main()
