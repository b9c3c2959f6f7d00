"""HTTP/1.1 as far as a BMC speaks it: one request at a time on a connection that stays open, bounded in every size."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

MOST_HEAD, MOST_BODY = 16384, 1 << 20
"""Bytes of a request's head and body; a longer one is refused and the connection closed."""
IDLE_S = 120.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request: path without its query, query as it was sent, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `stream`: what to do with the open connection instead of a body (server-sent events)."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Callable[[Connection], None] | None = None


Answerer = Callable[[Request], Awaitable[Answer]]


class Connection(asyncio.Protocol):
    """One client's connection. Requests that come in a row are answered in their order."""

    def __init__(self, answer: Answerer, all_of_them: set[Connection]) -> None:
        self._answer, self._all = answer, all_of_them
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._streaming = False
        self.closed: list[Callable[[], None]] = []

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._all.add(self)
        self._rest()

    def data_received(self, data: bytes) -> None:
        if self._streaming:
            return
        self._buffer += data
        if len(self._buffer) > MOST_HEAD + MOST_BODY:
            self.close()
        elif self._task is None or self._task.done():
            self._serve()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None:
            self._task.cancel()
        for told in self.closed:
            told()

    # ---- ours

    def write(self, data: bytes) -> None:
        """Send more of a stream."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def backlog(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up without a farewell."""
        if self._transport is not None:
            self._transport.abort()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = None if self._streaming else asyncio.get_running_loop().call_later(IDLE_S, self.close)

    def _serve(self) -> None:
        try:
            request = parse(self._buffer)
        except ValueError as error:
            self._send(Answer(400, str(error).encode()), keep=False)
            return
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._one(request))

    async def _one(self, request: Request) -> None:
        self._rest()
        try:
            answer = await self._answer(request)
        except Exception:  # one resource that breaks must not leave its client waiting
            traceback.print_exc()
            answer = Answer(500)
        self._send(answer, keep=request.headers.get("connection", "").lower() != "close", head=request.method == "HEAD")
        self._task = None
        if self._buffer and not self._streaming:
            self._serve()

    def _send(self, answer: Answer, keep: bool, head: bool = False) -> None:
        phrase = HTTPStatus(answer.status).phrase
        lines = [f"HTTP/1.1 {answer.status} {phrase}", "OData-Version: 4.0", "Cache-Control: no-store"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        if answer.stream is None:
            lines.append(f"Content-Length: {len(answer.body)}")
            if answer.body and "Content-Type" not in answer.headers:
                lines.append("Content-Type: application/json; charset=utf-8")
        lines.append("Connection: keep-alive" if keep else "Connection: close")
        self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else answer.body))
        if answer.stream is not None:
            self._streaming = True
            self._rest()
            answer.stream(self)
        elif not keep:
            self.close()


def parse(buffer: bytearray) -> Request | None:
    """Take one whole request off the buffer; None while it is not whole. Raises ValueError for what is not HTTP."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MOST_HEAD:
            raise ValueError("the request's head is too long")
        return None
    first, *rest = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ValueError("not an HTTP/1.1 request")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    if "transfer-encoding" in headers:
        raise ValueError("a body comes with its Content-Length")
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length) > MOST_BODY:
        raise ValueError("Content-Length is not a size that is taken")
    whole = end + 4 + int(length)
    if len(buffer) < whole:
        return None
    body = bytes(buffer[end + 4 : whole])
    del buffer[:whole]
    url = urlsplit(words[1])
    return Request(words[0].upper(), unquote(url.path).rstrip("/") or "/", url.query, headers, body)
