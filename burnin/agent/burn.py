"""A load: which kernel it is, whether it can be trusted here, and launch after launch of it until the deadline passes.

A GPU's own family has a kernel in its own tensor instruction, and every GPU has the one for all. The family's is tried first:
where the driver does not take it, where it fails or disagrees with itself in its trial, the tray's libcublasLt is taken if there
is one, else the kernel for all; and what was used and why is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from burnin.agent import cores, pulse, traffic
from burnin.agent.cublaslt import Gemm, LibraryError, open_library
from burnin.agent.cuda import Burn, Cuda, CudaError, Launches, capability
from burnin.agent.exchange import Exchange
from burnin.agent.talk import Talk
from burnin.agent.work import Again, kernels, uuid_bytes

REPORT_NS = 1_000_000_000
LAUNCH_MS, PULSE_LAUNCHES = 40.0, 25
"""Length of a launch, and how many of them make a pulse at least: two in flight end within a tenth of it."""
FAMILIES = {"9.0": "burn_sm90a", "10.0": "burn_sm100f", "10.3": "burn_sm100f"}
"""Compute capability -> the PTX that it alone understands. These kernels take a whole SM for one block."""
ALL = "burn"
LIBRARY = "cublaslt_burn"
"""Not a kernel of ours: products by the tray's own library."""
TRIAL = 100
"""Iterations of the first launch, which is waited for and looked at: some 0.1 ms."""


def run(talk: Talk, cuda: Cuda, device: int, args: dict[str, Any]) -> None:
    """Job kind "burn". args: kernel (tensor_burn; mma_burn: tensor_burn of the kernels for all; fma_burn; cublaslt_burn);
    pulse (the wave that launches keep to, see burnin.agent.pulse); peer (UUID of the GPU that copies go to meanwhile); cores (CPU
    threads that work meanwhile, also between pulses); ways (of network cards: burnin.agent.traffic); portable, without (why the
    family's kernel, or libcublasLt, is not to be tried again).

    Tells its counts once a second. The deadline is read before every launch.
    """
    wave = pulse.wave(args.get("pulse"))
    launch_ms = LAUNCH_MS if wave is None else min(LAUNCH_MS, max(wave.on_ns / 1e6 / PULSE_LAUNCHES, 1.0))
    load, which = chosen(talk, cuda, device, args, launch_ms)
    exchange, without = beside(cuda, device, args.get("peer"))
    with traffic.beside(args.get("ways"), talk.going) as short, cores.beside(args.get("cores"), talk.going, talk.now_ns) as busy:
        _go_on(talk, load, wave, exchange, which + without + busy, short)


def _go_on(
    talk: Talk, load: Launches, wave: pulse.Wave | None, exchange: Exchange | None, which: str, short: Callable[[], str]
) -> None:
    """Launch after launch, until the deadline; the counts once a second, and what traffic lacks when that changes."""
    if wave is not None:
        wave.begin(talk.now_ns())

    def count() -> dict[str, Any]:
        counts = {"launches": load.launches, "busy_ms": round(load.busy_ms, 1), "wrong": load.wrong(), "iters": load.iters}
        counts |= {"copied": exchange.copied} if exchange is not None else {}
        return {**counts, **(wave.counts() if wave is not None else {})}

    def rest() -> bool:
        """Between two pulses: let the GPU run dry, and sleep a while."""
        wait_ns = wave.wait_ns(talk.now_ns(), int(2e6 * load.launch_ms)) if wave is not None else 0
        if wait_ns == 0:
            return False
        if wave is not None and load.drain():
            wave.fell(talk.now_ns())
        talk.pause(min(wait_ns / 1e9, pulse.NAP_S))
        return True

    told, lacks = talk.now_ns(), ""
    talk.state({"state": "burning", "grid": load.grid, "why": which})
    while talk.going():
        if not rest():
            load.launch()
            if exchange is not None:
                exchange.go_on()
        if talk.now_ns() - told >= REPORT_NS:
            told = talk.now_ns()
            talk.state(count())
            if (now := short()) != lacks:
                lacks = now
                talk.state({"state": "traffic", "why": lacks or "traffic flows"})
    talk.state({**count(), "state": "ended"})


def beside(cuda: Cuda, device: int, peer: Any) -> tuple[Exchange | None, str]:
    """Copies to a peer (its UUID) beside the load, and in words why there are none where they were asked for."""
    if not peer:
        return None, ""
    try:
        return Exchange(cuda, device, cuda.device(uuid_bytes(str(peer)))), ""
    except (CudaError, ValueError) as error:
        return None, f"; no copies beside it: {error}"


def chosen(talk: Talk, cuda: Cuda, device: int, args: dict[str, Any], launch_ms: float) -> tuple[Launches, str]:
    """The load, and in words which kernel it is. Raises Again where the context did not survive the trial."""
    kernel, family = str(args["kernel"]), FAMILIES.get(capability(cuda, device))
    why, without = str(args.get("portable", "")), str(args.get("without", ""))
    if kernel == LIBRARY and not without:
        gemm, without = _library(cuda, device, args, launch_ms)
        if gemm is not None:
            return gemm, f"{LIBRARY} of {gemm.said}"
    kernel = "tensor_burn" if kernel == LIBRARY else kernel
    if kernel == "tensor_burn" and family is not None and not why:
        load = None
        try:
            load = Burn(cuda, device, kernels(family), kernel, launch_ms, per_sm=1)
            wrong = _trial(talk, load)
            if not wrong:
                return load, f"{kernel} of {family}" + (f", because {without}" if without else "")
            why = f"{family} disagreed with itself {wrong} times in its trial"
        except CudaError as error:
            why = f"{family}: {error}"
            if load is not None:  # a kernel that failed takes its context with it
                raise Again({**args, "portable": why, "without": without}) from error
    if kernel == "tensor_burn" and why and not without:
        gemm, without = _library(cuda, device, {**args, "portable": why}, launch_ms)
        if gemm is not None:
            return gemm, f"{LIBRARY} of {gemm.said}, because {why}"
    name, because = "tensor_burn" if kernel == "mma_burn" else kernel, "; ".join(filter(None, [why, without]))
    return Burn(cuda, device, kernels(ALL), name, launch_ms), f"{name} of {ALL}" + (f", because {because}" if because else "")


def _library(cuda: Cuda, device: int, args: dict[str, Any], launch_ms: float) -> tuple[Gemm | None, str]:
    """The tray's own libcublasLt, or why not. Raises Again where it broke the context."""
    try:
        library, name = open_library()
        gemm = Gemm(cuda, device, library, name, launch_ms)
        wrong = gemm.wrong()
        return (None, f"{name} disagreed with itself in {wrong} words") if wrong else (gemm, "")
    except LibraryError as error:
        return None, str(error)
    except CudaError as error:
        raise Again({**args, "without": f"libcublasLt: {error}"}) from error


def _trial(talk: Talk, load: Burn) -> int:
    load.iters = TRIAL
    if talk.going():
        load.launch()
        load.drain()
    return load.wrong()
