"""Did memory errors appear, were rows remapped, and does the driver want the GPU recovered?

Counters are judged by their growth since the run began, so that an error between two stages is not lost; what a GPU
brought along is its baseline. Flags are judged as they stand: a remap or repair that is pending, a remap that failed, SRAM
beyond the vendor's threshold, a recovery that the driver asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import Measurement, Result

_REPLACE = "reset the GPU and run again on this tray; replace the board when it comes back"
_RESET = "reset the GPU so that the row is replaced, then run again on this tray"
_RECOVER = "do what nvidia-smi -q names under GPU Recovery Action, then run again on this tray"
_ACTIONS = {1: "a GPU reset", 2: "a reboot of the node", 3: "its peers drained", 4: "the GPU drained and reset"}
"""gpu.recovery_action as nvml.h of every branch has it. From 5 on branches differ: 5 is a bus reset to 580, an IMEX domain to be
recovered to 610; 6 and 7 came with 615."""
_RMA = "replace the board: this is the vendor's criterion"

GROWTH = {
    "ecc.dram_ue": Quantity("ecc.dram_ue.growth", "1", "uncorrectable DRAM errors during the run", action=_REPLACE),
    "ecc.sram_ue": Quantity("ecc.sram_ue.growth", "1", "uncorrectable SRAM errors during the run", action=_REPLACE),
    "ecc.dram_ce": Quantity("ecc.dram_ce.growth", "1", "correctable DRAM errors during the run", action=_REPLACE),
    "ecc.sram_ce": Quantity("ecc.sram_ce.growth", "1", "correctable SRAM errors during the run", action=_REPLACE),
    "remap.uncorrectable": Quantity("remap.uncorrectable.growth", "1", "rows remapped for uncorrectable errors", action=_RESET),
    "remap.correctable": Quantity("remap.correctable.growth", "1", "rows remapped for correctable errors", action=_RESET),
}
FLAGS = {
    "remap.pending": Quantity("remap.pending", "1", "a row remap waits for a reset", action=_RESET),
    "remap.failed": Quantity("remap.failed", "1", "a row could not be remapped", action=_RMA),
    "repair.pending": Quantity("repair.pending", "1", "a repair of an HBM channel or a TPC waits for a reset", action=_RESET),
    "ecc.sram_threshold": Quantity("ecc.sram_threshold", "1", "uncorrectable SRAM errors beyond the threshold", action=_RMA),
    "gpu.recovery_action": Quantity("gpu.recovery_action", "1", "what the driver wants done, 0 is nothing", action=_RECOVER),
}


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Growth up to this stage's end, and the flags' highest value, per GPU."""
    end = evidence.stretch.t1_s if evidence.stretch else 0.0
    return [m for part in context.gpus for m in _of_gpu(context, evidence, part, end)]


def _of_gpu(context: Context, evidence: Evidence, part: str, end: float) -> Iterator[Measurement]:
    for metric, quantity in {**GROWTH, **FLAGS}.items():
        if metric in context.profile.lacks:
            continue
        now = evidence.window(part, metric)
        so_far = evidence.telemetry.of(part, metric).between(0.0, end)
        value = so_far.highest() if metric in FLAGS else so_far.growth()
        if not now.present or value != value:
            reason = evidence.why_absent(part, metric)
            yield quantity.unknown(part, reason, f"{metric} has {now.present} readings in {context.stage.stage}")
        else:
            judged = quantity.judge(part, value, context.limits)
            if metric == "gpu.recovery_action" and judged.result is Result.FAIL:
                what = _ACTIONS.get(int(value), "what this number means to its branch alone")
                judged = replace(judged, why=f"the driver asks for {what}")
            yield judged


CHECK = Check(
    name="ecc",
    about="growth of ECC counters and row remaps since the run began",
    quantities=(*GROWTH.values(), *FLAGS.values()),
    judge=judge,
    metrics=(*GROWTH, *FLAGS),
)
