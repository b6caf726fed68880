"""``pack`` and ``unpack``: the stored form of what one round of a batch is to make, inside its ``InputSnapshot``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_nanobanana.batch.items import BatchItem, SkippedRow
from airflow_provider_nanobanana.durable.checkpoint import INPUT_NAME
from airflow_provider_nanobanana.durable.state_store import unreadable
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.models import ImageRequest


def pack(
    items: list[BatchItem], digests: Mapping[str, str], former: list[BatchItem], skipped: list[SkippedRow]
) -> dict[str, Any]:
    """Return what a round is to make as plain JSON.

    :param digests: Of the contents of storage references, by URI.
    :param former: What an earlier list left over, paid and not landed.
    """
    return {
        "items": [_plain(item) for item in items],
        "digests": dict(digests),
        "former": [*map(_plain, former)],
        "skipped": [[row.index, row.name, row.message] for row in skipped],
    }


def _plain(item: BatchItem) -> list[Any]:
    return [
        item.index,
        item.request.model_dump(mode="json", exclude_defaults=True),
        item.name,
        item.occurrence,
        item.fingerprint,
        item.meta,
        item.version,
    ]


def unpack(content: Any, models: catalogue.Rows | None) -> tuple[list[BatchItem], list[BatchItem], dict[str, str]]:
    """Return the items, those that an earlier list left over, and the digests of their references.

    :param models: The connection's own rows of models.
    :raises TransientFailure: It cannot be understood.
    """
    try:
        items, former = (
            [_restored(*_with_position(position, row), models=models) for position, row in enumerate(content[name])]
            for name in ("items", "former")
        )
        return items, former, dict(content["digests"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise unreadable(INPUT_NAME, type(error).__name__) from error


def _with_position(position: int, row: list[Any]) -> list[Any]:
    """Return a row as :func:`_plain` has it, also one of a batch that began before rows had data and versions."""
    return [position, *row] if isinstance(row[0], Mapping) else row


def _restored(index: int, request: Any, *rest: Any, models: catalogue.Rows | None) -> BatchItem:
    """Return an item as :func:`_plain` has it; how its request is written is what the connection says by now."""
    return BatchItem(index, ImageRequest.model_validate(request).with_models(models), *rest)


def unpack_skipped(content: Any) -> list[SkippedRow]:
    """Return the rows that were left out of the list.

    :raises TransientFailure: They cannot be understood.
    """
    try:
        return [SkippedRow(*row) for row in content.get("skipped", ())]
    except (AttributeError, TypeError) as error:
        raise unreadable(INPUT_NAME, type(error).__name__) from error
