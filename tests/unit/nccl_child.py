"""One rank's process for tests: the agent's NCCL work on the twin's libraries, and nothing else; it may be given work again.

python -I -S nccl_child.py REPOSITORY TRAY_FOLDER UUID        lines of JSON: {"work": args, "max_s": s} or a message
"""

from __future__ import annotations

import json
import sys
import time
import types
from typing import Any

ROOT, TRAY, UUID = sys.argv[1:4]
sys.path.insert(0, ROOT)
for package in ("burnin", "burnin.twin", "burnin.twin.emulate"):  # their __init__ would bring the whole twin
    module = types.ModuleType(package)
    module.__path__ = [f"{ROOT}/{package.replace('.', '/')}"]
    sys.modules[package] = module

from burnin.agent import nccl  # noqa: E402
from burnin.agent.cuda import open_driver  # noqa: E402
from burnin.twin.emulate import boot  # noqa: E402


class Over(Exception):
    """Other work has come."""


class Talk:
    """As burnin.agent.talk, without the holder."""

    def __init__(self) -> None:
        self.end_s = 0.0
        self.waiting: list[dict[str, Any]] = []

    def tell(self, body: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(body) + "\n")
        sys.stdout.flush()

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(sys.stdin.readline())
        if "work" in message:
            self.waiting.append(message)
            raise Over
        return message

    def going(self) -> bool:
        return time.monotonic() < self.end_s


boot.replace_loader(TRAY, "burnin.twin")
talk, cuda = Talk(), open_driver()
device = cuda.device(bytes.fromhex(UUID[4:].replace("-", "")))
while talk.waiting or (line := sys.stdin.readline()):
    message = talk.waiting.pop() if talk.waiting else json.loads(line)
    if "work" not in message:
        talk.tell({"failed": "it does not run on it"})
        continue
    talk.end_s = time.monotonic() + message["max_s"]
    try:
        nccl.run(talk, cuda, device, message["work"])
    except Over:
        pass
