"""Does something manage the NVLink fabric, and is it well? NMX-C, NMX-T and the partitions, as the switch trays say.

One switch tray usually runs the fabric manager for all; the others say `disabled`, which is no fault. Where none does, it may
run elsewhere: nobody here can say that it is well, so the rack holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from burnin.checks import asked, nvos
from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tools import Outcome, Reading
from burnin.events import Measurement

_SHOWS = ("nv show cluster", "nv show cluster apps", "nv show sdn partition")
_LOOK = "look at NMX-C on this switch tray (nv show cluster apps; /var/log/nmx), then at the switch trays that it does not see"
MANAGER = Quantity("nmx.manager", "1", "switch trays that run a healthy fabric manager", action=_LOOK)
CONTROLLER = Quantity("nmx.controller", "1", "what is not well about a fabric manager", action=_LOOK)
PARTITION = Quantity("nmx.partition", "1", "an NVLink partition that is not healthy", action=_LOOK)
GPUS = Quantity("nmx.gpus", "1", "GPUs in partitions, against the GPUs of this run", action=_LOOK)


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Every switch tray of the rack file."""
    return [] if answers else [nvos.order(tray, _SHOWS) for tray in context.rack.switches()]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Each switch tray that manages; the rack has one that does, and is well."""
    out, managing, silent = list[Measurement](), list[str](), list[str]()
    for tray in context.rack.switches():
        said = nvos.readings(evidence, tray, _SHOWS)
        if isinstance(said, str):
            silent.append(f"{tray}: {said}")
        elif not nvos.sound(said[0]):
            silent.append(f"{tray}: {nvos.why(said[0])}")
        elif nvos.value(said[0], "cluster") == "enabled":
            managing.append(tray)
            out += _manager(context, tray, *said)
    if silent:
        return [*out, MANAGER.unknown(RACK, "missing", silent[0] + (f" (and {len(silent) - 1} more)" if len(silent) > 1 else ""))]
    if not managing:
        why = "no switch tray of the rack file runs a fabric manager: it runs elsewhere or not at all"
        return [MANAGER.unknown(RACK, "missing", why)]
    return out or [asked.good(MANAGER, RACK, float(len(managing)))]


def _manager(context: Context, tray: str, cluster: Reading, apps: Reading, partitions: Reading) -> list[Measurement]:
    """What is not well about this one."""
    out = []
    for quantity, reading in ((CONTROLLER, cluster), (CONTROLLER, apps), (PARTITION, partitions)):
        if not nvos.sound(reading):
            out.append(quantity.unknown(tray, "missing", nvos.why(reading)))
        for row in reading.rows:
            text = f"{row.name} {row.part}: {row.why}"
            if row.result is Outcome.FAIL:
                out.append(asked.bad(quantity, tray, str(row.value), text))
            elif row.result is Outcome.UNKNOWN:
                out.append(asked.hold(quantity, tray, row.value, text))
    if nvos.sound(apps) and not any(row.part == "nmx-controller" for row in apps.rows):
        out.append(CONTROLLER.unknown(tray, "missing", "no nmx-controller is among its applications"))
    counts = [row.value for row in nvos.rows(partitions, "gpus") if isinstance(row.value, float)]
    wanted = len(context.rack.compute()) * context.profile.topology.gpus_per_tray
    if counts and sum(counts) < wanted:
        why = f"partitions hold {sum(counts):g} GPUs, the rack file has {wanted}"
        out.append(asked.hold(GPUS, tray, sum(counts), why, f">= {wanted}"))
    return out


CHECK = Check(
    name="nmx",
    about="a fabric manager runs on the switch trays, and it and its partitions are well",
    quantities=(MANAGER, CONTROLLER, PARTITION, GPUS),
    judge=judge,
    orders=orders,
    scope="rack",
    equipment=("switch trays",),
)
