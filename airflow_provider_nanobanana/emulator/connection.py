"""The Airflow connection that leads to an emulator."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow_provider_nanobanana.emulator.settings import Settings

_UNLIMITED = 1000.0  # the connection knows no "unlimited"; far above what one client reaches


def connection_json(api_url: str, settings: Settings, **extra: Any) -> dict[str, Any]:
    """Return the connection as Airflow's JSON form; ``allow_http`` is set where the host is not this machine."""
    fields: dict[str, Any] = {
        "submit_rate": settings.submit_rate or _UNLIMITED,
        "query_rate": settings.query_rate or _UNLIMITED,
    }
    if urlsplit(api_url).hostname not in ("127.0.0.1", "localhost", "::1"):
        fields["allow_http"] = True
    return {"conn_type": "nanobanana", "host": api_url, "password": settings.api_key, "extra": fields | extra}
