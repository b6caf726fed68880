"""Both ports on one event loop: uvicorn, with a protocol that lets an answer reach below HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from airflow_provider_nanobanana.emulator import routes_api, routes_files
from airflow_provider_nanobanana.emulator.faults.wire import TRANSPORT
from airflow_provider_nanobanana.emulator.request_log import NOTE, RequestLogMiddleware
from airflow_provider_nanobanana.emulator.service import EmulatedService


class WireProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # uvicorn picks the base at import
    """uvicorn's HTTP protocol, whose applications find the connection's transport in their scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wrap the application, once per connection."""
        super().connection_made(transport)
        inner: ASGIApp = self.config.loaded_app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[TRANSPORT] = transport
            await inner(scope, receive, send)

        self.app = with_transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Note a request whose client hung up before its answer, at once: the answer may be long in coming."""
        super().connection_lost(exc)
        if self.scope and NOTE in self.scope:
            self.scope[NOTE](0)


class _Port(uvicorn.Server):
    """One uvicorn server that leaves signals alone and ends at once, whoever is still connected."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    def end(self) -> None:
        """Ask the server to end."""
        self.should_exit = True
        self._ended.set()

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


class Servers:
    """The API port and the file port of one service.

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
        self.files_port: int = self._sockets[1].getsockname()[1]
        shown = url_host("127.0.0.1" if host in ("0.0.0.0", "::", "") else host)
        self.api_url = f"http://{shown}:{self.port}"
        self.files_url = public_files_url.rstrip("/") or f"http://{shown}:{self.files_port}"
        service.files_url = self.files_url
        self._servers = [
            _Port(_config(RequestLogMiddleware(routes_api.build(service), "api", service))),
            _Port(_config(RequestLogMiddleware(routes_files.build(service), "files", service))),
        ]

    async def serve(self) -> None:
        """Serve both ports until :meth:`end`."""
        pairs = zip(self._servers, self._sockets, strict=True)
        await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in pairs))

    def end(self) -> None:
        """Ask both ports to end; call it on the loop's thread."""
        for server in self._servers:
            server.end()


def url_host(host: str) -> str:
    """Return a host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=WireProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


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
