"""What a poll costs over other transports than httpx's own.

- `transport`: the asyncio client, 50 calls at once against a server in another process that does nothing but answer
  with a running image task; the least of three rounds of 3,000 polls, each transport in a process of its own, one after
  another. `httpx` is what is used: pools of eight connections; `one pool` shows why. The other packages are installed
  for this measurement alone, into a folder of the benchmarks, where there is an index to install them from.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dev.benchmarks.child import child
from dev.benchmarks.scenario import FOLDER, Bench, Figures, Goal, Measured, Scenario
from dev.benchmarks.transport_process import IMAGE_TASK, TRANSPORTS

#: What is installed for the measurement, without what they need of packages that are there already.
_PACKAGES = ("httpx2", "httpcore2", "truststore", "httpx-aiohttp")
_BODY = json.dumps(
    {
        "id": IMAGE_TASK,
        "object": "generation.task",
        "model": "nano_banana_2",
        "status": "in_progress",
        "progress": 40,
        "created_at": 1790000000,
        "billing": {"status": "pending"},
    }
).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-RateLimit-Limit: 3000\r\nX-RateLimit-Remaining: 2000\r\n"
    b"X-RateLimit-Category: async_query\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY


class _Answering(asyncio.Protocol):
    """Answers each request, whatever it asks."""

    def __init__(self) -> None:
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            _, _, self._unread = self._unread.partition(b"\r\n\r\n")
            self._transport.write(_ANSWER)


@contextmanager
def serving() -> Iterator[str]:
    """Answer in a thread within the block; give the address."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(_Answering, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


def measure(bench: Bench) -> Measured:
    """Measure each transport; the baseline is httpx2, its successor."""
    count = 100 if bench.quick else 3000
    packages = FOLDER / "transport-packages"
    if not bench.quick and not packages.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(packages),
            *_PACKAGES,
        ]
        if subprocess.run(command, check=False).returncode:
            bench.say("transport: the other packages cannot be installed")
    found: Figures = {}
    with serving() as url:
        for transport in TRANSPORTS:
            folder = bench.fresh(f"transport-{transport.replace(' ', '-').replace(',', '')}")
            more = {"PYTHONPATH": str(packages)} if packages.exists() else None
            with child(folder, "{}", "transport_process", transport, url, count, more=more) as process:
                found[transport] = process.receive()
            bench.say(f"transport: {transport}: {found[transport]}")
    return Measured({"count": count, "body": len(_BODY)}, {"transports": found})


def _shown(of: Figures) -> str:
    return "; ".join(f"{name} {_cell(figures)}" for name, figures in of["transports"].items())


def _cell(figures: Mapping[str, Any]) -> str:
    if "missing" in figures:
        return f"– ({figures['missing']} is not installed)"
    return f"{figures['cpu_per_thousand']:.2f} s ({figures['version']})"


def _met(ours: Figures, _: Mapping[str, object]) -> bool:
    """Return whether all that could be measured worked, and ours costs less than 1.5 s."""
    measured = [figures for figures in ours["transports"].values() if "missing" not in figures]
    every = all(figures["ended"] == figures["sent"] for figures in measured)
    return every and ours["transports"]["httpx"]["cpu_per_thousand"] < 1.5


SCENARIOS = [
    Scenario(
        "transport",
        measure,
        [Goal("CPU seconds per 1,000 polls, by transport", "httpx < 1.5 s, every poll answered", _shown, _met)],
    )
]
