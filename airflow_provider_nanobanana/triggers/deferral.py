"""How long Airflow lets a deferral last: our own trigger ends it first, and Airflow's timeout is the safety net."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

#: Airflow's timeout of a deferral is so many seconds behind the moment at which our trigger fires at the latest.
DEFER_TIMEOUT_MARGIN_SECONDS: Final = 60.0


def defer_timeout(seconds: float) -> timedelta:
    """Return the timeout to give Airflow for a deferral whose trigger fires after so many seconds at the latest."""
    return timedelta(seconds=max(0.0, seconds) + DEFER_TIMEOUT_MARGIN_SECONDS)
