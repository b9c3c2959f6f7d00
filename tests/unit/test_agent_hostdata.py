"""What the agent reads of a host: trees as Linux shows them on other machines, and everything that can be wrong with a file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent import hostdata, smart
from burnin.agent.host import Roots, roots
from burnin.agent.sysfs import Absent, File
from burnin.rack.load import load_catalogue

CAPTURES = Path(os.environ.get("BURNIN_CAPTURES", Path(__file__).parents[3] / "shared/captures"))
AER = "RxErr 1\nBadTLP 2\nBadDLLP 0\nRollover 0\nTimeout 0\nNonFatalErr 0\nCorrIntErr 0\nHeaderOF 0\nTOTAL_ERR_COR 3\n"


class Host:
    """A tree of /sys, /proc and /dev, one file at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.at = Roots(*(str(root / name) for name in ("proc", "sys", "dev")))
        for name in ("proc", "sys", "dev"):
            (root / name).mkdir()

    def files(self, folder: str, /, **values: Any) -> str:
        for name, value in values.items():
            path = self.root / folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        return folder

    def pci(self, bdf: str, kind: str, port: str = "pci0000:00/0000:00:01.0", /, **values: Any) -> str:
        at = self.files(f"sys/devices/{port}/{bdf}", **{"class": kind}, **values)
        (self.root / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
        os.symlink(f"../../../devices/{port}/{bdf}", self.root / f"sys/bus/pci/devices/{bdf}")
        return at

    def on(self, at: str, kind: str, member: str, /, **values: Any) -> str:
        """A member of a class: a folder below its device, linked both ways."""
        folder = self.files(f"{at}/{kind}/{member}", **values)
        os.symlink("../..", self.root / folder / "device")
        (self.root / f"sys/class/{kind}").mkdir(parents=True, exist_ok=True)
        os.symlink(self.root / folder, self.root / f"sys/class/{kind}/{member}")
        return folder

    def read(self, gpus: dict[str, str] | None = None) -> dict[tuple[str, str], float | str]:
        found = hostdata.sources(self.at, gpus or {})
        return {column: value for s in found for column, value in zip(s.columns, s.read(), strict=True)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """As a user who may read nothing that is root's; as this test's own user when that is not root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


# ---------------------------------------------------------------- machines


def test_a_machine_that_shows_nothing_has_reasons_and_no_zeros(host: Host) -> None:
    got = host.read({"00000008:06:00.0": "g0"})
    assert {part for part, _ in got} == {"", "g0"}
    assert all(isinstance(value, str) for value in got.values())
    assert got["", "host.nics"] == "missing"


def test_this_machine_is_read_without_an_error() -> None:
    for source in hostdata.sources(roots({}), {}):
        assert all(isinstance(v, float) or v in ("not_supported", "no_permission", "missing") for v in source.read())


def test_every_metric_is_in_the_catalogue_and_slow(host: Host) -> None:
    host.pci("0000:01:00.0", "0x020000")
    host.pci("0000:02:00.0", "0x010802")
    host.files("sys/devices/system/cpu/cpu0/topology", physical_package_id=0)
    metrics = {metric for _, metric in host.read({"00000000:03:00.0": "g0"})}
    catalogue = load_catalogue().metrics
    assert metrics <= set(catalogue)
    assert all(catalogue[metric].slow for metric in metrics)
    assert {"pcie.aer_fatal", "nic.link_flaps", "nvme.media_errors", "cpu.edac_ue"} <= {
        m for m in metrics if catalogue[m].counter
    }


def test_two_intel_sockets(host: Host) -> None:
    """coretemp is one chip a socket, found by its label; the memory controllers say their socket."""
    for cpu in range(4):
        host.files(f"sys/devices/system/cpu/cpu{cpu}/topology", physical_package_id=cpu % 2)
    for chip, package in ((3, 1), (7, 0)):
        host.files(f"sys/class/hwmon/hwmon{chip}", name="coretemp", temp1_label=f"Package id {package}",
                   temp1_input=51000 + package, temp1_max=100000, temp2_label="Core 0", temp2_input=99000)  # fmt: skip
    for mc in range(4):
        name = f"Intel_10nm Socket#{mc // 2} IMC#{mc % 2}"
        host.files(f"sys/devices/system/edac/mc/mc{mc}", mc_name=name, ce_count=mc, ue_count=int(mc == 3))
    got = host.read()
    assert (got["c0", "cpu.temp"], got["c1", "cpu.temp"], got["c0", "cpu.temp_limit"]) == (51.0, 51.001, 100.0)
    assert (got["c0", "cpu.edac_ce"], got["c1", "cpu.edac_ce"], got["", "cpu.edac_ce"]) == (1.0, 5.0, 6.0)
    assert (got["c0", "cpu.edac_ue"], got["c1", "cpu.edac_ue"], got["", "cpu.edac_ue"]) == (0.0, 1.0, 1.0)


def test_two_grace_sockets(host: Host) -> None:
    """Thermal zones name no socket, and one firmware-first controller counts for both."""
    for cpu in range(4):
        host.files(f"sys/devices/system/cpu/cpu{cpu}/topology", physical_package_id=cpu // 2)
    for zone, milli in enumerate((41000, 45500, 52000, 50000)):
        host.files(f"sys/class/thermal/thermal_zone{zone}", type="acpitz", temp=milli, trip_point_0_type="passive",
                   trip_point_0_temp=95000, trip_point_1_type="critical", trip_point_1_temp=105000)  # fmt: skip
    host.files("sys/class/thermal/thermal_zone4", type="iwlwifi", temp=99000)
    host.files("sys/devices/system/edac/mc/mc0", mc_name="ghes_edac", ce_count=2, ue_count=0)
    got = host.read()
    assert (got["c0", "cpu.temp"], got["c1", "cpu.temp"], got["c1", "cpu.temp_limit"]) == (45.5, 52.0, 95.0)
    assert (got["", "cpu.edac_ce"], got["", "cpu.edac_ue"], got["c0", "cpu.edac_ce"]) == (2.0, 0.0, "not_supported")


def test_zones_that_cannot_be_dealt_evenly_belong_to_nobody(host: Host) -> None:
    for cpu in range(2):
        host.files(f"sys/devices/system/cpu/cpu{cpu}/topology", physical_package_id=cpu)
    for zone in range(3):
        host.files(f"sys/class/thermal/thermal_zone{zone}", type="acpitz", temp=40000)
    assert host.read()["c0", "cpu.temp"] == "not_supported"


def test_the_tray_itself(host: Host) -> None:
    host.files(
        "proc",
        loadavg="12.25 3.10 1.00 2/1842 4711",
        meminfo="MemTotal: 99 kB\nMemFree: 7 kB\nMemAvailable:    2048 kB\nBuffers: 1 kB",
    )
    got = host.read()
    assert (got["", "host.load1"], got["", "host.mem_available"]) == (12.25, 2048 * 1024)


# ---------------------------------------------------------------- cards


LINK = {"current_link_speed": "16.0 GT/s PCIe", "current_link_width": 8, "max_link_speed": "32.0 GT/s PCIe", "max_link_width": 16}


def test_a_link_is_measured_against_its_weaker_end(host: Host) -> None:
    """A card for x16 in a slot of x8 (or a chip of x2 on a board that wires one lane) is not downtrained."""
    host.files("sys/devices/pci0000:00/0000:00:01.0", max_link_speed="16.0 GT/s PCIe", max_link_width=8)
    host.pci("0000:01:00.0", "0x020000", **LINK, aer_dev_correctable=AER.strip())
    got = host.read()
    assert [got["n0", f"pcie.{m}"] for m in ("gen", "width", "gen_max", "width_max", "aer_correctable")] == [
        4.0,
        8.0,
        4.0,
        8.0,
        3.0,
    ]
    assert got["n0", "pcie.aer_fatal"] == "not_supported"


def test_a_card_on_the_root_itself_is_measured_against_itself(host: Host) -> None:
    host.pci("0000:01:00.0", "0x020000", "pci0000:00", **LINK)
    got = host.read()
    assert (got["n0", "pcie.gen_max"], got["n0", "pcie.width_max"]) == (5.0, 16.0)


@pytest.mark.parametrize(
    ("speed", "width", "gen", "lanes"),
    [
        ("Unknown", 0, "not_supported", "not_supported"),
        ("Unknown", 63, "not_supported", "missing"),
        ("8 GT/s", 4, 3.0, 4.0),
        ("2.5 GT/s PCIe", 1, 1.0, 1.0),
        ("", "", "missing", "missing"),
        ("fast", "x4", "missing", "missing"),
        ("nan GT/s", "nan", "missing", "missing"),
    ],
)
def test_links_that_are_odd(host: Host, speed: str, width: object, gen: float | str, lanes: float | str) -> None:
    host.pci("0000:01:00.0", "0x010802", current_link_speed=speed, current_link_width=width)
    got = host.read()
    assert (got["d0", "pcie.gen"], got["d0", "pcie.width"]) == (gen, lanes)


def test_errors_of_all_functions_of_a_card_are_one_cards(host: Host) -> None:
    for function in range(2):
        host.pci(f"0000:01:00.{function}", "0x020000", aer_dev_correctable=AER.strip())
    assert host.read()["n0", "pcie.aer_correctable"] == 6.0
    (host.root / "sys/bus/pci/devices/0000:01:00.1/aer_dev_correctable").write_text("TOTAL_ERR_COR many\n")
    assert host.read()["n0", "pcie.aer_correctable"] == "missing", "half a card is not a card"


def test_a_gpu_is_found_by_its_bus_address_however_many_zeros_it_is_written_with(host: Host) -> None:
    host.pci("0008:06:00.0", "0x030200", **LINK, aer_dev_correctable=AER.strip())
    got = host.read({"00000008:06:00.0": "g1", "00000009:06:00.0": "g0"})
    assert (got["g1", "pcie.aer_correctable"], got["g0", "pcie.aer_correctable"]) == (3.0, "missing")
    assert ("g1", "pcie.width") not in got, "that is NVML's to say"
    assert hostdata.names(host.at, {"00000008:06:00.0": "g1"}) == {"0008:06:00": "g1"}


def test_an_infiniband_card(host: Host) -> None:
    at = host.pci("0002:03:00.0", "0x020700")
    host.on(at, "infiniband", "mlx5_0", ports__1__link_layer="InfiniBand", ports__1__state="4: ACTIVE",
            ports__1__rate="400 Gb/sec (4X NDR)", ports__1__counters__symbol_error=12, ports__1__counters__link_downed=3,
            ports__1__hw_counters__local_ack_timeout_err=9)  # fmt: skip
    host.on(at, "net", "ibp3s0", type=32, operstate="down", carrier_down_count=77, speed=400000, statistics__rx_crc_errors=5)
    host.on(at, "hwmon", "hwmon4", name="mlx5", temp1_label="asic", temp1_input=61000, temp2_label="Module0", temp2_input=48000)
    got = {metric: value for (part, metric), value in host.read().items() if part == "n0" and metric.startswith("nic.")}
    assert got == {
        "nic.ports_up": 1.0, "nic.speed": 50.0, "nic.link_flaps": 3.0, "nic.symbol_errors": 12.0,
        "nic.crc_errors": "not_supported", "nic.ack_timeouts": 9.0, "nic.temp": 61.0,
        "nic.rx_bytes": "not_supported", "nic.tx_bytes": "not_supported",
    }  # fmt: skip
    assert hostdata.names(host.at, {}) == dict.fromkeys(("0002:03:00", "mlx5_0", "ibp3s0"), "n0")


def test_an_ethernet_card_of_two_ports_with_virtual_functions_and_representors(host: Host) -> None:
    first, second = (host.pci(f"0006:01:00.{i}", "0x020000") for i in range(2))
    host.on(first, "net", "p0", type=1, operstate="up", carrier_down_count=4, speed=200000, phys_port_name="p0",
            statistics__rx_crc_errors=1)  # fmt: skip
    host.on(second, "net", "p1", type=1, operstate="down", carrier_down_count=2, phys_port_name="p1", speed=-1,
            statistics__rx_crc_errors=0)  # fmt: skip
    host.on(first, "net", "pf0vf3", type=1, operstate="down", carrier_down_count=99, phys_port_name="pf0vf3", speed=1)
    virtual = host.pci("0006:01:02.0", "0x020000")
    os.symlink("../0006:01:00.0", host.root / virtual / "physfn")
    host.on(virtual, "net", "vf0", type=1, operstate="down", carrier_down_count=50)
    (host.root / "sys/class/net/lo").mkdir()
    got = host.read()
    assert {part for part, _ in got} == {"", "n0"}
    assert [got["n0", f"nic.{m}"] for m in ("ports_up", "speed", "link_flaps", "crc_errors")] == [1.0, 25.0, 6.0, 1.0]
    assert got["n0", "nic.symbol_errors"] == "not_supported"


def test_a_card_without_its_driver_is_there_and_missing(host: Host) -> None:
    host.pci("0006:01:00.0", "0x020000")
    got = host.read()
    assert got["", "host.nics"] == 1.0
    assert {got["n0", f"nic.{m}"] for m in ("ports_up", "speed", "link_flaps", "symbol_errors", "crc_errors")} == {"missing"}


@pytest.mark.parametrize(
    ("counter", "end", "metric"), [("link_downed", 255, "link_flaps"), ("symbol_error", 65535, "symbol_errors")]
)
def test_a_counter_that_has_come_to_its_end_says_nothing(host: Host, counter: str, end: int, metric: str) -> None:
    at = host.pci("0002:03:00.0", "0x020700")
    folder = host.on(at, "infiniband", "mlx5_0", ports__1__link_layer="InfiniBand", ports__1__state="4: ACTIVE")
    for value, shown in ((end - 1, float(end - 1)), (end, "missing")):
        host.files(f"{folder}/ports/1/counters", **{counter: value})
        assert host.read()["n0", f"nic.{metric}"] == shown


@pytest.mark.parametrize(("state", "up"), [("up", 1.0), ("down", 0.0), ("dormant", 0.0), ("unknown", "missing"), ("", "missing")])
def test_states_of_a_port(host: Host, state: str, up: float | str) -> None:
    host.on(host.pci("0006:01:00.0", "0x020000"), "net", "eth0", type=1, operstate=state, carrier_down_count=0)
    assert host.read()["n0", "nic.ports_up"] == up


def test_more_cards_than_part_ids_can_name_are_counted(host: Host) -> None:
    for i in range(12):
        host.pci(f"0000:{i + 1:02x}:00.0", "0x020000")
    got = host.read()
    assert got["", "host.nics"] == 12.0
    assert {part for part, _ in got} == {"", *(f"n{i}" for i in range(10))}


def test_cards_are_numbered_by_bus_address_with_their_domain_first(host: Host) -> None:
    for bdf in ("10000:01:00.0", "0010:03:00.0", "0002:ff:00.0", "0002:03:00.0"):
        host.pci(bdf, "0x020000")
    names = hostdata.names(host.at, {})
    assert [names[b] for b in ("0002:03:00", "0002:ff:00", "0010:03:00", "10000:01:00")] == ["n0", "n1", "n2", "n3"]


def test_a_card_that_leaves_the_bus_is_counted_out(host: Host) -> None:
    host.pci("0000:01:00.0", "0x020000")
    host.pci("0000:02:00.0", "0x020000")
    tray = hostdata.sources(host.at, {})[0]
    before = dict(zip(tray.columns, tray.read(), strict=True))
    (host.root / "sys/bus/pci/devices/0000:02:00.0").unlink()
    after = dict(zip(tray.columns, tray.read(), strict=True))
    assert (before["", "host.nics"], after["", "host.nics"]) == (2.0, 1.0)


# ---------------------------------------------------------------- drives


def page(log: dict[str, int]) -> bytes:
    """A health log as the standard lays it out, of the fields that smartctl prints."""
    out = bytearray(512)
    out[0] = log["critical_warning"]
    out[1:3] = (log["temperature"] + 273).to_bytes(2, "little")
    out[3], out[4], out[5] = log["available_spare"], log["available_spare_threshold"], log["percentage_used"]
    for offset, name in ((32, "data_units_read"), (128, "power_on_hours"), (160, "media_errors"), (176, "num_err_log_entries")):
        out[offset : offset + 16] = log[name].to_bytes(16, "little")
    return bytes(out)


def drive(host: Host) -> None:
    at = host.pci("0004:01:00.0", "0x010802")
    nvme = host.on(at, "nvme", "nvme0", state="live")
    host.on(
        nvme,
        "hwmon",
        "hwmon2",
        name="nvme",
        temp1_label="Composite",
        temp1_input=37850,
        temp2_label="Sensor 1",
        temp2_input=51850,
    )


@pytest.mark.parametrize(
    "name", ["gcm_cache_slot2_bad_smartdata_nvme3", "gcm_learn_bad_nvme9_nvme9", "smartctl_INTEL_SSDPE2KX080T8_1"]
)
def test_health_logs_of_real_drives_good_and_bad(host: Host, name: str) -> None:
    path = CAPTURES / f"nvme/{name}.json"
    if not path.is_file():
        pytest.skip("captures of real drives are not beside this checkout")
    log = json.loads(path.read_text())["nvme_smart_health_information_log"]
    drive(host)
    (host.root / "dev/nvme0").write_bytes(page(log))
    got = host.read()
    assert got["d0", "nvme.media_errors"] == log["media_errors"]
    assert got["d0", "nvme.critical_warning"] == log["critical_warning"]
    assert got["d0", "nvme.spare"] == pytest.approx(log["available_spare"] / 100)
    assert got["d0", "nvme.used"] == pytest.approx(log["percentage_used"] / 100)
    assert got["d0", "nvme.temp"] == pytest.approx(log["temperature"], abs=0.2)


HEALTH = ("nvme.media_errors", "nvme.critical_warning", "nvme.spare", "nvme.used")


def test_without_the_right_the_temperature_is_all_there_is(public: Path) -> None:
    host = Host(public)
    drive(host)
    (public / "dev/nvme0").write_bytes(bytes(512))
    (public / "dev/nvme0").chmod(0)
    with nobody():
        got = host.read()
    assert {got["d0", metric] for metric in HEALTH} == {"no_permission"}
    assert got["d0", "nvme.temp"] == 37.85


def test_a_device_that_is_no_drive_is_no_health(host: Host) -> None:
    """/dev/null is a character device that answers no command of NVMe: the real ioctl says so."""
    drive(host)
    os.symlink("/dev/null", host.root / "dev/nvme0")
    got = host.read()
    assert {got["d0", metric] for metric in HEALTH} == {"not_supported"}
    assert got["d0", "nvme.temp"] == 37.85


@pytest.mark.parametrize("data", [b"", b"\0" * 511])
def test_a_health_log_that_is_cut_is_missing(host: Host, data: bytes) -> None:
    drive(host)
    (host.root / "dev/nvme0").write_bytes(data)
    assert {host.read()["d0", metric] for metric in HEALTH} == {"missing"}


def test_a_drive_without_device_or_driver_is_missing(host: Host) -> None:
    drive(host)
    assert {host.read()["d0", metric] for metric in HEALTH} == {"missing"}
    host.pci("0005:01:00.0", "0x010802")
    got = host.read()
    assert {got["d1", metric] for metric in (*HEALTH, "nvme.temp")} == {"missing"}
    assert got["", "host.nvmes"] == 2.0


def test_a_drive_that_does_not_measure_its_temperature_is_not_at_absolute_zero() -> None:
    health = smart.parse(bytes(512))
    assert health.temp_c != health.temp_c


def test_media_errors_are_128_bits_wide() -> None:
    assert smart.parse(bytes(160) + b"\xff" * 16 + bytes(336)).media_errors == 2**128 - 1


@given(st.binary(max_size=600))
def test_any_bytes_are_a_health_log_or_refused(data: bytes) -> None:
    if len(data) < smart.SIZE:
        with pytest.raises(ValueError, match="512"):
            smart.parse(data)
    else:
        assert 0 <= smart.parse(data).warning < 256


# ---------------------------------------------------------------- files


def reason(file: File) -> str:
    with pytest.raises(Absent) as caught:
        file.number()
    return str(caught.value)


@pytest.mark.parametrize("text", ["", " \n", "abc", "nan", "inf", "1e9", "0x10", "--1", "٣", "1" * 21, "N/A", "\0\0", "12x"])
def test_nonsense_is_missing_and_never_a_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "value").write_text(text)
    assert reason(File(str(tmp_path), "value")) == "missing"


def test_an_attribute_that_is_not_offered_and_a_device_that_is_not_there(tmp_path: Path) -> None:
    assert reason(File(str(tmp_path), "value")) == "not_supported"
    assert reason(File(str(tmp_path / "gone"), "value")) == "missing"
    assert reason(File(str(tmp_path))) == "missing", "a folder is no attribute"


def test_a_file_that_may_not_be_read(public: Path) -> None:
    (public / "value").write_text("1")
    (public / "value").chmod(0)
    with nobody():
        assert reason(File(str(public), "value")) == "no_permission"


@pytest.mark.parametrize(
    ("code", "why"), [(errno.EIO, "missing"), (errno.ENODEV, "missing"), (errno.EOPNOTSUPP, "not_supported")]
)
def test_what_the_kernel_answers(tmp_path: Path, code: int, why: str) -> None:
    (tmp_path / "value").write_text("1")
    file = File(str(tmp_path), "value")
    assert file.number() == 1.0
    assert str(file.failed(OSError(code, "no"))) == why
    assert file.number() == 1.0, "it is opened again"


def test_a_file_stays_open_shows_new_values_and_its_end_is_noticed() -> None:
    """A real file of the kernel's, of a process that ends: the same descriptor, then no more."""
    with subprocess.Popen(["sleep", "60"]) as child:
        file = File("/proc", str(child.pid), "stat")
        first = file.fd()
        assert (file.number(), file.fd()) == (child.pid, first)
        child.kill()
        child.wait()
        assert reason(file) == "missing"
        assert reason(file) == "missing"
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(first)


def test_an_uptime_kept_open_goes_on() -> None:
    file = File("/proc/uptime")
    before, end = file.number(), time.monotonic() + 5
    while file.number() == before:
        assert time.monotonic() < end
