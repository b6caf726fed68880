"""The write-ahead of a whole wave: what the saved ledger says while POSTs may leave at any moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.durable.record import Record, RecordState

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import Attempt
    from airflow_provider_nanobanana.durable.entry import Entry
    from airflow_provider_nanobanana.durable.record import SubmissionIdentity


def foresee(identity: SubmissionIdentity, attempt: Attempt, entry: Entry, *, client_ids: bool) -> Record:
    """Return the intent that the next POST of an order will most likely write; a wrong guess costs a write, no more.

    :param client_ids: Whether submits carry a ``client_business_id``.
    """
    kept = entry.record
    if kept is None or not kept.fits(identity):
        generation = 0
    else:
        generation = kept.generation + (kept.state in (RecordState.SUBMITTED, RecordState.DONE))
    before = attempt.retry or attempt.cleared
    return Record(
        state=RecordState.INTENT,
        fingerprint=identity.fingerprint,
        regeneration=identity.regeneration,
        generation=generation,
        client_business_id=identity.client_business_id(generation) if client_ids else None,
        image_task_id=None,
        at=attempt.started_at,
        max_tries=attempt.max_tries,
        writer="",
        replaced=before if kept is None else kept.replaced or not kept.fits(identity),
        try_number=attempt.try_number,
    )


@dataclass(frozen=True)
class Reservation:
    """The right to POST an order without another write.

    :param intent: What is saved; its ``at`` is the last moment at which the POST may leave.
    """

    intent: Record

    def saved_form(self, entry: Entry) -> Entry:
        """Return what to save for an entry: the intent, unless that would hide what the entry's record knows."""
        record = entry.record
        if record is None or entry.landed is not None:
            return entry
        if record.state is RecordState.INTENT and same_submit(record, self.intent):
            later = max(record.at, self.intent.at)
            careful = replace(self.intent, at=later, replaced=record.replaced or self.intent.replaced)
        elif self._follows(entry, record):
            careful = self.intent
        else:
            return entry
        return replace(entry, record=careful, status="open", error=None)

    def _follows(self, entry: Entry, record: Record) -> bool:
        """Whether the intent is what comes right after a record: a generation left out would never be looked for."""
        if (record.fingerprint, record.regeneration) != (self.intent.fingerprint, self.intent.regeneration):
            return False
        if record.state is RecordState.QUEUED:
            return record.generation == self.intent.generation
        return entry.refunded and record.generation + 1 == self.intent.generation


def covers(saved: Record | None, intent: Record) -> bool:
    """Whether a saved record is at least as careful as an intent: whoever finds it looks for that very POST."""
    return (
        saved is not None
        and saved.state is RecordState.INTENT
        and saved.at >= intent.at
        and saved.replaced >= intent.replaced
        and same_submit(saved, intent)
    )


def same_submit(one: Record, other: Record) -> bool:
    """Whether two intents differ at most in their moment, their writer and try, and what came before them."""
    first, second = (replace(it, at=0.0, writer="", replaced=False, try_number=0) for it in (one, other))
    return first == second
