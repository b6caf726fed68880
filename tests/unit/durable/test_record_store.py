"""The identity of a submission, where an attempt stands, and the record: its stored form and its store."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana import compat
from airflow_provider_nanobanana.durable.attempt import TaskAttempt, salt_of
from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
from airflow_provider_nanobanana.durable.record import CallerIdentity, RecordState, SubmissionIdentity, SubmissionRecord
from airflow_provider_nanobanana.durable.record_store import NAME, OptimisticRecord, SingleRecordStore
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore, encode
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.support.ledger import BrittleStateStore

IDENTITY = SubmissionIdentity(scope=("dag", "run", "task", "-1"), fingerprint="f" * 64)
RECORD = SubmissionRecord(
    state=RecordState.INTENT,
    fingerprint="f" * 64,
    clear_number=0,
    generation=2,
    client_business_id="nb-1",
    image_task_id=None,
    may_have_left_at=1_790_000_000.5,
    max_tries=3,
    writer="w",
    name="v1",
    salt="2026-11-26T03:00:00.123456+00:00",
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
        {"stem": "cup-0123456789"},
        {"clear_number": 1},
        {"scope": ("prod", "dag", "run", "task", "-1")},
        {"name": "v1"},
        {"salt": "2026-11-26"},
    ],
)
def test_everything_that_tells_submissions_apart_changes_the_id(change: dict[str, Any]) -> None:
    assert dataclasses.replace(IDENTITY, **change).client_business_id(0) != IDENTITY.client_business_id(0)


def test_stem_clear_number_and_generation_are_not_interchangeable() -> None:
    ids = {
        dataclasses.replace(IDENTITY, stem=str(s), clear_number=r).client_business_id(g)
        for s in range(4) for r in range(4) for g in range(4)
    }  # fmt: skip
    assert len(ids) == 64


def test_the_id_is_the_same_in_every_process() -> None:
    """A changed derivation would lose sight of what earlier versions bought."""
    assert IDENTITY.client_business_id(0) == "nb-f0298ac38a21dd86b33a8d2818843929644aca3e"


def test_namespace_name_and_salt_are_not_interchangeable() -> None:
    """A namespace may read like a DAG, a name like a map index; a name stands in place of map index and salt."""
    scopes = [("a", "b", "c", "3"), ("a", "a", "b", "c", "3"), ("b", "a", "b", "c", "3")]
    identities = [
        SubmissionIdentity(scope, "f", name=name, salt=salt)
        for scope in scopes
        for name in ("", "3", "a")
        for salt in ("", "3", "a")
    ]
    assert len({identity.client_business_id(0) for identity in identities}) == 3 * (3 + 2)
    named = dataclasses.replace(IDENTITY, name="v1", salt="s")
    moved = dataclasses.replace(named, scope=("dag", "run", "task", "7"), salt="t")
    assert named.client_business_id(1) == moved.client_business_id(1)


STARTED = datetime(2026, 11, 26, 3, 0, 0, 123456, tzinfo=UTC)


def dag_run(started: datetime | None = STARTED, due: datetime | None = STARTED) -> Any:
    return SimpleNamespace(start_date=started, run_after=due)


def salt(run: Any, store: Any = "a store") -> str:
    context: Any = {"dag_run": run, "task_state_store": store}
    return salt_of(context)


@pytest.fixture(params=[False, True], ids=["kept at a clear", "discarded at a clear"])
def discarded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this Airflow discards the record at a clear."""
    monkeypatch.setattr(compat, "clear_discards_task_state", lambda: request.param)
    return bool(request.param)


def test_the_salt_is_when_the_run_began_and_was_due(discarded: bool) -> None:
    here = timezone(timedelta(hours=2))
    assert salt(dag_run()) == salt(dag_run(STARTED.astimezone(here), STARTED.astimezone(here))) != ""
    later = STARTED + timedelta(microseconds=1)
    assert salt(dag_run()) != salt(dag_run(due=later))
    # The clear of a finished run begins it anew.
    assert (salt(dag_run()) == salt(dag_run(started=later))) is discarded


@pytest.mark.parametrize(
    ("run", "store"), [(None, "a store"), (dag_run(None, None), "a store"), (dag_run(), None)]
)  # fmt: skip
def test_there_is_no_salt_where_none_could_be_found_again(run: Any, store: Any, discarded: bool) -> None:
    assert salt(run, store) == ""


def test_which_airflow_discards_at_a_clear() -> None:
    """As its API has it: only there a clear can be asked to keep the state."""
    from airflow.api_fastapi.core_api.datamodels.task_instances import ClearTaskInstancesBody

    assert compat.clear_discards_task_state() is ("keep_task_state" in ClearTaskInstancesBody.model_fields)


def test_an_attempt_says_where_it_is() -> None:
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=3, try_number=2, max_tries=3)
    context: Any = {"ti": ti}
    plain = TaskAttempt.from_context(context, retries=3, started_at=1.0, namespace="")
    assert (plain.scope, plain.retry) == (("d", "r", "t", "3"), True)
    there = TaskAttempt.from_context(context, retries=3, started_at=1.0, namespace="prod")
    assert there == dataclasses.replace(plain, scope=("prod", "d", "r", "t", "3"))


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


def test_the_record_survives_its_stored_form() -> None:
    store = InMemoryStateStore()
    assert SingleRecordStore(store).read() is None
    SingleRecordStore(store).write(RECORD)
    assert SingleRecordStore(store).read() == RECORD


def test_whoever_reads_a_ledger_reads_the_record_of_a_submit() -> None:
    store = InMemoryStateStore()
    SingleRecordStore(store).write(RECORD)
    [(_, entry)] = Ledger.load(store).items()
    assert entry == LedgerEntry(dataclasses.replace(RECORD, writer=""))


RECORD_FORM = {**dataclasses.asdict(RECORD), "state": "intent"}


@pytest.mark.parametrize(
    "stored",
    [
        {}, [], "intent", 7, None,
        {"version": 2, "writer": "w", "entries": {"submit": {"record": RECORD_FORM}}},
        {"version": 1, "writer": "w", "entries": {}},
        {"version": 1, "writer": "w", "entries": {"submit": {}}},
        {"version": 1, "writer": "w", "entries": {"a": {"record": RECORD_FORM}, "b": {}}},
        {"version": 1, "writer": "w", "entries": {"submit": {"record": {**RECORD_FORM, "state": "?"}}}},
        {"version": 1, "writer": "w", "entries": {"submit": {"record": {"state": "done"}}}},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_never_no_record(stored: Any) -> None:
    with pytest.raises(TransientFailure, match="nothing was sent") as caught:
        SingleRecordStore(InMemoryStateStore({NAME: encode(stored)})).read()
    assert caught.value.charged == "unknown"


@pytest.mark.parametrize("breaks", ["refused", "kept"])
@pytest.mark.parametrize(("image_task_id", "charged"), [(None, "unknown"), ("tsk_1", "yes")])
def test_a_write_that_is_not_kept_says_what_is_paid(breaks: Any, image_task_id: str | None, charged: str) -> None:
    store = BrittleStateStore()
    store.breaks = breaks
    with pytest.raises(TransientFailure, match="no api server") as caught:
        SingleRecordStore(store).write(dataclasses.replace(RECORD, image_task_id=image_task_id))
    assert (caught.value.charged, caught.value.image_task_id) == (charged, image_task_id)


def test_a_record_that_is_cleared_away_is_not_forgotten_by_the_attempt_that_wrote_it() -> None:
    """Airflow before 3.3 clears the XComs of a task instance when its next try starts, this one being alive still."""
    store = InMemoryStateStore()
    record = OptimisticRecord(SingleRecordStore(store))
    record.save(RECORD)
    store.texts.clear()
    assert record.is_current() and record.current == dataclasses.replace(RECORD, writer=record.writer)
    assert OptimisticRecord(SingleRecordStore(store)).read() is None
