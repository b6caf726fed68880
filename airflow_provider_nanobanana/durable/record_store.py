"""``RecordStore``: where the record of one submission is kept, and :class:`OptimisticRecord`, which shares it safely.

Several attempts of a task instance may be alive; none writes over another's record without having read it.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from airflow_provider_nanobanana.durable import ledger
from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry, decode_entries, encode_entries
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.state_store import unreadable
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.state_store import StateStore

log = LineLogger(__name__)

#: Where the one item is stored: the place of a ledger's first chunk, so that whoever reads a ledger reads this as well.
NAME: Final = f"{ledger.NAME}_0"
#: The key of its one item.
KEY: Final = "submit"


class RecordStore(Protocol):
    """Keeps one record. It is never deleted: a task killed after its end must still find its result."""

    def read(self) -> SubmissionRecord | None:
        """Return the record, or None where there certainly is none."""
        ...

    def write(self, record: SubmissionRecord) -> None:
        """Replace the record; it is kept when this returns."""
        ...


class SingleRecordStore:
    """The record of a task that submits one image: a ledger of one item, in the ledger's stored form.

    Unlike a batch's, each :meth:`read` asks the store: another attempt of the task instance may be alive.

    :param store: What it is stored in; :class:`InMemoryStateStore` where there is no task instance.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def read(self) -> SubmissionRecord | None:
        """Return the record.

        :raises TransientFailure: It could not be read, or not be understood.
        """
        text = self._store.read(NAME)
        if text is None:
            return None
        writer, entries = decode_entries(NAME, text)
        record = entries[KEY].record if entries.keys() == {KEY} else None
        if record is None:
            raise unreadable(NAME, "it is not the record of one submit")
        return replace(record, writer=writer)

    def write(self, record: SubmissionRecord) -> None:
        """Write the record, and read it back.

        :raises TransientFailure: It is not known to be kept.
        """
        try:
            self._store.write(NAME, encode_entries(record.writer, {KEY: LedgerEntry(record)}))
        except TransientFailure as failure:
            failure.image_task_id = record.image_task_id
            raise failure.reworded(failure.message, charged="yes" if record.image_task_id else "unknown") from failure


class OptimisticRecord:
    """Reads and writes the record, and never writes over another attempt's without having read it.

    :ivar current: The record as last read or written.
    :ivar writer: Tells this attempt's records from those of others.
    """

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self.current: SubmissionRecord | None = None
        self.writer = uuid.uuid4().hex

    def read(self) -> SubmissionRecord | None:
        """Return the record; what this attempt knows already, where it is gone from the store.

        Airflow before 3.3 clears a task instance's XComs when its next try starts, while this one may still be alive.

        :raises TransientFailure: It could not be read.
        """
        self.current = self._store.read() or self.current
        return self.current

    def is_current(self) -> bool:
        """Whether no other attempt wrote since we last read; the window that remains is a few milliseconds.

        :raises TransientFailure: The record could not be read.
        """
        before = self.current
        if self.read() == before:
            return True
        log.warning("Another attempt wrote the record meanwhile; deciding again.")
        return False

    def overtaken(self, before: SubmissionRecord | None) -> bool:
        """Whether another attempt wrote since we knew this record, and may have bought what we did not.

        :raises TransientFailure: The record could not be read.
        """
        now = self.read()
        changed = now is not None and now != before and now.writer != self.writer
        return changed and now is not None and now.state is not RecordState.QUEUED

    def save(self, record: SubmissionRecord) -> None:
        """Write the record; call :meth:`is_current` first.

        :raises TransientFailure: It was not kept.
        """
        record = replace(record, writer=self.writer)
        self._store.write(record)
        self.current = record

    def try_save(self, record: SubmissionRecord) -> bool:
        """Write a record that may get lost, since the intent leads to the image; return whether the record is ours."""
        try:
            if not self.is_current():
                return False
            self.save(record)
        except TransientFailure as error:
            log.warning("Not recorded (%s): %s", record.state, error.message)
        return True

    def save_submitted(self, record: SubmissionRecord) -> None:
        """Write the id of what was just paid, whoever wrote meanwhile; failing to is loud but not fatal."""
        try:
            self.save(record)
        except TransientFailure as error:
            log.error("Image task %s is bought, but: %s", record.image_task_id, error.message)
            self.current = record
