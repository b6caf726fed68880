"""Rows of docs/durability.md: a store that is some seconds behind, after a failover of its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.durable.record_store import SingleRecordStore
from airflow_provider_nanobanana.durable.state_store import TaskStateStore
from tests.integration.submission.harness import SubmitTask
from tests.support.ledger import kept_record


@contextmanager
def failover(task: SubmitTask) -> Iterator[None]:
    """Lose what is written to the store meanwhile."""
    assert task.store is not None
    rows = dict(task.store.rows)
    yield
    task.store.rows.clear()
    task.store.rows.update(rows)


@pytest.mark.parametrize("cleared", [False, True])
@pytest.mark.parametrize("crash_on", ["after submit", "returned"])
def test_r52_the_record_says_queued_though_it_was_sent(recorded: SubmitTask, crash_on: str, cleared: bool) -> None:
    recorded.attempt(crash_on="after write")
    assert recorded.state == "queued"
    with failover(recorded):
        bought = recorded.bought_by(crash_on=crash_on)
    if cleared:
        recorded.clear()
    start = recorded.harness.clock.now
    assert [recorded.attempt().result] == bought == recorded.charges
    assert recorded.seconds(start) == 0, "one look, and no wait"


@pytest.mark.parametrize("crash_on", ["after submit", "returned"])
def test_r53_the_record_is_of_what_failed_before(recorded: SubmitTask, crash_on: str) -> None:
    recorded.harness.emulator.fault(on="submit", kind="failed", times=1)
    recorded.attempt()
    with failover(recorded):
        bought = recorded.bought_by(crash_on=crash_on)
    start = recorded.harness.clock.now
    assert [recorded.attempt().result] == bought == recorded.charges
    assert recorded.seconds(start) == 0, "one look, and no wait"


def test_a_store_that_is_several_image_tasks_behind(recorded: SubmitTask) -> None:
    recorded.attempt(crash_on="after write")
    with failover(recorded):
        recorded.harness.emulator.fault(on="submit", kind="failed", times=2)
        recorded.attempt()
        recorded.attempt()
        bought = recorded.attempt().result
    assert [recorded.attempt().result] == [bought] == recorded.charges
    assert recorded.accepted == 3


def test_a_wait_for_the_accounts_rate_that_goes_on_looks_for_nothing(recorded: SubmitTask) -> None:
    """Looks would be as many as the submits that wait in line."""
    recorded.harness.emulator.fault(on="submit", kind="rate_limit", retry_after=40, times=1)
    run = recorded.attempt()
    assert [run.result] == recorded.charges and len(run.deferrals) == 1
    passed = recorded.harness.crash_points.passed
    assert passed.count("before submit") == 2
    assert "before status" not in passed[: passed.index("before submit", passed.index("after submit"))]


def test_the_salt_on_record_is_derived_again_where_the_store_is_wiped(recorded: SubmitTask) -> None:
    bought = recorded.bought_by(crash_on="returned")
    assert recorded.store is not None
    salt = kept_record(recorded.store).salt
    recorded.lose_record()
    assert [recorded.attempt().result] == bought == recorded.charges
    kept = kept_record(recorded.store)
    assert (kept.salt, kept.state) == (salt, RecordState.DONE)
    assert salt


def test_a_record_from_before_there_was_a_salt_keeps_its_ids(recorded: SubmitTask) -> None:
    """What an earlier version of this provider bought is found, also when the request is changed back."""
    first = SubmitTask(recorded.harness, None).attempt().result
    [image_task] = recorded.harness.emulator.ledger()["image_tasks"]
    recorded.attempt(crash_on="before submit")
    old = replace(kept_record(recorded.store), salt="", client_business_id=image_task["client_business_id"])
    SingleRecordStore(TaskStateStore(recorded.store)).write(old)
    assert recorded.attempt().result == first
    for prompt in ("a blue kite", "a red kite"):
        recorded.clear()
        recorded.options = {"prompt": prompt}
        run = recorded.attempt()
    assert run.result == first
    assert len(recorded.charges) == 2
