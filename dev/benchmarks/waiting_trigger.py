"""The trigger of the provider as every process under test waits with it: for one image task."""

from __future__ import annotations

import time

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger
from dev.benchmarks.scenario import POLL_INTERVAL


def waiting_trigger(image_task_id: str, *, created_at: float, seconds: float) -> NanoBananaTrigger:
    """Return a trigger that waits for an image task at most so many seconds from now."""
    now = time.time()
    return NanoBananaTrigger(
        image_task_ids=[image_task_id],
        nanobanana_conn_id=NanoBananaHook.default_conn_name,
        started_at=now,
        deadline=now + seconds,
        poll_interval=POLL_INTERVAL,
        created_at=[created_at],
        kinds="nano_banana_2",
    )
