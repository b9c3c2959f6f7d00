"""The twin's seams, by clients that know nothing of it: OpenSSH, paramiko, asyncssh, unmodified pynvml in a real zipapp."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pynvml
import pytest
from ruamel.yaml import YAML

from burnin.errors import InputError
from burnin.rack.schema import Rack
from burnin.twin import addresses, rackfile, up
from burnin.twin.faults import parse
from burnin.twin.mounts import can_mount
from burnin.twin.rackfile import Place
from burnin.twin.state import State
from burnin.twin.tray import descendants
from burnin.twin.up import Twin, running

PROFILE = "gb300-nvl72"

MAIN = """
import ctypes, json, subprocess, sys
import pynvml as n
n.nvmlInit()
gpu = n.nvmlDeviceGetHandleByIndex(0)
child = [sys.executable, "-I", "-S", "-c", "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0); print('child')"]
print(json.dumps({
    "temp": n.nvmlDeviceGetTemperature(gpu, 0), "name": n.nvmlDeviceGetName(gpu), "uuid": n.nvmlDeviceGetUUID(gpu),
    "argv": sys.argv, "path": sys.path[0], "executable": sys.executable, "from": n.__file__,
    "flags": [sys.flags.isolated, sys.flags.no_site], "pid": ctypes.CDLL(None).getpid(),
    "child": subprocess.run(child, capture_output=True, text=True).stdout, "name_is": __name__,
    "modules": sorted(m for m in sys.modules if m.split(".")[0] == "burnin"),
}))
sys.exit(9)
"""
BURN = """
import ctypes as c, time
cu = c.CDLL("libcuda.so.1")
out = c.c_void_p()
assert cu.cuInit(c.c_uint(0)) == 0
assert cu.cuDevicePrimaryCtxRetain(c.byref(out), c.c_int(0)) == 0
assert cu.cuCtxSetCurrent(out) == 0
ptx = c.create_string_buffer(b".version 7.0\\n.target sm_80\\n.entry tensor_burn(\\n)\\n{ret;}")
assert cu.cuModuleLoadDataEx(c.byref(out), ptx, 0, None, None) == 0
assert cu.cuModuleGetFunction(c.byref(out), out, b"tensor_burn") == 0
v = (c.c_uint64(0), c.c_uint64(0), c.c_int(60_000_000), c.c_uint(0))
p = (c.c_void_p * 4)(*[c.cast(c.byref(x), c.c_void_p) for x in v])
assert cu.cuLaunchKernel(out, 1, 1, 1, 256, 1, 1, 0, None, p, None) == 0
print("burning", flush=True)
cu.cuCtxSynchronize()
"""


def zipapp() -> bytes:
    """A program with pynvml inside and a `burnin` of its own, as the agent has."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", MAIN)
        archive.writestr("pynvml.py", Path(pynvml.__file__).read_text())
    return buffer.getvalue()


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False


def refuses(place: Place) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((place.host, place.port)) == errno.ECONNREFUSED


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """Two compute trays and a switch tray, healthy."""
    with running(PROFILE, 3, where=tmp_path_factory.mktemp("twin"), trays=2, switches=1) as up:
        yield up


def login(twin: Twin, part: str, key: paramiko.PKey | None = None) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(str(twin.rack_file.with_suffix(".known_hosts")))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    place, own = twin.trays[part], paramiko.Ed25519Key.from_private_key_file(str(twin.rack_file.with_suffix(".key")))
    client.connect(place.host, place.port, "burnin", pkey=key or own, allow_agent=False, look_for_keys=False, timeout=10)
    return client


@pytest.fixture(scope="module")
def client(twin: Twin) -> Iterator[paramiko.SSHClient]:
    """A paramiko login on t00."""
    with login(twin, "t00") as one:
        yield one


def run(client: paramiko.SSHClient, command: str, data: bytes = b"") -> tuple[int, str, str]:
    """(exit status, stdout, stderr); -1 when it ended otherwise."""
    stdin, stdout, stderr = client.exec_command(command, timeout=20)
    with contextlib.suppress(OSError):  # the command may be over before it has read
        stdin.write(data)
        stdin.channel.shutdown_write()
    out, error = stdout.read().decode(), stderr.read().decode()
    return stdout.channel.recv_exit_status(), out, error


# ---------------------------------------------------------------- the files of a site


def test_the_rack_file_is_a_rack(twin: Twin) -> None:
    rack = Rack.model_validate(YAML(typ="safe").load(twin.rack_file))
    assert (rack.compute(), rack.switches(), rack.profile) == (["t00", "t01"], ["s0"], PROFILE)
    assert {part: (a.host, a.port) for part, a in rack.trays.items()} == {p: (w.host, w.port) for p, w in twin.trays.items()}
    assert sorted(rack.expect) == ["t00", "t01"]
    assert {w.interlock for w in rack.waive} == {"leak_policy", "switch_trays"}  # s1 to s8 are not served
    key = twin.rack_file.with_suffix(".key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in twin.rack_file.parent.iterdir()) == [
        "rack.bmc", "rack.ca.pem", "rack.key", "rack.known_hosts", "rack.yaml",
    ]  # fmt: skip
    assert twin.rack_file.with_suffix(".bmc").stat().st_mode & 0o777 == 0o600
    assert sorted(rack.bmc) == ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "s0", "t00", "t01"]
    assert rack.coolant is not None and rack.coolant.scope == "rack"


def test_where_there_is_one_address_each_tray_has_a_port() -> None:
    where = {f"t{i:02}": Place(1, "127.0.0.1", 40000 + i, Path("/")) for i in range(3)}
    rows = YAML(typ="safe").load("\n".join(["trays:", *rackfile._addresses(where)]))["trays"]
    assert rows["t02"] == {"host": "127.0.0.1", "port": 40002}


def test_a_machine_with_one_loopback_address_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = addresses.bound

    def only_one(host: str, port: int) -> socket.socket:
        if host != "127.0.0.1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return real(host, port)

    monkeypatch.setattr(addresses, "bound", only_one)
    sockets = addresses.bind(["t00", "t00.bmc", "s0"])
    names = {sock.getsockname() for sock in sockets.values()}
    for sock in sockets.values():
        sock.close()
    assert {host for host, _ in names} == {"127.0.0.1"}
    assert len(names) == 3


def test_what_cannot_be_planted_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this gb300-nvl72 has no t19\.g0; it has t\[00-17\], each with g0 to g3"):
        up.serve(PROFILE, 1, [parse("tim_void:t19.g0")], tmp_path / "rack.yaml")
    with pytest.raises(InputError, match="this h200-1gpu has no"):
        up.serve("h200-1gpu", 1, [parse("tim_void:t00.g1")], tmp_path / "rack.yaml")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- SSH


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client on this machine")
def test_openssh_reaches_a_tray(twin: Twin) -> None:
    place = twin.trays["t01"]
    options = {
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "UserKnownHostsFile": str(twin.rack_file.with_suffix(".known_hosts")),
        "IdentitiesOnly": "yes",
    }
    ssh = ["ssh", "-F", "/dev/null", "-i", str(twin.rack_file.with_suffix(".key")), "-p", str(place.port)]
    ssh += [word for name, value in options.items() for word in ("-o", f"{name}={value}")] + [f"burnin@{place.host}"]
    done = subprocess.run([*ssh, "tr a-z A-Z; echo no >&2; exit 7"], input=b"shout", capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"SHOUT", b"no\n")
    shell = subprocess.run([*ssh, "-T"], input=b"echo $HOME\nexit 3\n", capture_output=True, timeout=20)
    assert (shell.returncode, shell.stdout.decode().strip()) == (3, str(place.dir / "home"))


async def test_asyncssh_reaches_a_tray_and_hears_how_commands_end(twin: Twin) -> None:
    place = twin.trays["t00"]
    async with asyncssh.connect(
        place.host,
        place.port,
        username="burnin",
        client_keys=[str(twin.rack_file.with_suffix(".key"))],
        known_hosts=str(twin.rack_file.with_suffix(".known_hosts")),
        config=None,
    ) as connection:
        assert (await connection.run("true")).exit_status == 0
        killed = await connection.run("kill -9 $$")
        assert killed.exit_status == -1
        assert killed.exit_signal is not None
        assert killed.exit_signal[0] == "KILL"
        process = await connection.create_process("echo $$; exec sleep 60")
        await process.stdout.readline()
        process.send_signal("TERM")
        ended = await asyncio.wait_for(process.wait(), 10)
        assert ended.exit_signal is not None
        assert ended.exit_signal[0] == "TERM"


def test_only_the_right_key_gets_in(twin: Twin) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        login(twin, "t00", paramiko.RSAKey.generate(2048))


def test_a_login_finds_the_trays_own_world(twin: Twin, client: paramiko.SSHClient) -> None:
    home = twin.trays["t00"].dir / "home"
    assert run(client, "pwd; command -v python3; sudo -n id -u") == (0, f"{home}\n{home.parent}/bin/python3\n{os.getuid()}\n", "")
    status, text, _ = run(client, "cat $HOST_SYS/class/dmi/id/product_serial $HOST_PROC/sys/kernel/random/boot_id")
    serial, boot_id = text.split()
    assert status == 0
    assert serial == Rack.model_validate(YAML(typ="safe").load(twin.rack_file)).expect["t00"].serial
    assert len(boot_id) == 36
    status, log, _ = run(client, "cat $HOST_DEV/kmsg")
    assert all(line.split(";")[0].split(",")[0] == "6" for line in log.splitlines())
    with login(twin, "t01") as other:
        assert run(other, "cat $HOST_PROC/sys/kernel/random/boot_id")[1].strip() != boot_id


def test_a_switch_tray_answers(twin: Twin) -> None:
    with login(twin, "s0") as switch:
        assert run(switch, "true")[0] == 0
        assert "N5200_LD" in run(switch, "nv show platform")[1]
        assert run(switch, "nv show nonsense")[0] == 1


def test_5_mb_go_both_ways_unharmed(client: paramiko.SSHClient) -> None:
    data = os.urandom(5 << 20)
    channel = client.get_transport().open_session()
    channel.settimeout(20)
    channel.exec_command("tee copy; sha256sum copy >&2")
    sent, back = 0, hashlib.sha256()
    while sent < len(data) or not channel.eof_received:
        if sent < len(data) and channel.send_ready():
            sent += channel.send(data[sent : sent + 32768])
            if sent == len(data):
                channel.shutdown_write()
        while channel.recv_ready() or (sent == len(data) and not channel.eof_received):
            piece = channel.recv(65536)
            if not piece:
                break
            back.update(piece)
    digest = hashlib.sha256(data).hexdigest()
    assert back.hexdigest() == digest
    assert channel.makefile_stderr().read().split()[0].decode() == digest
    assert channel.recv_exit_status() == 0


def test_output_that_nobody_reads_holds_the_command_up(twin: Twin, client: paramiko.SSHClient) -> None:
    done = twin.trays["t00"].dir / "home/done"
    channel = client.get_transport().open_session(window_size=1 << 16)
    channel.settimeout(20)
    channel.exec_command("head -c 20000000 /dev/zero; touch done")
    assert not until(done.exists, 0.5)
    total = 0
    while piece := channel.recv(1 << 20):
        total += len(piece)
    assert total == 20_000_000
    assert channel.recv_exit_status() == 0
    assert done.exists()


def test_end_of_input_reaches_the_command_while_it_still_talks(client: paramiko.SSHClient) -> None:
    assert run(client, "cat; echo after", b"before ") == (0, "before after\n", "")


def test_a_command_that_reads_nothing_does_not_mind(client: paramiko.SSHClient) -> None:
    assert run(client, "exec <&-; echo fine", b"x" * 300_000) == (0, "fine\n", "")


def test_a_channel_closes_only_when_its_output_is_closed(client: paramiko.SSHClient) -> None:
    start = time.monotonic()
    assert run(client, "(sleep 0.4; echo late) & exit 5") == (5, "late\n", "")
    assert time.monotonic() - start >= 0.4


def test_a_command_survives_the_loss_of_its_link(twin: Twin) -> None:
    home = twin.trays["t01"].dir / "home"
    lost = login(twin, "t01")
    command = "trap '' PIPE; echo $$; cat > /dev/null; echo still there && echo yes > heard; sleep 0.2; echo survived > mark"
    _stdin, stdout, _ = lost.exec_command(command)  # _stdin is kept: paramiko would close it, and end the command's input
    pid = int(stdout.readline())
    lost.get_transport().sock.close()
    assert until(lambda: not alive(pid))
    assert (home / "mark").read_text() == "survived\n"  # its input ended, and that was all
    assert not (home / "heard").exists()  # writing to nobody fails


def test_a_command_that_writes_to_nobody_gets_sigpipe(twin: Twin) -> None:
    lost = login(twin, "t01")
    _stdin, stdout, _ = lost.exec_command("echo $$; cat > /dev/null; echo still there; sleep 60")
    pid = int(stdout.readline())
    lost.get_transport().sock.close()
    assert until(lambda: not alive(pid))


# ---------------------------------------------------------------- python3 on a tray


def test_an_unmodified_zipapp_reads_the_gpu_through_pynvml(twin: Twin, client: paramiko.SSHClient) -> None:
    assert run(client, "cat > app.pyz")[0] == 0
    stdin, stdout, _ = client.exec_command("cat > app.pyz")
    stdin.write(zipapp())
    stdin.channel.shutdown_write()
    assert stdout.channel.recv_exit_status() == 0
    status, text, error = run(client, "python3 -I -S app.pyz channel run 0")
    assert (status, error) == (9, "")
    said: dict[str, Any] = json.loads(text)
    tray = twin.trays["t00"].dir
    uuids = Rack.model_validate(YAML(typ="safe").load(twin.rack_file)).expect["t00"].gpus or []
    assert 25 <= said["temp"] <= 45
    assert said["name"] == "NVIDIA GB300"
    assert said["uuid"] == uuids[1]  # NVML index 0 is module 2
    assert said["argv"] == ["app.pyz", "channel", "run", "0"]
    assert said["path"] == "app.pyz"
    assert said["from"].startswith("app.pyz")
    assert said["executable"] == f"{tray}/bin/python3"
    assert said["flags"] == [1, 1]
    assert said["name_is"] == "__main__"
    assert said["child"] == "child\n"
    assert said["modules"] == []  # the emulation takes no name that the program might bring


def test_python3_is_asked_in_the_usual_ways(client: paramiko.SSHClient) -> None:
    version = "Python " + sys.version.split()[0] + "\n"
    assert run(client, "python3 -V") == (0, version, "")
    assert run(client, "python3 -I -S -c 'import sys; print(sys.argv)' a -b") == (0, "['-c', 'a', '-b']\n", "")
    assert run(client, "python3 -ISc 'print(__name__)'") == (0, "__main__\n", "")
    assert run(client, "python3 -I -S - x", b"import sys; print(sys.argv)") == (0, "['-', 'x']\n", "")
    assert run(client, "python3 -I -S -m json.tool", b"[1]")[0] == 0
    status, _, error = run(client, "python3 -I -S none.pyz")
    assert status == 2
    assert "can't open file 'none.pyz'" in error
    assert run(client, "python3 -I -S -c 'raise SystemExit(4)'")[0] == 4
    assert run(client, "python3 -I -S -c 'import ctypes; ctypes.CDLL(\"libnone.so.9\")'")[0] == 1


# ---------------------------------------------------------------- death


def test_a_dead_tray_takes_everything_along_and_nothing_outlives_the_twin(tmp_path: Path) -> None:
    plants = [parse("tray_dead:t00:0.5"), parse("xid:t01.g1:119"), parse("wrong_serial:t01.g0")]
    detached = "setsid sleep 300 > /dev/null 2>&1 < /dev/null & echo $!"
    with running(PROFILE, 5, plants, where=tmp_path, trays=2, switches=1) as twin:
        assert not any(word in file.read_text() for file in tmp_path.iterdir() for word in ("tray_dead", "xid", "wrong", "119"))
        expected = Rack.model_validate(YAML(typ="safe").load(twin.rack_file)).expect["t01"].gpus or []
        with login(twin, "t00") as dying, login(twin, "t01") as other:
            sleepers = [int(run(one, detached)[1]) for one in (dying, other)]
            assert all(map(alive, sleepers))
            question = "import ctypes as c; n = c.CDLL('libnvidia-ml.so.1'); n.nvmlInit_v2(); h = c.c_void_p();\n"
            question += "n.nvmlDeviceGetHandleByIndex_v2(c.c_uint(1), c.byref(h)); b = c.create_string_buffer(96)\n"
            question += "n.nvmlDeviceGetUUID(h, b, c.c_uint(96)); print(b.value.decode())"
            answer = run(other, "python3 -I -S -", question.encode())
            assert answer[0] == 0
            assert answer[1].strip().startswith("GPU-")
            assert answer[1].strip() != expected[0]  # the record is the true one; what stands there is not
            _, stdout, _ = dying.exec_command(f"exec python3 -I -S -c '{BURN}'")
            assert stdout.readline() == "burning\n"
            assert until(lambda: not alive(twin.trays["t00"].pid))
            assert not alive(sleepers[0])
            assert until(lambda: refuses(twin.trays["t00"]))
            assert alive(sleepers[1])
            assert run(other, "true")[0] == 0
        family = descendants(twin.pid)
        assert sleepers[1] in family
    assert [pid for pid in (*family, twin.pid) if alive(pid)] == []
    assert not twin.private.exists()


def test_when_the_twin_is_killed_its_trays_go_too(tmp_path: Path) -> None:
    with running(PROFILE, 6, where=tmp_path, trays=1, switches=0) as twin, login(twin, "t00") as one:
        sleeper = int(run(one, "setsid sleep 300 > /dev/null 2>&1 < /dev/null & echo $!")[1])
        os.kill(twin.pid, signal.SIGKILL)
        assert until(lambda: not alive(twin.trays["t00"].pid))
        assert not alive(sleeper)


def test_a_demo_that_is_killed_leaves_no_twin(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "burnin", "demo", "--plain", "--db", str(tmp_path / "b.db")]
    demo = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)})  # killed, it leaves what it keeps there
    try:
        assert until(lambda: len(descendants(demo.pid)) > 3)
        below = descendants(demo.pid)
    finally:
        demo.kill()
        demo.wait()
    assert until(lambda: not any(map(alive, below)))


def test_two_twins_live_side_by_side(twin: Twin, tmp_path: Path) -> None:
    with running(PROFILE, 3, where=tmp_path, trays=2, switches=1) as second:
        ours = {(w.host, w.port) for w in twin.trays.values()}
        assert not ours & {(w.host, w.port) for w in second.trays.values()}
        with login(second, "t01") as one:
            assert run(one, "true")[0] == 0


def test_a_full_disk_and_a_wrong_clock_are_the_trays_own(twin: Twin, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("this machine lets no process of ours mount a file system")
    plants = [parse("tray_disk_full:t00"), parse("tray_disk_full:t01:64"), parse("clock_skew:t01:-7200")]
    now = "python3 -c 'import time; print(time.time(), time.time_ns() / 1e9, time.clock_gettime(0), time.monotonic())'; date +%s"
    with running(PROFILE, 3, plants, where=tmp_path, trays=2) as one:
        with login(one, "t00") as full:
            status, _, error = run(full, "cat > more", b"x" * 5000)
            assert status != 0 and "No space left on device" in error
            assert run(full, "df --output=avail ~ | tail -1")[1].split() == ["0"]
            assert run(full, "rm -f more; mkdir .b && cat .b/x; cat ~/../root/proc/cpuinfo | head -1")[1].startswith("processor")
            told = [float(word) for word in run(full, now)[1].split()]
            assert all(abs(word - time.time()) < 60 for word in (*told[:3], told[4]))
        with login(one, "t01") as little:
            assert run(little, "cat > more; wc -c < more", b"x" * 50_000)[1].split() == ["50000"]
            assert run(little, "cat >> more", b"x" * 50_000)[0] != 0
            told = [float(word) for word in run(little, now)[1].split()]
            assert all(abs(word + 7200 - time.time()) < 60 for word in (*told[:3], told[4]))
            assert abs(told[3] - time.monotonic()) < 60, "since boot, as ever"
            assert run(little, "date -u -d @0 +%Y")[1].split() == ["1970"]
    with login(twin, "t00") as healthy:
        assert run(healthy, "cat > more; wc -c < more; rm more", b"x" * 50_000)[1].split() == ["50000"]


def test_a_lean_twin_moves_less_often_and_gets_as_hot(tmp_path: Path) -> None:
    with running(PROFILE, 3, where=tmp_path, trays=1, lean=True) as one:
        state = State.open(str(one.trays["t00"].dir / "state"))
        beats = set()
        begun_ns = time.monotonic_ns()
        for gpu in range(4):
            slot = state.take_slot(os.getpid(), gpu)
            slot["activity_ppm"], slot["busy_ns"], slot["end_ns"] = 1_000_000, 60 * 10**9, begun_ns + 60 * 10**9
        while time.monotonic_ns() - begun_ns < 60e9 and min(row["power_avg_mw"] for row in state.gpus) < 1_350_000:
            beats.add(state.beat_ns)
            time.sleep(0.05)
        took_s = (max(beats) - min(beats)) / 1e9
        assert min(row["power_avg_mw"] for row in state.gpus) >= 1_350_000
        assert len(beats) <= took_s / 0.5 + 3, "twice a second"
        for _, slot in state.slots():
            slot["pid"] = 0
        state.close()


_WORKS = """
import ctypes as c, sys, time
cuda, at = c.CDLL("libcuda.so.1"), c.c_void_p()
cuda.cuInit(0)
cuda.cuDevicePrimaryCtxRetain(c.byref(at), 2)
cuda.cuCtxSetCurrent(at)
print("works", flush=True)
while cuda.cuCtxSynchronize() == 0:
    time.sleep(0.05)
"""


def test_a_process_in_a_stuck_driver_outlives_its_kill_and_ends_with_the_tray(tmp_path: Path) -> None:
    if not can_mount("fuse"):
        pytest.skip("this machine lets no process of ours mount a fuse")
    plant = parse("proc_stuck:t00.g3:0")  # module 4 is the third on the bus
    with running(PROFILE, 3, [plant], where=tmp_path, trays=1) as one, login(one, "t00") as client:
        _, stdout, _ = client.exec_command(f"echo $$; exec python3 -c '{_WORKS}'", timeout=20)
        pid = int(stdout.readline())
        assert stdout.readline().strip() == "works" and alive(pid)
        state = State.open(str(one.trays["t00"].dir / "state"))
        load = state.take_slot(os.getpid(), 0)  # load on another GPU is the tray's first
        load["activity_ppm"], load["busy_ns"], load["end_ns"] = 1_000_000, 9 * 10**9, time.monotonic_ns() + 9 * 10**9
        assert until(lambda: state.gpus[3]["stuck"] == 1)
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D")
        assert alive(pid) and run(client, "echo fine")[1] == "fine\n", "the tray itself goes on"
        load["pid"] = 0
        state.close()
    assert until(lambda: not alive(pid))
