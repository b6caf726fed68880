"""One trigger's watch: what it waits for, what was seen of it, and when that is enough."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_nanobanana.toapis.text import one_line

if TYPE_CHECKING:
    from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow

Outcome = Literal["finished", "enough", "timeout", "refused"]

#: So many image tasks refused, and none shown in between, are the key's doing.
_ENOUGH_REFUSED: Final = 10
#: The wall clock may be set while we sleep by another one.
_LONGEST_SLEEP: Final = 60.0
#: The service's own word for a status, as it is shown; a sentence, or a place in a queue, is none.
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}")


@dataclass(frozen=True)
class PollTarget:
    """An image task to watch.

    :param created_at: When it was submitted, in epoch seconds, as far as known.
    :param kind: What decides how long it takes (:func:`toapis.latency.kind_of`).
    """

    id: str
    created_at: float | None = None
    kind: str = ""


class Subscription:
    """Image tasks that one trigger waits for, until all have settled, the wait is over, or the key is refused.

    A refusal is the key's, and ends the watch, when each image task left (ten are enough) was refused since the last
    look that succeeded; otherwise it is that image task's own, which is polled on: the worker decides in the end.

    :param wait: When the watch began and when it ends.
    :param interval: Seconds between two polls of one image task.
    :param not_before: Epoch seconds before which no poll pays: somebody has just looked.
    :param enough: How many image tasks must have settled to end the watch; all when None.
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
        self._left = {target.id for target in targets}
        self._rest = max(0, len(self._left) - enough) if enough else 0
        self._refused: set[str] = set()
        self._log = log
        self._now = now
        # Airflow tells triggers' logs apart by context; the poller runs in none of theirs.
        self._context = contextvars.copy_context()
        self._over = asyncio.Event()
        self._bug: BaseException | None = None

    async def wait_until_over(self) -> None:
        """Wait for what a poller tells (``Poller.watching``), or for the deadline; then ``outcome`` says which it was.

        :raises Exception: The poller met a bug.
        """
        while self._left and not self._over.is_set() and (remaining := self.wait.remaining(self._now())) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, _LONGEST_SLEEP)):
                    await self._over.wait()
        if self._bug is not None:
            raise self._bug
        if self._left and not self._over.is_set():
            self.outcome = "timeout"

    def first_poll(self, target: PollTarget, age: float) -> float:
        """Return from when on it pays to poll an image task, in epoch seconds; ``age`` is the seconds it takes."""
        now = self._now()
        # The service's clock may run ahead of ours; that must not postpone the first poll.
        return max(min(target.created_at or 0.0, now) + age, self.not_before, now)

    def notify(self, sighting: PollResult) -> bool:
        """Take note of a look; say whether this watch needs no further one at that image task."""
        self._context.run(self._note, sighting)
        settled = sighting.is_final(self.wait, self._now())
        if settled:
            self._left.discard(sighting.id)
        self._check_access(sighting)
        if len(self._left) <= self._rest:
            self.outcome = "enough" if self._left else self.outcome
            self._over.set()
        return settled

    def fail(self, error: BaseException) -> None:
        """End the watch with an error that is nobody's outcome."""
        if not self._over.is_set():
            self._bug = error
            self._over.set()

    def _check_access(self, sighting: PollResult) -> None:
        """End the watch when it is the key that is refused, not an image task."""
        if sighting.image_task is not None:
            self._refused.clear()
        if sighting.error is not None and sighting.access_denied:
            self._refused.add(sighting.id)
            if len(self._refused) >= min(_ENOUGH_REFUSED, len(self._left)):
                self.outcome, self.error_code = "refused", sighting.error.code or type(sighting.error).__name__
                self._over.set()

    def _note(self, sighting: PollResult) -> None:
        """Log changes of status: a line per poll, or per place in the service's queue, would bury them."""
        if sighting.image_task is not None:
            word, status = sighting.image_task.wire_status, str(sighting.image_task.status)
            status = word if _WORD.fullmatch(word) else status
        else:
            status = f"not seen ({type(sighting.error).__name__})"
        if self.statuses.get(sighting.id) != status:
            self._log.info("Image task %s: %s", one_line(sighting.id), status)
            self.statuses[sighting.id] = status
