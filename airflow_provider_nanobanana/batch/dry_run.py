"""A dry run: what is in place, what would be bought and what it would cost; nothing is bought, written or taken.

The batch is prepared as ever, over a ``TrialStore`` that keeps nothing, and then told instead of worked on.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.costs import format_usd
from airflow_provider_nanobanana.toapis.response_values import storable

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.durable.state_store import StateStore

#: Images told one by one.
MOST_LISTED: Final = 500
_LONGEST_PROMPT: Final = 80


class TrialStore:
    """Reads what a store holds; what is written is seen by this process alone."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._written: dict[str, str] = {}

    def read(self, name: str) -> str | None:
        """Return what was written here, else what the store holds."""
        return self._written[name] if name in self._written else self._store.read(name)

    def write(self, name: str, text: str) -> None:
        """Keep it as long as this process."""
        self._written[name] = text


def dry_run_result(state: BatchState) -> dict[str, Any]:
    """Return what a run would do, as plain JSON: counts, the estimate in USD, and the first 500 images.

    ``state`` of an image is ``in_place``, ``to_buy``, ``perhaps_paid`` (an earlier attempt may have bought it: it is
    looked up first) or ``failed`` (an earlier attempt ended it, and a retry changes nothing).
    """
    states = {item.key: _state_of(state, item) for item in state.items}
    counts = Counter(states.values())
    to_buy = [item for item in state.items if states[item.key] == "to_buy"]
    estimate = state.budget.estimate(to_buy, state.costs.counted_usd, state.costs.bills)
    value: dict[str, Any] = storable(
        {
            "dry_run": True,
            "requests": len(state.items),
            "in_place": counts["in_place"],
            "to_buy": counts["to_buy"],
            "perhaps_paid": counts["perhaps_paid"],
            "estimate_usd": round(estimate.total_usd, 6),
            "without_price": estimate.unknown,
            "within_max_cost": estimate.within_images,
            **_keys_of_a_run(state, counts),
            "skipped": [
                {"request": row.index, "name": row.name, "message": row.message} for row in state.skipped[:MOST_LISTED]
            ],
            "images": [_image(state, item, states[item.key]) for item in state.items[:MOST_LISTED]],
        }
    )
    return value


def _keys_of_a_run(state: BatchState, counts: Counter[str]) -> dict[str, Any]:
    """Return what the tasks behind look for in the result of a run, as far as there is anything of it."""
    return {
        "failed": [],
        "quarantined": [],
        "abandoned": [],
        "count": counts["in_place"],
        "failed_count": counts["failed"],
        "extra_count": 0,
        "skipped_count": len(state.skipped),
        "cost_usd": 0.0,
        "paid_usd": 0.0,
        "lost_race": 0.0,
        "shared": 0,
        "reused": counts["in_place"],
        "manifest": None,
        "truncated": len(state.items) > MOST_LISTED,
    }


def dry_run_line(result: dict[str, Any]) -> str:
    """Return a dry run in words, for the log."""
    parts = {
        "in place": "in_place",
        "to buy": "to_buy",
        "perhaps paid": "perhaps_paid",
        "failed before": "failed_count",
    }
    counts = ", ".join(f"{result[key]:,} {words}" for words, key in parts.items() if result[key])
    skipped = f"; rows skipped: {result['skipped_count']:,}" if result["skipped_count"] else ""
    images = "1 image" if result["requests"] == 1 else f"{result['requests']:,} images"
    return (
        f"Dry run: of {images} {counts}; a run now would pay about "
        f"{format_usd(result['estimate_usd'])}{skipped}. Nothing was bought."
    )


def _state_of(state: BatchState, item: BatchItem) -> str:
    entry = state.entry(item)
    if entry.status == "failed":
        return "failed"
    if entry.status != "open":
        return "in_place"
    unsent = entry.submitted_at is None or state.image_task_id(item) is None
    return "to_buy" if unsent and state.will_be_bought(item) else "perhaps_paid"


def _image(state: BatchState, item: BatchItem, what: str) -> dict[str, Any]:
    stored = state.entry(item).stored
    return {
        "request": item.index,
        "name": item.name,
        "variant": item.request.variant,
        "prompt": item.request.prompt[:_LONGEST_PROMPT],
        "state": what,
        "uri": state.downloader.store.uri(stored.name) if stored is not None and what == "in_place" else None,
    }
