"""Where the record lies: Airflow's task state store (3.3 and later), or the memory of one attempt."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from typing import Any, Protocol

from airflow_provider_nanobanana.durable.record import KEY, RecordState, SubmissionRecord
from airflow_provider_nanobanana.toapis.errors import TransientFailure


class RecordStore(Protocol):
    """Keeps one record. It is never deleted: a task killed after its end must still find its result."""

    def read(self) -> SubmissionRecord | None:
        """Return the record, or None where there certainly is none."""
        ...

    def write(self, record: SubmissionRecord) -> None:
        """Replace the record; it is kept when this returns."""
        ...


class InMemoryRecordStore:
    """Forgets with the attempt: Airflow before 3.3, and callers of the hook. Derived client ids carry on then."""

    def __init__(self) -> None:
        self._record: SubmissionRecord | None = None

    def read(self) -> SubmissionRecord | None:
        """Return what this attempt wrote."""
        return self._record

    def write(self, record: SubmissionRecord) -> None:
        """Keep it for this attempt."""
        self._record = record


class TaskStateRecordStore:
    """The record in ``task_state_store``: it survives retries, kills, deferrals and a clear.

    :param store: ``context["task_state_store"]``.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def read(self) -> SubmissionRecord | None:
        """Return the record.

        :raises TransientFailure: It could not be read, which is never the same as "there is none".
        """
        try:
            value = self._store.get(KEY)
        except Exception as error:
            raise TransientFailure(
                f"The record of earlier submissions could not be read ({type(error).__name__}: {error}); "
                "nothing was sent now. A retry reads it again.",
                charged="unknown",
            ) from error
        return None if value is None else SubmissionRecord.from_json(value)

    def write(self, record: SubmissionRecord) -> None:
        """Write the record and read it back: the store's own ``set`` ignores an error of the API server (3.3.2).

        :raises TransientFailure: It was not kept.
        """
        from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]

        try:
            self._store.set(KEY, record.to_json(), retention=NEVER_EXPIRE)
            kept = self._store.get(KEY)
        except Exception as error:
            raise TransientFailure(
                f"The record of this submission could not be written ({type(error).__name__}: {error}).",
                image_task_id=record.image_task_id,
                charged="yes" if record.image_task_id else "unknown",
            ) from error
        if kept != record.to_json():
            raise TransientFailure(
                "The record of this submission was not kept by the task state store.",
                image_task_id=record.image_task_id,
                charged="yes" if record.image_task_id else "unknown",
            )


def record_store_for(context: Any) -> RecordStore:
    """Return the journal of a running task instance."""
    store = context.get("task_state_store")
    return InMemoryRecordStore() if store is None else TaskStateRecordStore(store)


log = logging.getLogger(__name__)


class OptimisticRecord:
    """Reads and writes the record, and never writes over another attempt's without having read it.

    :ivar kept: The record as last read or written.
    :ivar writer: Tells this attempt's records from those of others.
    """

    def __init__(self, journal: RecordStore) -> None:
        self._journal = journal
        self.current: SubmissionRecord | None = None
        self.writer = uuid.uuid4().hex

    def read(self) -> SubmissionRecord | None:
        """Return the record.

        :raises TransientFailure: It could not be read.
        """
        self.current = self._journal.read()
        return self.current

    def is_current(self) -> bool:
        """Whether no other attempt wrote since we last read; the window that remains is a few milliseconds.

        :raises TransientFailure: The record could not be read.
        """
        before = self.current
        if self.read() == before:
            return True
        log.warning("Another attempt wrote the record meanwhile; deciding anew.")
        return False

    def overtaken(self, before: SubmissionRecord | None) -> bool:
        """Whether another attempt wrote since we knew this record, and may have bought what we did not.

        :raises TransientFailure: The record could not be read.
        """
        now = self.read()
        changed = now is not None and now != before and now.writer != self.writer
        return changed and now is not None and now.state is not RecordState.QUEUED

    def save(self, record: SubmissionRecord) -> None:
        """Write the record; call :meth:`still_ours` first.

        :raises TransientFailure: It was not kept.
        """
        record = replace(record, writer=self.writer)
        self._journal.write(record)
        self.current = record

    def try_save(self, record: SubmissionRecord) -> bool:
        """Write what is good to know, and say whether the record is still ours; without it the intent leads there."""
        try:
            if not self.is_current():
                return False
            self.save(record)
        except TransientFailure as error:
            log.warning("Not noted (%s): %s", record.state, error.message)
        return True

    def save_submitted(self, record: SubmissionRecord) -> None:
        """Write the id of what was just paid, whoever wrote meanwhile; failing to is loud but not fatal."""
        try:
            self.save(record)
        except TransientFailure as error:
            log.error("Image task %s is bought, but: %s", record.image_task_id, error.message)
            self.current = record
