"""The protocol between controller and agent: whatever the pieces, whatever comes before, whatever is hostile."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin import wire
from burnin.errors import ProtocolError

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_records = st.builds(
    wire.Record,
    kind=st.sampled_from(["hello", "sample", "event", "beat"]),
    boot_id=st.text(max_size=36),
    seq=st.integers(-1, 2**40),
    mono_ns=st.integers(0, 2**62),
    body=st.dictionaries(st.text(max_size=8), _json, max_size=4),
)


@given(st.lists(_records, max_size=6), st.lists(st.integers(1, 40), min_size=1, max_size=20), st.binary(max_size=60))
def test_records_survive_any_cutting_and_any_chatter_before_them(
    records: list[wire.Record], cuts: list[int], chatter: bytes
) -> None:
    noise = chatter.replace(wire.MARK, b"")
    data = noise + b"\n" + wire.MARK + b"".join(map(wire.encode, records))
    decoder, out, at = wire.Decoder(), [], 0
    for i in range(len(data)):
        size = cuts[i % len(cuts)]
        out += decoder.feed(data[at : at + size])
        at += size
        if at >= len(data):
            break
    assert out == records


@given(st.binary(max_size=200))
def test_garbage_after_the_mark_is_a_protocol_error_or_nothing(garbage: bytes) -> None:
    decoder = wire.Decoder()
    decoder.feed(wire.MARK)
    try:
        records = decoder.feed(garbage)
    except ProtocolError:
        return
    # what came through can only be lines that were records, letter for letter
    lines = [line for line in garbage.split(b"\n")[:-1] if line]
    assert [json.loads(line) for line in lines] == [[r.kind, r.boot_id, r.seq, r.mono_ns, r.body] for r in records]


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"[]", b'["sample","b",0,0]', b'["sample","b",true,0,{}]', b'["sample","b",0,0,[]]', b'["sample",1,0,0,{}]',
        b'[null,"b",0,0,{}]', b'"hello"', b"[" * 5000, b"\xff\xfe", b'["sample","b",0.5,0,{}]',
    ],
)  # fmt: skip
def test_what_is_nearly_a_record_is_refused(line: bytes) -> None:
    decoder = wire.Decoder()
    with pytest.raises(ProtocolError):
        decoder.feed(wire.MARK + line + b"\n")


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    decoder = wire.Decoder()
    decoder.feed(wire.MARK)
    with pytest.raises(ProtocolError, match="longer than"):
        for _ in range(40):
            decoder.feed(b"x" * (1 << 15))
    chatter = wire.Decoder()
    with pytest.raises(ProtocolError, match="no agent"):
        for _ in range(40):
            chatter.feed(b"x" * (1 << 15))


def test_what_a_shell_said_instead_is_kept_for_the_sentence() -> None:
    decoder = wire.Decoder()
    assert decoder.feed(b"bash: python3: command not found\n") == []
    assert decoder.noise == "bash: python3: command not found"


@given(st.builds(wire.Order, st.text(max_size=9), st.text(max_size=9), st.dictionaries(st.text(max_size=8), _json, max_size=4)))
def test_orders_come_back_as_they_were(order: wire.Order) -> None:
    assert wire.read_down(wire.encode(order)) == order


@given(st.builds(wire.Lease, st.floats(0, 14400), st.integers(-1, 2**40), st.text(max_size=9)))
def test_leases_come_back_as_they_were(lease: wire.Lease) -> None:
    assert wire.read_down(wire.encode(lease)) == lease


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'["lease",-1,0]',
        b'["lease",14401,0]',
        b'["lease","x",0]',
        b'["lease",1,0,2]',
        b'["order",1,"load",{}]',
        b'["x"]',
    ],
)
def test_what_is_no_order_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.read_down(line)


@given(st.binary(max_size=100))
def test_any_bytes_are_an_order_or_a_protocol_error(line: bytes) -> None:
    try:
        assert isinstance(wire.read_down(line), (wire.Order, wire.Lease))
    except ProtocolError:
        pass


_numbers = st.none() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.text(max_size=36), st.integers(0, 3), st.lists(_numbers, max_size=9))
def test_samples_are_the_records_that_anybody_would_write(boot_id: str, table: int, values: list[float | None]) -> None:
    line = wire.encode_sample(boot_id, 7, 8, table, 9, values)
    assert line == wire.encode(wire.Record("sample", boot_id, 7, 8, {"c": table, "n": 9, "v": values}))
    for none in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError):
            wire.encode_sample(boot_id, 7, 8, table, 9, [*values, none])


def test_nan_never_travels() -> None:
    with pytest.raises(ValueError):
        wire.encode(wire.Record("sample", "b", 0, 0, {"v": [float("nan")]}))
