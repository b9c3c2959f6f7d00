"""Parsers of tools that lines already trust: text, exit code and stderr -> Reading. Pure; docs/tools.md has the table."""

from __future__ import annotations

from burnin.checks.tools import dcgm, iblinkinfo, imex, ipmi, links, loads, mndiag, nccl, nvbandwidth, nvidia_smi, nvos, storage
from burnin.checks.tools.reading import Outcome, Parse, Reading, Row

PARSERS: dict[str, Parse] = {
    "dcgmi diag": dcgm.diag,
    "dcgmi mndiag": mndiag.mndiag,
    "nvidia-smi -q -x": nvidia_smi.query_xml,
    "nvidia-smi -q": nvidia_smi.query_text,
    "nvidia-smi nvlink -s": nvidia_smi.nvlink,
    "nccl-tests": nccl.nccl_tests,
    "nvbandwidth": nvbandwidth.nvbandwidth,
    "nvidia-imex-ctl": imex.imex_ctl,
    "gpu_burn": loads.gpu_burn,
    "hpl": loads.hpl,
    "hpl-mxp": loads.hpl_mxp,
    "stream": loads.stream,
    "stress-ng": loads.stress_ng,
    "fio": storage.fio,
    "smartctl": storage.smartctl,
    "nvme smart-log": storage.nvme,
    "mlxlink": links.mlxlink,
    "ibstat": links.ibstat,
    "ib_write_bw": links.ib_write_bw,
    "ipmitool sel": ipmi.sel,
    "iblinkinfo": iblinkinfo.iblinkinfo,
    **nvos.NVOS,
}
"""By the name of the tool as its reading says it."""

__all__ = ["PARSERS", "Outcome", "Parse", "Reading", "Row"]
