"""A rack and its profile as data: what exists, where it answers, what it must reach.

Values only: files are read by `burnin.rack.load`. Units are in the names or beside the value; a number that nobody
published is null, and what would be judged against it is UNKNOWN.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from burnin.rack.data import Data as Data
from burnin.rack.data import Mistake, mistakes, together
from burnin.rack.folded import parts_of, same_address
from burnin.rack.parts import KINDS, is_part, kind

INTERLOCKS = (
    "rack_identity", "gpu_margin", "coolant_flow", "coolant_supply", "coolant_pressure", "leak", "leak_policy",
    "switch_trays", "fabric", "power_shelves", "dew_point",
)  # fmt: skip
"""Every interlock a profile may ask for; `burnin.run.interlocks` says which of them this version can read."""
WHERE_READ = ("dew_point",)
"""Interlocks that hold wherever somebody offers to read them, asked for or not."""

GUARDED = (
    "gpu_margin", "tray_lost", "leak", "leaking_trays", "coolant_flow", "coolant_supply", "coolant_rise", "power_shelves",
    "bmc_stale",
)  # fmt: skip
"""Everything a guard can watch; `burnin.run.guard_rules` says what each reads."""

SUPPLY = ("rack.power", "rack.power_rate", "rack.power_base", "loop.heat", "loop.heat_rate", "loop.heat_base")
"""What load must stay within: kW and kW/s of the rack's supply and of what carries its heat away, and what all but GPUs take."""

FIRMWARE = ("vbios", "inforom", "driver")
"""What the inventory audit compares; a name that it does not know would never be looked at."""


def _secret(value: str) -> str:
    if not re.fullmatch(r"env:[A-Za-z_]\w*|file:.+|keyring:[^/]+/[^/]+", value):
        raise ValueError("a secret is named, never written here: env:NAME, file:PATH or keyring:SERVICE/USER")
    return value


def _https(value: str) -> str:
    if not re.fullmatch(r"https://[^\s/@?#]+(/[^\s@]*)?", value):
        raise ValueError("expected https://HOST or https://HOST:PORT, without a user or a password in it")
    return value


def _day(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a day (2026-12-31)") from None
    return value


def _kind(value: str) -> str:
    if value not in KINDS:
        raise ValueError(f"{value!r} is no kind of part; expected one of {', '.join(KINDS)}")
    return value


def _compute_tray(part: str) -> str:
    if not is_part(part) or kind(part) != "compute tray":
        raise ValueError(f"{part!r} is not a compute tray (t00 ... t17)")
    return part


def _serial(value: str) -> str:
    if not re.fullmatch(r"\S+", value):
        raise ValueError(f"{value!r} is no serial number; expected one without blanks, or leave it out")
    return value


def _audited(name: str) -> str:
    if name not in FIRMWARE:
        raise ValueError(f"{name!r} is not audited; expected one of {', '.join(FIRMWARE)}")
    return name


Secret = Annotated[str, AfterValidator(_secret)]
Https = Annotated[str, AfterValidator(_https)]
Day = Annotated[dt.date, BeforeValidator(_day)]
Serial = Annotated[str, AfterValidator(_serial)]
Port = Annotated[int, Field(ge=1, le=65535)]


# ---------------------------------------------------------------- profile: what one architecture is and must reach


_BOUNDS = {"min", "max", "equals"}


class Limit(Data):
    """One limit with unit and source. A null bound is a limit nobody has published: UNKNOWN, never PASS."""

    min: float | None = None
    max: float | None = None
    equals: float | str | None = None
    unit: str = Field(min_length=1, description="a unit, or 1 for a count or a share")
    source: str = Field(min_length=1, description="where the number comes from")
    mark: Literal["documented", "reported", "derived", "estimated"] = "documented"

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        given = self.model_fields_set & _BOUNDS
        if not given:
            raise ValueError("a limit has min, max or equals (null where nobody published it)")
        if "equals" in given and len(given) > 1:
            raise ValueError("a limit has either equals, or min and max")
        if len({getattr(self, bound) is None for bound in given}) > 1:
            raise ValueError("one bound is null and the other is not: leave the unknown one out")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"can never be met: min {self.min:g} is above max {self.max:g}")
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A bound that was not given stays away: null would say that nobody has published it."""
        return {key: value for key, value in dump(self).items() if key not in _BOUNDS or key in self.model_fields_set}

    @property
    def known(self) -> bool:
        """False when every bound given is null."""
        return any(bound is not None for bound in (self.min, self.max, self.equals))

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        if not self.known:
            return "no limit known"
        if self.equals is not None:
            return f"= {self.equals if isinstance(self.equals, str) else format(self.equals, 'g')}{unit}"
        bounds = [f">= {self.min:g}{unit}"] if self.min is not None else []
        return " and ".join(bounds + ([f"<= {self.max:g}{unit}"] if self.max is not None else []))


class Topology(Data):
    """How many of what. A count nobody published is null."""

    compute_trays: int = Field(ge=1, le=18)
    gpus_per_tray: int = Field(ge=1, le=8)
    cpus_per_tray: int | None = Field(ge=0, le=8)
    nics_per_tray: int | None = Field(default=None, ge=0, le=32, description="network cards, by PCI device")
    nvmes_per_tray: int | None = Field(default=None, ge=0, le=32)
    switch_trays: int = Field(default=0, ge=0, le=9)
    asics_per_switch_tray: int | None = Field(default=0, ge=0, le=8)
    links_per_gpu: int | None = Field(default=None, ge=0, le=36)
    power_shelves: int | None = Field(default=0, ge=0, le=10)
    psus_per_shelf: int | None = Field(default=None, ge=0, le=10)
    cable_cartridges: int | None = Field(default=0, ge=0, le=10)

    def trays(self) -> list[str]:
        """t00 ... in order."""
        return [f"t{i:02}" for i in range(self.compute_trays)]

    def gpus(self, tray: str) -> list[str]:
        """GPUs of one tray in module order: t07.g0 ... t07.g3."""
        return [f"{tray}.g{i}" for i in range(self.gpus_per_tray)]

    def switches(self) -> list[str]:
        """s0 ... in order."""
        return [f"s{i}" for i in range(self.switch_trays)]


class Gpu(Data):
    """What one GPU calls itself and what it is made for."""

    names: list[str] | None = Field(min_length=1, description="as NVML prints it; any of them is right")
    pci: str | None = None
    power_limit_w: float | None = None
    power_limit_min_w: float | None = None
    memory_mib: int | None = None
    clock_sm_max_mhz: float | None = None
    clock_mem_mhz: float | None = None
    source: str = Field(min_length=1)


class Guarded(Data):
    """One thing the guard watches: beyond `limit`, or unread for `blind_s`, load ends on this GPU, tray, or the whole rack."""

    limit: Limit
    ends: Literal["gpu", "tray", "rack"] = "rack"
    blind_s: float | None = Field(default=None, gt=0, description="unread for so long is taken for bad; left out: never")
    step: Limit | None = Field(default=None, description="bmc_stale: the move of a GPU's power (min, W) that a BMC has to follow")

    @model_validator(mode="after")
    def _a_number(self) -> Self:
        if not self.limit.known:
            raise ValueError("a guard needs a known limit; what nobody has published cannot be guarded")
        if self.step is not None and not (self.step.unit == "W" and self.step.min is not None and self.step.min > 0):
            raise ValueError("a step is a min above 0 in W")
        return self


class Profile(Data):
    """One architecture: topology, GPU, limits, interlocks, and what its replaceable parts are called."""

    profile: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="lower-case letters, digits and dashes")
    about: str
    topology: Topology
    gpu: Gpu
    rack_identity: bool = Field(description="true where NVML reports chassis serial and tray index")
    limits: dict[str, Limit]
    lacks: list[str] = Field(default_factory=list, description="metrics that cannot be read here, so that no check asks")
    interlocks: list[Literal[INTERLOCKS]]  # type: ignore[valid-type]
    guard: dict[Literal[GUARDED], Guarded] = Field(  # type: ignore[valid-type]
        default_factory=dict, description="what is watched all the time, in a process of its own"
    )
    frus: dict[Annotated[str, AfterValidator(_kind)], str] = Field(
        description="kind of part (GPU, compute tray ...) -> what is pulled and replaced"
    )

    @model_validator(mode="after")
    def _a_step(self) -> Self:
        for name, rule in self.guard.items():
            if (name == "bmc_stale") != (rule.step is not None):
                raise ValueError(f"guard: {name} has {'no' if rule.step is None else 'a'} step: bmc_stale alone needs one")
        return self


# ---------------------------------------------------------------- rack: one of them, and where it answers


class Ssh(Data):
    """How to reach the trays. Paths are relative to the rack file."""

    user: str = "root"
    port: Port = 22
    key: str | None = None
    known_hosts: str
    become: Literal["sudo"] | None = None
    jump: str | None = Field(default=None, pattern=r"^([^@\s:]+@)?[^@\s:]+(:\d+)?$", description="user@host:port")
    dir: str = Field(
        default=".burnin",
        pattern=r"^[\w./@+-]+$",
        description="a private directory on the tray, from its login directory (letters, digits, . / @ + - _)",
    )
    python: str = Field(
        default="python3", pattern=r"^[\w./@+-]+$", description="the trays' Python, 3.9 or newer (a name or a path)"
    )
    connect_timeout_s: float = Field(default=10, gt=0, le=120)


class Address(Data):
    """Where one tray answers; what is absent comes from `ssh`."""

    host: str = Field(pattern=r"^[\w.:%-]+$", description="a name or an IP address; many are written 10.1.1.[11-28]")
    port: Port | None = None
    user: str | None = None
    key: str | None = None
    become: Literal["sudo", "none"] | None = None


class Bmc(Data):
    """One BMC's Redfish service."""

    url: Https
    ca: str
    secret: Secret
    user: str | None = None


_KINDS = {
    "flow": ("L/min", "m3/h", "[gal_us]/min"), "supply_temp": ("Cel", "[degF]"), "return_temp": ("Cel", "[degF]"),
    "dp": ("kPa", "bar", "[psi]"), "pressure": ("kPa", "bar", "[psi]"), "pump_speed": ("1/min",), "alarm": ("1",),
}  # fmt: skip


class Register(Data):
    """Where one value stands in a Modbus device, and how a number is made of it: raw x scale + offset, in `unit`."""

    address: int = Field(alias="register", ge=0, le=65535, description="its address, counted from 0")
    table: Literal["holding", "input"] = "holding"
    type: Literal["int16", "uint16", "int32", "uint32", "float32"] = "int16"
    words: Literal["big", "little"] = Field(default="big", description="which word of a 32-bit value comes first")
    scale: float = 1.0
    offset: float = 0.0
    unit: Literal["L/min", "m3/h", "[gal_us]/min", "Cel", "[degF]", "kPa", "bar", "[psi]", "1/min", "1"]
    invalid: list[float] = Field(default_factory=list, description="raw values that say that there is none")


class Modbus(Data):
    """A CDU's registers: the map is the site's. `alarm`: 0 is well; without it nobody says how the CDU is."""

    host: str = Field(pattern=r"^[\w.:%-]+$")
    port: Port = 502
    device: int = Field(default=1, ge=0, le=255, description="unit id")
    registers: dict[Literal[tuple(_KINDS)], Register] = Field(min_length=1)  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _units(self) -> Self:
        found: list[Mistake] = [
            (("registers", name, "unit"), f"{name} is not in {one.unit}; expected {' or '.join(_KINDS[name])}")
            for name, one in self.registers.items()
            if one.unit not in _KINDS[name]
        ]
        if found:
            raise mistakes(found)
        return self


class Coolant(Data):
    """Where the coolant is read: over Redfish, or over Modbus. A row's CDU is not the rack's."""

    redfish: Https | None = None
    ca: str | None = None
    secret: Secret | None = None
    user: str | None = None
    modbus: Modbus | None = None
    scope: Literal["rack", "row"]
    serves: list[str] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.redfish is None) == (self.modbus is None):
            raise ValueError("coolant is read in one way: redfish: https://..., or modbus: {host: ..., registers: ...}")
        missing = [name for name in ("ca", "secret") if getattr(self, name) is None]
        if self.redfish is not None and missing:
            raise ValueError(f"redfish needs {' and '.join(missing)}")
        return self


class Expected(Data):
    """The build record of one tray: its serial, and its GPUs' serials (or UUIDs) in module order."""

    serial: Serial | None = None
    gpus: list[Serial] | None = None


class Waiver(Data):
    """An interlock, or what the guard watches, that a named person sets aside, until a date. It is printed in the verdict."""

    interlock: Literal[tuple(dict.fromkeys((*INTERLOCKS, *GUARDED)))]  # type: ignore[valid-type]
    by: str = Field(pattern=r"\S\s*\S", description="the name of the person who answers for it")
    why: str = Field(min_length=4, pattern=r"\S\s*\S", description="the reason, in words")
    until: Day = Field(description="the last day it holds (2026-12-31)")


class Library(Data):
    """A library of the site's on this controller, and what it must be. The path is relative to the rack file."""

    file: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="as sha256sum prints it")


class FirmwareBaseline(Data):
    """What parts of a good rack say of themselves: versions and settings, by kind of part (`burnin baseline firmware`)."""

    baseline: str = Field(min_length=1, description="its name")
    profile: str
    made_from: str = Field(default="", description="rack and run")
    bmc: dict[str, str] = Field(default_factory=dict, description="component of the BMCs' firmware inventory -> version")
    tray: dict[str, str] = Field(default_factory=dict, description="driver, cuda, kernel, bios ... of every compute tray")
    gpu: dict[str, str] = Field(default_factory=dict, description="vbios, inforom, and settings of every GPU")
    switch: dict[str, str] = Field(default_factory=dict, description="component -> version of every switch tray")

    def of(self, kind: str) -> dict[str, str]:
        """One section by its name."""
        return {"bmc": self.bmc, "tray": self.tray, "gpu": self.gpu, "switch": self.switch}[kind]


class Rack(Data):
    """One rack: its serial, profile, and where its parts answer."""

    rack: str = Field(pattern=r"^[\w.:-]+$", description="the rack's serial number (letters, digits, . : - _)")
    profile: str
    ssh: Ssh | None = None
    trays: Annotated[dict[str, Address], parts_of("compute tray", "switch tray")] = Field(
        min_length=1, description="at least one tray"
    )
    bmc: Annotated[dict[str, Bmc], parts_of("compute tray", "switch tray", "power shelf")] = Field(default_factory=dict)
    coolant: Coolant | None = None
    chassis: Serial | None = Field(default=None, description="chassis serial that every tray must report")
    expect: dict[Annotated[str, AfterValidator(_compute_tray)], Expected] = Field(default_factory=dict)
    firmware: dict[Annotated[str, AfterValidator(_audited)], str] = Field(
        default_factory=dict, description="vbios, inforom, driver that every tray must report"
    )
    firmware_audit: dict[str, str] = Field(
        default_factory=dict, description="component of the BMC's firmware inventory -> version that every tray must have"
    )
    firmware_baseline: str | None = Field(
        default=None, description="a file that `burnin baseline firmware` made, relative to this one: what every part must say"
    )
    firmware_stated: FirmwareBaseline | None = Field(default=None, description="what that file says; filled in when this is read")
    waive: list[Waiver] = Field(default_factory=list)
    power: dict[Literal[SUPPLY], Limit] = Field(  # type: ignore[valid-type]
        default_factory=dict, description="what this place bears, above or below the profile's limits of the same names"
    )
    nccl: dict[Literal["aarch64", "x86_64"], Library] = Field(
        default_factory=dict, description="the site's libnccl.so.2 per architecture of the trays; else what they have themselves"
    )
    allow: list[Literal["power_cycle", "power_off_on_leak", "gpu_reset", "other_trays", "redundancy"]] = Field(
        default_factory=list
    )

    @model_validator(mode="wrap")
    @classmethod
    def _one_address_each(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        valid: Self = together(data, handler, same_address(data))
        return valid

    def compute(self) -> list[str]:
        """Compute trays in order."""
        return sorted(p for p in self.trays if p.startswith("t"))

    def switches(self) -> list[str]:
        """Switch trays in order."""
        return sorted(p for p in self.trays if p.startswith("s"))


class Site(Data):
    """Site policy: what a rack must have passed before it ships."""

    ships_after: str = Field(description="name of the suite the gate asks for")
    max_age_days: float | None = Field(default=None, gt=0, description="an older PASS is not accepted")
    baseline: str | None = Field(default=None, description="fleet baseline that runs are judged with, beside this file")


# ---------------------------------------------------------------- catalogue: metrics, XIDs, signatures


class Metric(Data):
    """One thing that can be read."""

    unit: str = Field(min_length=1)
    counter: bool = Field(default=False, description="only ever grows; judged by its growth")
    slow: bool = Field(default=False, description="read every `sample_slow`, not every `sample`")
    per_link: bool = Field(default=False, description="read of every NVLink, every `sample_links`")
    transient: bool = Field(default=False, description="read only in stages that ask for it, every `sample_power`")
    about: str


class Xid(Data):
    """What one XID means in burn-in: `gate` FAIL condemns the GPU, HOLD wants a look, WATCH is written down."""

    name: str
    gate: Literal["FAIL", "HOLD", "WATCH"]
    action: str
    source: str


class SignatureRow(Data):
    """One early-failure signature: what it means and where its limits come from."""

    mechanism: str
    signals: list[str]
    statistic: str
    unit: str
    limits: dict[str, Limit]
    confounders: str
    fru: str
    action: str
    evidence: str
    patterns: dict[str, list[list[int]]] = Field(default_factory=dict, description="XIDs that follow each other, step by step")
    cause: str = Field(
        default="", description="what it looks at (heat, silicon, memory ...); same causes do not confirm each other"
    )


class Catalogue(Data):
    """What burnin knows about metrics, XIDs and signatures; stored with every run."""

    metrics: dict[str, Metric]
    xids: dict[int, Xid]
    signatures: dict[str, SignatureRow]
    kernel: dict[str, Xid] = Field(default_factory=dict, description="what a line of the kernel log means, by its word")
