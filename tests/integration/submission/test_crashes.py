"""Rows of docs/durability.md: what a crash leaves behind, and what the next attempt makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from tests.integration.submission.harness import Story
from tests.support.task_runner import TaskInstance, attempt


def test_r01_before_the_post(story: Story) -> None:
    start = story.stage.clock.now
    story.attempt(crash_on="before submit")
    assert story.state == ("intent" if story.store else None)
    assert story.charges == []
    assert [story.attempt().result] == story.charges
    assert story.seconds(start) >= 90, "nothing seen is believed only when the POST could not be seen any more"


def test_r02_before_the_intent(recorded: Story) -> None:
    start = recorded.stage.clock.now
    recorded.attempt(crash_on="after write")
    assert recorded.state == "queued"
    assert [recorded.attempt().result] == recorded.charges
    assert recorded.seconds(start) == 0, "the record vouches that nothing was sent"


@pytest.mark.parametrize("late", [0, 30])
def test_r03_between_post_and_answer(story: Story, late: int) -> None:
    story.stage.tape.late = late
    story.stage.emulator.configure(lookup_delay=30)
    story.attempt(crash_on="submit under way")
    assert story.state == ("intent" if story.store else None)
    assert [story.attempt().result] == story.charges


def test_r04_after_the_answer_before_the_record(story: Story) -> None:
    story.attempt(crash_on="after submit")
    assert story.state == ("intent" if story.store else None)
    bought = story.charges
    assert [story.attempt().result] == bought == story.charges


def test_r05_after_the_record(story: Story) -> None:
    story.attempt(crash_on="after write", occurrence=3)
    assert story.state == ("submitted" if story.store else None)
    bought = story.charges
    assert [story.attempt().result] == bought == story.charges


def test_r06_after_execute_returned(story: Story) -> None:
    story.attempt(crash_on="returned")
    assert story.state == ("done" if story.store else None)
    bought = story.charges
    assert [story.attempt().result] == bought == story.charges


@pytest.mark.parametrize("committed", [True, False])
def test_r07_the_answer_is_lost_and_the_attempt_lives(story: Story, committed: bool) -> None:
    story.stage.emulator.fault(on="submit", kind="drop", times=1, committed=committed)
    assert [story.attempt().result] == story.charges
    assert story.accepted == 1


def test_r08_two_live_attempts(recorded: Story) -> None:
    """A scheduler that takes an attempt for dead starts another while the first is in its POST."""
    clock = recorded.stage.clock
    second: list[str] = []
    sleep = clock.sleep
    recorded.stage.emulator.fault(on="submit", kind="drop", times=1, committed=True)

    def meanwhile(seconds: float) -> None:
        if not second:
            second.append("under way")
            second.append(recorded.attempt().result)
        sleep(seconds)

    recorded.stage.emulator.configure(lookup_delay=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "sleep", meanwhile)
        patch.setattr("airflow_provider_nanobanana.hooks.nanobanana.NanoBananaHook.sleep", staticmethod(meanwhile))
        first = recorded.attempt()
    assert [first.result] == second[1:] == recorded.charges


def test_r10_a_queued_submit_is_killed(story: Story) -> None:
    story.stage.emulator.fault(on="submit", kind="rate_limit", retry_after=40, times=1)
    story.options = {"timeout": 0}
    assert story.attempt().error is not None
    assert story.state == ("queued" if story.store else None)
    story.stage.clock.sleep(40)  # as the service asked
    start = story.stage.clock.now
    assert [story.attempt().result] == story.charges
    assert (story.seconds(start) == 0) == (story.store is not None), "only a record knows that nothing was sent"


def test_r11_an_event_of_another_job(story: Story) -> None:
    operator = NanoBananaSubmitOperator(task_id="submit", prompt="a red kite", retries=3)
    ti = TaskInstance(task_id="submit", max_tries=3, store=story.store)
    context = {"ti": ti} | ({"task_state_store": story.store} if story.store else {})
    leaked = {"ticket": "dag/run/another/-1/1", "deadline": 0.0, "image_task_id": "tsk_of_another"}
    assert [operator.execute_queued(context, leaked)] == story.charges  # type: ignore[arg-type]


def test_r12_during_the_download(story: Story, tmp_path: Path) -> None:
    bought = story.attempt().result
    images = attempt(NanoBananaSensor(task_id="wait", image_task_ids=bought)).result
    download = NanoBananaDownloadOperator(task_id="land", images=images, destination=str(tmp_path))
    story.stage.emulator.fault(on="result", kind="drop_mid_body")
    assert isinstance(attempt(download).error, NanoBananaException)
    story.stage.emulator.clear_faults()
    [landed] = attempt(download).result
    assert landed["id"] == bought
    assert story.charges == [bought]


def test_r13_the_wait_times_out(story: Story) -> None:
    story.stage.emulator.configure(latency=1e6)
    bought = story.attempt().result
    late = attempt(NanoBananaSensor(task_id="wait", image_task_ids=bought, timeout=0))
    assert bought in str(late.error)
    story.stage.emulator.complete_all()
    [image] = attempt(NanoBananaSensor(task_id="wait", image_task_ids=bought)).result
    assert (image["status"], story.charges) == ("completed", [bought])


def test_r14_killed_by_hand(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    story.attempt(crash_on="after submit")
    operator = story.operator()
    monkeypatch.setattr(operator.log, "warning", lambda text, *_: said.append(text))
    operator.on_kill()
    assert "stays paid" in said[0]
    story.clear()
    assert [story.attempt().result] == story.charges


@pytest.mark.parametrize("crash_on", ["after read", "submit under way", "returned"])
def test_a_killed_submit_names_what_it_leaves(story: Story, crash_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    operator = story.operator()
    monkeypatch.setattr(story, "operator", lambda: operator)
    story.attempt(crash_on=crash_on)
    monkeypatch.setattr(operator.log, "warning", lambda text, *values: said.append(text % values))
    operator.on_kill()
    [image_task] = story.stage.emulator.ledger()["image_tasks"] or [None]
    if crash_on == "after read":
        assert "Nothing was sent" in said[0]
    elif crash_on == "submit under way":
        assert image_task["client_business_id"] in said[0]
    else:
        assert image_task["id"] in said[0]


def test_r15_the_store_is_wiped(recorded: Story) -> None:
    bought = recorded.bought_by(crash_on="returned")
    recorded.wipe()
    assert [recorded.attempt().result] == bought == recorded.charges


@pytest.mark.parametrize("kind", ["rate_limit", "server_error", "unauthorized"])
def test_r16_the_service_cannot_be_asked(story: Story, kind: str) -> None:
    story.attempt(crash_on="after submit")
    story.stage.emulator.fault(on="status", kind=kind)
    error = story.attempt().error
    assert isinstance(error, NanoBananaException)
    assert (error.charged, isinstance(error, AirflowFailException)) == ("unknown", kind == "unauthorized")
    assert "Nothing was sent now" in str(error)
    story.stage.emulator.clear_faults()
    assert [story.attempt().result] == story.charges


def test_r17_the_record_cannot_be_read(recorded: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.attempt(crash_on="after submit")
    bought = recorded.charges

    def down(key: str) -> None:
        raise ConnectionError("no api server")

    with monkeypatch.context() as patch:
        patch.setattr(recorded.store, "get", down)
        error = recorded.attempt().error
    assert isinstance(error, NanoBananaException)
    assert error.retryable
    assert "could not be read" in str(error)
    assert [recorded.attempt().result] == bought == recorded.charges
