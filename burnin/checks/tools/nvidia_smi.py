"""nvidia-smi -q -x (XML), -q (text) and nvlink -s.

nvidia-smi has no verdict of its own; the driver has words for what is bad, and those are read: a remap that failed or is
pending, a repair that is pending, a recovery action, fabric status and health, a GPU that is lost. Counters are values: whether
they grew is judged where the run is known, so one that is not 0 is UNKNOWN here. "Completed" and "Success" do not make a fabric
healthy. What every part must show (ECC counters, remap flags, fabric health of a GPU behind switches) is UNKNOWN when it is N/A;
what only some have is left out.
Complete is an XML document that closes and has as many GPUs as it says are attached. Text has no end mark: never PASS.
Sources: the DTD named in the XML (nvsmi_device_v11 to v13.dtd); captures of GB200, GB300, H100, L40S.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.parsers import expat

from burnin.checks.tools.reading import Outcome, Page, Unreadable, complaint, number, parser, stranger

P, F, U, E = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR

ABSENT = {"", "N/A", "[N/A]", "Not Supported", "[Not Supported]", "Not Available", "Insufficient Permissions",
          "[Insufficient Permissions]", "Requested functionality has been deprecated"}  # fmt: skip
_BROKEN = {"GPU is lost": F, "[GPU is lost]": F, "GPU requires reset": F, "[GPU requires reset]": F,
           "Unknown Error": E, "[Unknown Error]": E, "ERR!": E}  # fmt: skip

_FLAGS = {
    "remapped_rows/remapped_row_failure": "a row could not be remapped",
    "remapped_rows/remapped_row_pending": "a row remap waits for a reset",
    "retired_pages/pending_retirement": "a page retirement waits for a reset",
    "ecc_errors/channel_repair_pending": "a channel repair waits for a reset",
    "ecc_errors/tpc_repair_pending": "a TPC repair waits for a reset",
    "ecc_errors/unrepairable_memory": "memory cannot be repaired",
    "ecc_errors/aggregate/sram_threshold_exceeded": "SRAM errors are above NVIDIA's threshold",
}
_WORDS: dict[str, tuple[str, str, str]] = {
    "gpu_recovery_action": ("None", "", r"(GPU )?Reset|(Node )?Reboot|Drain( P2P| and Reset)"),
    "fabric/state": ("Completed", "In Progress|Not Started", ""),
    "fabric/status": (
        "Success", "",
        r"(Insufficient|Invalid|Not|Timeout|Unknown|Corrupted|Driver|Function|In use|No data|Operation|Interrupt|Fail)\b.{0,60}",
    ),
    "fabric/health/summary": ("Healthy", "", "Unhealthy|Limited Capacity"),
    "fabric/health/bandwidth": ("Full", "", "Degraded"),
    "fabric/health/route_recovery_in_progress": ("False", "True", ""),
    "fabric/health/route_unhealthy": ("False", "", "True"),
    "fabric/health/access_timeout_recovery": ("False", "", "True"),
    "fabric/health/incorrect_configuration": ("None", "", r"(Incorrect|No|Insufficient|Incompatible|Invalid)\b.{0,60}"),
}  # fmt: skip
"""Path -> the good word, words that prove nothing, bad words. Another word is ERROR: it condemns nobody."""
_SLOWED = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
_UNCORRECTED = re.compile(r"ecc_errors/volatile/(dram_uncorrectable|sram_uncorrectable(_parity|_secded)?|double_bit/\w+)")
_VALUES = re.compile(
    r"(ecc_errors/(volatile|aggregate|aggregate_uncorrectable_sram_sources)(/double_bit|/single_bit)?|remapped_rows|clocks_event_reasons_counters)/\w+"
    r"|retired_pages/\w+/retired_count"
    r"|temperature/(gpu_temp|gpu_temp_tlimit|memory_temp)|(gpu|module|gpu_memory)_power_readings/\w+_power_(draw|limit)"
    r"|clocks/(sm|mem)_clock|utilization/gpu_util|pci/replay_counter|pci/pci_gpu_link_info/(pcie_gen|link_widths)/(max|current)_link_\w+"
)
_NAMES = re.compile(
    r"product_name|serial|uuid|vbios_version|gpu_part_number|board_part_number|platformInfo/\w+|fabric/(cliqueId|clusterUuid)"
)
_UNITS = {"C": "Cel", "W": "W", "MHz": "MHz", "us": "us", "%": "%", "MiB": "MiB", "": "1"}
_VALUE = re.compile(r"(-?[\d.]{1,20})x?(?: (C|W|MHz|us|%|MiB))?", re.ASCII)

_RACK = re.compile(r"\b[GV][BR]\d{3}\b")
"""Superchips of NVL72 racks: GB200, GB300, VR200. An HGX box has Completed and Success too, with a cluster UUID of zeros."""

Fields = Mapping[str, str]
"""Of one GPU: path of the XML -> text."""


def judge(page: Page, gpu: str, fields: Fields) -> None:
    """The rows of one GPU."""
    broken = {text: [p for p, t in fields.items() if t == text] for text in sorted(set(fields.values()) & set(_BROKEN))}
    for text, paths in broken.items():
        page.add("gpu", gpu, text, "", _BROKEN[text], f"in {len(paths)} fields, the first is {paths[0]}")
    for path, text in fields.items():
        if text in ABSENT or text in _BROKEN:
            continue
        if _NAMES.fullmatch(path):
            page.add(path, gpu, text)
        elif _VALUES.fullmatch(path) and (match := _VALUE.fullmatch(text)) and number(match[1]) is not None:
            grown = bool(_UNCORRECTED.fullmatch(path)) and number(match[1]) != 0
            why = "uncorrectable errors since the driver was loaded: whether in this run, their growth says" if grown else ""
            page.add(path, gpu, number(match[1]), _UNITS[match[2] or ""], U if grown else Outcome.MEASURED, why)
    _flags(page, gpu, fields)
    _whole(page, gpu, fields)
    _memory(page, gpu, fields)
    _fabric(page, gpu, fields)
    _word(page, gpu, fields, "gpu_recovery_action")
    for name, text in fields.items():
        if name.startswith(("clocks_event_reasons/", "clocks_throttle_reasons/")) and name.endswith(_SLOWED) and text == "Active":
            page.add(name, gpu, text, "", U, "the hardware slows this GPU down now")


def _flags(page: Page, gpu: str, fields: Fields) -> None:
    for path, bad in _FLAGS.items():
        text = fields.get(path, "")
        if text in ABSENT or text in _BROKEN:
            continue
        result = {"No": P, "Yes": F}.get(text, E)
        page.add(path, gpu, text, "", result, bad if result is F else "" if result is P else "neither Yes nor No")
    seen = {row.name for row in page.rows if row.part == gpu}
    if len(seen & {"remapped_rows/remapped_row_failure", "remapped_rows/remapped_row_pending"}) == 1:
        page.add("remapped_rows", gpu, None, "", U, "one of its two flags cannot be read")
    elif not seen & {"remapped_rows/remapped_row_failure", "retired_pages/pending_retirement"}:
        page.add("remapped_rows", gpu, None, "", U, "neither remapped rows nor retired pages can be read")


def _whole(page: Page, gpu: str, fields: Fields) -> None:
    """A GPU that is cut into instances shows a job a part of itself; one without MIG says N/A."""
    if fields.get("mig_mode/current_mig") == "Enabled":
        page.add("mig_mode", gpu, "Enabled", "", U, "MIG is on: a load reaches a part of this GPU")


def _memory(page: Page, gpu: str, fields: Fields) -> None:
    mode = fields.get("ecc_mode/current_ecc", "")
    if mode != "Enabled":
        page.add("ecc_mode", gpu, mode or None, "", U, "ECC is not on: memory errors are not counted")
        return
    page.add("ecc_mode", gpu, mode, "", P)
    counted = {p for p, t in fields.items() if p.startswith("ecc_errors/volatile/") and number(t) is not None}
    for kind in ("dram_uncorrectable", "sram_uncorrectable"):
        if not any(kind in path or "double_bit" in path for path in counted):
            page.add(f"ecc_errors/volatile/{kind}", gpu, None, "", U, "ECC is on, but the counter cannot be read")


def _fabric(page: Page, gpu: str, fields: Fields) -> None:
    """A GPU behind NVLink switches of a rack must say that it is healthy; others have no fabric, or no health."""
    uuid = fields.get("fabric/clusterUuid", "")
    zero = not uuid.strip("0-") or uuid in ABSENT
    named = bool(_RACK.search(fields.get("product_name", "")))
    rack = named or not zero
    state = fields.get("fabric/state", "")
    if state in ABSENT and fields.get("fabric/health/summary", "") in ABSENT and not rack:
        return
    for path in ("fabric/state", "fabric/status"):
        if fields.get(path, "") in ABSENT:
            known = F if fields.get(path) == "Not Supported" else U
            page.add(path, gpu, fields.get(path), "", known, "this GPU takes part in no NVLink fabric")
        else:
            _word(page, gpu, fields, path)
    if named and zero and fields.get("fabric/status") == "Success":
        page.add("fabric/clusterUuid", gpu, uuid or None, "", F, "it belongs to no NVLink domain")
    for path in _WORDS:
        if path.startswith("fabric/health/"):
            _word(page, gpu, fields, path)
    if rack and fields.get("fabric/health/summary", "") in ABSENT:
        page.add("fabric/health/summary", gpu, None, "", U, "the health of the fabric cannot be read")


def _word(page: Page, gpu: str, fields: Fields, path: str) -> None:
    text = fields.get(path, "")
    if text in ABSENT or text in _BROKEN:
        return
    good, unclear, bad = _WORDS[path]
    if text == good:
        result, why = P, ""
    elif re.fullmatch(unclear, text):
        result, why = U, "not yet, or not now"
    else:
        result, why = (F, f"not {good}") if re.fullmatch(bad, text) else (E, "a word that we do not know")
    page.add(path, gpu, text[:80], "", result, why)


# --- XML --------------------------------------------------------------------------------------------------------------

_DTD = re.compile(r"nvsmi_device_v(1[123])\.dtd")
_DEPTH = 32
_MANY = 1024


class _Tree:
    """Paths and texts of one document. Entities are refused: neither ours to fetch nor ours to multiply."""

    def __init__(self) -> None:
        self.dtd: str | None = None
        self.path: list[str] = []
        self.text: list[str] = []
        self.top: dict[str, str] = {}
        self.gpus: list[tuple[str, dict[str, str]]] = []
        self.closed = False

    def parse(self, text: str) -> None:
        reader = expat.ParserCreate()
        reader.buffer_text = True
        reader.StartDoctypeDeclHandler = self.doctype
        reader.EntityDeclHandler = self.entity
        reader.StartElementHandler = self.start
        reader.EndElementHandler = self.end
        reader.CharacterDataHandler = self.text.append
        reader.ExternalEntityRefHandler = None
        reader.SkippedEntityHandler = self.entity  # one that was never declared would vanish, and a field with it
        try:
            reader.Parse(text.encode("utf-8", "replace"), True)
        except expat.ExpatError as error:
            raise Unreadable(f"the XML is cut or broken: {error}") from None

    def doctype(self, _name: str, system: str | None, _public: str | None, _internal: bool) -> None:
        self.dtd = system

    def entity(self, *_declared: object) -> None:
        raise Unreadable("the XML has entities: refused")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        if len(self.path) > _DEPTH:
            raise Unreadable("the XML is nested too deeply")
        if len(self.path) == 2 and name == "gpu" and len(self.gpus) == _MANY:
            raise Unreadable(f"more than {_MANY} GPUs")
        if len(self.path) == 2 and name == "gpu":
            self.gpus.append((attributes.get("id", ""), {}))
        self.text.clear()

    def end(self, _name: str) -> None:
        said = "".join(self.text).strip()
        self.text.clear()
        if len(self.path) > 2 and self.path[1] == "gpu" and "processes" not in self.path[2]:
            self.gpus[-1][1].setdefault("/".join(self.path[2:]), said)
        elif len(self.path) == 2:
            self.top.setdefault(self.path[1], said)
        elif self.path == ["nvidia_smi_log"]:
            self.closed = True
        self.path.pop()


def _read_xml(text: str) -> Page:
    begin = re.search(r"<\?xml|<!DOCTYPE|<nvidia_smi_log", text)
    if begin is None:
        raise stranger("nvidia-smi -q -x", text)
    tag = "</nvidia_smi_log>"
    end = text.rfind(tag)
    if end < 0:
        raise Unreadable("the XML does not close: it was cut")
    tree, page = _Tree(), Page()
    tree.parse(text[begin.start() : end + len(tag)])
    page.version = tree.top.get("driver_version")
    if not tree.closed or not _DTD.fullmatch(tree.dtd or ""):
        raise Unreadable(f"its DTD is {tree.dtd!r}, not one that we know to read (nvsmi_device_v11 to v13.dtd)")
    if said := complaint([*text[: begin.start()].split("\n"), *text[end + len(tag) :].split("\n")]):
        page.gap(f"beside the XML: {said}")
    attached = number(tree.top.get("attached_gpus"))
    if attached is None or attached != len(tree.gpus):
        page.gap(f"{tree.top.get('attached_gpus')} GPUs are attached, {len(tree.gpus)} are described")
    if len({gpu for gpu, _ in tree.gpus}) != len(tree.gpus):
        page.gap("two GPUs have one id")
    for gpu, fields in tree.gpus:
        if not fields.get("uuid") and not set(fields.values()) & set(_BROKEN):
            page.gap(f"GPU {gpu} does not say who it is")
        judge(page, gpu, fields)
    return page


query_xml = parser("nvidia-smi -q -x", _read_xml)

# --- text of -q -------------------------------------------------------------------------------------------------------

_TEXT_PATHS = {
    "Product Name": "product_name", "Serial Number": "serial", "GPU UUID": "uuid", "VBIOS Version": "vbios_version",
    "GPU Recovery Action": "gpu_recovery_action", "MIG Mode/Current": "mig_mode/current_mig",
    "ECC Mode/Current": "ecc_mode/current_ecc",
    "Fabric/State": "fabric/state", "Fabric/Status": "fabric/status", "Fabric/CliqueId": "fabric/cliqueId",
    "Fabric/ClusterUUID": "fabric/clusterUuid", "Fabric/Health/Summary": "fabric/health/summary",
    "Fabric/Health/Bandwidth": "fabric/health/bandwidth", "Fabric/Health/Route Unhealthy": "fabric/health/route_unhealthy",
    "Fabric/Health/Route Recovery in progress": "fabric/health/route_recovery_in_progress",
    "Fabric/Health/Access Timeout Recovery": "fabric/health/access_timeout_recovery",
    "Fabric/Health/Incorrect Configuration": "fabric/health/incorrect_configuration",
    "Platform Info/Peer Type": "platformInfo/peer_type", "Platform Info/Module Id": "platformInfo/module_id",
    "Remapped Rows/Pending": "remapped_rows/remapped_row_pending",
    "Remapped Rows/Uncorrectable Error": "remapped_rows/remapped_row_unc",
    "Remapped Rows/Correctable Error": "remapped_rows/remapped_row_corr",
    "Remapped Rows/Remapping Failure Occurred": "remapped_rows/remapped_row_failure",
    "Retired Pages/Pending Page Blacklist": "retired_pages/pending_retirement",
    "ECC Errors/Volatile/DRAM Uncorrectable": "ecc_errors/volatile/dram_uncorrectable",
    "ECC Errors/Volatile/SRAM Uncorrectable": "ecc_errors/volatile/sram_uncorrectable",
    "ECC Errors/Volatile/SRAM Uncorrectable Parity": "ecc_errors/volatile/sram_uncorrectable_parity",
    "ECC Errors/Volatile/SRAM Uncorrectable SEC-DED": "ecc_errors/volatile/sram_uncorrectable_secded",
    "ECC Errors/Aggregate/SRAM Threshold Exceeded": "ecc_errors/aggregate/sram_threshold_exceeded",
}  # fmt: skip
_LINE = re.compile(r"( *)([A-Za-z][^:\n]{0,60}?) *(?:: (.{0,400}))?")
_GPU = re.compile(r"GPU ([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)")


def _read_text(text: str) -> Page:
    page, blocks, head = Page(), list[tuple[str, dict[str, str]]](), dict[str, str]()
    stack: list[tuple[int, str]] = []
    for line in text.split("\n"):
        if match := _GPU.fullmatch(line.strip()):
            blocks.append((match[1], {}))
            stack = []
            continue
        match = _LINE.fullmatch(line.rstrip()[:600])
        if match is None:
            continue
        indent = len(match[1])
        while stack and stack[-1][0] >= indent:
            stack.pop()
        path = "/".join([*(key for _, key in stack[:_DEPTH]), match[2]])
        stack.append((indent, match[2]))
        if match[3] is not None:
            if path.startswith("Fabric/") and not blocks:
                blocks.append(("", {}))
            (blocks[-1][1] if blocks else head).setdefault(_TEXT_PATHS.get(path, path), match[3].strip())
    if len(blocks) > _MANY:
        raise Unreadable(f"more than {_MANY} GPUs")
    if not blocks or not ("NVSMI LOG" in text or any(p.startswith("fabric/") for p in blocks[0][1])):
        raise stranger("nvidia-smi -q", text)
    sections = _sections(blocks[0][1])
    page.version = head.get("Driver Version")
    if page.version is None or not re.fullmatch(r"[45]\d\d\.\d+(\.\d+)?", page.version):
        page.gap(f"driver version {page.version} is not one whose text we know to read (4xx, 5xx)")
    if number(head.get("Attached GPUs")) != len(blocks):
        page.gap(f"{head.get('Attached GPUs')} GPUs are attached, {len(blocks)} are described")
    for gpu, fields in blocks:
        if "product_name" not in fields:
            page.gap(f"GPU {gpu or '?'}: not a whole report")
        elif not _sections(fields) >= sections:
            page.gap(f"GPU {gpu}: sections of the first GPU are missing: it was cut")
        judge(page, gpu, fields)
    page.endless = True
    return page


def _sections(fields: Fields) -> set[str]:
    return {path.split("/")[0] for path in fields if "/" in path} - {"Processes"}


query_text = parser("nvidia-smi -q", _read_text)

# --- nvlink -s --------------------------------------------------------------------------------------------------------

_NVLINK_GPU = re.compile(r"GPU (\d+): (.{1,80}) \(UUID: ([\w-]{1,60})\)")
_NVLINK = re.compile(r"Link (\d+): (?:([\d.]+) GB/s|(<inactive>)|(.{0,60}))", re.ASCII)


def _read_nvlink(text: str) -> Page:
    page, links, gpu = Page(), dict[str, list[int]](), ""
    for line in text.split("\n"):
        line = line.strip()
        if match := _NVLINK_GPU.fullmatch(line):
            gpu = f"GPU {match[1]}"
            links[gpu] = []
        elif match := _NVLINK.fullmatch(line):
            if gpu not in links:
                page.gap("a link before any GPU")
                continue
            links[gpu].append(int(match[1][:6]))
            speed = number(match[2])
            result = Outcome.MEASURED if speed else F if match[3] or speed == 0 else E
            page.add("link", f"{gpu} link {match[1]}", speed if speed is not None else match[3] or match[4], "GB/s",
                      result, "" if speed else "inactive" if result is F else "not a speed")  # fmt: skip
        elif line and links:
            page.gap(f"a line was not understood: {line[:80]!r}")
    if not links:
        raise stranger("nvidia-smi nvlink -s", text)
    most = max(len(numbers) for numbers in links.values())
    for name, numbers in links.items():
        if len(numbers) != most or not numbers or numbers != list(range(most)):
            page.gap(f"{name} shows links {numbers[:40]}, another GPU {most}: it was cut, or links are missing")
    page.endless = True
    return page


nvlink = parser("nvidia-smi nvlink -s", _read_nvlink)
