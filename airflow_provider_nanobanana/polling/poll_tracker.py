"""PollTracker and poll_once: many image tasks polled from a worker, a few at once and evenly spaced.

A failed poll is a result like any other, and never a failed image.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.rate_pacer import RatePacer
from airflow_provider_nanobanana.toapis.retry import NO_RETRY, RequestRetry
from airflow_provider_nanobanana.unexpected_errors import Unexpected, wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession

_THREADS: Final = 8


def poll_once(
    session: ToApisSession, image_task_ids: Sequence[str], sent: Mapping[str, Collection[str] | None] | None = None
) -> list[PollResult]:
    """Poll each image task once, within the connection's query rate, and return the results in order; free.

    Inline images are left out of the results: a thousand of them would not fit into a worker. When the service stays
    silent, the rest is not asked: each poll would last as long as the connection's timeout.

    :param sent: ``ImageRequest.sent_links()`` by image task id, as far as it is known; none of them is a result.
    """
    # Built here, once: what keeps every call from being sent is no result of a single image task.
    _ = session.client
    pacer = RatePacer(session.settings.query_rate)
    lock = threading.Lock()
    silence: list[ToApisError] = []

    def poll(image_task_id: str) -> PollResult:
        with lock:
            if len(silence) >= _THREADS:
                return PollResult(image_task_id, error=silence[-1])
            wait = pacer.reserve(time.monotonic())
        session.sleep(wait)
        sent_at = time.monotonic()
        try:
            with wrap_unexpected_errors("The poll was not answered", image_task_id=image_task_id):
                image_task = session.get_task(image_task_id, (sent or {}).get(image_task_id), retry=NO_RETRY)
        except ToApisError as error:
            with lock:
                pacer.on_error(time.monotonic(), error, sent_at)
                if error.http_status is None and not isinstance(error, Unexpected):
                    silence.append(error)
            return PollResult(image_task_id, error=error)
        with lock:
            silence.clear()
            pacer.on_passed(time.monotonic())
        return PollResult(image_task_id, image_task=_without_bytes(image_task))

    if len(image_task_ids) == 1:
        return [poll(image_task_ids[0])]
    with WorkerPool(min(_THREADS, len(image_task_ids) or 1)) as pool:
        return list(pool.map(poll, image_task_ids))


def poll_failed_again(session: ToApisSession, results: Sequence[PollResult]) -> list[PollResult]:
    """Poll again, all together and as ``RequestRetry`` says, what failed for a moment; return all results.

    It is for the last poll of a wait: no later one makes up for a failed one.
    """
    retry = RequestRetry()
    latest = {result.id: result for result in results}
    for repeats in itertools.count():
        delays = {
            result.id: delay
            for result in latest.values()
            if result.error is not None
            and (delay := retry.delay(CallKind.STATUS, result.error, repeats, random.random())) is not None
        }
        if not delays:
            break
        session.sleep(max(delays.values()))
        latest.update((result.id, result) for result in poll_once(session, list(delays)))
    return list(latest.values())


def _without_bytes(image_task: ImageTask) -> ImageTask:
    """Return an image task without inline images."""
    images = tuple(image.model_copy(update={"b64_json": None}) for image in image_task.images)
    return image_task.model_copy(update={"images": images})


class PollTracker:
    """The latest result of each image task; what has settled is not asked about again.

    :param image_task_ids: In the order of the records to come.
    """

    def __init__(self, image_task_ids: Sequence[str], wait: WaitWindow) -> None:
        self.wait = wait
        self._results = {image_task_id: PollResult(image_task_id) for image_task_id in image_task_ids}
        # One moment for all that is said of one round of polls.
        self._now = wait.started_at

    @property
    def ids(self) -> list[str]:
        """The image tasks, in order."""
        return list(self._results)

    def poll(self, session: ToApisSession) -> ToApisError | None:
        """Poll what is not final; the last round of a wait is repeated where it failed for a moment.

        :return: The refusal when no poll succeeded: then it is the key's. A refusal of some image tasks while others
            are shown is theirs alone.
        """
        fresh = poll_once(session, [result.id for result in self.not_final()])
        self._now = session.clock()
        if self.wait.over(self._now):
            fresh = poll_failed_again(session, fresh)
        self._results.update((result.id, result) for result in fresh)
        if any(result.image_task is not None for result in fresh):
            return None
        return next((result.error for result in fresh if result.access_denied), None)

    def not_final(self) -> list[PollResult]:
        """Return the results that another poll may change."""
        return [result for result in self._results.values() if not result.is_final(self.wait, self._now)]

    @property
    def over(self) -> bool:
        """Whether waiting is over: its time is up, or nothing is left but what this key is not shown."""
        return self.wait.over(self._now) or all(result.access_denied for result in self.not_final())

    @property
    def models(self) -> dict[str, str | None]:
        """The model of each image task, as far as the service named it."""
        return {result.id: result.image_task.model if result.image_task else None for result in self._results.values()}

    def records(self) -> list[dict[str, Any]]:
        """Return one plain record for each image task, in order."""
        return [result.to_record(self.wait, self._now) for result in self._results.values()]
