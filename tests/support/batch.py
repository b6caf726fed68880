"""Samples of batch items and their outcomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.batch.items import BatchItem, build_items
from airflow_provider_nanobanana.batch.outcome import FailedItem, StoredItem
from airflow_provider_nanobanana.toapis.failure_codes import ImageTaskFailure, failure_code

MODEL = "nano_banana_2"


def no_storage(uri: str) -> str:
    raise AssertionError(f"{uri} was asked for")


def items(given: Any, **defaults: Any) -> list[BatchItem]:
    """Build the items of requests that name no stored reference image."""
    return build_items(given, defaults=defaults, default_model=MODEL, digest_of=no_storage)


def item(index: int = 0, **fields: Any) -> BatchItem:
    """Return one item at a position of a longer batch."""
    return replace(items({"prompt": f"picture {index}", **fields})[0], index=index)


def landed(index: int = 0, *, cost: Cost | None = None, **changes: Any) -> StoredItem:
    image = {
        "uri": f"s3://bucket/{index}.png",
        "id": f"tsk_{index}",
        "index": 0,
        "sha256": "f" * 64,
        "bytes": 100,
        "format": "png",
        "width": 1024,
        "height": 1024,
    }
    return StoredItem(item(index), image, cost or Cost(0.025), **changes)


def failed(index: int = 0, code: str = "generation_failed", status: str = "failed", **how: Any) -> FailedItem:
    meaning = failure_code(code, pending=status == "timeout")
    failure = ImageTaskFailure(f"tsk_{index}", meaning, code, f"words of {index}")
    return FailedItem.from_poll(item(index), failure, cost=how.pop("cost", Cost()), **how)
