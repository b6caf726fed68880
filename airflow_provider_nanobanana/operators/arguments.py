"""Arguments that several operators take, checked where they only show after rendering."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.toapis.errors import InvalidRequest

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def seconds_of(value: Any, name: str) -> float:
    """Return a number of seconds or a timedelta as seconds.

    :raises InvalidRequest: it is neither, or negative.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise InvalidRequest(f"{name} is a number of seconds or a timedelta, not {value!r}. Nothing was charged.")
    return float(seconds)


def adoptions(context: Context, adopt: Any) -> dict[str, str]:
    """Return the image tasks chosen by a person: the run conf's ``nanobanana_adopt``, and the task's own on top.

    :raises InvalidRequest: the task's own is no mapping.
    """
    if adopt is not None and not isinstance(adopt, Mapping):
        raise InvalidRequest("adopt is a mapping of client_business_id to image task id. Nothing was charged.")
    conf = getattr(context.get("dag_run"), "conf", None) or {}
    chosen = conf.get("nanobanana_adopt")
    return {**(chosen if isinstance(chosen, Mapping) else {}), **(adopt or {})}
