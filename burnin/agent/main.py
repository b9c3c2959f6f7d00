"""What `python3 -I -S agent.pyz ...` does: `channel RUN HOLDER SEQ [CLAIM]`, `guard RUN`, `hold RUN`, `work ...`,
`program ...`, or `codes`, which keeps bytecode for later starts (burnin.agent.codes).

The working directory is the agent's private one. This is the only place that knows of processes' arguments and of the
real clock, libraries and environment; everything below is given them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

SOCKET = "holder.sock"
ANOTHER_HOLDER = 7
"""Exit status of a holder that found another one alive."""
LINGER_S = 600.0
"""How long a holder waits for a controller to come back before it leaves the tray as it was."""


KEEP_AFTER_S = 60.0
"""How long a holder lives before it has bytecode made: not while a tray is only asked something, nor at a start."""


def _python(zipapp: str, *args: str) -> list[str]:
    return [sys.executable, "-I", "-S", zipapp, *args]


def _open_nvml() -> Any:
    import pynvml  # heavy, and only the holder needs it

    return pynvml


def _start_holder(zipapp: str, run: str) -> subprocess.Popen[bytes]:
    import subprocess  # here and below: no start waits for it but the channel's

    with open("holder.log", "wb") as log:
        return subprocess.Popen(
            _python(zipapp, "hold", run),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _keep_codes(zipapp: str) -> None:
    import subprocess

    null = subprocess.DEVNULL
    with contextlib.suppress(OSError):
        subprocess.Popen(_python(zipapp, "codes"), stdin=null, stdout=null, stderr=null).wait()


def hold(zipapp: str, run: str, kept: bool = True) -> int:
    """Be the holder of this tray; exit status ANOTHER_HOLDER when there is one already."""
    try:
        import ctypes  # noqa: F401 - Debian's python3-minimal has none, and nothing of NVIDIA's can be reached without
    except ImportError:
        sys.stderr.write(
            "this python has no ctypes: install the whole python3, or name another with `python:` in the rack file\n"
        )
        return 8
    from burnin.agent import clocks, host
    from burnin.agent.holder import Holder

    lock = open("holder.lock", "w")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return ANOTHER_HOLDER

    def spawn(uuid: str, spec: dict[str, Any], fd: int, slot: int, slots: int) -> subprocess.Popen[bytes]:
        import subprocess

        words = ("work", uuid, json.dumps(spec), str(fd), str(slot), str(slots), str(os.getpid()))
        return subprocess.Popen(
            _python(zipapp, *words),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(fd,),
        )

    def keep(spec: dict[str, Any], fd: int) -> subprocess.Popen[bytes]:
        import subprocess

        words = ("program", json.dumps(spec), str(fd), str(os.getpid()))
        return subprocess.Popen(
            _python(zipapp, *words), bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(fd,)
        )

    os.umask(0o077)
    roots = host.roots(os.environ)
    holder = Holder(run, os.path.basename(zipapp), _open_nvml, spawn, roots, LINGER_S, clocks.NOTE, keep=keep)
    signal.signal(signal.SIGTERM, lambda *_: holder.end())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    holder.start()
    if not kept:
        import threading

        later = threading.Timer(KEEP_AFTER_S, _keep_codes, (zipapp,))
        later.daemon = True
        later.start()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    listener.bind(SOCKET)
    listener.listen(8)
    try:
        holder.serve(listener)
    finally:
        os.unlink(SOCKET)
    os._exit(0)  # a thread may be stuck in the driver for ever


def work(uuid: str, spec: str, fd: str, slot: str, slots: str, parent: str) -> int:
    """Be a load or work process."""
    from burnin.agent import work as process

    def renew(other: dict[str, Any]) -> None:
        os.execv(sys.executable, _python(sys.argv[0], "work", uuid, json.dumps(other), fd, slot, slots, parent))

    status = process.main(uuid, json.loads(spec), int(fd), int(slot), int(slots), int(parent), time.monotonic_ns, renew)
    os._exit(status)  # all is said: taking an interpreter down in order only holds up the end of a halt


def main(zipapp: str, argv: list[str], kept: bool = True) -> int:
    """Dispatch; exit status 64 for words that are not known. `kept` False: there is no bytecode of this Python to run by."""
    if argv[:1] == ["channel"] and len(argv) in (4, 5):
        from burnin.agent import channel

        run, holder, seq = argv[1], argv[2], int(argv[3])
        claim = argv[4] if len(argv) == 5 else "null"
        return channel.main(lambda: channel.attach(run, holder, seq, lambda: _start_holder(zipapp, run), json.loads(claim)))
    if argv[:1] == ["guard"] and len(argv) == 2:
        from burnin.agent import channel

        return channel.main(lambda: channel.guard(argv[1]))
    if argv[:1] == ["hold"] and len(argv) == 2:
        return hold(zipapp, argv[1], kept)
    if argv == ["codes"]:
        from burnin.agent import codes

        return codes.keep(zipapp)
    if argv[:1] == ["work"] and len(argv) == 7:
        return work(*argv[1:])
    if argv[:1] == ["program"] and len(argv) == 4:
        from burnin.agent import keeper

        return keeper.main(argv[1], argv[2], argv[3], time.monotonic_ns)
    sys.stderr.write(f"burnin agent: unknown words {argv}\n")
    return 64
