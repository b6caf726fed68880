"""What a triggerer does with a wait that only a later release understands: it wakes the worker after a while.

That happens while triggerers and workers are upgraded one after another, or one of them was set back. The wait ends too
early and never too late: whoever is woken asks the service itself, and waits on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_provider_nanobanana.stored_forms import WAIT
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.triggers.deferral import PAUSE_AFTER_NOTHING_SECONDS

log = LineLogger(__name__)


async def wake_later(version: int) -> dict[str, Any]:
    """Wait a minute and return an event that is a wake-up and no more."""
    log.warning(
        "This wait %s. The worker is woken in %.0f s and asks for itself. Install the newer version for the triggerer.",
        WAIT.said(version),
        PAUSE_AFTER_NOTHING_SECONDS,
    )
    await asyncio.sleep(PAUSE_AFTER_NOTHING_SECONDS)
    return {"version": WAIT.version}
