"""A process under test: the asyncio client over one transport, as fast as a server answers.

``python -m dev.benchmarks.transport_process TRANSPORT URL COUNT``, of :data:`TRANSPORTS`. Answers with
``cpu_per_thousand`` (the least of three rounds of ``COUNT`` polls, in seconds), ``version`` and ``ended`` (how many
calls brought their image task), or with ``missing``: the package that is not installed.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from importlib.metadata import version
from typing import Any

from dev.benchmarks.child import answering
from dev.benchmarks.scenario import Figures

#: The package that each needs beside httpx.
TRANSPORTS = {"httpx": "httpx", "httpx, one pool": "httpx", "httpx2": "httpx2", "httpx over aiohttp": "httpx-aiohttp"}
IMAGE_TASK = "tsk_img_01K0000000000000000000000"
_ROUNDS = 3
#: Calls under way at once.
_AT_ONCE = 50


def client(transport: str, url: str) -> Any:
    """Return the client over a transport.

    :raises ImportError: Its package is not installed.
    """
    if transport == "httpx2":
        # What stands in one line of toapis/http.py, for this process alone.
        sys.modules["httpx"] = importlib.import_module("httpx2")
    ours: Any = importlib.import_module("airflow_provider_nanobanana.toapis.client")
    if transport == "httpx over aiohttp":
        ours.ASYNC_TRANSPORT = importlib.import_module("httpx_aiohttp").AiohttpTransport
    if transport == "httpx, one pool":
        ours._CONNECTIONS_PER_CLIENT = 128
    return ours.AsyncToApisClient(url, "sk-benchmark-0123456789", concurrency=_AT_ONCE)


async def measure(transport: str, url: str, count: int) -> Figures:
    """Poll ``count`` times a round."""
    from airflow_provider_nanobanana.toapis.protocol import status_call

    polling = client(transport, url)
    free = asyncio.Semaphore(_AT_ONCE)
    ended = 0

    async def poll() -> None:
        nonlocal ended
        async with free:
            image_task = await polling.call(status_call(IMAGE_TASK))
            ended += image_task.id == IMAGE_TASK

    await asyncio.gather(*(poll() for _ in range(200)))
    seconds = []
    for _ in range(_ROUNDS):
        before = time.process_time()
        await asyncio.gather(*(poll() for _ in range(count)))
        seconds.append(time.process_time() - before)
    await polling.aclose()
    return {
        "cpu_per_thousand": 1000 * min(seconds) / count,
        "version": version(TRANSPORTS[transport]),
        "ended": ended - 200,
        "sent": _ROUNDS * count,
    }


def main(transport: str, url: str, count: int) -> Figures:
    """Return the figures of one transport."""
    try:
        if transport == "httpx2":
            client(transport, url)  # before anything else imports httpx
        return asyncio.run(measure(transport, url, count))
    except ImportError as error:
        return {"missing": f"{TRANSPORTS[transport]} ({error.name})"}


if __name__ == "__main__":
    answering()(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
