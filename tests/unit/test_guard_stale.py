"""A BMC that repeats itself is found by a step of the load that its reading of the tray does not follow; a sound one never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from burnin.rack.load import load_profile
from burnin.rack.schema import Profile
from burnin.run.guard_stale import GAP_S, Follows

IDLE_W, LOAD_W, STEP_W, EVERY_S = 200.0, 1400.0, 300.0, 5.0


def over(*reads: tuple[float | None, float | None], every_s: float = EVERY_S) -> list[float]:
    """What is said of (BMC's watts, mean watts of its GPUs), read one after the other."""
    follows = Follows(STEP_W)
    return [follows.read(value, drawn, 1000.0 + i * every_s) for i, (value, drawn) in enumerate(reads)]


def test_a_reading_that_stands_still_over_a_step_is_counted_from_the_step() -> None:
    assert over((1300, IDLE_W), (1300, IDLE_W), (1300, LOAD_W), (1300, LOAD_W), (1300, LOAD_W)) == [0, 0, 0, 5, 10]
    assert over((6000, LOAD_W), (6000, IDLE_W), (6000, IDLE_W)) == [0, 0, 5], "down as well as up"


def test_it_is_over_as_soon_as_it_moves_or_the_load_is_back() -> None:
    assert over((1300, IDLE_W), (1300, LOAD_W), (1300, LOAD_W), (5900, LOAD_W), (5900, LOAD_W)) == [0, 0, 5, 0, 0]
    assert over((1300, IDLE_W), (1300, LOAD_W), (1300, LOAD_W), (1300, IDLE_W), (1300, LOAD_W)) == [0, 0, 5, 0, 0]


def test_steady_load_proves_nothing_however_long_and_however_coarse() -> None:
    assert set(over(*[(6000.0, LOAD_W + 100 * (i % 2)) for i in range(500)])) == {0}


def test_what_was_not_read_is_not_counted_and_the_step_is_not_forgotten() -> None:
    held, lost = (1300.0, LOAD_W), (None, LOAD_W)
    assert over((1300, IDLE_W), held, held, lost, held, held) == [0, 0, 5, 0, 0, 5]
    assert over((1300, IDLE_W), held, held, (1300, None), held, held) == [0, 0, 5, 0, 0, 5]
    assert over((1300, None), (1300, LOAD_W), (1300, LOAD_W)) == [0, 0, 0], "the step is from what was known"
    assert over((1300, IDLE_W), held, held, held, every_s=GAP_S + 1) == [0, 0, 0, 0], "who was not looking has seen nothing"


@given(
    st.lists(st.sampled_from((IDLE_W, 800.0, LOAD_W)), min_size=1, max_size=8),
    st.integers(4, 30),
    st.integers(0, 6),
    st.sampled_from((1.0, 10.0, 100.0)),
)
def test_a_sound_bmc_is_never_found(phases: list[float], each: int, lag: int, resolution: float) -> None:
    """Late by up to half a minute and coarse as 100 W, through steps of the load as they come: at most its own lag is counted."""
    drawn = [watts for watts in phases for _ in range(each)]
    reads = [(round((1000 + 4 * drawn[max(0, i - lag)]) / resolution) * resolution, watts) for i, watts in enumerate(drawn)]
    assert max(over(*reads)) <= lag * EVERY_S


def test_a_profile_says_the_step_where_it_is_needed_and_nowhere_else() -> None:
    whole = load_profile("gb300-nvl72").model_dump(mode="json", by_alias=True, exclude_unset=True)
    without = {key: value for key, value in whole["guard"]["bmc_stale"].items() if key != "step"}
    with pytest.raises(ValidationError, match="bmc_stale has no step"):
        Profile.model_validate({**whole, "guard": {"bmc_stale": without}})
    with pytest.raises(ValidationError, match="leak has a step"):
        Profile.model_validate(
            {**whole, "guard": {"leak": {**whole["guard"]["leak"], "step": whole["guard"]["bmc_stale"]["step"]}}}
        )
    wrong = {**whole["guard"]["bmc_stale"], "step": {"max": 3, "unit": "W", "source": "x"}}
    with pytest.raises(ValidationError, match="a step is a min above 0 in W"):
        Profile.model_validate({**whole, "guard": {"bmc_stale": wrong}})
