"""Who commands a tray: the first, then whoever comes when that one is provably gone; never one that was replaced."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin import wire
from burnin.agent.attachment import Attachment
from burnin.agent.claims import FILE, Claims
from burnin.agent.spool import Spool

A: dict[str, Any] = {"id": "1@a/b/9", "host": "a", "pid": 1, "since": "now", "run": "r1"}
B: dict[str, Any] = {"id": "2@b/b/9", "host": "b", "pid": 2, "since": "later", "run": "r1"}
C: dict[str, Any] = {"id": "3@a/b/9", "host": "a", "pid": 3, "since": "last", "run": "r2"}


def claim(who: dict[str, Any], token: int | None = None, gone: str | None = None) -> dict[str, Any]:
    return {"who": who, "token": token, "gone": gone}


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(str(tmp_path / FILE))


def test_the_first_commands_and_comes_back_with_its_token(claims: Claims) -> None:
    assert claims.take(claim(A), living=False) is None
    assert claims.token == 1
    assert claims.take(claim(A, token=1), living=True) is None
    assert claims.take(claim(A), living=True) is None, "its answer was lost: it asks again"
    assert claims.token == 1


def test_a_second_waits_while_the_first_lives(claims: Claims) -> None:
    claims.take(claim(A), living=False)
    assert claims.take(claim(B), living=True) == "busy"
    assert claims.who == A


def test_a_lease_that_ran_out_or_a_process_known_to_be_gone_makes_way_and_never_comes_back(claims: Claims) -> None:
    claims.take(claim(A), living=False)
    assert claims.take(claim(B, gone="3@c/b/9"), living=True) == "busy", "another one's death is not its own"
    assert claims.take(claim(B, gone=A["id"]), living=True) is None
    assert claims.token == 2
    assert claims.take(claim(A, token=1), living=False) == "fenced"
    assert claims.take(claim(A, token=1), living=True) == "fenced"


def test_the_token_survives_the_holder(tmp_path: Path, claims: Claims) -> None:
    claims.take(claim(A), living=False)
    claims.take(claim(B), living=False)
    later = Claims(str(tmp_path / FILE))
    assert later.unclaimed
    assert later.take(claim(A, token=1), living=False) == "fenced"
    assert later.unclaimed
    assert later.take(claim(B, token=2), living=False) is None


def test_a_tray_that_forgot_takes_back_its_controller_and_counts_on(claims: Claims) -> None:
    assert claims.take(claim(A, token=7), living=False) is None
    assert claims.take(claim(B), living=False) is None
    assert claims.token == 8


@pytest.mark.parametrize("text", ["", "[", "[1]", '["x", {}]', "null", "[1, 2]"])
def test_a_garbled_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert Claims(str(tmp_path / FILE)).token == 0


def test_a_tray_without_room_still_obeys(tmp_path: Path) -> None:
    claims = Claims(str(tmp_path / "no" / "such" / FILE))
    assert claims.take(claim(A), living=False) is None
    assert claims.take(claim(B), living=True) == "busy"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=30))
def test_tokens_rise_and_only_the_newest_commands(calls: list[tuple[str, bool, bool]]) -> None:
    """Whoever was told yes after another holds a higher token; who shows an older one is never told yes."""
    claims = Claims("/proc/no/such/file")
    had: dict[str, int] = {}
    for name, living, shows in calls:
        before, owner = claims.token, claims.who.get("id")
        answer = claims.take(claim({"id": name}, had.get(name) if shows else None), living)
        assert claims.token >= before
        if answer is None:
            had[name] = claims.token
            assert claims.who["id"] == name
        if owner is not None and name != owner and (living or (shows and name in had and answer is not None)):
            assert answer in ("busy", "fenced")


# ---------------------------------------------------------------- over the holder's socket


class Holder:
    def __init__(self, claims: Claims) -> None:
        self.run, self.ident, self.claims, self.leased = "r1", "h1", claims, True
        self.spool = Spool("boot", lambda: 0)
        self.ended, self.detached = False, ""

    @property
    def busy(self) -> bool:
        return self.leased

    def hello(self) -> bytes:
        return b"hello\n"

    def hear(self, down: wire.Down) -> None:
        raise AssertionError(down)

    def clock(self, ident: str) -> bytes:
        raise AssertionError(ident)

    def end(self) -> None:
        self.ended = True


def attach(holder: Holder, run: str, *rest: Any) -> list[Any]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(json.dumps(["attach", run, "-", 0, *rest]).encode() + b"\n")
        stays = Attachment(holder, theirs).attach()
        answer: list[Any] = json.loads(ours.recv(4096).split(b"\n")[0])
        assert stays == (answer[0] == "ok")
        return answer


def test_the_one_who_is_refused_is_told_by_whom(claims: Claims) -> None:
    holder = Holder(claims)
    assert attach(holder, "r1", claim(A)) == ["ok"]
    assert attach(holder, "r1", claim(B)) == ["busy", "r1", A]
    assert attach(holder, "r2", claim(B)) == ["busy", "r1", A]
    assert attach(holder, "r1") == ["ok"], "who claims nothing may look, and unload"
    assert attach(holder, "r2", claim(B, gone=A["id"])) == ["stale", "r1", A]
    assert holder.ended, "its controller is gone: it unloads and makes way"


def test_a_detached_stage_is_nobody_elses_although_its_controller_is_gone(claims: Claims) -> None:
    holder = Holder(claims)
    assert attach(holder, "r1", claim(A)) == ["ok"]
    holder.detached = "soak"
    assert attach(holder, "r2", claim(B, gone=A["id"])) == ["busy", "r1", {**A, "stage": "soak"}]
    assert not holder.ended
    assert attach(holder, "r1", claim(B)) == ["busy", "r1", {**A, "stage": "soak"}], "its own run's, but who says that A is gone?"
    assert attach(holder, "r1", claim(B, gone=A["id"])) == ["ok"]
    holder.detached = ""
    assert attach(holder, "r2", claim(C, gone=B["id"])) == ["stale", "r1", B]


def test_a_fenced_one_does_not_leave_a_holder_behind(claims: Claims) -> None:
    claims.take(claim(B), living=False)
    fresh = Claims(claims._path)
    holder = Holder(fresh)
    assert attach(holder, "r1", claim(A, token=0)) == ["fenced", "r1", B]
    assert holder.ended


def test_the_file_is_written_whole(tmp_path: Path, claims: Claims) -> None:
    claims.take(claim(A), living=False)
    assert os.listdir(tmp_path) == [FILE]
    assert json.loads((tmp_path / FILE).read_text()) == [1, A]
