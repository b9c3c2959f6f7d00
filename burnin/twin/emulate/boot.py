"""What a tray's `python3` runs: the ctypes loader is replaced, then everything is as python3 was asked.

Started by the tray's wrapper as `REAL -I -S boot.py WRAPPER [python3's own arguments]`. Children find the wrapper in
sys.executable. The emulation is imported as `_tray`, straight from its folder: the program may bring a `burnin` of its
own in its zipapp, and must get that one.
"""

from __future__ import annotations

import ctypes
import os
import sys
import types

_FLAGS = "bBdEiIOPqRsSuvx"
_LIBRARIES = {
    "libnvidia-ml.so.1": "nvml",
    "libnvidia-ml.so": "nvml",
    "libcuda.so.1": "cuda",
    "libcuda.so": "cuda",
    "libnccl.so.2": "nccl",
}


def replace_loader(tray: str, package: str = "_tray") -> None:
    """Make ctypes.CDLL give emulated libraries for the tray in this folder; all other names load as ever."""
    real = ctypes.CDLL

    class CDLL(real):  # type: ignore[misc, valid-type]
        def __new__(cls, name=None, *args, **kwargs):  # type: ignore[no-untyped-def]
            if name in _LIBRARIES:
                return _emulated(tray, package, name)
            if "libcublasLt" in str(name):
                raise OSError(f"{name}: cannot open shared object file: No such file or directory")  # a tray has no toolkit
            return super().__new__(cls)

    CDLL.__module__, CDLL.__qualname__ = real.__module__, real.__qualname__
    ctypes.CDLL = CDLL  # type: ignore[misc]
    ctypes.cdll._dlltype = CDLL  # type: ignore[attr-defined]
    _replace_addresses(tray, package)


def _replace_addresses(tray: str, package: str) -> None:
    """Interfaces have their addresses by ioctl; what answers for the tray's own is imported when somebody asks."""
    import fcntl

    real = fcntl.ioctl

    def ioctl(fd, request, *args):  # type: ignore[no-untyped-def]
        if request == 0x8915 and fcntl.ioctl is ioctl:
            import importlib

            fcntl.ioctl = real
            importlib.import_module(f"{package}.emulate.traffic").replace_addresses(tray)
            return fcntl.ioctl(fd, request, *args)
        return real(fd, request, *args)

    fcntl.ioctl = ioctl


def _replace_name(tray: str) -> None:
    """A tray has a name of its own, not this machine's."""
    real = os.uname

    def uname():  # type: ignore[no-untyped-def]
        import json

        with open(os.path.join(tray, "tray.json"), encoding="utf-8") as file:
            name = json.load(file).get("host")
        said = real()
        return os.uname_result((said[0], name or said[1], *said[2:]))

    os.uname = uname


def _emulated(tray: str, package: str, name: str) -> object:
    import importlib
    import json

    state = importlib.import_module(package + ".state").State.open(os.path.join(tray, "state"))
    with open(os.path.join(tray, "tray.json"), encoding="utf-8") as file:
        facts = json.load(file)
    if _LIBRARIES[name] == "cuda":  # who burns a GPU may burn the cores beside it, and send over the cards
        import hashlib

        hashlib.pbkdf2_hmac = importlib.import_module(f"{package}.emulate.cores").hashing(state, hashlib.pbkdf2_hmac)
        if "nics" in facts:
            importlib.import_module(f"{package}.emulate.traffic").replace_sockets(tray)
    return importlib.import_module(f"{package}.emulate.{_LIBRARIES[name]}").library(facts, state, name)


def _mount(package: str, folder: str) -> None:
    """Make a folder importable under a name, without running its __init__."""
    module = types.ModuleType(package)
    module.__path__ = [folder]
    sys.modules[package] = module


def _options(args: list[str]) -> tuple[str, list[str]]:
    """python3's arguments -> what to run (`-c`, `-m`, `-V`, `-` or a path), and sys.argv's candidates from there on."""
    while args:
        word = args[0]
        if word in ("-", "-c", "-m") or not word.startswith("-"):
            return (word if word.startswith("-") else "path"), args
        if word in ("-V", "--version"):
            return "-V", args
        if word in ("-X", "-W"):
            args = args[2:]
        elif all(letter in _FLAGS for letter in word[1:]) or word[:2] in ("-X", "-W"):
            args = args[1:]
        elif word[1:2] != "-" and word[-1] in "cm" and all(letter in _FLAGS for letter in word[1:-1]):
            return "-" + word[-1], ["-" + word[-1], *args[1:]]  # -ISc CODE
        else:
            sys.stderr.write(f"unknown option {word}\n")
            raise SystemExit(2)
    return "-", ["-"]


def main(wrapper: str, args: list[str]) -> None:
    """Be the python3 of the tray that this wrapper belongs to."""
    wrapper = os.path.abspath(wrapper)
    here = os.path.dirname(os.path.abspath(__file__))
    sys.executable = wrapper
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [wrapper, *args]
    what, rest = _options(args)
    if what == "-V":
        print("Python " + sys.version.split()[0])  # noqa: T201
        return
    _mount("_tray", os.path.dirname(here))
    tray = os.path.dirname(os.path.dirname(wrapper))
    replace_loader(tray)
    _replace_name(tray)
    if os.path.exists(os.path.join(tray, "clock")):
        import importlib

        importlib.import_module("_tray.emulate.clock").replace_clock(os.path.join(tray, "clock"))
    run(what, rest)


def run(what: str, rest: list[str]) -> None:
    """Run code, a module, standard input or a file, with sys.argv as python3 would have it."""
    import runpy

    if what == "path":
        sys.argv[:] = rest
        if not os.path.exists(rest[0]):
            sys.stderr.write(f"{sys.executable}: can't open file {rest[0]!r}: [Errno 2] No such file or directory\n")
            raise SystemExit(2)
        runpy.run_path(rest[0], run_name="__main__")
        return
    if what == "-m":
        sys.argv[:] = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
        return
    code = rest[1] if what == "-c" else sys.stdin.read()
    sys.argv[:] = ["-c", *rest[2:]] if what == "-c" else rest
    fresh = types.ModuleType("__main__")
    sys.modules["__main__"] = fresh
    exec(compile(code, "<string>" if what == "-c" else "<stdin>", "exec"), fresh.__dict__)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
