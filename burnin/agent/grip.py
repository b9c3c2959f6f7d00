"""Who is in the driver now, so that NVML can be let go when nobody is: a GPU reset and vendor diagnostics want it alone.

While it is let go, everything that NVML would tell is `missing`: nobody asks. The tables keep their columns, and go on when
NVML was taken again; a GPU that did not come back is `lost`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from burnin.agent.fields import Group, Reading
from burnin.agent.nvml import Gpu, Gpus
from burnin.wire import LET_GO

_SAYS = {
    12: "no libnvidia-ml.so.1",
    9: "the NVIDIA driver is not loaded",
    4: "no permission",
    18: "driver and library differ",
}
HUNG = "hung"
"""Why NVML is not held while it is being opened."""
LOOK_S = 0.01
LEAVE_S = 5.0
"""How long callers may take to come out of the driver: XID events are waited for by the second."""


class Grip:
    """Counts the callers. `let_go`: nobody may go in."""

    def __init__(self) -> None:
        self.inside: deque[None] = deque()  # appended to and popped from whole: no lock for every reading
        self.let_go = False

    def enter(self) -> bool:
        """Go in, until `leave`; False when NVML is let go, and then nothing of it may be called."""
        self.inside.append(None)  # before it is asked: of who lets go and who goes in, one sees the other
        if self.let_go:
            self.inside.pop()
            return False
        return True

    def leave(self) -> None:
        """Come out."""
        self.inside.pop()

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Both, around a block."""
        inside = self.enter()
        try:
            yield inside
        finally:
            if inside:
                self.leave()

    def empty(self, timeout_s: float) -> bool:
        """Wait until nobody is inside; False when somebody does not come out."""
        end = time.monotonic() + timeout_s
        while self.inside and time.monotonic() < end:
            time.sleep(LOOK_S)
        return not self.inside


class GroupSource:
    """One GPU's metrics of one cadence (fast, slow, links, transient), for the sampler. `gpus` are those that are there now."""

    def __init__(
        self,
        name: str,
        cadence: str,
        gpus: dict[str, Gpu],
        grip: Grip,
        answered: Callable[[int], None] | None = None,
    ) -> None:
        self.name, self._cadence, self._gpus, self._grip = name, cadence, gpus, grip
        self.answered = answered
        self._inside, self._gpu = grip.inside, gpus.get(name)
        group = self._now = self._group()
        self._metrics = group.metrics if group is not None else ()
        self.columns = tuple((f"{name}.{sub}" if sub else name, metric) for sub, metric in self._metrics)

    def _group(self) -> Group | None:
        gpu = self._gpus.get(self.name)
        return None if gpu is None else getattr(gpu, self._cadence)

    def ask(self) -> Any:
        """See Group.ask; a reason where nobody can be asked."""
        inside = self._inside
        inside.append(None)  # as Grip.enter; each call of a function more would be one more a GPU and reading
        try:
            if self._grip.let_go:
                return "missing"
            gpu = self._gpus.get(self.name)
            if gpu is not self._gpu:
                self._gpu, self._now = gpu, self._group()
            group = self._now
            return "lost" if group is None else (group, group.ask())
        finally:
            inside.pop()

    def told(self, asked: Any) -> list[Reading]:
        """See Group.told."""
        group, said = asked
        readings: list[Reading] = group.told(said)
        if group.metrics is self._metrics or group.metrics == self._metrics:
            return readings
        known = dict(zip(group.metrics, readings))  # fewer links came back, or more
        return [known.get(metric, "missing") for metric in self._metrics]


class Handles:
    """The tray's NVML as it is held now. `note` and `saw_xid` are called from other threads; `ending` ends the watch of XIDs.

    `gpus` are those that answer to a handle, by name; `uuids` and `bdfs` those that were there at first.
    `reason` says why NVML is not held, `xid_reason` why XID events are not watched; None where they are.
    """

    def __init__(
        self,
        open_nvml: Callable[[], Any],
        note: Callable[[str], None],
        saw_xid: Callable[[str, int], None],
        ending: Callable[[], bool],
    ) -> None:
        self._open_nvml, self._note, self._saw_xid, self._ending = open_nvml, note, saw_xid, ending
        self.grip = Grip()
        self.gpus: dict[str, Gpu] = {}
        self.uuids: dict[str, str] = {}
        self.bdfs: dict[str, str | None] = {}
        self.nvml: Gpus | None = None
        self.reason: str | None = HUNG
        self.xid_reason: str | None = "missing"
        self._turn = threading.Lock()

    def open(self) -> None:
        """Initialise NVML; it may hang. Whatever goes wrong is in `reason`: this tray is unreadable then, not silent."""
        try:
            nvml = self._open_nvml()
            try:
                found = Gpus(nvml)
                self.gpus.update({gpu.name: gpu for gpu in found.gpus})
                self.uuids = {gpu.name: gpu.uuid for gpu in found.gpus}
                self.bdfs = {gpu.name: gpu.bdf for gpu in found.gpus}
                self.nvml, self.reason, self.xid_reason = found, None, None
            except nvml.NVMLError as error:
                self.reason = _SAYS.get(error.value, f"NVML error {error.value}")
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"

    @property
    def gone(self) -> set[str]:
        """GPUs that had no handle when NVML was taken again."""
        return self.uuids.keys() - self.gpus.keys()

    def watch_xids(self) -> None:
        """Wait for XID events until something ends it, and say what. Call in a thread."""
        with self.grip.hold() as held:
            if self.nvml is None or not held:
                return
            self.xid_reason = None
            why = self.nvml.watch_xids(self._saw_xid, lambda: self._ending() or self.grip.let_go)
            self.xid_reason = LET_GO if self.grip.let_go else why
        self._note(f"XID events are no longer watched: {self.xid_reason}")

    def _watch_again(self) -> None:
        threading.Thread(target=self.watch_xids, daemon=True, name="xid").start()

    # ---- orders; each may hang with the driver

    def identities(self, hung: set[str]) -> dict[str, Any]:
        """Driver and GPUs, but for those that hang."""
        with self.grip.hold() as held:
            nvml = self.nvml if held else None
            gpus = [gpu.identity() for name, gpu in self.gpus.items() if name not in hung] if nvml else []
            return {
                "driver": nvml.driver if nvml else None, "cuda": nvml.cuda if nvml else None, "gpus": gpus,
                "failed": {str(index): why for index, why in nvml.failed.items()} if nvml else {},
            }  # fmt: skip

    def settings(self, hung: set[str]) -> dict[str, Any]:
        """How each GPU is set, but for those that hang. Raises ValueError while NVML is let go."""
        with self.grip.hold() as held:
            if not held:
                raise ValueError(f"the GPUs' settings cannot be read: NVML is {LET_GO}")
            return {name: gpu.settings() for name, gpu in self.gpus.items() if name not in hung}

    def release(self, busy: Callable[[], str]) -> str:
        """Let NVML go. Raises ValueError when it is not held, while `busy` says something, and while a call is out: that one
        would come back into freed memory."""
        with self._turn:
            nvml = self.nvml
            if self.reason == LET_GO:
                return LET_GO
            if nvml is None:
                raise ValueError(f"NVML is not held: {self.reason}")
            self.grip.let_go = True  # from here on nobody goes in
            why = busy() or ("" if self.grip.empty(LEAVE_S) else f"a driver call has not come back for {LEAVE_S:g} s")
            if why:
                self.grip.let_go = False
                self._watch_again()
                raise ValueError(f"NVML is not let go: {why}")
            nvml.shut()
            self.nvml, self.reason, self.xid_reason = None, LET_GO, LET_GO
        self._note(f"NVML is {LET_GO}: its metrics are missing until it is taken again")
        return LET_GO

    def take(self) -> dict[str, list[str]]:
        """Take NVML again: the same GPUs, by UUID, under the same names -> {gpus, lost}. Raises NVMLError."""
        with self._turn:
            if self.reason == LET_GO:
                self._take()
        return {"gpus": list(self.gpus), "lost": sorted(self.gone)}

    def _take(self) -> None:
        nvml = self._open_nvml()
        try:
            found = Gpus(nvml)
        except nvml.NVMLError:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()  # it may have got as far as counting GPUs
            raise
        by_uuid = {gpu.uuid: gpu for gpu in found.gpus}
        back = {name: by_uuid[uuid] for name, uuid in self.uuids.items() if uuid in by_uuid}
        lost = sorted(self.uuids.keys() - back.keys())
        for name, gpu in back.items():
            gpu.position = int(name[1:])
        for name in lost:
            self.gpus.pop(name, None)
        self.gpus.update(back)  # in place: others hold it too
        self.nvml, self.reason = found, None
        self.grip.let_go = False
        self._note(f"NVML was taken again{': ' + ', '.join(lost) + ' did not come back' if lost else ''}")
        self._watch_again()
