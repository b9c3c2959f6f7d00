"""The resident process on a tray: it owns load, sampling, local limits and the spool; a channel only attaches to it.

Records (see burnin.wire) and their bodies:
    hello   protocol run holder agent pid uid wall_ns first next nvml kmsg xid tables gpus loaded stage fence   of every channel
    sample  c: table, n: mono_ns of the reading, v: values in column order (null: see absent)
    absent  c: table, why: {column: reason}                        when the reasons change
    event   source nvml | kmsg, gpu, bdf, code, text               an XID; a word for any other hardware line of the kernel log
    load    gpu, state starting | burning | ended | failed | gone, why, launches, wrong, pid, kernel ...
    cut     gpu, why lease | time | sensor | margin, value         a local limit ended the load
    reply   id, ok, result | error                                 answer to an order
    beat    load: GPUs loaded; xid, kmsg: why not watched          once a second, whatever the driver does
    note    text                                                   what a person should know
Guards' channels are told other things (burnin.agent.guards). hello's `halted`: why a guard ended load, by GPU or * for all.

Orders: identify {}, state {}, clocks {mhz: {gpu: MHz}} (none: let go), sample {fast_s, slow_s, links_s},
transient {period_s, seconds}, release {} and take {} (NVML), clock {}, ports {} (of network cards), unload {gpus}, bye {},
clear {} (of what guards halted),
load {gpus, kernel, cutoff_margin_c, max_s, nvlink, cpu, nic: {card: way}, pulse: {gpu: {period_ns, on_ns, first_ns}}}, and two
that are answered when processes have spoken (burnin.agent.jobs):
work {job, kind, gpus, cutoff_margin_c, max_s, args, args_of}, tell {job, bodies};
program {job, argv, env, max_s, cutoff_margin_c, gpus, logs, output_max, after_s, exclusive} is answered at the program's end
(burnin.agent.program). `exclusive`: NVML is let go meanwhile, so that nothing but lease and time ends it, and `gpus` is empty.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import threading
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from burnin import wire
from burnin.agent import clocks, host
from burnin.agent.attachment import Attachment
from burnin.agent.claims import Claims
from burnin.agent.grip import Handles
from burnin.agent.guards import Guard, Guards
from burnin.agent.halts import Halts
from burnin.agent.readings import Readings
from burnin.agent.spool import Spool

if TYPE_CHECKING:  # a start does not wait for what is of no use before something is sampled
    import subprocess

    from burnin.agent.jobs import Jobs
    from burnin.agent.load import Loads, Spawn
    from burnin.agent.program import Programs
    from burnin.agent.program import Spawn as Keep

TICK_S, IDLE_TICK_S = 0.1, 0.5
"""How often limits, processes and halts are looked at while something is about to happen, and else; and at whatever comes."""
BEAT_NS = 1_000_000_000
FREE_S = 5.0
"""How long a holder that ends waits for the driver to let go of clocks."""
FLUSH_NS = 250_000_000
"""Readings that come faster than this go out together: each piece that is sent costs a wake at both ends."""
INIT_S = 8.0
"""How long NVML may take to initialise before hello says that it hangs."""


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
        keep: Keep | None = None,
    ) -> None:
        self.run, self.agent, self._spawn, self._at, self._keep = run, agent, spawn, at, keep
        self._linger_ns = self._wait_ns = int(linger_s * 1e9)
        self._now_ns, self._stage = now_ns, ""
        self.ident = os.urandom(8).hex()
        self._boot_id = host.boot_id(at)
        self.spool = Spool(self._boot_id, now_ns)
        self.claims = Claims()
        self._kmsg = host.KernelLog(at)
        self._handles = Handles(open_nvml, self._remark, self._saw_xid, lambda: self._ending)
        self._freeing: threading.Thread | None = None
        self._loads: Loads | None = None
        self._jobs: Jobs | None = None
        self._programs: Programs | None = None
        self._clocks: clocks.ClockLocks | None = None
        self._note = note
        self._halts = Halts(os.path.dirname(note), run, self._halt)
        self._guards = Guards(self._unnumbered, self._halt)
        self._readings = Readings(
            at, self._handles, self._guards, self._deliver, self.tell, self.spool.add_sample, now_ns, lambda: self._hot
        )
        self.spool.before = self._readings.settle
        self._replies: dict[str, dict[str, Any]] = {}
        self._heard_ns = self._beat_ns = now_ns()
        self._lease_end_ns = 0
        self._channel: Attachment | None = None
        self._sent_ns = 0
        self._turn = threading.Lock()
        """Held by whoever changes anything here: the loop, unless it sleeps, or the sampler's thread with a reading."""
        self._ending = False
        self._speaking = select.epoll()
        self._posts: deque[Callable[[], None]] = deque()
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
        who = self._handles
        who.open()
        if who.nvml is not None:
            self._clocks = clocks.ClockLocks(who.gpus, self._note, self._remark)
            try:
                self._clocks.take_over()
            except OSError as error:
                who.nvml, who.reason = None, f"the clocks of an agent that died: {error}"
        ready.set()
        self._handles.watch_xids()

    def _make_loads(self) -> None:
        """What may heat, once it is to be watched."""
        from burnin.agent.alone import Alone
        from burnin.agent.jobs import Jobs
        from burnin.agent.load import Loads
        from burnin.agent.program import Programs

        gpus = self._handles.uuids
        self._alone = Alone(self._handles, self._answer, self._post, self._busy_with, self._now_ns)
        self._loads = self._alone.loads = Loads(list(gpus), self._spawn_on, self.tell, self._now_ns, self._speaking)
        self._loads.halted, self._loads.lease_end_ns = self._halts.why, self._lease_end_ns
        self._jobs = Jobs(self._loads, lambda ident, result: self._answer(ident, result=result), gpus)
        if self._keep is not None:
            self._programs = Programs(self._loads, self._keep, self.tell, self._program_ended, self._now_ns, self.ident)

    def _remark(self, text: str) -> None:
        self._post(lambda: self.tell("note", text=text))

    def _saw_xid(self, gpu: str, code: int) -> None:
        self._post(lambda: self.tell("event", source="nvml", gpu=gpu, code=code, text=""))

    def _spawn_on(self, gpu: str, spec: dict[str, Any], fd: int, slot: int, slots: int) -> subprocess.Popen[bytes]:
        return self._spawn(self._handles.uuids[gpu], spec, fd, slot, slots)

    # ---- records, and the other threads' way in

    def tell(self, kind: str, **body: Any) -> None:
        """Append a record to the spool."""
        self.spool.add(kind, body)

    def _deliver(self, what: Callable[[], None], urgent: bool) -> None:
        """From the sampler's thread: a reading is taken in right here while the loop sleeps, which spares waking it. Under load
        it is woken for what is urgent: its limits are looked at with each reading. Never waits: the loop may be busy."""
        if not self._turn.acquire(blocking=False):
            self._post(what)
            return
        try:
            try:
                what()
            except Exception:  # is the loop's to end by, not this thread's
                self._post(what)
            if urgent and self._hot:
                self._ring()
            else:
                self._send()  # a channel that is gone is found by the loop, where its end shows
        finally:
            self._turn.release()

    def _send(self, at_once: bool = False) -> bool:
        """Give the channel what is due; False when it is gone. Samples alone wait for each other, for FLUSH_NS at the most."""
        channel, now = self._channel, self._now_ns()
        if channel is None or not channel.owes:
            return True
        if not (at_once or self.spool.pressing or channel.stuck or now - self._sent_ns >= FLUSH_NS):
            return True
        self._sent_ns, self.spool.pressing = now, False
        return channel.send()

    def _post(self, what: Callable[[], None]) -> None:
        self._posts.append(what)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b"!")

    def _run_posts(self) -> None:
        while self._posts:
            self._posts.popleft()()

    def hello(self) -> bytes:
        """The first record of every channel; it has no place in the sequence."""
        body = {
            "protocol": wire.PROTOCOL, "run": self.run, "holder": self.ident, "agent": self.agent, "pid": os.getpid(),
            "uid": os.getuid(), "wall_ns": time.time_ns(), "first": self.spool.first, "next": self.spool.next,
            "nvml": self._handles.reason, "kmsg": self._kmsg.reason, "xid": self._handles.xid_reason,
            "tables": self._readings.columns, "gpus": list(self._handles.gpus), "loaded": self._loaded(),
            "stage": self.detached, "halted": self._halts.why, "fence": self.claims.token,
        }  # fmt: skip
        return self._unnumbered("hello", body)

    def clock(self, ident: str) -> bytes:
        """The reply to a `clock` order, out of the sequence: what was recorded before does not delay it."""
        return self._unnumbered("reply", {"id": ident, "ok": True, "result": {"mono_ns": self._now_ns()}})

    def _unnumbered(self, kind: str, body: dict[str, Any]) -> bytes:
        return wire.encode(wire.Record(kind, self._boot_id, -1, self._now_ns(), body))

    def _loaded(self) -> list[str]:
        return sorted({*(self._loads.burning if self._loads else ()), *(self._programs.gpus if self._programs else ())})

    @property
    def _programmed(self) -> bool:
        return self._programs is not None and self._programs.running

    def _unreadable(self) -> set[str]:
        return self._readings.hung | self._handles.gone

    # ---- orders

    @property
    def leased(self) -> bool:
        """True while the controller was heard in time."""
        return self._now_ns() < self._lease_end_ns

    @property
    def detached(self) -> str:
        """The detached stage that is loaded; empty where none is."""
        return self._stage if self.leased and self._loaded() else ""

    @property
    def busy(self) -> bool:
        """True while this holder's run is alive: another may not have the tray. One that was halted and left is not."""
        left = "*" in self._halts.why and self._channel is None
        return bool(self._loaded()) or self._programmed or (self.leased and not left)

    def hear(self, down: wire.Down) -> None:
        """One line from the controller."""
        self._heard_ns = self._now_ns()
        if isinstance(down, wire.Lease):
            self.spool.forget(down.stored_seq)
            lease_ns = int(down.seconds * 1e9)
            self._lease_end_ns, self._stage = self._heard_ns + lease_ns, down.stage
            self._wait_ns = max(self._linger_ns, 2 * lease_ns)  # what was recorded is kept as long again
            if self._loads is not None:
                self._loads.renew(self._lease_end_ns)
            if self._programs is not None:
                self._programs.renew()
        else:
            try:
                self._order(down)
            except (MemoryError, RuntimeError) as error:  # no room for a thread: said, and nothing else of this tray ends
                self._answer(down.id, error=f"{type(error).__name__}: {error}")

    def _order(self, down: wire.Order) -> None:
        if down.id in self._replies:
            self.spool.add("reply", self._replies[down.id])
        elif down.verb in ("identify", "state", "clocks", "release", "take"):  # these ask the driver, which may hang
            start_new_thread(self._ask, (down,))  # Thread.start would wait for ever for one that finds no memory
        elif down.verb in ("work", "tell"):
            self._put_to_work(down)
        elif down.verb == "program":
            self._program(down)
        else:
            self._obey(down)

    def _obey(self, order: wire.Order) -> None:
        verbs: dict[str, Callable[..., Any]] = {
            "sample": self._sample, "transient": self._readings.transient, "load": self._load, "unload": self._unload,
            "ports": self._ports, "bye": self._bye, "clear": self._halts.why.clear,
        }  # fmt: skip
        try:
            self._answer(order.id, result=verbs[order.verb](**order.args))
        except KeyError:
            self._answer(order.id, error=f"unknown order {order.verb!r}")
        except (OSError, TypeError, ValueError) as error:
            self._answer(order.id, error=str(error))

    def _put_to_work(self, order: wire.Order) -> None:
        jobs = self._jobs
        if jobs is None or not self._readings.begun or self._handles.grip.let_go:
            self._answer(order.id, error="work is refused: no GPU is being sampled")
        elif self._programmed:
            self._answer(order.id, error="work is refused: a program has this tray")
        elif not jobs.waits(order.id):
            try:
                if order.verb == "work":
                    jobs.work(order.id, self._unreadable(), **{"args": {}, "args_of": {}, **order.args})
                else:
                    jobs.tell(order.id, **order.args)
            except (KeyError, OSError, TypeError, ValueError) as error:
                self._answer(order.id, error=str(error))

    def _program(self, order: wire.Order) -> None:
        programs, args = self._programs, {"env": {}, "logs": [], **order.args}
        exclusive = bool(args.pop("exclusive", False))
        if programs is not None and (programs.waits(order.id) or order.id in self._alone.orders):
            return
        try:
            if programs is None or not self._readings.begun or self._handles.grip.let_go:
                raise ValueError("a program is refused: no GPU is being sampled")
            if not exclusive and not args.get("gpus"):
                raise ValueError("a program is refused: it names no GPU to be watched, and is not exclusive")
            if exclusive:
                args["gpus"] = []
                self._alone.start(order.id, programs, args)
            else:
                programs.start(order.id, self._unreadable(), **args)
        except (OSError, TypeError, ValueError) as error:
            self._answer(order.id, error=str(error))

    def _program_ended(self, ident: str, result: Any = None, error: str | None = None) -> None:
        (self._alone.ended if ident in self._alone.orders else self._answer)(ident, result, error)

    def _ask(self, order: wire.Order) -> None:
        asked: dict[str, Callable[..., Any]] = {
            "identify": self._identify, "state": lambda: self._handles.settings(self._readings.hung), "clocks": self._hold_clocks,
            "release": lambda: self._handles.release(self._busy_with), "take": self._handles.take,
        }  # fmt: skip
        try:
            result = asked[order.verb](**order.args)
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
        who, hung = self._handles, self._readings.hung
        return {
            "host": host.identity(self._at), "nvml": who.reason, "kmsg": self._kmsg.reason, "xid": who.xid_reason,
            **who.identities(hung), "hung": sorted(hung),
        }  # fmt: skip

    def _busy_with(self) -> str:
        """Why NVML cannot be let go: load wants its margins read, and a held clock wants to be let go first."""
        held = sorted(self._clocks.held) if self._clocks is not None else []
        return "; ".join(
            f"{what} of {', '.join(gpus)}" for what, gpus in (("load", self._loaded()), ("held clocks", held)) if gpus
        )

    def _hold_clocks(self, mhz: dict[str, int]) -> dict[str, Any]:
        with self._handles.grip.hold() as held:
            if self._clocks is None or not held:
                raise ValueError(f"no clock can be held: {self._handles.reason}")
            return clocks.order(self._clocks, mhz)

    def _free_clocks(self) -> None:
        """In a thread: the driver may hang."""
        locks = self._clocks
        if locks is not None and locks.held and not (self._freeing and self._freeing.is_alive()):
            self._freeing = threading.Thread(target=locks.free, daemon=True)
            self._freeing.start()

    def _sample(self, fast_s: float, slow_s: float, links_s: float) -> dict[str, Any]:
        from burnin.agent import kernel_log  # noqa: F401 - now: the zipapp may be gone when the first line comes

        if self._loads is None and self._handles.nvml is not None:
            self._make_loads()
        return self._readings.begin(self._loads, fast_s, slow_s, links_s)

    def _load(
        self,
        gpus: list[str],
        kernel: str,
        cutoff_margin_c: float,
        max_s: float,
        pulse: dict[str, Any] | None = None,
        nvlink: bool = False,
        cpu: bool = False,
        nic: dict[str, dict[str, str]] | None = None,
    ) -> dict[str, str]:
        if self._loads is None or not self._readings.begun or self._handles.grip.let_go:
            raise ValueError("load is refused: no GPU is being sampled")
        if self._programmed:
            raise ValueError("load is refused: a program has this tray")
        from burnin.agent.load import burns

        specs = burns(self._at, self._handles.uuids, gpus, kernel, pulse or {}, nvlink, cpu, nic or {})
        return self._loads.start(specs, float(cutoff_margin_c), float(max_s), self._unreadable())

    def _ports(self) -> Any:
        from burnin.agent import traffic

        return traffic.ports(self._at)

    def _unload(self, gpus: list[str] | None = None) -> list[str]:
        if self._programs is not None and (gpus is None or set(gpus) & set(self._programs.gpus)):
            self._programs.end("ended by order")
        return self._loads.end(gpus) if self._loads else []

    def _halt(self, why: str, gpus: list[str] | None) -> list[str]:
        self._halts.why.update(dict.fromkeys(["*"] if gpus is None else gpus, why))  # also while NVML is still being opened
        self.tell("note", text=f"load was ended and is refused from now on: {why}")
        ended = list(self._programs.gpus) if self._programs is not None else []
        if self._programs is not None and (gpus is None or set(gpus) & set(ended) or not ended):
            self._programs.end(why, at_once=True)
        self._readings.prove()
        return sorted({*(self._loads.halt(why, gpus) if self._loads else []), *ended})

    def _bye(self) -> str:
        self.end()
        return "bye"

    def end(self) -> None:
        """Unload; the loop ends when every load process is gone."""
        self._unload()
        self._ending = True

    # ---- time

    def _read_kernel_log(self) -> None:
        for line in self._kmsg.poll():
            from burnin.agent import kernel_log

            xid = host.parse_xid(line)
            if xid is not None:
                gpu = next((gpu for gpu, bdf in self._handles.bdfs.items() if host.same_device(xid.bdf, bdf)), "")
                self.tell("event", source="kmsg", gpu=gpu, bdf=xid.bdf, code=xid.code, text=xid.text)
            elif (event := kernel_log.parse_event(line)) is not None:
                part = self._readings.devices.get(event.device, "")
                self.tell("event", source="kmsg", gpu=part, code=event.code, text=event.text)
            elif line.startswith("burnin:"):
                self.tell("note", text=line)

    def tick(self) -> bool:
        """Everything that time brings; False when the holder is done."""
        now = self._now_ns()
        self._readings.check()
        if self._loads is not None and self._loads.burning:
            self._loads.cut_off(self._readings.hung)
            self._loads.tend()
        if self._programs is not None:
            self._programs.tend(self._readings.hung)
        if trouble := self._halts.read(self._loaded):
            self.tell("note", text=trouble)
        self._read_kernel_log()
        self._guards.beat(self._loaded(), due=now - self._beat_ns >= BEAT_NS)
        if now - self._beat_ns >= BEAT_NS:
            self._beat_ns = now
            if now >= self._lease_end_ns:
                self._free_clocks()
            self.tell("beat", load=self._loaded(), xid=self._handles.xid_reason, kmsg=self._kmsg.reason)
        return bool(self._loaded()) or self._programmed or not (self._ending or now - self._heard_ns >= self._wait_ns)

    @property
    def _hot(self) -> bool:
        """True while there is load."""
        return self._programmed or (self._loads is not None and bool(self._loads.burning))

    @property
    def _hurried(self) -> bool:
        """True while there is an end of load to see or to tell, a driver that may hang, or a halt that nobody tells of."""
        leaving = self._loads is not None and self._loads.leaving
        unheard = self._halts.news < 0 and self._hot
        return self._programmed or leaving or self._ending or self._halts.asked or unheard or self._readings.late

    def serve(self, listener: socket.socket) -> None:
        """Run until the controller says bye, or until nobody was heard for `linger_s`, or twice the lease."""
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(self._wake_r, selectors.EVENT_READ)
        selector.register(self._speaking, selectors.EVENT_READ)
        if self._halts.news >= 0:
            selector.register(self._halts.news, selectors.EVENT_READ)

        def drop(gone: Attachment | Guard) -> None:
            selector.unregister(gone.socket)
            gone.socket.close()

        self._guards.left = drop
        alive, looked_ns = True, 0
        while alive:
            patience_s = TICK_S if self._hurried else max(0.0, IDLE_TICK_S - (self._now_ns() - looked_ns) / 1e9)
            ready = selector.select(patience_s)
            with self._turn:
                for key, _ in ready:
                    if isinstance(key.data, Guard):
                        self._guards.hear(key.data)
                    elif key.fileobj is listener:
                        self._admit(listener, selector)
                    elif key.fd in (self._wake_r, self._halts.news):
                        os.read(key.fd, 4096)
                    elif self._channel is not None and key.fileobj is self._channel.socket and not self._channel.receive():
                        self._leave(selector)
                self._run_posts()
                heard = any(key.fd in (self._halts.news, self._speaking.fileno()) for key, _ in ready)
                if heard or (ready and self._hot) or self._hurried or self._now_ns() - looked_ns >= IDLE_TICK_S * 1e9:
                    looked_ns, alive = self._now_ns(), self.tick()
                if not self._send(at_once=bool(ready)):
                    self._leave(selector)
        self._readings.stop()
        with self._turn:
            self._readings.settle()
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.finish()
        self._free_clocks()
        if self._freeing is not None:
            self._freeing.join(FREE_S)

    def _admit(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        fresh = Attachment(self, listener.accept()[0])
        if not fresh.attach():
            fresh.socket.close()
        elif fresh.guard:
            selector.register(fresh.socket, selectors.EVENT_READ, self._guards.add(fresh.socket))
        else:  # the old link may not yet be known to be dead: the newer one wins
            self._leave(selector)
            self._channel = fresh
            selector.register(fresh.socket, selectors.EVENT_READ)
            self._heard_ns = self._now_ns()

    def _leave(self, selector: selectors.BaseSelector) -> None:
        """Drop the channel."""
        channel, self._channel = self._channel, None
        if channel is not None:
            selector.unregister(channel.socket)
            channel.socket.close()
