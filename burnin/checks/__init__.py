"""All checks, by name. Adding one is a file and a line here."""

from __future__ import annotations

from burnin.checks import (
    across,
    as_found,
    ask,
    bmc,
    boot_cycle,
    collective,
    configuration,
    consensus,
    coolant,
    copies,
    ecc,
    firmware,
    gpu_load,
    gpu_reset,
    hbm,
    host,
    ib_write_bw,
    idle_baseline,
    imex,
    inventory,
    leak,
    link_ends,
    links,
    nic,
    nmx,
    nvme,
    power,
    program,
    pulse,
    pytests,
    redundancy,
    sel,
    switch,
    switch_ports,
    thermal_margin,
    throttling,
    together,
    toolbox,
    xid,
)
from burnin.checks.base import Check
from burnin.suites.load import Offer

CHECKS: dict[str, Check] = {
    module.CHECK.name: module.CHECK
    for module in (
        inventory,
        idle_baseline,
        gpu_load,
        pulse,
        together,
        thermal_margin,
        throttling,
        ecc,
        links,
        consensus,
        hbm,
        copies,
        host,
        nic,
        nvme,
        xid,
        as_found,
        collective,
        bmc,
        leak,
        power,
        coolant,
        sel,
        firmware,
        configuration,
        switch,
        switch_ports,
        nmx,
        link_ends,
        gpu_reset,
        boot_cycle,
        redundancy,
        imex,
        ib_write_bw,
    )
} | {check.name: check for check in (*across.CHECKS, *toolbox.CHECKS, program.CHECK, ask.CHECK, pytests.CHECK)}
OFFERS = {name: Offer(check.heats, check.args, check.misfit) for name, check in CHECKS.items()}
"""What suites are checked against."""
ALWAYS = (xid.CHECK.name, as_found.CHECK.name)
"""Done at the end of every run, whatever the suite."""
