"""How a tool that lines trust becomes a check: run it, read its rows (burnin.checks.tools), say of which part each row speaks.

The rows decide, not the banner and not the exit code alone. A tool that is missing, was killed, cut short, or is of a version
that nobody has read yet, is UNKNOWN with the reason: it has shown nothing. All that it printed is kept as the step's evidence.

Tools that load GPUs run under the agent's leash (burnin.agent.program), light ones by the shell. Where a tool counts GPUs, its
numbers are NVML indices (CUDA_DEVICE_ORDER is set so), and `identify`, asked first, says at which position each of them is.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from burnin.checks.base import TO_DO, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tools.reading import NOT_THERE, Outcome, Parse, Reading, Row
from burnin.events import Measurement, Result
from burnin.rack.data import Data
from burnin.suites.schema import Duration

SPARE_S = 30.0
"""Beyond the time a tool is given, until its answer is no longer waited for."""
_WHYS = 6
_ENV = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "LC_ALL": "C"}
_GPU = re.compile(r"GPU (\d{1,4})(?: link (\d{1,3}))?")
_BDF = re.compile(r"([0-9A-Fa-f]{1,8}):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])")


class ToolArgs(Data):
    """What a step may say of every tool: where it is, and how long it may take."""

    program: str = Field(default="", description="its path, where it is not on the tray's PATH")
    longest: Duration = Field(default=0.0, alias="max", description="longer it may not take")

    def needs_s(self) -> float:
        """How long it may take by what else the step says; 0 where that says nothing."""
        return 0.0

    def usual_s(self) -> float:
        """About how long it takes where all is well."""
        return self.needs_s()


Values = Callable[[Context, Reading, Mapping[str, str]], Iterable[Measurement]]
"""(context, reading, the tool's word for a part -> part id) -> what is measured beside the verdict."""


def _no_values(context: Context, reading: Reading, parts: Mapping[str, str]) -> Iterable[Measurement]:
    return ()


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `words`: its command lines. `gpus`: it speaks of each GPU, so one that it does not name is UNKNOWN.
    `indices`: it counts GPUs otherwise.

    `heats`: run by the agent, leashed. `softens`: a bad row of it is something to look at, not a part to condemn.
    """

    name: str
    about: str
    parse: Parse
    words: Callable[[Context, Any], Sequence[Sequence[str]]]
    longest_s: float
    args: type[ToolArgs] = ToolArgs
    heats: bool = False
    gpus: bool = False
    indices: bool = False
    softens: str = ""
    become: bool = False
    program: str = ""
    """What it is called on the tray's PATH, where that is not `name`."""
    action: str = "read its output, kept with the step; run it again alone before anything is replaced"
    values: Values = _no_values
    quantities: tuple[Quantity, ...] = ()
    part: Callable[[Context, Any, int], str] = field(default=lambda context, args, number: context.tray)
    """Of which part its n-th command speaks where a row names none."""

    @property
    def verdict(self) -> Quantity:
        """What its rows say, all together."""
        return Quantity(f"{self.name}.verdict", "1", "what the tool's own rows say, part by part", action=self.action)

    def check(self) -> Check:
        """The tool as a check."""
        return Check(
            name=self.name,
            about=self.about,
            quantities=(self.verdict, *self.quantities),
            judge=self.judge,
            orders=self.orders,
            heats=self.heats,
            args=self.args,
            equipment=(self.program or self.name, *(("root",) if self.become else ())),
            seconds=lambda profile, said: self.args.model_validate(dict(said)).usual_s() or (60.0 if self.heats else 0.0),
        )

    def orders(self, context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
        """Who the GPUs are, then the tool, one command after the other."""
        args = self.args.model_validate(dict(context.args))
        who = 1 if self.gpus or self.indices else 0
        if len(answers) < who:
            return [Order(context.tray, "identify")]
        commands = self.words(context, args)
        if len(answers) - who >= len(commands):
            return []
        words, longest = commands[len(answers) - who], args.longest or args.needs_s() or self.longest_s
        if self.heats:
            return [leashed(context, self.name, words, longest)]
        # a value of `with:` never becomes shell text: every word is quoted
        script = {"script": f"{' '.join(f'{k}={v}' for k, v in _ENV.items())} {shlex.join(words)}", "become": self.become}
        return [Order(context.tray, "script", script, "shell", longest)]

    def judge(self, context: Context, evidence: Evidence) -> list[Measurement]:
        """The verdict of every part, and the values."""
        who, outputs = _split(evidence)
        args, out = self.args.model_validate(dict(context.args)), list[Measurement]()
        parts = names(context.tray, who)
        expected = max(1, len(self.words(context, args)))
        for number, body in enumerate(outputs):
            reading, reason = read(self.parse, body)
            own = self.part(context, args, number)
            out += verdicts(self, context, own, reading, reason, parts)
            out += self.values(context, reading, parts)
        if len(outputs) < expected:
            why = next((str(a.body) for given in evidence.answers for a in given if not a.ok), "it was not run to its end")
            out += [self.verdict.unknown(p, "lost" if evidence.lost else "missing", why) for p in self._owed(context)]
        return list(worst(out))

    def _owed(self, context: Context) -> list[str]:
        return [context.tray, *(context.gpus if self.gpus else ())]


def leashed(context: Context, job: str, words: Sequence[str], longest_s: float, **more: Any) -> Order:
    """A program under the agent's leash, on all GPUs of the tray."""
    limit = context.limits.get("gpu.tlimit.cutoff")
    args = {
        "job": job,
        "argv": list(words),
        "env": _ENV,
        "gpus": [gpu.partition(".")[2] for gpu in context.gpus],
        "cutoff_margin_c": limit.min if limit is not None and limit.min is not None else 0.0,
        "max_s": longest_s,
        **more,
    }
    return Order(context.tray, "program", args, timeout_s=longest_s + SPARE_S)


def _split(evidence: Evidence) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """What `identify` said, and what each command printed."""
    bodies = [a.body for given in evidence.answers for a in given if a.ok and isinstance(a.body, dict)]
    who = next((body for body in bodies if "gpus" in body and "stdout" not in body), {})
    return who, [body for body in bodies if "stdout" in body]


def names(tray: str, who: Mapping[str, Any]) -> dict[str, str]:
    """NVML index and PCI address, as tools print them, -> part id."""
    out: dict[str, str] = {}
    gpus = who.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else ():
        if isinstance(gpu, dict) and isinstance(gpu.get("gpu"), str):
            out[f"GPU {gpu.get('index')}"] = f"{tray}.{gpu['gpu']}"
            if (bdf := _bdf(str(gpu.get("bdf")))) is not None:
                out[bdf] = f"{tray}.{gpu['gpu']}"
    return out


def _bdf(text: str) -> str | None:
    """One spelling of a PCI address: NVML, nvidia-smi and the kernel write its domain with 4 or 8 digits."""
    found = _BDF.fullmatch(text.strip())
    return f"{int(found[1], 16):x}:{found[2].lower()}" if found else None


def part_of(word: str, parts: Mapping[str, str]) -> str | None:
    """The part id of a tool's word for a GPU or its link; None where it is not known."""
    found = _GPU.fullmatch(word)
    if found is not None:
        gpu = parts.get(f"GPU {int(found[1])}")
        return f"{gpu}.l{int(found[2])}" if gpu is not None and found[2] else gpu
    bdf = _bdf(word)
    return parts.get(bdf) if bdf is not None else None


def read(parse: Parse, body: Mapping[str, Any]) -> tuple[Reading, str]:
    """A command's answer, read; and the reason that fits where it shows nothing."""
    ended, name, code = str(body.get("ended", "")), body.get("signal"), body.get("exit")
    if isinstance(name, str) and name in signal.Signals.__members__:
        code = -signal.Signals[name].value
    if ended:
        code = 143  # we ended it; what it had found bad by then stands
    status = code if isinstance(code, int) and not isinstance(code, bool) else None
    reading = parse(str(body.get("stdout", "")), status, str(body.get("stderr", "")))
    against = [f"it was ended: {ended}"] if ended else []
    against += ["its output was too long, and is cut"] if body.get("cut") else []
    if against:
        outcome = reading.outcome if reading.outcome is Outcome.FAIL else Outcome.ERROR
        reading = replace(reading, outcome=outcome, whys=(*against, *reading.whys))
    return reading, "hung" if ended == "time" else "lost" if ended == "lease" else "missing"


def verdicts(
    tool: Tool, context: Context, own: str, reading: Reading, reason: str, parts: Mapping[str, str]
) -> Iterator[Measurement]:
    """One measurement for each part that a row speaks of, for `own` (the tray) and for every GPU that should be named."""
    verdict, limit = tool.verdict, "= PASS"
    bad: dict[str, list[Row]] = {}
    seen = {part for row in reading.rows if (part := part_of(row.part, parts)) is not None}
    named = {(row.name, row.result) for row in reading.rows if part_of(row.part, parts) is not None}
    for row in reading.rows:
        explained = not row.part and (row.name, row.result) in named  # the test failed because of the parts that it names
        if row.result in (Outcome.FAIL, Outcome.ERROR, Outcome.UNKNOWN) and not explained:
            bad.setdefault(part_of(row.part, parts) or own, []).append(row)
    for part, rows in bad.items():
        failed = [row for row in rows if row.result is Outcome.FAIL]
        why = "; ".join(list(dict.fromkeys(_said(row) for row in failed or rows))[:_WHYS])
        if failed and not tool.softens:
            yield Measurement(verdict.name, part, "FAIL", verdict.unit, limit, Result.FAIL, None, why)
        else:
            why = f"{why}; {tool.softens}" if tool.softens and failed else why
            yield replace(verdict.unknown(part, "missing", why, limit), value="FAIL" if failed else None)
    if reading.outcome is Outcome.ERROR:
        why = "; ".join(reading.whys[:_WHYS]) or "it showed nothing"
        name = tool.program or tool.name
        absent = f"install {name} on this tray, say where it is (with: {{program: /path}}), or take the step out of the suite"
        do = absent if NOT_THERE in why else tool.action
        yield verdict.unknown(own, reason, f"{reading.tool}: {why}{TO_DO}{do}", limit)
    good = reading.outcome in (Outcome.PASS, Outcome.MEASURED)
    whys = {Outcome.FAIL: "others failed in it", Outcome.UNKNOWN: "others are not known in it"}
    for part in (own, *(context.gpus if tool.gpus else ())):
        if part in bad or (part == own and reading.outcome is Outcome.ERROR):
            continue
        if part == own and not good:
            continue
        if part != own and part not in seen and not any(one.startswith(f"{part}.") for one in seen):
            yield verdict.unknown(part, reason if reading.outcome is Outcome.ERROR else "missing", "no row names it", limit)
        elif reading.outcome is Outcome.ERROR:
            yield verdict.unknown(part, reason, f"{reading.tool} did not come to its end", limit)
        else:
            yield Measurement(verdict.name, part, "PASS", verdict.unit, limit, Result.PASS, None, whys.get(reading.outcome, ""))


def _said(row: Row) -> str:
    name = f"{row.name} ({row.part})" if row.part else row.name
    return f"{name}: {row.value if row.value is not None else row.result}{': ' if row.why else ''}{row.why}"[:300]


def worst(found: Iterable[Measurement]) -> Iterator[Measurement]:
    """One measurement for each name and part: FAIL before UNKNOWN before PASS."""
    order = {Result.FAIL: 0, Result.UNKNOWN: 1, Result.PASS: 2}
    kept: dict[tuple[str, str], Measurement] = {}
    for one in found:
        before = kept.get((one.name, one.part))
        if before is None or order[one.result] < order[before.result]:
            kept[one.name, one.part] = one
    yield from kept.values()


def limited(quantity: Quantity, limit: str, context: Context, part: str, value: float | None, why: str = "") -> Measurement:
    """A value against a limit of another name (that of this many GPUs); None is UNKNOWN."""
    if value is None:
        return quantity.unknown(part, "missing", why or "no row has it")
    one = replace(quantity, name=limit).judge(part, value, context.limits)
    return replace(one, name=quantity.name, why="; ".join(filter(None, (why, one.why))))
