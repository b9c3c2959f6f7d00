"""Log services: entries that stand in order and page, and the word to whoever listens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from burnin.twin.redfish.tree import Body, Tree, ref

Tell = Callable[[Body], None]
"""Takes the record of one event (a member of `Events`)."""
Keep = Callable[[float, str, str], None]
"""Takes a line: seconds since 1970, severity, text."""
KEPT = 2000
"""Entries that a log keeps; the oldest go."""


def iso(seconds: float) -> str:
    """UTC, as Redfish writes it."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


class Log:
    """One LogService and its entries. `now` gives seconds since 1970."""

    def __init__(
        self, tree: Tree, at: str, name: str, now: Callable[[], float], tell: Tell, keep: Keep = lambda *line: None
    ) -> None:
        self.path = f"{at}/LogServices/{name}"
        self._tree, self._now, self._tell, self._name, self._keep = tree, now, tell, name, keep
        self._entries = f"{self.path}/Entries"
        self._count = 0
        clear = f"{self.path}/Actions/LogService.ClearLog"
        body = {
            "Actions": {"#LogService.ClearLog": {"target": clear}},
            "Entries": ref(self._entries),
            "OverWritePolicy": "WrapsWhenFull",
            "MaxNumberOfRecords": KEPT,
        }
        tree.live(
            self.path, "LogService.v1_3_0.LogService", lambda: {**body, "DateTime": iso(now()), "DateTimeLocalOffset": "+00:00"}
        )
        tree.collect(self._entries, "LogEntry", [])
        tree.whole.add(self._entries)
        tree.acts[clear] = lambda _: self.clear()

    def add(self, severity: str, message_id: str, args: Sequence[str], text: str, origin: str) -> None:
        """One more entry, told at once. Severity OK, Warning or Critical; `origin` the resource it is about."""
        self._count += 1
        now_s = self._now()
        number, created = str(self._count), iso(now_s)
        self._keep(now_s, severity, text)
        told = {"Severity": severity, "MessageId": message_id, "MessageArgs": list(args), "Message": text}
        path = f"{self._entries}/{number}"
        entry_type = "SEL" if self._name == "SEL" else "Event"
        links = {"OriginOfCondition": ref(origin)}
        body = {**told, "Created": created, "EntryType": entry_type, "Resolved": False, "Links": links}
        self._tree.put(path, "LogEntry.v1_15_0.LogEntry", body, "System Event Log Entry")
        members = self._tree.collections[self._entries]
        members.append(path)
        if len(members) > KEPT:
            self._tree.drop(members.pop(0))
        self._tell(
            {**told, "EventId": number, "EventTimestamp": created, "OriginOfCondition": ref(origin), "LogEntry": ref(path)}
        )

    def clear(self) -> None:
        """Forget all entries; numbers go on."""
        members = self._tree.collections[self._entries]
        for path in members:
            self._tree.drop(path)
        members.clear()


def log_services(tree: Tree, at: str, logs: Sequence[Log]) -> str:
    """The collection of these logs below `at`. Returns its path."""
    return tree.collect(f"{at}/LogServices", "LogService", [log.path for log in logs])
