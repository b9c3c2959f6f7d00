"""Two controllers, one rack: the second is refused and told by whom; one that was frozen commands nothing when it wakes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from burnin.twin.up import running
from tests.twin.runs import alive, wait_for, workers
from tests.twin.test_resume import begin, ended

pytestmark = [pytest.mark.live, pytest.mark.long]


def test_the_second_is_refused_and_a_frozen_first_is_replaced(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for place in (one, two, three):
        place.mkdir()
    with running("gb300-nvl72", 22, [], where=tmp_path, trays=2, switches=0) as twin:
        roots = [twin.trays[tray].pid for tray in ("t00", "t01")]

        def loaded() -> bool:
            return all(len(workers(root)) == 4 for root in roots)

        first = begin(twin, one, load_s=90)  # longer than the second takes to be refused, on a busy machine too
        wait_for(loaded, 60, "the load never came up")
        load = [pid for root in roots for pid in workers(root)]
        code, refused = ended(begin(twin, two), two)  # another machine: its database knows nothing of the first
        assert code == 3
        why = {f["part"]: f["why"] for f in refused["findings"] if f["signature"] == "tray.refused"}
        assert why.keys() == {"t00", "t01"}
        assert f"(process {first.pid} on " in why["t00"]
        assert ", since 20" in why["t00"]
        assert all(map(alive, load)), "the first is not disturbed"

        os.kill(first.pid, signal.SIGSTOP)
        wait_for(lambda: not any(map(alive, load)), 8, "load outlived its lease")
        second = begin(twin, three)
        wait_for(loaded, 60, "the rack was not taken over")
        os.kill(first.pid, signal.SIGCONT)
        code, woken = ended(first, one)
        assert (code, woken["verdict"]) == (3, "HOLD"), "by its own guard, or told by the trays, whichever is quicker"
        code, document = ended(second, three)
    assert code == 0
    assert document["verdict"] == "PASS"
    assert not [f for f in document["findings"] if f["severity"] != "WATCH"]
