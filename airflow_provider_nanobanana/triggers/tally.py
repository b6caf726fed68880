"""What a poller did in the last minute: one line in the log, and the metrics."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana import metrics

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)

PERIOD: Final = 60.0


class Tally:
    """Counts between two summaries; ``clock`` is in seconds of a clock that nobody sets."""

    def __init__(self, nanobanana_conn_id: str, clock: float) -> None:
        self._conn_id = nanobanana_conn_id
        self._begin(clock)

    def _begin(self, clock: float) -> None:
        self._since = clock
        self._polls = self._refused = 0
        self._late = self._latest = 0.0

    def polled(self, late: float) -> None:
        """A poll begins, so many seconds after it was due."""
        self._polls += 1
        self._late += late
        self._latest = max(self._latest, late)

    def rate_limited(self) -> None:
        """A poll was answered with 429."""
        self._refused += 1

    def noticed(self, image_task: ImageTask, now: float) -> None:
        """An image task was seen to have ended; ``now`` is epoch seconds, as its moments are."""
        if image_task.completed_at is not None:
            metrics.timing("detection_delay", now - image_task.completed_at, conn_id=self._conn_id)

    def close(self, clock: float, watched: int, rate: float) -> None:
        """Log and send the counts, and begin anew; silent when nothing was polled."""
        seconds = max(clock - self._since, 1e-3)
        if self._polls:
            log.info(
                "Connection %r, last %.0f s: %d image tasks watched, %.1f polls/s of %.1f allowed, %d answered 429, "
                "polls %.1f s late on average and %.1f s at most",
                self._conn_id,
                seconds,
                watched,
                self._polls / seconds,
                rate,
                self._refused,
                self._late / self._polls,
                self._latest,
            )
            metrics.count("polls", self._polls, conn_id=self._conn_id)
        if self._refused:
            metrics.count("rate_limited", self._refused, conn_id=self._conn_id)
        self._begin(clock)

    def due(self, clock: float) -> bool:
        """Whether it is time for a summary."""
        return clock - self._since >= PERIOD
