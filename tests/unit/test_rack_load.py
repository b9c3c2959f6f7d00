"""Rack and profile files: every mistake at its line and column, and what a file folds together or leaves out."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.errors import InputError
from burnin.rack.load import RackFile, load_profile, load_rack, load_site

RACK = """\
rack: R-1
profile: gb300-nvl72
ssh: {user: ops, known_hosts: kh, key: key}
trays:
  t[00-17]: {host: "10.0.0.[1-18]"}
  t07: {port: 2222, user: root, become: sudo}
  s[0-8]: {host: "10.0.1.[1-9]"}
expect:
  t00: {serial: A0, gpus: [G0, G0, G2, G2]}
waive:
  - {interlock: leak, by: A. Person, why: dry rack on the bench, until: 2026-12-31}
"""


@pytest.fixture
def rack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """rack.yaml in the current directory, with its key and known_hosts beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("kh", "key"):
        (tmp_path / name).write_text("x")
    path = Path("rack.yaml")
    path.write_text(RACK)
    return path


def refused(path: Path) -> list[str]:
    """The mistakes in a rack file, without its name."""
    with pytest.raises(InputError) as caught:
        load_rack(path)
    texts = [str(problem) for problem in caught.value.problems]
    assert all(text.startswith(f"{path}:") and "\n" not in text for text in texts), texts
    return [text.removeprefix(f"{path}:") for text in texts]


def test_a_range_is_eighteen_trays_and_a_later_line_overrides_one_of_them(rack: Path) -> None:
    file = load_rack(rack)
    trays = file.rack.trays
    assert list(file.rack.compute()) == [f"t{i:02}" for i in range(18)]
    assert [trays[f"t{i:02}"].host for i in (0, 7, 17)] == ["10.0.0.1", "10.0.0.8", "10.0.0.18"]
    assert (trays["t07"].port, trays["t07"].user, trays["t07"].become) == (2222, "root", "sudo")
    assert (trays["t06"].port, trays["t06"].user, trays["t06"].become) == (None, None, None)
    assert trays["s8"].host == "10.0.1.9"
    assert file.rack.expect["t00"].gpus == ["G0", "G0", "G2", "G2"], "two GPUs of one board report one serial"
    assert file.rack.waive[0].until == dt.date(2026, 12, 31)


def test_a_tray_by_its_own_name_wins_over_a_range_wherever_it_stands(rack: Path) -> None:
    ranges = '  t[00-17]: {host: "10.0.0.[1-18]", port: 22, user: ops}\n'
    rack.write_text(f"rack: R-1\nprofile: gb300-nvl72\nssh: {{known_hosts: kh}}\ntrays:\n  t07: {{port: 2222}}\n{ranges}")
    trays = load_rack(rack).rack.trays
    assert [(trays[tray].port, trays[tray].user) for tray in ("t06", "t07")] == [(22, "ops"), (2222, "ops")]
    rack.write_text(rack.read_text().replace("2222", "0"))
    assert refused(rack) == ["5:15: trays.t07.port is 0; expected at least 1"]


@pytest.mark.parametrize("jump", ["bastion", "ops@bastion", "ops@bastion:2222", "bastion:22"])
def test_a_jump_host(rack: Path, jump: str) -> None:
    rack.write_text(RACK.replace("user: ops", f"jump: '{jump}'"))
    ssh = load_rack(rack).rack.ssh
    assert ssh is not None and ssh.jump == jump


def test_an_anchor_that_nothing_refers_to_is_quiet(rack: Path) -> None:
    """A library's warning is no sentence of ours; pytest turns it into an error."""
    rack.write_text(RACK.replace("user: ops", "user: &a ops").replace("key: key", "key: &a key"))
    assert load_rack(rack).key("t00") == Path("key")


def test_a_profile_with_a_mistake_is_told_with_the_rack_that_names_it(rack: Path) -> None:
    Path("inventory/profiles").mkdir(parents=True)
    Path("inventory/profiles/mine.yaml").write_text(PROFILE.replace("compute_trays: 2", "compute_trays: 19"))
    rack.write_text(RACK.replace("gb300-nvl72", "mine").replace("2222", "0"))
    with pytest.raises(InputError) as caught:
        load_rack(rack)
    assert [(Path(p.file).name, p.line, p.column) for p in caught.value.problems] == [("mine.yaml", 3, 27), ("rack.yaml", 6, 15)]


def test_paths_lie_beside_the_file(rack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    file = load_rack(tmp_path / rack)
    assert file.known_hosts == tmp_path / "kh"
    assert file.key("t03") == tmp_path / "key"
    assert file.resolve("~/x") == Path.home() / "x"


WRONG = {
    "unknown key": ("rack: R-1", "rack: R-1\nowner: me", "2:1: unknown key 'owner'; expected one of"),
    "misspelt key": ("known_hosts: kh", "know_hosts: kh", "3:18: ssh: unknown key 'know_hosts'", "did you mean known_hosts?"),
    "no rack": ("rack: R-1\n", "", "1:1: rack is missing; expected the rack's serial number"),
    "empty serial": ("rack: R-1", "rack:", "1:1: rack is empty (null)"),
    "number for a name": ("rack: R-1", "rack: 0815", "1:7: rack is 0815; expected text (in quotes: \"0815\")"),
    "no such profile": ("gb300-nvl72", "gb301-nvl72", "2:10: profile 'gb301-nvl72' does not exist", "did you mean gb300-nvl72?"),
    "far from any profile": (
        "gb300-nvl72", "dgx", "2:10: profile 'dgx' does not exist; expected one of gb200-nvl72, ",
        "gb300-nvl72, h200-1gpu, hgx-h200, vr200-nvl72",
    ),
    "too few hosts": ("10.0.0.[1-18]", "10.0.0.[1-17]", "5:20: t[00-17] is 18 trays, but host '10.0.0.[1-17]' gives 17"),
    "range cut short": ("10.0.0.[1-18]", "10.0.0.[1-18", "5:20: '10.0.0.[1-18'"),
    "same address": ("10.0.1.[1-9]", "10.0.0.[18-26]", "7:18: t17 and s0 have the same address 10.0.0.18"),
    "given twice": ("port: 2222", "host: 10.9.9.9", "6:15: t07 is given twice, as 10.0.0.8 and as 10.9.9.9"),
    "ranges overlap": ("  t07: {", "  t[16-17]: {host: 'h[1-2]', ", "6:20: t16 is given twice, as 10.0.0.17 and as h1"),
    "one range, one tray twice": (
        't[00-17]: {host: "10.0.0.[1-18]"}', 't[00-17,03]: {host: "10.0.0.[1-19]"}', "5:3: 't[00-17,03]' names t03 twice",
    ),
    "one line, one tray twice": ("  t07: {", "  t07: {port: 1}\n  t07: {", "7:3: 't07' is given twice, first at 6:3"),
    "one tray, two users": ("user: root", "user: 'u[1-2]'", "6:27: t07 is 1 tray, but user 'u[1-2]' gives 2"),
    "no such tray": ("  s[0-8]: {host: \"10.0.1.[1-9]\"}", "  t18: {host: h}", "7:3: t18 does not exist", "t00 to t17"),
    "no tray at all": ("  t07: {", "  g2: {", "6:3: 'g2' is not a compute tray or switch tray"),
    "port 0": ("port: 2222", "port: 0", "6:15: trays.t07.port is 0; expected at least 1"),
    "port too high": ("port: 2222", "port: 65536", "6:15: trays.t07.port is 65536; expected at most 65535"),
    "port in quotes": ("port: 2222", "port: '2222'", "6:15: trays.t07.port is '2222'; expected a whole number (without quotes)"),
    "no host": ("{host: \"10.0.1.[1-9]\"}", "{user: ops}", "7:11: trays.s[0-8].host is missing"),
    "become root": ("become: sudo", "become: root", "6:41: trays.t07.become is 'root'; expected one of none, sudo"),
    "jump host": ("user: ops", "jump: 'a b'", "3:13: ssh.jump is 'a b'; expected user@host:port"),
    "directory": ("user: ops", "dir: '$HOME/x'", "3:12: ssh.dir is '$HOME/x'; expected a private directory"),
    "key that is not there": ("key: key", "key: nokey", "3:40: key file nokey does not exist; expected a private key"),
    "key that is a folder": ("key: key", "key: .", "3:40: key file . is not a file"),
    "not enrolled": ("known_hosts: kh", "known_hosts: none", "3:31: known_hosts file none does not", "enroll rack.yaml"),
    "too few serials": ("[G0, G0, G2, G2]", "[G0, G1, G2]", "9:27: expect.t00.gpus has 3 entries; expected 4 for a gb300-nvl72"),
    "empty serial of a tray": ("serial: A0", "serial: ''", "9:17: expect.t00.serial: '' is no serial number"),
    "empty serial of a GPU": ("G2, G2]", "G2, ' ']", "9:40: expect.t00.gpus[3]: ' ' is no serial number"),
    "empty chassis": ("rack: R-1", "rack: R-1\nchassis: ''", "2:10: chassis: '' is no serial number"),
    "firmware nobody audits": (
        "rack: R-1", "rack: R-1\nfirmware: {vbois: '97'}", "2:12: firmware.vbois: 'vbois' is not audited; expected one of",
    ),
    "serial twice": ("[G0, G0, G2, G2]", "[G0, G1, G0, G3]", "9:36: t00.g2 has the serial of t00.g0 (G0)"),
    "GPU as a tray": ("  t00: {serial", "  t00.g1: {serial", "9:3: expect.t00.g1: 't00.g1' is not a compute tray"),
    "no such interlock": ("interlock: leak", "interlock: leek", "11:17: waive[0].interlock is 'leek'", "did you mean leak?"),
    "nobody waives": ("by: A. Person, ", "", "11:5: waive[0].by is missing; expected the name of the person who answers for it"),
    "a blank waives": ("by: A. Person", "by: '   '", "11:27: waive[0].by is '   '; expected the name of the person"),
    "blank reason": ("why: dry rack on the bench", "why: '     '", "11:43: waive[0].why is '     '; expected the reason"),
    "reason left out": ("why: dry rack on the bench, ", "", "11:5: waive[0].why is missing; expected the reason, in words"),
    "date left out": (", until: 2026-12-31", "", "11:5: waive[0].until is missing; expected the last day it holds"),
    "no reason": ("why: dry rack on the bench", "why: x", "11:43: waive[0].why is 'x'; expected the reason, in words"),
    "no date": ("until: 2026-12-31", "until: soon", "11:73: waive[0].until: 'soon' is not a day"),
    "action": ("rack: R-1", "rack: R-1\nallow: [power_off]", "2:9: allow[0] is 'power_off'", "one of gpu_reset, "),
    "a list": ("ssh: {user: ops, known_hosts: kh, key: key}", "ssh: [kh]", "3:6: ssh is a list; expected a mapping (key: value)"),
    "secret": (
        "rack: R-1", "rack: R-1\nbmc: {t00: {url: 'https://b', ca: c, secret: hunter2}}",
        "2:46: bmc.t00.secret", "env:NAME, file:PATH or keyring:SERVICE/USER",
    ),
    "user in url": (
        "rack: R-1", "rack: R-1\nbmc: {t00: {url: 'https://u:p@b', ca: c, secret: env:X}}",
        "2:18: bmc.t00.url", "without a user or a password",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_sentence_with_its_place(rack: Path, name: str) -> None:
    old, new, *says = WRONG[name]
    assert old in RACK
    rack.write_text(RACK.replace(old, new, 1))
    (said,) = refused(rack)
    assert said.startswith(says[0])
    assert all(word in said for word in says[1:])
    assert "hunter2" not in said


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(rack: Path) -> None:
    text = RACK.replace("known_hosts: kh", "know_hosts: kh").replace("2222", "0").replace("t00: {serial", "t77: {serial")
    rack.write_text(text.replace("interlock: leak", "interlock: lake"))
    assert [said.split(": ")[0] for said in refused(rack)] == ["3:18", "6:15", "9:3", "11:17"]


def test_what_makes_the_key_file_or_needs_none_can_read_the_rack_before_it_is_there(rack: Path) -> None:
    Path("kh").unlink()
    Path("key").unlink()
    assert load_rack(rack, need_known_hosts=False, need_keys=False).rack.rack == "R-1"
    assert len(refused(rack)) == 2


def test_without_a_key_ssh_agent_is_asked(rack: Path) -> None:
    rack.write_text(RACK.replace(", key: key", ""))
    assert load_rack(rack).key("t00") is None


_PIECES = st.sampled_from(
    ["rack: R-1\n", "profile: gb300-nvl72\n", "trays:\n", "  t[00-17]: ", "{host: a}\n", "- x\n", "ssh: {}\n", "  t07: 1\n",
     "expect: {t00: {gpus: [a]}}\n", "waive: [{}]\n", "null\n", "[1, {2: 3}]\n", "bmc: {p0: ~}\n", "rack: [R]\n", "profile: 3\n"]
)  # fmt: skip


_BYTES = (
    st.lists(_PIECES, max_size=8).map("".join).map(str.encode) | st.text(max_size=60).map(str.encode) | st.binary(max_size=60)
)
_SLIPS = st.tuples(st.integers(0, len(RACK)), st.integers(0, 12), _PIECES | st.text(max_size=3))
"""A place in a good rack file, how much is lost there, and what is typed instead."""


@given(_BYTES | _SLIPS.map(lambda slip: (RACK[: slip[0]] + slip[2] + RACK[slip[0] + slip[1] :]).encode()))
def test_any_bytes_are_a_rack_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-rack.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(load_rack(path, need_known_hosts=False, need_keys=False), RackFile)
    except InputError as error:
        assert error.problems and not any("\n" in str(problem) for problem in error.problems)


# ---------------------------------------------------------------- profiles and site policy

PROFILE = """\
profile: mine
about: a test
topology: {compute_trays: 2, gpus_per_tray: 4, cpus_per_tray: null}
gpu: {names: null, source: nowhere}
rack_identity: true
limits:
  gpu.tlimit.load: {min: 2, unit: Cel, source: me}
  hbm.temp.load: {max: null, unit: Cel, source: nobody said}
interlocks: [gpu_margin]
frus: {GPU: board}
"""

WRONG_PROFILE = {
    "limit without unit": ("unit: Cel, source: me", "source: me", "7:20: limits.gpu.tlimit.load.unit is missing"),
    "limit without source": (", source: me", "", "7:20: limits.gpu.tlimit.load.source is missing"),
    "limit without bound": ("min: 2, ", "", "7:20: limits.gpu.tlimit.load: a limit has min, max or equals"),
    "min above max": ("min: 2,", "min: 2, max: 1,", "7:20: limits.gpu.tlimit.load: can never be met: min 2 is above max 1"),
    "half known": ("min: 2,", "min: 2, max: null,", "7:20: limits.gpu.tlimit.load: one bound is null and the other is not"),
    "not a number": ("min: 2", "min: .nan", "7:26: limits.gpu.tlimit.load.min is .nan; expected a finite number"),
    "no such interlock": ("[gpu_margin]", "[gpu_margins]", "9:14: interlocks[0] is 'gpu_margins'"),
    "no such kind of part": ("{GPU: board}", "{Gpu: board}", "10:8: frus.Gpu: 'Gpu' is no kind of part"),
    "19 trays": ("compute_trays: 2", "compute_trays: 19", "3:27: topology.compute_trays is 19; expected at most 18"),
    "another name": ("profile: mine", "profile: yours", "1:10: profile is 'yours', but the file is mine.yaml"),
}


def test_a_limit_that_nobody_published_is_null_and_not_known(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(PROFILE)
    limits = load_profile(tmp_path / "mine.yaml").limits
    assert {name: limit.known for name, limit in limits.items()} == {"gpu.tlimit.load": True, "hbm.temp.load": False}


@pytest.mark.parametrize("name", WRONG_PROFILE)
def test_a_mistake_in_a_profile(tmp_path: Path, name: str) -> None:
    old, new, says = WRONG_PROFILE[name]
    assert old in PROFILE
    path = tmp_path / "mine.yaml"
    path.write_text(PROFILE.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_profile(path)
    (problem,) = caught.value.problems
    assert str(problem).removeprefix(f"{path}:").startswith(says)


def test_a_new_architecture_is_a_new_file(tmp_path: Path, rack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory/profiles").mkdir(parents=True)
    (tmp_path / "inventory/profiles/mine.yaml").write_text(PROFILE)
    rack.write_text("rack: R-2\nprofile: mine\nssh: {known_hosts: kh}\ntrays: {t00: {host: a}, t01: {host: b}}\n")
    assert load_rack(rack).profile.about == "a test"


def test_the_gate_asks_for_a_suite_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("ships_after: l11-rack-48\n")
    with pytest.raises(InputError, match=r"site.yaml:1:14: suite 'l11-rack-48' does not exist.*did you mean l11-rack-48h\?"):
        load_site(path)
