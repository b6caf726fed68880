"""Poller and shared_poller: many image tasks polled in virtual time."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections import Counter
from collections.abc import Sized
from typing import Any

import pytest

from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.polling import poller as poller_module
from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from airflow_provider_nanobanana.polling.poller import Poller
from airflow_provider_nanobanana.polling.result import WaitWindow
from airflow_provider_nanobanana.polling.schedule import PollQueue
from airflow_provider_nanobanana.polling.subscription import PollTarget, Subscription
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageTask
from tests.support.fresh_process import in_fresh_process
from tests.support.polled_service import (
    EPSILON,
    LOG,
    PollerHarness,
    ScriptedStatuses,
    run_subscription,
    shared,
    shared_harness,
    subscription,
    until,
    wait_for,
    wait_on,
)
from tests.support.responses import COMPLETED, FAILED, RUNNING
from tests.support.virtual_time import START, now, run


def test_it_polls_at_the_interval_until_the_end() -> None:
    service = ScriptedStatuses(default=until(26, RUNNING, COMPLETED))
    done = run_subscription(service, first=18.0)
    assert (done.outcome, done.error_code, done.statuses) == ("finished", None, {"t0": "completed"})
    moments = service.moments
    assert moments[0] == pytest.approx(18.0, abs=EPSILON) and len(moments) == 3
    assert all(4.5 <= late - early - service.latency <= 5.5 + EPSILON for early, late in itertools.pairwise(moments))


def test_a_failed_image_task_ends_its_own_watch_only() -> None:
    service = ScriptedStatuses({"a": lambda t, n: FAILED}, until(60, RUNNING, COMPLETED))
    assert run_subscription(service, ["a", "b"]).statuses == {"a": "failed", "b": "completed"}
    assert len(service.polls["a"]) == 1 < len(service.polls["b"])


def test_the_deadline_ends_it_on_time_and_nothing_is_asked_after_it() -> None:
    service = ScriptedStatuses({"a": lambda t, n: COMPLETED}, lambda t, n: RUNNING)
    done = run_subscription(service, ["a", "b", "c"], wait=60.0)
    assert (done.outcome, done.error_code) == ("timeout", None)
    assert done.statuses == {"a": "completed", "b": "in_progress", "c": "in_progress"}
    assert 50 < service.moments[-1] <= 60.0


@pytest.mark.parametrize("wait", [0.0, -5.0])
def test_a_deadline_in_the_past_is_a_timeout_without_a_poll(wait: float) -> None:
    service = ScriptedStatuses()
    assert (run_subscription(service, 20, wait=wait).outcome, service.moments) == ("timeout", [])
    assert run_subscription(service, [], wait=wait).outcome == "finished"


@pytest.mark.parametrize(("wait", "first"), [(10.0, 18.0), (30.0, 86_400.0)])
def test_nobody_runs_out_of_time_unlooked_at(wait: float, first: float) -> None:
    service = ScriptedStatuses(default=lambda t, n: RUNNING)
    assert run_subscription(service, 20, wait=wait, first=first).outcome == "timeout"
    assert {name: len(polls) for name, polls in service.polls.items()} == {f"t{n}": 1 for n in range(20)}
    assert wait - 2.1 <= service.moments[0] <= service.moments[-1] <= wait - service.latency


def test_a_slow_answer_does_not_carry_the_watch_beyond_the_deadline_of_others() -> None:
    service = ScriptedStatuses(default=lambda t, n: RUNNING)
    service.latency = 20.0

    async def ended_at() -> float:
        async with PollerHarness(service).polling() as poller:
            await wait_on(subscription(2, wait=30), poller)
            return now() - START

    assert run(ended_at()) == pytest.approx(30.0, abs=0.1)


class SlowForSome(ScriptedStatuses):
    """Answers about some image tasks come late."""

    async def poll(self, image_task_id: str, key: str = "") -> ImageTask:
        await asyncio.sleep(25.0 if image_task_id.startswith("slow") else 0.0)
        return await super().poll(image_task_id, key)


@pytest.mark.parametrize("slow", [0, 13])
def test_no_delay_depends_on_the_slow_answers_of_others(slow: int) -> None:
    """Thirteen calls are under way at once; as many as that may take their time."""
    service = SlowForSome(default=until(60, RUNNING, COMPLETED))
    watched: dict[str, float] = {}

    async def watch(name: str, poller: Poller) -> None:
        await wait_on(subscription([name]), poller)
        watched[name] = now() - START

    async def go() -> None:
        async with PollerHarness(service).polling() as poller:
            names = [*(f"slow{n}" for n in range(slow)), *(f"t{n}" for n in range(60))]
            await asyncio.gather(*(watch(name, poller) for name in names))
            assert poller._slow_calls == 0

    run(go())
    assert max(moment for name, moment in watched.items() if name.startswith("t")) < 67.0


def test_however_slow_all_answers_are_no_more_than_twice_as_many_calls_are_under_way() -> None:
    service = ScriptedStatuses(default=until(60, RUNNING, COMPLETED))
    service.latency = 20.0
    run_subscription(service, 100)
    assert service.most_in_flight == 26


def test_an_id_that_shows_up_late_is_not_lost() -> None:
    gone = errors.ImageTaskNotFound("no")
    service = ScriptedStatuses(default=lambda t, n: gone if t < 50 else RUNNING if t < 90 else COMPLETED)
    assert run_subscription(service).statuses == {"t0": "completed"}


def test_an_id_that_stays_unknown_ends_after_a_minute_and_holds_up_nobody() -> None:
    service = ScriptedStatuses({"a": lambda t, n: errors.ImageTaskNotFound("no")}, until(200, RUNNING, COMPLETED))
    done = run_subscription(service, ["a", "b"])
    assert (done.outcome, done.statuses["b"]) == ("finished", "completed")
    assert 59.0 <= service.polls["a"][-1] <= 67.0


@pytest.mark.parametrize(
    "error",
    [
        errors.TransientFailure("502"),
        errors.ConnectionFailed("dns"),
        errors.ServiceUnavailable("503"),
        errors.InsufficientCredits("429 with a text about credits"),
        errors.InvalidRequest("410"),
    ],
)
def test_a_hundred_bad_polls_lose_nothing(error: errors.ToApisError) -> None:
    service = ScriptedStatuses(default=lambda t, n: error if n < 100 else COMPLETED)
    assert run_subscription(service).statuses == {"t0": "completed"}


def test_an_answer_that_is_too_long_for_a_triggerer_is_the_worker_s() -> None:
    service = ScriptedStatuses({"a": lambda t, n: errors.ResponseTooLong("long")}, until(60, RUNNING, COMPLETED))
    done = run_subscription(service, ["a", "b"])
    assert (done.outcome, done.statuses) == ("finished", {"a": "not seen (ResponseTooLong)", "b": "completed"})
    assert len(service.polls["a"]) == 1 < len(service.polls["b"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.AuthenticationFailed("401", code="unauthorized"), "unauthorized"),
        (errors.PermissionRefused("403"), "PermissionRefused"),
        (errors.ConfigurationError("host"), "ConfigurationError"),
    ],
)
def test_a_key_that_is_refused_ends_it_within_a_few_polls(error: errors.ToApisError, code: str) -> None:
    service = ScriptedStatuses(default=lambda t, n: RUNNING if t < 60 else error)
    done = run_subscription(service, 1000)
    assert (done.outcome, done.error_code) == ("refused", code)
    assert sum(moment >= 60 for moment in service.moments) <= 20


@pytest.mark.parametrize("left", [1, 2])
def test_what_is_left_being_refused_ends_it(left: int) -> None:
    refused = errors.PermissionRefused("403")
    service = ScriptedStatuses({f"t{n}": lambda t, n: refused for n in range(left)})
    assert run_subscription(service, 40).outcome == "refused"
    assert {f"t{n}" for n in range(left, 40)} <= service.polls.keys()


def test_a_refusal_of_some_while_others_are_shown_ends_nothing() -> None:
    refused = errors.PermissionRefused("403")
    service = ScriptedStatuses({"a": lambda t, n: refused if t < 100 else COMPLETED}, until(200, RUNNING, COMPLETED))
    done = run_subscription(service, ["a", "b", "c"])
    assert (done.outcome, Counter(done.statuses.values())) == ("finished", {"completed": 3})


def test_a_429_silences_all_for_as_long_as_the_service_asks() -> None:
    limited = errors.RateLimited("429", retry_after=20.0)
    service = ScriptedStatuses({"t3": lambda t, n: limited if n == 1 else COMPLETED}, until(100, RUNNING, COMPLETED))
    assert run_subscription(service, 40, rate=5.0).outcome == "finished"
    heard = service.polls["t3"][0] + service.latency
    # Calls whose turn had come when the answer arrived are let go; those under way at most.
    early = [moment for moment in service.moments if heard < moment < heard + 20.0 - EPSILON]
    assert len(early) <= 13
    assert service.polls["t3"][1] >= heard + 20.0 - EPSILON


def test_a_429_halves_the_rate_and_it_recovers() -> None:
    service = ScriptedStatuses(default=lambda t, n: errors.RateLimited("429") if t < 2 else RUNNING)
    run_subscription(service, 1000, wait=120.0)
    seconds = Counter(int(moment) for moment in service.moments)
    assert 10 <= min(seconds[second] for second in range(4, 9)) <= max(seconds[second] for second in range(4, 9)) <= 30
    assert seconds[90] >= 48


@pytest.mark.parametrize("asked", [3600.0, 600.0])
def test_an_absurd_retry_after_is_obeyed_for_a_minute(asked: float) -> None:
    """``Retry-After`` is obeyed up to 60 s; otherwise one odd header turns paid images into a timeout."""
    limited = errors.RateLimited("429", retry_after=asked)
    service = ScriptedStatuses(default=lambda t, n: limited if n == 1 else COMPLETED)
    assert run_subscription(service, wait=600.0).outcome == "finished"
    assert 60.0 <= service.moments[1] <= 125.0


def test_a_thousand_image_tasks_share_the_rate_evenly() -> None:
    service = ScriptedStatuses(default=until(150, RUNNING, COMPLETED))
    done = run_subscription(service, 1000, rate=40.0)
    assert (done.outcome, Counter(done.statuses.values())) == ("finished", {"completed": 1000})
    assert service.most_in_flight <= 13
    moments = service.moments
    assert all(late - early >= 1 - EPSILON for early, late in zip(moments, moments[43:], strict=False))
    counts = [len(polls) for polls in service.polls.values()]
    assert max(counts) - min(counts) <= 4, "nobody starves"
    assert max(late - early for polls in service.polls.values() for early, late in itertools.pairwise(polls)) <= 40.0


def test_cancellation_passes_through_and_leaves_nothing_behind() -> None:
    service = ScriptedStatuses(default=lambda t, n: RUNNING)

    async def cancelled() -> float:
        async with PollerHarness(service).polling() as poller:
            task = asyncio.create_task(wait_on(subscription(50), poller))
            await asyncio.sleep(33)
            at = now() - START
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(poller) == 0
            await asyncio.sleep(60)
            return at

    assert run(cancelled()) >= service.moments[-1] and service.in_flight == 0


def test_a_bug_is_not_taken_for_an_outcome() -> None:
    service = ScriptedStatuses({"t3": lambda t, n: KeyError("a bug")}, lambda t, n: RUNNING)
    with pytest.raises(KeyError, match="a bug"):
        run_subscription(service, 5)


def test_the_log_tells_changes_and_not_polls(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOG.name)
    service = ScriptedStatuses(
        default=lambda t, n: {**RUNNING, "status": "queued"} if t < 20 else RUNNING if t < 130 else COMPLETED
    )
    run_subscription(service)
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("Image task t0")] == [
        "Image task t0: queued", "Image task t0: in_progress", "Image task t0: completed",
    ]  # fmt: skip
    assert {record.levelno for record in caplog.records if "Image task" in record.getMessage()} == {logging.DEBUG}
    assert "1 of 1 image tasks have ended." in lines
    assert len(lines) == 7 and sum("polls/s" in line for line in lines) == 3


def test_a_completed_answer_without_an_image_is_asked_again() -> None:
    body = {"status": "completed", "completed_at": START}
    service = ScriptedStatuses(default=lambda t, n: body if t < 60 else COMPLETED)
    assert run_subscription(service).statuses == {"t0": "completed"} and len(service.moments) > 10


@pytest.mark.parametrize(
    ("enough", "outcome", "ended"), [(1, "enough", 1), (3, "enough", 3), (5, "finished", 5), (9, "finished", 5)]
)
def test_a_part_can_be_enough(enough: int, outcome: str, ended: int) -> None:
    service = ScriptedStatuses({f"t{n}": until(20 + 30 * n, RUNNING, COMPLETED) for n in range(5)})
    done = run_subscription(service, 5, enough=enough)
    assert (done.outcome, Counter(done.statuses.values())["completed"]) == (outcome, ended)


def test_what_is_never_enough_times_out() -> None:
    assert run_subscription(ScriptedStatuses(default=lambda t, n: RUNNING), 5, wait=30, enough=2).outcome == "timeout"


# --- the shared poller -----------------------------------------------------------------------------------------------


REFUSED = errors.AuthenticationFailed("401", code="unauthorized")


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> PollerHarness:
    return shared_harness(monkeypatch, completed=60)


def test_a_thousand_watches_share_one_line_and_the_rate(harness: PollerHarness) -> None:
    async def go() -> list[Subscription]:
        return await asyncio.gather(*(wait_for(subscription([f"t{n}"])) for n in range(1000)))

    assert Counter(one.outcome for one in run(go())) == {"finished": 1000}
    assert (harness.connection_reads, len(harness.clients)) == (1, 1) and harness.clients[0].closed
    moments = harness.service.moments
    assert all(late - early >= 1 - 1e-3 for early, late in zip(moments, moments[53:], strict=False))


def test_the_last_to_leave_closes_it_and_the_next_opens_again(harness: PollerHarness) -> None:
    async def go() -> None:
        async with shared("nb") as one:
            async with shared("nb") as two, shared("other") as other:
                assert one is two is not other
            assert [client.closed for client in harness.clients] == [False, True]
        async with shared("nb") as three:
            assert three is not one

    run(go())
    assert [client.closed for client in harness.clients] == [True, True, True]


def test_an_image_task_of_two_watches_is_polled_once_at_the_shorter_interval(harness: PollerHarness) -> None:
    async def go() -> list[Subscription]:
        subscriptions = (
            subscription(["a"], interval=5),
            subscription(["a", "b"], interval=20),
            subscription(["a"], wait=31),
        )
        return await asyncio.gather(*map(wait_for, subscriptions))

    first, second, impatient = run(go())
    assert (first.outcome, second.outcome, impatient.outcome) == ("finished", "finished", "timeout")
    polls = harness.service.polls
    assert min(late - early for early, late in itertools.pairwise(polls["b"])) >= 18
    assert 10 <= len(polls["a"]) <= 15


@pytest.mark.parametrize("moment", [0.03, 0.1, 5.3, 33.0])
def test_one_that_is_cancelled_in_the_middle_of_a_poll_harms_no_other(harness: PollerHarness, moment: float) -> None:
    async def go() -> Subscription:
        victim = asyncio.create_task(wait_for(subscription(["a", "b"])))
        other = asyncio.create_task(wait_for(subscription(["b", "c"])))
        await asyncio.sleep(moment)
        victim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await victim
        return await other

    assert run(go()).statuses == {"b": "completed", "c": "completed"}
    assert all(poll <= moment for poll in harness.service.polls["a"])


def test_nobody_is_left_after_all_were_cancelled(harness: PollerHarness) -> None:
    async def go() -> None:
        tasks = [asyncio.create_task(wait_for(subscription(3))) for _ in range(50)]
        await asyncio.sleep(7.1)
        for task in tasks:
            task.cancel()
        assert {type(ended) for ended in await asyncio.gather(*tasks, return_exceptions=True)} == {
            asyncio.CancelledError
        }

    run(go())  # which checks that no task is left running
    assert harness.service.in_flight == 0 and all(client.closed for client in harness.clients)


def test_a_connection_that_cannot_be_read_is_everybodys_error_and_no_poller_is_left(harness: PollerHarness) -> None:
    broken = NanoBananaFailException(errors.ConfigurationError("no key"))

    async def read(nanobanana_conn_id: str) -> Any:
        raise broken

    async def go() -> list[Any]:
        harness.read = read  # type: ignore[method-assign]
        ended = await asyncio.gather(*(wait_for(subscription(1)) for _ in range(3)), return_exceptions=True)
        del harness.read
        return [*ended, await wait_for(subscription(1))]

    *ended, later = run(go())
    assert ended == [broken] * 3 and later.outcome == "finished"


def test_a_bug_in_a_poll_ends_those_who_wait_for_that_image_task_and_nobody_else(harness: PollerHarness) -> None:
    """An answer that we stumble over must not take a thousand other waits with it, again after each retry."""
    harness.service.scripts["bad"] = lambda t, n: KeyError("a bug")

    async def go() -> list[Any]:
        waiting = subscription(["bad"]), subscription(["good"]), subscription(["bad", "good"])
        first = await asyncio.gather(*map(wait_for, waiting), return_exceptions=True)
        harness.service.scripts.clear()
        return [*first, await wait_for(subscription(["bad"]))]

    bad, good, both, later = run(go())
    assert [type(error) for error in (bad, both)] == [KeyError, KeyError]
    assert (good.statuses, later.statuses) == ({"good": "completed"}, {"bad": "completed"})


def test_a_bug_of_the_poller_ends_all_who_wait_and_nobody_who_comes_later(
    harness: PollerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = PollQueue.pop_due

    def buggy(queue: PollQueue, at: float, rate: float) -> Any:
        if 0.5 < now() - START < 0.8:
            raise KeyError("a bug")
        return take(queue, at, rate)

    monkeypatch.setattr(PollQueue, "pop_due", buggy)

    async def go() -> list[Any]:
        waiting = [asyncio.create_task(wait_for(subscription([name], first=0.7))) for name in ("one", "two")]
        await asyncio.sleep(1)
        later = asyncio.create_task(wait_for(subscription(["other"])))
        return [*await asyncio.gather(*waiting, return_exceptions=True), await later]

    *ended, later = run(go())
    assert [type(error) for error in ended] == [KeyError, KeyError] and later.outcome == "finished"
    assert all(client.closed for client in harness.clients)


# --- the key ----------------------------------------------------------------------------------------------------------


def keyed(service: ScriptedStatuses, good: str, since: float) -> None:
    """Refuse every other key from a moment on."""
    service.default = lambda t, n: (
        REFUSED if t >= since and service.keys[-1] != good else until(200, RUNNING, COMPLETED)(t, n)
    )


def test_a_rotated_key_is_read_once_and_nobody_notices(harness: PollerHarness) -> None:
    keyed(harness.service, "sk-2", since=20)
    harness.service.latency = 0.0

    async def go() -> list[Subscription]:
        async def rotate() -> None:
            await asyncio.sleep(19)
            harness.key = "sk-2"

        subscriptions, _ = await asyncio.gather(
            asyncio.gather(*(wait_for(subscription([f"t{n}"])) for n in range(100))), rotate()
        )
        return list(subscriptions)

    assert {(one.outcome, one.statuses[one.targets[0].id]) for one in run(go())} == {("finished", "completed")}
    assert (harness.connection_reads, [client.settings.api_key.get_secret_value() for client in harness.clients]) == (
        2,
        ["sk-1", "sk-2"],
    )


def test_a_refused_key_that_the_connection_still_holds_is_final_after_one_reading_of_it(harness: PollerHarness) -> None:
    keyed(harness.service, "sk-2", since=20)

    async def go() -> list[Subscription]:
        return await asyncio.gather(*(wait_for(subscription([f"t{n}"])) for n in range(100)))

    assert {(one.outcome, one.error_code) for one in run(go())} == {("refused", "unauthorized")}
    assert (harness.connection_reads, len(harness.clients)) == (2, 1)


def test_the_connection_is_read_again_every_few_minutes_and_its_rate_followed(harness: PollerHarness) -> None:
    harness.service.default = until(800, RUNNING, COMPLETED)

    async def go() -> None:
        waiting = asyncio.create_task(wait_for(subscription(20)))
        await asyncio.sleep(250)
        harness.rate = 0.5
        await waiting

    run(go())
    assert 3 <= harness.connection_reads <= 4 and len(harness.clients) == 2
    seconds = Counter(int(moment) for moment in harness.service.moments)
    assert (
        sum(seconds[second] for second in range(100, 200)) >= 370
        and sum(seconds[second] for second in range(330, 700)) <= 190
    )


def test_a_connection_that_vanishes_meanwhile_stops_nobody(harness: PollerHarness) -> None:
    harness.service.default = until(400, RUNNING, COMPLETED)

    async def vanished(nanobanana_conn_id: str) -> Any:
        raise NanoBananaFailException(errors.ConfigurationError("gone"))

    async def go() -> Subscription:
        waiting = asyncio.create_task(wait_for(subscription(1)))
        await asyncio.sleep(10)
        harness.read = vanished  # type: ignore[method-assign]
        return await waiting

    assert run(go()).statuses == {"t0": "completed"}


# --- when -------------------------------------------------------------------------------------------------------------


def test_polling_begins_near_the_expected_result_and_learns(harness: PollerHarness) -> None:
    """The service takes 60 s by now; after some dozens of images nobody asks after 17 s any more."""
    born: dict[str, float] = {}

    def answer(image_task_id: str) -> Any:
        def script(t: float, n: int) -> dict[str, Any]:
            times = {"created_at": born[image_task_id], "completed_at": born[image_task_id] + 60.0}
            return {**RUNNING, **times} if START + t < times["completed_at"] else {**COMPLETED, **times}

        return script

    async def one(name: str) -> None:
        born[name] = now()
        harness.service.scripts[name] = answer(name)
        await wait_for(
            Subscription(
                [PollTarget(name, now(), "m")], wait=WaitWindow(now(), now() + 900), interval=5, log=LOG, now=now
            )
        )

    async def go() -> None:
        async with shared("nb"):
            for number in range(60):
                await one(f"t{number}")

    run(go())
    ages = [harness.service.polls[name][0] + START - born[name] for name in born]
    assert ages[0] == pytest.approx(LatencyEstimator().first_poll_age("m"), abs=1)
    assert ages[-1] == pytest.approx(60, abs=1)
    assert len(harness.service.polls["t59"]) <= 2 < len(harness.service.polls["t0"])


@pytest.mark.parametrize(
    ("created_at", "first"), [(START - 1000, 0.0), (START + 5000, 18.1), (None, 0.0), (START, 18.1)]
)
def test_a_clock_that_runs_ahead_postpones_nothing(
    harness: PollerHarness, created_at: float | None, first: float
) -> None:
    one = Subscription([PollTarget("a", created_at)], wait=WaitWindow(START, START + 900), interval=5, log=LOG, now=now)
    run(wait_for(one))
    assert harness.service.moments[0] == pytest.approx(first, abs=1)


def test_a_failed_image_task_teaches_no_latency(harness: PollerHarness) -> None:
    harness.service.default = lambda t, n: {**FAILED, "created_at": START, "completed_at": START + 1}

    async def go() -> float:
        async with shared("nb") as poller:
            await wait_on(subscription(300), poller)
            return poller._latencies.first_poll_age("")

    assert run(go()) == LatencyEstimator().first_poll_age("")


# --- defects found in review, one test each --------------------------------------------------------------------------


NEVER = START + 1e9


@pytest.fixture
def slow_harness(monkeypatch: pytest.MonkeyPatch) -> PollerHarness:
    return shared_harness(monkeypatch, completed=400)


# --- who ends with whom -----------------------------------------------------------------------------------------------


def test_whoever_comes_in_after_a_bug_does_not_wait_for_nothing(slow_harness: PollerHarness) -> None:
    """The bug comes while the newcomer stands at the door: the connection is being read at that moment."""

    async def go() -> list[Any]:
        async with shared("nb") as poller:
            newcomer = subscription(["late"])
            poller.bug = KeyError("a bug")
            return list(
                await asyncio.gather(
                    wait_on(newcomer, poller), wait_for(subscription(["later"])), return_exceptions=True
                )
            )

    came_in, later = run(go())
    assert isinstance(came_in, KeyError) and later.outcome == "finished"


def test_a_trigger_cancelled_while_it_closes_the_poller_leaves_nothing_open(slow_harness: PollerHarness) -> None:
    async def go() -> None:
        release = asyncio.Event()

        async def slow_poll(*args: Any) -> Any:
            try:
                await asyncio.sleep(1000)
            finally:
                await release.wait()  # a connection that is slow to close

        slow_harness.service.poll = slow_poll  # type: ignore[assignment,method-assign]
        trigger = asyncio.create_task(wait_for(subscription(1)))
        await asyncio.sleep(5)
        trigger.cancel()
        await asyncio.sleep(5)
        trigger.cancel()
        await asyncio.gather(trigger, return_exceptions=True)
        release.set()
        await asyncio.sleep(1)

    run(go())
    assert all(client.closed for client in slow_harness.clients)


def test_a_line_that_ends_badly_loses_nothing(slow_harness: PollerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> Subscription:
        waiting = asyncio.create_task(wait_for(subscription(1)))
        await asyncio.sleep(1)

        async def aclose() -> None:
            slow_harness.clients[0].closed = True
            raise OSError("broken pipe")

        slow_harness.clients[0].aclose = aclose  # type: ignore[method-assign]
        return await waiting

    assert run(go()).statuses == {"t0": "completed"}


def test_facts_of_a_foreign_version_leave_no_ghost(slow_harness: PollerHarness) -> None:
    foreign: Any = "2026-11-22"  # a version that wrote dates as text
    broken = Subscription(
        [PollTarget("a"), PollTarget("b", foreign)], wait=WaitWindow(START, NEVER), interval=5, log=LOG, now=now
    )

    async def go() -> int:
        async with shared("nb") as poller:
            with pytest.raises(TypeError):
                await wait_on(broken, poller)
            return len(poller)

    assert run(go()) == 0


# --- when -------------------------------------------------------------------------------------------------------------


def test_a_newcomer_does_not_wait_for_the_poll_of_a_slower_subscription(slow_harness: PollerHarness) -> None:
    async def go() -> Subscription:
        slow = asyncio.create_task(wait_for(subscription(["a"], interval=3600, wait=9000)))
        await asyncio.sleep(10)
        quick = await wait_for(subscription(["a"], interval=5))
        slow.cancel()
        return quick

    assert run(go()).outcome == "finished"
    assert len(slow_harness.service.polls["a"]) >= 70


def test_what_was_learnt_outlives_a_wait(slow_harness: PollerHarness) -> None:
    """With one wait at a time the poller ends after each."""
    slow_harness.service.default = lambda t, n: {**COMPLETED, "created_at": START, "completed_at": START + 70.0}

    async def go() -> float:
        for number in range(250):
            await wait_for(subscription([f"t{number}"]))
        async with shared("nb") as poller:
            return poller._latencies.first_poll_age("")

    assert run(go()) == pytest.approx(70.0) != LatencyEstimator().first_poll_age("")


# --- a day ------------------------------------------------------------------------------------------------------------


def sizes(poller: Poller) -> dict[str, int]:
    """Return how many entries everything has that a poller could let grow."""
    found = {name: len(value) for name, value in vars(poller).items() if isinstance(value, (dict, set, list))}
    queue = {f"queue.{name}": len(value) for name, value in vars(poller._queue).items() if isinstance(value, Sized)}
    client = vars(poller._client)
    clients = {f"client.{name}": len(value) for name, value in client.items() if isinstance(value, (dict, set, list))}
    samples = {"kinds": len(poller._latencies._samples), "observed": sum(map(len, poller._latencies._samples.values()))}
    return found | queue | clients | samples


@in_fresh_process
def test_after_a_day_of_short_waits_nothing_is_larger_than_after_an_hour(harness: PollerHarness) -> None:
    """One wait of a week keeps the poller open; another comes every 40 s, each of a kind of its own."""
    logging.disable(logging.CRITICAL)  # pytest keeps what is logged
    answer = {**COMPLETED, "created_at": START, "completed_at": START + 30.0}
    harness.service.default = lambda t, n: answer if n > 1 else RUNNING
    harness.service.scripts["week"] = lambda t, n: RUNNING
    seen: list[dict[str, int]] = []
    objects: list[int] = []

    async def short(number: int, poller: Poller) -> None:
        target = PollTarget(f"t{number}", created_at=now(), latency_key=f"kind-{number}")
        wait = WaitWindow(now(), now() + 604_800.0)
        one = Subscription([target], wait=wait, interval=5.0, log=LOG, now=now)
        await wait_on(one, poller)
        harness.service.polls.pop(target.id)  # what the double keeps is not what is looked at

    async def go() -> None:
        async with shared() as poller:
            week = asyncio.create_task(wait_on(subscription(["week"], wait=604_800, interval=3600), poller))
            waits: set[asyncio.Task[None]] = set()
            for number in range(24 * 90):
                waits.add(task := asyncio.create_task(short(number, poller)))
                task.add_done_callback(waits.discard)
                await asyncio.sleep(40)
                if number % 90 == 89:
                    gc.collect()
                    seen.append(sizes(poller))
                    objects.append(len(gc.get_objects()))
                    harness.service.keys.clear()
            week.cancel()
            await asyncio.gather(week, *waits, return_exceptions=True)

    try:
        run(go())
    finally:
        logging.disable(logging.NOTSET)
    # Both heaps are tidied up from 1,000 stale entries on.
    assert all(size <= max(2 * seen[0][name], 2200) for one in seen for name, size in one.items())
    assert all(one["_subscriptions"] < 20 and one["kinds"] == 64 for one in seen)
    # Not in proportion to all that pytest holds: a leak of one object a wait would be a thousand.
    assert objects[-1] - objects[11] < 0.1 * 12 * 90


def test_a_connection_that_was_never_of_use_leaves_nothing_behind(harness: PollerHarness) -> None:
    async def unreadable(nanobanana_conn_id: str) -> Any:
        raise NanoBananaFailException(errors.ConfigurationError("no such connection"))

    async def go() -> int:
        harness.read = unreadable  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(NanoBananaFailException):
                await wait_for(subscription(1))
        return len(poller_module._latencies[asyncio.get_running_loop()])

    assert run(go()) == 0
