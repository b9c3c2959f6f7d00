"""The command line: parse, call, exit code. Heavy imports stay inside commands, so that `burnin --help` is quick."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from burnin.errors import BurninError, InputError, NotReady, StoreError

if TYPE_CHECKING:
    from pathlib import Path


def main() -> None:
    """Entry point of `burnin`."""
    gc.set_threshold(50_000, 20, 100)  # imports make much that lives on: looking at it ever again is 5 % of a start
    if "--emergency" in sys.argv:
        from burnin.run import ahead

        ahead.for_a_moment()
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """One command, and its exit code: whatever happens inside, 1 only ever means FAIL."""
    from burnin.cli import at_once

    if (asked := at_once.read(argv, os.environ)) is not None:
        return _at_once(*asked)
    from burnin.cli import exits
    from burnin.cli.app import Escaped, command

    try:
        code = command().main(args=argv, prog_name="burnin", standalone_mode=False)
        sys.stdout.flush()
    except Escaped as escaped:
        return _outcome(escaped.error)
    except BrokenPipeError:
        return _nobody_reads()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "show"):  # the parser's own words about the arguments
            error.show()
            return exits.USAGE
        return exits.INTERRUPTED if type(error).__name__ == "Abort" else _outcome(error)
    return code if isinstance(code, int) else exits.PASS


def _at_once(run: str, db: Path) -> int:
    from burnin.cli import at_once

    try:
        at_once.stop(run, db)
        sys.stdout.flush()
    except BaseException as error:
        return _outcome(error)
    from burnin.cli import exits

    return exits.PASS


def _outcome(error: BaseException) -> int:
    from burnin.cli import exits

    if isinstance(error, KeyboardInterrupt):
        return exits.INTERRUPTED
    if isinstance(error, SystemExit):  # not ours (we raise typer.Exit): rich leaves so, with 1, when its pipe is closed
        return _nobody_reads()
    if isinstance(error, BrokenPipeError):
        return _nobody_reads()
    if isinstance(error, InputError):
        _say(str(error))
        return exits.USAGE
    if isinstance(error, NotReady):
        _say(str(error))
        return exits.HOLD
    if isinstance(error, BaseExceptionGroup):
        inner = [e for e in error.exceptions if isinstance(e, BurninError)]
        if inner and len(inner) == len(error.exceptions):
            return max(_outcome(e) for e in inner)
    if isinstance(error, StoreError):
        _say(str(error))
        return exits.BROKEN
    return _broken(error)


def _broken(error: BaseException) -> int:
    import tempfile
    import traceback

    from burnin.cli import exits

    with tempfile.NamedTemporaryFile("w", prefix="burnin-failure-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    _say(f"burnin failed by itself; this says nothing about the rack: {what} (details: {file.name})")
    return exits.BROKEN


def _nobody_reads() -> int:
    """Our output is a closed pipe (`| head`): what was to be said was not, so no verdict is implied."""
    from burnin.cli import exits

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.BROKEN


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
