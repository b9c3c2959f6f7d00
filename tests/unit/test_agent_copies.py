"""The copy job on the twin's CUDA driver: healthy, slow, without peers, cut short."""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import Any

import pynvml
import pytest

from burnin.agent.copies import run
from burnin.agent.cuda import CudaError
from burnin.agent.ends import Counts, Ends, grown
from burnin.agent.work import KINDS
from burnin.twin.emulate import nvml
from tests.unit.gpu_jobs import Talk, do, open_gpu, uuids
from tests.unit.twin_tray import Bench, bench

pytestmark = pytest.mark.usefixtures("still")


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A tray whose NVML is there too."""
    made = tray(tmp_path)
    monkeypatch.setattr(pynvml, "nvmlLib", nvml.library(made.facts, made.state))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return made


def tray(where: Path, *plants: str, profile: str = "gb300-nvl72") -> Bench:
    made = bench(where, *plants, profile=profile)
    made.run(1)
    return made


def near(gbps: float) -> Any:
    """2 % for the twin's spread, and for what queueing costs here."""
    return pytest.approx(gbps, rel=0.02)


def test_every_way_of_a_healthy_gpu(tmp_path: Path) -> None:
    talk = Talk()
    told = do(run, tray(tmp_path), "g2", {}, talk)
    assert told["h2d"]["gbps"] == near(211)
    assert told["d2h"]["gbps"] == near(193)
    assert told["d2d"]["gbps"] == near(3312)
    assert {name: peer["gbps"] for name, peer in told["peers"].items()} == dict.fromkeys(("g0", "g1", "g3"), near(769))
    assert all(0 < told[way]["lowest_gbps"] <= told[way]["gbps"] for way in ("h2d", "d2h", "d2d"))
    assert talk.asked == 6 * 11, "asked before every timing"


def test_lost_bandwidth_shows_in_every_way_of_that_gpu_and_only_there(tmp_path: Path) -> None:
    made = tray(tmp_path, "bw_loss:t00.g1:0.5")
    slow, other = do(run, made, "g1", {"repeats": 3}), do(run, made, "g0", {"repeats": 3})
    assert (slow["h2d"]["gbps"], slow["d2h"]["gbps"], slow["d2d"]["gbps"]) == (near(105.5), near(96.5), near(1656))
    assert [peer["gbps"] for peer in slow["peers"].values()] == [near(384.5)] * 3
    assert (other["h2d"]["gbps"], other["d2d"]["gbps"]) == (near(211), near(3312))
    assert {name: peer["gbps"] for name, peer in other["peers"].items()} == {"g1": near(384.5), "g2": near(769), "g3": near(769)}


def test_a_gpu_alone_has_no_peers(tmp_path: Path) -> None:
    assert do(run, tray(tmp_path, profile="h200-1gpu"), "g0", {"repeats": 1})["peers"] == {}


def test_gpus_that_cannot_reach_each_other_say_so(tmp_path: Path) -> None:
    made = tray(tmp_path)
    made.facts["rates"]["p2p_gbps"] = None
    peers = do(run, made, "g0", {"repeats": 1})["peers"]
    assert {(peer["reason"], "cannot reach" in peer["why"]) for peer in peers.values()} == {("not_supported", True)}


def test_a_peer_that_is_gone_leaves_the_others_measured(tmp_path: Path) -> None:
    made = tray(tmp_path)
    made.state.gpus[3]["lost"] = 1
    told = do(run, made, "g0", {"repeats": 1})
    assert told["peers"]["g3"]["reason"] == "missing" and "999" in told["peers"]["g3"]["why"]
    assert told["peers"]["g1"]["gbps"] == near(769)
    assert told["h2d"]["gbps"] == near(211)


def test_a_peer_that_cuda_does_not_show(tmp_path: Path) -> None:
    talk = Talk()
    run(talk, *open_gpu(tray(tmp_path), "g0"), {"repeats": 1, "uuids": {"g1": "GPU-" + "0" * 32, "g2": "not a uuid"}})
    assert {name: peer["reason"] for name, peer in talk.told[0]["peers"].items()} == {"g1": "missing", "g2": "missing"}


def test_a_gpu_that_fails_itself_is_no_result(tmp_path: Path) -> None:
    made, talk = tray(tmp_path), Talk()
    made.state.gpus[0]["lost"] = 1
    with pytest.raises(CudaError):
        do(run, made, "g0", {}, talk)
    assert talk.told == []


@pytest.mark.parametrize("launches", [0, 5, 30])
def test_what_was_cut_short_has_no_number(tmp_path: Path, launches: int) -> None:
    told = do(run, tray(tmp_path), "g0", {}, Talk(launches))
    ways = [told["h2d"], told["d2h"], told["d2d"], *told["peers"].values()]
    cut = [way for way in ways if "gbps" not in way]
    assert len(cut) == len(ways) - launches // 11
    assert {way["reason"] for way in cut} == {"not_attained"}


def test_peers_need_to_be_enabled_once_and_only_once(tmp_path: Path) -> None:
    """As the real driver: a copy between GPUs that were not enabled goes through the host, and is slow."""
    driver, device = open_gpu(tray(tmp_path), "g0")
    contexts = [c.c_void_p(driver.get("cuDevicePrimaryCtxRetain", c.c_void_p, d)) for d in (device, (device + 1) % 4)]
    driver.call("cuCtxSetCurrent", contexts[0])
    driver.call("cuCtxEnablePeerAccess", contexts[1], 0)
    with pytest.raises(CudaError, match="704 CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"):
        driver.call("cuCtxEnablePeerAccess", contexts[1], 0)
    with pytest.raises(CudaError, match="201"):
        driver.call("cuCtxEnablePeerAccess", contexts[0], 0)


def test_the_kind_of_work_is_known() -> None:
    assert KINDS["copies"] == ("burnin.agent.copies", "run")


SMALL = 1 << 20


def test_the_links_of_both_ends_count_what_was_copied(seen: Bench) -> None:
    told = do(run, seen, "g2", {"repeats": 2, "bytes": SMALL})
    assert set(told["peers"]) == {"g0", "g1", "g3"}
    for peer in told["peers"].values():
        copied, source, target = peer["nvlink"]["copied"], peer["nvlink"]["from"], peer["nvlink"]["to"]
        assert copied == (2 + peer["copies"]) * SMALL
        assert (source["tx_bytes"], source["rx_bytes"], target["tx_bytes"], target["rx_bytes"]) == (copied, 0, 0, copied)
        assert source["errors"] == target["errors"] == source["unread"] == target["unread"] == {}


def test_a_copy_through_the_host_is_counted_at_neither_end(seen: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnin.agent.copies.enable", lambda gpu, far: None)
    talk = Talk()
    peer = do(run, seen, "g0", {"repeats": 1, "bytes": SMALL}, talk)["peers"]["g1"]
    assert (peer["nvlink"]["from"]["tx_bytes"], peer["nvlink"]["to"]["rx_bytes"]) == (0, 0)
    assert peer["gbps"] == near(193)
    assert talk.paused_s == pytest.approx(3 * 5 * 0.2), "read again for a second per pair, and no longer"


def test_a_driver_that_counts_late_is_read_again(seen: Bench) -> None:
    row = seen.state.links[1][0]
    pauses = []

    def late(seconds: float) -> None:
        pauses.append(seconds)
        row["rx_bytes"] += 600 if len(pauses) == 2 else 0

    row_sent = seen.state.links[0][3]

    def copy() -> dict[str, object]:
        row_sent["tx_bytes"] += 600
        return {"gbps": 1.0, "copies": 4}

    told = Ends(pynvml, uuids(seen)).during("g0", "g1", copy, 100, late)
    assert (told["nvlink"]["copied"], told["nvlink"]["to"]["rx_bytes"], len(pauses)) == (600, 600, 2)


def test_what_a_link_counted_while_a_pair_copied_is_told_by_link(seen: Bench) -> None:
    link = seen.state.links[3][13]
    link["rx_errors"] = 40  # from before

    def copy() -> dict[str, object]:
        link["rx_errors"] += 2
        link["recovery_ok"] += 1
        return {"gbps": 1.0, "copies": 0}

    told = Ends(pynvml, uuids(seen)).during("g0", "g3", copy, 0, lambda s: None)["nvlink"]
    assert told["to"]["errors"] == {"l13": {"nvlink.rx_errors": 2.0, "nvlink.recovery_ok": 1.0}}
    assert told["from"]["errors"] == {}


def test_a_gpu_without_these_counters_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tray(tmp_path)
    monkeypatch.setattr(pynvml, "nvmlLib", nvml.library(made.facts, made.state))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    made.state.gpus[1]["lost"] = 1
    end = grown(Ends(pynvml, uuids(made)).read("g1"), Ends(pynvml, uuids(made)).read("g1"))
    assert set(end["unread"].values()) == {"lost"} and "tx_bytes" not in end


def test_a_counter_that_went_back_says_nothing() -> None:
    before: Counts = {("l0", "nvlink.tx_bytes"): 9.0, ("l0", "nvlink.rx_errors"): 4.0}
    after: Counts = {("l0", "nvlink.tx_bytes"): 5.0, ("l0", "nvlink.rx_errors"): 0.0}
    assert grown(before, after) == {
        "rx_bytes": 0.0, "errors": {}, "unread": {"nvlink.tx_bytes": "missing", "nvlink.rx_errors": "missing"},
    }  # fmt: skip
    assert grown("lost", after)["unread"]["nvlink.tx_bytes"] == "lost"
