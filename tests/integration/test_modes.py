"""Deferred, poking or rescheduled: the sensor's results, errors and soft failures are the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaException
from tests.support.task_runner import TaskInstance, attempt, resume, sensor, wait
from tests.support.text import flat

Buy = Callable[..., str]


def test_results_are_the_same(emulator: Emulator, buy: Buy, way: str) -> None:
    emulator.configure(latency=0.2)
    ids = [buy("one"), buy("two [[fail]]"), buy("three")]
    run = wait(ids, way, allow_partial=True)
    assert [(entry["id"], entry["status"]) for entry in run.result] == [
        (ids[0], "completed"),
        (ids[1], "failed"),
        (ids[2], "completed"),
    ]


class TestAfterRetries:
    """``allow_partial="after_retries"``: Airflow never retries a sensor's timeout, so it is none while tries last."""

    @pytest.mark.parametrize("soft_fail", [False, True])
    def test_what_is_late_is_waited_for_again(self, emulator: Emulator, buy: Buy, way: str, soft_fail: bool) -> None:
        emulator.configure(latency=0.1)
        ids = [buy("one"), buy("two [[fail]]")]
        emulator.configure(latency=60)
        late = buy("three")
        retry = TaskInstance(task_id="wait", try_number=1, max_tries=1)
        options: dict[str, Any] = {"allow_partial": "after_retries", "timeout": 1.0, "soft_fail": soft_fail}
        run = wait([*ids, late], way, ti=retry, **options)
        assert type(run.error) is NanoBananaException and run.error.retryable and late in flat(run.error)
        assert [record["status"] for record in run.ti.xcoms["return_value"]] == ["completed", "failed", "timeout"]
        last = wait([*ids, late], way, ti=TaskInstance(task_id="wait", try_number=2, max_tries=1), **options)
        assert [record["status"] for record in last.result] == ["completed", "failed", "timeout"]

    def test_what_failed_for_good_is_not_retried(self, emulator: Emulator, buy: Buy, way: str) -> None:
        emulator.configure(latency=0.1)
        ids = [buy("one"), buy("two [[fail]]")]
        ti = TaskInstance(task_id="wait", try_number=1, max_tries=1)
        run = wait(ids, way, ti=ti, allow_partial="after_retries")
        assert [record["status"] for record in run.result] == ["completed", "failed"]

    def test_another_value_is_refused(self, buy: Buy, way: str) -> None:
        run = wait(buy(), way, allow_partial="after")
        assert isinstance(run.error, AirflowFailException) and "after_retries" in flat(run.error)


class TestSoftFail:
    """Only what became of the image tasks can be softened; a wrong key stays loud unless ``never_fail`` is set."""

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_a_remote_failure_is_skipped_and_named(self, emulator: Emulator, buy: Buy, way: str, option: str) -> None:
        emulator.configure(latency=0.1)
        bad = buy("x [[fail]]")
        run = wait(bad, way, **dict[str, Any]({option: True}))
        assert type(run.error) is AirflowSkipException
        assert bad in flat(run.error)
        assert run.ti.xcoms["return_value"][0]["status"] == "failed"

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_a_timeout_is_skipped_and_named(self, emulator: Emulator, buy: Buy, way: str, option: str) -> None:
        emulator.configure(latency=60)
        late = buy()
        run = wait(late, way, timeout=0.3, **dict[str, Any]({option: True}))
        assert type(run.error) is AirflowSkipException
        assert late in flat(run.error)

    def test_a_refused_key_is_not_softened(self, emulator: Emulator, buy: Buy, way: str) -> None:
        emulator.configure(latency=60)
        image_task_id = buy()
        emulator.fault(on="status", kind="unauthorized", skip=1)
        run = wait(image_task_id, way, soft_fail=True)
        assert isinstance(run.error, AirflowFailException)
        assert image_task_id in flat(run.error)

    def test_never_fail_skips_even_that(self, emulator: Emulator, buy: Buy, way: str) -> None:
        image_task_id = buy()
        emulator.fault(on="status", kind="unauthorized")
        assert type(wait(image_task_id, way, never_fail=True).error) is AirflowSkipException


def test_without_softening_the_errors_are_the_same(emulator: Emulator, buy: Buy, way: str) -> None:
    emulator.configure(latency=60)
    late = wait(buy(), way, timeout=0.2)
    emulator.configure(latency=0)
    failed = wait(buy("x [[fail]]"), way)
    assert isinstance(late.error, AirflowSensorTimeout)
    assert isinstance(failed.error, AirflowFailException)


def test_airflows_own_clock_running_out_first_gives_our_answer(
    emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base class counts from its own start: its timeout must not hide what is paid."""
    done = buy("done")
    emulator.configure(latency=60)
    late = buy("late")
    poking = sensor([done, late], deferrable=False, poke_interval=0, timeout=0.2, soft_fail=True)
    monkeypatch.setattr(poking, "poke", lambda context: False)
    run = attempt(poking)
    assert type(run.error) is AirflowSkipException
    assert late in flat(run.error)
    assert [entry["status"] for entry in run.ti.xcoms["return_value"]] == ["completed", "timeout"]


def test_a_deferral_that_airflow_ends_is_concluded_from_the_service(emulator: Emulator, buy: Buy) -> None:
    """The net behind our deadline: the trigger sent nothing in time."""
    emulator.configure(latency=60)
    late = buy()
    run = resume(sensor(late), "__fail__", error="Trigger timeout")
    assert isinstance(run.error, NanoBananaException)
    assert isinstance(run.error, AirflowSensorTimeout)
    assert late in flat(run.error)


@pytest.mark.parametrize("event", [None, {}, {"status": "success", "batch_id": "someone else's"}, "text", ["list"]])
def test_a_foreign_event_is_no_more_than_a_wake_up(emulator: Emulator, buy: Buy, event: Any) -> None:
    """Airflow leaks ``next_kwargs`` into retries (#62845)."""
    image_task_id = buy()
    [entry] = resume(sensor(image_task_id), event=event).result
    assert (entry["id"], entry["status"]) == (image_task_id, "completed")


def test_reads_that_fail_on_resume_wait_on_instead_of_losing_the_image(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=3600)
    image_task_id = buy()
    emulator.fault(on="status", kind="server_error", skip=2, times=2)
    run = wait(image_task_id, "deferred", at_deferral=emulator.complete_all)
    assert run.result[0]["status"] == "completed"
    assert len(run.deferrals) >= 1
    assert run.deferrals[-1].trigger.deadline == run.deferrals[0].trigger.deadline, "the deadline does not move"


def test_the_deferral_stands_a_minute_behind_our_deadline(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=3600)
    [deferral] = wait(buy(), "deferred", timeout=300, at_deferral=emulator.complete_all).deferrals
    assert deferral.timeout is not None
    assert timedelta(seconds=355) < deferral.timeout <= timedelta(seconds=360)
