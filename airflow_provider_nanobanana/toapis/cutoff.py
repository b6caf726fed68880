"""An end to a connection that sends just enough to never time out."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any


class Cutoff:
    """Shuts down every connection it has seen once the time is up.

    A read timeout starts anew with each byte, and while headers or a TLS handshake trickle in no code of ours runs
    in between. :meth:`notice` is the ``trace`` extension of an httpx request (httpcore, "Request extensions").
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def notice(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the socket of a connection that was just made."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            made = info["return_value"].get_extra_info("socket")
            self._sockets = [*(one for one in self._sockets if one.fileno() != -1), made]

    @contextlib.contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Cut the connections when the block takes longer than ``seconds``; the read in it fails then."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def forget(self) -> None:
        """Let go of the sockets; the connections are closed."""
        self._sockets.clear()

    def _cut(self) -> None:
        for one in tuple(self._sockets):
            with contextlib.suppress(OSError):  # closed already
                # The plain socket's shutdown: that of an SSL socket is not made for another thread.
                socket.socket.shutdown(one, socket.SHUT_RDWR)
