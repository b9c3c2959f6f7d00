"""The tools that lines trust, one entry each: their command line, what a step may say, and what is measured besides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from burnin.checks import copies
from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tooling import Tool, ToolArgs, limited, part_of
from burnin.checks.tools import PARSERS
from burnin.checks.tools.reading import Outcome, Reading
from burnin.events import Measurement, Result

_NAME = r"^[\w./:-]{1,80}$"
_AGAIN = "run it again alone on this tray; if it fails again, follow what its row says"


def _first(args: ToolArgs, name: str, *words: object) -> list[str]:
    return [args.program or name, *map(str, words)]


# --- DCGM ---------------------------------------------------------------------------------------------------------------


class DcgmArgs(ToolArgs):
    """Level 1 takes seconds, 2 minutes, 3 half an hour, 4 hours."""

    level: Literal[1, 2, 3, 4] = 3

    def needs_s(self) -> float:
        """By the level: three times what DCGM's manual says of an 8-GPU host."""
        return _LEVEL_S[self.level]

    def usual_s(self) -> float:
        """A third of that."""
        return _LEVEL_S[self.level] / 3


_LEVEL_S = {1: 300.0, 2: 1800.0, 3: 5400.0, 4: 14400.0}


def _dcgm(context: Context, args: DcgmArgs) -> Sequence[Sequence[str]]:
    return [_first(args, "dcgmi", "diag", "-r", args.level, "-j")]


# --- nvbandwidth --------------------------------------------------------------------------------------------------------

_WAYS = {"host_to_device_memcpy_ce": "h2d", "device_to_host_memcpy_ce": "d2h", "device_local_copy": "d2d"}
_PAIRS = ("device_to_device_memcpy_read_ce", "device_to_device_memcpy_write_ce")
_CELL = re.compile(r"row (\d{1,4}) column (\d{1,4})")


def _nvbandwidth(context: Context, args: ToolArgs) -> Sequence[Sequence[str]]:
    return [_first(args, "nvbandwidth", "-j", "-t", *_WAYS, *(_PAIRS if len(context.gpus) > 1 else ()))]


def _cells(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterator[Measurement]:
    """The matrices as the check `copies` would have measured them: the same limits, which come from this tool."""
    said: dict[str, dict[str, Any]] = {gpu.partition(".")[2]: {"peers": {}} for gpu in context.gpus}

    def gpu(index: str) -> str:
        return (parts.get(f"GPU {int(index)}") or "?").partition(".")[2]

    for row in reading.rows if reading.outcome is not Outcome.ERROR else ():
        cell = _CELL.fullmatch(row.part)
        test = re.sub(r"_(1|2|total)$", "", row.name)
        if cell is None or not isinstance(row.value, float) or row.unit != "GB/s" or row.name != test:
            continue
        if test in _WAYS and gpu(cell[2]) in said:
            _least(said[gpu(cell[2])], _WAYS[test], row.value)
        elif test in _PAIRS and gpu(cell[1]) in said:
            _least(said[gpu(cell[1])]["peers"], gpu(cell[2]), row.value)
    why = next(iter(reading.whys), "it has no row for it")
    silent = {"failed": f"nvbandwidth: {why}"}
    body = {name: {**dict.fromkeys(_WAYS.values(), silent), **own} for name, own in said.items()}
    for own in body.values():
        for way in _WAYS.values():
            own[way] = own[way] if "gbps" in own[way] else {"reason": "missing", "why": silent["failed"]}
    yield from copies.speeds(context, Evidence(answers=[[Answer(Order(context.tray, "work"), True, body)]]))


def _least(of: dict[str, Any], key: str, value: float) -> None:
    of[key] = {"gbps": min(value, of.get(key, {}).get("gbps", value))}


# --- nccl-tests ---------------------------------------------------------------------------------------------------------

_OPS = {"all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter", "alltoall": "alltoall"}
NCCL_BUSBW = Quantity(
    "nccl-tests.busbw", "GB/s", "bus bandwidth at the largest size, the slower of in place and out of place", action=_AGAIN
)


class NcclArgs(ToolArgs):
    """One operation over the GPUs of a tray. Limits are those of `collective`, measured at 16 GiB."""

    op: Literal["all_reduce", "all_gather", "reduce_scatter", "alltoall"] = "all_reduce"
    bytes: int = Field(default=16 << 30, ge=1 << 30, le=1 << 36)
    iterations: int = Field(default=20, ge=1, le=10_000)


def _nccl(context: Context, args: NcclArgs) -> Sequence[Sequence[str]]:
    words = ("-b", args.bytes // 16, "-e", args.bytes, "-f", 2, "-g", len(context.gpus), "-n", args.iterations, "-c", 1)
    return [_first(args, f"{args.op}_perf", *words)]


def _busbw(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterator[Measurement]:
    args = NcclArgs.model_validate(dict(context.args))
    ranks = sum(row.name == "rank" for row in reading.rows)
    found = [
        row.value for row in reading.rows
        if row.name == "busbw" and row.part.startswith(f"{args.bytes} B ") and isinstance(row.value, float)
    ]  # fmt: skip
    limit = f"collective.{_OPS[args.op]}.{ranks}gpu.busbw"
    if reading.outcome is Outcome.ERROR or not found:
        yield NCCL_BUSBW.unknown(context.tray, "missing", f"no whole row of {args.bytes} bytes")
    elif ranks != len(context.gpus):
        yield NCCL_BUSBW.unknown(context.tray, "missing", f"{ranks} ranks took part, this tray has {len(context.gpus)} GPUs")
    else:
        yield limited(NCCL_BUSBW, limit, context, context.tray, min(found), f"{args.op} of {args.bytes} bytes over {ranks} GPUs")


# --- nvidia-smi ---------------------------------------------------------------------------------------------------------


LINKS = Quantity("nvidia-smi.links", "1", "NVLinks of a GPU that are up / that it has, by nvidia-smi", action=_AGAIN)
_BOTH = {"nvidia-smi -q -x": PARSERS["nvidia-smi -q -x"], "nvidia-smi nvlink -s": PARSERS["nvidia-smi nvlink -s"]}


def _smi_read(text: str, code: int | None = None, stderr: str = "") -> Reading:
    """Either of its two reports: the XML says what it is in its first line."""
    xml = text.lstrip()[:5] in ("<?xml", "<!DOC") or "<nvidia_smi_log" in text[:400]
    return _BOTH["nvidia-smi -q -x" if xml or not text.strip() else "nvidia-smi nvlink -s"](text, code, stderr)


def _smi(context: Context, args: ToolArgs) -> Sequence[Sequence[str]]:
    report = [_first(args, "nvidia-smi", "-q", "-x")]
    return [*report, _first(args, "nvidia-smi", "nvlink", "-s")] if context.profile.topology.links_per_gpu else report


def _links(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterator[Measurement]:
    want = context.profile.topology.links_per_gpu
    if reading.tool != "nvidia-smi nvlink -s" or not want:
        return
    up = dict.fromkeys(context.gpus, 0)
    shown = dict.fromkeys(context.gpus, 0)
    for row in reading.rows:
        gpu = (part_of(row.part, parts) or "").rpartition(".l")[0]
        if gpu in up:
            shown[gpu] += 1
            up[gpu] += isinstance(row.value, float) and row.value > 0
    for gpu in context.gpus:
        said = f"{up[gpu]} of {want} are up"
        if reading.outcome is Outcome.ERROR or not shown[gpu]:
            yield LINKS.unknown(gpu, "missing", f"its links are not shown: {'; '.join(reading.whys[:2])}", "= 1")
        else:
            good = up[gpu] == want
            yield Measurement(
                LINKS.name, gpu, up[gpu] / want, "1", "= 1", Result.PASS if good else Result.FAIL, None, "" if good else said
            )


# --- loads --------------------------------------------------------------------------------------------------------------


class Seconds(ToolArgs):
    """How long it loads."""

    seconds: int = Field(default=600, ge=10, le=86_400)

    def needs_s(self) -> float:
        """What it loads, and five minutes to begin and to end."""
        return self.seconds + 300.0


def _gpu_burn(context: Context, args: Seconds) -> Sequence[Sequence[str]]:
    return [_first(args, "gpu_burn", "-tc", args.seconds)]


def _stress_ng(context: Context, args: Seconds) -> Sequence[Sequence[str]]:
    words = ("--cpu", 0, "--vm", 2, "--vm-bytes", "50%", "--verify", "--metrics", "--timeout", f"{args.seconds}s")
    return [_first(args, "stress-ng", *words)]


class HplArgs(ToolArgs):
    """`words`: the launcher and its arguments, as the container wants them."""

    words: list[str] = Field(default=["hpl.sh", "--dat", "HPL.dat"], min_length=1)


HPL = Quantity("hpl.gflops", "GFLOPS", "the best result of a tray, against hpl.<N>gpu.gflops", advisory=True, action=_AGAIN)


def _gflops(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterator[Measurement]:
    found = [row.value for row in reading.rows if row.name == "performance" and isinstance(row.value, float)]
    best = max(found) if found and reading.outcome is not Outcome.ERROR else None
    yield limited(HPL, f"hpl.{len(context.gpus)}gpu.gflops", context, context.tray, best)


STREAM = Quantity("stream.triad", "GB/s", "best rate of the triad", advisory=True, action=_AGAIN)


def _triad(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterator[Measurement]:
    found = [row.value for row in reading.rows if row.name == "Triad" and isinstance(row.value, float)]
    yield limited(
        STREAM, STREAM.name, context, context.tray, found[0] if found and reading.outcome is not Outcome.ERROR else None
    )


# --- drives, links, logs ------------------------------------------------------------------------------------------------


class FioArgs(ToolArgs):
    """A file that fio makes and removes, or a device that is only read. Raw writes need `wipe_ok`, and a bare device."""

    file: str = Field(default="", pattern=r"^(/[\w./-]{1,200})?$")
    device: str = Field(default="", pattern=r"^(/dev/[\w/-]{1,60})?$")
    wipe_ok: bool = False
    size: str = Field(default="4G", pattern=r"^\d{1,6}[MG]$")
    seconds: int = Field(default=60, ge=5, le=3600)


FIO = Quantity("fio.read", "GB/s", "sequential reads of the whole job", advisory=True, action=_AGAIN)
_BARE = (
    'set -- "$@"; dev=$1; shift; '
    '[ -b "$dev" ] || { echo "fio: error: $dev is no block device" >&2; exit 9; }; '
    '[ "$(lsblk -nro NAME "$dev" | wc -l)" = 1 ] && [ -z "$(lsblk -ndro FSTYPE,MOUNTPOINT,PTTYPE "$dev" | tr -d " \\n")" ] '
    '|| { echo "fio: error: $dev holds partitions or data: refused" >&2; exit 9; }; exec "$@"'
)


def _fio(context: Context, args: FioArgs) -> Sequence[Sequence[str]]:
    base = _first(
        args, "fio", "--name=burnin", "--output-format=json", "--direct=1", "--bs=1M", "--iodepth=32", "--ioengine=libaio"
    )
    base += [f"--size={args.size}", f"--runtime={args.seconds}", "--time_based"]
    if args.device and args.wipe_ok:
        bare = ["sh", "-c", _BARE, "sh", args.device]
        return [[*bare, *base, f"--filename={args.device}", "--rw=rw", "--verify=crc32c"]]
    if args.device:
        return [[*base, f"--filename={args.device}", "--rw=read", "--readonly"]]
    return [[*base, f"--filename={args.file or '/var/tmp/burnin.fio'}", "--rw=rw", "--unlink=1"]]


def _fio_read(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterator[Measurement]:
    found = [row.value for row in reading.rows if row.name == "read.bw" and isinstance(row.value, float)]
    yield limited(FIO, FIO.name, context, context.tray, sum(found) if found and reading.outcome is not Outcome.ERROR else None)


class Devices(ToolArgs):
    """Which of them; by default as many as the profile says."""

    devices: list[str] = Field(default=[], max_length=64)


def _smart(context: Context, args: Devices) -> Sequence[Sequence[str]]:
    count = context.profile.topology.nvmes_per_tray or 0
    return [_first(args, "smartctl", "-j", "-a", device) for device in args.devices or [f"/dev/nvme{i}" for i in range(count)]]


def _drive(context: Context, args: Devices, number: int) -> str:
    found = re.search(r"nvme(\d+)", args.devices[number]) if args.devices else None
    return f"{context.tray}.d{found[1] if found else number}"


def _mlxlink(context: Context, args: Devices) -> Sequence[Sequence[str]]:
    count = context.profile.topology.nics_per_tray or 0
    names = args.devices or [f"mlx5_{i}" for i in range(count)]
    return [_first(args, "mlxlink", "-d", device, "-c", "-e", "--json") for device in names]


def _card(context: Context, args: Devices, number: int) -> str:
    return f"{context.tray}.n{number}"


class Ports(ToolArgs):
    """Ports (mlx5_0/1) that must be up; of others nothing is known to be wrong when they are down."""

    ports: list[str] = Field(default=[], max_length=64)


PORTS = Quantity("ibstat.ports", "1", "ports that the step names and that are up / that it names", advisory=True, action=_AGAIN)


def _ibstat(context: Context, args: Ports) -> Sequence[Sequence[str]]:
    return [_first(args, "ibstat")]


def _ports(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterator[Measurement]:
    wanted = Ports.model_validate(dict(context.args)).ports
    state = {row.part: row.result for row in reading.rows if row.name == "State"}
    if not wanted:
        yield PORTS.unknown(context.tray, "missing", "the step names no ports that must be up")
    elif reading.outcome is Outcome.ERROR or any(port not in state for port in wanted):
        missing = [port for port in wanted if port not in state]
        yield PORTS.unknown(context.tray, "missing", f"not shown: {', '.join(missing) or 'the end of the list'}", "= 1")
    else:
        down = [port for port in wanted if state[port] is not Outcome.PASS]
        result = Result.FAIL if down else Result.PASS
        why = f"not up: {', '.join(down)}" if down else ""
        yield Measurement(PORTS.name, context.tray, 1 - len(down) / len(wanted), "1", "= 1", result, None, why)


def _sel(context: Context, args: ToolArgs) -> Sequence[Sequence[str]]:
    return [_first(args, "ipmitool", "sel", "elist")]


TOOLS = (
    Tool(
        "dcgm",
        "NVIDIA's own diagnostics (dcgmi diag) pass on every GPU",
        PARSERS["dcgmi diag"],
        _dcgm,
        14_400.0,
        DcgmArgs,
        program="dcgmi",
        heats=True,
        gpus=True,
        action=_AGAIN,
    ),
    Tool(
        "nvbandwidth",
        "copies are as fast and as right as nvbandwidth measures them",
        PARSERS["nvbandwidth"],
        _nvbandwidth,
        1800.0,
        heats=True,
        indices=True,
        values=_cells,
        quantities=(copies.H2D, copies.D2H, copies.D2D, copies.P2P),
    ),
    Tool(
        "nccl-tests",
        "the GPUs of a tray talk right and fast enough, by nccl-tests",
        PARSERS["nccl-tests"],
        _nccl,
        1800.0,
        NcclArgs,
        program="all_reduce_perf ...",
        heats=True,
        values=_busbw,
        quantities=(NCCL_BUSBW,),
    ),
    Tool(
        "nvidia-smi",
        "what nvidia-smi reports of every GPU and NVLink",
        _smi_read,
        _smi,
        120.0,
        gpus=True,
        values=_links,
        quantities=(LINKS,),
    ),
    Tool(
        "gpu-burn",
        "gpu_burn computes without an error on every GPU",
        PARSERS["gpu_burn"],
        _gpu_burn,
        0.0,
        Seconds,
        program="gpu_burn",
        heats=True,
        gpus=True,
    ),
    Tool(
        "hpl",
        "HPL of the NVIDIA container solves, and its solution is right",
        PARSERS["hpl"],
        lambda context, args: [args.words],
        14_400.0,
        HplArgs,
        program="hpl.sh",
        heats=True,
        values=_gflops,
        quantities=(HPL,),
    ),
    Tool(
        "stress-ng",
        "CPUs and memory under stress-ng, results verified",
        PARSERS["stress-ng"],
        _stress_ng,
        0.0,
        Seconds,
        heats=True,
    ),
    Tool(
        "stream",
        "memory bandwidth of the CPUs, by STREAM",
        PARSERS["stream"],
        lambda context, args: [_first(args, "stream")],
        1800.0,
        heats=True,
        values=_triad,
        quantities=(STREAM,),
    ),
    Tool(
        "fio",
        "a drive reads and writes what it should",
        PARSERS["fio"],
        _fio,
        4200.0,
        FioArgs,
        become=True,
        values=_fio_read,
        quantities=(FIO,),
    ),
    Tool(
        "ibstat",
        "the InfiniBand ports that the step names are up",
        PARSERS["ibstat"],
        _ibstat,
        60.0,
        Ports,
        values=_ports,
        quantities=(PORTS,),
        softens="whether this port should be up, the step does not say",
    ),
    Tool(
        "mlxlink",
        "state, speed and errors of the network cards' links",
        PARSERS["mlxlink"],
        _mlxlink,
        60.0,
        Devices,
        become=True,
        part=_card,
    ),
    Tool(
        "nvme-smart",
        "what the drives say of themselves",
        PARSERS["smartctl"],
        _smart,
        60.0,
        Devices,
        become=True,
        program="smartctl",
        part=_drive,
    ),
    Tool(
        "ipmi-sel",
        "the BMC's event log, read on the tray",
        PARSERS["ipmitool sel"],
        _sel,
        120.0,
        program="ipmitool",
        become=True,
        softens="it is in the log; whether of this run, its time says",
    ),
)

CHECKS: tuple[Check, ...] = tuple(tool.check() for tool in TOOLS)
