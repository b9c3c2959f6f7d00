"""The run in a terminal: a grid of trays that fits 80 columns when there is one, plain lines when there is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from burnin.events import StageBegan, StageEnded, Status, TrayState
from burnin.rack.parts import fold
from burnin.views.live import Picture, Tray

REFRESH_HZ = 2
PLAIN_EVERY_S = 30.0
_NOTES = 5
_LOOK = {"ready": "green", "connecting": "dim", "LOST": "bold red", "refused": "bold red", "done": "dim"}
_WARM_C, _HOT_C = 10.0, 3.0
"""T.Limit margins below which a reading is drawn in yellow and in red; for the eye only, nothing is judged here."""


def clock(seconds: float) -> str:
    """90 -> 1:30, 7200 -> 2:00:00."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Screen(Protocol):
    """Something that shows a run while it goes on."""

    def see(self, event: object) -> None:
        """An event happened."""
        ...

    def tick(self, now_s: float) -> None:
        """Time went on."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Grid:
    """The live grid, redrawn in place."""

    def __init__(self, picture: Picture, console: Console) -> None:
        self._picture = picture
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def see(self, event: object) -> None:
        """Take the event into the picture; drawn at the next tick."""
        self._picture.see(event)

    def tick(self, now_s: float) -> None:
        """Draw."""
        self._live.update(draw(self._picture, now_s), refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()


class Lines:
    """One line per thing that happens: for logs, pipes and `--plain`."""

    def __init__(self, picture: Picture, console: Console) -> None:
        self._picture, self._console = picture, console
        self._said = 0
        self._next_s = PLAIN_EVERY_S

    def see(self, event: object) -> None:
        """Print what a person reading a log wants to know, once."""
        self._picture.see(event)
        match event:
            case StageBegan():
                takes, left = clock(self._picture.stage_planned_s), clock(self._picture.left_s(event.t_s))
                self._say(event.t_s, f"stage {self._picture.number()} {event.name}, {takes}; {left} left")
                self._next_s = event.t_s + PLAIN_EVERY_S
            case StageEnded() if event.status is Status.ABORTED:
                self._say(event.t_s, f"stage {event.name} {event.status}: {event.why}")
            case TrayState() if event.state == "ready":
                everyone = self._picture.count("ready")
                if everyone == len(self._picture.trays):
                    self._say(event.t_s, f"{fold(self._picture.trays)} ready")
            case _:
                pass
        new = self._picture.noted - self._said
        for t_s, text in list(self._picture.notes)[-new:] if new else ():
            self._say(t_s, text)
        self._said = self._picture.noted

    def tick(self, now_s: float) -> None:
        """Now and then, that the run is alive."""
        if now_s >= self._next_s:
            self._next_s = now_s + PLAIN_EVERY_S
            self._say(
                now_s, f"{self._picture.stage}: {self._picture.power_kw():.1f} kW; {clock(self._picture.left_s(now_s))} left"
            )

    def close(self) -> None:
        """Nothing to undo."""

    def _say(self, t_s: float, text: str) -> None:
        self._console.print(Text(f"{clock(t_s):>7}  {text}"), soft_wrap=True)


# ---------------------------------------------------------------- drawing


def draw(picture: Picture, now_s: float) -> RenderableType:
    """The grid: header, two columns of trays, switch trays, what happened last."""
    compute = [tray for name, tray in sorted(picture.trays.items()) if name.startswith("t")]
    switches = [tray for name, tray in sorted(picture.trays.items()) if name.startswith("s")]
    parts: list[RenderableType] = [_header(picture, now_s), Text()]
    half = (len(compute) + 1) // 2
    columns = Table.grid(padding=(0, 4))
    columns.add_row(_trays(picture, compute[:half]), _trays(picture, compute[half:]))
    parts.append(columns)
    if switches:
        line = Text("switch trays  ")
        for tray in switches:
            line.append(f"{tray.name} ", _LOOK.get(tray.state, ""))
        parts += [Text(), line]
    parts += [Text(), *_notes(picture)]
    return Group(*parts)


def _header(picture: Picture, now_s: float) -> RenderableType:
    line = Text.assemble((f"rack {picture.rack}", "bold"), f"   {picture.suite}   run {picture.run}")
    done = 0.0
    if picture.stage_planned_s > 0:
        done = min(1.0, max(0.0, (now_s - picture.stage_began_s) / picture.stage_planned_s))
    bar = "━" * round(done * 20)
    number = f"stage {picture.number()} " if picture.stage_index >= 0 else ""
    state = Text.assemble(
        (f"{number}{picture.stage:<12}", "bold cyan"),
        (bar, "cyan"),
        ("━" * (20 - len(bar)), "dim"),
        f"  {picture.power_kw():6.1f} kW   {clock(now_s)} gone, ",
        (f"{clock(picture.left_s(now_s))} left", "bold"),
    )
    return Group(line, state)


def _trays(picture: Picture, trays: list[Tray]) -> Table:
    count = picture.profile.topology.gpus_per_tray
    table = Table.grid(padding=(0, 1))
    table.add_row("", *(Text(f" g{i}", "dim") for i in range(count)), Text("Cel", "dim"))
    for tray in trays:
        style = "bold yellow" if tray.trouble and tray.state == "ready" else _LOOK.get(tray.state, "")
        cells = [Text(tray.name, style)]
        if tray.state in ("LOST", "refused", "connecting"):
            cells += [Text(tray.state, style)] + [Text("")] * count
        else:
            cells += list(_gpus(picture, tray.name, count))
            kw = sum(picture.values.get((f"{tray.name}.g{i}", "gpu.power")) or 0.0 for i in range(count)) / 1000
            cells.append(Text(f"{kw:4.1f} kW", "dim"))
        table.add_row(*cells)
    return table


def _gpus(picture: Picture, tray: str, count: int) -> Iterator[Text]:
    for i in range(count):
        temp = picture.values.get((f"{tray}.g{i}", "gpu.temp"))
        margin = picture.values.get((f"{tray}.g{i}", "gpu.tlimit"))
        if temp is None:
            yield Text(" --", "red")
        elif margin is not None and margin < _WARM_C:
            yield Text(f"{temp:3.0f}", "bold red" if margin < _HOT_C else "yellow")
        else:
            yield Text(f"{temp:3.0f}")


def _notes(picture: Picture) -> Iterator[Text]:
    for t_s, text in list(picture.notes)[-_NOTES:]:
        yield Text(f"{clock(t_s):>7}  {text}", "yellow", no_wrap=True, overflow="ellipsis")
