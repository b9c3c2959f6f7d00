"""The thread between the event loop, which must not wait, and the disk, which does.

Things are put, in order, and written in batches. What cannot be written is said at the next `put`, `flush` or `close`:
a run without evidence proves nothing and must stop. A disk that stalls fills the queue up to a limit, and that is said too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from burnin.errors import StoreError
from burnin.events import LogLine, Tick
from burnin.store.store import Item, Store

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Flush:
    """Somebody waits for everything put before this."""

    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def settle(self, failure: StoreError | None) -> None:
        """Wakes the waiter, if there still is one. Called from the writer's thread."""
        try:
            self.loop.call_soon_threadsafe(self._settle, failure)
        except RuntimeError:
            pass  # the loop is closed, and its waiters with it

    def _settle(self, failure: StoreError | None) -> None:
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(failure)


class Writer:
    """Writes to one store from a thread of its own. `limit`: bytes that may wait; `idle_s`: how long silent ticks may."""

    def __init__(self, store: Store, *, limit: int = 64 << 20, idle_s: float = 10.0) -> None:
        self._store, self._limit, self._idle_s = store, limit, idle_s
        self._queue: list[Item | Work | _Flush] = []
        self._waiting = 0
        self._failure: StoreError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(self, item: Item | Work) -> None:
        """Takes an event, or something to call (`lambda: store.end_attempt(...)`), and returns at once.

        Raises StoreError when something put earlier could not be written, or too much waits for the disk.
        """
        self._put(item, _weight(item))

    @property
    def full(self) -> bool:
        """True while so much waits that whoever can wait should: half of what may."""
        return self._waiting > self._limit // 2

    async def flush(self) -> None:
        """Returns when everything put so far, ticks too, is on the disk. Raises StoreError when it cannot be."""
        loop = asyncio.get_running_loop()
        flush = _Flush(loop, loop.create_future())
        self._put(flush, 0)
        await flush.done

    async def close(self) -> None:
        """Writes what waits and ends the thread. Raises StoreError when something could not be written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        if self._failure is not None:
            raise self._failure

    def _put(self, item: Item | Work | _Flush, weight: int) -> None:
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._closing:
                raise StoreError("the writer is closed: nothing more can be kept")
            if self._waiting + weight > self._limit:
                megabytes = self._waiting / 1e6
                raise StoreError(f"{self._store.path} is too slow: {megabytes:.1f} MB wait to be written; look at its disk")
            self._queue.append(item)
            self._waiting += weight
            self._changed.notify()

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        batch: Sequence[Item | Work | _Flush] = ()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._queue or self._closing, self._idle_s)
                    batch, self._queue = self._queue, []
                    closing = self._closing
                self._write(batch)
                if closing:
                    return
        except Exception as error:
            self._fail(error, batch)

    def _write(self, batch: Sequence[Item | Work | _Flush]) -> None:
        """Events together, calls between them in their place. Nothing to write means that time passed: no tick waits on."""
        events: list[Item] = []
        done = 0
        for item in batch:
            done += _weight(item)
            if not callable(item) and not isinstance(item, _Flush):
                events.append(item)
                continue
            self._keep(events)
            events = []
            if isinstance(item, _Flush):
                self._store.flush()
                done = self._make_room(done)
                item.settle(None)
            else:
                item()
        self._keep(events)
        self._make_room(done)
        if not batch or self._closing:
            self._store.flush()

    def _make_room(self, weight: int) -> int:
        """So much is written; before whoever waited for it can put more. 0: what is left to give back."""
        with self._changed:
            self._waiting -= weight
        return 0

    def _keep(self, events: list[Item]) -> None:
        if events:
            self._store.keep(events)

    def _fail(self, error: Exception, batch: Sequence[Item | Work | _Flush]) -> None:
        """Remembers why, tells whoever waits, and stops: what would be written after a gap proves nothing."""
        failure = error if isinstance(error, StoreError) else StoreError(f"{self._store.path} cannot be written: {error!r}")
        failure.__cause__ = failure.__cause__ or error
        with self._changed:
            self._failure = failure
            left, self._queue = [*batch, *self._queue], []
        for item in left:
            if isinstance(item, _Flush):
                item.settle(failure)


def _weight(item: Item | Work | _Flush) -> int:
    """Bytes that it holds in memory, roughly."""
    if isinstance(item, Tick):
        return 200 + 40 * len(item.values)
    if isinstance(item, LogLine):
        return 400 + len(item.text)
    return 0 if isinstance(item, _Flush) else 1000
