"""Submits that keep the account's pace: who waits, who queues, and what a wait leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from tests.support.ledger import kept_record
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat


class Killed(BaseException):
    """kill -9."""


def submit(number: int = 0, store: MemoryTaskStateStore | None = None, **options: Any) -> Run:
    """Submit as one of many mapped task instances."""
    ti = TaskInstance(map_index=number, max_tries=3, store=store)
    return attempt(NanoBananaSubmitOperator(task_id="submit", prompt="a red kite", retries=3, **options), ti)


def posts(emulator: Emulator) -> int:
    return sum(request["method"] == "POST" and "generations" in request["path"] for request in emulator.requests())


@pytest.fixture
def paced(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An account for which the next submit has to wait ten seconds."""
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json(submit_rate=0.1, timeout=3))
    return emulator


def test_each_submit_waits_for_its_turn(paced: Emulator, slept: list[float]) -> None:
    assert all(submit(number).error is None for number in range(3))
    assert [0 < wait < 10 for wait in slept] == [True, True], "less what the submit before took"
    assert (posts(paced), paced.ledger()["count"]) == (3, 3)


def test_a_raised_rate_costs_no_wait(emulator: Emulator, slept: list[float]) -> None:
    assert all(submit(number).error is None for number in range(3))
    assert slept == []


def test_a_slot_too_far_away_is_queued_without_a_slot_and_nothing_is_sent(paced: Emulator, slept: list[float]) -> None:
    submit(0)
    with NanoBananaHook() as hook:
        from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter

        pace = SubmitRateLimiter.of(hook.settings)
        while pace.reserve(hook.clock()) is not None:
            pass  # others who are in the line already
    run = submit(1)
    assert run.error is None
    assert len(run.deferrals) == 1
    assert slept == []
    assert (posts(paced), paced.ledger()["count"]) == (2, 2)


def test_the_line_outlasts_the_timeout_and_says_that_nothing_was_sent(paced: Emulator) -> None:
    paced.fault(on="submit", kind="rate_limit", retry_after=50, times=1)
    submit(0, timeout=5)
    run = submit(1, timeout=5)
    assert isinstance(run.error, NanoBananaException)
    assert (run.error.charged, run.error.retryable) == ("no", True)
    assert "Nothing was sent now" in flat(run.error)
    assert posts(paced) == 1, "one 429 is everybody's"


@pytest.mark.parametrize("store", [MemoryTaskStateStore(), None])
def test_whoever_is_killed_in_the_line_has_sent_nothing(
    paced: Emulator, monkeypatch: pytest.MonkeyPatch, store: MemoryTaskStateStore | None
) -> None:
    def die(seconds: float) -> None:
        raise Killed

    submit(0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(NanoBananaHook, "sleep", staticmethod(die))
        submit(1, store)
    assert posts(paced) == 1
    assert store is None or kept_record(store).state == "queued"


def test_a_submit_in_a_function_waits_however_long_the_line_is(paced: Emulator, slept: list[float]) -> None:
    paced.fault(on="submit", kind="rate_limit", retry_after=50, times=1)
    submit(0, timeout=5)
    with NanoBananaHook() as hook:
        assert hook.submit({"prompt": "a blue kite"}).id
    assert sum(slept) == pytest.approx(50, abs=1)
    assert max(slept) <= 10
    assert paced.ledger()["count"] == 1
