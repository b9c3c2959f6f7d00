"""A BMC that says for ever what it said before: its tray's power stands still while the load makes a step. Pure.

Nothing else in such a BMC's answers tells it from a calm one: dry detectors read the same for days, and a clock of its own proves
that its web server lives. The power of its tray has to follow what its GPUs draw, which NVML tells by another way. In steady load
nothing has to move, and nothing is concluded.
"""

from __future__ import annotations

GAP_S = 20.0
"""Readings farther apart than this say nothing about what was between them."""


class Follows:
    """One tray. `step_w`: mean of its GPUs' power by which they have to move before the BMC's own reading has to."""

    def __init__(self, step_w: float) -> None:
        self._step_w = step_w
        self._value: float | None = None
        self._base_w: float | None = None
        """What its GPUs drew when this number was read first."""
        self._since_s: float | None = None
        """Since when they have drawn otherwise by a step, in every reading."""
        self._last_s = float("-inf")

    @property
    def known(self) -> bool:
        """True when it is known what its GPUs drew at this number."""
        return self._base_w is not None

    def read(self, value: float | None, drawn_w: float | None, now_s: float) -> float:
        """The BMC says `value` W of the tray, its GPUs draw `drawn_w` on average (each None where it was not read): for how many
        seconds it has said what it said before the step; 0 where there was none, where it moved, and where it is not known."""
        gap, self._last_s = now_s - self._last_s > GAP_S, now_s
        if value is None:
            self._since_s = None
        elif value != self._value:
            self._value, self._base_w, self._since_s = value, drawn_w, None
        elif drawn_w is None or self._base_w is None:
            self._base_w, self._since_s = drawn_w if self._base_w is None else self._base_w, None
        elif abs(drawn_w - self._base_w) < self._step_w:
            self._since_s = None
        elif self._since_s is None or gap:
            self._since_s = now_s
        return 0.0 if self._since_s is None else now_s - self._since_s
