"""The health log of an NVMe drive, asked of the drive itself: no program is needed, but the right to open its device.

Layout: NVM Express base specification, log page 02h (SMART / health information, 512 bytes, little-endian).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from typing import NamedTuple

SIZE = 512
_ADMIN = 0xC0484E41
"""NVME_IOCTL_ADMIN_CMD: _IOWR('N', 0x41, 72 bytes)."""
_COMMAND = struct.Struct("<BBHIIIQQ10I")
_GET_LOG_PAGE, _HEALTH, _ALL = 0x02, 0x02, 0xFFFFFFFF
_PATIENCE_MS = 1000
_ZERO_C = 273.15


class Health(NamedTuple):
    """What the log says. `temp_c` is NaN where the drive does not measure; `spare` and `used` are shares (used may pass 1)."""

    warning: int
    temp_c: float
    spare: float
    used: float
    media_errors: int


def parse(page: bytes) -> Health:
    """The log page. Raises ValueError when it was cut short."""
    if len(page) < SIZE:
        raise ValueError(f"a health log has {SIZE} bytes, this has {len(page)}")
    kelvin = int.from_bytes(page[1:3], "little")
    temp_c = round(kelvin - _ZERO_C, 2) if kelvin else float("nan")
    return Health(page[0], temp_c, page[3] / 100, page[5] / 100, int.from_bytes(page[160:176], "little"))


def log_page(fd: int) -> bytes:
    """The log page of an open device; of a regular file its bytes, as somebody saved them. Raises OSError.

    The command times out after a second, so that a dying drive does not hold its reader for the driver's minute.
    """
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.pread(fd, SIZE, 0)
    page = ctypes.create_string_buffer(SIZE)
    dwords = SIZE // 4 - 1
    command = bytearray(
        _COMMAND.pack(
            _GET_LOG_PAGE, 0, 0, _ALL, 0, 0, 0, ctypes.addressof(page),
            0, SIZE, _HEALTH | dwords << 16, 0, 0, 0, 0, 0, _PATIENCE_MS, 0,
        )
    )  # fmt: skip
    status = fcntl.ioctl(fd, _ADMIN, command)
    if status:
        raise OSError(0, f"the drive answered status {status:#x}")
    return page.raw
