"""A store that speaks S3 (moto's), slowed down: ``python -m dev.benchmarks.s3_process DELAY``.

Each call takes DELAY seconds longer than moto does. Every line is answered by the calls since the line before, by kind;
one with ``delay`` changes the delay.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from dev.benchmarks.child import answering

#: The one bucket there is.
BUCKET = "pictures"


class SlowStore:
    """A WSGI application that counts the calls of another one, and waits before each.

    :param delay: Seconds.
    """

    def __init__(self, store: Callable[..., Iterable[bytes]], delay: float) -> None:
        self.delay = delay
        self._store = store
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        kind = kind_of(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        with self._lock:
            self._calls[kind] += 1
        time.sleep(self.delay)
        return self._store(environ, start_response)

    def counted(self) -> dict[str, int]:
        """Return the calls since this was last asked, by kind."""
        with self._lock:
            counted, self._calls = dict(self._calls), Counter()
        return counted


def kind_of(method: str, path: str, query: str) -> str:
    """Return what a call is about, such as ``PUT claims``, ``GET image``, ``LIST``."""
    if method == "GET" and "list-type" in query:
        return "LIST"
    _, reserved, rest = path.partition("/.nanobanana/")
    what = rest.partition("/")[0] if reserved else "manifest" if path.endswith(".json") else "image"
    return f"{method} {what}"


def main(delay: str) -> None:
    """Serve until standard input ends; the first answer says where."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    answer = answering()
    store = SlowStore(DomainDispatcherApplication(create_backend_app), 0.0)
    # As a real store does, it keeps connections; otherwise each call would pay for a new one.
    handler = type("Handler", (MotoRequestHandler,), {"protocol_version": "HTTP/1.1"})
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket=BUCKET)
    store.counted()
    store.delay = float(delay)
    answer({"endpoint": endpoint})
    for line in sys.stdin:
        store.delay = json.loads(line).get("delay", store.delay)
        answer({"calls": store.counted()})


if __name__ == "__main__":
    main(*sys.argv[1:])
