"""The equations of the twin's physics, for one part (floats) or for many at once (arrays): live and recorded racks share them.

Numbers come from a model (`model.Model`) and from what makes each part itself; nothing here has a state.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from burnin.telemetry.series import Floats
from burnin.twin.model import Power, Thermal

Number = TypeVar("Number", float, Floats)


def electrical(
    power: Power,
    capacitance: Number,
    voltage: Number,
    leakage: Number,
    loss: Number,
    activity: float,
    clock_mhz: Number,
    die_c: Number,
) -> Number:
    """Power of a GPU in W; the first three are factors about 1, `loss` the share that its regulators lose beyond others'."""
    f = clock_mhz / power.f_ref_mhz
    free: Number = f**power.v_exponent
    v = voltage * (free + (power.v_min - free) * (free < power.v_min))
    warm: Number = (die_c - power.leak_at_c) / power.leak_per_c
    warm = warm + (3.0 - warm) * (warm > 3.0)
    dynamic = power.dynamic_w * capacitance * activity * v * v * f
    leak = power.leakage_w * leakage * v * math.e**warm
    out: Number = power.fixed_w + hbm_power(power, activity) + (dynamic + leak) * (1.0 + loss)
    return out


def hbm_power(power: Power, activity: float) -> float:
    """Power of a GPU's memory in W."""
    return power.hbm_idle_w + (power.hbm_full_w - power.hbm_idle_w) * activity


def convection(thermal: Thermal, factor: Number, flow: Number) -> Number:
    """Resistance from plate to coolant in K/W; `flow`: of the tray, as a share of nominal."""
    at_least = flow + (thermal.stagnant - flow) * (flow < thermal.stagnant)
    out: Number = thermal.r_convection * factor * at_least**-thermal.flow_exponent
    return out


def step_response(thermal: Thermal, r_core: Floats, r_plate: Floats, since_s: Floats) -> tuple[Floats, Floats]:
    """What is left, 1 to 0, of a step in power after so long: (die, plate). Two nodes in a row, `r_*` in K/W.

    The die's rise over the coolant goes with two time constants, the roots of
    x^2 - (1/(c_die r_core) + 1/(c_plate r_core) + 1/(c_plate r_plate)) x + 1/(c_die r_core c_plate r_plate).
    """
    a = 1 / (thermal.c_die * r_core)
    b = 1 / (thermal.c_plate * r_core)
    c = 1 / (thermal.c_plate * r_plate)
    half = (a + b + c) / 2
    root = np.sqrt(half * half - a * c)
    fast, slow = half + root, half - root
    # Of the final rise r_core + r_plate; the initial slope is 1 / c_die, which fixes the split between the two.
    slope = 1 / (thermal.c_die * (r_core + r_plate))
    share = (slope - slow) / (fast - slow)
    die = share * np.exp(-fast * since_s) + (1 - share) * np.exp(-slow * since_s)
    plate_share = -slow / (fast - slow)  # the plate starts level
    plate = plate_share * np.exp(-fast * since_s) + (1 - plate_share) * np.exp(-slow * since_s)
    return die, plate


def raw_ber(snr_db: Floats) -> Floats:
    """Share of bits wrong before correction: PAM4, 0.375 erfc(sqrt(SNR / 10)) (reference signatures, section 4).

    erfc(x) by exp(-x^2) / (x sqrt(pi)) (1 - 1/(2 x^2 + 2.6)): within 0.5 % for x >= 1.5; links live at 2.5 to 4.5.
    """
    x2 = 10 ** (snr_db / 10) / 10
    x = np.sqrt(x2)
    out: Floats = 0.375 * np.exp(-x2) / (x * math.sqrt(math.pi)) * (1 - 1 / (2 * x2 + 2.6))
    return out


def code_word_loss(raw: float) -> float:
    """Probability that RS(544,514) on symbols of 10 bits cannot mend a code word: more than 15 symbols wrong.

    The binomial's tail as a Poisson one; random errors only.
    """
    mean = 544 * (1 - (1 - min(raw, 0.5)) ** 10)
    term = math.exp(-mean + 16 * math.log(mean) - math.lgamma(17)) if mean > 0 else 0.0
    total, k = 0.0, 16
    while term > total * 1e-12 and k < 545:
        total += term
        k += 1
        term *= mean / k
    return min(1.0, total)
