"""Loads with a verdict: gpu_burn, HPL and HPL-MxP; loads that measure: STREAM, stress-ng.

gpu_burn: errors are reset at every summary, FAULTY is not; both count. A GPU that computed nothing was not tested, though it
says OK. HPL: PASSED stands on the residual's line; the summary alone proves nothing. Complete is gpu_burn's final block with as
many GPUs as it tested, HPL's "End of Tests.", STREAM's "Solution Validates", the end mark or last line of stress-ng.
Sources: wilicc/gpu-burn gpu_burn-drv.cpp; HPL 2.3 testing/ptest; STREAM 5.10 stream.c; stress-ng's --yaml; captures.
"""

from __future__ import annotations

import re

from burnin.checks.tools.reading import Outcome, Page, Unreadable, complaint, number, parser, stranger

P, F, U, E = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR

# --- gpu_burn ---------------------------------------------------------------------------------------------------------

_TESTED = re.compile(r"Tested (\d{1,4}) GPUs:")
_GPU = re.compile(r"GPU (\d{1,4}): (\S{1,20})")
_PROGRESS = re.compile(r"[\d.]{1,6}% {1,4}proc'd: ")
_DONE = re.compile(r"(-?\d{1,12}) \((-?[\d.]{1,12}) Gflop/s\)")
_ERRORS = re.compile(r"(-?\d{1,18}) {0,2}(?:\((WARNING!|DIED!)\))?")


def _read_gpu_burn(text: str) -> Page:
    page, tested = Page(), None
    verdicts: dict[str, str] = {}
    work, errors, died = dict[int, float](), dict[int, float](), set[int]()
    for line in text.split("\n"):
        line = line.strip()
        if match := _TESTED.fullmatch(line):
            tested = int(match[1])
        elif tested is not None and (match := _GPU.fullmatch(line)):
            verdicts[match[1]] = match[2]
        elif _PROGRESS.match(line):
            done, _, rest = line.partition("errors: ")
            wrong, temps, _ = rest.partition("temps: ")
            amounts, counts = list(_DONE.finditer(done)), list(_ERRORS.finditer(wrong))
            if not temps or len(amounts) != len(counts):
                page.gap(f"progress that was not understood: {line[:80]!r}")
                continue
            for n, (amount, one) in enumerate(zip(amounts, counts, strict=True)):
                work[n] = max(work.get(n, 0.0), number(amount[1]) or 0.0)
                count = number(one[1]) or 0.0
                errors[n] = max(errors.get(n, 0.0), count)
                if count < 0 or one[2] == "DIED!":
                    died.add(n)
        elif "No clients are alive" in line or "Couldn't init" in line or (line and complaint([line])):
            page.gap(line[:200])
    if tested is None and not work:
        raise Unreadable(page.gaps[0]) if page.gaps else stranger("gpu_burn", text)
    if tested is None or len(verdicts) != tested or not tested:
        page.gap("the final block is missing or cut: it was killed, or is still running")
    for name, said in verdicts.items():
        n = int(name)
        result = {"OK": P, "FAULTY": F}.get(said, E)
        why = "" if result is P else "it computed wrong results" if result is F else f"{said!r} is not one of its verdicts"
        if errors.get(n):
            result, why = F, f"up to {errors[n]:g} wrong results in one interval"
        elif n in died:
            result, why = E, "its process died"
        elif result is P and not work.get(n):
            result, why = U, "no work is shown for this GPU: it was not tested"
        page.add("gpu", f"GPU {n}", said, "", result, why)
        if work.get(n):
            page.add("work", f"GPU {n}", work[n], "1")
    for n in sorted(set(errors) - {int(v) for v in verdicts}):
        if errors[n]:
            page.add("errors", f"GPU {n}", errors[n], "1", F, "wrong results")
    return page


gpu_burn = parser("gpu_burn", _read_gpu_burn)

# --- HPL --------------------------------------------------------------------------------------------------------------

_HPL = re.compile(r"HPLinpack (\d+\.\d+) .*")
_NVIDIA = re.compile(r"HPL-NVIDIA (\d+\.\d+(?:\.\d+)?) .*")
_RESULT = re.compile(
    r"(W[A-Z]\w{1,12})\s{1,20}(\d{1,9})\s{1,12}(\d{1,6})\s{1,12}(\d{1,5})\s{1,12}(\d{1,5})"
    r"\s{1,24}([\d.]{1,14})\s{1,24}(\d[\d.eE+-]{0,16})(?: *\( *([\d.eE+-]{1,16}) *\))?"
)
_RESIDUAL = re.compile(r"\|\|Ax-b\|\|_oo ?/ ?\(.{1,100}\) ?= {0,20}(\S{1,24}) \.{6} (PASSED|FAILED)")
_FINISHED = re.compile(r"Finished\s{1,10}(\d{1,6}) tests with the following results:")
_COUNTS = re.compile(
    r"(\d{1,6}) tests (completed and (?:passed|failed) residual checks,|skipped because of illegal input values\.)"
)


def _read_hpl(text: str) -> Page:
    page, results, residuals, known = Page(), 0, 0, False
    finished: int | None = None
    counts: dict[str, int] = {}
    ended = False
    for line in text.split("\n"):
        line = line.strip()[:400]
        if ended and (_HPL.fullmatch(line) or _NVIDIA.fullmatch(line)):  # another run into the same output
            _hpl_summary(page, finished, counts, results, residuals)
            results, residuals, finished, counts, ended = 0, 0, None, {}, False
        if match := _HPL.fullmatch(line):
            known, page.version = True, page.version or f"HPL {match[1]}"
            if not match[1].startswith("2."):
                raise Unreadable(f"HPL {match[1]} is not one that we know to read (2.x)")
        elif match := _NVIDIA.fullmatch(line):
            known, page.version = True, f"HPL-NVIDIA {match[1]}"
        elif match := _RESULT.fullmatch(line):
            results += 1
            part = f"{match[1]} N={match[2]} NB={match[3]} P={match[4]} Q={match[5]}"
            if (rate := number(match[7])) is None or not rate > 0:
                page.gap(f"no performance is shown for {part}")
            else:
                page.add("performance", part, rate, "GFLOPS")
                page.add("time", part, number(match[6]), "s")
        elif match := _RESIDUAL.fullmatch(line):
            residuals += 1
            _residual(page, f"test {residuals}", match[1], match[2])
        elif match := _FINISHED.fullmatch(line):
            finished = int(match[1])
        elif match := _COUNTS.fullmatch(line):
            counts[match[2].split()[-3] if "skipped" not in match[2] else "skipped"] = int(match[1])
        elif line == "End of Tests.":
            ended = True
        elif "WARNING" in line:
            page.notes.append(line[:200])
        elif said := complaint([line]) if known and not ended else "":
            page.gap(said)
    if not known:
        raise stranger("HPL", text)
    _hpl_summary(page, finished, counts, results, residuals)
    if not ended:
        page.gap('"End of Tests." is missing: it did not finish, or was cut')
    return page


def _residual(page: Page, part: str, said: str, verdict: str) -> None:
    value = number(said)
    if value is None and not re.fullmatch(r"[+-]?(nan|inf)", said, re.IGNORECASE):
        page.gap(f"a residual was not understood: {said[:40]!r}")
        return
    good = verdict == "PASSED" and value is not None
    page.add("residual", part, value, "1", P if good else F, "" if good else "the solution is wrong")


def _hpl_summary(page: Page, finished: int | None, counts: dict[str, int], results: int, residuals: int) -> None:
    if finished is None or len(counts) != 3 or sum(counts.values()) != finished:
        page.gap("the summary is missing, cut, or does not add up")
        return
    if counts["failed"]:
        page.add("failed", "", float(counts["failed"]), "1", F, "tests failed the residual check")
    if counts["skipped"]:
        page.add("skipped", "", float(counts["skipped"]), "1", U, "tests were skipped: nothing is known of them")
    ran = finished - counts["skipped"]
    if not ran or results < ran or residuals < ran or results != residuals:
        page.gap(f"{ran} tests are said to have run, with {results} results and {residuals} residuals")


hpl = parser("hpl", _read_hpl)

_MXP = re.compile(r"\*{4,8} {1,4}HPL[ -]MxP Result {1,8}\*{4,8}", re.IGNORECASE)
_GFLOPS = re.compile(r"(LU )?GFLOPS {0,4}= {0,12}([\d.eE+-]{1,20}), per GPU = {0,12}([\d.eE+-]{1,20})(?: .{0,120})?")


def _read_mxp(text: str) -> Page:
    page, marks = Page(), 0
    for line in text.split("\n"):
        line = line.strip()[:400]
        if _MXP.fullmatch(line):
            marks += 1
        elif match := _RESIDUAL.fullmatch(line):
            _residual(page, "", match[1], match[2])
        elif match := _GFLOPS.fullmatch(line):
            name = "LU performance" if match[1] else "performance"
            if (rate := number(match[2])) is None or not rate > 0:
                page.gap(f"no {name} is shown")
            else:
                page.add(name, "", rate, "GFLOPS")
        elif said := complaint([line]):
            page.gap(said)
    names = [row.name for row in page.rows]
    if not marks:
        raise Unreadable(page.gaps[0]) if page.gaps else stranger("HPL-MxP", text)
    if marks % 2 or names.count("residual") != marks // 2 or names.count("performance") != marks // 2:
        page.gap("the result is not closed, or a line of it is missing")
    return page


hpl_mxp = parser("hpl-mxp", _read_mxp)

# --- STREAM -----------------------------------------------------------------------------------------------------------

_STREAM = re.compile(r"STREAM version \$Revision: ([\d.]{1,12}) \$")
_KERNEL = re.compile(r"(Copy|Scale|Add|Triad): {1,16}([\d.]{1,16})((?: {1,10}[\d.]{1,16}){3})")
_VALID = re.compile(r"Solution Validates: avg error less than \S{1,20} on all three arrays")


def _read_stream(text: str) -> Page:
    page, validated = Page(), False
    seen = set()
    for line in text.split("\n"):
        line = line.strip()[:400]
        if match := _STREAM.fullmatch(line):
            page.version = match[1]
            if not match[1].startswith("5."):
                raise Unreadable(f"STREAM {match[1]} is not one that we know to read (5.x)")
        elif match := _KERNEL.fullmatch(line):
            if match[1] in seen:
                page.gap(f"{match[1]} is said twice: more than one run")
            seen.add(match[1])
            if not (rate := number(match[2])):
                page.gap(f"{match[1]} has no rate")
            else:
                page.add(match[1], "", rate / 1e3, "GB/s")
        elif line.startswith("Failed Validation"):
            page.add("validation", "", None, "", F, line[:200])
        elif _VALID.fullmatch(line):
            validated = True
        elif said := complaint([line]):
            page.gap(said)
    if page.version is None:
        raise Unreadable(page.gaps[0]) if page.gaps else stranger("STREAM", text)
    if len(seen) != 4:
        page.gap(f"{4 - len(seen)} of the four kernels have no result")
    if not validated:
        page.gap('"Solution Validates" is missing: it did not finish, or was cut')
    return page


stream = parser("stream", _read_stream, measures=True)

# --- stress-ng --------------------------------------------------------------------------------------------------------

_INFO = re.compile(r"stress-ng: (info|metrc|warn|fail|error|debug): {1,3}\[\d{1,10}\] (.{0,400})")
_TALLY = re.compile(r"(skipped|passed|failed|metrics untrustworthy): (\d{1,9})(?:: (.{1,300}))?")
_PAIR = re.compile(r"(- )?([a-z][a-z0-9-]{1,60}): (.{1,200})")
_TALLIES = {"passed": (P, ""), "failed": (F, "stressors failed"), "skipped": (U, "stressors were skipped"),
            "metrics untrustworthy": (U, "its metrics cannot be trusted")}  # fmt: skip


def _read_stress_ng(text: str) -> Page:
    if re.search(r"^metrics:\s*$|^system-info:\s*$", text, re.MULTILINE):
        return _read_stress_yaml(text)
    page, said, ended = Page(), dict[str, int](), False
    for line in text.split("\n"):
        match = _INFO.fullmatch(line.strip()[:600])
        if match is None:
            continue
        if match[1] == "fail":
            page.add("fail", "", None, "", F, match[2][:200])
        elif match[1] == "error":
            page.gap(match[2][:200])
        elif tally := _TALLY.fullmatch(match[2]):
            said[tally[1]] = int(tally[2])
            result, why = _TALLIES[tally[1]]
            if int(tally[2]):
                page.add(tally[1], (tally[3] or "")[:200], float(tally[2]), "1", result, why)
        elif match[2].startswith("unsuccessful run completed"):
            page.gap(match[2][:200])
        ended = match[2].startswith("successful run completed in ") or (ended and match[1] != "info")
    if not said and not ended and not page.rows and not page.gaps and "stress-ng: " not in text:
        raise stranger("stress-ng", text)
    if not {"passed", "failed", "skipped"} <= set(said) or not said.get("passed"):
        page.gap("the tally of stressors is missing, or nothing passed")
    if not ended:
        page.gap('"successful run completed" is not its last line: it did not finish, or was cut')
    return page


def _read_stress_yaml(text: str) -> Page:
    """The flat list that --yaml writes; read by line, so that no alias and no tag of YAML is ever resolved."""
    page, stressor, section = Page(), "", ""
    for line in text.split("\n"):
        if match := _PAIR.fullmatch(line.strip()):
            key, value = match[2], match[3].strip()
            if key == "stress-ng-version":
                page.version = value
            elif section == "metrics" and key == "stressor":
                stressor = value
            elif section == "metrics" and stressor and (amount := number(value)) is not None:
                page.add(key, stressor, amount, "s" if key.endswith("-time") and "per-second" not in key else "1")
            elif section == "metrics":
                page.gap(f"a metric was not understood: {line.strip()[:80]!r}")
        elif line.rstrip().endswith(":"):
            section, stressor = line.strip().rstrip(":"), ""
    if page.version is None or not re.fullmatch(r"0\.\d{1,2}\.\d{1,3}.{0,20}", page.version):
        page.gap(f"stress-ng {page.version} is not one that we know to read (0.x)")
    if text.rstrip().split("\n")[-1] != "...":
        page.gap("the end mark is missing: it was cut")
    page.notes.append("YAML says what was measured, not whether stressors passed")
    return page


stress_ng = parser("stress-ng", _read_stress_ng, both=True)
