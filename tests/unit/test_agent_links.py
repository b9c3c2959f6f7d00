"""NVLink, fabric, C2C and the driver's own verdicts, read through unmodified pynvml from the twin's library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent import links
from burnin.agent.links import error_rate, summary
from burnin.agent.nvml import Gpus
from burnin.twin.emulate import fields, nvml, nvml_core
from tests.unit.twin_tray import Bench, bench

Open = Callable[..., tuple[Bench, Gpus]]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a tray's NVML as the agent does."""

    def open_tray(*plants: str, **more: Any) -> tuple[Bench, Gpus]:
        tray = bench(tmp_path, *plants, **more)
        tray.run(1)
        monkeypatch.setattr(pynvml, "nvmlLib", nvml.library(tray.facts, tray.state))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return tray, Gpus(pynvml)

    yield open_tray


def of_links(gpus: Gpus, name: str) -> dict[str, dict[str, Any]]:
    """link -> metric -> reading of one GPU."""
    gpu = next(g for g in gpus.gpus if g.name == name)
    out: dict[str, dict[str, Any]] = {}
    for (link, metric), value in zip(gpu.links.metrics, gpu.links.read(), strict=True):
        out.setdefault(link, {})[metric] = value
    return out


def slow(gpus: Gpus, name: str) -> dict[str, Any]:
    gpu = next(g for g in gpus.gpus if g.name == name)
    return {metric: value for (_, metric), value in zip(gpu.slow.metrics, gpu.slow.read(), strict=True)}


def test_all_eighteen_links_of_a_healthy_gpu(opened: Open) -> None:
    _, gpus = opened()
    found = of_links(gpus, "g2")
    assert list(found) == [f"l{i}" for i in range(18)]
    for one in found.values():
        moved = one.pop("nvlink.tx_bytes"), one.pop("nvlink.rx_bytes")
        assert min(moved) >= 1e9
        words = [one.pop(f"nvlink.fec_{n}") for n in range(16)]
        assert words[0] > 1e12 and words[1] > 0 and set(words[2:]) == {0}
        assert one == {
            "nvlink.state": 1, "nvlink.speed": 53.125, "nvlink.rx_errors": 0, "nvlink.integrity_errors": 0,
            "nvlink.recovery_ok": 0, "nvlink.recovery_failed": 0, "nvlink.effective_errors": 0, "nvlink.effective_ber": 0.0,
            "nvlink.symbol_errors": 0, "nvlink.symbol_ber": 0.0, "nvlink.raw_ber": "not_supported",
        }  # fmt: skip


def test_a_healthy_gpu_is_registered_with_the_fabric_and_wants_nothing(opened: Open) -> None:
    _, gpus = opened()
    got = slow(gpus, "g0")
    assert (got["fabric.state"], got["fabric.status"], got["fabric.health"]) == (3, 0, 1)
    assert (got["c2c.crc"], got["c2c.replay"], got["pcie.replay"]) == (0, 0, 0)
    assert (got["pcie.gen"], got["pcie.width"]) == (6, 16)
    assert (got["gpu.recovery_action"], got["ecc.sram_threshold"], got["repair.pending"]) == (0, 0, 0)


@pytest.mark.parametrize("link", ["t00.g2.l13", "t00.g0.l0"])
def test_a_weak_link_errs_and_its_neighbours_do_not(opened: Open, link: str) -> None:
    tray, gpus = opened(f"link_margin:{link}:3")
    tray.run(60)
    _, gpu, own = link.split(".")
    found = of_links(gpus, gpu)
    errors = found[own]["nvlink.effective_errors"]
    assert 100 < errors < 500, "a burst of four code words a second"
    assert found[own]["nvlink.effective_ber"] == pytest.approx(errors / (53125 * 8e6 * 60), rel=0.2)
    assert found[own]["nvlink.state"] == 1
    others = [one for name, one in found.items() if name != own]
    assert {one["nvlink.effective_errors"] for one in others} == {0}
    assert {one["nvlink.effective_ber"] for one in of_links(gpus, "g3").values()} == {0.0}


def test_hopper_says_what_it_has_no_counters_for(opened: Open) -> None:
    _, gpus = opened(profile="hgx-h200")
    found = of_links(gpus, "g0")["l0"]
    assert (found["nvlink.state"], found["nvlink.speed"]) == (1, 26.562)
    assert {metric for metric, value in found.items() if value == "not_supported"} == {
        "nvlink.tx_bytes", "nvlink.rx_bytes", "nvlink.rx_errors", "nvlink.integrity_errors", "nvlink.recovery_ok",
        "nvlink.recovery_failed", "nvlink.effective_errors", "nvlink.effective_ber", "nvlink.symbol_errors", "nvlink.symbol_ber",
        "nvlink.raw_ber", *(f"nvlink.fec_{n}" for n in range(16)),
    }  # fmt: skip
    assert (slow(gpus, "g0")["fabric.state"], slow(gpus, "g0")["c2c.crc"]) == ("not_supported", "not_supported")


@pytest.mark.parametrize(("driver", "fec", "raw"), [("595.10", True, True), ("580.95.05", True, False), ("565.57", False, False)])
def test_what_a_branch_has_no_id_for_is_not_asked(opened: Open, driver: str, fec: bool, raw: bool) -> None:
    tray, _ = opened()
    tray.facts["driver"] = driver
    for gpu in nvml_core.Nvml(tray.facts, tray.state).gpus:
        assert isinstance(fields.read_field(gpu, 293, 3), tuple) is raw
    ids = {one.metric: one.id for one in links.fields(1, driver)}
    assert (ids["nvlink.fec_0"], ids["nvlink.fec_15"], ids["nvlink.raw_ber"]) == (235 * fec, 250 * fec, 293 * raw)


def test_raw_errors_are_read_where_the_driver_has_them(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tray, _ = opened("link_margin:t00.g1.l4:4")
    tray.run(20)
    tray.facts["driver"] = "595.58.03"
    monkeypatch.setattr(pynvml, "nvmlLib", nvml.library(tray.facts, tray.state))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    rates = {link: one["nvlink.raw_ber"] for link, one in of_links(Gpus(pynvml), "g1").items()}
    weak = rates.pop("l4")
    assert len(rates) == 17 and 1e-11 < min(rates.values()) <= max(rates.values()) < 1e-5, "none is without errors"
    assert 5e-5 < weak < 5e-3, "4 dB less"


@given(st.integers(1, 14), st.integers(0, 237))
def test_a_packed_rate_is_its_mantissa_and_exponent(mantissa: int, exponent: int) -> None:
    assert error_rate(mantissa << 8 | exponent) == pytest.approx(mantissa * 10.0**-exponent)


@pytest.mark.parametrize("none", [0xFFF, 0xFEE, 0x000, 0x012, 0x0FF])
def test_no_errors_have_patterns_of_their_own(none: int) -> None:
    """Mantissa 15 with exponent 255 or 238, and any mantissa of 0 (nvml.h, DCGM)."""
    assert error_rate(none) == 0.0


@pytest.mark.parametrize(
    ("mask", "health"),
    [
        (0x1AA, 1),  # captured on a healthy GB300
        (0x0AA, 1),  # a GB200 leaves the configuration out
        (0x1A9, 2),  # degraded bandwidth
        (0x2AA, 2),  # incorrect configuration: system GUID
        (0x1A2, 0),  # route unhealthy is not supported: not read
        (0, 0),
    ],
)
def test_a_health_mask_that_leaves_a_trouble_out_is_not_read(mask: int, health: int) -> None:
    assert summary(mask) == health
