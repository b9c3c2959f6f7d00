"""A Redfish service that is not ours: a plain HTTPS server of the standard library over a dictionary of bodies.

`tree()` reads the tree of a real GB300 tray from the captures. A server can be told to misbehave: `trouble` maps a path to
what it does instead of answering.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from burnin.transport.https import RedfishEndpoint
from burnin.transport.secret import Secret

CAPTURES = Path(os.environ.get("BURNIN_CAPTURES", Path(__file__).parents[2] / "shared/captures")) / "redfish"
GB300 = CAPTURES / "gb300_supermicro_full"
needs_captures = pytest.mark.skipif(not GB300.is_dir(), reason="no captures beside the project: set BURNIN_CAPTURES")

Body = dict[str, Any]
USER, PASSWORD = "root", "planted-Passw0rd-7f3a"


@cache
def _files() -> dict[str, str]:
    out = {}
    for file in GB300.glob("*.json"):
        text = file.read_text()
        body = json.loads(text)
        if isinstance(body, dict) and isinstance(body.get("@odata.id"), str):
            out[body["@odata.id"]] = text
    return out


def tree() -> dict[str, Body]:
    """Path -> body of the real tray, fresh."""
    return {path: json.loads(text) for path, text in _files().items()}


def capture(name: str) -> Body:
    """One other Redfish body of the captures."""
    body: Body = json.loads((CAPTURES / name).read_text())
    return body


def certificates(folder: Path) -> tuple[Path, Path]:
    """A CA and a server's certificate with its key, for 127.0.0.1, in `folder`: (CA file, server file)."""
    now = dt.datetime.now(dt.UTC)

    def make(name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey) -> bytes:
        own = name == issuer
        usage = x509.KeyUsage(not own, False, False, False, False, own, own, False, False)
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=own, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(alternative, critical=False)
            .sign(signer, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca, server = folder / "ca.pem", folder / "server.pem"
    ca.write_bytes(make("test CA", "test CA", root, root))
    secret = leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server.write_bytes(make("bmc", "test CA", leaf, root) + secret)
    return ca, server


@dataclass
class Service:
    """What the server serves, how it behaves, and what it was asked."""

    tree: dict[str, Body]
    sessions: bool = True
    full: tuple[int, Body] | None = None
    """What it answers to a login while it has no room for another session; it knows who shows name and password."""
    expands: bool = True
    page: int = 0
    trouble: dict[str, list[str | int]] = field(default_factory=dict)
    """Path -> what the next answers are: an HTTP status, or `garbage`, `drop`, `hang`, `big`; then it answers."""
    events: list[bytes] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    ca: Path = Path()

    def at(self, password: str = PASSWORD, part: str = "t07.bmc") -> RedfishEndpoint:
        """How to reach it."""
        return RedfishEndpoint(part, self.url, self.ca, Secret(password), USER)


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _known(self) -> bool:
        basic = (self.headers.get("Authorization") or "").startswith("Basic ")
        if self.service.sessions and not (self.service.full and basic):
            return self.headers.get("X-Auth-Token") in self.service.tokens
        return basic

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.service.asked.append(f"POST {self.path}")
        if self.path.endswith("/Sessions"):
            if not self.service.sessions:
                return self._send(405, {})
            if body != {"UserName": USER, "Password": PASSWORD}:
                return self._send(401, {"error": {"message": "no"}})
            if self.service.full:
                return self._send(*self.service.full)
            token = f"token-{len(self.service.asked)}"
            self.service.tokens.add(token)
            return self._send(201, {}, {"X-Auth-Token": token, "Location": f"{self.path}/{token}"})
        if self._trouble(self.path):
            return None
        if not self._known():
            return self._send(401, {})
        self.service.bodies.append(body)
        return self._send(200, {"done": True})

    def do_DELETE(self) -> None:
        self.service.asked.append(f"DELETE {self.path}")
        self.service.tokens.discard(self.path.rsplit("/", 1)[-1])
        self._send(204, b"")

    def do_GET(self) -> None:
        at = urlsplit(self.path)
        self.service.asked.append(f"GET {self.path}")
        if self._trouble(at.path):
            return None
        if not self._known():
            return self._send(401, {})
        if at.path.endswith("/SSE"):
            return self._stream()
        body = self.service.tree.get(at.path.rstrip("/"))
        if body is None:
            return self._send(404, {"error": {"code": "Base.1.0.ResourceMissingAtURI"}})
        return self._send(200, self._collection(at.path, body, parse_qs(at.query)) if "Members" in body else body)

    def _collection(self, path: str, body: Body, query: dict[str, list[str]]) -> Body:
        rows: Any = body["Members"]
        if not isinstance(rows, list):
            return body
        if "$expand" in query and self.service.expands:
            rows = [self.service.tree.get(row.get("@odata.id", ""), row) for row in rows]
        begin, step = int(query.get("$skip", ["0"])[0]), self.service.page or len(rows)
        out = {**body, "Members": rows[begin : begin + step]}
        if self.service.page and begin + step < len(rows):
            expand = "$expand=.&" if "$expand" in query else ""
            out["Members@odata.nextLink"] = f"{path}?{expand}$skip={begin + step}"
        return out

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in self.service.events:
            self.wfile.write(event)
        self.wfile.flush()
        self.close_connection = True

    def _trouble(self, path: str) -> bool:
        """True when it misbehaved instead of answering."""
        waiting = self.service.trouble.get(path)
        if not waiting:
            return False
        what = waiting[0] if len(waiting) == 1 and waiting[0] in ("hang", "always") else waiting.pop(0)
        if isinstance(what, int):
            self._send(what, {"error": {"message": "trouble"}})
        elif what == "garbage":
            self._send(200, b"<html>Bad Gateway</html>")
        elif what == "big":
            self._send(200, b" " * (17 << 20))
        elif what == "hang":
            self.service.released.wait(10)
            self.close_connection = True
        else:
            self.close_connection = True
        return True


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


@contextmanager
def serving(folder: Path, bodies: dict[str, Body], **how: Any) -> Iterator[Service]:
    """Serve `bodies` on a free port of 127.0.0.1 over TLS."""
    service = Service(bodies, **how)
    answers = type("Answers", (_Answers,), {"service": service})
    folder.mkdir(exist_ok=True)
    service.ca, own = certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    server = _Quiet(("127.0.0.1", 0), answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    service.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
