"""The README's pictures, from a real `burnin demo` in a real terminal: `make picture` (needs tmux)."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console

HERE = Path(__file__).parent
COLUMNS, ROWS = 112, 34
SESSION = "burnin-picture"


def tmux(*words: str) -> str:
    """One tmux command's output."""
    return subprocess.run(["tmux", *words], capture_output=True, text=True, check=True).stdout


def screen() -> str:
    """The terminal's screen, colours included."""
    return tmux("capture-pane", "-e", "-p", "-t", SESSION)


def draw(ansi: str, name: str, title: str) -> None:
    """One screen as an SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in AnsiDecoder().decode(ansi.rstrip()):  # a colour goes on over the end of a line
        console.print(line, no_wrap=True, crop=True)
    picture = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", console.export_svg(title=title), flags=re.S)  # no fonts from the net
    (HERE / name).write_text(picture.replace("Fira Code", "DejaVu Sans Mono"))


def main() -> int:
    """Run the demo and draw it twice: under load, and at its end."""
    command = f"{sys.executable} -m burnin demo --db /tmp/{SESSION}.db; sleep 30"
    subprocess.run(["tmux", "kill-session", "-t", SESSION], capture_output=True, check=False)
    tmux("new-session", "-d", "-s", SESSION, "-x", str(COLUMNS), "-y", str(ROWS), command)
    try:
        until(lambda text: "stage 7/8" in text, 150)
        time.sleep(18)
        draw(screen(), "run.svg", "burnin run: a re-test under full load")
        until(lambda text: "the verdict is" in text, 120)
        draw(screen(), "demo.svg", "burnin demo")
    finally:
        tmux("kill-session", "-t", SESSION)
        Path(f"/tmp/{SESSION}.db").unlink(missing_ok=True)
    return 0


def until(seen, seconds: float) -> None:  # type: ignore[no-untyped-def]
    """Wait until the screen shows something."""
    end = time.monotonic() + seconds
    while not seen(screen()):
        if time.monotonic() > end:
            raise TimeoutError(screen())
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
