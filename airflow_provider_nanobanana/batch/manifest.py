"""The manifest of a batch: what a person needs who finds the folder later. No link keeps its query: it is a secret."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from airflow_provider_nanobanana.batch.orders import Order
from airflow_provider_nanobanana.batch.outcome import Failed, Landed, Outcome, in_order
from airflow_provider_nanobanana.toapis.values import storable

VERSION: Final = 1
#: Not parsed as a URL: ``extra_body`` may hold anything, also what is none.
_LINK: Final = re.compile(r"\s*(https?://)(?:[^/?#]*@)?([^?#]*).*", re.IGNORECASE | re.DOTALL)


def manifest(
    outcomes: Iterable[Outcome],
    *,
    run: Mapping[str, Any],
    destination: str,
    totals: Mapping[str, Any],
    unfinished: int = 0,
) -> dict[str, Any]:
    """Return the manifest as plain JSON.

    :param run: ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and whatever else names the task instance.
    :param totals: From :meth:`Spent.totals`; they stand at the top level.
    :param unfinished: How many requests have no outcome yet.
    """
    landed, failed = in_order(outcomes)
    first = [image for image in landed if not image.extra]
    content: dict[str, Any] = storable(
        {
            "version": VERSION,
            **run,
            "destination": destination,
            **totals,
            "count": len(first),
            "extra_count": len(landed) - len(first),
            "reused": sum(image.reused for image in first),
            "unfinished": unfinished,
            "images": [_image(image) for image in landed],
            "failed": [_failure(failure) for failure in failed],
            "quarantined": [kept for failure in failed if (kept := failure.quarantined())],
        }
    )
    return content


def manifest_name(dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """Return what the manifest of a task instance is called, without suffix: readable, and no other's.

    :param map_index: None or below 0 for one that is not mapped.
    """
    index = -1 if map_index is None or map_index < 0 else map_index
    parts = [dag_id, run_id, task_id, str(index)]
    # "-" joins what may hold it: the hash alone tells a mapped "land", 1, from a task "land-1".
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    return "-".join(["manifest", *parts[: 3 if index < 0 else 4], digest])


def _image(image: Landed) -> dict[str, Any]:
    return {
        **image.image,
        **_identity(image.order),
        "cost_usd": image.cost.usd,
        "cost_is_listed": image.cost.listed,
        "reused": image.reused,
        "times": dict(image.times),
    }


def _failure(failure: Failed) -> dict[str, Any]:
    return {
        **failure.record(),
        **_identity(failure.order),
        "cost_usd": failure.cost.usd,
        "cost_is_listed": failure.cost.listed,
        "retry_may_help": failure.again,
        "index": failure.index,
        **({"answer": failure.answer} if failure.answer else {}),
    }


def _identity(order: Order) -> dict[str, Any]:
    """Return which request it was: position, name, identity, and the fields as they were asked for."""
    fields = order.request.model_dump(mode="json")
    return {
        "request": order.index,
        "name": order.name,
        "key": order.key,
        "digest": order.digest,
        "model": order.request.model,
        "fields": {
            key: _bare(value) if key in ("reference_images", "extra_body") else value for key, value in fields.items()
        },
    }


def _bare(value: Any) -> Any:
    """Return a value with every link in it stripped of what may be secret: query, fragment and user."""
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_bare(inner) for inner in value]
    link = _LINK.fullmatch(value) if isinstance(value, str) else None
    return f"{link[1]}{link[2]}" if link else value
