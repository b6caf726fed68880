"""How long a deferral lasts: when its trigger polls first, and when Airflow's timeout ends it.

Our own trigger ends it before that timeout, which is the safety net. A worker that was woken for nothing is not woken
again at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

#: Airflow's timeout of a deferral is so many seconds behind the moment at which our trigger fires at the latest.
DEFER_TIMEOUT_MARGIN_SECONDS: Final = 60.0
#: Seconds for which nothing is polled after a worker was woken for nothing; an image takes about as long.
PAUSE_AFTER_NOTHING_SECONDS: Final = 60.0


def defer_timeout(seconds: float) -> timedelta:
    """Return the timeout to give Airflow for a deferral whose trigger fires after so many seconds at the latest."""
    return timedelta(seconds=max(0.0, seconds) + DEFER_TIMEOUT_MARGIN_SECONDS)


def first_poll_after(now: float, poll_interval: float, *, for_nothing: bool) -> float:
    """Return the epoch seconds before which the trigger of a deferral polls nothing: the worker has just done so.

    :param poll_interval: Seconds between two polls of one image task.
    :param for_nothing: Whether the worker was woken by answers that are too long for a triggerer, and they did not
        hold what is waited for: each further poll would bring the same.
    """
    return now + (max(poll_interval, PAUSE_AFTER_NOTHING_SECONDS) if for_nothing else poll_interval)


def tells_of_long_answers(event: Any) -> bool:
    """Return whether a trigger woke the worker, also, to read answers that are too long for a triggerer."""
    from airflow_provider_nanobanana.polling.subscription import TOO_LONG

    counts = event.get("counts") if isinstance(event, Mapping) else None
    return isinstance(counts, Mapping) and TOO_LONG in counts
