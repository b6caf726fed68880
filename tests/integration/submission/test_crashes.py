"""Rows of docs/durability.md: what a crash leaves behind, and what the next attempt makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from tests.integration.submission.harness import SubmitTask
from tests.support.task_runner import TaskInstance, attempt
from tests.support.text import flat

pytestmark = pytest.mark.campaign


def test_r01_before_the_post(task: SubmitTask) -> None:
    start = task.harness.clock.now
    task.attempt(crash_on="before submit")
    assert task.state == ("intent" if task.store else None)
    assert task.charges == []
    assert [task.attempt().result] == task.charges
    assert task.seconds(start) >= 90, "nothing seen is believed only when the POST could not be seen any more"


def test_r02_before_the_intent(recorded: SubmitTask) -> None:
    start = recorded.harness.clock.now
    recorded.attempt(crash_on="after write")
    assert recorded.state == "queued"
    assert [recorded.attempt().result] == recorded.charges
    assert recorded.seconds(start) == 0, "the record says that nothing was sent"


@pytest.mark.parametrize("late", [0, 30])
def test_r03_between_post_and_answer(task: SubmitTask, late: int) -> None:
    task.harness.crash_points.late = late
    task.harness.emulator.configure(lookup_delay=30)
    task.attempt(crash_on="submit under way")
    assert task.state == ("intent" if task.store else None)
    assert [task.attempt().result] == task.charges


def test_r04_after_the_answer_before_the_record(task: SubmitTask) -> None:
    task.attempt(crash_on="after submit")
    assert task.state == ("intent" if task.store else None)
    bought = task.charges
    assert [task.attempt().result] == bought == task.charges


def test_r05_after_the_record(task: SubmitTask) -> None:
    task.attempt(crash_on="after write", occurrence=3)
    assert task.state == ("submitted" if task.store else None)
    bought = task.charges
    assert [task.attempt().result] == bought == task.charges


def test_r06_after_execute_returned(task: SubmitTask) -> None:
    task.attempt(crash_on="returned")
    assert task.state == ("done" if task.store else None)
    bought = task.charges
    assert [task.attempt().result] == bought == task.charges


@pytest.mark.parametrize("committed", [True, False])
def test_r07_the_answer_is_lost_and_the_attempt_lives(task: SubmitTask, committed: bool) -> None:
    task.harness.emulator.fault(on="submit", kind="drop", times=1, committed=committed)
    assert [task.attempt().result] == task.charges
    assert task.accepted == 1


def test_r08_two_live_attempts(recorded: SubmitTask) -> None:
    """A scheduler that takes an attempt for dead starts another while the first is in its POST."""
    clock = recorded.harness.clock
    second: list[str] = []
    sleep = clock.sleep
    recorded.harness.emulator.fault(on="submit", kind="drop", times=1, committed=True)

    def meanwhile(seconds: float) -> None:
        if not second:
            second.append("under way")
            second.append(recorded.attempt().result)
        sleep(seconds)

    recorded.harness.emulator.configure(lookup_delay=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "sleep", meanwhile)
        patch.setattr("airflow_provider_nanobanana.hooks.nanobanana.NanoBananaHook.sleep", staticmethod(meanwhile))
        first = recorded.attempt()
    assert [first.result] == second[1:] == recorded.charges


def test_r10_a_queued_submit_is_killed(task: SubmitTask) -> None:
    task.harness.emulator.fault(on="submit", kind="rate_limit", retry_after=40, times=1)
    task.options = {"timeout": 0}
    assert task.attempt().error is not None
    assert task.state == ("queued" if task.store else None)
    task.harness.clock.sleep(40)  # as the service asked
    start = task.harness.clock.now
    assert [task.attempt().result] == task.charges
    assert (task.seconds(start) == 0) == (task.store is not None), "only a record knows that nothing was sent"


def test_r11_an_event_of_another_job(task: SubmitTask) -> None:
    operator = NanoBananaSubmitOperator(task_id="submit", prompt="a red kite", retries=3)
    ti = TaskInstance(task_id="submit", max_tries=3, store=task.store)
    context = {"ti": ti} | ({"task_state_store": task.store} if task.store else {})
    leaked = {"ticket": "dag/run/another/-1/1", "deadline": 0.0, "image_task_id": "tsk_of_another"}
    assert [operator.execute_queued(context, leaked)] == task.charges  # type: ignore[arg-type]


def test_r12_during_the_download(task: SubmitTask, tmp_path: Path) -> None:
    bought = task.attempt().result
    images = attempt(NanoBananaSensor(task_id="wait", image_task_ids=bought)).result
    download = NanoBananaDownloadOperator(task_id="land", images=images, destination=str(tmp_path))
    task.harness.emulator.fault(on="result", kind="drop_mid_body")
    assert isinstance(attempt(download).error, NanoBananaException)
    task.harness.emulator.clear_faults()
    [landed] = attempt(download).result
    assert landed["id"] == bought
    assert task.charges == [bought]


def test_r13_the_wait_times_out(task: SubmitTask) -> None:
    task.harness.emulator.configure(latency=1e6)
    bought = task.attempt().result
    late = attempt(NanoBananaSensor(task_id="wait", image_task_ids=bought, timeout=0))
    assert bought in flat(late.error)
    task.harness.emulator.complete_all()
    [image] = attempt(NanoBananaSensor(task_id="wait", image_task_ids=bought)).result
    assert (image["status"], task.charges) == ("completed", [bought])


def test_r14_killed_by_hand(task: SubmitTask, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    task.attempt(crash_on="after submit")
    operator = task.operator()
    monkeypatch.setattr(operator.log, "warning", lambda text, *_: said.append(text))
    operator.on_kill()
    assert "stays paid" in said[0]
    task.clear()
    assert [task.attempt().result] == task.charges


@pytest.mark.parametrize("crash_on", ["after read", "submit under way", "returned"])
def test_a_killed_submit_names_what_it_leaves(task: SubmitTask, crash_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    operator = task.operator()
    monkeypatch.setattr(task, "operator", lambda: operator)
    task.attempt(crash_on=crash_on)
    monkeypatch.setattr(operator.log, "warning", lambda text, *values: said.append(text % values))
    operator.on_kill()
    [image_task] = task.harness.emulator.ledger()["image_tasks"] or [None]
    if crash_on == "after read":
        assert "Nothing was sent" in said[0]
    elif crash_on == "submit under way":
        assert image_task["client_business_id"] in said[0]
    else:
        assert image_task["id"] in said[0]


def test_r15_the_store_is_wiped(recorded: SubmitTask) -> None:
    bought = recorded.bought_by(crash_on="returned")
    recorded.lose_record()
    assert [recorded.attempt().result] == bought == recorded.charges


@pytest.mark.parametrize("kind", ["rate_limit", "server_error", "unauthorized"])
def test_r16_the_service_cannot_be_asked(task: SubmitTask, kind: str) -> None:
    task.attempt(crash_on="after submit")
    task.harness.emulator.fault(on="status", kind=kind)
    error = task.attempt().error
    assert isinstance(error, NanoBananaException)
    assert (error.charged, isinstance(error, AirflowFailException)) == ("unknown", kind == "unauthorized")
    assert "Nothing was sent now" in flat(error)
    task.harness.emulator.clear_faults()
    assert [task.attempt().result] == task.charges


def test_r17_the_record_cannot_be_read(recorded: SubmitTask, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.attempt(crash_on="after submit")
    bought = recorded.charges

    def down(key: str) -> None:
        raise ConnectionError("no api server")

    with monkeypatch.context() as patch:
        patch.setattr(recorded.store, "get", down)
        error = recorded.attempt().error
    assert isinstance(error, NanoBananaException)
    assert error.retryable
    assert "could not be read" in flat(error)
    assert [recorded.attempt().result] == bought == recorded.charges
