"""YAML as plain values: YAML 1.2, one document, and a place for everything that is wrong."""

from __future__ import annotations

import datetime as dt
import math
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from burnin.errors import InputError
from burnin.rack import document
from burnin.rack.document import LARGEST, one_of, read


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file `f.yaml` in the current directory."""
    monkeypatch.chdir(tmp_path)
    return Path("f.yaml")


def _refused(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(path)
    return [str(problem) for problem in caught.value.problems]


def test_values_are_plain_and_yaml_1_2(write: Path) -> None:
    write.write_text(
        "a: on\nb: yes\nc: true\nd: 0x1f\ne: 1_000\nf: 2026-12-31\ng: ~\nh: 1.5e3\ni: 12:30:00\nj: .inf\nk: 0o17\nl: 'x'\n"
        "m: 2026-13-45\nn: [1, {o: 2}]\np:\nq: 010\n7: seven\n"
    )
    data = read(write).data
    assert data == {
        "a": "on", "b": "yes", "c": True, "d": 31, "e": 1000, "f": dt.date(2026, 12, 31), "g": None, "h": 1500.0, "i": "12:30:00",
        "j": math.inf, "k": 15, "l": "x", "m": "2026-13-45", "n": [1, {"o": 2}], "p": None, "q": 10, 7: "seven",
    }  # fmt: skip
    assert {type(value) for value in data.values()} == {str, bool, int, dt.date, type(None), float, list}
    assert type(data["n"][1]) is dict


def test_places_are_those_of_key_and_value(write: Path) -> None:
    write.write_text("a:\n  b: [x,\n      {c: 1}]\nempty:\nlast: 0\n")
    document = read(write)
    assert document.places["a", "b", 1, "c"].key == (3, 8)
    assert document.places["a", "b", 1, "c"].value == (3, 11)
    assert document.places["a", "b"].value == (2, 6)
    assert document.places["a",].value == (2, 3)
    assert document.places["empty",].value == (4, 1)  # nothing is there: the key
    assert document.places[()].value == (1, 1)


def test_a_name_is_found_where_its_range_says_it(write: Path) -> None:
    write.write_text("trays:\n  t[00-17]: {host: a, port: 1}\n  t07: {port: 2}\n")
    document = read(write)
    assert document.find(("trays", "t03", "port")) == ("trays", "t[00-17]", "port")
    assert document.find(("trays", "t07", "port")) == ("trays", "t07", "port")
    assert document.find(("trays", "t07", "host")) == ("trays", "t[00-17]", "host")
    assert document.find(("trays", "t07", "user")) == ("trays", "t07")
    assert document.find(("trays", "s0")) == ("trays",)
    assert list(document.each("trays", "*", "port")) == [(("trays", "t[00-17]", "port"), 1), (("trays", "t07", "port"), 2)]


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (b"a: 1\n\tb: 2\n", "2:1", "a tab stands where only spaces may; expected spaces for indentation"),
        (b"a:\n  b: 1\n   c: 2\n", "3:5", "mapping values are not allowed here; expected one key: value per line"),
        (b"a: [1\nb: 2\n", "2:2", "this is not YAML"),
        (b'a: "x\n', "2:1", "(while scanning a quoted scalar that begins on line 1)"),
        (b"a: {t[00-17]: 1}\n", "1:6", 'quotes around a range inside { }, as in {"t[00-17]": ...}'),
        (b"a: 1\nb: 2\na: 3\n", "3:1", "'a' is given twice, first at 1:1; expected each key once"),
        (b"a: 1\n---\nb: 2\n", "2:1", "a second document begins (---)"),
        (b"a: &x 1\nb: *x\n", "2:1", "an alias (*name) stands here"),
        (b"a: &x [*x]\n", "1:4", "an alias (*name) stands here"),
        (b"<<: {a: 1}\n", "1:1", "a merge (<<) stands here"),
        (b"[1, 2]: 3\n", "1:1", "a key is not a word"),
        (b"a: !!int x\n", "1:4", "'x' cannot be read as int"),
        (b"a: !mine x\n", "1:4", "'x' cannot be read as !mine"),
        (b'a: "\\x1b[31m"\n', "1:4", "holds a control character"),
        (b'a: "\\ud800"\n', "1:4", "holds a control character"),
        (b"a: 1\nb: x\x07y\n", "2:5", "an unprintable character"),
        (b"", "1:1", "the file is empty"),
        (b"# nothing but this\n", "1:1", "the file is empty"),
        (b"a: 1\nbc: \xff\n", "2:5", "byte 0xff is not UTF-8"),
        (b"\xef\xbb\xbfa: \xc3\xa9\xc3\n", "1:5", "byte 0xc3 is not UTF-8"),
    ],
)
def test_bad_yaml_is_one_sentence_with_its_place(write: Path, content: bytes, place: str, words: str) -> None:
    write.write_bytes(content)
    try:
        problems = [str(problem) for problem in read(write).problems]
    except InputError as error:
        problems = [str(problem) for problem in error.problems]
    assert len(problems) == 1
    assert problems[0].startswith(f"f.yaml:{place}: ")
    assert words in problems[0]
    assert "\n" not in problems[0]


def test_a_byte_order_mark_is_no_mistake(write: Path) -> None:
    write.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    document = read(write)
    assert document.data == {"a": 1, "b": 2}
    assert document.places["b",].key == (2, 1)


def test_what_is_no_file(write: Path) -> None:
    assert _refused(write) == ["f.yaml: there is no such file"]
    write.mkdir()
    assert _refused(write) == ["f.yaml: is a directory; expected a YAML file"]
    assert _refused(Path("a\0b")) == ["a\0b: cannot be read: embedded null byte"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(write: Path) -> None:
    write.write_text("a: 1\n")
    write.chmod(0)
    assert _refused(write) == ["f.yaml: may not be read by this user; expected read permission"]


def test_too_large_and_too_deep(write: Path) -> None:
    write.write_bytes(b"#" * (LARGEST + 1))
    assert _refused(write) == ["f.yaml: is larger than 4 MiB; expected a YAML file"]
    for deep in (b"[" * 5000, b"[" * 900 + b"]" * 900, b"- " * 900 + b"a", b"{a: " * 100_000):
        write.write_bytes(deep)
        assert _refused(write) == ["f.yaml: is nested far too deeply; expected a handful of levels"]


WORDS = "a b7 'x' 1 0o17 1_0 ~ on 2026-12-31 &n *n !t !!int t[00-17] << \\ % @ | >".split(" ")  # noqa: SIM905
MARKS = [*"\n\t ,[]{}#:-", "\n", "\n  ", "\n    ", ": ", "- ", " # ", "? ", "---\n", "...\n", "\r\n", "\x85", "\ufeff"]


@given(st.lists(st.sampled_from(WORDS) | st.sampled_from(MARKS), max_size=40).map("".join))
@example("a: {b: 1, t[0]: 2}\nc:\n- 1\n-\n- {d: }\n")
def test_the_fast_reader_reads_what_the_other_reads(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "both.yaml"
    path.write_text(text, newline="")
    assert _either(path) == _slowly(path)


@pytest.mark.parametrize("file", sorted(Path().glob("inventory/*/*.yaml")) + sorted(Path().glob("test_suites/*.yaml")), ids=str)
def test_shipped_files_are_read_fast_and_alike(file: Path) -> None:
    with patch.object(document, "_slowly", side_effect=AssertionError):
        assert read(file) is not None
    assert _either(file) == _slowly(file)


def _either(path: Path) -> Any:
    try:
        found = read(path)
    except InputError as error:
        return error.problems
    return repr(found.data), found.places, found.problems


def _slowly(path: Path) -> Any:
    with patch.object(document, "DEEPEST", 0):
        return _either(path)


def test_one_of() -> None:
    assert one_of(["b", "a"], "zzz") == "one of a, b"
    assert one_of(["user", "known_hosts"], "know_hosts") == "one of known_hosts, user (did you mean known_hosts?)"
    assert one_of([f"n{i:02}" for i in range(30)], "n07x").endswith("n10, n11, ... 18 more (did you mean n07?)")


@given(st.binary(max_size=200) | st.text(alphabet="ab01:-[]{}#&*!|>'\"%@`,\n\t ?<=~.", max_size=80).map(str.encode))
def test_any_bytes_are_a_document_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        document = read(path)
    except InputError as error:
        assert error.problems and all(str(problem).encode() for problem in error.problems)
    else:
        assert document.places[()]
        str(document.problem((), "anywhere")).encode()
