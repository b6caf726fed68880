"""Looks at many image tasks from a worker: a few at once, evenly spaced; a failed look is a result like any other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.hooks.unexpected import Unexpected, only_tree_errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.errors import RateLimited, ToApisError
from airflow_provider_nanobanana.toapis.outcome import Sighting
from airflow_provider_nanobanana.toapis.protocol import NO_REPEATS, RetryPolicy, status_call
from airflow_provider_nanobanana.toapis.rate import TokenBucket

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.models import ImageTask

_THREADS: Final = 8


def look_at(
    hook: NanoBananaHook, image_task_ids: Sequence[str], sent: Mapping[str, Collection[str] | None] | None = None
) -> list[Sighting]:
    """Look once at each image task, within the connection's query rate, and return the sightings in order; free.

    Inline images are left out of the sightings: a thousand of them would not fit into a worker. When the service stays
    silent, the rest is not asked: each look would last as long as the connection's timeout.

    :param sent: The links of each request by image task id, as far as they are known; none of them is a result.
    """
    # Client and connection are built here, once: the threads may not ask Airflow for them.
    client, bucket, lock = hook.client, TokenBucket(hook.settings.query_rate), threading.Lock()
    silence: list[ToApisError] = []

    def look(image_task_id: str) -> Sighting:
        with lock:
            if len(silence) >= _THREADS:
                return Sighting(image_task_id, error=silence[-1])
            wait = bucket.reserve(time.monotonic())
        hook.sleep(wait)
        try:
            with only_tree_errors("The look was not answered", image_task_id=image_task_id):
                image_task = client.call(status_call(image_task_id, (sent or {}).get(image_task_id)), NO_REPEATS)
        except ToApisError as error:
            with lock:
                if isinstance(error, RateLimited):
                    bucket.slow_down(time.monotonic(), error.retry_after or 1.0)
                if error.http_status is None and not isinstance(error, Unexpected):
                    silence.append(error)
            return Sighting(image_task_id, error=error)
        silence.clear()
        return Sighting(image_task_id, image_task=_light(image_task))

    if len(image_task_ids) == 1:
        return [look(image_task_ids[0])]
    with ThreadPoolExecutor(min(_THREADS, len(image_task_ids) or 1)) as pool:
        return list(pool.map(look, image_task_ids))


def look_again(hook: NanoBananaHook, sightings: Sequence[Sighting]) -> list[Sighting]:
    """Return the sightings with those that failed for a moment looked at again, all together, as ``RetryPolicy`` says.

    For the last look of a wait: no later poll makes up for a failed one.
    """
    policy, latest, repeats = RetryPolicy(), {sighting.id: sighting for sighting in sightings}, 0
    while True:
        delays = {
            sighting.id: delay
            for sighting in latest.values()
            if sighting.error is not None
            and (delay := policy.delay(CallKind.STATUS, sighting.error, repeats, random.random())) is not None
        }
        if not delays:
            return list(latest.values())
        hook.sleep(max(delays.values()))
        latest.update((sighting.id, sighting) for sighting in look_at(hook, list(delays)))
        repeats += 1


def _light(image_task: ImageTask) -> ImageTask:
    images = tuple(image.model_copy(update={"b64_json": None}) for image in image_task.images)
    return image_task.model_copy(update={"images": images})
