"""The readings that are kept with a finding: its part's and its peers', piece by piece."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from burnin.assess.windows import WHOLE, Windows
from burnin.events import Finding, Severity
from burnin.rack.load import load_catalogue
from burnin.telemetry.series import Series, Stretch, Telemetry

CATALOGUE = load_catalogue()
LOAD = Stretch("load", "load", 100.0, 1400.0, settle_s=100.0)  # twelve pieces of 100 s
T = np.arange(0.0, 1500.0, 10.0)
GPUS = [f"t0{tray}.g{slot}" for tray in range(3) for slot in range(2)]


def finding(part: str, signature: str, severity: Severity = Severity.HOLD, **evidence: object) -> Finding:
    return Finding(part, signature, severity, 1.0, None, "1", "why", "action", evidence=evidence)


def telemetry() -> Telemetry:
    """GPU number n is n degrees warmer than its piece's number of seconds / 100."""
    series = {(gpu, "gpu.temp"): Series(T, np.floor(T / 100) + n) for n, gpu in enumerate(GPUS)}
    return Telemetry(series, (LOAD,))


def attached(one: Finding, of: Telemetry) -> Any:
    (out,) = Windows(of, CATALOGUE).attached([one])
    assert json.loads(json.dumps(out.evidence, allow_nan=False)) == out.evidence
    return dict(out.evidence)


def test_a_gpu_beside_its_peers_in_the_judged_part_of_the_stage() -> None:
    evidence = attached(finding("t01.g1", "thermal.rth", load={"z": 9.0}), telemetry())
    (window,) = evidence["windows"]  # gpu.power was not read
    assert window == {
        "stage": "load", "metric": "gpu.temp", "unit": "Cel", "t0_s": 200.0, "t1_s": 1400.0, "peers": 5,
        "part": [5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0],  # the fourth GPU: 2 + 3 and on
        "low": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0],
        "middle": [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0],  # of 0, 1, 2, 4, 5
        "high": [7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0],
    }  # fmt: skip
    assert evidence["load"] == {"z": 9.0}
    assert evidence["limits"]["floor"] == ">= 0.12"


def test_a_tray_is_the_mean_of_what_is_in_it() -> None:
    (window,) = attached(finding("t02", "thermal.tray", load={}), telemetry())["windows"]
    assert (window["part"][0], window["low"][0], window["high"][0], window["peers"]) == (6.5, 2.5, 4.5, 2)


def test_what_was_not_read_is_null_and_no_peer() -> None:
    of = telemetry()
    holes = np.where((T >= 300) & (T < 400), math.nan, 50.0)
    of.series["t00.g0", "gpu.temp"] = Series(T, np.full(T.size, math.nan))  # type: ignore[index]
    of.series["t01.g1", "gpu.temp"] = Series(T, holes)  # type: ignore[index]
    (window,) = attached(finding("t01.g1", "thermal.rth", load={}), of)["windows"]
    assert window["part"][:3] == [50.0, None, 50.0]
    assert (window["peers"], window["low"][0]) == (4, 3.0)


def test_a_part_of_which_nothing_was_read_has_no_window() -> None:
    assert "windows" not in attached(finding("t09.g1", "thermal.rth", load={}), telemetry())
    assert "windows" not in attached(finding("t01.g1", "thermal.rth", load={}), Telemetry({}, (LOAD,)))


def test_a_counter_is_told_by_its_growth_over_the_whole_recording() -> None:
    grows = Series(np.array([0.0, 599.0, 600.0, 1199.0]), np.array([40.0, 40.0, 47.0, 47.0]))
    of = Telemetry({("t00.g0", "ecc.dram_ce"): grows, ("t00.g1", "ecc.dram_ce"): Series(grows.t_s, np.full(4, 9.0))}, (LOAD,))
    windows = attached(finding("t00.g0", "memory.rate", hours=0.3), of)["windows"]
    (window,) = [one for one in windows if one["metric"] == "ecc.dram_ce"]
    assert (window["stage"], window["t0_s"], window["t1_s"]) == (WHOLE, 0.0, 1200.0)
    assert window["part"] == [0.0, None, None, None, None, 0.0, 7.0, None, None, None, None, 7.0]
    assert window["high"] == [0.0, None, None, None, None, 0.0, 0.0, None, None, None, None, 0.0]


@pytest.mark.parametrize(
    "one",
    [
        finding("t01.g1", "thermal.rth", Severity.WATCH, load={}),
        finding("t01.g1", "gpu.tlimit.load", Severity.FAIL, stage="load"),
    ],
    ids=["watch", "a limit of the profile"],
)
def test_others_are_left_as_they_are(one: Finding) -> None:
    assert Windows(telemetry(), CATALOGUE).attached([one]) == (one,)


def test_a_tray_that_was_tested_again_later_stands_where_it_was_tested() -> None:
    again = Stretch("load", "load", 100.0, 1400.0, 100.0, own=(("t01", 5100.0, 6400.0),))
    series = {(gpu, "gpu.temp"): Series(T, np.full(T.size, 30.0)) for gpu in GPUS}
    series["t01.g0", "gpu.temp"] = Series(T + 5000.0, np.full(T.size, 70.0))
    of = Telemetry(series, (again,))
    (window,) = attached(finding("t01.g0", "thermal.rth", load={}), of)["windows"]
    assert (window["t0_s"], window["t1_s"], window["part"], window["high"][0]) == (5200.0, 6400.0, [70.0] * 12, 30.0)
