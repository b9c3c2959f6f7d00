"""A tray's files: its PATH, its home, the tree that HOST_PROC, HOST_SYS and HOST_DEV point at, and its kernel log.

bin/     python3 (the real one, behind the emulation), sudo, the tools of burnin.twin.tools, on switch trays nv
home/    where a login lands
root/    proc, sys, dev
state    the mapped state; tray.json what the emulated libraries know
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from burnin.twin import hosttree
from burnin.twin.identity import TrayId, older
from burnin.twin.model import Model
from burnin.twin.tools.main import TOOLS

_SUDO = """#!/bin/sh
# Every login of a twin may do everything: drop the options and run the rest.
while [ $# -gt 0 ]; do
    case "$1" in
        --) shift; break ;;
        -u) shift 2 ;;
        -*) shift ;;
        *=*) export "$1"; shift ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || exit 0
exec "$@"
"""


def make_compute(at: Path, model: Model, tray: TrayId, emulation: dict[str, Any]) -> None:
    """Write everything a compute tray starts with, but its state."""
    _make_common(at)
    boot = Path(__file__).parent / "emulate" / "boot.py"
    real = os.path.realpath(sys.executable)
    _script(at / "bin/python3", f'#!/bin/sh\nexec {shlex.quote(real)} -I -S {shlex.quote(str(boot))} "$0" "$@"\n')
    (at / "tray.json").write_text(json.dumps(emulation))
    tool = Path(__file__).parent / "tools" / "main.py"
    for name in TOOLS:
        words = f"{shlex.quote(real)} -I -S {shlex.quote(str(tool))} {shlex.quote(str(at.absolute()))} {name}"
        _script(at / "bin" / name, f'#!/bin/sh\nexec {words} "$@"\n')
    dmi = {
        "sys_vendor": model.machine.vendor,
        "product_name": model.machine.product,
        "product_serial": tray.serial,
        "board_serial": tray.board_serial,
        "bios_version": older(model.machine.bios, tray.behind),
    }
    for name, value in dmi.items():
        _file(at / "root/sys/class/dmi/id" / name, value + "\n")
    cores = model.machine.sockets * hosttree.CPUS_SHOWN
    listed = "".join(f"processor\t: {i}\nCPU part\t: {model.machine.cpu}\n\n" for i in range(cores))
    _file(at / "root/proc/cpuinfo", listed)


def make_switch(at: Path) -> None:
    """Write what a switch tray starts with."""
    _make_common(at)
    nv, real = Path(__file__).parent / "nvos" / "nv.py", os.path.realpath(sys.executable)
    _script(at / "bin/nv", f'#!/bin/sh\nexec {shlex.quote(real)} -I -S {shlex.quote(str(nv))} {shlex.quote(str(at))} "$@"\n')


def environment(at: Path) -> dict[str, str]:
    """The environment of a login on this tray."""
    return {
        "PATH": f"{at}/bin:/usr/bin:/bin",
        "HOME": str(at / "home"),
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "HOST_PROC": str(at / "root/proc"),
        "HOST_SYS": str(at / "root/sys"),
        "HOST_DEV": str(at / "root/dev"),
    }


def _make_common(at: Path) -> None:
    (at / "bin").mkdir(parents=True)
    (at / "home").mkdir(mode=0o700, exist_ok=True)  # it outlives a boot
    _script(at / "bin/sudo", _SUDO)
    _file(at / "root/proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")
    os.symlink("/proc/uptime", at / "root/proc/uptime")  # a tray's CLOCK_MONOTONIC is this machine's
    _file(at / "root/dev/kmsg", "")


def _file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class KernelLog:
    """The tray's kernel log: a file of `level,number,microseconds,-;text` lines, as /dev/kmsg gives them."""

    def __init__(self, at: Path, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._path = at / "root/dev/kmsg"
        self._now_ns = now_ns
        self._number = 0

    def booted(self, driver: str) -> None:
        """The few lines of an uneventful boot, long ago."""
        for us, text in (
            (0, "Booting Linux on physical CPU 0x0000000000"),
            (2_412_331, "EXT4-fs (nvme0n1p2): mounted filesystem with ordered data mode"),
            (9_220_118, f"NVRM: loading NVIDIA UNIX Open Kernel Module  {driver}"),
        ):
            self._write(6, us, text)

    def add(self, text: str, level: int = 4) -> None:
        """One line, now."""
        self._write(level, self._now_ns() // 1000, text)

    def _write(self, level: int, us: int, text: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{level},{self._number},{us},-;{text}\n")
        self._number += 1
