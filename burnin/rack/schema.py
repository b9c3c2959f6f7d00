"""A rack and its profile as data: what exists, where it answers, what it must reach.

Values only: files are read by `burnin.rack.load`. Units are in the names or beside the value; a number that nobody
published is null, and what would be judged against it is UNKNOWN.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from burnin.rack.parts import is_part, kind, unfold

INTERLOCKS = (
    "rack_identity", "gpu_margin", "coolant_flow", "coolant_supply", "coolant_pressure", "leak", "leak_policy",
    "switch_trays", "fabric", "power_shelves",
)  # fmt: skip
"""Every interlock a profile may ask for; `burnin.run.interlocks` says which of them this version can read."""


class Data(BaseModel):
    """Base of everything read from a file: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _secret(value: str) -> str:
    if not re.fullmatch(r"env:[A-Za-z_]\w*|file:.+", value):
        raise ValueError("a secret is named, never written here: env:NAME or file:PATH (mode 0600)")
    return value


def _compute_tray(part: str) -> str:
    if not is_part(part) or kind(part) != "compute tray":
        raise ValueError(f"{part!r} is not a compute tray (t00 ... t17)")
    return part


Secret = Annotated[str, AfterValidator(_secret)]
Port = Annotated[int, Field(ge=1, le=65535)]


# ---------------------------------------------------------------- profile: what one architecture is and must reach


class Limit(Data):
    """One limit with unit and source. A null bound is a limit nobody has published: UNKNOWN, never PASS."""

    min: float | None = None
    max: float | None = None
    equals: float | str | None = None
    unit: str
    source: str = Field(min_length=1)
    mark: Literal["documented", "reported", "derived", "estimated"] = "documented"

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        given = self.model_fields_set & {"min", "max", "equals"}
        if not given:
            raise ValueError("a limit has min, max or equals (null where nobody published it)")
        if "equals" in given and len(given) > 1:
            raise ValueError("a limit has either equals, or min and max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"can never be met: min {self.min:g} is above max {self.max:g}")
        return self

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

    names: list[str] = Field(min_length=1, description="as NVML prints it; any of them is right")
    pci: str | None = None
    power_limit_w: float | None = None
    power_limit_min_w: float | None = None
    memory_mib: int | None = None
    clock_sm_max_mhz: float | None = None
    clock_mem_mhz: float | None = None
    source: str = Field(min_length=1)


class Profile(Data):
    """One architecture: topology, GPU, limits, interlocks, and what its replaceable parts are called."""

    profile: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    about: str
    topology: Topology
    gpu: Gpu
    rack_identity: bool = Field(description="true where NVML reports chassis serial and tray index")
    limits: dict[str, Limit]
    interlocks: list[Literal[INTERLOCKS]]  # type: ignore[valid-type]
    frus: dict[str, str] = Field(description="kind of part (GPU, compute tray ...) -> what is pulled and replaced")


# ---------------------------------------------------------------- rack: one of them, and where it answers


class Ssh(Data):
    """How to reach the trays. Paths are relative to the rack file."""

    user: str = "root"
    port: Port = 22
    key: str | None = None
    known_hosts: str
    become: Literal["sudo"] | None = None
    jump: str | None = Field(default=None, pattern=r"^([^@\s]+@)?[^@\s:]+(:\d+)?$", description="user@host:port")
    dir: str = Field(
        default=".burnin", pattern=r"^[\w./@+-]+$", description="private directory on the tray, from its login directory"
    )
    connect_timeout_s: float = Field(default=10, gt=0, le=120)


class Address(Data):
    """Where one tray answers; what is absent comes from `ssh`."""

    host: str = Field(min_length=1)
    port: Port | None = None
    user: str | None = None
    key: str | None = None
    become: Literal["sudo", "none"] | None = None


class Bmc(Data):
    """One BMC's Redfish service."""

    url: str = Field(pattern=r"^https://")
    ca: str
    secret: Secret
    user: str | None = None


class Coolant(Data):
    """Where the coolant is read. A row's CDU is not the rack's."""

    redfish: str = Field(pattern=r"^https://")
    ca: str
    secret: Secret
    user: str | None = None
    scope: Literal["rack", "row"]
    serves: list[str] | None = None


class Expected(Data):
    """The build record of one tray: its serial, and its GPUs' serials (or UUIDs) in module order."""

    serial: str | None = None
    gpus: list[str] | None = None


class Waiver(Data):
    """An interlock that a named person sets aside, until a date. It is printed in the verdict."""

    interlock: Literal[INTERLOCKS]  # type: ignore[valid-type]
    by: str = Field(min_length=2)
    why: str = Field(min_length=4)
    until: dt.date


def _unfold_trays(value: Any) -> Any:
    """`t[00-17]: {host: "10.1.1.[11-28]"}` -> one entry per tray. Overrides (`t07: {port: 2222}`) come after and win."""
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for names, fields in value.items():
        parts = unfold(str(names))
        folded = {k: v for k, v in fields.items() if isinstance(v, str) and "[" in v} if isinstance(fields, dict) else {}
        spread = {k: unfold(v) for k, v in folded.items()}
        for key, many in spread.items():
            if len(many) != len(parts):
                raise ValueError(f"{names}: {len(parts)} trays but {key} {folded[key]!r} gives {len(many)}")
        for i, part in enumerate(parts):
            own = {**fields, **{k: v[i] for k, v in spread.items()}} if isinstance(fields, dict) else fields
            if part in out and isinstance(own, dict) and "host" in own and "host" in out[part]:
                raise ValueError(f"{part} is given twice (as {out[part]['host']} and {own['host']})")
            out[part] = {**out.get(part, {}), **own} if isinstance(own, dict) else own
    return out


class Rack(Data):
    """One rack: its serial, profile, and where its parts answer."""

    rack: str = Field(min_length=1, pattern=r"^[\w.:-]+$", description="the rack's serial number")
    profile: str
    ssh: Ssh | None = None
    trays: Annotated[dict[str, Address], BeforeValidator(_unfold_trays)]
    bmc: Annotated[dict[str, Bmc], BeforeValidator(_unfold_trays)] = Field(default_factory=dict)
    coolant: Coolant | None = None
    chassis: str | None = Field(default=None, description="chassis serial that every tray must report")
    expect: dict[Annotated[str, AfterValidator(_compute_tray)], Expected] = Field(default_factory=dict)
    firmware: dict[str, str] = Field(default_factory=dict, description="vbios, inforom, driver ... that every tray must report")
    waive: list[Waiver] = Field(default_factory=list)
    allow: list[Literal["power_cycle", "power_off_on_leak"]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _trays_are_trays(self) -> Self:
        wrong = [p for p in self.trays if not is_part(p) or kind(p) not in ("compute tray", "switch tray")]
        if wrong:
            raise ValueError(f"not trays: {', '.join(wrong)} (t00 ... t17, s0 ... s8)")
        hosts: dict[tuple[str, int | None], str] = {}
        for part, address in self.trays.items():
            there = hosts.setdefault((address.host, address.port), part)
            if there != part:
                raise ValueError(f"{there} and {part} have the same address {address.host}")
        return self

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


# ---------------------------------------------------------------- catalogue: metrics, XIDs, signatures


class Metric(Data):
    """One thing that can be read."""

    unit: str
    counter: bool = False
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


class Catalogue(Data):
    """What burnin knows about metrics, XIDs and signatures; stored with every run."""

    metrics: dict[str, Metric]
    xids: dict[int, Xid]
    signatures: dict[str, SignatureRow]
