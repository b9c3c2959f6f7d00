"""Transport against real OpenSSH: who gets in and how, and what is said when a link is not what it should be."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from burnin.errors import HostKeyError, InputError, LinkLost, LoginRefused, TrayError, TrayUnfit, Unreachable
from burnin.transport.agent import AgentLink
from burnin.transport.known import KnownHosts
from burnin.transport.package import build
from burnin.transport.shell import OUTPUT_MAX, Shell
from burnin.transport.ssh import Dialer, closing, shell
from tests.real.conftest import RealSshd
from tests.twin.runs import alive


def dialer(server: RealSshd, known: KnownHosts | None = None, jump: str | None = None, **change: Any) -> Dialer:
    end = replace(server.endpoint(), **change)
    return Dialer({"t00": end}, known or KnownHosts(server.known_hosts), "rack.yaml", 3.0, jump)


async def test_a_command_is_run_by_sh_whatever_it_prints(sshd: RealSshd) -> None:
    async with closing(await dialer(sshd).connect("t00")) as connection:
        answer = await shell(connection, "echo 'a \"b\" $((1+2))'; echo err >&2; exit 7", timeout_s=5)
        assert (answer.status, answer.out, answer.err) == (7, 'a "b" $((1+2))\n', "err\n")
        assert (await shell(connection, "cat", timeout_s=5, stdin=b"\x00\xff\n")).out == "\x00\ufffd\n"


async def test_a_link_that_goes_while_a_command_runs_is_lost_never_success(sshd: RealSshd) -> None:
    connection = await dialer(sshd).connect("t00")
    running = asyncio.create_task(shell(connection, "echo $PPID; sleep 20; true", timeout_s=15))
    await asyncio.sleep(0.5)
    for pid in _children(sshd.process.pid):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(LinkLost):
        await running
    connection.abort()


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_command_without_end_is_given_up(sshd: RealSshd) -> None:
    async with closing(await dialer(sshd).connect("t00")) as connection:
        with pytest.raises(TrayError, match=r"no end after 0\.5 s"):
            await shell(connection, "sleep 20", timeout_s=0.5)


async def test_a_key_that_is_not_enrolled_is_refused_with_its_fingerprint(sshd: RealSshd, tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match=r"not enrolled \(it shows SHA256:.*burnin enroll rack.yaml"):
        await dialer(sshd, known=KnownHosts(tmp_path / "none")).connect("t00")


async def test_a_key_of_another_type_than_enrolled_is_refused(sshd: RealSshd, tmp_path: Path) -> None:
    rsa = asyncssh.generate_private_key("ssh-rsa").export_public_key("openssh").decode()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {rsa}")
    with pytest.raises(HostKeyError, match=r"SHA256:.* is enrolled"):
        await dialer(sshd, known=KnownHosts(tmp_path / "known")).connect("t00")


async def test_another_users_key_is_refused(sshd: RealSshd, tmp_path: Path) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "stranger").write_bytes(stranger.export_private_key("openssh"))
    with pytest.raises(LoginRefused, match="none of our keys is accepted"):
        await dialer(sshd, key=tmp_path / "stranger").connect("t00")


async def test_a_key_with_a_passphrase_belongs_into_ssh_agent(sshd: RealSshd, tmp_path: Path) -> None:
    locked = asyncssh.read_private_key(sshd.key).export_private_key("openssh", passphrase="secret words")
    (tmp_path / "locked").write_bytes(locked)
    with pytest.raises(InputError, match="load it into ssh-agent and leave `key` out") as caught:
        await dialer(sshd, key=tmp_path / "locked").connect("t00")
    assert "secret words" not in str(caught.value)


@pytest.fixture
def ssh_agent(sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent on this machine")
    path = tmp_path / "agent.sock"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.02)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    subprocess.run(["ssh-add", str(sshd.key)], check=True, capture_output=True)
    yield
    agent.kill()
    agent.wait()


@pytest.mark.usefixtures("ssh_agent")
async def test_without_a_key_file_ssh_agent_is_asked(sshd: RealSshd) -> None:
    async with closing(await dialer(sshd, key=None).connect("t00")) as connection:
        assert (await shell(connection, "echo in", timeout_s=5)).out == "in\n"


async def test_through_a_jump_host_whose_key_is_verified_too(start_sshd: Callable[[], RealSshd], tmp_path: Path) -> None:
    tray, jump = start_sshd(), start_sshd()
    both = tmp_path / "known"
    with (jump.root / "authorized").open("a") as file:
        file.write((tray.root / "authorized").read_text())
    both.write_text(tray.known_hosts.read_text() + jump.known_hosts.read_text())
    way = f"{jump.user}@127.0.0.1:{jump.port}"
    dial = dialer(tray, known=KnownHosts(both), jump=way)
    async with closing(await dial.connect("t00")) as connection:
        seen = (await shell(connection, 'echo "$SSH_CONNECTION"', timeout_s=5)).out.split()
    await dial.close()
    assert seen[3] == str(tray.port)
    both.write_text(tray.known_hosts.read_text())
    stranger = dialer(tray, known=KnownHosts(both), jump=way)
    with pytest.raises(HostKeyError, match="jump host"):
        await stranger.connect("t00")
    await stranger.close()


async def test_nobody_there_is_said_at_once(sshd: RealSshd) -> None:
    with pytest.raises(Unreachable, match="connection refused"):
        await dialer(sshd, port=1).connect("t00")


async def test_a_server_that_says_nothing_is_given_up_in_time(sshd: RealSshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="no answer"):
            await dialer(sshd, port=mute.getsockname()[1]).connect("t00")
        assert time.monotonic() - begin < 6


# ---------------------------------------------------------------- the agent's start


async def opened(sshd: RealSshd, **change: Any) -> AgentLink:
    link = AgentLink(dialer(sshd, **change), "t00", build(), "run-1", lambda _: None)
    try:
        await link.open()
    except BaseException:
        await link.close()
        raise
    return link


async def test_the_agent_is_pushed_once_and_a_changed_copy_is_replaced_not_run(sshd: RealSshd) -> None:
    for _ in range(2):
        link = await opened(sshd)
        await link.order("bye")
        await link.close()
    place = Path(sshd.endpoint().dir)
    (copy,) = place.glob("agent-*.pyz")
    pushed = copy.stat().st_mtime_ns
    assert place.stat().st_mode & 0o777 == 0o700
    link = await opened(sshd)
    await link.order("bye")
    await link.close()
    assert copy.stat().st_mtime_ns == pushed, "it was there: nothing is copied again"
    copy.write_bytes(b"import os; os.system('touch /tmp/never')")
    link = await opened(sshd)
    await link.order("bye")
    await link.close()
    assert copy.read_bytes() == build().data


async def test_a_tray_without_python_says_so(sshd: RealSshd) -> None:
    with pytest.raises(TrayUnfit, match=r"no python9 there .* name one with `python:`"):
        await opened(sshd, python="python9")


async def test_a_directory_that_cannot_be_written_says_so(sshd: RealSshd) -> None:
    with pytest.raises(TrayUnfit, match="the agent cannot be put into /proc/none"):
        await opened(sshd, dir="/proc/none")


async def test_chatter_of_a_login_shell_does_not_disturb(sshd: RealSshd, tmp_path: Path) -> None:
    loud = tmp_path / "loud"
    loud.write_text(f"#!/bin/sh\necho 'Welcome to the tray!'\nexec {shutil.which('python3')} \"$@\"\n")
    loud.chmod(0o755)
    link = await opened(sshd, python=str(loud))
    assert (await link.order("identify"))["nvml"]
    await link.order("bye")
    await link.close()


@pytest.mark.parametrize("says", ["yes | head -c 200000", "head -c 200000 /dev/zero"])
async def test_endless_noise_instead_of_an_agent_is_given_up(sshd: RealSshd, tmp_path: Path, says: str) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text(f"#!/bin/sh\n{says}\nsleep 30\n")
    noisy.chmod(0o755)
    with pytest.raises(TrayUnfit, match="what answers is not the agent"):
        await opened(sshd, python=str(noisy))


async def test_an_order_that_the_agent_refuses_comes_back_with_its_words(sshd: RealSshd) -> None:
    link = await opened(sshd)
    with pytest.raises(TrayError, match="load is refused: no GPU is being sampled"):
        await link.order("load", gpus=["g0"], kernel="tensor_burn", cutoff_margin_c=0, max_s=10)
    with pytest.raises(TrayError, match="unknown order 'dance'"):
        await link.order("dance")
    await link.order("bye")
    await link.close()


async def test_the_same_order_is_not_done_twice(sshd: RealSshd) -> None:
    link = await opened(sshd)
    first = await link.order("identify", ident="one")
    again = await link.order("identify", ident="one")
    assert first == again
    await link.order("bye")
    await link.close()


async def test_a_killed_sshd_leaves_the_holder_and_its_records_to_the_next_link(sshd: RealSshd) -> None:
    """What OpenSSH does not kill when a link goes: the holder, which keeps what nobody fetched."""
    link = await opened(sshd)
    link.lease(30, -1)
    holder = link.hello
    assert holder is not None
    await link.order("state")
    for pid in _children(sshd.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert await asyncio.wait_for(link.gone, 10) is not None
    await link.close()
    second = await opened(sshd)
    assert second.hello is not None
    assert second.hello.body["holder"] == holder.body["holder"], "the same holder"
    assert second.hello.body["next"] > 0
    await second.order("bye")
    await second.close()
    await asyncio.sleep(0.5)
    assert not alive(holder.body["pid"])


async def test_a_shell_order_tells_exit_signal_and_output_and_keeps_a_bounded_part(sshd: RealSshd) -> None:
    door = Shell(dialer(sshd))

    async def ask(text: str, timeout_s: float = 10.0) -> dict[str, Any]:
        return await door.order("t00", "script", {"script": text}, timeout_s)

    assert await ask("echo 'a \"b\"'; echo err >&2; exit 7") == {"exit": 7, "stdout": 'a "b"\n', "stderr": "err\n", "cut": False}
    killed = await ask("echo so far; kill -9 $$")
    assert (killed["exit"], killed["stdout"]) == (None, "so far\n"), "ended by a signal is no exit status"
    flood = await ask(f"head -c {OUTPUT_MAX + 4096} /dev/zero | tr '\\0' x; echo end >&2")
    assert (len(flood["stdout"]), flood["cut"], flood["stderr"], flood["exit"]) == (OUTPUT_MAX, True, "end\n", 0)
    with pytest.raises(TrayError, match=r"t00: no end after 0\.3 s"):
        await ask("sleep 20", 0.3)


async def test_a_shell_order_whose_link_goes_is_lost_never_success(sshd: RealSshd) -> None:
    running = asyncio.create_task(Shell(dialer(sshd)).order("t00", "script", {"script": "sleep 20; true"}, 15))
    await asyncio.sleep(0.5)
    for pid in _children(sshd.process.pid):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(LinkLost):
        await running
