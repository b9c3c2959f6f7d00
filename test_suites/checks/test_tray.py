"""What a site may want to know of its trays: an example to copy (docs/write-a-check.md). `{pytest: test_tray.py}` runs it."""

import time


def test_the_clock_is_right_to_a_minute(tray, measure):
    here, there = time.time(), float(tray.run("date +%s").stdout)
    measure("tray.clock_off", abs(there - here), "s", max=60, part=tray.name)


def test_the_root_file_system_has_room(tray, measure):
    used = tray.run("df -P / | awk 'NR == 2 {print $5}'").stdout.strip().rstrip("%")
    measure("tray.root_used", float(used) / 100, "1", max=0.9, part=tray.name)
