"""The resident process on a tray: it owns load, sampling, local limits and the spool; a channel only attaches to it.

Records (see burnin.wire) and their bodies:
    hello   protocol run holder agent pid uid wall_ns first next nvml kmsg xid tables gpus loaded fence   of every channel
    sample  c: table, n: mono_ns of the reading, v: values in column order (null: see absent)
    absent  c: table, why: {column: reason}                        when the reasons change
    event   source nvml | kmsg, gpu, bdf, code, text               an XID; a word for any other hardware line of the kernel log
    load    gpu, state starting | burning | ended | failed | gone, why, launches, wrong, pid, kernel ...
    cut     gpu, why lease | time | sensor | margin, value         a local limit ended the load
    reply   id, ok, result | error                                 answer to an order
    beat    load: GPUs loaded; xid, kmsg: why not watched          once a second, whatever the driver does
    note    text                                                   what a person should know

Orders: identify {}, state {}, clocks {mhz: {gpu: MHz}} (none: let go), sample {fast_s, slow_s, links_s},
load {gpus, kernel, cutoff_margin_c, max_s}, unload {gpus}, bye {}, and the two that are answered when processes have spoken
(burnin.agent.jobs): work {job, kind, gpus, cutoff_margin_c, max_s, args, args_of}, tell {job, bodies}.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from burnin import wire
from burnin.agent import clocks, host, hostdata, kernel_log
from burnin.agent.attachment import Attachment
from burnin.agent.claims import Claims
from burnin.agent.fields import Group
from burnin.agent.jobs import Jobs
from burnin.agent.load import Loads, LoadSource, Spawn
from burnin.agent.nvml import Gpu, Gpus
from burnin.agent.sampler import Sample, Sampler, Source, Table
from burnin.agent.spool import Spool

TICK_S = 0.1
BEAT_NS = 1_000_000_000
FREE_S = 5.0
"""How long a holder that ends waits for the driver to let go of clocks."""
INIT_S = 8.0
"""How long NVML may take to initialise before hello says that it hangs."""
_NVML_SAYS = {
    12: "no libnvidia-ml.so.1",
    9: "the NVIDIA driver is not loaded",
    4: "no permission",
    18: "driver and library differ",
}


class _GroupSource:
    def __init__(self, gpu: Gpu, group: Group) -> None:
        self.name, self.read = gpu.name, group.read
        self.columns = tuple((f"{gpu.name}.{sub}" if sub else gpu.name, metric) for sub, metric in group.metrics)


class Holder:
    """`open_nvml()` gives the pynvml module; `spawn(uuid, {kind, args}, lease fd, slot, slots)` a process (see `Loads`)."""

    def __init__(
        self,
        run: str,
        agent: str,
        open_nvml: Callable[[], Any],
        spawn: Spawn,
        at: host.Roots,
        linger_s: float,
        note: str,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.run, self.agent, self._open_nvml, self._spawn, self._at = run, agent, open_nvml, spawn, at
        self._linger_ns, self._now_ns = int(linger_s * 1e9), now_ns
        self.ident = secrets.token_hex(8)
        self._boot_id = host.boot_id(at)
        self.spool = Spool(self._boot_id, now_ns)
        self.claims = Claims()
        self._kmsg = host.KernelLog(at)
        self._devices: dict[str, str] = {}
        self._gpus: dict[str, Gpu] = {}
        self._nvml: Gpus | None = None
        self._nvml_reason: str | None = "hung"
        self._xid_reason: str | None = "missing"
        self._freeing: threading.Thread | None = None
        self._sampler: Sampler | None = None
        self._loads: Loads | None = None
        self._jobs: Jobs | None = None
        self._clocks: clocks.ClockLocks | None = None
        self._note = note
        self._absent: dict[int, dict[int, str]] = {}
        self._replies: dict[str, dict[str, Any]] = {}
        self._heard_ns = self._beat_ns = now_ns()
        self._lease_end_ns = 0
        self._ending = False
        self._posts: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake_r, self._wake_w = os.pipe()
        for fd in (self._wake_r, self._wake_w):
            os.set_blocking(fd, False)

    # ---- start: NVML in a thread, because it may hang

    def start(self) -> None:
        """Open NVML in the background, and wait for it a while."""
        ready = threading.Event()
        threading.Thread(target=self._init, args=(ready,), daemon=True, name="nvml").start()
        ready.wait(INIT_S)

    def _init(self, ready: threading.Event) -> None:
        try:
            nvml = self._open_nvml()
            try:
                found = Gpus(nvml)
                self._gpus = {gpu.name: gpu for gpu in found.gpus}
                self._loads = Loads(list(self._gpus), self._spawn_on, self.tell, self._now_ns)
                self._clocks = clocks.ClockLocks(
                    self._gpus, self._note, lambda text: self._post(lambda: self.tell("note", text=text))
                )
                self._clocks.take_over()
                uuids = {gpu.name: gpu.uuid for gpu in found.gpus}
                self._jobs = Jobs(self._loads, lambda ident, result: self._answer(ident, result=result), uuids)
                self._nvml, self._nvml_reason, self._xid_reason = found, None, None
            except nvml.NVMLError as error:
                self._nvml_reason = _NVML_SAYS.get(error.value, f"NVML error {error.value}")
        except Exception as error:  # whatever it is, this tray is reported as unreadable, not silent
            self._nvml_reason = f"{type(error).__name__}: {error}"
        ready.set()
        if self._nvml is not None:
            self._xid_reason = self._nvml.watch_xids(self._saw_xid, lambda: self._ending)
            self._post(lambda: self.tell("note", text=f"XID events are no longer watched: {self._xid_reason}"))

    def _saw_xid(self, gpu: str, code: int) -> None:
        self._post(lambda: self.tell("event", source="nvml", gpu=gpu, code=code, text=""))

    def _spawn_on(self, gpu: str, spec: dict[str, Any], fd: int, slot: int, slots: int) -> subprocess.Popen[bytes]:
        return self._spawn(self._gpus[gpu].uuid, spec, fd, slot, slots)

    # ---- records, and the other threads' way in

    def tell(self, kind: str, **body: Any) -> None:
        """Append a record to the spool."""
        self.spool.add(kind, body)

    def _post(self, what: Callable[[], None]) -> None:
        self._posts.put(what)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b"!")

    def _run_posts(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_r, 4096)
        while not self._posts.empty():
            self._posts.get()()

    def hello(self) -> bytes:
        """The first record of every channel; it has no place in the sequence."""
        body = {
            "protocol": wire.PROTOCOL, "run": self.run, "holder": self.ident, "agent": self.agent, "pid": os.getpid(),
            "uid": os.getuid(), "wall_ns": time.time_ns(), "first": self.spool.first, "next": self.spool.next,
            "nvml": self._nvml_reason, "kmsg": self._kmsg.reason, "xid": self._xid_reason, "tables": self._tables(),
            "gpus": list(self._gpus), "loaded": self._loaded(), "fence": self.claims.token,
        }  # fmt: skip
        return wire.encode(wire.Record("hello", self._boot_id, -1, self._now_ns(), body))

    def _tables(self) -> list[tuple[tuple[str, str], ...]]:
        return [table.columns for table in self._sampler.tables] if self._sampler else []

    def _loaded(self) -> list[str]:
        return sorted(self._loads.burning) if self._loads else []

    def _hung(self) -> set[str]:
        return self._sampler.hung if self._sampler else set()

    # ---- orders

    @property
    def leased(self) -> bool:
        """True while the controller was heard in time."""
        return self._now_ns() < self._lease_end_ns

    @property
    def busy(self) -> bool:
        """True while this holder's run is alive: another may not have the tray."""
        return self.leased or bool(self._loaded())

    def hear(self, down: wire.Down) -> None:
        """One line from the controller."""
        self._heard_ns = self._now_ns()
        if isinstance(down, wire.Lease):
            self.spool.forget(down.stored_seq)
            self._lease_end_ns = self._heard_ns + int(down.seconds * 1e9)
            if self._loads is not None:
                self._loads.renew(self._lease_end_ns)
        elif down.id in self._replies:
            self.spool.add("reply", self._replies[down.id])
        elif down.verb in ("identify", "state", "clocks"):  # these ask the driver, which may hang
            threading.Thread(target=self._ask, args=(down,), daemon=True).start()
        elif down.verb in ("work", "tell"):
            self._put_to_work(down)
        else:
            self._obey(down)

    def _obey(self, order: wire.Order) -> None:
        verbs: dict[str, Callable[..., Any]] = {
            "sample": self._sample, "load": self._load, "unload": self._unload, "bye": self._bye
        }  # fmt: skip
        try:
            self._answer(order.id, result=verbs[order.verb](**order.args))
        except KeyError:
            self._answer(order.id, error=f"unknown order {order.verb!r}")
        except (OSError, TypeError, ValueError) as error:
            self._answer(order.id, error=str(error))

    def _put_to_work(self, order: wire.Order) -> None:
        jobs = self._jobs
        if jobs is None or self._sampler is None:
            self._answer(order.id, error="work is refused: no GPU is being sampled")
        elif not jobs.waits(order.id):
            try:
                if order.verb == "work":
                    jobs.work(order.id, self._hung(), **{"args": {}, "args_of": {}, **order.args})
                else:
                    jobs.tell(order.id, **order.args)
            except (KeyError, OSError, TypeError, ValueError) as error:
                self._answer(order.id, error=str(error))

    def _ask(self, order: wire.Order) -> None:
        try:
            verbs: dict[str, Callable[..., Any]] = {"identify": self._identify, "state": self._state, "clocks": self._hold_clocks}
            result = verbs[order.verb](**order.args)
            self._post(lambda: self._answer(order.id, result=result))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._post(lambda: self._answer(order.id, error=text))

    def _answer(self, ident: str, result: Any = None, error: str | None = None) -> None:
        body = {"id": ident, "ok": error is None, **({"result": result} if error is None else {"error": error})}
        self._replies[ident] = body
        while len(self._replies) > 256:
            self._replies.pop(next(iter(self._replies)))
        self.spool.add("reply", body)

    def _identify(self) -> dict[str, Any]:
        nvml, hung = self._nvml, self._hung()
        return {
            "host": host.identity(self._at), "nvml": self._nvml_reason, "kmsg": self._kmsg.reason, "xid": self._xid_reason,
            "driver": nvml.driver if nvml else None, "cuda": nvml.cuda if nvml else None,
            "gpus": [gpu.identity() for gpu in self._gpus.values() if gpu.name not in hung],
            "failed": {str(index): why for index, why in nvml.failed.items()} if nvml else {}, "hung": sorted(hung),
        }  # fmt: skip

    def _state(self) -> dict[str, Any]:
        return {gpu.name: gpu.settings() for gpu in self._gpus.values() if gpu.name not in self._hung()}

    def _hold_clocks(self, mhz: dict[str, int]) -> dict[str, Any]:
        if self._clocks is None:
            raise ValueError(f"no clock can be held: {self._nvml_reason}")
        return clocks.order(self._clocks, mhz)

    def _free_clocks(self) -> None:
        """In a thread: the driver may hang."""
        if self._clocks is not None and self._clocks.held and not (self._freeing and self._freeing.is_alive()):
            self._freeing = threading.Thread(target=self._clocks.free, daemon=True)
            self._freeing.start()

    def _sample(self, fast_s: float, slow_s: float, links_s: float) -> dict[str, Any]:
        if self._nvml is None:
            raise ValueError(f"nothing can be sampled: {self._nvml_reason}")
        if self._sampler is None:
            fast: list[Source] = [_GroupSource(gpu, gpu.fast) for gpu in self._gpus.values()]
            if self._loads is not None:
                fast += [LoadSource(gpu, self._loads) for gpu in self._gpus]
            bdfs = {gpu.bdf: gpu.name for gpu in self._gpus.values() if gpu.bdf}
            slow: list[Source] = [_GroupSource(gpu, gpu.slow) for gpu in self._gpus.values()]
            slow += hostdata.sources(self._at, bdfs)
            self._devices = hostdata.names(self._at, bdfs)
            links: Sequence[Source] = [_GroupSource(gpu, gpu.links) for gpu in self._gpus.values()]
            periods = ((fast, fast_s), (slow, slow_s), (links, links_s))
            tables = [Table(sources, int(period_s * 1e9)) for sources, period_s in periods]
            self._sampler = Sampler(tables, lambda sample: self._post(lambda: self._sampled(sample)), self._now_ns)
            self._sampler.start()
        return {"tables": self._tables()}

    def _load(self, gpus: list[str], kernel: str, cutoff_margin_c: float, max_s: float) -> dict[str, str]:
        if self._loads is None or self._sampler is None:
            raise ValueError("load is refused: no GPU is being sampled")
        spec = {"kind": "burn", "args": {"kernel": kernel}}
        return self._loads.start(dict.fromkeys(gpus, spec), float(cutoff_margin_c), float(max_s), self._hung())

    def _unload(self, gpus: list[str] | None = None) -> list[str]:
        return self._loads.end(gpus) if self._loads else []

    def _bye(self) -> str:
        self.end()
        return "bye"

    def end(self) -> None:
        """Unload; the loop ends when every load process is gone."""
        self._unload()
        self._ending = True

    # ---- samples and time

    def _sampled(self, sample: Sample) -> None:
        if sample.absent != self._absent.get(sample.table, {}):
            self._absent[sample.table] = sample.absent
            self.tell("absent", c=sample.table, why={str(i): why for i, why in sample.absent.items()})
        self.tell("sample", c=sample.table, n=sample.taken_ns, v=sample.values)
        if self._sampler is not None and self._loads is not None:
            for (gpu, metric), value in zip(self._sampler.tables[sample.table].columns, sample.values):
                if metric == "gpu.tlimit" and value is not None:
                    self._loads.margin(gpu, value, sample.taken_ns)

    def _read_kernel_log(self) -> None:
        for line in self._kmsg.poll():
            xid = host.parse_xid(line)
            if xid is not None:
                gpu = next((g.name for g in self._gpus.values() if host.same_device(xid.bdf, g.bdf)), "")
                self.tell("event", source="kmsg", gpu=gpu, bdf=xid.bdf, code=xid.code, text=xid.text)
            elif (event := kernel_log.parse_event(line)) is not None:
                self.tell("event", source="kmsg", gpu=self._devices.get(event.device, ""), code=event.code, text=event.text)
            elif line.startswith("burnin:"):
                self.tell("note", text=line)

    def tick(self) -> bool:
        """Everything that time brings; False when the holder is done."""
        now = self._now_ns()
        if self._sampler is not None:
            hung = self._sampler.check()
            if hung:
                self.tell("note", text=f"{hung}: a driver call has not come back for {self._sampler.hang_s:g} s")
            if self._sampler.trouble:
                self.tell("note", text=self._sampler.trouble)
                self._sampler.trouble = None
        if self._loads is not None:
            self._loads.cut_off(self._hung())
            self._loads.tend()
        self._read_kernel_log()
        if now - self._beat_ns >= BEAT_NS:
            self._beat_ns = now
            if now >= self._lease_end_ns:
                self._free_clocks()
            self.tell("beat", load=self._loaded(), xid=self._xid_reason, kmsg=self._kmsg.reason)
        return bool(self._loaded()) or not (self._ending or now - self._heard_ns >= self._linger_ns)

    def serve(self, listener: socket.socket) -> None:
        """Run until the controller says bye, or until nobody was heard for `linger_s`."""
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(self._wake_r, selectors.EVENT_READ)
        channel: Attachment | None = None

        def drop(gone: Attachment | None) -> None:
            if gone is not None:
                selector.unregister(gone.socket)
                gone.socket.close()

        alive = True
        while alive:
            for key, _ in selector.select(TICK_S):
                if key.fileobj is listener:
                    fresh = Attachment(self, listener.accept()[0])
                    if fresh.attach():  # the old link may not yet be known to be dead: the newer one wins
                        drop(channel)
                        channel = fresh
                        selector.register(channel.socket, selectors.EVENT_READ)
                        self._heard_ns = self._now_ns()
                    else:
                        fresh.socket.close()
                elif channel is not None and key.fileobj is channel.socket and not channel.receive():
                    drop(channel)
                    channel = None
            self._run_posts()
            alive = self.tick()
            if channel is not None and not channel.send():
                drop(channel)
                channel = None
        if self._sampler is not None:
            self._sampler.stop()
        if channel is not None:
            channel.finish()
        self._free_clocks()
        if self._freeing is not None:
            self._freeing.join(FREE_S)
