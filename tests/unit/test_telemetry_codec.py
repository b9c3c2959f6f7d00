"""Columns come back bit for bit, whatever they hold; damaged bytes say so."""

import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.telemetry.codec import MAX_COUNT, BadColumn, decode, encode

DECIMALS = st.builds(lambda n, scale: n / scale, st.integers(-(10**9), 10**9), st.sampled_from((1, 10, 1000, 10**6)))
ANYTHING = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=64)
ODD = st.sampled_from((0.0, -0.0, math.inf, -math.inf, 5e-324, -5e-324, 2.0**53, 2.0**53 + 2, 1.7976931348623157e308, math.nan))


def bits(values: np.ndarray) -> list[int | None]:
    """Bit patterns, with every NaN alike."""
    return [None if math.isnan(v) else struct.unpack("<q", struct.pack("<d", v))[0] for v in values]


def comes_back(values: list[float]) -> bytes:
    given_ = np.array(values, np.float64)
    data = encode(given_)
    back = decode(data)
    assert back.dtype == np.float64
    assert bits(back) == bits(given_)
    return data


@given(st.lists(ANYTHING, max_size=40))
def test_any_floats(values: list[float]) -> None:
    comes_back(values)


@given(st.lists(st.one_of(DECIMALS, st.none()), max_size=200))
def test_decimals_with_gaps(values: list[float | None]) -> None:
    comes_back([math.nan if v is None else v for v in values])


@given(st.lists(st.one_of(DECIMALS, ODD), max_size=30))
def test_odd_values_among_decimals(values: list[float]) -> None:
    comes_back(values)


@given(st.one_of(ANYTHING, ODD), st.integers(1, 3000))
def test_one_value_again_and_again_is_a_few_bytes(value: float, count: int) -> None:
    assert len(comes_back([value] * count)) <= 40


@pytest.mark.parametrize("value", [0.0, 1.0, 100.0, 45.0, 1400.0, 36.6])
def test_a_column_that_never_changes_costs_about_ten_bytes(value: float) -> None:
    assert len(comes_back([value] * 1800)) <= 13


def test_a_steady_counter_costs_no_more_than_a_constant() -> None:
    assert len(comes_back([3e8 + 1400.125 * i for i in range(600)])) <= 20


def test_whole_degrees_cost_less_than_half_a_byte_and_milliwatts_two() -> None:
    rng = np.random.default_rng(7)
    degrees = (60 + rng.normal(0, 0.4, 1800)).round()
    watts = (1380 + rng.normal(0, 6, 1800)).round(3)
    assert len(comes_back(degrees.tolist())) < 0.5 * 1800
    assert len(comes_back(watts.tolist())) < 2.05 * 1800


def test_minus_zero_is_not_zero() -> None:
    back = decode(encode(np.array([0.0, -0.0, 0.0, -0.0])))
    assert np.signbit(back).tolist() == [False, True, False, True]


def test_only_nulls_and_nothing() -> None:
    assert len(decode(encode(np.full(17, np.nan)))) == 17
    assert np.isnan(decode(encode(np.full(17, np.nan)))).all()
    assert decode(encode(np.empty(0))).size == 0


def test_a_column_of_a_matrix_needs_no_copy_by_the_caller() -> None:
    matrix = np.arange(60.0).reshape(20, 3)
    assert decode(encode(matrix[:, 1])).tolist() == [1.0 + 3 * i for i in range(20)]


SAMPLE = encode(np.array([40.0, 41.0, math.nan, 43.5, 7.25] * 9))


@pytest.mark.parametrize("cut", range(len(SAMPLE)))
def test_cut_off_bytes_are_named(cut: int) -> None:
    with pytest.raises(BadColumn):
        decode(SAMPLE[:cut])


@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_one_changed_byte_is_named(at: int, change: int) -> None:
    damaged = bytearray(SAMPLE)
    damaged[at] ^= change
    with pytest.raises(BadColumn):
        decode(bytes(damaged))


@given(st.binary(max_size=80))
def test_bytes_of_something_else_are_named_even_with_a_right_checksum(body: bytes) -> None:
    """Whatever is inside: a column whose bytes were all used, or BadColumn; never another error."""
    try:
        values = decode(body + struct.pack("<I", zlib.crc32(body)))
    except BadColumn:
        return
    assert values.size <= MAX_COUNT


def test_bytes_after_the_last_plane_are_named() -> None:
    body = encode(np.array([1.0, 2.0, 4.0]))[:-4] + b"\0"
    with pytest.raises(BadColumn, match="1 bytes too many"):
        decode(body + struct.pack("<I", zlib.crc32(body)))


def test_a_count_that_cannot_be_is_named() -> None:
    body = b"\xff\xff\xff\xff\x7f\x00\x00\x00\x00"
    with pytest.raises(BadColumn, match="values"):
        decode(body + struct.pack("<I", zlib.crc32(body)))


def test_too_many_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode(np.broadcast_to(np.float64(1.0), MAX_COUNT + 1))
