"""Frames and blocks give back what was put in, one series at a time or all, and name damage."""

import math
from collections.abc import Callable, Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.telemetry import series as telemetry
from burnin.telemetry.blocks import BadBlock, Group, merge, pack, pack_frame, series, unpack, unpack_frames

KEYS = [
    ("t00.g0", "gpu.temp"),
    ("t00.g0", "gpu.power"),
    ("t00.g1", "gpu.temp"),
    ("t00", "tray.power"),
    ("t00.g1.l13", "nvlink.raw_ber"),
]
VALUES = st.one_of(st.just(math.nan), st.floats(allow_nan=False), st.integers(0, 1000).map(float))


@st.composite
def groups(draw: st.DrawFn) -> Group:
    keys = tuple(draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True)))
    t_ms = draw(st.lists(st.integers(-1000, 10**9), min_size=1, max_size=12))
    rows = [draw(st.lists(VALUES, min_size=len(t_ms), max_size=len(t_ms))) for _ in keys]
    return Group(np.array(t_ms, np.int64), keys, np.array(rows, np.float64))


def same(one: Group, other: Group) -> None:
    assert one.keys == other.keys
    assert one.t_ms.tolist() == other.t_ms.tolist()
    null = np.isnan(one.values)
    assert (null == np.isnan(other.values)).all()
    assert (np.signbit(one.values[~null]) == np.signbit(other.values[~null])).all()
    assert (one.values[~null] == other.values[~null]).all()


def group(keys: list[tuple[str, str]], t_ms: list[int], *rows: list[float]) -> Group:
    return Group(np.array(t_ms, np.int64), tuple(keys), np.array(rows, np.float64))


FAST = group(KEYS[:2], [0, 1000, 2001], [40, 41, 42], [100.5, math.nan, 102.5])
SLOW = group(KEYS[2:4], [0, 5000], [50, 51], [900, 901])


@given(st.lists(groups(), max_size=3))
def test_what_goes_in_comes_out(many: list[Group]) -> None:
    for back in (unpack(pack(many)), unpack_frames([pack_frame(many)])):
        assert len(back) == len(many)
        for one, other in zip(many, back, strict=True):
            same(one, other)


def from_block(parts: Collection[str] | None = None, metrics: Collection[str] | None = None) -> list[Group]:
    return unpack(pack([FAST, SLOW]), parts, metrics)


def from_frame(parts: Collection[str] | None = None, metrics: Collection[str] | None = None) -> list[Group]:
    return unpack_frames([pack_frame([FAST, SLOW])], parts, metrics)


@pytest.mark.parametrize("read", [from_block, from_frame])
def test_one_series_out_of_many(read: Callable[..., list[Group]]) -> None:
    (one,) = read(parts=("t00.g0",), metrics=("gpu.power",))
    assert one.keys == (("t00.g0", "gpu.power"),)
    assert one.t_ms.tolist() == [0, 1000, 2001]
    assert one.values[0][[0, 2]].tolist() == [100.5, 102.5]
    assert [g.keys for g in read(metrics=("gpu.temp",))] == [(KEYS[0],), (KEYS[2],)]
    assert [g.keys for g in read(parts=("t00.g1",))] == [(KEYS[2],)]
    assert read(parts=("t99",)) == []


def test_reading_one_series_leaves_the_others_alone() -> None:
    """A damaged column costs itself only."""
    whole = bytearray(pack([FAST, SLOW]))
    whole[-3] ^= 1  # the last column: tray.power
    (one,) = unpack(bytes(whole), parts=("t00.g0",), metrics=("gpu.temp",))
    assert one.values.tolist() == [[40, 41, 42]]
    with pytest.raises(BadBlock):
        unpack(bytes(whole), metrics=("tray.power",))


@pytest.mark.parametrize("cut", [0, 3, 8, 20, -60, -1])
def test_cut_off_blocks_and_frames_are_named(cut: int) -> None:
    with pytest.raises(BadBlock):
        unpack(pack([FAST, SLOW])[:cut])
    with pytest.raises(BadBlock):
        unpack_frames([pack_frame([FAST, SLOW])[:cut]])


BLOCK, FRAME = pack([FAST, SLOW]), pack_frame([FAST, SLOW])


@given(st.data(), st.integers(1, 255))
def test_one_changed_byte_is_named(data: st.DataObject, change: int) -> None:
    block, frame = bytearray(BLOCK), bytearray(FRAME)
    block[data.draw(st.integers(0, len(BLOCK) - 1))] ^= change
    with pytest.raises(BadBlock):
        unpack(bytes(block))
    at = data.draw(st.integers(0, len(FRAME) - 1))
    frame[at] ^= change
    try:  # zstd's header has spare bits: what they change must not change what is read
        back = unpack_frames([bytes(frame)])
    except BadBlock:
        return
    for one, other in zip((FAST, SLOW), back, strict=True):
        same(one, other)


@given(st.binary(max_size=60))
def test_other_bytes_are_named(body: bytes) -> None:
    for other in (body, b"BB1\n" + body):
        with pytest.raises(BadBlock):
            unpack(other)
    for other in (body, b"BF1\n" + body):
        with pytest.raises(BadBlock):
            unpack_frames([other])


def test_merge_joins_equal_columns_and_sorts_by_time() -> None:
    late = group(KEYS[:2], [3000, 2500], [44, 43], [104, 103])
    one, other = merge([late, SLOW, FAST])
    assert one.t_ms.tolist() == [0, 1000, 2001, 2500, 3000]
    assert one.values[0].tolist() == [40, 41, 42, 43, 44]
    same(other, SLOW)


def test_series_of_one_group_share_their_times() -> None:
    got = series([FAST])
    assert got[KEYS[0]].t_s is got[KEYS[1]].t_s
    assert got[KEYS[0]].t_s.tolist() == [0.0, 1.0, 2.001]


def test_a_series_found_in_two_groups_is_one_series() -> None:
    """An agent that came back with other columns goes on with the same series."""
    other = group([KEYS[2], KEYS[0]], [500, 1500], [60, 61], [140, 141])
    got = series([FAST, other])
    assert got[KEYS[0]].t_s.tolist() == [0.0, 0.5, 1.0, 1.5, 2.001]
    assert got[KEYS[0]].v.tolist() == [40, 140, 41, 141, 42]
    assert got[KEYS[1]].v.size == 3
    assert telemetry.Telemetry(got).of("t00.g1", "gpu.temp").v.tolist() == [60, 61]
