"""What a run looks like at this moment: events folded into one picture. No terminal here, no waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from burnin.checks import CHECKS
from burnin.events import LogLine, StageBegan, StageEnded, Status, Tick, TrayState
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage

_NOTED = {"xid", "kernel", "cut", "interlock", "link", "note", "guard", "stop", "detached", "unguarded"}
_LOAD_TROUBLE = {"failed", "refused"}


@dataclass
class Tray:
    """One tray as last heard: state is connecting | ready | LOST | refused | done."""

    name: str
    state: str = "connecting"
    why: str = ""
    trouble: bool = False


@dataclass
class Picture:
    """The run so far. Times are run seconds; `values` holds the last reading of every (part, metric)."""

    run: str
    rack: str
    profile: Profile
    suite: str
    stages: Mapping[int, Stage]
    """What is planned, by its number in the suite."""
    trays: dict[str, Tray]
    own_s: Mapping[int, float] = field(default_factory=dict)
    """About how long a stage's checks work by themselves, after its own time."""
    stage: str = "connecting"
    stage_index: int = -1
    stage_began_s: float = 0.0
    stage_planned_s: float = 0.0
    skipped: set[str] = field(default_factory=set)
    values: dict[tuple[str, str], float | None] = field(default_factory=dict)
    notes: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=200))
    noted: int = 0
    """How many notes there were in all."""

    @classmethod
    def of(cls, run: str, rack: str, profile: Profile, suite: str, stages: Mapping[int, Stage], trays: Sequence[str]) -> Picture:
        """An empty picture."""
        own_s = {
            index: sum(CHECKS[step.check].seconds(profile, step.args) for step in stage.steps if step.check in CHECKS)
            for index, stage in stages.items()
        }
        return cls(run, rack, profile, suite, stages, {name: Tray(name) for name in trays}, own_s)

    def number(self) -> str:
        """3/8: the stage it is in, of those that are planned."""
        return f"{list(self.stages).index(self.stage_index) + 1}/{len(self.stages)}" if self.stage_index in self.stages else ""

    def see(self, event: object) -> None:
        """Take one event in; what is not an event of a rack is let pass."""
        match event:
            case Tick():
                self.values.update(zip(event.columns, event.values, strict=True))
            case TrayState():
                tray = self.trays.setdefault(event.tray, Tray(event.tray))
                tray.state, tray.why = event.state, event.why
                if event.state in ("LOST", "refused"):
                    self._note(event.t_s, f"{event.tray} {event.state}: {event.why}")
                elif event.state == "ready" and event.why:
                    self._note(event.t_s, f"{event.tray} is ready, but {event.why}")
            case LogLine() if event.kind in _NOTED or (event.kind == "load" and event.code in _LOAD_TROUBLE):
                self._logged(event)
            case StageBegan():
                self.stage, self.stage_index = event.name, event.index
                self.stage_began_s, self.stage_planned_s = event.t_s, event.planned_s + self.own_s.get(event.index, 0.0)
            case StageEnded() if event.status is Status.SKIPPED:
                self.skipped.add(event.name)
                self._note(event.t_s, f"{event.name} skipped: {event.why}")
            case _:
                pass

    def _logged(self, line: LogLine) -> None:
        if line.kind == "interlock" and line.code == "waived":
            return  # said once, at the start and in the verdict
        tray = self.trays.get(line.part.split(".")[0])
        if tray is not None:
            tray.trouble = True
        text = f"XID {line.code} ({line.source}) {line.text}".strip() if line.kind == "xid" else line.text
        self._note(line.t_s, text if text.startswith(line.part) else f"{line.part}: {text}")

    def _note(self, t_s: float, text: str) -> None:
        if not any(text == old for _, old in list(self.notes)[-5:]):
            self.notes.append((t_s, text))
            self.noted += 1

    def left_s(self, now_s: float) -> float:
        """Planned seconds until the end, without stages that only a suspicion calls for."""
        rest = max(0.0, self.stage_began_s + self.stage_planned_s - now_s) if self.stage_index >= 0 else 0.0
        later = [(index, stage) for index, stage in self.stages.items() if index > self.stage_index]
        return rest + sum(s.duration + self.own_s.get(index, 0.0) for index, s in later if s.when == "always")

    def power_kw(self) -> float:
        """GPU power of the whole rack, as last read."""
        return sum(v for (_, metric), v in self.values.items() if metric == "gpu.power" and v is not None) / 1000

    def count(self, *states: str) -> int:
        """How many trays are in one of these states."""
        return sum(tray.state in states for tray in self.trays.values())
