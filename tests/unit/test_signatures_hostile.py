"""Readings that make no sense, or hardly any: signatures end, name only parts that were read, and say finite numbers."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from burnin import signatures
from burnin.events import LogLine
from burnin.rack.load import load_catalogue
from burnin.rack.parts import is_part
from burnin.telemetry.series import Series, Stretch, Telemetry
from tests import racks

ROWS = load_catalogue().signatures
METRICS = sorted({signal for row in ROWS.values() for signal in row.signals} - {"xid"})
STRETCHES = (
    Stretch("idle", "idle", 0.0, 20.0, 2.0),
    Stretch("load", "load", 20.0, 20.0 + 8000.0, 5.0),
    Stretch("load-2", "load-2", 9000.0, 9010.0, 20.0),
)
VALUES = st.sampled_from([0.0, -1.0, 1.0, 35.0, 1400.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, 2.0**64])


def telemetry_of(metrics: list[str], pool: list[float], step: float, readings: int, seed: int) -> Telemetry:
    """Each metric with any of the values, on a few readings of all GPUs or of one link of each."""
    t = np.arange(0.5, 9010.0, step)[:readings]
    rng = np.random.default_rng(seed)
    out: dict[tuple[str, str], Series] = {}
    for metric in metrics:
        for gpu in (f"t{i:02}.g{j}" for i in range(18) for j in range(4)):
            part = f"{gpu}.l3" if metric.startswith("nvlink.") else gpu
            out[part, metric] = Series(t, rng.choice(np.array(pool), t.size))
    return Telemetry(out, STRETCHES)


@given(
    st.lists(st.sampled_from(METRICS), max_size=6, unique=True),
    st.lists(VALUES, min_size=1, max_size=8),
    st.sampled_from([1.0, 60.0, 400.0]),
    st.sampled_from([0, 1, 2, 30, 600]),
    st.integers(0, 5),
)
@settings(max_examples=25)
def test_nothing_that_is_read_breaks_them(metrics: list[str], pool: list[float], step: float, readings: int, seed: int) -> None:
    telemetry = telemetry_of(metrics, pool, step, readings, seed)
    for one in signatures.find(telemetry, racks.topology(), ROWS, {}):
        assert is_part(one.part) and one.signature in ROWS and one.why and one.action
        assert one.statistic is None or not math.isnan(one.statistic)


@given(
    st.lists(
        st.tuples(st.sampled_from(["t00", "t07.g2", "t08.g1", "s3", "rack"]), st.integers(-5, 5), st.text(max_size=5)), max_size=9
    )
)
def test_any_log_line_is_survived(lines: list[tuple[str, int, str]]) -> None:
    log = [LogLine(part, float(t), "xid", code, "", "kmsg") for part, t, code in lines]
    for one in signatures.find(Telemetry({}, ()), racks.topology(), ROWS, {}, log):
        assert is_part(one.part)
