"""Part ids: one grammar, one tree, and words that stand for many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.rack.parts import KINDS, MOST, fold, is_part, kind, parent, related, tray_of, unfold, within


@pytest.mark.parametrize(
    ("part", "what", "above"),
    [
        ("t07", "compute tray", "rack"),
        ("t07.g2", "GPU", "t07"),
        ("t07.g2.l13", "NVLink", "t07.g2"),
        ("t07.c1", "CPU", "t07"),
        ("t07.n2", "NIC", "t07"),
        ("t07.d0", "NVMe", "t07"),
        ("t07.bmc", "BMC", "t07"),
        ("s3", "switch tray", "rack"),
        ("s3.a1", "NVSwitch", "s3"),
        ("s3.a1.p44", "NVSwitch port", "s3.a1"),
        ("x2", "cable cartridge", "rack"),
        ("p4", "power shelf", "rack"),
        ("p4.u2", "PSU", "p4"),
        ("cdu", "cdu", "rack"),
        ("manifold", "manifold", "rack"),
        ("rack", "rack", None),
    ],
)
def test_grammar(part: str, what: str, above: str | None) -> None:
    assert is_part(part)
    assert kind(part) == what
    assert what in KINDS
    assert parent(part) == above


@pytest.mark.parametrize("text", ["", "t7", "t007", "g2", "t07.", "t07.g2.l", "T07", "t07.g22", "s10", "t٠٧", "t07\n", "t07 "])
def test_what_is_no_part(text: str) -> None:
    assert not is_part(text)
    with pytest.raises(ValueError, match="is not a part id"):
        kind(text)


def test_the_tree() -> None:
    assert within("t07.g2", "t07") and within("t07.g2", "rack") and within("t07", "t07")
    assert not within("t07", "t07.g2")
    assert not within("t17.g1", "t1")
    assert related("t07", "t07.g2.l3") and not related("t07.g1", "t07.g2")
    assert tray_of("t07.g2.l13") == "t07"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("t07", ["t07"]),
        ("t[00-02,05],s1", ["t00", "t01", "t02", "t05", "s1"]),
        ("10.1.1.[8-11]", ["10.1.1.8", "10.1.1.9", "10.1.1.10", "10.1.1.11"]),
        ("h[098-101]", ["h098", "h099", "h100", "h101"]),
        ("t[00-08/4]", ["t00", "t04", "t08"]),
        ("r[1-2]n[3-4]", ["r1n3", "r1n4", "r2n3", "r2n4"]),
        ("10.1.1.[13,11,12]", ["10.1.1.13", "10.1.1.11", "10.1.1.12"]),
    ],
)
def test_unfold_keeps_the_order_that_was_written(text: str, names: list[str]) -> None:
    assert unfold(text) == names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a range is written"),
        ("t[00-17", "a range is written"),
        ("t00-17]", "a range is written"),
        ("t[[1]]", "a range is written"),
        ("a,,b", "a range is written"),
        ("t[]", "'' is not a number or a range"),
        ("t[a-b]", "'a-b' is not a number or a range"),
        ("t[9-1]", "runs from high to low"),
        ("t[1-9/0]", "stands still"),
        ("t[0-999999999999]", f"more than {MOST} names"),
        ("[0-99][0-99]", f"more than {MOST} names"),
        ("[" + "0-4095," * 1000 + "1]", f"more than {MOST} names"),
    ],
)
def test_what_cannot_be_unfolded_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("[", r"\[")):
        unfold(text)


def test_fold() -> None:
    assert fold(f"t{i:02}.g2" for i in range(18)) == "t[00-17].g2"
    assert fold(["t03", "t01", "t02", "s1"]) == "s1,t[01-03]"


_PARTS = st.one_of(
    st.integers(0, 17).map(lambda i: f"t{i:02}"),
    st.tuples(st.integers(0, 17), st.integers(0, 3)).map(lambda x: f"t{x[0]:02}.g{x[1]}"),
    st.integers(0, 8).map(lambda i: f"s{i}"),
)


@given(st.lists(_PARTS, min_size=1, unique=True))
def test_unfold_undoes_fold(parts: list[str]) -> None:
    assert sorted(unfold(fold(parts))) == sorted(parts)


@given(st.text(alphabet="t01[]-,/9.x", max_size=30))
def test_unfold_gives_names_or_a_reason(text: str) -> None:
    try:
        names = unfold(text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        assert names and not any(c in name for name in names for c in "[],")
