"""What live twins cost: racks with an agent on every compute tray, sampled over real SSH; CPU and memory of the twins' processes.

    python -m bench.twin_live                          one rack, all trays at 1 Hz
    python -m bench.twin_live --load                   the same with all GPUs loaded
    python -m bench.twin_live --racks 16 --lean        sixteen racks of `burnin twin up --lean`

CPU is utime + stime of every process of the twins (trays, Redfish, agents, load) over the seconds; memory their proportional
share (PSS). The controller's side is one process here and is not counted: see bench.ssh. On a busy machine processes cost more:
caches are cold, so the load average is printed beside the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from burnin.rack.load import load_rack
from burnin.transport.agent import AgentLink
from burnin.transport.package import build
from burnin.transport.rack import dialer
from burnin.twin.tray import descendants
from burnin.twin.up import Twin, running

_TICKS_S = os.sysconf("SC_CLK_TCK")
WORDS = {"channel": "channels", "hold": "agents", "work": "load"}
SETTLE_S = 5.0


def cpu_s(pid: int) -> float:
    """User and system time of one process; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_S


def pss_mb(pid: int) -> float:
    """Proportional share of memory; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def kinds(twins: list[Twin]) -> dict[int, str]:
    """Every process of these twins, and what it is."""
    out: dict[int, str] = {}
    for twin in twins:
        trays = {place.pid for place in twin.trays.values()}
        for pid in [twin.pid, *descendants(twin.pid)]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                own = next((WORDS[word] for word in words if word in WORDS), "Redfish and rack")
                out[pid] = "trays" if pid in trays else own
    return out


async def attach(twin: Twin, on_records: Counter[str], load: bool, every_s: float) -> list[AgentLink]:
    """An agent on every compute tray, sampling; with load, all its GPUs."""
    file = load_rack(twin.rack_file)
    dial = dialer(file)
    links = []
    for part in (part for part in twin.trays if part.startswith("t")):
        link = AgentLink(dial, part, build(), "bench", lambda records: on_records.update(r.kind for r in records))
        await link.open()
        await link.order("sample", fast_s=every_s, slow_s=5.0, links_s=5.0)
        links.append(link)
    if load:
        for link in links:
            link.lease(60.0, -1)
            await link.order("load", gpus=[f"g{i}" for i in range(4)], kernel="tensor_burn", cutoff_margin_c=3.0, max_s=600.0)
    return links


async def measure(twins: list[Twin], seconds: float, load: bool, every_s: float) -> list[str]:
    """Lines of a table."""
    heard: Counter[str] = Counter()
    links = [link for twin in twins for link in await attach(twin, heard, load, every_s)]

    async def stay() -> None:
        while True:
            for link in links:
                link.lease(60.0, -1)
            await asyncio.sleep(5)

    staying = asyncio.ensure_future(stay())
    await asyncio.sleep(SETTLE_S)
    what, samples = kinds(twins), heard["sample"]
    before, begun = {pid: cpu_s(pid) for pid in what}, time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - begun
    cpu, memory, count = Counter[str](), Counter[str](), Counter(what.values())
    for pid, name in what.items():
        cpu[name] += 100 * max(0.0, cpu_s(pid) - before[pid]) / took  # type: ignore[assignment]
        memory[name] += pss_mb(pid)  # type: ignore[assignment]
    staying.cancel()
    for link in links:
        with contextlib.suppress(Exception):
            await link.order("bye")
        await link.close()
    out = ["| processes | | % of a core | MB |", "|---|---|---|---|"]
    out += [f"| {name} | {count[name]} | {cpu[name]:.1f} | {memory[name]:.0f} |" for name in sorted(count)]
    out.append(f"| all | {sum(count.values())} | {sum(cpu.values()):.1f} | {sum(memory.values()):.0f} |")
    out.append(
        f"\n{(heard['sample'] - samples) / took:.0f} samples/s of {len(links)} agents; load average {os.getloadavg()[0]:.1f}"
    )
    return out


def main() -> None:
    """Bring the racks up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--racks", type=int, default=1)
    parser.add_argument("--trays", type=int, default=18, help="compute trays of a rack (and half as many switch trays)")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--load", action="store_true")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        twins = []
        for seed in range(1, arguments.racks + 1):
            where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="burnin-bench-")))
            some = {"trays": arguments.trays, "switches": max(1, arguments.trays // 2)}
            twins.append(stack.enter_context(running("gb300-nvl72", seed, where=where, lean=arguments.lean, **some)))
        lines = asyncio.run(measure(twins, arguments.seconds, arguments.load, arguments.every))
    racks = f"{arguments.racks} rack{'s' if arguments.racks > 1 else ''} of {arguments.trays} compute trays"
    print(
        f"{racks}{', lean' if arguments.lean else ''}{', loaded' if arguments.load else ''}, agents at {1 / arguments.every:g} Hz"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
