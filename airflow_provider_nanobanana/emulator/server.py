"""The API port and the file port on one event loop, logged (:class:`EmulatorServer`).

uvicorn, with a protocol that lets an answer reach below HTTP and notices at once when a client hangs up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from airflow_provider_nanobanana.emulator import routes_api, routes_files
from airflow_provider_nanobanana.emulator.faults.wire import CONNECTION
from airflow_provider_nanobanana.emulator.request_log import LONGEST_TEXT, LoggedRequest
from airflow_provider_nanobanana.emulator.service import EmulatedService
from airflow_provider_nanobanana.emulator.settings import url_host


@dataclass
class RequestLogMiddleware:
    """Hands a request to the application of its port and logs it, unless it goes to the control API.

    Each connection has a copy of its own, which answers below HTTP find in the scope.

    :param apps: By port: its kind (``api`` or ``files``) and its application.
    """

    service: EmulatedService
    apps: dict[int, tuple[str, ASGIApp]]
    transport: asyncio.Transport | None = None
    unanswered: LoggedRequest | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and log it when its answer begins, or when it ends without one."""
        kind, app = self.apps[scope["server"][1]]
        if scope["path"].startswith("/emulator/"):
            await app(scope, receive, send)
            return

        async def logging_send(message: Message) -> None:
            # Before the bytes leave, so that a client that has its answer also finds the entry.
            if message["type"] == "http.response.start":
                self.log(message["status"])
            await send(message)

        scope.setdefault("extensions", {})[CONNECTION] = self
        request = self._read(scope, kind)
        self.unanswered = request
        try:
            await app(scope, receive, logging_send)
        except asyncio.CancelledError:
            pass  # the emulator ends; nobody is left to whom uvicorn's traceback would say anything
        finally:
            if self.unanswered is request:
                self.log(0)

    def log(self, status: int) -> None:
        """Log the request under way; only its first status counts, 0 is none at all."""
        if self.unanswered is not None:
            self.service.request_log.add(replace(self.unanswered, status=status))
            self.unanswered = None

    def _read(self, scope: Scope, kind: str) -> LoggedRequest:
        headers = dict(scope["headers"])
        settings = self.service.settings
        keys = [key.encode() for key in (settings.api_key, settings.second_api_key) if key]
        path = scope["path"]
        query = scope["query_string"]
        return LoggedRequest(
            at=time.time(),
            kind=kind,
            point=_point(kind, scope["method"], path),
            method=scope["method"],
            path=(path + ("?" + query.decode("latin-1") if query else ""))[:LONGEST_TEXT],
            host=headers.get(b"host", b"").decode("latin-1")[:LONGEST_TEXT],
            authorization=b"authorization" in headers,
            key_seen=any(key in place for key in keys for place in (scope["raw_path"] + query, *headers.values())),
            status=0,
        )


def _point(kind: str, method: str, path: str) -> str:
    """Return the name of what a request is for."""
    if kind == "files":
        return "download_upload" if path.startswith("/uploads/") else "result"
    if path.startswith("/v1/images/generations"):
        return "submit" if method == "POST" else "status"
    points = {
        "/v1/models": "models",
        "/v1/balance": "balance",
        "/v1/user/balance": "balance",
        "/v1/uploads/images": "upload",
    }
    return points.get(path, "other")


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # uvicorn picks the base at import
    """uvicorn's HTTP protocol, with a middleware of its own for each connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a copy of the middleware that knows the connection's transport."""
        super().connection_made(transport)
        self.app = replace(self.config.loaded_app, transport=transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Log a request whose client hung up before its answer, at once: the answer may be long in coming."""
        super().connection_lost(exc)
        self.app.log(0)


class EmulatorServer(uvicorn.Server):
    """Serves both ports; leaves signals alone and ends at once, whoever is still connected.

    :param host: Address to listen on.
    :param port: API port; 0 takes a free one.
    :param files_port: File port; 0 takes a free one, ``None`` the one after the API port.
    :param public_files_url: Base of result links where they are fetched from elsewhere.
    :raises OSError: A port is taken.
    """

    def __init__(
        self, service: EmulatedService, host: str, port: int, files_port: int | None = 0, public_files_url: str = ""
    ) -> None:
        self._sockets = [_listening(host, port)]
        self.port: int = self._sockets[0].getsockname()[1]
        try:
            self._sockets.append(_listening(host, self.port + 1 if files_port is None else files_port))
        except OSError:
            self._sockets[0].close()
            raise
        own_files_port: int = self._sockets[1].getsockname()[1]
        shown = url_host("127.0.0.1" if host in ("0.0.0.0", "::", "") else host)
        self.api_url = f"http://{shown}:{self.port}"
        self.files_url = public_files_url.rstrip("/") or f"http://{shown}:{own_files_port}"
        service.files_url = self.files_url
        apps: dict[int, tuple[str, ASGIApp]] = {
            self.port: ("api", routes_api.build(service)),
            own_files_port: ("files", routes_files.build(service)),
        }
        self._ended = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                RequestLogMiddleware(service, apps),
                http=_Protocol,
                interface="asgi3",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
            )
        )

    async def run_until_end(self) -> None:
        """Serve both ports until :meth:`end`."""
        await self.serve(self._sockets)

    def end(self) -> None:
        """Ask the server to end; call it on the loop's thread."""
        self.should_exit = True
        self._ended.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to whoever runs the server."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end, refreshing the Date header once a second; uvicorn's own loop notices the end late."""
        while not self.should_exit:
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and cut whoever is still connected."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol spelled out, or asyncio leaves Nagle's algorithm on: 40 ms for every second answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    listening.listen(2048)
    listening.setblocking(False)
    return listening
