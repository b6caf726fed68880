"""``interim_report``: what a batch comes to so far, while others submit and land its images; for a manifest that grows.

It is true as of one moment in which each item is in one of its lists, and sums up all that is known to be paid by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_nanobanana.batch import removed_items
from airflow_provider_nanobanana.batch.outcome import UnderWayItem
from airflow_provider_nanobanana.batch.report import BatchReport

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.costs import Spent
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry


def interim_report(state: BatchState) -> BatchReport | None:
    """Return what a batch comes to so far; None before it is known what earlier attempts have bought for it.

    The manifest of an earlier attempt may know more by then, and stays.
    """
    if any(map(state.is_in_doubt, state.pending())):
        return None
    ended: list[BatchItem] = []
    under_way: list[UnderWayItem] = []
    spent: dict[str, Spent] = {}
    for item in state.items:
        entry, cost = _seen_at_once(state, item)
        spent[item.key] = cost
        if entry.status != "open":
            ended.append(item)
        elif (image_task_id := _bought(entry, cost)) is not None:
            under_way.append(UnderWayItem(item, image_task_id, cost, entry.shared, entry.submitted_at))
    return BatchReport(
        state.outcomes(ended),
        state.costs.totals_so_far(spent),
        abandoned=removed_items.abandoned_records(state),
        former=removed_items.stored_records(state),
        skipped=state.skipped,
        prepared_references=state.prepared_references(),
        under_way=under_way,
        waiting=len(state.items) - len(ended) - len(under_way),
    )


def _seen_at_once(state: BatchState, item: BatchItem) -> tuple[LedgerEntry, Spent]:
    """Return what the ledger knows of an item, and what the item has cost as of that."""
    entry = state.entry(item)
    while True:
        image_task_id = entry.record.image_task_id if entry.record else None
        spent = state.costs.spent_so_far(item, image_task_id, shared=entry.shared)
        again = state.entry(item)
        if again is entry or again == entry:
            return entry, spent
        entry = again


def _bought(entry: LedgerEntry, spent: Spent) -> str | None:
    """Return the image task of an item that has not ended; None where it has none, or one that was refunded."""
    refunded = entry.submitted_at is None and spent.cost.usd == 0 and not entry.shared
    return None if entry.record is None or refunded else entry.record.image_task_id
