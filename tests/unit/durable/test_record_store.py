"""The identity of a submission, where an attempt stands, and the record: its stored form and its store."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.record import (
    KEY,
    CallerIdentity,
    RecordState,
    SubmissionIdentity,
    SubmissionRecord,
)
from airflow_provider_nanobanana.durable.record_store import InMemoryRecordStore, TaskStateRecordStore, record_store_for
from airflow_provider_nanobanana.toapis.errors import TransientFailure

IDENTITY = SubmissionIdentity(scope=("dag", "run", "task", "-1"), fingerprint="f" * 64)
RECORD = SubmissionRecord(
    state=RecordState.INTENT,
    fingerprint="f" * 64,
    regeneration=0,
    generation=2,
    client_business_id="nb-1",
    image_task_id=None,
    may_have_left_at=1_790_000_000.5,
    max_tries=3,
    writer="w",
)


@pytest.mark.parametrize(
    "change",
    [
        {"scope": ("dag2", "run", "task", "-1")},
        {"scope": ("dag", "run2", "task", "-1")},
        {"scope": ("dag", "run", "task2", "-1")},
        {"scope": ("dag", "run", "task", "0")},
        {"scope": ("da", "grun", "task", "-1")},
        {"fingerprint": "e" * 64},
        {"occurrence": 1},
        {"regeneration": 1},
    ],
)
def test_everything_that_tells_submissions_apart_changes_the_id(change: dict[str, Any]) -> None:
    assert dataclasses.replace(IDENTITY, **change).client_business_id(0) != IDENTITY.client_business_id(0)


def test_occurrence_regeneration_and_generation_are_not_interchangeable() -> None:
    ids = {
        dataclasses.replace(IDENTITY, occurrence=o, regeneration=r).client_business_id(g)
        for o in range(4) for r in range(4) for g in range(4)
    }  # fmt: skip
    assert len(ids) == 64


def test_the_id_is_the_same_in_every_process() -> None:
    """A changed derivation would lose sight of what earlier versions bought."""
    assert IDENTITY.client_business_id(0) == "nb-2fec2213d6bce612380c04d1d4c40043b9cc3cc4"


@given(st.tuples(*[st.text(max_size=50)] * 4), st.integers(0, 30))
def test_the_id_fits_the_bounds_of_other_clients(scope: tuple[str, ...], generation: int) -> None:
    """``docs/toapis.md``, "Client ids": ``A-Za-z0-9._:-``, at most 128 characters."""
    client_id = SubmissionIdentity(scope, "f").client_business_id(generation)
    assert re.fullmatch(r"[A-Za-z0-9._:-]{10,43}", client_id)


def test_a_lone_surrogate_in_a_run_id_is_hashed() -> None:
    assert SubmissionIdentity(("d", "\ud800", "t", "-1"), "f").client_business_id(0)


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retries", "cleared", "retry"),
    [
        (1, 0, 0, False, False),
        (1, 3, 3, False, False),
        (2, 3, 3, False, True),
        (4, 3, 3, False, True),
        (3, 5, 3, True, False),
        (4, 5, 3, True, True),
        (2, 1, 0, True, False),
        # retries lowered, then raised, in the DAG file while the run went on
        (2, 3, 5, False, True),
        # by so much that no clear can be the reason: looked for before anything is bought
        (2, 5, 1, False, True),
        # the worker's default_task_retries is not the scheduler's
        (1, 2, 0, False, False),
    ],
)
def test_where_an_attempt_stands(try_number: int, max_tries: int, retries: int, cleared: bool, retry: bool) -> None:
    attempt = TaskAttempt.of(try_number=try_number, max_tries=max_tries, retries=retries, started_at=1.0)
    assert (attempt.cleared, attempt.retry) == (cleared, retry)


@pytest.mark.parametrize(
    ("written_at", "now", "surely", "seems"),
    [
        # (try, max_tries, retries)
        ((1, 3, 3), (2, 3, 3), False, False),
        ((1, 3, 3), (2, 4, 3), True, True),
        ((2, 3, 3), (3, 2, 0), True, True),
        ((1, 2, 2), (2, 2, 1), False, True),
        ((2, 3, 3), (3, 3, 1), False, True),
        ((3, 3, 3), (4, 3, 1), False, False),
        ((1, 3, 3), (2, 3, 5), False, False),
        # an attempt from before the clear, and the record of one from after it
        ((3, 5, 3), (2, 3, 3), False, False),
        ((3, 2, 0), (2, 3, 0), False, False),
        # the record of an earlier version of this provider
        ((0, 3, 3), (2, 4, 3), True, True),
        ((0, 3, 3), (2, 3, 1), False, False),
    ],
)
def test_a_clear_is_told_from_a_retry(
    written_at: tuple[int, int, int], now: tuple[int, int, int], surely: bool, seems: bool
) -> None:
    """A clear sets ``max_tries`` to the tries so far plus ``retries``; a retry leaves it."""
    record = dataclasses.replace(RECORD, try_number=written_at[0], max_tries=written_at[1])
    attempt = TaskAttempt.of(try_number=now[0], max_tries=now[1], retries=now[2], started_at=1.0)
    assert (attempt.cleared_since(record), attempt.seems_cleared_since(record)) == (surely, seems)


def test_a_named_identity_keeps_the_callers_id() -> None:
    named = CallerIdentity(scope=("mine",), fingerprint="f")
    assert [named.client_business_id(generation) for generation in (0, 1)] == ["mine", "mine-1"]


class Store:
    """A task state store that a test can break.

    :param broken: The method that fails, or ``lost``: what is set is not kept.
    """

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.rows: dict[str, Any] = {}
        self.retention: Any = None

    def get(self, key: str) -> Any:
        if self.broken == "get":
            raise ConnectionError("no api server")
        return self.rows.get(key)

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        if self.broken == "set":
            raise ConnectionError("no api server")
        self.retention = retention
        if self.broken != "lost":
            self.rows[key] = json.loads(json.dumps(value))


def test_the_record_survives_its_stored_form() -> None:
    from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]

    store = Store()
    TaskStateRecordStore(store).write(RECORD)
    assert TaskStateRecordStore(store).read() == RECORD
    assert store.retention is NEVER_EXPIRE


def test_the_stored_form_is_small_plain_and_versioned() -> None:
    stored = RECORD.to_json()
    assert stored["version"] == 1
    assert len(json.dumps(stored)) < 600


def test_a_record_from_before_a_field_was_added_is_read() -> None:
    stored = RECORD.to_json()
    del stored["try_number"]
    assert SubmissionRecord.from_json(stored) == RECORD


@pytest.mark.parametrize(
    "stored", [{}, [], "intent", 7, {**RECORD.to_json(), "version": 2}, {**RECORD.to_json(), "state": "?"},
               {**RECORD.to_json(), "extra": 1}, {"version": 1, "state": "done"}]
)  # fmt: skip
def test_what_cannot_be_read_is_never_no_record(stored: Any) -> None:
    store = Store()
    store.rows[KEY] = stored
    with pytest.raises(TransientFailure, match="nothing was sent") as caught:
        TaskStateRecordStore(store).read()
    assert caught.value.charged == "unknown"


def test_a_store_that_cannot_be_read_is_never_an_empty_one() -> None:
    with pytest.raises(TransientFailure, match="no api server"):
        TaskStateRecordStore(Store("get")).read()


@pytest.mark.parametrize("broken", ["set", "lost"])
@pytest.mark.parametrize(("image_task_id", "charged"), [(None, "unknown"), ("tsk_1", "yes")])
def test_a_write_that_is_not_kept_is_noticed(broken: str, image_task_id: str | None, charged: str) -> None:
    """The store's own ``set`` swallows an error of the API server (Airflow 3.3.2)."""
    record = dataclasses.replace(RECORD, image_task_id=image_task_id)
    with pytest.raises(TransientFailure) as caught:
        TaskStateRecordStore(Store(broken)).write(record)
    assert (caught.value.charged, caught.value.image_task_id) == (charged, image_task_id)


def test_without_a_store_the_journal_forgets_with_the_attempt() -> None:
    assert isinstance(record_store_for({"task_state_store": Store()}), TaskStateRecordStore)
    journal = record_store_for({})
    assert isinstance(journal, InMemoryRecordStore)
    journal.write(RECORD)
    assert journal.read() == RECORD
    assert record_store_for({}).read() is None
