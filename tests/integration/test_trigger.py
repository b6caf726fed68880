"""The trigger on a real event loop: it comes back as it was stored, survives a restart, and never holds the loop."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaSensorTimeout
from airflow_provider_nanobanana.polling.result import PollResult
from airflow_provider_nanobanana.polling.subscription import TOO_LONG
from airflow_provider_nanobanana.stored_forms import WAIT
from airflow_provider_nanobanana.triggers import newer_wait
from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger
from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger
from tests.support.responses import image_task
from tests.support.task_runner import fire, rebuilt, resume, sensor

Buy = Callable[..., str]


def trigger(*ids: str, **options: Any) -> NanoBananaTrigger:
    now = time.time()
    return NanoBananaTrigger(
        image_task_ids=list(ids), **{"started_at": now, "deadline": now + 20, "poll_interval": 0.05, **options}
    )


@pytest.mark.parametrize(
    "stored",
    [
        NanoBananaTrigger(
            image_task_ids=["a", "b"],
            started_at=1.0,
            deadline=2.0,
            created_at=[1.5, None],
            kinds=["m", ""],
            not_before=3.0,
        ),
        NanoBananaTrigger(image_task_ids=["a"], nanobanana_conn_id="other", poll_interval=9.0),
        NanoBananaTimerTrigger(moment=1.0, deadline=2.0),
    ],
)
def test_it_comes_back_equal(stored: Any) -> None:
    assert rebuilt(stored).serialize() == stored.serialize()
    assert rebuilt(stored).__dict__.keys() == stored.__dict__.keys()


@pytest.mark.parametrize("cls", [NanoBananaTrigger, NanoBananaTimerTrigger])
def test_arguments_of_a_newer_version_do_not_stop_an_older_triggerer(cls: Any) -> None:
    known = {"image_task_ids": ["a"]} if cls is NanoBananaTrigger else {"moment": 1.0, "deadline": 2.0}
    path, kwargs = cls(**known, from_the_future=True).serialize()
    assert (path, kwargs) == (path, {**cls(**known).serialize()[1], "from_the_future": True}), "the newer one is next"


def test_it_holds_no_secret(emulator: Emulator) -> None:
    assert emulator.api_key not in json.dumps(trigger("a").serialize())


async def test_one_small_event_then_the_end(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=0.2)
    ids = [buy(f"picture {number}") for number in range(60)]
    events = [event async for event in trigger(*ids).run()]
    assert len(events) == 1
    assert events[0].payload["counts"] == {"completed": 60}
    assert len(json.dumps(events[0].payload)) < 4096
    assert "http" not in json.dumps(events[0].payload)


@pytest.mark.parametrize("name", ["tsk_{:020d}", "\U0001f34c" * 60 + "{}", "\ud800{}", "x" * 5000 + "{}", 'a"\n{}'])
def test_the_event_is_small_whatever_ids_and_statuses_look_like(name: str) -> None:
    trigger_of_many = trigger(*(name.format(number) for number in range(2000)))
    subscription = trigger_of_many._subscription()
    for number, target in enumerate(subscription.targets):
        word = f"\x1b[31m place {number} of 9\n[2026] ERROR"
        subscription.notify(PollResult(target.id, image_task=image_task(status=word, result=None)))
    event = trigger_of_many._event(subscription)
    assert len(json.dumps(event)) < 4096
    assert event["counts"] == {"running": 2000}


def test_no_word_of_the_service_makes_a_line_of_its_own_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    subscription = trigger("tsk_1\n2026 ERROR forged", deadline=time.time() + 900)._subscription()
    subscription._log = logging.getLogger("words")
    caplog.set_level(logging.DEBUG, "words")
    for word in ("queued", "place 9 of 9\nforged", "place 8 of 9\x1b[31m", "RUNNING"):
        subscription.notify(PollResult("tsk_1\n2026 ERROR forged", image_task=image_task(status=word, result=None)))
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert [line.rpartition(": ")[2] for line in lines] == ["queued", "running", "RUNNING"]
    assert not any("\n" in line or "\x1b" in line for line in lines)


async def test_it_is_stopped_and_started_again(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=3600)
    stored = trigger(buy())
    running = asyncio.ensure_future(fire(stored))
    while not any("generations/" in request["path"] for request in emulator.requests()):
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    emulator.complete_all()
    event = await fire(stored)
    assert event["counts"] == {"completed": 1}
    assert event["deadline"] == stored.deadline, "a restart does not move the deadline"


async def test_a_deadline_in_the_past_ends_at_once_without_a_poll(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=60)
    image_task_id = buy()
    before = len(emulator.requests())
    event = await fire(trigger(image_task_id, started_at=1.0, deadline=2.0))
    assert (event["outcome"], event["counts"]) == ("timeout", {"unseen": 1})
    assert len(emulator.requests()) == before


async def test_a_slow_server_does_not_hold_the_event_loop(emulator: Emulator, buy: Buy) -> None:
    """A blocking call would show as one gap of a second; measured gaps are a few milliseconds."""
    image_task_id = buy()
    await fire(trigger(image_task_id))  # imports and the TLS context are a process's own, not a trigger's
    emulator.fault(on="status", kind="slow", seconds=1.0, times=1)
    gaps: list[float] = []

    async def heartbeat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(time.perf_counter() - before - 0.005)

    beating = asyncio.ensure_future(heartbeat())
    event = await fire(trigger(image_task_id))
    beating.cancel()
    assert event["counts"] == {"completed": 1}
    assert len(gaps) > 50
    assert max(gaps) < 0.5


async def test_two_triggers_for_one_image_task_both_end(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=0.2)
    image_task_id = buy()
    events = await asyncio.gather(fire(trigger(image_task_id)), fire(trigger(image_task_id)))
    assert [event["counts"] for event in events] == [{"completed": 1}] * 2


async def test_polling_keeps_to_the_query_rate(emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.configure(latency=60, query_rate=0)
    ids = [buy(f"picture {number}") for number in range(30)]
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json(query_rate=20))
    before = len(emulator.requests())
    now = time.time()
    await fire(trigger(*ids, deadline=now + 1.0, poll_interval=0.01))
    polls = len(emulator.requests()) - before
    assert 10 <= polls <= 21


@pytest.mark.parametrize(("counts", "pause"), [({TOO_LONG: 1}, 60.0), ({"completed": 1}, 5.0)])
def test_a_running_image_task_with_long_answers_wakes_a_worker_once_a_minute(
    emulator: Emulator, buy: Buy, counts: dict[str, int], pause: float
) -> None:
    """The worker can read the answer, but it does not hold the image yet."""
    emulator.configure(latency=600)
    image_task_id, before = buy(), time.time()
    event = {"started_at": before, "deadline": before + 900, "counts": counts}
    run = resume(sensor(image_task_id, poke_interval=5), event={"version": 1, "outcome": "finished", **event})
    (deferral,) = run.deferrals
    assert 0 <= deferral.trigger.not_before - before - pause < 4.0


def test_the_timeout_holds_while_the_triggerer_knows_an_older_wait_only(
    emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.configure(latency=600)
    monkeypatch.setattr(newer_wait, "PAUSE_AFTER_NOTHING_SECONDS", 0.0)
    image_task_id, now = buy(), time.time()
    for deadline, ended in ((now + 900, False), (now - 1, True)):
        newer = trigger(image_task_id, version=WAIT.version + 1, started_at=now - 10, deadline=deadline)
        run = resume(sensor(image_task_id, timeout=900), event=asyncio.run(fire(newer)))
        assert isinstance(run.error, NanoBananaSensorTimeout) == ended
        assert [deferral.trigger.deadline for deferral in run.deferrals] == ([] if ended else [deadline])
