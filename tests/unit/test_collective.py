"""The collective check on answers that a test writes: whom it names, whom it does not, and after how many rounds."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.checks.base import RACK, Answer, Context, Evidence, Order
from burnin.checks.collective import CHECK
from burnin.checks.collective_story import tell
from burnin.events import Measurement, Result
from tests import build

TRAYS = tuple(f"t{i:02}" for i in range(18))
LIMITS = {
    "collective.completed": {"equals": 1, "unit": "1"},
    "collective.wrong": {"max": 0, "unit": "1"},
    "collective.pairs": {"max": 0, "unit": "1"},
    "collective.slower": {"max": 0.02, "unit": "1"},
    "collective.all_reduce.72gpu.busbw": {"min": 890, "unit": "GB/s"},
    "collective.alltoall.72gpu.busbw": {"min": 600, "unit": "GB/s"},
    "collective.pairs.72gpu.busbw": {"min": 700, "unit": "GB/s"},
}


def context(limits: dict[str, Any] | None = None, trays: tuple[str, ...] = TRAYS, **args: Any) -> Context:
    suite = build.suite(
        limits={k: {"source": "test", **v} for k, v in {**LIMITS, **(limits or {})}.items() if v is not None},
        stages=[{"stage": "nccl", "steps": ["collective"]}],
    )
    given = {"sizes": ["1 GiB"], "timeout_s": 5, **args}
    return Context(RACK, build.rack(), build.profile(), suite, suite.stages[0], build.catalogue(), given, trays)


@dataclass
class Rack:
    """Answers orders as a rack would. `slow`: share of its bandwidth that a GPU lacks; `hang`, `die`: ranks; `wrong`: GPUs
    whose words spoil every sum; `mute`: (source, target) between which nothing arrives; `dim`: between which 10 % is lost."""

    slow: dict[str, float] = field(default_factory=dict)
    hang: set[str] = field(default_factory=set)
    die: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    mute: set[tuple[str, str]] = field(default_factory=set)
    dim: set[tuple[str, str]] = field(default_factory=set)
    unfit: dict[str, str] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    closed: set[tuple[str, str, str]] = field(default_factory=set)
    """(tray, other tray, interface): no way from here to there."""
    once: bool = False
    """Whatever is wrong shows in the first group only."""
    tries: int = 0
    seen: list[Order] = field(default_factory=list)
    _ops: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def answer(self, orders: Sequence[Order]) -> list[Answer]:
        self.seen += orders
        if orders[0].verb == "work":
            return [self._work(order) for order in orders]
        if any("leave" in body for order in orders for body in order.args["bodies"].values()):
            return [Answer(order, True, {gpu: {"left": True} for gpu in order.args["bodies"]}) for order in orders]
        if any("reach" in body for body in orders[0].args["bodies"].values()):
            return [self._reach(order) for order in orders]
        self.tries += 1
        groups: dict[str, list[tuple[int, str]]] = {}
        for order in orders:
            for gpu, body in order.args["bodies"].items():
                groups.setdefault(body["id"], []).append((body["rank"], f"{order.to}.{gpu}"))
        told: dict[str, dict[str, Any]] = {}
        for members in groups.values():
            told |= self._run([part for _, part in sorted(members)])
        return [
            Answer(order, False, f"{order.to}: link lost")
            if order.to in self.away and self.tries > 0
            else Answer(order, True, {gpu: told[f"{order.to}.{gpu}"] for gpu in order.args["bodies"]})
            for order in orders
        ]

    def _work(self, order: Order) -> Answer:
        if order.to in self.unfit:
            return Answer(order, True, {g: {"failed": self.unfit[order.to]} for g in order.args["gpus"]})
        self._ops[order.to] = order.args
        number = TRAYS.index(order.to) + 1
        out = {
            gpu: {"version": "2.28.7", "interfaces": {"eth0": [f"192.0.2.{number}", 4000], "ib0": [f"198.51.100.{number}", 4000]}}
            for gpu in order.args["gpus"]
        }
        for gpu, more in order.args["args_of"].items():
            if more.get("root"):
                out[gpu]["id"] = f"{order.to}-{order.args['job']}".encode().hex().ljust(256, "0")
        return Answer(order, True, out)

    def _reach(self, order: Order) -> Answer:
        (gpu,) = order.args["bodies"]
        names = {"192.0.2": "eth0", "198.51.100": "ib0"}
        ways = [
            [address, port]
            for address, port in order.args["bodies"][gpu]["reach"]
            if (order.to, TRAYS[int(address.rsplit(".", 1)[1]) - 1], names[address.rsplit(".", 1)[0]]) not in self.closed
        ]
        return Answer(order, True, {gpu: {"reached": ways}})

    def _run(self, parts: list[str]) -> dict[str, dict[str, Any]]:
        op, n = self._ops[parts[0][:3]]["args"]["op"], len(parts)
        sound = self.once and self.tries > 1
        base = {part: {"rank": i, "ranks": n, "op": op, "version": "2.28.7"} for i, part in enumerate(parts)}
        gone = set() if sound else (self.hang | self.die) & set(parts)
        mute = set() if sound else {way for way in self.mute if set(way) <= set(parts)}
        neighbours = set(zip(parts, parts[1:] + parts[:1], strict=True))
        if op == "pairs":
            return self._matrix(parts, base, mute)
        if gone or mute & (neighbours if op != "alltoall" else mute):
            words = "remote error: a rank is gone" if self.die else f"timeout in {op} after 5 s"
            ended = "cut by a local limit: time" if not self.die else "the load process ended with status 9"
            return {p: {"failed": ended} if p in gone else {**b, "results": [], "failed": words} for p, b in base.items()}
        top = {"all_reduce": 920.0, "alltoall": 660.0}[op] * (1 if n >= 64 else 0.9)
        lost = 0.0 if sound else max([0.0, *(self.slow.get(part, 0.0) for part in parts)])
        lost = max(lost, 0.1 if op == "alltoall" and any(set(way) <= set(parts) for way in self.dim) else 0.0)
        bad = 0 if sound or not self.wrong & set(parts) else 64
        gbps = top * (1 - lost)
        row = {"bytes": 1 << 30, "ms": _ms(op, n, gbps), "busbw_gbps": gbps, "wrong": bad, "checked": 12288}
        return {p: {**b, "results": [row]} for p, b in base.items()}

    def _matrix(self, parts: list[str], base: dict[str, Any], mute: set[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        out = {part: {**copy.deepcopy(b), "bytes": 1 << 30, "results": [], "pairs": []} for part, b in base.items()}
        for step, (a, b) in enumerate((a, b) for a in range(len(parts)) for b in range(len(parts)) if a != b):
            way = (parts[a], parts[b])
            if way in mute:
                for part in way:
                    out[part] |= {"failed": f"timeout in step {step}", "at": [step, a, b]}
                continue
            gbps = 776.0 * (0.9 if way in self.dim else 1) * (1 - max(self.slow.get(p, 0.0) for p in way))
            for part in way:
                row = [step, a, b, (1 << 30) / gbps / 1e6, gbps]
                out[part]["pairs"].append([*row, 0 if part == parts[b] else None])
        return out


def _ms(op: str, ranks: int, gbps: float) -> float:
    """The time of 1 GiB at this bus bandwidth."""
    return (1 << 30) / gbps / 1e6 * (2 if op == "all_reduce" else 1) * (ranks - 1) / ranks


class Noisy(Rack):
    """Every group's bandwidth is up to 0.5 % off, the same each time."""

    def _run(self, parts: list[str]) -> dict[str, dict[str, Any]]:
        off = 1 + (zlib.crc32(repr((self.tries, parts)).encode()) % 2001 / 1000 - 1) * 0.005
        out = super()._run(parts)
        for body in out.values():
            body["results"] = [{**r, "busbw_gbps": r["busbw_gbps"] * off, "ms": r["ms"] / off} for r in body["results"]]
        return out


def run(rack: Rack, told: Context) -> tuple[list[Measurement], list[list[Answer]]]:
    """The whole check on this rack."""
    answers: list[list[Answer]] = []
    while orders := CHECK.orders(told, answers):
        assert len({order.to for order in orders}) == len(orders), "one order a tray and round"
        answers.append(rack.answer(orders))
        assert len(answers) < 60
    return CHECK.judge(told, Evidence(answers=answers)), answers


def bad(measurements: list[Measurement], result: Result = Result.FAIL) -> list[tuple[str, str]]:
    return [(m.part, m.name) for m in measurements if m.result is result]


def rounds(told: Context, answers: list[list[Answer]]) -> int:
    story, _ = tell(told, answers)
    return story.bisection.rounds if story.bisection else 0


def test_a_healthy_rack_passes_in_one_try_and_says_by_what() -> None:
    rack = Rack()
    got, answers = run(rack, context())
    assert {(m.part, m.name): (m.value, m.result) for m in got} == {
        (RACK, "collective.completed"): (1.0, Result.PASS),
        (RACK, "collective.busbw"): (920.0, Result.PASS),
        (RACK, "collective.wrong"): (0.0, Result.PASS),
    }
    assert rack.tries == 1
    assert len(answers) == 5, "fit, reach, work, tell, leave"
    assert "NCCL 2.28.7" in next(m.why for m in got if m.name == "collective.busbw")


@pytest.mark.parametrize("part", ["t00.g0", "t07.g2", "t17.g3"])
@pytest.mark.parametrize("kind", ["hang", "die"])
def test_a_rank_that_hangs_or_dies_is_traced_to_its_tray_and_confirmed(kind: str, part: str) -> None:
    told = context()
    got, answers = run(Rack(hang={part}) if kind == "hang" else Rack(die={part}), told)
    assert bad(got) == [(part[:3], "collective.completed")]
    assert (RACK, "collective.completed") in bad(got, Result.UNKNOWN), "a rack that did not do it did not pass"
    assert {m.part for m in got} == {RACK, part[:3]}
    assert rounds(told, answers) <= 5
    (rack,) = (m for m in got if (m.part, m.name) == (RACK, "collective.completed"))
    assert part in rack.why, "the dissenting rank is named"


@pytest.mark.parametrize("part", ["t03.g1", "t16.g0"])
def test_a_gpu_that_is_three_percent_slow_is_traced_to_its_tray(part: str) -> None:
    told = context({"collective.all_reduce.72gpu.busbw": {"min": 900, "unit": "GB/s"}})
    got, answers = run(Rack(slow={part: 0.03}), told)
    assert bad(got) == [(RACK, "collective.busbw"), (part[:3], "collective.slower")]
    assert next(m.value for m in got if m.name == "collective.slower") == pytest.approx(0.03)
    assert rounds(told, answers) <= 5


@pytest.mark.parametrize(("trays", "size", "part"), [(18, 4, "t16.g0"), (18, 8, "t05.g3"), (4, 4, "t02.g1")])
def test_of_equal_groups_the_slow_one_is_traced_to_its_tray_though_each_is_within_its_limit(
    trays: int, size: int, part: str
) -> None:
    told = context(
        {f"collective.all_reduce.{n}gpu.busbw": {"min": 700, "unit": "GB/s"} for n in (4, 8)}, TRAYS[:trays], gpus=size
    )
    got, answers = run(Noisy(slow={part: 0.03}), told)
    assert bad(got) == [(part[:3], "collective.slower")]
    assert rounds(told, answers) <= 1
    healthy, answers = run(Noisy(), told)
    assert {m.result for m in healthy} == {Result.PASS} and rounds(told, answers) == 0
    fast, _ = run(Noisy(slow={f"{tray}.g0": 0.03 for tray in TRAYS[1:]}), told)
    assert {m.result for m in fast} == {Result.PASS}, "one that is quicker than all the others makes none of them slow"


def test_the_bandwidth_says_whose_it_is_and_how_long_the_ranks_took() -> None:
    got, _ = run(Rack(slow={"t16.g3": 0.01}), context({"collective.all_reduce.4gpu.busbw": {"min": 700, "unit": "GB/s"}}, gpus=4))
    (speed,) = (m for m in got if m.name == "collective.busbw")
    assert speed.why.startswith("all_reduce of 1073741824 bytes over 4 GPUs of t16, NCCL 2.28.7, 1.965 to 1.965 ms by rank")


@pytest.mark.parametrize(
    ("source", "target"), [("t02.g1", "t11.g3"), ("t11.g3", "t02.g1"), ("t00.g0", "t17.g3"), ("t05.g0", "t04.g3")]
)
def test_a_pair_that_is_broken_in_one_direction_is_named_as_the_ordered_pair(source: str, target: str) -> None:
    told = context({"collective.alltoall.72gpu.busbw": {"min": 600, "unit": "GB/s"}}, op="alltoall")
    got, answers = run(Rack(mute={(source, target)}), told)
    assert bad(got) == [(RACK, "collective.pairs")]
    (pair,) = (m for m in got if m.name == "collective.pairs")
    assert f"{source} > {target}" in pair.why
    assert f"{target} > {source}" not in pair.why
    assert {m.part for m in got} == {RACK}, "neither end is blamed"
    assert rounds(told, answers) <= 6


def test_a_pair_that_only_a_ring_crossed_is_found_by_alltoall() -> None:
    told = context(op="all_reduce")
    got, _ = run(Rack(mute={("t08.g3", "t09.g0")}), told)
    assert bad(got) == [(RACK, "collective.pairs")]


def test_a_pair_that_is_slow_is_named_as_the_pair() -> None:
    told = context(op="alltoall")
    got, answers = run(Rack(dim={("t02.g1", "t11.g3")}), told)
    assert (RACK, "collective.busbw") in bad(got)
    (pair,) = (m for m in got if m.name == "collective.pairs")
    assert (pair.value, pair.result) == (1.0, Result.FAIL)
    assert "t02.g1 > t11.g3" in pair.why
    assert rounds(told, answers) <= 6


@pytest.mark.parametrize(("one", "other"), list(combinations(TRAYS, 2))[::12])
def test_noise_hides_no_slow_pair_and_blames_no_end(one: str, other: str) -> None:
    told = context({"collective.alltoall.72gpu.busbw": {"min": 630, "unit": "GB/s"}}, op="alltoall")
    got, _ = run(Noisy(dim={(f"{one}.g1", f"{other}.g3")}), told)
    assert bad(got) == [(RACK, "collective.busbw"), (RACK, "collective.pairs")]


@pytest.mark.parametrize("tray", TRAYS)
def test_noise_hides_no_slow_tray(tray: str) -> None:
    told = context({"collective.all_reduce.72gpu.busbw": {"min": 900, "unit": "GB/s"}})
    got, _ = run(Noisy(slow={f"{tray}.g2": 0.03}), told)
    assert bad(got) == [(RACK, "collective.busbw"), (tray, "collective.slower")]


def test_wrong_sums_are_traced_to_the_tray_that_spoils_them() -> None:
    got, _ = run(Rack(wrong={"t09.g1"}), context())
    assert bad(got) == [(RACK, "collective.wrong"), ("t09", "collective.wrong")]


def test_what_happened_once_condemns_nobody() -> None:
    got, _ = run(Rack(hang={"t07.g2"}, once=True), context())
    assert bad(got) == []
    assert bad(got, Result.UNKNOWN) != []
    assert any("no part of them did again" in m.why for m in got)


def test_two_bad_trays_are_both_named() -> None:
    got, _ = run(Rack(die={"t02.g0", "t13.g1"}), context())
    assert bad(got) == [("t02", "collective.completed"), ("t13", "collective.completed")]


def test_a_tray_that_cannot_start_is_not_measured_and_the_others_go_on() -> None:
    got, _ = run(Rack(unfit={"t04": "no NCCL library: libnccl.so.2: cannot open shared object file"}), context())
    assert bad(got) == []
    unknown = {m.part: m for m in got if m.result is Result.UNKNOWN}
    assert unknown["t04"].why == "it took no part: g[0-3]: no NCCL library: libnccl.so.2: cannot open shared object file"
    assert unknown["t04"].reason == "lost"
    assert "collective.all_reduce.68gpu.busbw" in unknown[RACK].why, "68 GPUs have no limit of 72"


def test_a_tray_that_is_lost_meanwhile_leaves_everything_unknown() -> None:
    got, _ = run(Rack(away={"t04"}), context())
    assert {m.result for m in got} == {Result.UNKNOWN}
    assert any(m.part == "t04" and "link lost" in m.why for m in got)


def test_an_interface_that_reaches_all_is_chosen_and_handed_to_every_rank() -> None:
    rack = Rack(closed={("t03", "t09", "eth0")})
    got, _ = run(rack, context())
    assert bad(got, Result.PASS) != []
    used = {order.args["args"].get("socket_ifname") for order in rack.seen if order.verb == "work"}
    assert used == {None, "ib0"}


def test_no_common_way_is_unknown_and_says_who_does_not_reach_whom() -> None:
    got, _ = run(Rack(closed={("t03", "t09", "eth0"), ("t03", "t09", "ib0")}), context())
    assert {m.result for m in got} == {Result.UNKNOWN}
    assert "t03 does not reach t09" in got[0].why


def test_scopes_are_groups_and_what_is_left_over_has_its_turn() -> None:
    rack = Rack(die={"t16.g0"})
    got, _ = run(rack, context({"collective.all_reduce.8gpu.busbw": {"min": 700, "unit": "GB/s"}}, gpus=8))
    assert bad(got) == [("t16", "collective.completed")]
    odd = Rack()
    got, _ = run(odd, context({"collective.all_reduce.16gpu.busbw": None}, TRAYS[:17], gpus=8))
    asked = [order.to for order in odd.seen if "id" in order.args.get("bodies", {}).get("g0", {})]
    assert (sorted(set(asked)), len(asked)) == (list(TRAYS[:17]), 18)
    assert odd.tries == 2


def test_a_bad_tray_that_had_two_turns_is_searched_once() -> None:
    got, _ = run(Rack(die={"t03.g0"}), context(trays=TRAYS[:5], gpus=8))
    assert bad(got) == [("t03", "collective.completed")]
    got, _ = run(Rack(die={"t02.g0", "t04.g0"}), context(trays=TRAYS[:5], gpus=8))
    assert bad(got) == [("t02", "collective.completed")]
    assert any("t03 and t04 went bad together too, and were not searched" in m.why for m in got)


def test_a_group_that_needs_more_trays_than_there_are_is_not_measured() -> None:
    got, _ = run(Rack(), context(trays=TRAYS[:4], gpus=36))
    assert {m.result for m in got} == {Result.UNKNOWN}


def test_a_lone_bad_tray_without_good_ones_is_only_suspected() -> None:
    got, _ = run(Rack(die={"t00.g1"}), context(trays=TRAYS[:2]))
    assert bad(got) == []
    assert ("t00", "collective.completed") in bad(got, Result.UNKNOWN)


def test_no_published_limit_is_unknown() -> None:
    got, _ = run(Rack(), context({"collective.all_reduce.72gpu.busbw": {"min": None, "unit": "GB/s"}}))
    assert bad(got, Result.UNKNOWN) == [(RACK, "collective.busbw")]


def test_without_nvlink_the_switches_are_set_and_the_network_has_its_own_limit() -> None:
    rack = Rack()
    got, _ = run(rack, context(nvlink=False, env={"NCCL_DEBUG": "WARN"}))
    env = rack.seen[0].args["args"]["env"]
    assert env == {
        "NCCL_MNNVL_ENABLE": "0",
        "NCCL_P2P_DISABLE": "1",
        "NCCL_SHM_DISABLE": "1",
        "NCCL_NVLS_ENABLE": "0",
        "NCCL_DEBUG": "WARN",
    }
    (speed,) = (m for m in got if m.name == "collective.busbw")
    assert (speed.result, "collective.all_reduce.72gpu.net.busbw" in speed.why) == (Result.UNKNOWN, True)


def test_the_matrix_of_a_rack_names_its_slow_pairs() -> None:
    got, _ = run(Rack(), context(op="pairs"))
    assert bad(got) == []
    assert next(m.result for m in got if m.name == "collective.pairs") is Result.PASS
    got, _ = run(Rack(dim={("t02.g1", "t11.g3")}), context(op="pairs"))
    (pair,) = (m for m in got if m.name == "collective.pairs")
    assert (pair.value, pair.result) == (1.0, Result.FAIL)
    assert "t02.g1 > t11.g3" in pair.why


@pytest.mark.parametrize(
    "args", [{"op": "broadcast"}, {"gpus": 7}, {"sizes": []}, {"sizes": ["1 furlong"]}, {"env": {"LD_PRELOAD": "x"}}, {"typo": 1}]
)
def test_a_step_that_makes_no_sense_asks_nothing_and_passes_nothing(args: dict[str, Any]) -> None:
    told = context(**args)
    assert CHECK.orders(told, []) == []
    assert {m.result for m in CHECK.judge(told, Evidence())} == {Result.UNKNOWN}


def test_answers_that_break_off_anywhere_pass_nothing_that_was_not_measured() -> None:
    told = context()
    _, answers = run(Rack(hang={"t07.g2"}), told)
    for cut in range(len(answers) - 1):
        got = CHECK.judge(told, Evidence(answers=answers[:cut]))
        assert got
        assert {m.result for m in got} <= {Result.UNKNOWN}, cut
    _, healthy = run(Rack(), told)
    for cut in range(len(healthy) - 1):
        assert {m.result for m in CHECK.judge(told, Evidence(answers=healthy[:cut]))} == {Result.UNKNOWN}


def test_every_tray_that_was_worked_on_is_told_to_leave_its_gpus() -> None:
    for rack in (
        Rack(),
        Rack(hang={"t07.g2"}),
        Rack(unfit={"t04": "no NCCL"}),
        Rack(closed={("t03", "t09", "eth0"), ("t03", "t09", "ib0")}),
    ):
        run(rack, context())
        last = {order.to: order.args["job"] for order in rack.seen if order.verb == "work"}
        left = {order.to: order.args["job"] for order in rack.seen if {"leave": True} in order.args.get("bodies", {}).values()}
        assert {**last, "t04": left["t04"]} == left


def test_the_judge_needs_of_an_order_only_whom_it_went_to() -> None:
    told = context()
    got, answers = run(Rack(hang={"t07.g2"}), told)
    bare = [[replace(a, order=Order(a.order.to, a.order.verb)) for a in given] for given in answers]
    assert CHECK.judge(told, Evidence(answers=bare)) == got


LIES: dict[str, dict[str, Any]] = {
    "no time at all": {"ms": 0.0, "busbw_gbps": 0.0},
    "time that runs back": {"ms": -2.0},
    "no number": {"ms": float("nan")},
    "no speed": {"busbw_gbps": float("nan")},
    "a speed that its time does not give": {"busbw_gbps": 1e9},
    "fewer than no wrong words": {"wrong": -64},
    "no words looked at": {"checked": 0},
    "another size": {"bytes": 64, "ms": 1e-4, "busbw_gbps": 1.262},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_rank_whose_numbers_cannot_be_is_not_measured_and_nobody_is_blamed(lie: dict[str, Any]) -> None:
    class Liar(Rack):
        def _run(self, parts: list[str]) -> dict[str, dict[str, Any]]:
            out = super()._run(parts)
            if "t07.g2" in out:
                out["t07.g2"] = {**out["t07.g2"], "results": [{**out["t07.g2"]["results"][0], **lie}]}
            return out

    got, _ = run(Liar(), context())
    assert {m.result for m in got} == {Result.UNKNOWN}
    (tray,) = (m for m in got if m.part != RACK)
    assert (tray.part, tray.why.startswith("it was not measured: g2: what it told cannot be: ")) == ("t07", True)


@pytest.mark.parametrize(
    "lie", [{"rank": 31}, {"ranks": 4}, {"op": "sendrecv"}], ids=["another's rank", "another group", "another op"]
)
def test_an_answer_to_another_order_is_none(lie: dict[str, Any]) -> None:
    class Liar(Rack):
        def _run(self, parts: list[str]) -> dict[str, dict[str, Any]]:
            return {part: {**body, **(lie if part == "t07.g2" else {})} for part, body in super()._run(parts).items()}

    got, _ = run(Liar(), context())
    assert {m.result for m in got} == {Result.UNKNOWN}
    assert [m.part for m in got if m.part != RACK] == ["t07"]


@pytest.mark.parametrize("speed", [float("nan"), 1e9, -1.0], ids=["no number", "too fast for its time", "negative"])
def test_a_slow_pair_is_not_hidden_by_an_end_that_tells_nonsense(speed: float) -> None:
    class Liar(Rack):
        def _matrix(self, *args: Any) -> dict[str, dict[str, Any]]:
            out = super()._matrix(*args)
            for row in out.get("t02.g1", {"pairs": []})["pairs"]:
                row[4] = speed
            return out

    got, _ = run(Liar(dim={("t02.g1", "t11.g3")}), context(op="pairs"))
    assert {m.result for m in got} == {Result.UNKNOWN}
    assert [m.part for m in got if m.part != RACK] == ["t02"]


@pytest.mark.parametrize(
    "words", ["cut by a local limit: margin", "cut by a local limit: sensor", "the time was over before the next launch"]
)
def test_a_rank_that_its_own_agent_ended_says_nothing_of_its_fabric(words: str) -> None:
    class Cut(Rack):
        def _run(self, parts: list[str]) -> dict[str, dict[str, Any]]:
            out = super()._run(parts)
            if "t07.g2" not in out:
                return out
            late = {part: {**body, "results": [], "failed": "timeout in all_reduce after 5 s"} for part, body in out.items()}
            return {**late, "t07.g2": {"failed": words} if "cut" in words else {**late["t07.g2"], "failed": words}}

    got, _ = run(Cut(), context())
    assert {m.result for m in got} == {Result.UNKNOWN}, "a hot tray is no broken link"
    (tray,) = (m for m in got if m.part != RACK)
    assert (tray.part, tray.why) == ("t07", f"it was not measured: g2: it was ended on its tray: {words}")


def test_an_id_of_another_length_is_handed_to_nobody() -> None:
    class Short(Rack):
        def _work(self, order: Order) -> Answer:
            answer = super()._work(order)
            for body in answer.body.values():
                body |= {"id": "ab" * 64} if "id" in body else {}
            return answer

    rack = Short()
    got, _ = run(rack, context())
    assert {m.result for m in got} == {Result.UNKNOWN} and rack.tries == 0
    assert any("made no unique id" in m.why for m in got if m.part == "t00")


def test_every_version_of_nccl_in_a_group_is_said() -> None:
    class Mixed(Rack):
        def _work(self, order: Order) -> Answer:
            answer = super()._work(order)
            for body in answer.body.values():
                body |= {"version": "2.27.3"} if order.to == "t09" else {}
            return answer

    got, _ = run(Mixed(), context())
    assert any("NCCL 2.27.3 and 2.28.7" in m.why for m in got)


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rank", "ranks", "results", "pairs", "failed", "id", "version", "bytes", "at"]), inner)
    ),
    max_leaves=8,
)


@given(JUNK, st.sampled_from(["g0", "g2"]), st.integers(0, 3))
def test_hostile_answers_pass_nothing_and_break_nothing(junk: Any, gpu: str, where: int) -> None:
    told = context(trays=TRAYS[:4])
    answers: list[list[Answer]] = []
    rack = Rack()
    while (orders := CHECK.orders(told, answers)) and len(answers) < 40:
        given = rack.answer(orders)
        if len(answers) == where:
            given[1] = replace(given[1], body={**given[1].body, gpu: junk})
        answers.append(given)
    got = CHECK.judge(told, Evidence(answers=answers))
    assert Result.FAIL not in {m.result for m in got}
    if where != 1 or gpu == "g0":
        assert Result.UNKNOWN in {m.result for m in got}
