"""Looks at many image tasks from a worker: a few at once, evenly spaced; a failed look is a result like any other."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.toapis.errors import RateLimited, ToApisError
from airflow_provider_nanobanana.toapis.outcome import Sighting
from airflow_provider_nanobanana.toapis.protocol import NO_REPEATS, status_call
from airflow_provider_nanobanana.toapis.schedule import TokenBucket

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook

_THREADS: Final = 8


def look_at(hook: NanoBananaHook, image_task_ids: Sequence[str]) -> list[Sighting]:
    """Look once at each image task, within the connection's query rate, and return the sightings in order; free."""
    # Client and connection are built here, once: the threads may not ask Airflow for them.
    client, bucket, lock = hook.client, TokenBucket(hook.settings.query_rate), threading.Lock()

    def look(image_task_id: str) -> Sighting:
        with lock:
            wait = bucket.reserve(time.monotonic())
        hook.sleep(wait)
        try:
            return Sighting(image_task_id, image_task=client.call(status_call(image_task_id), NO_REPEATS))
        except ToApisError as error:
            if isinstance(error, RateLimited):
                with lock:
                    bucket.slow_down(time.monotonic(), error.retry_after or 1.0)
            return Sighting(image_task_id, error=error)

    if len(image_task_ids) == 1:
        return [look(image_task_ids[0])]
    with ThreadPoolExecutor(min(_THREADS, len(image_task_ids) or 1)) as pool:
        return list(pool.map(look, image_task_ids))
