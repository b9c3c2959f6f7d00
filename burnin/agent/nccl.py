"""One rank of an NCCL group: libnccl.so.2 through ctypes, and nothing of MPI. Kind "nccl" of work.

The controller is the launcher: it relays the unique id that one rank made, says who is which rank, and ends what hangs.
The conversation (`talk`), one JSON object a line:

    tells  {version, interfaces: {name: [address, port]}, id?}      what it is; `id` where args["root"] asked for one
    hears  {reach: [[address, port], ...]}                           is this rank reached: any number of times
    tells  {reached: [[address, port], ...]}
    hears  {id, rank, ranks}                                         join, and do the operation
    tells  {rank, ranks, op, version, results: [...], failed?}       see `burnin.agent.collectives` for a result
    hears  {leave: true}                                             instead of joining, or after it
    tells  {left: true}                                              the group is left, the GPU released; it ends

args: op, sizes [bytes], warmup, repeats, timeout_s (of joining and of each step), env {NCCL_...: text}, socket_ifname,
library (a path; else what the loader finds), payload {machine: SHA-256
of the site's library beside the agent}, root. Nothing is waited for longer than `timeout_s`: a rank whose group
hangs says where it stood, and aborts. What cannot be measured is told as {"failed": sentence} and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes as c
import os
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from burnin.agent import host
from burnin.agent.collectives import measure
from burnin.agent.cuda import Cuda, CudaError
from burnin.agent.nccl_group import Group, Nccl, NcclError, open_library, payload
from burnin.agent.traffic import ipv4

_VOID = c.c_void_p
_CONNECT_S = 2.0
_NOT_OURS = ("docker", "veth", "virbr", "cni", "br-")
"""Interfaces that lead to this host's containers, not to other hosts."""


class Talk(Protocol):
    """The way to the controller: see burnin.agent.talk."""

    def tell(self, body: dict[str, Any]) -> None:
        """One message up."""

    def hear(self) -> dict[str, Any]:
        """The next message down."""

    def going(self) -> bool:
        """False once the time is over."""


def interfaces(sys: str) -> dict[str, str]:
    """IPv4 address of each interface by which other hosts may reach this one; the loopback where there is no other."""
    out = {}
    try:
        names = sorted(os.listdir(os.path.join(sys, "class/net")))
    except OSError:
        names = []
    for name in names:
        if name.startswith(_NOT_OURS):
            continue
        with contextlib.suppress(OSError):  # it is down, or has no address
            out[name] = ipv4(name)
    beyond = {name: address for name, address in out.items() if not address.startswith("127.")}
    return beyond or out


def listen(addresses: Mapping[str, str]) -> tuple[dict[str, list[Any]], list[socket.socket]]:
    """A listening socket on each address: {name: [address, port]}. The kernel completes connections, nobody answers them."""
    ports, open_ones = {}, []
    for name, address in addresses.items():
        listener = socket.socket()
        try:
            listener.bind((address, 0))
            listener.listen(256)
        except OSError:
            listener.close()
            continue
        open_ones.append(listener)
        ports[name] = [address, listener.getsockname()[1]]
    return ports, open_ones


def reached(targets: list[list[Any]]) -> list[list[Any]]:
    """Those of [[address, port], ...] that a TCP connection reaches."""
    out = []
    for address, port in targets:
        try:
            socket.create_connection((address, int(port)), timeout=_CONNECT_S).close()
        except OSError:
            continue
        out.append([address, port])
    return out


# ---------------------------------------------------------------- the process


def prepare(args: Mapping[str, Any], environ: Any) -> None:
    """Set what NCCL reads from the environment, before it is loaded. Raises NcclError for a name that is not NCCL's."""
    for name, value in args.get("env", {}).items():
        if not name.startswith("NCCL_"):
            raise NcclError(f"{name} is not a setting of NCCL's")
        environ[name] = str(value)
    if args.get("socket_ifname"):
        environ["NCCL_SOCKET_IFNAME"] = "=" + args["socket_ifname"]


def run(talk: Talk, cuda: Cuda, device: int, args: dict[str, Any]) -> None:
    """See the module. The GPU is held only while a group is joined: who waits leaves it as it was found."""
    listeners: list[socket.socket] = []
    try:
        prepare(args, os.environ)
        nccl = Nccl(open_library(args.get("library") or payload(args.get("payload", {}), os.uname().machine, os.getcwd())))
        cuda.get("cuDevicePrimaryCtxRetain", _VOID, device)
        cuda.call("cuDevicePrimaryCtxRelease_v2", device)
        ports, listeners = listen(interfaces(host.roots(os.environ).sys))
        hello = {"version": nccl.version(), "interfaces": ports}
        talk.tell({**hello, "id": nccl.make_id().hex()} if args.get("root") else hello)
        heard = talk.hear()
        while "reach" in heard:
            talk.tell({"reached": reached(heard["reach"])})
            heard = talk.hear()
        if "id" in heard:
            cuda.call("cuCtxSetCurrent", _VOID(cuda.get("cuDevicePrimaryCtxRetain", _VOID, device)))
            group = Group(nccl, cuda, talk.going, float(args["timeout_s"]))
            told = {"rank": heard["rank"], "ranks": heard["ranks"], "op": args["op"], "version": hello["version"]}
            results, failed = measure(group, bytes.fromhex(heard["id"]), int(heard["rank"]), int(heard["ranks"]), args)
            talk.tell({**told, **results, **({"failed": failed} if failed else {})})
            group.leave(whole=not failed)
            cuda.call("cuDevicePrimaryCtxRelease_v2", device)
            heard = talk.hear()
        talk.tell({"left": True})
    except (NcclError, CudaError) as error:
        talk.tell({"failed": str(error)})
    finally:
        for listener in listeners:
            listener.close()
