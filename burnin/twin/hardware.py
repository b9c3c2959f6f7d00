"""The silicon of one compute tray: reads what its processes want of the GPUs, moves the physics, publishes what sensors
and driver say, and lets planted faults happen at their time. Time is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

from burnin.rack.parts import within
from burnin.twin.around import Around
from burnin.twin.faults import Plant
from burnin.twin.host import KernelLog
from burnin.twin.links import Links, link_row
from burnin.twin.model import Model
from burnin.twin.physics import Tray, TrayDraw
from burnin.twin.rackstate import FloatRow
from burnin.twin.state import Event, Row, State, starved

LOADED = 0.2
"""Activity of a GPU from which on its tray counts as loaded."""
SOON_S = 4.0
"""When ecc_ue and xid happen, after the tray's first load began."""
_LONGEST_STEP_S = 20.0
_SWEEP_NS = 1_000_000_000
_LATE_NS = 500_000_000
"""A queue ran dry so lately: where its process only waits for a core of this machine, the GPU goes on."""
_XID_EVENT = 0x8
_DRAIN_AND_RESET = 4
_NOBODY = "pid='<unknown>', name=<unknown>"
XID_TEXT = {
    13: "Graphics SM Warp Exception on (GPC 2, TPC 1, SM 0): Out Of Range Address",
    31: "Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS faulted @ 0x7f52_00000000",
    43: "Ch 00000010",
    45: "Ch 00000010",
    48: "An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer",
    63: "Row Remapper: New row marked for remapping, reset gpu to activate.",
    64: "Row Remapper: Error writing to row remap entry",
    74: "NVLink: fatal error detected on link 2(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
    79: "GPU has fallen off the bus.",
    94: "Contained: SM (0x1). RST: No, D-RST: No",
    95: "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
    119: "Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76 (GSP_RM_CONTROL)",
    140: "An uncorrectable ECC error has been detected",
}
"""What the driver writes behind the number; any other XID says no more than its number."""


def queued(slot: Mapping[str, int] | Row) -> tuple[int, int]:
    """What a process's queue was given in all, and when it ends (both ns), as they belong together: a machine with few cores may
    stop us between two reads, and the process goes on. Read apart, a loaded GPU seemed to idle for one step."""
    while True:
        end_ns, busy_ns = slot["end_ns"], slot["busy_ns"]
        if slot["end_ns"] == end_ns:
            return busy_ns, end_ns


class Hardware:
    """One tray in motion: call `step` about ten times a second."""

    def __init__(
        self,
        name: str,
        model: Model,
        draw: TrayDraw,
        plants: Sequence[Plant],
        state: State,
        log: KernelLog,
        seed: int,
        around: Around | None = None,
        port: FloatRow | None = None,
        starved: Callable[[int], bool] = starved,
    ) -> None:
        """`port`: where the tray meets the rack's loop; without one its coolant is as drawn, for ever. `starved`: whether a
        process (its id) waits for a core of this machine.
        """
        self.name, self._model, self._state, self._log = name, model, state, log
        self._around, self._port, self._starved = around, port, starved
        chance = Random(f"{model.profile}/{seed}/{name}/noise")
        self._tray = Tray(model, draw, chance)
        self._take_coolant()
        self._tray.step(30, [0.0] * len(draw.gpus))
        for gpu in self._tray.gpus:  # counters run since the driver was loaded, not since we look
            gpu.energy_mj += chance.uniform(1e9, 5e9)
            gpu.sw_power_s += chance.uniform(0, 15)
        self._now_ns: int | None = None
        self._swept_ns = 0
        self._load_ns: int | None = None
        self._done: dict[tuple[int, int, int], int] = {}
        self._hashed: dict[tuple[int, int, int], int] = {}
        self._cpu_ns = 0
        self._lit = True
        self.frozen = False
        """True once nothing on the tray may run any more, though it has power."""
        self._errs = [(plant, Random(f"{seed}/{plant}")) for plant in plants if plant.kind == "ecc_ce_rate"]
        self._replays = [plant for plant in plants if plant.kind == "pcie_replay" and ".g" in plant.part]
        self._next_ce_s = [chance.expovariate(plant.severity / 3600) for plant, chance in self._errs]
        for plant in plants:
            self._weaken(plant)
        for links in state.links:
            for link in links[: model.gpu.nvlinks]:
                link["tx_bytes"] = link["rx_bytes"] = chance.randrange(10**9, 10**13)
        self._links = Links(state.links, model, name, plants, seed, Random(f"{model.profile}/{seed}/{name}/links"))
        for plant in plants:
            self._weaken(plant)
        self._due = sorted((self._moment(plant) for plant in plants), key=lambda moment: moment[0])
        self._publish()

    def step(self, now_ns: int) -> bool:
        """Bring the tray to `now_ns` (CLOCK_MONOTONIC). False when it has gone dark and must be pulled down."""
        dt = (now_ns - self._now_ns) / 1e9 if self._now_ns is not None else 0.1
        activity = self._activity(now_ns, dt)
        self._now_ns = now_ns
        if self._load_ns is None and max(activity) >= LOADED:
            self._load_ns = now_ns
        self._take_coolant()
        for row, gpu in zip(self._state.gpus, self._tray.gpus, strict=True):
            gpu.locked_mhz = row["locked_mhz"] or math.inf
        self._tray.step(min(max(dt, 1e-3), _LONGEST_STEP_S), activity)
        self._links.step(now_ns, dt, self._load_ns is not None)
        self._happen(now_ns)
        self._correct(dt)
        self._replay(now_ns)
        if self._around is not None:
            self._around.step(now_ns, self._load_ns, sum(activity) / len(activity), self._cpu_ns / 1e9)
        for position, gpu in enumerate(self._tray.gpus):
            if gpu.off and not self._state.gpus[position]["lost"]:
                self._fall_off(position)
        self._publish()
        self._state.beat_ns = now_ns
        return self._lit and not self._give_heat(now_ns, sum(activity) / len(activity))

    # ---- the rack's loop

    def _take_coolant(self) -> None:
        if self._port is not None:
            self._tray.supply_c = self._port["supply_c"]
            self._tray.set_flow(self._port["flow_lpm"])

    def _give_heat(self, now_ns: int, activity: float) -> bool:
        """Tell the rack what the tray draws and gives off. True when it must go dark."""
        port = self._port
        if port is None:
            return False
        port["power_w"], port["liquid_w"], port["activity"] = self._tray.power_w, self._tray.heat_w, activity
        for i, cpu_c in enumerate(self._around.cpu_c if self._around is not None else ()):
            port[f"cpu{i}_c"] = cpu_c
        port["beat_s"] = now_ns / 1e9
        return port["off"] != 0.0

    # ---- what processes want

    def _activity(self, now_ns: int, dt_s: float) -> list[float]:
        """Mean activity of each GPU since the last step: work its processes' queues got done, times its kernel's weight."""
        if now_ns - self._swept_ns >= _SWEEP_NS:
            self._state.sweep()
            self._swept_ns = now_ns
        activity = [0.0] * len(self._state.gpus)
        done: dict[tuple[int, int, int], int] = {}
        hashed: dict[tuple[int, int, int], int] = {}
        for number, slot in self._state.slots():
            key = (number, slot["pid"], slot["born"])
            before = self._done.get(key, 0)
            busy_ns, end_ns = queued(slot)
            left_ns = end_ns - now_ns
            if left_ns < -_LATE_NS or (left_ns < 0 and not self._starved(slot["pid"])):
                left_ns = 0
            done[key] = max(before, busy_ns - left_ns)
            hashed[key] = slot["cpu_ns"]
            self._cpu_ns += max(hashed[key] - self._hashed.get(key, 0), 0)
            if not self._state.gpus[slot["gpu"]]["lost"]:
                activity[slot["gpu"]] += (done[key] - before) * slot["activity_ppm"] / (dt_s * 1e15)
        self._done, self._hashed = done, hashed
        return [min(1.0, a) for a in activity]

    # ---- what sensors and driver say

    def _publish(self) -> None:
        for position, (row, gpu) in enumerate(zip(self._state.gpus, self._tray.gpus, strict=True)):
            row.fill("temp_c", (
                gpu.temp_c, gpu.margin_c, gpu.hbm_c, int(gpu.power_meter_w * 1000), int(gpu.power_avg_w * 1000),
                int(gpu.hbm_power_w * 1000), int(self._tray.module_w(position) * 1000), int(gpu.energy_mj), int(gpu.clock_mhz),
                int(gpu.clock_busy_mhz), gpu.reasons, int(gpu.util > 0.01) * max(1, int(gpu.util * 100)),
                int(gpu.sw_power_s * 1e9), int(gpu.sw_thermal_s * 1e9), int(gpu.hw_thermal_s * 1e9),
            ))  # fmt: skip

    # ---- what goes wrong

    def _moment(self, plant: Plant) -> tuple[float, Callable[[], None]]:
        """When (seconds after the load began) and what; parts of physics and identity were weak from the start."""
        timed: dict[str, tuple[float, Callable[[Plant], None]]] = {
            "ecc_ue": (SOON_S, self._memory_error),
            "xid": (SOON_S, self._xid),
            "gpu_off_bus": (plant.severity, self._off_bus),
            "nvml_hang": (plant.severity, self._hang),
            "proc_stuck": (plant.severity, self._stick),
            "tray_dead": (plant.severity, self._die),
            "tray_hang": (plant.severity, self._freeze),
            "link_down": (plant.severity, self._link_down),
            "fabric_unhealthy": (plant.severity, self._leave_fabric),
        }
        after_s, act = timed.get(plant.kind, (0.0, lambda _: None))
        return after_s, lambda: act(plant)

    def _weaken(self, plant: Plant) -> None:
        """What is wrong from the start, and is not physics."""
        words = {"sdc": "sdc_ppm", "bw_loss": "bw_lost_ppm", "slow_gpu": "slow_ppm", "reset_lost": "reset_ppm"}
        if plant.kind in words:
            self._gpu(plant)[1][words[plant.kind]] = round(1e6 * plant.severity)
        elif plant.kind == "hbm_bits":
            self._gpu(plant)[1]["bad_cells"] = int(plant.severity)

    def _happen(self, now_ns: int) -> None:
        while self._load_ns is not None and self._due and now_ns - self._load_ns >= self._due[0][0] * 1e9:
            self._due.pop(0)[1]()

    def _gpu(self, plant: Plant) -> tuple[int, Row]:
        position = next(i for i in range(len(self._state.gpus)) if within(f"{self.name}.g{i}", plant.part))
        return position, self._state.gpus[position]

    def _bdf(self, position: int) -> str:
        """`0008:06:00`, as the kernel writes it."""
        bdf = self._model.gpu.bdf[self._model.gpu.module_id.index(position + 1)]
        return f"{int(bdf[:8], 16):04x}{bdf[8:14].lower()}"

    def _say(self, position: int, code: int, who: str = _NOBODY, text: str | None = None) -> None:
        tail = XID_TEXT.get(code, "") if text is None else text
        self._log.add(f"NVRM: Xid (PCI:{self._bdf(position)}): {code}, {who}" + (f", {tail}" if tail else ""))
        self._state.add_event(Event(position, _XID_EVENT, code))

    def _memory_error(self, plant: Plant) -> None:
        position, row = self._gpu(plant)
        count = int(plant.severity)
        for _ in range(min(count, 8)):
            self._say(position, 48)
            self._say(position, 63)
        row["ecc_ue_volatile"] += count
        row["ecc_ue_aggregate"] += count
        row["remap_unc"] += count
        row["remap_pending"], row["recovery_action"] = 1, _DRAIN_AND_RESET
        row["poisoned"] += 1
        self._say(position, 94)
        for _, slot in self._state.slots():
            if slot["gpu"] == position:
                self._say(position, 94, f"pid={slot['pid']}, name=python3", "Ch 00000008")

    def _xid(self, plant: Plant) -> None:
        self._say(self._gpu(plant)[0], int(plant.severity))

    def _off_bus(self, plant: Plant) -> None:
        self._fall_off(self._gpu(plant)[0])

    def _fall_off(self, position: int) -> None:
        self._say(position, 79)
        self._log.add(f"NVRM: GPU {self._bdf(position)}.0: GPU has fallen off the bus.", level=3)
        self._state.gpus[position]["lost"] = 1

    def _hang(self, plant: Plant) -> None:
        self._gpu(plant)[1]["hung"] = 1

    def _stick(self, plant: Plant) -> None:
        self._gpu(plant)[1]["stuck"] = 1

    def _leave_fabric(self, plant: Plant) -> None:
        self._gpu(plant)[1]["unhealthy"] = 1

    def _link_down(self, plant: Plant) -> None:
        row = link_row(self._state.links, plant)
        row["down"] = 1
        row["recovery_failed"] += 1

    def _correct(self, dt_s: float) -> None:
        """Corrected errors of weak memory, at random times, loaded or not."""
        for i, (plant, chance) in enumerate(self._errs):
            self._next_ce_s[i] -= dt_s
            while self._next_ce_s[i] <= 0:
                self._next_ce_s[i] += chance.expovariate(plant.severity / 3600)
                _, row = self._gpu(plant)
                row["ecc_ce_volatile"] += 1
                row["ecc_ce_aggregate"] += 1

    def _replay(self, now_ns: int) -> None:
        """Packets that the GPU's PCIe link repeats, once the tray was loaded."""
        for plant in self._replays if self._load_ns is not None else ():
            since_s = (now_ns - (self._load_ns or 0)) / 1e9 - SOON_S
            self._gpu(plant)[1]["pcie_replays"] = int(plant.severity * max(0.0, since_s))

    def _freeze(self, plant: Plant) -> None:
        self.frozen = True
        if self._port is not None:
            self._port["hung"] = 1.0

    def _die(self, plant: Plant) -> None:
        self._lit = False
