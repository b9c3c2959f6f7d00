"""`burnin expect import`: a build record becomes `expect`, and nothing else in the rack file changes; or nothing at all does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.errors import InputError
from burnin.rack.build_record import import_expect
from burnin.rack.load import load_rack

RACK = """\
# the rack by the door
rack: R-1
profile: gb300-nvl72   # four GPUs a tray
trays:
  t[00-17]: {host: "10.0.0.[1-18]"}   # one switch
# what was built in
expect:
  t01: {serial: "OLD1", gpus: ["O0", "O1", "O2", "O3"]}  # kept
# who answers for it
waive:
  - {interlock: leak, by: A. Person, why: "dry, on the bench", until: 2026-12-31}
"""
RECORD = "part,serial\nt00,TRAY0\nt00.g0,G0\nt00.g1,G1\nt00.g2,G2\nt00.g3,G3\n"


@pytest.fixture
def rack(tmp_path: Path) -> Path:
    path = tmp_path / "rack.yaml"
    path.write_text(RACK)
    return path


def fill(rack: Path, record: str | bytes) -> int:
    csv = rack.parent / "record.csv"
    csv.write_bytes(record.encode() if isinstance(record, str) else record)
    return import_expect(rack, csv)


def expected(rack: Path, tray: str) -> tuple[str | None, list[str] | None]:
    entry = load_rack(rack, need_known_hosts=False, need_keys=False).rack.expect[tray]
    return entry.serial, entry.gpus


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        RECORD.replace(",", ";"),
        RECORD.replace(",", "\t"),
        RECORD.replace("\n", "\r\n"),
        "\ufeff" + RECORD,
        RECORD.replace(",", ", "),
        'Part,"Serial",note\nt00,TRAY0,"a, b"\nt00.g3,"G3",\nt00.g1,G1,x\nt00.g0,G0,\nt00.g2,G2,\n\n,,\n',
        "slot,serial,part\n1,TRAY0,t00\n2,G0,t00.g0\n3,G1,t00.g1\n4,G2,t00.g2\n5,G3,t00.g3\n",
    ],
)
def test_every_usual_kind_of_csv(rack: Path, record: str) -> None:
    assert fill(rack, record) == 5
    assert expected(rack, "t00") == ("TRAY0", ["G0", "G1", "G2", "G3"])
    assert expected(rack, "t01") == ("OLD1", ["O0", "O1", "O2", "O3"])


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_nothing_but_expect_changes(rack: Path, line_end: str) -> None:
    rack.write_bytes(RACK.replace("\n", line_end).encode())
    rack.chmod(0o640)
    fill(rack, RECORD)
    said = rack.read_bytes().decode()
    before, after = RACK.split("expect:\n")[0], RACK[RACK.index("# who answers") :]
    assert said.startswith(before.replace("\n", line_end))
    assert said.endswith(after.replace("\n", line_end))
    assert "# kept" in said
    assert rack.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in rack.parent.iterdir()) == ["rack.yaml", "record.csv"], "no scratch file is left"


def test_a_rack_file_without_expect_gets_one_at_its_end(rack: Path) -> None:
    bare = RACK[: RACK.index("# what was built")].rstrip("\n")
    rack.write_text(bare)
    fill(rack, RECORD)
    assert rack.read_text().startswith(bare + "\n")
    assert expected(rack, "t00")[0] == "TRAY0"


def test_a_later_record_of_one_part_replaces_only_that(rack: Path) -> None:
    fill(rack, RECORD)
    assert fill(rack, "part,serial\nt01,NEW1\n") == 1
    assert expected(rack, "t01") == ("NEW1", ["O0", "O1", "O2", "O3"])
    assert expected(rack, "t00") == ("TRAY0", ["G0", "G1", "G2", "G3"])


def test_serials_that_look_like_numbers_stay_as_they_are_written(rack: Path) -> None:
    fill(rack, "part,serial\nt00,0012\nt02,1e5\nt03,0x1f\n")
    assert [expected(rack, tray)[0] for tray in ("t00", "t02", "t03")] == ["0012", "1e5", "0x1f"]


def test_a_linked_rack_file_stays_a_link(rack: Path) -> None:
    link = rack.with_name("link.yaml")
    link.symlink_to(rack.name)
    fill(link, RECORD)
    assert link.is_symlink()
    assert expected(rack, "t00")[0] == "TRAY0"


WRONG = {
    "no such part": ("t00.g3,G3", "t00.g4,G3", ["5:1: t00 lacks t00.g3", "6:1: t00.g4 is not in rack R-1"]),
    "a switch tray": ("t00,TRAY0", "s0,TRAY0", ["2:1: part is 's0'; expected a compute tray (t07) or a GPU (t07.g2)"]),
    "a word": ("t00,TRAY0", "tray 1,TRAY0", ["2:1: part is 'tray 1'"]),
    "part twice": ("t00.g3,G3", "t00.g3,G3\nt00,T1", ["7:1: t00 is given twice, first in line 2; expected each part once"]),
    "empty serial": ("t00,TRAY0", "t00,", ["2:5: serial of t00 is empty"]),
    "a blank in it": ("TRAY0", "TR AY", ["2:5: serial of t00 is 'TR AY'; expected letters, digits and . : / - _"]),
    "serial twice": ("t00.g2,G2", "t00.g2,G0", ["5:8: t00.g2 has the serial of t00.g0 (line 3); expected each serial once"]),
    "serial of another": ("TRAY0", "OLD1", ["2:5: t00 has the serial that t01 has in rack.yaml"]),
    "one GPU missing": ("t00.g1,G1\n", "", ["5:1: t00 lacks t00.g1; expected all GPUs of a tray, or none"]),
    "short line": ("t00.g1,G1", "t00.g1", ["4:1: 1 fields in 't00.g1'; expected 2, as in line 1", "6:1: t00 lacks t00.g1"]),
    "no serials": ("part,serial", "part,number", ["1:1: no column serial in 'part,number'"]),
    "serials twice": ("part,serial", "part,serial,serial", ["1:1: more than one column serial"]),
    "empty file": (RECORD, "", ["1:1: the file is empty"]),
    "no rows": (RECORD, "part,serial\n", ["1:1: the record holds no parts"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_with_a_mistake_nothing_is_written(rack: Path, name: str) -> None:
    old, new, says = WRONG[name]
    assert old in RECORD
    with pytest.raises(InputError) as caught:
        fill(rack, RECORD.replace(old, new, 1))
    said = [str(problem).removeprefix(f"{rack.parent}/record.csv:") for problem in caught.value.problems]
    assert len(said) == len(says), said
    assert all(one.startswith(words) for one, words in zip(said, says, strict=True)), said
    assert rack.read_text() == RACK


def test_bytes_that_are_no_text(rack: Path) -> None:
    with pytest.raises(InputError, match=r"record.csv:2:5: byte 0xff is not UTF-8"):
        fill(rack, b"part,serial\nt00,\xff\n")


def test_a_file_that_is_not_there(rack: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.csv: there is no such file"):
        import_expect(rack, tmp_path / "none.csv")


def test_a_rack_in_one_line_is_left_alone_and_says_why(rack: Path) -> None:
    text = "{rack: R-1, profile: gb300-nvl72, trays: {t00: {host: h}}, expect: {}}\n"
    rack.write_text(text)
    with pytest.raises(InputError, match="cannot be filled in without changing more of it; expected block style"):
        fill(rack, "part,serial\nt00,T\n")
    assert rack.read_text() == text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(rack: Path) -> None:
    (rack.parent / "record.csv").write_text(RECORD)
    rack.parent.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot be written"):
            import_expect(rack, rack.parent / "record.csv")
    finally:
        rack.parent.chmod(0o700)


@given(
    st.binary(max_size=80)
    | st.text(alphabet='part,serial\nt0.g123;"\t', max_size=80).map(lambda t: b"part,serial\n" + t.encode())
)
def test_any_bytes_are_a_record_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, record: bytes) -> None:
    rack = tmp_path_factory.getbasetemp() / "record-rack.yaml"
    rack.write_text(RACK)
    try:
        assert fill(rack, record) > 0
    except InputError as error:
        assert error.problems
        assert rack.read_text() == RACK
    else:
        load_rack(rack, need_known_hosts=False, need_keys=False)
