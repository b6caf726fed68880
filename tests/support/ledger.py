"""Samples of ledger entries and records, and BrittleStateStore, a state store that a test can break."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, LedgerEntry, StoredFile
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity, SubmissionRecord
from airflow_provider_nanobanana.durable.record_store import SingleRecordStore
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore, TaskStateStore
from airflow_provider_nanobanana.toapis.errors import TransientFailure

NOW = 1_790_000_000.123
#: Until when a POST that is written ahead may leave.
UNTIL = NOW + 60
SCOPE = ("catalogue", "scheduled__2026-11-22T00:00:00+00:00", "pictures", "-1")

Breakage = Literal["", "read", "refused", "kept", "lost"]


class BrittleStateStore(InMemoryStateStore):
    """Record the names of what is written, and break once told to.

    :ivar breaks: ``read`` fails; ``refused`` fails and does not write; ``kept`` fails and has written.
    """

    def __init__(self, texts: dict[str, str] | None = None) -> None:
        super().__init__(texts)
        self.breaks: Breakage = ""
        self.written: list[str] = []

    def read(self, name: str) -> str | None:
        if self.breaks == "read":
            raise TransientFailure("no api server", charged="unknown")
        return super().read(name)

    def write(self, name: str, text: str) -> None:
        if self.breaks != "refused":
            super().write(name, text)
            self.written.append(name)
        if self.breaks in ("refused", "kept"):
            raise TransientFailure("no api server", charged="unknown")


def identity(number: int, clear_number: int = 0) -> SubmissionIdentity:
    fingerprint = hashlib.sha256(f"kite {number}".encode()).hexdigest()
    return SubmissionIdentity(SCOPE, fingerprint, f"{fingerprint[:16]}-0", clear_number)


def key(number: int) -> str:
    return identity(number).stem


def record(number: int, state: RecordState, generation: int = 0, **changes: Any) -> SubmissionRecord:
    wanted = identity(number, changes.get("clear_number", 0))
    known = state in (RecordState.SUBMITTED, RecordState.DONE)
    return replace(
        SubmissionRecord(
            state=state,
            fingerprint=wanted.fingerprint,
            clear_number=0,
            generation=generation,
            client_business_id=wanted.client_business_id(generation),
            image_task_id=f"task_01K9{number:022d}" if known else None,
            may_have_left_at=NOW,
            max_tries=2,
            writer="",
        ),
        **changes,
    )


INTENT = record(0, RecordState.INTENT)


def landed(number: int, name: str = "") -> LedgerEntry:
    digest = identity(number).fingerprint
    file = StoredFile(name or f"{digest[:16]}-0.png", digest[::-1], 1_734_512, "png", 1024, 1024)
    done = record(number, RecordState.DONE)
    return LedgerEntry(done, "landed", file, cost=0.025, is_list_price=True, submitted_at=NOW + 0.5)


def submitted(number: int) -> LedgerEntry:
    return LedgerEntry(record(number, RecordState.SUBMITTED), cost=0.025, is_list_price=True, submitted_at=NOW + 0.5)


def failed(number: int, message: str = "the service failed", charged: Any = "no", **more: Any) -> LedgerEntry:
    fault = ItemError("generation_failed", message, charged, **more)
    return LedgerEntry(record(number, RecordState.SUBMITTED), "failed", cost=0.0, error=fault, submitted_at=NOW + 0.5)


def kept_record(store: Any) -> SubmissionRecord:
    """Return the record of a single submit in a task state store."""
    record = SingleRecordStore(TaskStateStore(store)).read()
    assert record is not None
    return record


def stored_size(text: str) -> int:
    """Return what Airflow 3.3 measures and stores: the value as ``json.dumps`` writes it."""
    return len(json.dumps(text))


def filled(store: InMemoryStateStore, count: int, entry: Callable[[int], LedgerEntry] = landed) -> Ledger:
    """Return a saved ledger of so many items."""
    ledger = Ledger.load(store)
    for number in range(count):
        ledger.put(key(number), entry(number))
    ledger.save()
    return ledger
