"""Former items: paid and not landed when a clear changed the list of requests, and asked for by nobody now.

They are landed under their names while their links live, and are neither bought nor waited for longer than they would
have been. What cannot be landed is listed with its id and cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.state import name_ids
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.polling.poll_tracker import poll_once
from airflow_provider_nanobanana.toapis.errors import ImageTaskNotFound
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS, LINK_MARGIN_SECONDS

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.durable.ledger import Ledger
    from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry

log = LineLogger(__name__)

#: Seconds after its submit from which on an image task is not polled any more.
_DEAD_SECONDS: Final = LINK_LIFETIME_SECONDS + LINK_MARGIN_SECONDS


def left_over(
    before: Iterable[BatchItem], older: Iterable[BatchItem], wanted: Iterable[BatchItem], ledger: Ledger, now: float
) -> list[BatchItem]:
    """Return the items of earlier lists that are wanted no more, may be paid and are not landed.

    :param before: The list before this one.
    :param older: What was left over then; what died since was logged, and is not logged again.
    """
    keys = {item.key for item in wanted}
    alive = [item for item in older if not _link_is_dead(ledger.get(item.key), now)]
    old = {item.key: item for item in (*before, *alive) if item.key not in keys}
    return [item for key, item in old.items() if _unlanded(ledger.get(key))]


def still_expected(ledger: Ledger, now: float) -> list[str]:
    """Return the keys of what may be paid, is not landed, and can be landed as long as its link lives."""
    return [key for key, entry in ledger.items() if _may_be_landed(entry) and not _link_is_dead(entry, now)]


def restore_former_items(state: BatchState) -> None:
    """Make ready to land what is left over; what an earlier attempt gave up is polled again."""
    for item in state.former_items:
        entry = state.entry(item)
        if entry.status == "failed" and _may_be_landed(entry):
            state.ledger.update(item.key, status="open", error=None)
    if some := [item for item in state.former_items if _unlanded(state.entry(item))]:
        log.warning(
            "The list changed with the clear. Of the list before, what may be paid and is not landed (%d) is landed "
            "too as it gets ready, under the names it was to have; none of it is bought.",
            len(some),
        )


def pollable_items(state: BatchState) -> list[BatchItem]:
    """Return what can be polled; before that, look up those of which the answer to the submit was lost; free."""
    unanswered = {
        record.client_business_id: (item, record)
        for item in state.former_items
        if (record := state.entry(item).record) and _open(state.entry(item))
        if record.image_task_id is None and record.client_business_id is not None
    }
    for result in poll_once(state.session, list(unanswered)) if unanswered else ():
        item, record = unanswered[result.id]
        found = result.image_task
        if found is not None:
            state.ledger.update(item.key, record=record.with_state(RecordState.SUBMITTED, image_task_id=found.id))
            state.mark_submitted(item, found)
        elif (
            isinstance(result.error, ImageTaskNotFound)
            and state.client_ids_resolve is not False
            and _old_enough(state, record)
        ):
            # It was written ahead and never left.
            state.never_sent.add(item.key)
            state.costs.release(item)
    return [item for item in state.former_items if _open(state.entry(item)) and state.image_task_id(item)]


def awaited_items(state: BatchState) -> list[BatchItem]:
    """Return what is still worth a wait: it is under way, and not for longer than an image usually takes."""
    now = state.session.clock()
    items = (item for item in state.former_items if _open(state.entry(item)) and state.image_task_id(item))
    return [item for item in items if now < state.deadline(item)]


def stored_records(state: BatchState) -> list[dict[str, Any]]:
    """Return what was landed of the list before the clear, as plain JSON for the manifest."""
    entries = [(item, state.entry(item)) for item in state.former_items]
    return [
        {**_record(state, item.key, entry, item.name), "uri": state.downloader.store.uri(entry.stored.name)}
        for item, entry in entries
        if entry.stored is not None
    ]


def abandoned_records(state: BatchState) -> list[dict[str, Any]]:
    """Return what is paid, or may be, of earlier lists and is not landed, as plain JSON for result and manifest.

    ``id`` is the image task's, or the ``client_business_id`` under which the service may know it; ``expires_at`` is
    about when its link dies, in epoch seconds.
    """
    known = {item.key: item for item in state.former_items}
    wanted, now = {item.key for item in state.items}, state.session.clock()
    return [
        _record(state, key, entry, known[key].name if key in known else None)
        for key, entry in state.ledger.items()
        if key not in wanted and key not in state.never_sent
        if _unlanded(entry) and (key in known or not _link_is_dead(entry, now))
    ]


def log_abandoned(state: BatchState, left: list[dict[str, Any]]) -> None:
    """Say in the log what is left behind, and what can be done about it."""
    if left:
        log.warning(
            "Of the list before the clear, paid or perhaps paid, and not landed: %d (%s). Links live for about 24 "
            "hours: clear the task once more within that time, and what is ready by then is landed. The "
            "manifest lists them under 'abandoned'.",
            len(left),
            name_ids(str(record["id"]) for record in left),
        )


def _record(state: BatchState, key: str, entry: LedgerEntry, name: str | None) -> dict[str, Any]:
    record = entry.record
    return {
        "id": record and (record.image_task_id or record.client_business_id),
        "key": key,
        "name": name,
        "cost_usd": entry.cost,
        "paid_usd": entry.cost,
        "expires_at": round(_submitted_at(entry) + LINK_LIFETIME_SECONDS),
    }


def _unlanded(entry: LedgerEntry) -> bool:
    """Whether something was sent for an item, was not refunded as far as anyone knows, and has not been landed.

    What somebody else bought is theirs to land.
    """
    sent = entry.record is not None and entry.record.state is not RecordState.QUEUED
    return sent and not entry.shared and (_open(entry) or (entry.status == "failed" and not entry.refunded))


def _may_be_landed(entry: LedgerEntry) -> bool:
    return _unlanded(entry) and not (entry.error and entry.error.code == EXPIRED.code)


def _open(entry: LedgerEntry) -> bool:
    return entry.status == "open"


def _submitted_at(entry: LedgerEntry) -> float:
    return entry.submitted_at or (entry.record.may_have_left_at if entry.record else 0.0)


def _old_enough(state: BatchState, record: SubmissionRecord) -> bool:
    """Whether the service would show by now what a submit bought."""
    return state.session.clock() > record.may_have_left_at + state.policy.visibility_delay


def _link_is_dead(entry: LedgerEntry, now: float) -> bool:
    return now > _submitted_at(entry) + _DEAD_SECONDS
