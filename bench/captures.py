"""Every parser meets every capture of its tool: `make captures` writes docs/tools.md.

Each capture is read with exit status 0, the most misleading one, and set beside what captures/INDEX.tsv says of it. A difference
needs a sentence in EXPLAINED; one without a sentence, or a sentence without a difference, ends with exit status 1.
`--check` writes nothing and ends with exit status 1 when docs/tools.md says something else.
The folder is found through BURNIN_CAPTURES, or beside the project in ../shared/captures.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from burnin.checks.tools import PARSERS, Outcome, Reading

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/tools.md"

TOOLS: dict[str, tuple[str, ...]] = {
    "dcgmi diag": ("dcgmi-diag/*",),
    "dcgmi mndiag": (),
    "nvidia-smi -q -x": ("nvidia-smi/*.xml",),
    "nvidia-smi -q": ("nvidia-smi/gpud_q_*", "nvidia-smi/dra626_*", "nvidia-smi/azhpc506_*", "nvidia-smi/nhc_orig_nvsmi8.txt"),
    "nvidia-smi nvlink -s": ("nvidia-smi/*nvlink_s_*", "nvidia-smi/*nvlink_status*"),
    "nccl-tests": ("nccl-tests/*",),
    "nvbandwidth": ("nvbandwidth/*",),
    "nvidia-imex-ctl": ("imex/*",),
    "gpu_burn": ("gpu-burn/*",),
    "hpl": ("hpl/*",),
    "hpl-mxp": (),
    "stream": ("stream/*",),
    "stress-ng": ("stress-ng/*",),
    "fio": ("fio/*",),
    "smartctl": ("nvme/*",),
    "nvme smart-log": (),
    "mlxlink": ("infiniband/*mlxlink*",),
    "ibstat": ("infiniband/*ibstat_*",),
    "ib_write_bw": ("perftest/*",),
    "ipmitool sel": ("ipmi/*sel*",),
    "iblinkinfo": (),
    "nv show system": (),
    "nv show platform": (),
    "nv show platform chassis-location": (),
    "nv show platform inventory": ("nvos/nv_show_platform_inventory*",),
    "nv show platform firmware": ("nvos/nv_show_platform_firmware*",),
    "nv show platform environment": ("nvos/flattened/nv_show_platform_environment.txt",),
    "nv show platform environment leakage": ("nvos/nv_show_platform_environment_leakage*",),
    "nv show interface": ("nvos/flattened/nv_show_interface_acp21.txt",),
    "nv show interface link-diagnostics": ("nvos/flattened/nv_show_interface_link_diagnostics.txt",),
    "nv show interface phy-detail": (),
    "nv show cluster": ("nvos/nv_show_cluster.txt",),
    "nv show cluster apps": ("nvos/flattened/nv_show_cluster_apps.txt",),
    "nv show sdn partition": (),
}
"""Tool -> patterns of its captures. A tool without a pattern has no public capture; its tests are written from its source."""

_FLAT = "its line breaks were lost, so nobody can say what belongs to what: ERROR, whatever single words say"
_CRASH = "it crashed before it measured: that names no part, so it is ERROR, not FAIL"
_CUT = "the capture is an extract or was cut: what is missing is not known, so it is ERROR"
_NO_CHECK = "validation was off (#wrong is N/A everywhere): bandwidth was measured, right results were not shown"
_NOT_READ = "SRAM counters and fabric health are N/A on a GPU behind NVLink switches (a mock): not read is not good"
_NO_ECC = "ECC is off or absent on this consumer GPU: memory errors are not counted, so nothing is known of them"
_SKIP = "rows say Pass, but EUD Test says Skip: a skip is not a pass; what must have run is for the suite to say"

EXPLAINED: dict[str, str] = {
    "dcgmi-diag/dcgm304_r3_skips_extract.txt": _CUT,
    "dcgmi-diag/dcgm423_l40s_truncated_extract.txt": _CUT,
    "dcgmi-diag/dcgm_requested_test_not_found_FAIL.txt": "no test ran: a wrong command line is ERROR",
    "dcgmi-diag/gcm_dcgm3_r1_warn.json": "Warn is neither Pass nor Fail: UNKNOWN",
    "dcgmi-diag/vc_dcgm3_r3.json": _SKIP,
    "nvidia-smi/mocknvml_qx_gb200-healthy.xml": _NOT_READ,
    "nvidia-smi/mocknvml_qx_gb200-throttle-counters.xml": "a power cap that was once met is a value, not a fault",
    "nvidia-smi/gpud_q_535.154.05.out.0.valid.txt": _NO_ECC,
    "nvidia-smi/gpud_q_535.154.05.out.1.valid.txt": _NO_ECC,
    "nvidia-smi/gpud_q_535.154.05.out.2.valid.txt": _NO_ECC,
    "nvidia-smi/gpud_q_560.35.03.out.0.valid.txt": _NO_ECC,
    "nvidia-smi/gpud_q_535.183.01.out.0.invalid.txt": "8 GPUs attached, one described: spoilt or cut; no GPU is bad",
    "nvidia-smi/nhc_orig_nvsmi8.txt": "a section only (-d): the report is not whole",
    "nvidia-smi/stas_nvlink_status_inactive.txt": "the capture shows no inactive link, only [...] between two active ones: cut",
    "nvidia-smi/k8sti371_nvlink_s_gb200.txt": _CUT,
    "nccl-tests/sb_allgather.txt": _NO_CHECK,
    "nccl-tests/sb_alltoall.txt": _NO_CHECK,
    "nccl-tests/sb_broadcast.txt": _NO_CHECK,
    "nccl-tests/sb_reducescatter.txt": _NO_CHECK,
    "nccl-tests/aws_p4d_mpirun_tagged.txt": _CUT,
    "nccl-tests/aws_topo_aware_extract.txt": _CUT,
    "nccl-tests/dgxspark103_v2.20_truncated.txt": _CUT,
    "nccl-tests/nccl1244_old_error_column_extract.txt": _CUT,
    "nccl-tests/gcm_fail_mpi_slots.txt": _CRASH,
    "nccl-tests/issue244_hang_no_table_FAIL_extract.txt": "it hung before the table; which part hung is not in it",
    "nccl-tests/issue289_invalid_device_ordinal_FAIL.txt": _CRASH,
    "nccl-tests/issue320_unhandled_system_error_FAIL.txt": _CRASH,
    "nccl-tests/issue355_alltoall_illegal_memory_FAIL.txt": _CRASH,
    "nccl-tests/nccl1405_ib_completion_err129_FAIL_extract.txt": "lines of NCCL's log only, no table",
    "nccl-tests/oci_troubleshoot_1.txt": "the log of a wrapper, not nccl-tests: its word 'Succeeded' is not a row",
    "nccl-tests/oci_troubleshoot_2.txt": "INDEX says 'see body': a whole table, no wrong results",
    "nvbandwidth/pr54_multinode_json_PARTIAL.txt": "not JSON (annotated and cut)",
    "nvbandwidth/stas_gb200_or_gh200.txt": _CUT,
    "hpl/vc_hpl_incorrect.txt": "a summary without one result row: nothing was shown, good or bad, so it is ERROR",
    "hpl/hpl_nvidia_243_header_extract.txt": _CUT,
    "stream/nvidia_cuda_stream.txt": "another program: no version, no validation of its results",
    "stream/vc_StreamInvalidMetricCountExample.txt": "validated, but without rows: nothing was measured, so it is ERROR",
    "stream/vc_StreamMsftLatencyExample.txt": "another program (a latency test)",
    "nvme/gcm_cache_slot2_bad_smartdata_nvme3.json": "passed, but 6331 hours without being switched on cannot be right",
    "infiniband/lshca11_mlxlink_json_PARTIAL.txt": _CUT,
    "infiniband/sb_ibstat_extract.txt": "host names and GUIDs only: no port state is in it",
    "infiniband/stas_ibstat_grep.txt": "names only: no port state is in it",
    **dict.fromkeys(
        (
            "nvos/flattened/nv_show_platform_environment.txt",
            "nvos/flattened/nv_show_interface_acp21.txt",
            "nvos/flattened/nv_show_interface_link_diagnostics.txt",
            "nvos/flattened/nv_show_cluster_apps.txt",
        ),
        _FLAT,
    ),
    "ipmi/ipmitool385_sel_elist.txt": "a correctable error is neither good nor bad by itself: UNKNOWN, its growth is judged",
}  # fmt: skip


@dataclass(frozen=True)
class Met:
    """One capture and what was said of it."""

    tool: str
    file: str
    version: str
    index: str
    reading: Reading

    @property
    def agrees(self) -> bool:
        """INDEX says pass: PASS or MEASURED. It says FAIL: FAIL. Whatever else it says needs a sentence."""
        said = self.index.lower()
        good = self.reading.outcome in (Outcome.PASS, Outcome.MEASURED)
        return (said.startswith("pass") and "skip" not in said and good) or (
            said.startswith("fail") and self.reading.outcome is Outcome.FAIL
        )


def folder() -> Path:
    """Where the captures are: BURNIN_CAPTURES, or beside the project."""
    return Path(os.environ.get("BURNIN_CAPTURES", ROOT.parent / "shared/captures"))


def meet(captures: Path) -> list[Met]:
    """Every capture of every tool, read."""
    with (captures / "INDEX.tsv").open(encoding="utf-8", newline="") as file:
        index = {row["file"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    out = []
    for tool, patterns in TOOLS.items():
        for name, row in sorted(index.items()):
            if any(fnmatch(name, pattern) for pattern in patterns):
                text = (captures / name).read_bytes().decode("utf-8", "replace")
                out.append(Met(tool, name, row["version"] or "", row["verdict"] or "", PARSERS[tool](text, 0)))
    return out


def unexplained(met: list[Met]) -> list[str]:
    """What keeps the table from being right: differences without a sentence, and sentences without a difference."""
    differ = {m.file for m in met if not m.agrees}
    out = [f"{m.file}: INDEX says {m.index!r}, the parser {m.reading.outcome}" for m in met if m.file in differ - set(EXPLAINED)]
    out += [f"{file}: explained, but there is no difference" for file in sorted(set(EXPLAINED) - differ)]
    return out


def page(met: list[Met]) -> str:
    """docs/tools.md."""
    lines = [
        *HEAD.strip().split("\n"),
        "",
        "| tool | files | PASS | MEASURED | FAIL | UNKNOWN | ERROR | differ from INDEX |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for tool in TOOLS:
        mine = [m for m in met if m.tool == tool]
        count = Counter(m.reading.outcome for m in mine)
        numbers = [len(mine), *(count[o] for o in _ORDER)]
        lines.append(f"| {tool} | {' | '.join(map(str, numbers))} | {sum(not m.agrees for m in mine)} |")
    all_ = Counter(m.reading.outcome for m in met)
    lines.append(f"| all | {len(met)} | {' | '.join(str(all_[o]) for o in _ORDER)} | {sum(not m.agrees for m in met)} |")
    lines += [
        "",
        "## Where they differ from INDEX.tsv, and why",
        "",
        "| capture | INDEX.tsv | parser | why |",
        "|---|---|---|---|",
    ]
    for m in met:
        if not m.agrees:
            lines.append(f"| {m.file} | {cell(m.index)} | {m.reading.outcome} | {EXPLAINED.get(m.file, '?')} |")
    lines += [
        "",
        "## Every capture",
        "",
        "| capture | tool | version read | rows | reasons | parser |",
        "|---|---|---|---|---|---|",
    ]
    for m in met:
        r = m.reading
        lines.append(f"| {m.file} | {m.tool} | {r.version or ''} | {len(r.rows)} | {len(r.whys)} | {r.outcome} |")
    return "\n".join(lines) + "\n"


_ORDER = (Outcome.PASS, Outcome.MEASURED, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR)


def cell(text: str) -> str:
    """Text as one cell of a table."""
    return " ".join(text.replace("|", "/").split())


HEAD = """
# Tools that lines trust

burnin reads what these tools print; it does not believe their banners. This page is made by `make captures` from the captures
beside the project, each read with exit status 0 (the most misleading one); a test fails when it is out of date.

PASS: all verdict rows of the tool were read, complete and good. MEASURED: complete and nothing wrong, of a tool or text that can
say no more (values are judged against limits elsewhere; in a text without an end mark whoever judges counts GPUs, links, ports).
FAIL: a verdict row says that something is bad, also when the rest was cut. UNKNOWN: a row that proves nothing (Skip, Warn, N/A).
ERROR: it could not measure: missing, killed, cut, of an unknown version, exit status other than 0, link lost.
Nothing but blanks, rules and notes after the last verdict may be missing from a PASS or a MEASURED: a cut that keeps one of these
words has the same rows. Input beyond 4 Mi characters, or 50,000 rows, is not read: ERROR.
"""


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 when docs/tools.md says something else"
    )
    parser.add_argument("--why", action="store_true", help="print every reason of every reading")
    arguments = parser.parse_args()
    if not (folder() / "INDEX.tsv").is_file():
        print("no captures: set BURNIN_CAPTURES", file=sys.stderr)
        return 2
    met = meet(folder())
    if arguments.why:
        for m in met:
            print(f"{m.reading.outcome:8} {m.file}", *m.reading.whys, sep="\n         ")
    wrong = unexplained(met)
    said = page(met)
    if arguments.check:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != said:
            wrong.append("docs/tools.md is out of date: make captures")
    else:
        PAGE.write_text(said, encoding="utf-8")
    for line in wrong:
        print(line, file=sys.stderr)
    differ = sum(not m.agrees for m in met)
    print(f"{len(met)} captures of {len({m.tool for m in met})} tools, {differ} differ, {len(wrong)} not explained")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
