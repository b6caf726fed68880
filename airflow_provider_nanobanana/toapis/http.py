"""The one import of httpx: Airflow 3.4 moves to its successor, and then only this line does. Import this lazily.

What of the environment's certificates and proxies cannot be used is named here.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import httpx as httpx

import airflow_provider_nanobanana as provider
from airflow_provider_nanobanana.toapis.errors import ConfigurationError
from airflow_provider_nanobanana.toapis.proxy import EnvironmentProxy

#: What we call ourselves, to the gateway and to the hosts of links.
USER_AGENT: Final = f"airflow-provider-nanobanana/{provider.__version__}"
_HOST: Final = re.compile(rb"[A-Za-z0-9._:-]+")
#: The file names under which OpenSSL looks for a certificate in a folder (``openssl rehash``).
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.\d+")

#: What httpx reads certificate authorities from, the first that is set, and what it must be.
_CERTIFICATES: Final = {
    "SSL_CERT_FILE": "the path of a PEM file with the certificate authorities to trust",
    "SSL_CERT_DIR": "the path of a folder of PEM files under their hashes (`openssl rehash`)",
}

#: What the clients send with. Another one that httpx can be given goes here and nowhere else; what that would bring:
#: docs/benchmarks.md, "transport".
BLOCKING_TRANSPORT: Final = httpx.HTTPTransport
ASYNC_TRANSPORT: Final = httpx.AsyncHTTPTransport

T = TypeVar("T")
Transport = TypeVar("Transport", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


class ConnectionDeadline:
    """Ends a call in time: shuts down every connection it has seen, and lets no request begin afterwards.

    A read timeout starts again with each byte, and while headers or a TLS handshake trickle in no code of ours runs
    in between. Name resolution has no timeout at all: what is connected after it may come too late, and a purchase that
    leaves then is one that nobody waits for any more. :meth:`trace` is the ``trace`` extension of an httpx request
    (httpcore, "Request extensions").

    :param clock: Monotonic seconds.
    :param before_send: Called right before a request leaves; what it raises keeps the request back.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, before_send: Callable[[], None] = lambda: None
    ) -> None:
        self._clock = clock
        self._before_send = before_send
        self._sockets: list[socket.socket] = []
        self._ends_at = math.inf
        self._ended = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the socket of a connection that was just made, and keep a request from leaving too late.

        :raises httpx.ConnectTimeout: The time is over; nothing of the request has left.
        """
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._sockets = [one for one in self._sockets if one.fileno() >= 0]  # the others were closed
            self._sockets.append(info["return_value"].get_extra_info("socket"))
            # After it is remembered: either this sees that the time is over, or who ends it sees the socket.
            if self._is_over():
                self._cut()
        elif event.endswith(".send_request_headers.started"):
            self._before_send()
            if self._is_over():
                raise httpx.ConnectTimeout("its time was over before it could be sent")

    @contextlib.contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Cut the connections when the block takes longer than ``seconds``; the read in it fails then."""
        self._ends_at, self._ended = self._clock() + seconds, False
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            # One that was about to cut must not do it to the next call.
            timer.join()

    def _is_over(self) -> bool:
        return self._ended or self._clock() >= self._ends_at

    def _cut(self) -> None:
        self._ended = True
        for one in tuple(self._sockets):
            with contextlib.suppress(OSError):  # closed already
                # The plain socket's shutdown: that of an SSL socket is not made for another thread.
                socket.socket.shutdown(one, socket.SHUT_RDWR)


class LendingPool(Generic[T]):
    """Lends each of its things to one user at a time, and makes another where none is idle; for several threads.

    Connections that are cut off at a deadline must not take the calls of others with them.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], None] = lambda one: None) -> None:
        self._make = make
        self._close = close
        self._closed = False
        self._idle: deque[T] = deque()
        self.made: list[T] = []

    @contextlib.contextmanager
    def lend(self) -> Iterator[T]:
        """Lend one thing for the block."""
        try:
            one = self._idle.pop()
        except IndexError:
            one = self._make()
            self.made.append(one)
        try:
            yield one
        finally:
            self._idle.append(one)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close all things: those that are lent once they come back, since a thread that was given up may use them."""
        self._closed = True
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread closes it
                self._close(self._idle.pop())


@cache
def shared_ssl_context() -> ssl.SSLContext:
    """Return the process's one TLS context: each costs 25 ms of CPU and 0.6 MB (measured).

    :raises ConfigurationError: naming the one of ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` and ``SSLKEYLOGFILE`` that cannot
        be used.
    """
    _check_key_log()
    variable = next((name for name in _CERTIFICATES if os.environ.get(name)), None)
    try:
        if variable == "SSL_CERT_DIR" and not _any_certificates(os.environ[variable]):
            # OpenSSL would find that out at the first connection, and say that the other side is not to be trusted.
            raise FileNotFoundError("no folder with certificates")
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
        if variable is None:
            raise ConfigurationError(f"The certificates of the package certifi cannot be read: {error}") from error
        raise ConfigurationError(
            f"The environment variable {variable} names nothing that certificates can be read from "
            f"({type(error).__name__}). It must be {_CERTIFICATES[variable]}, or unset. Nothing was sent."
        ) from error


def _check_key_log() -> None:
    path = os.environ.get("SSLKEYLOGFILE")
    if not path:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).keylog_filename = path
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The environment variable SSLKEYLOGFILE names no file that can be written ({type(error).__name__}). Unset "
            "it, or name a file in a folder that exists. Nothing was sent."
        ) from error


def _any_certificates(folders: str) -> bool:
    found = (Path(folder) for folder in folders.split(os.pathsep) if folder)
    return any(_HASHED.fullmatch(file.name) for folder in found if folder.is_dir() for file in folder.iterdir())


def open_transport(
    kind: type[Transport], proxy: EnvironmentProxy | None, context: ssl.SSLContext, **options: Any
) -> Transport:
    """Open a transport through a proxy, or a direct one.

    A transport knows no cookies, no ``.netrc`` and no redirects, of which httpx's client would build the next request.

    :raises ConfigurationError: The proxy cannot be used; names the variable, never its value.
    """
    if proxy is None:
        return kind(verify=context, trust_env=False, **options)
    try:
        url = httpx.URL(proxy.url)
        url.host.encode("idna")
        if not _HOST.fullmatch(url.raw_host) or not 0 < (url.port or 80) < 65536:
            raise ValueError("no host, or no port")
        through = httpx.Proxy(url, ssl_context=context if url.scheme == "https" else None)
    except (httpx.InvalidURL, ValueError):
        # Its own words would quote the value, which may hold a password.
        raise ConfigurationError(
            f"The environment variable {proxy.variable} is no URL of a proxy. Use a form such as "
            "http://proxy.example.com:3128 (http, https, or socks5 with the package socksio), or name this host in "
            "NO_PROXY. Nothing was sent."
        ) from None
    try:
        return kind(verify=context, trust_env=False, proxy=through, **options)
    except ImportError:
        raise ConfigurationError(
            f"The environment variable {proxy.variable} names a socks proxy, which needs the package socksio: "
            "pip install 'httpx[socks]'. Nothing was sent."
        ) from None


def in_words(error: BaseException) -> str:
    """Return what went wrong on the way to a host, and for an unknown certificate what to do."""
    reason = f"{type(error).__name__}: {str(error).strip() or 'no details'}"[:300]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"{reason}; where a certificate authority of your own signs (a company's proxy), name its PEM file in "
                "the environment variable SSL_CERT_FILE"
            )
        cause = cause.__cause__ or cause.__context__
    return reason
