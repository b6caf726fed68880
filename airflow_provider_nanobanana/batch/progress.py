"""``BatchProgress``, ``ProgressLog``: how far a batch has come, when to wake again, and what a log says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from airflow_provider_nanobanana.batch.costs import format_usd

#: Seconds of the pause between two slices while there is more to do. Airflow up to 3.3 fails some tasks that resume
#: within seconds of deferring.
PAUSE_SECONDS: Final = 20.0
#: Longest pause when nothing is left to submit: links live for a day, and what has ended is landed meanwhile.
LONGEST_WATCH: Final = 3600.0
#: Submits after which the rate of a slice says more than the account's rate.
_TELLING: Final = 20


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch has come; every item is in exactly one count.

    :param pending: Still to be submitted.
    :param running: Submitted, and not known to have ended, or ended and not stored yet.
    :param stored: In place, those found there included.
    :param failed: Ended otherwise.
    """

    pending: int = 0
    running: int = 0
    stored: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """All items."""
        return self.pending + self.running + self.stored + self.failed


def wake_at(now: float, deadline: float, *, more_to_do: bool, asked: float = 0.0) -> float:
    """Return the latest moment to wake, in epoch seconds: soon while there is more to do, else within the hour.

    :param more_to_do: Whether there are items to submit, or images that were ready and are not landed yet.
    :param asked: Seconds for which nothing can be submitted, as far as that is known.
    """
    return min(deadline, now + (max(PAUSE_SECONDS, asked) if more_to_do else LONGEST_WATCH))


class ProgressLog:
    """What a log says of a batch while a slice works on it, seldom enough for people to read it.

    :param started_at: When the slice began; any clock in seconds, the same as for :meth:`line`.
    :param progress: How far the batch had come by then.
    :param rate: The account's submits per second.
    :param every: Least seconds between two lines.
    """

    def __init__(self, started_at: float, progress: BatchProgress, rate: float, every: float = 10.0) -> None:
        self._started_at = self._spoken_at = started_at
        self._before = progress
        self._rate = rate
        self._every = every

    def line(self, now: float, progress: BatchProgress, paid_usd: float, *, last: bool = False) -> str | None:
        """Return what there is to say now, or None when the last line is too recent.

        :param last: Say it in any case: the slice is over.
        """
        if not last and now - self._spoken_at < self._every:
            return None
        self._spoken_at = now
        parts = [f"{progress.stored:,}/{progress.total:,} images in place"]
        parts += [f"{progress.failed:,} failed"] if progress.failed else []
        parts += [f"{progress.running:,} under way"] if progress.running else []
        parts.append(f"{format_usd(paid_usd)} so far")
        if progress.pending:
            parts.append(f"about {_duration(self.seconds_left(now, progress))} of submitting left")
        return ", ".join(parts)

    def seconds_left(self, now: float, progress: BatchProgress) -> float:
        """Return about how many seconds it takes to submit the rest."""
        sent, elapsed = self._before.pending - progress.pending, now - self._started_at
        rate = sent / elapsed if sent >= _TELLING and elapsed > 0 else self._rate
        return progress.pending / rate


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
