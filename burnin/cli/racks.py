"""Reaching a rack: `enroll` its host keys, `doctor` its trays."""

from __future__ import annotations

import asyncio
import datetime as dt
import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnin.cli import exits
from burnin.cli.options import DB, Db, console
from burnin.errors import InputError, TrayError

if TYPE_CHECKING:
    from burnin.rack.load import RackFile
    from burnin.run.ask import Told
    from burnin.store import Enrollment
    from burnin.transport.known import Enrolled
    from burnin.transport.ssh import Endpoint

RackPath = Annotated[Path, typer.Argument(help="the rack file", metavar="RACK.yaml")]
_CLOCK_OFF_S = 60.0


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    app.command()(enroll)
    app.command()(doctor)


def enroll(
    rack: RackPath,
    part: Annotated[str, typer.Option(help="only this tray, whose key may differ, or a part (t07.n2, x1)", metavar="PART")] = "",
    replaces: Annotated[str, typer.Option(help="serial of what was taken out", metavar="SERIAL")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask: the fingerprints were compared elsewhere")] = False,
    db: Db = DB,
) -> None:
    """Record the host keys of a rack's trays, once, and what was replaced. Shows fingerprints; 0 all known, 3 not all."""
    from burnin.rack.load import load_rack
    from burnin.rack.parts import fold
    from burnin.store import open_store
    from burnin.transport.known import KnownHosts
    from burnin.transport.rack import endpoints

    file = load_rack(rack, need_known_hosts=False, need_keys=False)
    ends = endpoints(file)
    if part and part not in ends and not _has(file, part):
        raise InputError(f"--part {part}: rack {file.rack.rack} has no such part: its trays are {fold(ends)}")
    if bool(part) != bool(replaces):
        raise InputError("--part and --replaces go together: which tray, and whose serial it replaces")
    if part and part not in ends:
        _replace(file.rack.rack, part, replaces, db)
        return
    assert file.known_hosts is not None and file.rack.ssh is not None
    known = KnownHosts(file.known_hosts)
    wanted = [ends[part]] if part else [end for end in ends.values() if not known.keys(end.host, end.port)]
    jump = _jump(file.rack.ssh.jump)
    if jump and not known.keys(*jump):
        raise InputError(
            f"the jump host {jump[0]} is not in {file.known_hosts}: put its host key there first (ssh-keyscan, compared)"
        )
    fresh, failed = asyncio.run(_scan(wanted, known, file.rack.ssh.connect_timeout_s))
    for end, done in fresh:
        typer.echo(f"{end.part:<5} {done.name:<24} {done.new}" + (f"   replaces {done.old}" if done.old else ""))
    for text in failed:
        typer.echo(text, err=True)
    if fresh and not yes and not typer.confirm(f"Are these the {len(fresh)} fingerprints of rack {file.rack.rack}?"):
        raise InputError("nothing was recorded")
    if fresh:
        store = open_store(db)
        try:
            for end, done in fresh:
                keys = (done.name, done.old, done.new)
                store.keep_enrollment(_row(file.rack.rack, end.part, keys, replaces))
        finally:
            store.close()
        known.save()
    already = len(ends) - len(wanted)
    typer.echo(f"{len(fresh)} recorded in {file.known_hosts}, {already} were known, {len(failed)} not reached")
    raise typer.Exit(exits.HOLD if failed else exits.PASS)


def _has(file: RackFile, part: str) -> bool:
    """A part below a tray of this rack, or beside them; the rack itself is none that is replaced."""
    from burnin.rack.parts import is_part, kind, tray_of

    if not is_part(part) or part == "rack":
        return False
    if kind(part) == "GPU" and part not in file.profile.topology.gpus(tray_of(part)):
        return False
    return tray_of(part) in file.rack.trays or kind(tray_of(part)) not in ("compute tray", "switch tray")


def _replace(rack: str, part: str, replaces: str, db: Path) -> None:
    """A part without a host key of its own: what was shown of it no longer counts."""
    from burnin.store import open_store

    store = open_store(db)
    try:
        store.keep_enrollment(_row(rack, part, ("", None, ""), replaces))
    finally:
        store.close()
    typer.echo(f"{part} is another one than {replaces}: what was shown of that no longer counts; `burnin run --resume` tests it")


def _row(rack: str, part: str, keys: tuple[str, str | None, str], replaces: str) -> Enrollment:
    """`keys`: the host's name in known_hosts, its old and its new fingerprint."""
    from burnin.store import Enrollment

    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Enrollment(now, rack, part, *keys, replaces or None, getpass.getuser(), socket.gethostname())


def _jump(jump: str | None) -> tuple[str, int] | None:
    if jump is None:
        return None
    host, _, port = jump.rpartition("@")[2].partition(":")
    return host, int(port or 22)


async def _scan(ends: list[Endpoint], known: object, timeout_s: float) -> tuple[list[tuple[Endpoint, Enrolled]], list[str]]:
    from burnin.transport.known import KnownHosts, scan

    assert isinstance(known, KnownHosts)

    async def one(end: Endpoint) -> tuple[Endpoint, object]:
        try:
            return end, await scan(end.host, end.port, timeout_s)
        except TrayError as error:
            return end, f"{end.part}: {error}"

    fresh, failed = [], []
    for end, key in await asyncio.gather(*map(one, ends)):
        if isinstance(key, str):
            failed.append(key)
        else:
            fresh.append((end, known.replace(end.host, end.port, key)))  # type: ignore[arg-type]
    return fresh, failed


def doctor(
    rack: RackPath,
    clean: Annotated[bool, typer.Option("--clean", help="also remove the agent from every tray")] = False,
) -> None:
    """Ask every tray whether it is ready for a run. Says what each missing right costs; 0 ready, 3 not."""
    from rich.table import Table

    from burnin.rack.load import load_rack
    from burnin.run.ask import ask, knock
    from burnin.transport.rack import dialer

    file = load_rack(rack)

    async def all_of_them() -> tuple[dict[str, Told | str], dict[str, str]]:
        dial = dialer(file)
        try:
            return await ask(dial, file.rack.compute(), "doctor", tidy=clean), await knock(dial, file.rack.switches())
        finally:
            await dial.close()

    told, switches = asyncio.run(all_of_them())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("tray", "python", "user", "driver", "GPUs", "what is missing, and what it costs"):
        table.add_column(title)
    ready = True
    for tray, answer in told.items():
        if isinstance(answer, str):
            ready = False
            table.add_row(tray, "", "", "", "", f"[red]{answer}[/]")
            continue
        lacks = list(_lacks(answer, file.profile.topology.gpus_per_tray))
        ready = ready and not lacks
        host = answer.identity["host"]
        user = "root" if host["uid"] == 0 else f"uid {host['uid']}"
        gpus = f"{len(answer.identity['gpus'])}/{file.profile.topology.gpus_per_tray}"
        text = "[yellow]" + "; ".join(lacks) + "[/]" if lacks else "[green]ready[/]"
        table.add_row(tray, host["python"], user, answer.identity["driver"] or "", gpus, text)
    for part, why in switches.items():
        ready = ready and not why
        table.add_row(part, "", "", "", "", f"[red]{why}[/]" if why else "[green]reached[/]")
    console().print(table)
    if clean:
        console().print("the agent and its directory were removed from every tray that answered")
    raise typer.Exit(exits.PASS if ready else exits.HOLD)


def _lacks(told: Told, gpus: int) -> list[str]:
    """What this tray cannot do for a run, with the price."""
    identity, out = told.identity, []
    if identity["nvml"]:
        out.append(f"NVML: {identity['nvml']}: nothing of its GPUs is measured, the run ends HOLD")
    elif len(identity["gpus"]) != gpus:
        out.append(f"{len(identity['gpus'])} of {gpus} GPUs answer: inventory will fail")
    if identity["kmsg"]:
        out.append(f"kernel log {identity['kmsg']}: log.kernel is UNKNOWN (become: sudo gives the right)")
    if identity["xid"] and not identity["nvml"]:
        out.append(f"XID events {identity['xid']}: log.nvml is UNKNOWN")
    if identity["host"]["serial"] is None:
        out.append("DMI serial is not readable: tray.serial is UNKNOWN (become: sudo gives the right)")
    if abs(told.clock_off_s) > _CLOCK_OFF_S:
        out.append(f"its clock is off by {told.clock_off_s:.0f} s (its own logs will be hard to compare; runs do not use it)")
    return out
