"""A tray's silicon: work heats it, faults happen at their time, and each shows where it should and nowhere else."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from burnin.twin.hardware import queued
from burnin.twin.state import FIELDS, born, starved
from tests.unit.twin_tray import Bench, bench

ME = os.getpid()


def events(tray: Bench) -> list[tuple[int, int]]:
    """(GPU position, XID) of every NVML event."""
    return [(tray.state.event(n).gpu, tray.state.event(n).data) for n in range(tray.state.events)]


def kmsg(tray: Bench) -> list[str]:
    return [line.split(";", 1)[1] for line in tray.kmsg.read_text().splitlines()]


def row(tray: Bench, gpu: int) -> dict[str, int]:
    return {name: tray.state.gpus[gpu][name] for name in FIELDS}


def test_work_of_a_process_heats_its_gpu_and_no_other(tmp_path: Path) -> None:
    tray = bench(tmp_path)
    tray.run(5)
    before = [row(tray, i) for i in range(4)]
    tray.queue(ME, 2, seconds=20)
    tray.run(20)
    after = [row(tray, i) for i in range(4)]
    assert after[2]["power_avg_mw"] > 1_350_000
    assert after[2]["temp_c"] - before[2]["temp_c"] > 20
    assert after[2]["margin_c"] == 87 - after[2]["temp_c"]
    assert (after[2]["util_pct"], after[2]["reasons"]) == (100, 4)
    assert after[2]["module_power_mw"] > 1_500_000
    for i in (0, 1):
        assert after[i]["power_avg_mw"] < 230_000
        assert abs(after[i]["temp_c"] - before[i]["temp_c"]) <= 3
    tray.run(2)  # the queue has drained
    assert row(tray, 2)["util_pct"] == 0
    assert row(tray, 2)["clock_mhz"] == 120


def test_half_the_time_busy_is_half_the_activity(tmp_path: Path) -> None:
    tray = bench(tmp_path)
    slot = tray.state.take_slot(ME, 0)
    slot["activity_ppm"] = 1_000_000
    for _ in range(100):
        slot["end_ns"] = tray.clock.now_ns + 50_000_000
        slot["busy_ns"] += 50_000_000
        tray.run(0.1)
    assert row(tray, 0)["util_pct"] == 50


def test_a_process_that_this_machine_starves_keeps_its_gpu_busy_but_not_for_long(tmp_path: Path) -> None:
    tray = bench(tmp_path)
    tray.queue(ME, 0, seconds=1)
    tray.run(1)
    tray.starved.add(ME)
    tray.run(0.4)
    assert row(tray, 0)["util_pct"] == 100
    tray.starved.clear()
    tray.run(0.2)
    assert row(tray, 0)["util_pct"] == 0, "it sleeps: nothing is queued"
    tray.starved.add(ME)
    tray.run(0.4)
    assert row(tray, 0)["util_pct"] == 0, "the queue is dry for a second"


class Moving(dict[str, int]):
    """A slot whose process queues 80 ms more while its end has been read and its work has not, a few times."""

    moves = 3

    def __getitem__(self, name: str) -> int:
        if name == "busy_ns" and self.moves:
            self.moves -= 1
            self["end_ns"] += 80
            self["busy_ns"] = super().__getitem__("busy_ns") + 80
        return super().__getitem__(name)


def test_work_and_its_end_are_read_together() -> None:
    busy_ns, end_ns = queued(Moving(end_ns=1040, busy_ns=1000))
    assert (busy_ns, end_ns) == (1240, 1280)


def test_only_a_process_that_could_run_is_starved() -> None:
    assert starved(os.getpid())
    asleep = subprocess.Popen(["sleep", "60"])
    try:
        while starved(asleep.pid):
            os.sched_yield()
        assert born(asleep.pid)
    finally:
        asleep.kill()
        asleep.wait()
    assert not starved(asleep.pid)


def test_capped_time_counts_on_top_of_what_was_there(tmp_path: Path) -> None:
    tray = bench(tmp_path)
    tray.run(1)
    start = row(tray, 0)["sw_power_ns"]
    assert start > 0  # counters run since the driver was loaded
    tray.queue(ME, 0, seconds=10)
    tray.run(10)
    assert 9e9 < row(tray, 0)["sw_power_ns"] - start <= 10e9


def test_memory_errors_come_with_their_xids_and_kill_what_ran(tmp_path: Path) -> None:
    tray = bench(tmp_path, "ecc_ue:t00.g1:2")
    tray.run(30)
    assert events(tray) == []  # nothing happens without load
    tray.queue(ME, 1, seconds=30)
    tray.run(3)
    assert row(tray, 1)["ecc_ue_volatile"] == 0
    tray.run(2)
    hit = row(tray, 1)
    assert (hit["ecc_ue_volatile"], hit["ecc_ue_aggregate"], hit["remap_unc"], hit["remap_pending"]) == (2, 2, 2, 1)
    assert (hit["poisoned"], hit["lost"]) == (1, 0)
    assert events(tray) == [(1, 48), (1, 63), (1, 48), (1, 63), (1, 94), (1, 94)]
    # position 1 is module 2: NVML index 0, 0008:06:00
    assert kmsg(tray)[0].startswith("NVRM: Xid (PCI:0008:06:00): 48, pid='<unknown>', name=<unknown>, An uncorrectable")
    assert kmsg(tray)[-1] == f"NVRM: Xid (PCI:0008:06:00): 94, pid={ME}, name=python3, Ch 00000008"
    assert all(row(tray, i)["ecc_ue_volatile"] == 0 for i in (0, 2, 3))


def test_an_xid_is_an_event_and_a_line_and_nothing_else(tmp_path: Path) -> None:
    tray = bench(tmp_path, "xid:t00.g3:119")
    tray.queue(ME, 0, seconds=30)
    tray.run(6)
    assert events(tray) == [(3, 119)]
    (line,) = tray.kmsg.read_text().splitlines()
    level, number, us, rest = line.split(",", 3)
    assert (level, number, rest.split(";")[0]) == ("4", "0", "-")
    assert 0 <= tray.clock.now_ns // 1000 - int(us) < 3_000_000
    assert rest.split(";")[1].startswith("NVRM: Xid (PCI:0018:06:00): 119,")
    assert row(tray, 3)["lost"] == row(tray, 3)["ecc_ue_volatile"] == 0


def test_a_gpu_off_the_bus_is_lost_at_its_time_and_heats_no_more(tmp_path: Path) -> None:
    tray = bench(tmp_path, "gpu_off_bus:t00.g2:8")
    tray.queue(ME, 2, seconds=100)
    tray.run(7.5)
    assert row(tray, 2)["lost"] == 0
    tray.run(1)
    assert row(tray, 2)["lost"] == 1
    assert events(tray) == [(2, 79)]
    assert kmsg(tray)[-1] == "NVRM: GPU 0019:06:00.0: GPU has fallen off the bus."
    tray.run(20)
    assert row(tray, 2)["power_avg_mw"] < 230_000


def test_a_hang_and_a_dead_tray(tmp_path: Path) -> None:
    tray = bench(tmp_path, "nvml_hang:t00.g0:2", "tray_dead:t00:4")
    assert tray.run(60)
    tray.queue(ME, 1, seconds=30)
    assert tray.run(3.5)
    assert [row(tray, i)["hung"] for i in range(4)] == [1, 0, 0, 0]
    assert not tray.run(1)


def test_overheating_ends_in_shutdown(tmp_path: Path) -> None:
    tray = bench(tmp_path, "tray_flow:t00:1")
    for gpu in range(4):
        tray.queue(ME, gpu, seconds=200)
    tray.run(60)
    assert [row(tray, i)["lost"] for i in range(4)] == [1, 1, 1, 1]
    assert sorted(events(tray)) == [(0, 79), (1, 79), (2, 79), (3, 79)]


def test_the_same_seed_and_times_give_the_same_readings(tmp_path: Path) -> None:
    both = [bench(tmp_path / name, seed=9) for name in ("a", "b")]
    for tray in both:
        tray.queue(ME, 0, seconds=5)
        tray.run(8)
    assert [row(both[0], i) for i in range(4)] == [row(both[1], i) for i in range(4)]
    other = bench(tmp_path / "c", seed=10)
    other.run(8)
    assert row(other, 0)["energy_mj"] != row(both[0], 0)["energy_mj"]


def test_a_tray_that_stood_still_catches_up_at_bounded_cost(tmp_path: Path) -> None:
    tray = bench(tmp_path)
    tray.queue(ME, 0, seconds=3600)
    tray.run(1)
    tray.clock.now_ns += 1800 * 10**9
    tray.hardware.step(tray.clock.now_ns)
    assert row(tray, 0)["util_pct"] == 100
    assert 60 <= row(tray, 0)["temp_c"] <= 75


@pytest.mark.parametrize(
    ("plant", "word", "value"), [("sdc:t00.g2:0.25", "sdc_ppm", 250_000), ("bw_loss:t00.g2:0.3", "bw_lost_ppm", 300_000)]
)
def test_what_is_weak_without_being_physics_is_so_from_the_start(tmp_path: Path, plant: str, word: str, value: int) -> None:
    tray = bench(tmp_path, plant)
    assert [row[word] for row in tray.state.gpus] == [0, 0, value, 0]


def test_corrected_errors_come_at_their_rate_and_at_random_times(tmp_path: Path) -> None:
    one, same = bench(tmp_path / "a", "ecc_ce_rate:t00.g1:3600"), bench(tmp_path / "b", "ecc_ce_rate:t00.g1:3600")
    counts = []
    for _ in range(20):
        one.run(10)
        same.run(10)
        counts.append(one.state.gpus[1]["ecc_ce_volatile"])
    assert counts[-1] == same.state.gpus[1]["ecc_ce_volatile"] == one.state.gpus[1]["ecc_ce_aggregate"]
    assert 150 < counts[-1] < 260  # 200, give or take 14
    assert len({b - a for a, b in pairwise(counts)}) > 3
    assert [one.state.gpus[i]["ecc_ce_volatile"] for i in (0, 2, 3)] == [0, 0, 0]
    assert one.state.gpus[1]["ecc_ue_volatile"] == 0
