"""The record as one attempt knows it: what it read or wrote last, and whether that still stands."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.journal import Journal
    from airflow_provider_nanobanana.durable.record import Record

log = logging.getLogger(__name__)


class Logbook:
    """Reads and writes the record, and never writes over another attempt's without having read it.

    :ivar kept: The record as last read or written.
    :ivar writer: Tells this attempt's records from those of others.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.kept: Record | None = None
        self.writer = uuid.uuid4().hex

    def read(self) -> Record | None:
        """Return the record.

        :raises TransientFailure: It could not be read.
        """
        self.kept = self._journal.read()
        return self.kept

    def still_ours(self) -> bool:
        """Whether no other attempt wrote since we last read; the window that remains is a few milliseconds.

        :raises TransientFailure: The record could not be read.
        """
        before = self.kept
        if self.read() == before:
            return True
        log.warning("Another attempt wrote the record meanwhile; deciding anew.")
        return False

    def overtaken(self, before: Record | None) -> bool:
        """Whether another attempt wrote since we knew this record, and may have bought what we did not.

        :raises TransientFailure: The record could not be read.
        """
        now = self.read()
        changed = now is not None and now != before and now.writer != self.writer
        return changed and now is not None and now.state is not RecordState.QUEUED

    def keep(self, record: Record) -> None:
        """Write the record; call :meth:`still_ours` first.

        :raises TransientFailure: It was not kept.
        """
        record = replace(record, writer=self.writer)
        self._journal.write(record)
        self.kept = record

    def note(self, record: Record) -> bool:
        """Write what is good to know, and say whether the record is still ours; without it the intent leads there."""
        try:
            if not self.still_ours():
                return False
            self.keep(record)
        except TransientFailure as error:
            log.warning("Not noted (%s): %s", record.state, error.message)
        return True

    def keep_bought(self, record: Record) -> None:
        """Write the id of what was just paid, whoever wrote meanwhile; failing to is loud but not fatal."""
        try:
            self.keep(record)
        except TransientFailure as error:
            log.error("Image task %s is bought, but: %s", record.image_task_id, error.message)
            self.kept = record
