"""Drives: smartctl -j and nvme smart-log -o json; and fio's JSON.

The drive's own word (passed) is not enough: one says passed with spare below its own threshold. What a counter grew by is
judged where the run is known: media errors that are not 0 are UNKNOWN here. fio measures; an I/O error or wrong data is FAIL.
Sources: smartctl(8) on the bits of its exit status; NVM Express 2.0 SMART log; fio's json output; captures of smartctl 7, fio 3.
"""

from __future__ import annotations

import re
from typing import Any

from burnin.checks.tools.reading import (
    Document,
    Outcome,
    Page,
    Unreadable,
    items,
    load_json,
    number,
    parser,
    part_of,
    stranger,
    word,
)

P, F, U, E = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR


def _document(tool: str, text: str) -> Document:
    if not re.search(r"^[ \t]*\{", text, re.MULTILINE):
        raise stranger(f"{tool} with JSON", text)
    return load_json(text)


def _nvme_log(page: Page, log: dict[str, Any], names: dict[str, str]) -> None:
    """`names`: our name -> the tool's key."""
    values = {ours: number(log.get(theirs)) for ours, theirs in names.items()}
    for name in ("critical_warning", "available_spare", "available_spare_threshold", "media_errors"):
        if values[name] is None:
            page.gap(f"{name} is missing")
    warning, spare, threshold = values["critical_warning"], values["available_spare"], values["available_spare_threshold"]
    if warning is not None:
        page.add("critical_warning", "", warning, "1", F if warning else P, "the drive warns" if warning else "")
    if spare is not None and threshold is not None:
        low = spare < threshold
        page.add(
            "available_spare",
            "",
            spare,
            "%",
            F if low else P,
            f"below the drive's own threshold of {threshold:g} %" if low else "",
        )
    if (errors := values["media_errors"]) is not None:
        why = "media errors: whether in this run, their growth says" if errors else ""
        page.add("media_errors", "", errors, "1", U if errors else P, why)
    for name, unit in (
        ("percentage_used", "%"),
        ("power_on_hours", "h"),
        ("power_cycles", "1"),
        ("num_err_log_entries", "1"),
        ("unsafe_shutdowns", "1"),
    ):
        if (value := values[name]) is not None and name == "percentage_used" and value >= 100:
            page.add(name, "", value, unit, U, "the life that its maker reckons with is used up")
        elif value is not None:
            page.add(name, "", value, unit)
    if (values["power_on_hours"] or 0) > 0 and values["power_cycles"] == 0:
        page.add(
            "power_cycles", "", 0.0, "1", U, f"on for {values['power_on_hours']:g} h, never switched on: this log cannot be right"
        )


_SMARTCTL = {
    name: name
    for name in ("critical_warning", "available_spare", "available_spare_threshold", "media_errors", "percentage_used",
                 "power_on_hours", "power_cycles", "num_err_log_entries", "unsafe_shutdowns")
}  # fmt: skip


def _read_smartctl(text: str) -> Page:
    document = _document("smartctl", text)
    root, page = document.root, Page()
    tool = part_of(root, "smartctl")
    if not tool:
        raise Unreadable("the JSON is not of smartctl")
    page.version = ".".join(word(n) or "?" for n in items(tool.get("version")))[:20]
    if not page.version.startswith("7."):
        raise Unreadable(f"smartctl {page.version} is not one that we know to read (7.x)")
    if said := document.beside:
        page.gap(f"beside the JSON: {said}")
    for message in items(tool.get("messages")):
        if part_of(message).get("severity") == "error":
            page.gap(f"it says: {word(part_of(message).get('string'))}"[:200])
    _smartctl_status(page, number(tool.get("exit_status")))
    passed = part_of(root, "smart_status").get("passed")
    if not isinstance(passed, bool):
        page.gap("the drive's own verdict is missing")
    else:
        page.add(
            "smart_status", "", str(passed).lower(), "", P if passed else F, "" if passed else "the drive says that it fails"
        )
    log = part_of(root, "nvme_smart_health_information_log")
    if log:
        _nvme_log(page, log, _SMARTCTL)
    elif "nvme" in str(part_of(root, "device").get("type")).lower() or part_of(root, "device").get("protocol") == "NVMe":
        page.gap("the SMART log is missing")
    for row in items(part_of(root, "ata_smart_attributes").get("table")):
        when = word(part_of(row).get("when_failed")) or ""
        if when:
            page.add(
                word(part_of(row).get("name")) or "?",
                "",
                when,
                "",
                F if when == "now" else U,
                "an attribute is or was at its threshold",
            )
    if (temperature := number(part_of(root, "temperature").get("current"))) is not None:
        page.add("temperature", "", temperature, "Cel")
    return page


def _smartctl_status(page: Page, status: float | None) -> None:
    if status is None or not 0 <= status < 256:
        page.gap("its exit status is missing")
        return
    bits = int(status)
    if bits & 0b111:
        page.gap(f"exit status {bits}: the drive could not be opened or read")
    if bits & 0b11000:
        page.add("exit_status", "", float(bits), "1", F, "the drive fails, or an attribute is at its threshold")
    if bits & 0b11100000:
        page.add("exit_status", "", float(bits), "1", U, "the drive's logs hold errors, or an attribute was at its threshold")


smartctl = parser("smartctl", _read_smartctl, tolerates=lambda code: 0 <= code < 256 and not code & 0b111)

_NVME = {
    **_SMARTCTL,
    "available_spare": "avail_spare",
    "available_spare_threshold": "spare_thresh",
    "percentage_used": "percent_used",
}


def _read_nvme(text: str) -> Page:
    document = _document("nvme smart-log", text)
    root, page = dict(document.root), Page()
    if "avail_spare" not in root or "critical_warning" not in root:
        raise Unreadable("the JSON is not of nvme smart-log")
    if said := document.beside:
        page.gap(f"beside the JSON: {said}")
    if isinstance(root["critical_warning"], dict):
        root["critical_warning"] = root["critical_warning"].get("value")
    _nvme_log(page, root, _NVME)
    if (kelvin := number(root.get("temperature"))) is not None:
        page.add("temperature", "", kelvin - 273, "Cel")
    return page


nvme = parser("nvme smart-log", _read_nvme)

# --- fio --------------------------------------------------------------------------------------------------------------

_BAD_DATA = {5: "input/output error", 84: "wrong data: verify failed"}


def _read_fio(text: str) -> Page:
    document = _document("fio", text)
    root, page = document.root, Page()
    page.version = word(root.get("fio version"))
    if page.version is None:
        raise Unreadable("the JSON is not of fio")
    if not re.fullmatch(r"fio-[23]\.[\w.+-]{1,40}", page.version):
        raise Unreadable(f"{page.version[:40]} is not one that we know to read (fio-2, fio-3)")
    if said := document.beside:
        page.gap(f"beside the JSON: {said}")
    if not items(root.get("jobs")):
        page.gap("no job is in it")
    for job in items(root.get("jobs")):
        _job(page, part_of(job))
    return page


def _job(page: Page, job: dict[str, Any]) -> None:
    name, moved = word(job.get("jobname")) or "?", 0
    if name == "?":
        page.gap("a job has no name")
    error = number(job.get("error"))
    if error is None:
        page.gap(f"job {name} does not say whether it failed")
    elif error:
        why = _BAD_DATA.get(int(error), f"errno {error:g}: it could not run")
        page.add("error", name, error, "1", F if int(error) in _BAD_DATA else E, why)
    if (total := number(job.get("total_err"))) is not None and total > 0:
        page.add("total_err", name, total, "1", F, "input/output errors")
    for way in ("read", "write", "trim"):
        side = part_of(job, way)
        if not number(side.get("io_bytes")) and not number(side.get("total_ios")):
            continue
        moved += 1
        rate = number(side.get("bw_bytes"))
        if rate is None and (kib := number(side.get("bw"))) is not None:
            rate = kib * 1024
        if rate is None or number(side.get("iops")) is None:
            page.gap(f"job {name}: {way} has no bandwidth")
            continue
        page.add(f"{way}.bw", name, rate / 1e9, "GB/s")
        page.add(f"{way}.iops", name, number(side.get("iops")), "1/s")
        if (mean := number(part_of(side, "lat_ns").get("mean"))) is not None:
            page.add(f"{way}.latency", name, mean / 1e3, "us")
    if not moved:
        page.gap(f"job {name} moved nothing")


fio = parser("fio", _read_fio, measures=True)
