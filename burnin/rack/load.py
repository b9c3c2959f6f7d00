"""Reads racks, profiles, the catalogue and site policy, and checks what one file says about another.

Shipped data is looked for, file by file, in $BURNIN_HOME, the current directory, the checkout that holds the package, and
the installed package itself: a site overrides one profile or suite by putting a file of the same name in front.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import burnin
from burnin.errors import InputError, Problem
from burnin.rack.document import Document, Loc, one_of, read
from burnin.rack.folded import unfold_entries
from burnin.rack.parts import is_part, kind, unfold
from burnin.rack.schema import Catalogue, Data, FirmwareBaseline, Metric, Profile, Rack, SignatureRow, Site, Xid
from burnin.rack.yamlfile import check, in_order

PROFILES, SUITES, CATALOGUE, SITE = "inventory/profiles", "test_suites", "inventory/catalogue", "inventory/site.yaml"


# ---------------------------------------------------------------- where shipped data lies


def home() -> list[Path]:
    """Folders that may hold `inventory/` and `test_suites/`, first wins. Raises InputError for a wrong $BURNIN_HOME."""
    package = Path(burnin.__file__).resolve().parent
    places = [Path(), package.parent, package / "_shipped"]
    named = os.environ.get("BURNIN_HOME")
    if named:
        if not Path(named).is_dir():
            raise InputError(
                [Problem("BURNIN_HOME", None, None, f"is {named!r}, which is no folder", "one with inventory/ in it")]
            )
        places.insert(0, Path(named))
    return [place for place in places if (place / "inventory").is_dir() or (place / "test_suites").is_dir()]


def shipped(relative: str) -> Path:
    """The first file of that name. Raises InputError, naming the folders that were searched."""
    for place in home():
        if (place / relative).is_file():
            return place / relative
    searched = ", ".join(map(str, home())) or "no folder with an inventory/ in it was found; set BURNIN_HOME"
    raise InputError([Problem(relative, None, None, "there is no such file", f"it in one of: {searched}")])


def listed(folder: str) -> dict[str, Path]:
    """Name -> file of every YAML file in that folder of any home, sorted by name."""
    found: dict[str, Path] = {}
    for place in home():
        for path in sorted((place / folder).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def named_file(name: str | Path, folder: str, what: str) -> Path:
    """A path as it is given, or the shipped file of that name. Raises InputError, listing what exists."""
    if isinstance(name, Path) or "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    known = listed(folder)
    if name not in known:
        raise InputError([Problem(f"{what} {name!r}", None, None, "does not exist", one_of(known, name))])
    return known[name]


# ---------------------------------------------------------------- profiles, catalogue, site


def list_profiles() -> dict[str, Path]:
    """Name -> file of every profile."""
    return listed(PROFILES)


def load_profile(name_or_path: str | Path) -> Profile:
    """Reads one profile by name or path. Raises InputError."""
    path = named_file(name_or_path, PROFILES, "profile")
    document = read(path)
    valid, problems = check(document, Profile)
    for loc, name in document.each("profile"):
        if isinstance(name, str) and name != path.stem:
            problems.append(document.problem(loc, f"profile is {name!r}, but the file is {path.name}", "the same name"))
    if valid is None or problems:
        raise InputError(in_order(problems))
    return valid


class Metrics(Data):
    """inventory/catalogue/metrics.yaml"""

    metrics: dict[str, Metric]


class Xids(Data):
    """inventory/catalogue/xids.yaml"""

    xids: dict[int, Xid]


class Kernel(Data):
    """inventory/catalogue/kernel.yaml"""

    kernel: dict[str, Xid]


class Signatures(Data):
    """inventory/catalogue/signatures.yaml"""

    signatures: dict[str, SignatureRow]


@cache
def load_catalogue() -> Catalogue:
    """Reads metrics, XIDs, kernel log and signatures, once a process. Raises InputError with the mistakes of all."""
    problems: list[Problem] = []
    metrics, found = check(read(shipped(f"{CATALOGUE}/metrics.yaml")), Metrics)
    problems += found
    xids, found = check(read(shipped(f"{CATALOGUE}/xids.yaml")), Xids)
    problems += found
    kernel, found = check(read(shipped(f"{CATALOGUE}/kernel.yaml")), Kernel)
    problems += found
    document = read(shipped(f"{CATALOGUE}/signatures.yaml"))
    signatures, found = check(document, Signatures)
    problems += found
    if metrics is not None:
        problems += unknown_metrics(document, ("signatures", "*", "signals", "*"), metrics.metrics)
    if metrics is None or xids is None or signatures is None or kernel is None or problems:
        raise InputError(in_order(problems))
    return Catalogue(metrics=metrics.metrics, xids=xids.xids, signatures=signatures.signatures, kernel=kernel.kernel)


def unknown_metrics(document: Document, pattern: tuple[str, ...], metrics: Any) -> Iterator[Problem]:
    """Names at `pattern` that the catalogue does not hold."""
    for loc, name in document.each(*pattern):
        if isinstance(name, str) and name not in metrics:
            yield document.problem(loc, f"metric {name!r} does not exist", one_of(metrics, name))


def load_site(path: str | Path | None = None) -> Site:
    """Reads site policy: inventory/site.yaml, or the file given. Raises InputError."""
    document = read(path or shipped(SITE))
    valid, problems = check(document, Site)
    known = listed(SUITES)
    for loc, name in document.each("ships_after"):
        if isinstance(name, str) and name not in known:
            problems.append(document.problem(loc, f"suite {name!r} does not exist", one_of(known, name)))
    if valid is None or problems:
        raise InputError(in_order(problems))
    return valid


# ---------------------------------------------------------------- racks


@dataclass(frozen=True)
class RackFile:
    """A rack, the profile it names, and the file that its paths are relative to."""

    path: Path
    rack: Rack
    profile: Profile

    def resolve(self, name: str) -> Path:
        """A path written in the rack file: `~` is the user's, anything relative lies beside the file."""
        return _beside(self.path, name)

    @property
    def known_hosts(self) -> Path | None:
        """The rack's own known_hosts; None where the file has no `ssh`."""
        return self.resolve(self.rack.ssh.known_hosts) if self.rack.ssh else None

    def key(self, tray: str) -> Path | None:
        """Private key for one tray; None where ssh-agent or the user's own keys are to be used."""
        name = self.rack.trays[tray].key or (self.rack.ssh.key if self.rack.ssh else None)
        return self.resolve(name) if name else None


def load_rack(path: str | Path, *, need_known_hosts: bool = True, need_keys: bool = True) -> RackFile:
    """Reads one rack and its profile, and checks the one against the other. Raises InputError with every mistake.

    need_known_hosts, need_keys: False for what does not connect (lint, judge) or makes the file (enroll).
    """
    document = read(path)
    rack, problems = check(document, Rack)
    profile, found = _profile_of(document)
    problems += found
    if profile is not None:
        problems += _not_in(document, profile)
        problems += _wrong_record(document, profile)
    if need_keys:
        problems += [*_no_key(document, Path(path)), *_no_library(document, Path(path))]
    if need_known_hosts:
        problems += _no_known_hosts(document, Path(path))
    stated, found = _stated(document, Path(path))
    problems += found
    if rack is None or profile is None or problems:
        raise InputError(in_order(problems))
    return RackFile(Path(path), rack if stated is None else rack.model_copy(update={"firmware_stated": stated}), profile)


def _stated(document: Document, rack: Path) -> tuple[FirmwareBaseline | None, list[Problem]]:
    """The firmware baseline that the rack file names: a run keeps what it says, not where it lies."""
    profile = next((name for _, name in document.each("profile")), None)
    for loc, name in document.each("firmware_baseline"):
        if not isinstance(name, str):
            continue
        if reason := _unreadable(_beside(rack, name)):
            what = f"firmware baseline {_beside(rack, name)} {reason}"
            return None, [document.problem(loc, what, "a file that `burnin baseline firmware RUN -o FILE` made")]
        try:
            stated, problems = check(read(_beside(rack, name)), FirmwareBaseline)
        except InputError as error:
            return None, error.problems
        if stated is not None and stated.profile != profile:
            problems.append(document.problem(loc, f"{name} is of a {stated.profile}", f"one of a {profile}"))
        return stated, problems
    return None, []


def _profile_of(document: Document) -> tuple[Profile | None, list[Problem]]:
    known = list_profiles()
    for loc, name in document.each("profile"):
        if not isinstance(name, str):
            continue
        if name not in known:
            return None, [document.problem(loc, f"profile {name!r} does not exist", one_of(known, name))]
        try:
            return load_profile(known[name]), []
        except InputError as error:
            return None, error.problems
    return None, []


def _beside(file: Path, name: str) -> Path:
    try:
        return file.parent / Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return file.parent / name


def _not_in(document: Document, profile: Profile) -> Iterator[Problem]:
    """Parts that this architecture does not have."""
    topology = profile.topology
    allowed = {"compute tray": topology.trays(), "switch tray": topology.switches()}
    if topology.power_shelves is not None:
        allowed["power shelf"] = [f"p{i}" for i in range(topology.power_shelves)]
    for section in ("trays", "bmc", "expect"):
        entries = document.data.get(section) if isinstance(document.data, dict) else None
        for part in unfold_entries(entries)[0] if isinstance(entries, dict) else ():
            has = allowed.get(kind(part)) if is_part(part) else None
            if has is not None and part not in has:
                expected = f"{has[0]} to {has[-1]}" if len(has) > 1 else "".join(has) or f"no {kind(part)} at all"
                yield document.problem((section, part), f"{part} does not exist in a {profile.profile}", expected, key=True)


def _wrong_record(document: Document, profile: Profile) -> Iterator[Problem]:
    """A build record that cannot be this rack's: too few GPUs, or one serial in two places."""
    wanted = profile.topology.gpus_per_tray
    first: dict[str, str] = {}
    for loc, value in [*document.each("expect", "*", "serial"), *document.each("expect", "*", "gpus")]:
        tray, serials = str(loc[1]), value if isinstance(value, list) else [value]
        if not (is_part(tray) and kind(tray) == "compute tray"):
            continue  # said already
        if isinstance(value, list) and len(value) != wanted:
            yield document.problem(loc, f"expect.{tray}.gpus has {len(value)} entries", f"{wanted} for a {profile.profile}")
        for i, serial in enumerate(serials):
            part, at = (f"{tray}.g{i}", (*loc, i)) if isinstance(value, list) else (tray, loc)
            there = first.setdefault(serial, part) if isinstance(serial, str) else part
            if there != part and not one_board(there, part):
                yield document.problem(at, f"{part} has the serial of {there} ({serial})", "each serial once")


def one_board(one: str, other: str) -> bool:
    """May these two GPUs report one serial? NVML gives the board's: g0 and g1 share one, g2 and g3 another (GB200, GB300)."""
    left, right = one.split(".g"), other.split(".g")
    return len(left) == len(right) == 2 and left[0] == right[0] and int(left[1]) // 2 == int(right[1]) // 2


def _no_key(document: Document, rack: Path) -> Iterator[Problem]:
    keys: list[tuple[Loc, Any]] = [*document.each("ssh", "key"), *document.each("trays", "*", "key")]
    for loc, name in keys:
        for one in _maybe_many(name):
            path = _beside(rack, one)
            reason = _unreadable(path)
            if reason:
                what = f"key file {path} {reason}"
                yield document.problem(loc, what, "a private key that this user may read; or leave key out to use ssh-agent")
                break


def _no_library(document: Document, rack: Path) -> Iterator[Problem]:
    for loc, name in document.each("nccl", "*", "file"):
        reason = _unreadable(_beside(rack, name)) if isinstance(name, str) else ""
        if reason:
            yield document.problem(loc, f"NCCL library {_beside(rack, name)} {reason}", "a libnccl.so.2 that this user may read")


def _maybe_many(name: Any) -> list[str]:
    try:
        return unfold(name) if isinstance(name, str) and "[" in name else [name] if isinstance(name, str) else []
    except ValueError:
        return []


def _no_known_hosts(document: Document, rack: Path) -> Iterator[Problem]:
    if isinstance(document.data, dict) and document.data.get("ssh") is None:
        yield document.problem((), "ssh is missing", "ssh: {user: ..., known_hosts: ...}, to reach the trays")
    for loc, name in document.each("ssh", "known_hosts"):
        path = _beside(rack, name) if isinstance(name, str) else None
        reason = _unreadable(path) if path else ""
        if reason:
            yield document.problem(loc, f"known_hosts file {path} {reason}", f"the file that `burnin enroll {rack}` makes")


def _unreadable(path: Path) -> str:
    try:
        if not path.exists():
            return "does not exist"
        if not path.is_file():
            return "is not a file"
        return "" if os.access(path, os.R_OK) else "may not be read by this user"
    except (OSError, ValueError) as error:
        return f"cannot be reached: {error}"
