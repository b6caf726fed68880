"""Answers below HTTP: dropped connections, bodies that stop short, headers that come late."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CONNECTION = "emulator.connection"  # key of the scope's extensions: transport and log of the connection


class RawResponse(Response):
    """Bytes written straight to the connection, which is closed afterwards.

    :param pieces: Pairs of (seconds to wait before, bytes to write).
    :param status: What the request log shall say; 0 where no status line is sent.
    :param reset: End with a TCP reset instead of an orderly close.
    """

    def __init__(self, pieces: Iterable[tuple[float, bytes]] = (), *, status: int = 0, reset: bool = False) -> None:
        super().__init__(status_code=status)
        self.pieces = tuple(pieces)
        self.reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the pieces, end the connection and wait until the server has noticed."""
        connection = scope["extensions"][CONNECTION]
        transport: asyncio.Transport = connection.transport
        connection.log(self.status_code)
        for seconds, data in self.pieces:
            if seconds:
                await asyncio.sleep(seconds)
            if data:
                transport.write(data)
        if self.reset:
            _reset_on_close(transport)
            transport.abort()
        else:
            transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass


def dropped(reset: bool = False) -> RawResponse:
    """Return an answer of no bytes at all."""
    return RawResponse(reset=reset)


def cut_short(answer: Response, fraction: float, reset: bool = False) -> RawResponse:
    """Return the answer with the right ``Content-Length`` and only a part of the body."""
    body = bytes(answer.body)
    # A reset discards what the kernel has not delivered yet, so the part gets a moment to arrive.
    pieces = [(0.0, head(answer) + body[: int(len(body) * fraction)]), (0.05 if reset else 0.0, b"")]
    return RawResponse(pieces, status=answer.status_code, reset=reset)


def with_slow_headers(answer: Response, seconds: float) -> RawResponse:
    """Return the answer with a pause between the status line and the other headers."""
    line, _, rest = head(answer).partition(b"\r\n")
    return RawResponse([(0.0, line + b"\r\n"), (seconds, rest + bytes(answer.body))], status=answer.status_code)


def with_slow_body(answer: Response, seconds: float, chunks: int) -> RawResponse:
    """Return the answer whose body arrives in equal parts over so many seconds."""
    body = bytes(answer.body)
    chunks = max(1, chunks)
    step = -(-len(body) // chunks) or 1
    parts = [(seconds / chunks, body[start : start + step]) for start in range(0, len(body), step)]
    return RawResponse([(0.0, head(answer)), *parts], status=answer.status_code)


def head(answer: Response) -> bytes:
    """Return status line and headers of an answer as they go over the wire."""
    status = answer.status_code
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    lines += [name + b": " + value for name, value in answer.raw_headers]
    return b"\r\n".join([*lines, b"connection: close", b"", b""])


def _reset_on_close(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
