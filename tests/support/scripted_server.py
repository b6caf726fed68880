"""A loopback server that answers each connection from a script of raw bytes and remembers what it was sent."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

#: What to do with one connection after its request was read.
Step = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Request:
    """One request as it arrived; the random boundary of multipart bodies is made the same everywhere."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


def reply(status: int, body: bytes | str = b"", **headers: str) -> Step:
    """Return a step that sends one complete answer and closes."""
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", ""]).encode() + raw)


def raw(content: bytes) -> Step:
    """Return a step that sends bytes as they are and closes."""
    return lambda connection: connection.sendall(content)


def reset(connection: socket.socket) -> None:
    """Close with a reset instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silence(connection: socket.socket) -> None:
    """Say nothing until the other side gives up."""
    while connection.recv(4096):
        pass


class ScriptedServer:
    """Listens on a free port of 127.0.0.1 while it is entered; beyond the script it answers 599.

    :param tls: Speaks TLS with this context; failed handshakes spend no step.
    """

    def __init__(self, steps: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._steps = iter(steps)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                # ConnectionError and TLS alerts: the client has hung up, which is what some scripts provoke.
                try:
                    self._handle(connection)
                except OSError:
                    continue

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        if self._tls is None:
            self._answer(connection)
            return
        with self._tls.wrap_socket(connection, server_side=True) as wrapped:
            self._answer(wrapped)

    def _answer(self, connection: socket.socket) -> None:
        request = read_request(connection)
        if request is not None:
            self.requests.append(request)
            next(self._steps, reply(599))(connection)


def read_request(connection: socket.socket) -> Request | None:
    """Read one request with a Content-Length body, or None from a connection that says nothing."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        data += chunk
        if data.startswith(b"\x16"):
            return Request("TLS greeting", (), b"")
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (entry.partition(":") for entry in rest)]
    while len(body) < int(dict(headers).get("content-length", 0)):
        body += connection.recv(65536)
    boundary = re.search(r"boundary=(\S+)", dict(headers).get("content-type", ""))
    if boundary:
        body = body.replace(boundary[1].encode(), b"BOUNDARY")
        headers = [(name, value.replace(boundary[1], "BOUNDARY")) for name, value in headers]
    kept = tuple(sorted((name, value) for name, value in headers if name != "host"))
    return Request(line, kept, body)


def drip(pieces: Iterable[bytes], pause: float, sent: list[bytes]) -> Step:
    """Return a step that sends piece after piece, a pause between them, and notes in ``sent`` those that went out."""

    def step(connection: socket.socket) -> None:
        waiter = threading.Event()
        for piece in pieces:
            connection.sendall(piece)
            sent.append(piece[:1])
            waiter.wait(pause)

    return step
