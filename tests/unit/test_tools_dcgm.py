"""dcgmi diag and mndiag: the rows are read, not the banner. Texts are built here, after NVIDIA/DCGM's own printing code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from burnin.checks.tools import PARSERS, Outcome, Reading

P, F, U, E = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR
BORDER = "+---------------------------+------------------------------------------------+\n"
HEAD = (
    "Successfully ran diagnostic for group.\n"
    + BORDER
    + "| Diagnostic                | Result                                         |\n"
    + "+===========================+================================================+\n"
)


def row(name: str, info: str) -> str:
    return f"| {name:<25} | {info:<46} |\n"


def table(*rows: tuple[str, str], version: str = "4.4.2", devices: str = "2941, 2941") -> str:
    body = "".join(row(*one) for one in rows)
    meta = row("DCGM Version", version) + row("Driver Version Detected", "580.1") + row("GPU Device IDs Detected", devices)
    section = "|-----  Metadata  ----------+------------------------------------------------|\n"
    deployment = "|-----  Deployment  --------+------------------------------------------------|\n"
    return HEAD + section + meta + deployment + body + BORDER


def v4(name: str, test: str, *gpus: str) -> list[tuple[str, str]]:
    return [(name, test), *(("", f"GPU{n}: {said}") for n, said in enumerate(gpus))]


def diag(text: str, code: int | None = 0, stderr: str = "") -> Reading:
    return PARSERS["dcgmi diag"](text, code, stderr)


GOOD = table(*v4("software", "Pass", "Pass", "Pass"), *v4("memory", "Pass", "Pass", "Pass"))


def test_a_good_table_passes_with_a_row_for_every_test_and_gpu() -> None:
    reading = diag(GOOD)
    assert (reading.outcome, reading.version, reading.whys) == (P, "4.4.2", ())
    assert [(r.name, r.part) for r in reading.rows] == [
        (test, part) for test in ("software", "memory") for part in ("", "GPU 0", "GPU 1")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        (v4("pcie", "Fail", "Pass", "Pass"), F),  # a failing test above passing GPUs (DCGM 4.2.3, 4.4.1)
        (v4("pcie", "Pass", "Pass", "Fail"), F),
        (v4("pcie", "Skip", "Skip", "Skip"), U),
        (v4("pcie", "Pass", "Pass", "Skip"), U),
        (v4("pcie", "Warn", "Pass", "Pass"), U),
        (v4("pcie", "Not Run", "Pass", "Pass"), U),
        (v4("pcie", "Passed", "Pass", "Pass"), E),
        (v4("pcie", "pass", "Pass", "Pass"), E),
        (v4("pcie", "", "Pass", "Pass"), E),
        (v4("pcie", "Pass", "Pass"), E),  # one GPU of two
        (v4("pcie", "Pass"), E),
        ([*v4("memory", "Pass", "Pass", "Pass"), ("Warning", "GPU 1 could not allocate")], U),  # DCGM#284
        ([("Error", "GPU 3 has uncorrectable memory errors")], F),
    ],
)
def test_the_worst_row_counts(rows: list[tuple[str, str]], outcome: Outcome) -> None:
    assert diag(table(*v4("software", "Pass", "Pass", "Pass"), *rows)).outcome is outcome


def test_a_warning_stays_with_its_gpu_and_is_joined_where_it_was_wrapped() -> None:
    said = "GPU 1 Max power of 224.1 did not reach desired power minimum"
    rows = [("Targeted Power", "Pass - GPUs: 0, 2   "), ("", "Fail - GPU: 1   "), ("Warning", said[:45]), ("", said[45:])]
    reading = diag(table(*rows, version="3.3.9", devices="2237,2237,2237"))
    assert reading.outcome is F
    assert [(r.part, r.result, r.why) for r in reading.rows] == [("GPU 0", P, ""), ("GPU 2", P, ""), ("GPU 1", F, said)]


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("4.4.2", "5.0.0"),
        GOOD.replace("4.4.2", "banana"),
        GOOD.replace(row("DCGM Version", "4.4.2"), ""),
        GOOD[: -len(BORDER)],
        GOOD[:-3],
        GOOD + "command terminated with exit code 226\n",
        GOOD + "Error: something\n",
        "Error: Unable to complete diagnostic for group 1. Return: (-30) error.\n" + GOOD,
        GOOD.replace("| memory ", "  memory "),
        GOOD[len(HEAD) :],
        HEAD + BORDER,
        "Successfully ran diagnostic for group.\n",
        "Running iteration 1 of 2...\n" + GOOD,
        "Error: requested test \"x\" was not found among possible test choices.",
        "dcgmi: command not found",
        GOOD.replace("Successfully ran diagnostic", "Unable to run diagnostic"),
        GOOD.replace("GPU1: Pass", "GPU1: Bestanden", 1),
        GOOD.replace("GPU1: Pass", "GPU1: Running", 1),
    ],
)  # fmt: skip
def test_what_is_not_whole_or_not_known_is_an_error(text: str) -> None:
    assert diag(text).outcome is E


def test_iterations_pass_when_all_did() -> None:
    text = f"Running iteration 1 of 2...\n{GOOD}\nRunning iteration 2 of 2...\n{GOOD}Passed all 2 runs of the diagnostic\n"
    assert diag(text).outcome is P
    assert diag(text.replace("GPU1: Pass", "GPU1: Fail", 1)).outcome is F


def test_a_failing_table_stays_a_fail_when_cut_or_when_the_status_says_so_but_not_without_a_link() -> None:
    bad = table(*v4("pcie", "Fail", "Pass", "Fail"))
    assert diag(bad, 226).outcome is F and diag(bad, 205).outcome is F and diag(bad[:-100], 0).outcome is F
    lost = diag(bad, None)
    assert lost.outcome is E and F in {r.result for r in lost.rows}


# --- JSON -------------------------------------------------------------------------------------------------------------


def result(status: str, gpu: int = 0, **more: Any) -> dict[str, Any]:
    return {"entity_group": "GPU", "entity_group_id": 1, "entity_id": gpu, "status": status, **more}


def document(*tests: dict[str, Any], gpus: int = 1, version: str | None = "4.5.2", **body: Any) -> dict[str, Any]:
    entities = [{"entity_id": n, "device_id": "2941"} for n in range(gpus)]
    return {
        "DCGM Diagnostic": {"test_categories": [{"category": "Hardware", "tests": list(tests)}], **body},
        "entity_groups": [{"entity_group": "GPU", "entity_group_id": 1, "entities": entities}],
        "metadata": {} if version is None else {"version": version},
    }


def case(summary: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "memory", "results": list(results), "test_summary": {"status": summary, **more}}


WARNED: dict[str, Any] = {
    "warnings": [{"warning": "Max power did not reach", "error_id": 1, "error_category": 1, "error_severity": 1}]
}


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (document(case("Pass", result("Pass"))), P),
        (document(case("PASS", result("PASS"))), P),
        (document(case("Fail", result("Pass"))), F),
        (document(case("Pass", result("Fail"))), F),
        (document(case("Fail")), F),
        (document(case("Pass", result("Skip"))), U),
        (document(case("Pass", result("Pass", **WARNED))), U),
        (document(case("Pass", result("Pass"), **WARNED)), U),
        (document(case("Pass", result("Fine"))), E),
        (document(case("Pass")), E),
        (document(), E),
        (document(case("Pass", result("Pass")), gpus=2), E),
        (document(case("Pass", result("Pass")), version="5.0.0"), E),
        (document(case("Pass", result("Pass")), version=None), E),
        (document(case("Pass", result("Pass")), runtime_error="the host engine is gone"), E),
        ({"DCGM Diagnostic": {"version": "4.4.2", "runtime_error": "Unable to complete"}}, E),
        ({"iterations": [document(case("Pass", result("Pass")))] * 2, "Overall Result": "Pass"}, P),
        ({"iterations": [document(case("Pass", result("Pass")))] * 2, "Overall Result": "Fail"}, F),
        ({"iterations": [document(case("Pass", result("Pass")))] * 2}, E),
        ({"DCGM GPU Diagnostic": {"version": "3.3.5", "test_categories": [
            {"category": "Deployment", "tests": [{"name": "Denylist", "results": [{"status": "Pass"}]}]}]}}, P),
        ({"DCGM GPU Diagnostic": {"test_categories": [{"category": "D", "tests": [
            {"name": "Memory", "results": [{"gpu_ids": "0,1", "status": "Pass", "warnings": "GPU 1 was slow"}]}]}]}}, U),
    ],
)  # fmt: skip
def test_json(body: dict[str, Any], outcome: Outcome) -> None:
    assert diag(json.dumps(body)).outcome is outcome
    assert diag("some noise {\n" + json.dumps(body, indent=2) + "\n").outcome is outcome


@pytest.mark.parametrize("where", ["root", "body", "test", "result"])
@pytest.mark.parametrize(("key", "value"), [("error", "GPU lost"), ("errors", [{"msg": "x"}]), ("error_code", -30)])
def test_an_error_that_stands_anywhere_else_than_expected_is_not_passed_over(where: str, key: str, value: Any) -> None:
    body = document(case("Pass", result("Pass")))
    (test,) = body["DCGM Diagnostic"]["test_categories"][0]["tests"]
    at = {"root": body, "body": body["DCGM Diagnostic"], "test": test, "result": test["results"][0]}[where]
    nothings: list[Any] = [None, "", 0, []]
    for nothing in nothings:
        at[key] = nothing
        assert diag(json.dumps(body)).outcome is P
    at[key] = value
    assert diag(json.dumps(body)).outcome is E


def test_an_overall_result_is_not_passed_over() -> None:
    assert diag(json.dumps({**document(case("Pass", result("Pass"))), "overall": "Fail"})).outcome is F
    assert diag(json.dumps(document(case("Pass", result("Pass")), result="Pass"))).outcome is P


def test_an_object_inside_a_cut_object_is_not_taken_for_the_whole() -> None:
    text = '{"iterations": [\n' + json.dumps(document(case("Pass", result("Pass")))) + ",\n"
    assert diag(text).outcome is E


def test_more_warnings_than_are_kept_and_a_gpu_without_a_row_are_not_dropped() -> None:
    many = [{"warning": f"GPU 0 said {n}"} for n in range(60)]
    reading = diag(json.dumps(document(case("Pass", result("Pass", warnings=many)))))
    assert reading.outcome is U and any("and 20 more" in row.why for row in reading.rows)
    old = {"name": "Memory", "results": [{"gpu_ids": "0,1", "status": "Pass", "warnings": "GPU 7 was slow"}]}
    other = diag(json.dumps({"DCGM GPU Diagnostic": {"test_categories": [{"category": "D", "tests": [old]}]}}))
    assert [(row.part, row.result) for row in other.rows] == [("GPU 0", P), ("GPU 1", P), ("GPU 7", U)]
    assert other.outcome is U


# --- several nodes ----------------------------------------------------------------------------------------------------


def mn(status: str, *gpus: str, **more: Any) -> dict[str, Any]:
    results = [{"host_id": n // 2, **result(said, n % 2)} for n, said in enumerate(gpus)]
    hosts = [
        {"host_id": h, "hostname": f"n{h}", "dcgm_version": "4.4.2", "driver_version": "580.1", "num_entities": 2,
         "entities": [{"entity_group": "GPU", "entity_group_id": 1, "entity_id": n} for n in (0, 1)]}
        for h in (0, 1)
    ]  # fmt: skip
    test = {"name": "mnubergemm", "status": status, "test_summary": {"status": status}, "results": results, **more}
    categories = [{"category": "Multi-Node Tests", "tests": [test]}]
    name = "DCGM Multi-Node Diagnostic"
    return {name: name, "metadata": {"num_hosts": 2, "num_entities": 4}, "hosts": hosts, "test_categories": categories}


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (mn("Pass", *["Pass"] * 4), P),
        (mn("Fail", "Pass", "Pass", "Fail", "Pass"), F),
        (mn("Pass", "Pass", "Pass", "Fail", "Pass"), F),
        (mn("Pass", *["Pass"] * 3), E),
        (mn("Fail", mpi_error={"warning": "Error: no slots", "error_category": "MPI"}), E),
        ({"DCGM Multi-Node Diagnostic": "DCGM Multi-Node Diagnostic", "runtime_error": "no"}, E),
        ({**mn("Pass", *["Pass"] * 4), "metadata": {"num_hosts": 18}}, E),
        (json.loads(json.dumps(mn("Pass", *["Pass"] * 4)).replace('"4.4.2"', '"5.0.0"')), E),
        (json.loads(json.dumps(mn("Pass", *["Pass"] * 4)).replace('"4.4.2"', '"4.4.1"', 1)), U),
    ],
)
def test_mndiag_json(body: dict[str, Any], outcome: Outcome) -> None:
    assert PARSERS["dcgmi mndiag"](json.dumps(body), 0).outcome is outcome


def mn_table(
    *details: tuple[str, str], test: str = "Pass", hosts: int = 2, gpus: int = 4, banner: str = "Successfully ran multi-node"
) -> str:
    meta = [("MNUBERGEMM Test", test), ("Driver Version", "580.1"), ("DCGM Version", "4.4.2"), ("Hosts Found", str(hosts)),
            ("Hosts With Errors", "0"), ("Host List", "0: n0"), ("", "1: n1"), ("Total GPUs", str(gpus))]  # fmt: skip
    return (
        HEAD.replace("Successfully ran diagnostic for group.", f"{banner} diagnostic.")
        + "|-----  Metadata  ----------+------------------------------------------------|\n"
        + "".join(row(*one) for one in meta)
        + "|-----  Host Details  ------+------------------------------------------------|\n"
        + "".join(row(*one) for one in details)
        + BORDER
    )


FINE = [("Host 0", "Pass"), ("  GPUs: 0, 1", "Pass"), ("Host 1", "Pass"), ("  GPUs: 0, 1", "Pass")]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (mn_table(*FINE), P),
        (mn_table(*FINE, test="Fail"), E),  # no GPU is named: it could not run
        (mn_table(test="Fail", hosts=0, gpus=0, banner="Multi-node"), E),
        (mn_table(*FINE, ("Host 0 (GPU 1)", "Error: an Xid"), test="Fail"), F),
        (mn_table(*FINE[:3], ("  GPU 0", "Fail"), ("", "Error: an Xid"), ("  GPU 1", "Pass")), F),
        (mn_table(*FINE, hosts=18, gpus=72), E),
        (mn_table(*FINE[:3], ("  GPUs", "No GPU results available")), E),
        (mn_table(*FINE)[: -len(BORDER)], E),
        (mn_table(*FINE).replace("4.4.2", "5.1.0"), E),
    ],
)
def test_mndiag_table(text: str, outcome: Outcome) -> None:
    assert PARSERS["dcgmi mndiag"](text, 0).outcome is outcome
