"""Subscription: the image tasks that one trigger waits for, and when the wait is over.

A poller notifies it of each poll; the trigger waits for its end and tells the worker how it ended.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_nanobanana.toapis.errors import ResponseTooLong
from airflow_provider_nanobanana.toapis.redaction import one_line

if TYPE_CHECKING:
    from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow

Outcome = Literal["finished", "enough", "timeout", "refused"]

#: When so many image tasks are refused and none is shown in between, it is the key that is refused.
_MOST_REFUSED: Final = 10
#: Seconds: the wall clock of the deadline may be set during a sleep by the monotonic one.
_LONGEST_SLEEP: Final = 60.0
#: The service's own word for a status, as it is shown; a sentence, or a place in a queue, is none.
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}")
_NOT_SEEN: Final = "not seen ({})"
#: The status, as logged, of an image task whose answer is too long for a triggerer.
TOO_LONG: Final = _NOT_SEEN.format(ResponseTooLong.__name__)


@dataclass(frozen=True, slots=True)
class PollTarget:
    """An image task to poll.

    :param created_at: When it was submitted, in epoch seconds, as far as known.
    :param latency_key: What decides how long it takes, from ``latency.latency_key``.
    """

    id: str
    created_at: float | None = None
    latency_key: str = ""


class Subscription:
    """Image tasks that one trigger waits for, until all are final, the deadline passes, or the key is refused.

    A refusal is the key's, and ends the wait, when each pending image task (ten are enough) was refused since the last
    poll that succeeded; otherwise it is that image task's own, which is polled on: the worker decides in the end.

    :param wait: When the wait began and when it ends.
    :param interval: Seconds between two polls of one image task.
    :param log: The trigger's logger.
    :param not_before: Epoch seconds before which nothing is polled: a worker has just done so.
    :param enough: How many image tasks must be final to end the wait; all when None.
    :ivar statuses: The last status by id, as logged.
    :ivar outcome: How the wait ended.
    :ivar error_code: The service's code where the key is refused.
    """

    def __init__(
        self,
        targets: Sequence[PollTarget],
        *,
        wait: WaitWindow,
        interval: float,
        log: Any,
        not_before: float = 0.0,
        enough: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.targets = targets
        self.wait = wait
        self.interval = interval
        self.not_before = not_before
        self.statuses: dict[str, str] = {}
        self.outcome: Outcome = "finished"
        self.error_code: str | None = None
        self._pending = {target.id for target in targets}
        self._ended = False
        # One future, and no event with a timeout around it: thousands of waits are as many of everything they hold.
        self._end: asyncio.Future[None] | None = None
        self._most_left = max(0, len(self._pending) - enough) if enough else 0
        self._refused: frozenset[str] = frozenset()
        self._log = log
        self._now = now
        # Airflow tells the logs of triggers apart by context, and the poller runs in none of theirs.
        self._context = contextvars.copy_context()
        self._bug: BaseException | None = None

    async def wait_until_over(self) -> None:
        """Wait for the polls of ``Poller.subscribed`` or for the deadline; ``outcome`` then says which of them it was.

        :raises Exception: A bug ended the poller.
        """
        loop = asyncio.get_running_loop()
        while self._pending and not self._ended and (remaining := self.wait.remaining(self._now())) > 0:
            self._end = loop.create_future()
            timer = loop.call_later(min(remaining, _LONGEST_SLEEP), self._wake, context=self._context)
            try:
                await self._end
            finally:
                timer.cancel()
        if self._bug is not None:
            raise self._bug
        if self._pending and not self._ended:
            self.outcome = "timeout"

    def _wake(self) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    def _end_wait(self) -> None:
        self._ended = True
        self._wake()

    def notify(self, result: PollResult) -> bool:
        """Take the result of a poll; return whether that image task needs no further one from a triggerer.

        An answer that is too long for a triggerer is one that holds the image itself: the worker reads it.
        """
        self._context.run(self._log_status, result)
        final = result.is_final(self.wait, self._now()) or isinstance(result.error, ResponseTooLong)
        if final:
            self._context.run(self._log_end, result)
        self._check_access(result)
        if len(self._pending) <= self._most_left:
            self.outcome = "enough" if self._pending else self.outcome
            self._end_wait()
        return final

    def fail(self, error: BaseException) -> None:
        """End the wait with a bug of the poller."""
        if not self._ended:
            self._bug = error
            self._end_wait()

    def _check_access(self, result: PollResult) -> None:
        """End the wait when it is the key that is refused, not an image task."""
        if result.image_task is not None:
            self._refused = frozenset()
        if result.error is not None and result.access_denied:
            self._refused |= {result.id}
            if len(self._refused) >= min(_MOST_REFUSED, len(self._pending)):
                self.outcome = "refused"
                self.error_code = result.error.code or type(result.error).__name__
                self._end_wait()

    def _log_end(self, result: PollResult) -> None:
        """Note the end of an image task; log after each tenth of them: a line for each would bury the rest."""
        whole, before = len(self.targets), len(self._pending)
        self._pending.discard(result.id)
        left = len(self._pending)
        if 10 * left // whole < 10 * before // whole:
            self._log.info("%d of %d image tasks have ended.", whole - left, whole)

    def _log_status(self, result: PollResult) -> None:
        """Log changes of status: a line per poll, or per place in the service's queue, would bury them."""
        if result.image_task is not None:
            word, status = result.image_task.wire_status, str(result.image_task.status)
            status = word if _WORD.fullmatch(word) else status
        else:
            status = _NOT_SEEN.format(type(result.error).__name__)
        if self.statuses.get(result.id) != status:
            self._log.debug("Image task %s: %s", one_line(result.id), status)
            self.statuses[result.id] = status
