"""The load and work processes of a tray, and the local limits that end them without asking anybody.

A process goes on only while all of this holds: the lease lives, its own time is not over, its GPU is being read, and the
T.Limit margin is above the cut-off. What ends it is written into the shared deadlines first; a process that does not
see that within a second is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from burnin import wire
from burnin.agent.fields import Reading
from burnin.agent.host import Roots
from burnin.agent.lease import Deadlines
from burnin.errors import ProtocolError

if TYPE_CHECKING:
    import subprocess

SENSOR_LOST_NS = 4_000_000_000
"""A loaded GPU whose margin was not read for so long is cut: a period, the sampler's patience with another GPU, and room."""
KILL_NS = 1_000_000_000
"""What a load process is given to see that its deadline is over."""
HALT_KILL_NS = 300_000_000
"""The same after a halt, where everything must be off within a second."""

TEND_NS = 500_000_000
"""How often every process is looked at, whether or not it has said something."""
FROZEN_NS = 5_000_000_000
"""Load goes on for no longer than this without a turn of the holder, whatever the lease: who is frozen keeps no margin."""

_MOST = 65536
COUNTS = {
    "launches": "load.launches", "wrong": "load.wrong", "edges": "load.edges", "missed": "load.edges_missed",
    "late_ms": "load.edge_late", "copied": "load.copied",
}  # fmt: skip
"""What a load process counts -> the metric."""

Spawn = Callable[[str, dict[str, Any], int, int, int], "subprocess.Popen[bytes]"]
"""(gpu, {kind, args}, lease fd, slot, slots) -> a process with stdin and stdout piped."""


class Burning:
    """One load process and its limits. `ending_ns`: since when it should be gone."""

    def __init__(
        self, gpu: str, slot: int, process: subprocess.Popen[bytes], cutoff_c: float, begun_ns: int, end_ns: int
    ) -> None:
        self.gpu, self.slot, self.process, self.cutoff_c = gpu, slot, process, cutoff_c
        self.begun_ns, self.end_ns = begun_ns, end_ns
        self.ending_ns: int | None = None
        self.patience_ns = KILL_NS
        self.explained = False
        self.killed = False
        self.silent = False
        """It has closed its end, and says nothing any more."""
        self.why = ""
        self._lines = wire.Lines()

    def said(self) -> list[dict[str, Any]]:
        """What the process wrote since the last call; lines that are not its JSON are dropped."""
        out: list[dict[str, Any]] = []
        while self.process.stdout is not None:
            try:
                data = os.read(self.process.stdout.fileno(), _MOST)
                for line in self._lines.feed(data):
                    with contextlib.suppress(ValueError):
                        body = json.loads(line, parse_constant=_no_number)
                        if isinstance(body, dict):
                            out.append(body)
            except (BlockingIOError, ProtocolError):
                break
            self.silent = not data
            if len(data) < _MOST:
                break
        return out


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def burns(
    at: Roots,
    uuids: dict[str, str],
    gpus: list[str],
    kernel: str,
    pulse: dict[str, Any],
    nvlink: bool,
    cpu: bool,
    nic: dict[str, dict[str, str]],
) -> dict[str, dict[str, Any]]:
    """What a load (see burnin.agent.burn) is on each GPU: copies go round all GPUs of the tray, cores and cards are dealt out."""
    from burnin.agent import cores  # not before there is load

    names = sorted(uuids)
    peers = {gpu: uuids[names[(n + 1) % len(names)]] for n, gpu in enumerate(names)} if nvlink else {}
    each = {gpu: {"kernel": kernel, "pulse": pulse.get(gpu), "peer": peers.get(gpu)} for gpu in gpus}
    share = dict(zip(names, cores.shares(cores.count(at), len(names)))) if cpu else {}
    ways = [{"card": card, **way} for card, way in sorted(nic.items())]
    dealt = {gpu: {"cores": share.get(gpu), "ways": ways[n :: len(names)]} for n, gpu in enumerate(names)}
    return {gpu: {"kind": "burn", "args": {**args, **dealt.get(gpu, {})}} for gpu, args in each.items()}


class Loads:
    """Starts and ends processes, one a GPU. `said` and `gone` hear what work says, and why a process ended."""

    def __init__(
        self,
        gpus: list[str],
        spawn: Spawn,
        tell: Callable[..., None],
        now_ns: Callable[[], int],
        speaking: select.epoll | None = None,
    ) -> None:
        self._slots = {gpu: slot for slot, gpu in enumerate(gpus)}
        self._spawn, self._tell, self._now_ns = spawn, tell, now_ns
        self._deadlines = Deadlines.create(len(gpus))
        self.speaking = speaking or select.epoll()
        """Can be read when a process says what should not wait: not what a load that burns counts each second."""
        self._murmuring = select.epoll()
        """The same of loads that burn."""
        self.lease_end_ns = self._tended_ns = 0
        self._margins: dict[str, tuple[float, int]] = {}
        self.counts: dict[str, dict[str, float]] = {}
        """What each GPU's present or last load process counted, by its own words (COUNTS)."""
        self.burning: dict[str, Burning] = {}
        self.halted: dict[str, str] = {}
        """GPU, or * for all -> why it is not loaded again, until a person starts a run anew."""
        self.said: Callable[[str, dict[str, Any]], None] = lambda gpu, body: None
        self.gone: Callable[[str, str], None] = lambda gpu, why: None

    def renew(self, lease_end_ns: int) -> None:
        """A lease came in. One that ran out meanwhile is not healed by it: what it covered is cut first."""
        self.cut_off(set())
        self.lease_end_ns = lease_end_ns
        self._go_on()

    def _go_on(self) -> None:
        """Let go on what has not ended: until its limits, or until the holder should have had its next turns."""
        alive_ns = self._now_ns() + FROZEN_NS
        for burning in self.burning.values():
            if burning.ending_ns is None:
                self._deadlines.set(burning.slot, min(self.lease_end_ns, burning.end_ns, alive_ns))

    def margin(self, gpu: str, value_c: float, read_ns: int) -> None:
        """A T.Limit margin was read."""
        self._margins[gpu] = (value_c, read_ns)

    def read_since(self, since_ns: int, gpus: set[str]) -> bool:
        """True when the margin of each of these GPUs was read after that."""
        return all(self._margins.get(gpu, (0.0, 0))[1] >= since_ns for gpu in gpus)

    def need_lease(self) -> None:
        """Raises ValueError without a lease."""
        if self._now_ns() >= self.lease_end_ns:
            raise ValueError("load is refused: no lease")

    def start(self, specs: dict[str, dict[str, Any]], cutoff_c: float, max_s: float, hung: set[str]) -> dict[str, str]:
        """Start {kind, args} on GPUs that are free: gpu -> starting | already loaded | not readable. Raises ValueError without
        a lease."""
        self.need_lease()
        out = {}
        for gpu, spec in specs.items():
            if gpu in self.burning:
                out[gpu] = "already loaded"
            elif why := self.halted.get(gpu, self.halted.get("*", "")):
                out[gpu] = f"halted: {why}"
            elif gpu not in self._slots or gpu in hung:
                out[gpu] = "not readable"
            else:
                self._start(gpu, spec, cutoff_c, max_s)
                out[gpu] = "starting"
        return out

    def _start(self, gpu: str, spec: dict[str, Any], cutoff_c: float, max_s: float) -> None:
        now, slot = self._now_ns(), self._slots[gpu]
        end = now + int(max_s * 1e9)
        self._deadlines.set(slot, min(self.lease_end_ns, end, now + FROZEN_NS))
        self.counts.pop(gpu, None)
        process = self._spawn(gpu, spec, self._deadlines.fd, slot, len(self._slots))
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        if process.stdout is not None:
            self.speaking.register(process.stdout.fileno(), select.EPOLLIN)
        self.burning[gpu] = Burning(gpu, slot, process, cutoff_c, now, end)
        self._tell("load", gpu=gpu, state="starting", pid=process.pid, kernel=spec["args"].get("kernel", spec["kind"]))

    def write(self, gpu: str, line: bytes) -> bool:
        """Hand a line to a process, at once and whole; False when it does not take it."""
        burning = self.burning.get(gpu)
        if burning is None or burning.process.stdin is None:
            return False
        try:
            return os.write(burning.process.stdin.fileno(), line) == len(line)
        except OSError:
            return False

    def end(self, gpus: list[str] | None = None) -> list[str]:
        """Revoke the deadlines of these GPUs (all when None); the names that were loaded."""
        names = [gpu for gpu in (list(self.burning) if gpus is None else gpus) if gpu in self.burning]
        for gpu in names:
            self._revoke(self.burning[gpu], "ended by order")
        return names

    def halt(self, why: str, gpus: list[str] | None) -> list[str]:
        """End load and let none begin, whoever asks; the names that were loaded."""
        self.halted.update(dict.fromkeys(["*"] if gpus is None else gpus, why))
        for burning in self.burning.values():
            if gpus is None or burning.gpu in gpus:
                burning.patience_ns = HALT_KILL_NS
        return self.end(gpus)

    def _revoke(self, burning: Burning, why: str) -> None:
        self._deadlines.set(burning.slot, 0)
        if burning.ending_ns is None:
            burning.ending_ns, burning.why = self._now_ns(), burning.why or why

    def cut_off(self, hung: set[str]) -> None:
        """The local limits: end every load whose lease, time, sensor or margin is gone, and say which it was."""
        for burning in self.burning.values():
            if burning.ending_ns is not None:
                continue
            passed = self.passed(burning.gpu, burning.begun_ns, burning.end_ns, burning.cutoff_c, hung)
            if passed is not None:
                self._cut(burning, *passed)
        self._go_on()

    def passed(self, gpu: str, begun_ns: int, end_ns: int, cutoff_c: float, hung: set[str]) -> tuple[str, float] | None:
        """The local limit that ends load on this GPU now, and by how much; "" is no GPU: lease and time alone."""
        now = self._now_ns()
        margin, read_ns = self._margins.get(gpu, (0.0, 0))
        silent_ns = now - max(read_ns, begun_ns)
        if now >= self.lease_end_ns:
            return "lease", (now - self.lease_end_ns) / 1e9
        if now >= end_ns:
            return "time", (now - end_ns) / 1e9
        if gpu and (silent_ns >= SENSOR_LOST_NS or gpu in hung):
            return "sensor", silent_ns / 1e9
        if gpu and read_ns >= begun_ns and margin <= cutoff_c:
            return "margin", margin
        return None

    def _cut(self, burning: Burning, why: str, value: float) -> None:
        self._revoke(burning, f"cut by a local limit: {why}")
        self._tell("cut", gpu=burning.gpu, why=why, value=round(value, 3))

    def tend(self) -> None:
        """Pass on what load processes say, reap those that ended, kill those that should have."""
        now, speaking = self._now_ns(), dict(self.speaking.poll(0))
        looks = now - self._tended_ns >= TEND_NS  # also at those that died without an end of what they say, for a child holds it
        if looks:
            self._tended_ns = now
            speaking.update(self._murmuring.poll(0))
        for gpu, burning in list(self.burning.items()):
            speaks = burning.process.stdout is not None and burning.process.stdout.fileno() in speaking
            if not (looks or speaks or self._leaving(burning)):
                continue
            code = burning.process.poll()
            for body in burning.said() if speaks or code is not None else ():
                self._pass_on(burning, body)
            if burning.silent:
                self._listen_less(burning)
            if code is not None:
                self._bury(burning, code)
            elif burning.ending_ns is not None and now - burning.ending_ns >= burning.patience_ns:
                burning.process.send_signal(signal.SIGKILL)
                if not burning.killed:
                    burning.killed = True
                    self._tell("note", text=f"{gpu}: load process {burning.process.pid} did not end by itself and gets SIGKILL")

    def _pass_on(self, burning: Burning, body: dict[str, Any]) -> None:
        if isinstance(body.get("say"), dict):
            self.said(burning.gpu, body["say"])
            return
        if body.get("state") == "failed":
            burning.explained, burning.why = True, burning.why or str(body.get("why"))
        if "launches" in body:
            self.counts[burning.gpu] = {word: float(body[word]) for word in COUNTS if word in body}
        if body.get("state") == "burning" and self._listen_less(burning):
            self._murmuring.register(burning.process.stdout.fileno(), select.EPOLLIN)  # type: ignore[union-attr]
        if "state" in body:
            self._tell("load", gpu=burning.gpu, **body)

    def _listen_less(self, burning: Burning) -> bool:
        """It is no longer heard at once; False where it was not."""
        fd = burning.process.stdout.fileno() if burning.process.stdout is not None else -1
        for those in (self._murmuring, self.speaking):
            with contextlib.suppress(OSError):
                those.unregister(fd)
                return True
        return False

    @staticmethod
    def _leaving(burning: Burning) -> bool:
        return burning.silent or burning.ending_ns is not None

    @property
    def leaving(self) -> bool:
        """True while a process is about to end, which is to be seen soon."""
        return any(map(self._leaving, self.burning.values()))

    def _bury(self, burning: Burning, code: int) -> None:
        why = f"the load process ended with status {code}"
        if code != 0 and not burning.explained and not burning.killed:
            self._tell("load", gpu=burning.gpu, state="failed", why=why)
        self._tell("load", gpu=burning.gpu, state="gone")
        self._deadlines.set(burning.slot, 0)
        self._listen_less(burning)
        for pipe in (burning.process.stdin, burning.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        del self.burning[burning.gpu]
        self.gone(burning.gpu, burning.why or why)


class LoadSource:
    """What a GPU's load process counts, as a table the sampler reads beside NVML's."""

    instant = True

    def __init__(self, gpu: str, loads: Loads) -> None:
        self.name, self._loads = gpu, loads
        self.columns: tuple[tuple[str, str], ...] = tuple((gpu, metric) for metric in COUNTS.values())

    def ask(self) -> Any:
        """What it counted last; `missing` before the first load."""
        return self._loads.counts.get(self.name) or "missing"

    def told(self, asked: dict[str, float]) -> list[Reading]:
        """Each count; `missing` where the load is none that counts it."""
        return [asked.get(word, "missing") for word in COUNTS]
