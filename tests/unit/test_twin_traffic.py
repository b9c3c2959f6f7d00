"""An emulated tray's cards: addresses, traffic that takes its time, and what the cards count of it."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from burnin.agent.traffic import ipv4
from burnin.twin import hosttree
from burnin.twin.emulate.traffic import Counters, replace_addresses, replace_sockets
from burnin.twin.model import load

NICS = {"ib_mlx5_0": [0, "127.0.201.10"], "en16f0": [4, "127.0.205.10"]}


@pytest.fixture
def tray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a tray's, and the modules as they were afterwards."""
    (tmp_path / "tray.json").write_text(json.dumps({"nics": NICS}))
    monkeypatch.setattr(fcntl, "ioctl", fcntl.ioctl)
    monkeypatch.setattr(socket, "socket", socket.socket)
    return tmp_path


def test_the_trays_interfaces_have_addresses_and_others_are_this_machines(tray: Path) -> None:
    replace_addresses(str(tray))
    assert ipv4("ib_mlx5_0") == "127.0.201.10"
    assert ipv4("lo") == "127.0.0.1"
    with pytest.raises(OSError, match=r"\w"):
        ipv4("ib_mlx5_9")


def test_traffic_goes_at_the_cards_pace_and_both_ends_count_it(tray: Path) -> None:
    replace_sockets(str(tray))
    counters, piece = Counters(str(tray / "nics")), bytes(64 << 20)
    listener = socket.socket()
    listener.bind(("127.0.205.10", 0))
    listener.listen(1)

    def receive() -> None:
        sock, _ = listener.accept()
        with sock:
            while sock.recv_into(bytearray(1 << 20)):
                pass

    receiver = threading.Thread(target=receive)
    receiver.start()
    begun = time.monotonic()
    with socket.socket() as sock:
        sock.bind(("127.0.201.10", 0))
        sock.connect(listener.getsockname())
        sent = sum(sock.send(piece) for _ in range(4))
    took = time.monotonic() - begun
    receiver.join(5)
    listener.close()
    assert sent == 4 * len(piece)
    assert counters.of(0)[0] >= sent, "as much as was offered, and more where this machine was late"
    assert counters.of(0)[0] / took < 2.6e9, "no faster than the card"
    assert counters.of(4) == (0, counters.of(0)[0])


def test_short_messages_and_other_addresses_are_as_ever(tray: Path) -> None:
    replace_sockets(str(tray))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as out:
        inward, _ = server.accept()
        with inward:
            out.sendall(struct.pack("<Q", 7))
            assert inward.recv(64) == struct.pack("<Q", 7)
    assert Counters(str(tray / "nics")).of(0) == (0, 0)


def test_a_shared_tree_leaves_each_tray_its_own_counters(tmp_path: Path) -> None:
    model = load("gb300-nvl72")
    hosttree.furnish(hosttree.Tree(tmp_path / "shared"), model)
    for name in ("one", "two"):
        (tmp_path / name / "dev").mkdir(parents=True)
        hosttree.borrow(tmp_path / name, tmp_path / "shared", model)
    for card in model.machine.nics:
        sent, _, _ = hosttree.moved(card)
        hosttree.Tree(tmp_path / "one").write(sent, "77")
        read = [(tmp_path / name / sent).read_text().strip() for name in ("one", "two", "shared")]
        assert read == ["77", "0", "0"], card
