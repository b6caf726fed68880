"""Arguments that several operators take, checked where they only show after rendering."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.toapis.errors import InvalidRequest

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def check_choices(operator: object, choices: Mapping[str, Collection[object]]) -> None:
    """Refuse what only shows after rendering and mapping; nothing was sent.

    :raises InvalidRequest: an argument is none of its choices.
    """
    faults = [
        f"{name} is {' or '.join(map(repr, allowed))}, not {getattr(operator, name)!r:.40}"
        for name, allowed in choices.items()
        if getattr(operator, name) not in allowed
    ]
    if faults:
        raise InvalidRequest(f"Refused before sending: {'; '.join(faults)}. Nothing was charged.")


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
