"""A rank's own part: what it tells, that its waits end, and that what arrived is looked at. On the twin's libraries."""

from __future__ import annotations

import ctypes
import ctypes as c
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent import collectives, nccl, nccl_group
from burnin.agent.cuda import Cuda
from burnin.agent.nccl_group import Group, Nccl, NcclError
from burnin.twin.emulate import boot, cuda
from burnin.twin.emulate import nccl as emulated
from tests.unit.twin_tray import Bench, bench


class Talk:
    """A conversation written down beforehand."""

    def __init__(self, *heard: Any) -> None:
        self.heard, self.told, self.left = [*heard, {"leave": True}], list[dict[str, Any]](), 10**9

    def tell(self, body: dict[str, Any]) -> None:
        self.told.append(json.loads(json.dumps(body)))

    def hear(self) -> dict[str, Any]:
        body = self.heard.pop(0)
        return dict(body(self.told[-1]) if callable(body) else body)

    def going(self) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.fixture
def tray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = bench(tmp_path)
    made.run(1)
    (tmp_path / "root/sys/class/net/lo").mkdir(parents=True)
    (tmp_path / "tray.json").write_text(json.dumps(made.facts))
    monkeypatch.setenv("HOST_SYS", str(tmp_path / "root/sys"))
    for name in ("NCCL_SOCKET_IFNAME", "NCCL_P2P_DISABLE", "NCCL_MNNVL_ENABLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(c, "CDLL", c.CDLL)  # put back after the test
    monkeypatch.setattr(c.cdll, "_dlltype", c.CDLL)
    boot.replace_loader(str(tmp_path), "burnin.twin")
    return made


def args(**more: Any) -> dict[str, Any]:
    return {"op": "all_reduce", "sizes": [1 << 16, 1 << 20], "warmup": 1, "repeats": 3, "timeout_s": 5, "root": True, **more}


def rank_zero_of(ranks: int) -> Any:
    return lambda told: {"id": told["id"], "rank": 0, "ranks": ranks}


def run(talk: Talk, tray: Bench, given_args: dict[str, Any]) -> list[dict[str, Any]]:
    nccl.run(talk, Cuda(cuda.library(tray.facts, tray.state)), 0, given_args)
    return talk.told


@pytest.mark.parametrize("op", ["all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv"])
def test_a_rank_tells_what_it_is_and_what_it_measured(tray: Bench, op: str) -> None:
    hello, result, left = run(Talk(rank_zero_of(1)), tray, args(op=op))
    assert hello["version"] == "2.28.7"
    assert list(hello["interfaces"]) == ["lo"]
    assert len(bytes.fromhex(hello["id"])) == 128
    assert {k: result[k] for k in ("rank", "ranks", "op", "version")} == {"rank": 0, "ranks": 1, "op": op, "version": "2.28.7"}
    assert "failed" not in result
    assert left == {"left": True}
    assert [slot for _, slot in tray.state.slots()] == [], "the GPU is left as it was found"
    assert [row["bytes"] for row in result["results"]] == [1 << 16, 1 << 20]
    assert all(row["wrong"] == 0 and row["checked"] > 0 and row["ms"] > 0 for row in result["results"])


def test_no_library_is_said_in_a_sentence(tray: Bench) -> None:
    (told,) = run(Talk(), tray, args(library="/opt/nowhere/libnccl.so.2"))
    assert told == {"failed": told["failed"]}
    assert told["failed"].startswith("no NCCL library: ") and "install" not in told["failed"]


def test_where_no_library_is_named_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: real(f"/nowhere/{name}"))
    with pytest.raises(NcclError, match=r"libnccl\.so\.2: .*; to do: install it, or name the site's own \(`nccl:` in"):
        nccl_group.open_library(None)


def test_a_library_without_a_symbol_is_said() -> None:
    class Old:
        def __getattr__(self, name: str) -> Any:
            if name == "ncclCommInitRankConfig":
                raise AttributeError(name)
            return lambda *_: 0

    with pytest.raises(NcclError, match=r"has no ncclCommInitRankConfig: NCCL 2\.14 or newer"):
        Nccl(Old())


def test_only_nccls_own_settings_reach_the_environment() -> None:
    environ: dict[str, str] = {}
    nccl.prepare({"env": {"NCCL_P2P_DISABLE": 1}, "socket_ifname": "eth0"}, environ)
    assert environ == {"NCCL_P2P_DISABLE": "1", "NCCL_SOCKET_IFNAME": "=eth0"}
    with pytest.raises(NcclError, match="LD_PRELOAD is not a setting"):
        nccl.prepare({"env": {"LD_PRELOAD": "x"}}, environ)


def test_reach_is_asked_any_number_of_times_and_answers_what_connects(tray: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        ways = [[*there.getsockname()], [*nobody.getsockname()]]
        talk = Talk({"reach": ways}, {"reach": ways[1:]})
        talk.heard.insert(2, lambda _: rank_zero_of(1)(talk.told[0]))
        told = run(talk, tray, args())
    assert [body["reached"] for body in told[1:3]] == [ways[:1], []]
    assert "results" in told[3]


def test_what_is_joined_by_nobody_else_ends_in_time(tray: Bench) -> None:
    told = run(Talk(rank_zero_of(2)), tray, args(timeout_s=0.2))
    assert told[-2] == {
        "rank": 0, "ranks": 2, "op": "all_reduce", "version": "2.28.7", "results": [], "failed": "timeout in joining after 0.2 s",
    }  # fmt: skip


def test_the_holders_deadline_ends_it_too(tray: Bench) -> None:
    talk = Talk(rank_zero_of(2))
    talk.left = 3
    assert run(talk, tray, args(timeout_s=60))[-2]["failed"] == "the time was over in joining"
    talk = Talk(rank_zero_of(1))
    talk.left = 0
    assert run(talk, tray, args())[-2]["failed"].startswith("the time was over")


def test_an_id_that_is_none_and_an_operation_that_is_none_are_said(tray: Bench) -> None:
    told = run(Talk({"id": "00" * 128, "rank": 0, "ranks": 2}), tray, args())
    assert told[-2]["failed"].startswith("ncclCommInitRankConfig -> 4: invalid argument")
    assert "there is no operation 'broadcast'" in run(Talk(rank_zero_of(1)), tray, args(op="broadcast"))[-2]["failed"]


def test_more_memory_than_there_is_is_said_with_the_drivers_words(tray: Bench) -> None:
    told = run(Talk(rank_zero_of(1)), tray, args(sizes=[1 << 40]))
    assert told[-2]["failed"] == "cuMemAlloc_v2 -> 2 CUDA_ERROR_OUT_OF_MEMORY"


def test_what_arrives_wrong_is_counted(tray: Bench) -> None:
    tray.state.gpus[tray.facts["gpus"][0]["position"]]["nccl_fault"] = emulated.SUMS_WRONG
    rows = run(Talk(rank_zero_of(1)), tray, args())[-2]["results"]
    assert all(row["wrong"] == row["checked"] > 0 for row in rows)


def test_a_wait_naps_between_looks_and_ends_when_its_time_is_over(tray: Bench) -> None:
    now, naps = [0.0], list[float]()

    def nap(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    driver = Cuda(cuda.library(tray.facts, tray.state))
    driver.call("cuCtxSetCurrent", c.c_void_p(driver.get("cuDevicePrimaryCtxRetain", c.c_void_p, 0)))
    group = Group(Nccl(nccl_group.open_library(None)), driver, lambda: True, 2.0, lambda: now[0], nap)
    with pytest.raises(NcclError, match="timeout in waiting after 2 s"):
        group._wait("waiting", lambda: False)
    assert 2 <= now[0] < 2.02
    assert max(naps) <= 0.01


@contextmanager
def links(at: Path, *names: str) -> Iterator[str]:
    for name in names:
        (at / "class/net" / name).mkdir(parents=True)
    yield str(at)


def test_the_loopback_is_used_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    assert nccl.interfaces(str(tmp_path / "none")) == {}
    with links(tmp_path, "lo", "docker0", "no-such-link") as sys:
        assert nccl.interfaces(sys) == {"lo": "127.0.0.1"}


def test_an_address_that_is_not_here_is_not_listened_on() -> None:
    doors, listeners = nccl.listen({"lo": "127.0.0.1", "gone": "192.0.2.1"})
    assert list(doors) == ["lo"]
    assert nccl.reached([doors["lo"]]) == [doors["lo"]]
    for listener in listeners:
        listener.close()


# ---------------------------------------------------------------- operations


@given(st.integers(1, 73))
def test_the_pair_matrix_has_every_ordered_pair_once_and_no_rank_twice_in_a_step(ranks: int) -> None:
    steps = list(collectives.partners(ranks))
    assert [number for number, _ in steps] == sorted({number for number, _ in steps})
    for _, two in steps:
        assert len({rank for way in two for rank in way}) == 2 * len(two)
    ways = [way for _, two in steps for way in two]
    assert sorted(ways) == [(a, b) for a, b in product(range(ranks), repeat=2) if a != b]


@pytest.mark.parametrize("op", collectives.OPS)
@pytest.mark.parametrize("ranks", [2, 4, 72])
def test_what_is_expected_is_what_the_others_send(op: str, ranks: int) -> None:
    """Done by hand: the operation on the send buffers of all ranks, one word a piece, gives what each rank expects."""
    sends = [collectives.shape(op, rank, ranks, 1_000_003).sends for rank in range(ranks)]
    for rank in range(ranks):
        done = {
            "all_reduce": [sum(row[0] for row in sends)],
            "all_gather": [row[0] for row in sends],
            "reduce_scatter": [sum(row[rank % len(row)] for row in sends)],
            "alltoall": [row[rank % len(row)] for row in sends],
        }.get(op, [sends[rank - 1][0]])
        assert [word & 0xFFFFFFFF for word in done] == collectives.shape(op, rank, ranks, 1_000_003).expects


FACTORS = {"all_reduce": 1.5, "all_gather": 0.75, "reduce_scatter": 0.75, "alltoall": 0.75, "sendrecv": 1.0, "pairs": 1.0}


@pytest.mark.parametrize(("op", "factor"), FACTORS.items())
def test_bus_bandwidth_is_that_of_nccl_tests(op: str, factor: float) -> None:
    assert collectives.shape(op, 0, 4, 0).factor == factor


def test_pieces_are_multiples_of_16_bytes_and_never_empty() -> None:
    assert collectives.piece_words("alltoall", 1 << 30, 72) * 4 * 72 <= 1 << 30
    assert collectives.piece_words("alltoall", 1 << 30, 72) % 4 == 0
    assert collectives.piece_words("all_gather", 64, 72) == 4


class _Eased:
    """A rank's bench and group that only count: operations, and seconds of rest between them."""

    def __init__(self) -> None:
        self.group, self.rests, self.done = self, list[float](), 0

    def timed(self, launch: Any, count: int, what: str) -> list[float]:
        self.done += count
        return [1.0] * count

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)


@pytest.mark.parametrize("rising", [True, False])
def test_power_comes_and_goes_over_operations_that_all_ranks_launch_as_often(rising: bool) -> None:
    one: Any = _Eased()
    collectives.ease(one, lambda: None, 4.0, "all_reduce", rising)
    assert one.done == len(one.rests) == collectives.EASE
    assert sum(one.rests) == pytest.approx(4.0, rel=0.1)
    assert one.rests == sorted(one.rests, reverse=rising)
    none: Any = _Eased()
    collectives.ease(none, lambda: None, 0.0, "all_reduce", rising)
    assert none.done == 0, "where power may come at once, nothing is added"


# ---------------------------------------------------------------- a site's own library


def test_the_sites_library_is_loaded_only_as_it_should_be(tmp_path: Path) -> None:
    data = b"\x7fELF of another architecture"
    sha = hashlib.sha256(data).hexdigest()
    wanted = {"aarch64": sha, "x86_64": "f" * 64}
    with pytest.raises(NcclError, match="is not on this tray: No such file"):
        nccl_group.payload(wanted, "aarch64", str(tmp_path))
    place = tmp_path / f"nccl-{sha}.so"
    place.write_bytes(data)
    assert nccl_group.payload(wanted, "aarch64", str(tmp_path)) == str(place)
    assert nccl_group.payload(wanted, "riscv64", str(tmp_path)) is None
    place.write_bytes(data + b"!")
    with pytest.raises(NcclError, match="has another content on this tray: it is not loaded"):
        nccl_group.payload(wanted, "aarch64", str(tmp_path))
    with pytest.raises(NcclError, match="is no SHA-256"):
        nccl_group.payload({"aarch64": "../../lib/libc"}, "aarch64", str(tmp_path))


def test_a_sites_library_that_is_not_there_is_said_and_no_other_is_used(tray: Bench) -> None:
    talk = Talk()
    run(talk, tray, args(payload={os.uname().machine: "a" * 64}))
    assert [list(body) for body in talk.told] == [["failed"]]
    assert "aaaaaaaaaaaaaaaa" in talk.told[0]["failed"] and "is not on this tray" in talk.told[0]["failed"]
