"""Looks at many image tasks from a worker: a few at once, evenly spaced; a failed look is a result like any other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.error_boundary import Unexpected, errors_of_the_tree_only
from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.errors import RateLimited, ToApisError
from airflow_provider_nanobanana.toapis.protocol import NO_RETRY, RequestRetry
from airflow_provider_nanobanana.toapis.rate_limit import RatePacer

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession

_THREADS: Final = 8


def poll_once(
    session: ToApisSession, image_task_ids: Sequence[str], sent: Mapping[str, Collection[str] | None] | None = None
) -> list[PollResult]:
    """Look once at each image task, within the connection's query rate, and return the sightings in order; free.

    Inline images are left out of the sightings: a thousand of them would not fit into a worker. When the service stays
    silent, the rest is not asked: each look would last as long as the connection's timeout.

    :param sent: The links of each request by image task id, as far as they are known; none of them is a result.
    """
    # Built here, once: what keeps every call from being sent is no result of a single image task.
    _ = session.client
    bucket, lock = RatePacer(session.settings.query_rate), threading.Lock()
    silence: list[ToApisError] = []

    def look(image_task_id: str) -> PollResult:
        with lock:
            if len(silence) >= _THREADS:
                return PollResult(image_task_id, error=silence[-1])
            wait = bucket.reserve(time.monotonic())
        session.sleep(wait)
        try:
            with errors_of_the_tree_only("The look was not answered", image_task_id=image_task_id):
                image_task = session.get_task(image_task_id, (sent or {}).get(image_task_id), retry=NO_RETRY)
        except ToApisError as error:
            with lock:
                if isinstance(error, RateLimited):
                    bucket.on_rate_limited(time.monotonic(), error.retry_after or 1.0)
                if error.http_status is None and not isinstance(error, Unexpected):
                    silence.append(error)
            return PollResult(image_task_id, error=error)
        silence.clear()
        return PollResult(image_task_id, image_task=_light(image_task))

    if len(image_task_ids) == 1:
        return [look(image_task_ids[0])]
    with ThreadPoolExecutor(min(_THREADS, len(image_task_ids) or 1)) as pool:
        return list(pool.map(look, image_task_ids))


def poll_failed_again(session: ToApisSession, sightings: Sequence[PollResult]) -> list[PollResult]:
    """Return the sightings with those that failed for a moment looked at again, all together, as ``RetryPolicy`` says.

    For the last look of a wait: no later poll makes up for a failed one.
    """
    policy, latest, repeats = RequestRetry(), {sighting.id: sighting for sighting in sightings}, 0
    while True:
        delays = {
            sighting.id: delay
            for sighting in latest.values()
            if sighting.error is not None
            and (delay := policy.delay(CallKind.STATUS, sighting.error, repeats, random.random())) is not None
        }
        if not delays:
            return list(latest.values())
        session.sleep(max(delays.values()))
        latest.update((sighting.id, sighting) for sighting in poll_once(session, list(delays)))
        repeats += 1


def _light(image_task: ImageTask) -> ImageTask:
    images = tuple(image.model_copy(update={"b64_json": None}) for image in image_task.images)
    return image_task.model_copy(update={"images": images})


class PollTracker:
    """The latest sighting of each image task; what has settled is not asked about again.

    :param image_task_ids: In the order of the records to come.
    """

    def __init__(self, image_task_ids: Sequence[str], wait: WaitWindow) -> None:
        self.wait = wait
        self._sightings = {image_task_id: PollResult(image_task_id) for image_task_id in image_task_ids}
        # One moment for all that is said of one look.
        self._now = wait.started_at

    @property
    def ids(self) -> list[str]:
        """The image tasks, in order."""
        return list(self._sightings)

    def poll(self, session: ToApisSession) -> ToApisError | None:
        """Look at what has not settled; the last look of a wait is repeated where it failed for a moment.

        Return the refusal when no look succeeded: then it is the key's. A refusal of some image tasks while others are
        shown is theirs alone.
        """
        fresh = poll_once(session, [sighting.id for sighting in self.not_final()])
        self._now = session.clock()
        if self.wait.over(self._now):
            fresh = poll_failed_again(session, fresh)
        self._sightings.update((sighting.id, sighting) for sighting in fresh)
        if any(sighting.image_task is not None for sighting in fresh):
            return None
        return next((sighting.error for sighting in fresh if sighting.access_denied), None)

    def not_final(self) -> list[PollResult]:
        """Return the sightings that another look may change."""
        return [sighting for sighting in self._sightings.values() if not sighting.is_final(self.wait, self._now)]

    @property
    def over(self) -> bool:
        """Whether waiting is over: its time is up, or nothing is left but what this key is not shown."""
        return self.wait.over(self._now) or all(sighting.access_denied for sighting in self.not_final())

    @property
    def models(self) -> dict[str, str | None]:
        """The model of each image task, as far as the service named it."""
        return {
            sighting.id: sighting.image_task.model if sighting.image_task else None
            for sighting in self._sightings.values()
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one plain record for each image task, in order."""
        return [sighting.to_record(self.wait, self._now) for sighting in self._sightings.values()]
