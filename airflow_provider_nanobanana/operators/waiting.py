"""How a batch waits without a worker: for image tasks with the usual trigger, for the account's limit with a timer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_nanobanana.hooks.stretch import Pause


def announcement(pause: Pause) -> str:
    """Return what the log says of a pause."""
    latest = datetime.fromtimestamp(pause.wake_at, UTC).strftime("%H:%M:%S UTC")
    if not pause.image_task_ids:
        return f"Waiting without a worker until {latest}."
    return f"Waiting without a worker until {latest} at the latest; {len(pause.image_task_ids):,} under way."


def trigger_for(pause: Pause, *, conn_id: str, poll_interval: float, now: float) -> BaseTrigger:
    """Return the trigger of a pause.

    :param poll_interval: Seconds between two polls of one image task.
    :param now: Epoch seconds.
    """
    if not pause.image_task_ids:
        from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger

        return NanoBananaTimerTrigger(moment=pause.wake_at, deadline=pause.wake_at)
    from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger

    return NanoBananaTrigger(
        image_task_ids=pause.image_task_ids,
        nanobanana_conn_id=conn_id,
        started_at=now,
        deadline=pause.wake_at,
        poll_interval=poll_interval,
        created_at=pause.created_at,
        kinds=pause.kinds,
        not_before=now + poll_interval,
        enough=pause.enough,
    )
