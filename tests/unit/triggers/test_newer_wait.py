"""A wait that a later release has stored: the triggerer starts, and wakes the worker after a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_nanobanana.stored_forms import WAIT
from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger
from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger

NEWER = WAIT.version + 1


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("airflow_provider_nanobanana.triggers.newer_wait.asyncio.sleep", sleep)
    return waits


def fire(trigger: Any) -> dict[str, Any]:
    async def first() -> Any:
        async for event in trigger.run():
            return event.payload

    payload: dict[str, Any] = asyncio.run(first())
    return payload


def test_polling_of_a_newer_kind_wakes_the_worker_after_a_minute(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    trigger = NanoBananaTrigger(version=NEWER, targets={"tsk_1": {}}, until="done")
    assert fire(trigger) == {"version": WAIT.version}
    assert slept == [60.0], "a worker that cannot make anything of it either is not woken again at once"
    assert "newer version" in caplog.text


def test_polling_of_a_newer_kind_brings_back_since_when_and_until_when(slept: list[float]) -> None:
    """Otherwise a sensor's timeout would begin anew with each minute."""
    known: dict[str, Any] = {"started_at": 5.0, "deadline": 905.0}
    assert fire(NanoBananaTrigger(version=NEWER, targets={}, **known)) == {"version": WAIT.version, **known}


def test_a_timer_of_a_newer_kind_brings_back_whose_it_is(slept: list[float]) -> None:
    known: dict[str, Any] = {"ticket": "dag/run/submit/-1/1", "deadline": 5.0}
    assert fire(NanoBananaTimerTrigger(version=NEWER, at={"epoch": 9}, **known)) == {"version": WAIT.version, **known}
    assert fire(NanoBananaTimerTrigger(version=NEWER)) == {"version": WAIT.version, "ticket": ""}
    assert slept == [60.0, 60.0]


@pytest.mark.parametrize(
    "trigger",
    [
        NanoBananaTrigger(image_task_ids=["tsk_1"], batch_size=100),
        NanoBananaTimerTrigger(moment=1.0, deadline=2.0, jitter=3.0),
        NanoBananaTrigger(version=NEWER, targets=["tsk_1"]),
    ],
)
def test_what_is_not_known_stays_when_the_trigger_is_stored_again(trigger: Any) -> None:
    """Airflow stores what a trigger says of itself, and the next triggerer may be the newer one."""
    kwargs = trigger.serialize()[1]
    assert {"batch_size", "jitter", "targets"} & kwargs.keys()
    assert type(trigger)(**kwargs).serialize() == trigger.serialize()


def test_what_an_earlier_release_stored_still_starts(slept: list[float]) -> None:
    """Without a version, as before there was one."""
    assert fire(NanoBananaTimerTrigger(moment=0.0, deadline=7.0, ticket="t")) == {
        "version": WAIT.version,
        "deadline": 7.0,
        "ticket": "t",
    }
