"""BatchSubmitter: how it waits; what it buys is tested with the operator in tests/integration/batch."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from airflow_provider_nanobanana.batch import submitter
from airflow_provider_nanobanana.batch.submitter import BatchSubmitter
from airflow_provider_nanobanana.durable.record import RecordState
from tests.support.batch import items, make_state
from tests.support.responses import NOW


@pytest.mark.parametrize("room", [True, False])
def test_a_look_up_that_is_due_does_not_keep_a_core_busy_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """The threads that are waited for need the processor."""
    work, waits = BatchSubmitter(make_state(items(["a picture"]))), list[float]()

    def wait(futures: Any, timeout: float, return_when: str) -> tuple[set[Any], set[Any]]:
        waits.append(timeout)
        return set(), set(futures)

    one: Any = None
    work._sleeping = [(NOW - 1.0, 0, one)]
    work._active = dict.fromkeys((Future() for _ in range(work._threads - room)), one)
    monkeypatch.setattr(submitter, "wait", wait)
    pool: Any = None
    work._await_one(pool)
    assert waits == [0.0 if room else submitter._LONGEST_WAIT]


def test_an_answer_that_is_lost_again_is_waited_for_anew() -> None:
    """What was seen of the record before says nothing of the one that replaced it."""
    state = make_state(items(["a picture"]))
    (item,) = state.items
    record = state.attempt.intent(state.identity(item, 0), 0, client_ids=True, may_leave_at=NOW - 250.0)
    state.ledger.put_record(item.key, record)
    work = BatchSubmitter(state)
    sighting = work._record_sighting(item)
    assert sighting is not None
    state.ledger.update(item.key, sighting=sighting.at(work._machine_clock.machine, NOW - 200.0))
    assert work._read_at(item) == NOW - 200.0
    state.ledger.put_record(item.key, record.with_state(RecordState.INTENT, may_have_left_at=NOW - 1.0))
    assert work._read_at(item) is None
