"""A session over any client, with a clock of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airflow_provider_nanobanana.toapis.session import ToApisSession
from airflow_provider_nanobanana.toapis.settings import ToApisSettings


def make_session(
    client: Any,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    **fields: Any,
) -> ToApisSession:
    """Return a session that sends through ``client``; ``fields`` are those of the settings."""
    settings = ToApisSettings.model_validate({"base_url": "http://127.0.0.1:1", "api_key": "sk-1", **fields})
    return ToApisSession(settings, "nanobanana_default", lambda: client, clock, sleep)
