"""A proxy before moto: forwards each request, and loses an answer, drops the condition or waits where it is told to."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class S3Proxy:
    """What the requests of one bucket meet on their way; ``puts`` counts those that reached the store."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        #: So many answers of a PUT are lost after the store has done it.
        self.lost_answers = 0
        #: What is answered instead of passing the next requests of a method on: status and code.
        self.answers: dict[str, list[tuple[int, str]]] = {}
        #: A store that does not know the condition drops it.
        self.ignores_condition = False
        self.delay = 0.0
        self.puts = 0
        self.endpoint = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy

    def _forward(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(proxy.delay)
        if waiting := proxy.answers.get(self.command):
            status, code = waiting.pop(0)
            return self._answer(status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
        if proxy.ignores_condition:
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        upstream = http.client.HTTPConnection(proxy.target.hostname or "", proxy.target.port, timeout=30)
        with contextlib.closing(upstream):
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
            answer = dict(response.getheaders())
        if self.command == "PUT":
            proxy.puts += 1
            if proxy.lost_answers:
                proxy.lost_answers -= 1
                self.close_connection = True
                return None
        return self._answer(response.status, answer, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), "0")
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""


@contextlib.contextmanager
def s3_proxy(target: str) -> Iterator[S3Proxy]:
    """Run a proxy before the endpoint of a store."""
    proxy = S3Proxy(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
