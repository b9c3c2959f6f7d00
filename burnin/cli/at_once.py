"""`burnin stop RUN --emergency` by the shortest way: read and obeyed before the command line, which takes longer to import.

What is not understood here is left to the command line and its words.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

FLAG = "--emergency"


def read(argv: list[str], environ: Mapping[str, str]) -> tuple[str, Path] | None:
    """(RUN, database) of a plain `stop RUN --emergency [--db FILE]`, in any order; None for everything else."""
    if argv[:1] != ["stop"] or argv.count(FLAG) != 1:
        return None
    words, run, db = [word for word in argv[1:] if word != FLAG], "", environ.get("BURNIN_DB") or "burnin.db"
    while words:
        word = words.pop(0)
        if word == "--db" and words and not words[0].startswith("-"):
            db = words.pop(0)
        elif word.startswith("--db=") and len(word) > 5:
            db = word[5:]
        elif run or not word or word.startswith("-"):
            return None
        else:
            run = word
    return (run, Path(db)) if run else None


def stop(run: str, db: Path) -> None:
    """Obey, and say what was done. Raises as `burnin.run.emergency.stop_now`."""
    from burnin.run.emergency import stop_now

    for line in stop_now(run, db, me()):
        sys.stdout.write(f"{line}\n")


def me() -> str:
    """Who asks."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
