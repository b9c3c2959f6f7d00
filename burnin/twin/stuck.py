"""A driver that does not come back: a FUSE file system whose only file is never found.

Who asks for the file waits in the kernel. Killed, it waits on, in state D, and no signal ends it: that is what a process in a
hung driver does. It ends with the tray's process, which holds the file system's other end.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

from burnin.twin import mounts

KIND, FILE = "proc_stuck", "driver"
_INIT, _GETATTR = 26, 3
_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_WE_ARE = struct.Struct("<IIIIHHIIHH28x")
"""fuse_init_out of protocol 7.23 and later."""


class Driver:
    """The other end. Mounts: for a process of one thread; raises OSError where nobody may."""

    def __init__(self, at: Path) -> None:
        """`at`: the tray's folder."""
        self.path = at / "driver"
        self.path.mkdir(parents=True, exist_ok=True)
        mounts.own_mounts()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        user, group = os.getuid(), os.getgid()
        mounts.mount("twin", self.path, "fuse", 0, f"fd={self._fd},rootmode=40000,user_id={user},group_id={group}")

    def serve(self) -> None:
        """Be there, in the running event loop."""
        asyncio.get_running_loop().add_reader(self._fd, self._answer)

    def _answer(self) -> None:
        """The first question is answered, and no other."""
        try:
            asked = os.read(self._fd, 1 << 17)
        except OSError:
            return
        _, what, unique, *_ = _IN.unpack_from(asked)
        if what == _INIT:
            _, minor, ahead, _ = struct.unpack_from("<IIII", asked, _IN.size)
            body = _WE_ARE.pack(7, min(minor, 31), ahead, 0, 12, 9, 1 << 16, 1, 0, 0)
            os.write(self._fd, _OUT.pack(_OUT.size + len(body), 0, unique) + body)

    def close(self) -> None:
        """Whoever waits is let go."""
        os.close(self._fd)
