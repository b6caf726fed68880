"""What an attempt takes up again of what earlier ones left: decided from the ledger's entry of one image.

Pure: no I/O, no clock. The batch goes by these functions, and so do the words that foretell what it will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_nanobanana.durable.record import RecordState

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
    from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy


def is_untouched(entry: LedgerEntry) -> bool:
    """Whether nothing was sent for an image as far as the ledger knows, and nothing is in place."""
    unsent = entry.record is None or entry.record.state is RecordState.QUEUED
    return unsent and entry.status == "open"


def is_worth_another_attempt(entry: LedgerEntry, attempt: TaskAttempt) -> bool:
    """Whether a failure may be worth another attempt: a look-up is free, and a clear asks for it once."""
    cleared = attempt.cleared and _is_before_clear(entry, attempt)
    return entry.error is None or entry.error.retryable or entry.error.charged == "unknown" or cleared


def is_wanted_again(entry: LedgerEntry, attempt: TaskAttempt, policy: SubmissionPolicy) -> bool:
    """Whether the user cleared the task for another picture of the same request, and this is not it yet."""
    made_for = entry.record.clear_number if entry.record else 0
    # What was bought before the clear and landed after it serves, too.
    return not policy.reuse_existing and made_for != attempt.tries_before_clear and _is_before_clear(entry, attempt)


def needs_lookup(entry: LedgerEntry, attempt: TaskAttempt, *, complete: bool, claimed: bool) -> bool:
    """Whether an earlier attempt may have bought what is unsent by this one: it is looked up before any POST.

    :param complete: Whether every submit of the task instance is in the ledger.
    :param claimed: Whether purchases are claimed beside their files.
    """
    record = entry.record
    if record is None:
        return not complete and (attempt.retry or attempt.cleared)
    if record.state is RecordState.QUEUED:
        # The store may be some seconds behind an earlier try; a claim beside the file would tell that.
        return not claimed and record.try_number != attempt.try_number
    return True


def _is_before_clear(entry: LedgerEntry, attempt: TaskAttempt) -> bool:
    return entry.record is None or attempt.seems_cleared_since(entry.record)
