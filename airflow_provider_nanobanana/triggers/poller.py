"""The asyncio shell over the schedule: it sleeps, polls and notes; what a sighting means is decided in ``toapis``."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.toapis.errors import RateLimited
from airflow_provider_nanobanana.toapis.outcome import Sighting, Wait
from airflow_provider_nanobanana.toapis.schedule import PollSchedule, TokenBucket

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageTask

#: Polls of one trigger under way at once: httpx slows down with many requests in one pool.
_CONCURRENCY: Final = 8
#: So many image tasks refused, and none shown in between, are the key's doing.
_ENOUGH_REFUSED: Final = 10
_MINUTE: Final = 60.0
#: Obedience to one ``Retry-After``: an absurd header must not turn paid images into a timeout.
_LONGEST_WAIT: Final = 60.0

Outcome = Literal["finished", "timeout", "refused"]


class _WatchOver(Exception):
    """Ends all watchers at once; carries outcome and error code."""


class Watch:
    """Polls image tasks until all have settled, the wait is over, or the key is refused.

    A refusal is the key's, and ends the watch, when each image task left (ten are enough) was refused since the last
    look that succeeded; otherwise it is that image task's own, which is polled on: the worker decides in the end.

    :param first_polls: Pairs of id and the moment from which polling it pays, in epoch seconds.
    :param look: Asks for one image task; raises ``NanoBananaException``.
    :param wait: When the watch began and when it ends.
    :param interval: Seconds between two polls of one image task.
    :param rate: Polls per second that this watch may use.
    """

    def __init__(
        self,
        first_polls: Sequence[tuple[str, float]],
        *,
        look: Callable[[str], Awaitable[ImageTask]],
        wait: Wait,
        interval: float,
        rate: float,
        log: Any,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.statuses: dict[str, str] = {}
        self.outcome: Outcome = "finished"
        self.error_code: str | None = None
        self._schedule = PollSchedule(first_polls, interval=interval, rate=rate)
        self._bucket = TokenBucket(rate)
        self._look = look
        self._wait = wait
        self._log = log
        self._now = now
        self._sleep = sleep
        self._next_summary = now() + _MINUTE
        self._polls = 0
        self._refused: set[str] = set()

    async def run(self) -> None:
        """Poll until the end; cancellation passes through and leaves nothing behind."""
        watchers = min(_CONCURRENCY, len(self._schedule))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(watchers):
                    group.create_task(self._poll_in_turn())
        except* _WatchOver as over:
            self.outcome, self.error_code = over.exceptions[0].args

    async def _poll_in_turn(self) -> None:
        # A watcher leaves when nothing is left to take: each of the others has one image task in hand.
        while (due := self._schedule.take()) is not None:
            image_task_id, moment = due
            await self._sleep_until(moment)
            await self._sleep_until(self._now() + self._bucket.reserve(self._now()))
            sighting = await self._sight(image_task_id)
            self._note(sighting)
            self._judge(sighting)
            if sighting.settled(self._wait, self._now()):
                self._schedule.done()
            else:
                self._schedule.again(image_task_id, self._now(), random.random(), at_least=_asked_wait(sighting))

    def _judge(self, sighting: Sighting) -> None:
        """End the watch when it is the key that is refused, not an image task."""
        if sighting.image_task is not None:
            self._refused.clear()
        if sighting.error is not None and sighting.refused:
            self._refused.add(sighting.id)
            if len(self._refused) >= min(_ENOUGH_REFUSED, len(self._schedule)):
                raise _WatchOver("refused", sighting.error.code or type(sighting.error).__name__)

    async def _sleep_until(self, moment: float) -> None:
        """Sleep, but not beyond the deadline, which ends the watch."""
        await self._sleep(max(0.0, min(moment, self._wait.deadline) - self._now()))
        if moment > self._wait.deadline:
            raise _WatchOver("timeout", None)

    async def _sight(self, image_task_id: str) -> Sighting:
        self._polls += 1
        try:
            image_task = await self._look(image_task_id)
        except NanoBananaException as failure:
            if isinstance(failure.error, RateLimited):
                self._bucket.slow_down(self._now(), min(failure.error.retry_after or 1.0, _LONGEST_WAIT))
            return Sighting(image_task_id, error=failure.error)
        self._bucket.succeeded()
        return Sighting(image_task_id, image_task=image_task)

    def _note(self, sighting: Sighting) -> None:
        """Log changes of status, and a summary a minute: a line per poll would bury them."""
        if sighting.image_task is not None:
            status: str = sighting.image_task.wire_status or sighting.image_task.status
        else:
            status = f"not seen ({type(sighting.error).__name__})"
        if self.statuses.get(sighting.id) != status:
            self._log.info("Image task %s: %s", sighting.id, status)
            self.statuses[sighting.id] = status
        now = self._now()
        if now >= self._next_summary:
            self._next_summary = now + _MINUTE
            left = self._wait.remaining(now)
            self._log.info("%d image tasks running after %d polls; %.0f s left", len(self._schedule), self._polls, left)


def _asked_wait(sighting: Sighting) -> float:
    return min((sighting.error.retry_after if sighting.error else None) or 0.0, _LONGEST_WAIT)
