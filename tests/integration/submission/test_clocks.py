"""Workers whose clocks differ: what one of them wrote is read by another, and neither knows the true time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_nanobanana.durable.record_store import SingleRecordStore
from airflow_provider_nanobanana.durable.state_store import TaskStateStore
from tests.integration.submission.harness import SubmitTask
from tests.support.ledger import kept_record

HOUR = 3600.0


def written_under_a_clock(task: SubmitTask, ahead: float) -> None:
    """Make the record one of a worker whose clock is ahead of the next one's by so many seconds."""
    assert task.store is not None
    record = kept_record(task.store)
    moved = replace(record, may_have_left_at=record.may_have_left_at + ahead)
    SingleRecordStore(TaskStateStore(task.store)).write(moved)


@pytest.mark.parametrize("ahead", [-100.0, -30.0, 30.0, 100.0, 500.0, 6 * HOUR])
@pytest.mark.parametrize(("crash_on", "late", "shown"), [("after submit", 0, 60), ("submit under way", 30, 59)])
def test_what_a_worker_with_another_clock_bought_is_found(
    recorded: SubmitTask, ahead: float, crash_on: str, late: int, shown: int
) -> None:
    recorded.harness.crash_points.late = late
    recorded.harness.emulator.configure(lookup_delay=shown)
    recorded.attempt(crash_on=crash_on)
    written_under_a_clock(recorded, ahead)
    assert [recorded.attempt().result] == recorded.charges


@pytest.mark.parametrize("ahead", [-24 * HOUR, -6 * HOUR, -100.0, 100.0, 6 * HOUR, 365 * 24 * HOUR])
def test_another_clock_holds_no_worker(recorded: SubmitTask, ahead: float) -> None:
    recorded.attempt(crash_on="before submit")
    written_under_a_clock(recorded, ahead)
    start = recorded.harness.clock.now
    assert [recorded.attempt().result] == recorded.charges
    assert recorded.seconds(start) <= 180


def test_a_request_that_is_changed_back_is_found_under_another_clock(recorded: SubmitTask) -> None:
    """What another request may have bought out of sight is not ruled out by the clock of somebody else."""
    recorded.harness.emulator.configure(lookup_delay=30)
    first = recorded.attempt().result
    for prompt in ("a blue kite", "a red kite"):
        written_under_a_clock(recorded, -100.0)
        recorded.clear()
        recorded.options = {"prompt": prompt}
        run = recorded.attempt()
    assert run.result == first
    assert len(recorded.charges) == 2
