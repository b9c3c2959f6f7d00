"""stress-ng, STREAM and fio: what they would find in the tray's CPUs, memory and drives as they are. They end at once.

Forms: STREAM 5.10 and fio-3.16 of the captures; the text of stress-ng 0.17 as its own issues show it (no capture).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ..state import State
from . import drives
from .smi import Said

CORES = 72
"""Of one socket (Grace)."""
_SOCKET_GBPS = 430.0
"""STREAM's triad of one socket (assumption)."""
_SLEEPS_S = 10


def _seconds(said: str) -> int:
    return int(said.rstrip("s") or 0) if said.rstrip("s").isdigit() else 60


def _long(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)} mins, {rest:.2f} secs" if minutes else f"{rest:.2f} secs"


def stress_ng(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """--cpu N --vm N [--verify] [--metrics] --timeout S. Memory that does not hold its bits fails the vm stressor."""
    words = dict(zip(argv, argv[1:]))
    cpus = int(words.get("--cpu", 0)) or CORES * facts["machine"]["sockets"]
    vms, seconds, bits = int(words.get("--vm", 0)), _seconds(words.get("--timeout", "60s")), facts.get("host_bits", 0)
    bad = vms if bits and vms and "--verify" in argv else 0
    if "--yaml" in words:
        return "", "stress-ng: error: [4100] the twin's prints no YAML\n", 1
    head = f"stress-ng: info:  [4100] setting to a {_long(seconds)} run per stressor\n"
    head += f"stress-ng: info:  [4100] dispatching hogs: {cpus} cpu" + (f", {vms} vm" if vms else "") + "\n"
    body = ""
    for n in range(bad):
        body += f"stress-ng: fail:  [{4101 + n}] vm: detected {bits} bit errors while stressing memory\n"
        body += f"stress-ng: error: [4100] vm: [{4101 + n}] terminated with an error, exit status=2 (stressor failed)\n"
    if "--metrics" in argv:
        mark = "stress-ng: metrc: [4100]"
        body += f"{mark} stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s\n"
        body += f"{mark}                           (secs)    (secs)    (secs)   (real time) (usr+sys time)\n"
        for name, count in (("cpu", cpus), ("vm", vms - bad)):
            ops = 310 * count * seconds
            took = f"{seconds:9.2f} {0.98 * count * seconds:9.2f} {0.01 * count * seconds:9.2f}"
            rates = f"{ops / max(seconds, 1):14.2f} {ops / max(0.99 * count * seconds, 1):14.2f}"
            body += f"{mark} {name:<13} {ops:9} {took} {rates}\n" if count else ""
    good = " ".join(f"{name} ({count})" for name, count in (("cpu", cpus), ("vm", vms - bad)) if count)
    tail = f"stress-ng: info:  [4100] skipped: 0\nstress-ng: info:  [4100] passed: {cpus + vms - bad}: {good}\n"
    tail += f"stress-ng: info:  [4100] failed: {bad}" + (f": vm ({bad})" if bad else "") + "\n"
    tail += "stress-ng: info:  [4100] metrics untrustworthy: 0\n"
    tail += f"stress-ng: info:  [4100] {'un' if bad else ''}successful run completed in {_long(seconds)}\n"
    return head + body + tail, "", 2 if bad else 0


def stream(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """STREAM 5.10 on all cores."""
    sockets, rule = facts["machine"]["sockets"], "-" * 61 + "\n"
    out = f"{rule}STREAM version $Revision: 5.10 $\n{rule}This system uses 8 bytes per array element.\n{rule}"
    out += "Array size = 268435456 (elements), Offset = 0 (elements)\nMemory per array = 2048.0 MiB (= 2.0 GiB).\n"
    out += "Total memory required = 6144.0 MiB (= 6.0 GiB).\nEach kernel will be executed 100 times.\n"
    out += f"{rule}Number of Threads requested = {CORES * sockets}\nNumber of Threads counted = {CORES * sockets}\n{rule}"
    out += "Function    Best Rate MB/s  Avg time     Min time     Max time\n"
    for name, share, arrays in (("Copy:", 0.97, 2), ("Scale:", 0.96, 2), ("Add:", 1.0, 3), ("Triad:", 1.0, 3)):
        rate = _SOCKET_GBPS * sockets * share * 1e3
        took = arrays * 8 * 268435456 / rate / 1e6
        out += f"{name:<12}{rate:11.1f}  {1.02 * took:11.6f}  {took:11.6f}  {1.1 * took:11.6f}\n"
    if facts.get("host_bits"):
        return out + f"{rule}Failed Validation on array a[], AvgRelAbsErr > epsilon (1.000000e-13)\n", "", 0
    return out + f"{rule}Solution Validates: avg error less than 1.000000e-13 on all three arrays\n{rule}", "", 0


def fio(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """One job of sequential I/O, as JSON: from a drive, or from a file on the first."""
    words = dict(word.lstrip("-").partition("=")[::2] for word in argv)
    if words.get("output-format") != "json":
        return "", "fio: the twin's prints JSON only (--output-format=json)\n", 1
    path, way, seconds = words.get("filename", ""), words.get("rw", "read"), float(words.get("runtime", 60))
    number = drives.number_of(path) if path.startswith("/dev/") else 0
    found = drives.Drive.of(facts, number)
    if found is None:
        return "", f"fio: failed opening blockdev {path} for size check\nfile:{path}: No such file or directory\n", 1
    failed = found.media_errors > 0 and path.startswith("/dev/")
    sides = {"read": ("read",), "write": ("write",), "rw": ("read", "write"), "randrw": ("read", "write")}.get(way, ("read",))
    lasts = min(seconds, 2.0) if failed else seconds

    def side(name: str) -> dict[str, Any]:
        rate = int(found.gbps * 1e9 / len(sides)) if name in sides and found is not None else 0
        moved, blocks = int(rate * lasts), int(rate * lasts) >> 20
        mean = 32 * 2**20 / rate * 1e9 if rate else 0.0
        return {
            "io_bytes": moved, "io_kbytes": moved >> 10, "bw_bytes": rate, "bw": rate >> 10, "iops": rate / 2**20,
            "runtime": int(1e3 * lasts) if rate else 0, "total_ios": blocks, "short_ios": 0, "drop_ios": 0,
            "lat_ns": {"min": int(mean / 2), "max": int(3 * mean), "mean": mean, "stddev": mean / 5},
        }  # fmt: skip

    job = {
        "jobname": words.get("name", "job"), "groupid": 0, "error": 5 if failed else 0, "eta": 0, "elapsed": int(lasts) + 1,
        "job options": {"name": words.get("name", "job"), "rw": way, "bs": words.get("bs", "4k"), "time_based": "1"},
        **{name: side(name) for name in ("read", "write", "trim")},
    }  # fmt: skip
    body = {"fio version": "fio-3.16", "timestamp": int(time.time()), "time": time.strftime("%a %b %d %H:%M:%S %Y"),
            "global options": {}, "jobs": [job]}  # fmt: skip
    said = f"fio: io_u error on file {path}: Input/output error: read offset=750154330112, buflen=1048576\n" if failed else ""
    return json.dumps(body, indent=2) + "\n", said, 1 if failed else 0
