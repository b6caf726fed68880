"""The watch over many image tasks, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter

import pytest

from airflow_provider_nanobanana.toapis import errors
from tests.support.polled_service import EPSILON, LOG, Service, World, follow, made, until, watch
from tests.support.responses import COMPLETED, FAILED, RUNNING
from tests.support.virtual_time import START, now, run


def test_it_polls_at_the_interval_until_the_end() -> None:
    service = Service(default=until(26, RUNNING, COMPLETED))
    done = watch(service, first=18.0)
    assert (done.outcome, done.error_code, done.statuses) == ("finished", None, {"t0": "completed"})
    moments = service.moments
    assert moments[0] == pytest.approx(18.0, abs=EPSILON) and len(moments) == 3
    assert all(4.5 <= late - early - service.latency <= 5.5 + EPSILON for early, late in itertools.pairwise(moments))


def test_a_failed_image_task_ends_its_own_watch_only() -> None:
    service = Service({"a": lambda t, n: FAILED}, until(60, RUNNING, COMPLETED))
    assert watch(service, ["a", "b"]).statuses == {"a": "failed", "b": "completed"}
    assert len(service.polls["a"]) == 1 < len(service.polls["b"])


def test_the_deadline_ends_it_on_time_and_nothing_is_asked_after_it() -> None:
    service = Service({"a": lambda t, n: COMPLETED}, lambda t, n: RUNNING)
    done = watch(service, ["a", "b", "c"], wait=60.0)
    assert (done.outcome, done.error_code) == ("timeout", None)
    assert done.statuses == {"a": "completed", "b": "in_progress", "c": "in_progress"}
    assert 50 < service.moments[-1] <= 60.0


@pytest.mark.parametrize("wait", [0.0, -5.0])
def test_a_deadline_in_the_past_is_a_timeout_without_a_poll(wait: float) -> None:
    service = Service()
    assert (watch(service, 20, wait=wait).outcome, service.moments) == ("timeout", [])
    assert watch(service, [], wait=wait).outcome == "finished"


@pytest.mark.parametrize(("wait", "first"), [(10.0, 18.0), (30.0, 86_400.0)])
def test_nobody_runs_out_of_time_unlooked_at(wait: float, first: float) -> None:
    service = Service(default=lambda t, n: RUNNING)
    assert watch(service, 20, wait=wait, first=first).outcome == "timeout"
    assert {name: len(polls) for name, polls in service.polls.items()} == {f"t{n}": 1 for n in range(20)}
    assert wait - 2.1 <= service.moments[0] <= service.moments[-1] <= wait - service.latency


def test_a_slow_answer_does_not_carry_the_watch_beyond_the_deadline_of_others() -> None:
    service = Service(default=lambda t, n: RUNNING)
    service.latency = 20.0

    async def ended_at() -> float:
        async with World(service).polling() as poller:
            await follow(made(2, wait=30), poller)
            return now() - START

    assert run(ended_at()) == pytest.approx(30.0, abs=0.1)


def test_an_id_that_shows_up_late_is_not_lost() -> None:
    gone = errors.ImageTaskNotFound("no")
    service = Service(default=lambda t, n: gone if t < 50 else RUNNING if t < 90 else COMPLETED)
    assert watch(service).statuses == {"t0": "completed"}


def test_an_id_that_stays_unknown_ends_after_a_minute_and_holds_up_nobody() -> None:
    service = Service({"a": lambda t, n: errors.ImageTaskNotFound("no")}, until(200, RUNNING, COMPLETED))
    done = watch(service, ["a", "b"])
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
    service = Service(default=lambda t, n: error if n < 100 else COMPLETED)
    assert watch(service).statuses == {"t0": "completed"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.AuthenticationFailed("401", code="unauthorized"), "unauthorized"),
        (errors.PermissionRefused("403"), "PermissionRefused"),
        (errors.ConfigurationError("host"), "ConfigurationError"),
    ],
)
def test_a_key_that_is_refused_ends_it_within_a_few_polls(error: errors.ToApisError, code: str) -> None:
    service = Service(default=lambda t, n: RUNNING if t < 60 else error)
    done = watch(service, 1000)
    assert (done.outcome, done.error_code) == ("refused", code)
    assert sum(moment >= 60 for moment in service.moments) <= 20


@pytest.mark.parametrize("left", [1, 2])
def test_what_is_left_being_refused_ends_it(left: int) -> None:
    refused = errors.PermissionRefused("403")
    service = Service({f"t{n}": lambda t, n: refused for n in range(left)})
    assert watch(service, 40).outcome == "refused"
    assert {f"t{n}" for n in range(left, 40)} <= service.polls.keys()


def test_a_refusal_of_some_while_others_are_shown_ends_nothing() -> None:
    refused = errors.PermissionRefused("403")
    service = Service({"a": lambda t, n: refused if t < 100 else COMPLETED}, until(200, RUNNING, COMPLETED))
    done = watch(service, ["a", "b", "c"])
    assert (done.outcome, Counter(done.statuses.values())) == ("finished", {"completed": 3})


def test_a_429_silences_all_for_as_long_as_the_service_asks() -> None:
    limited = errors.RateLimited("429", retry_after=20.0)
    service = Service({"t3": lambda t, n: limited if n == 1 else COMPLETED}, until(100, RUNNING, COMPLETED))
    assert watch(service, 40, rate=5.0).outcome == "finished"
    heard = service.polls["t3"][0] + service.latency
    # Calls whose turn had come when the answer arrived are let go; those under way at most.
    early = [moment for moment in service.moments if heard < moment < heard + 20.0 - EPSILON]
    assert len(early) <= 13
    assert service.polls["t3"][1] >= heard + 20.0 - EPSILON


def test_a_429_halves_the_rate_and_it_recovers() -> None:
    service = Service(default=lambda t, n: errors.RateLimited("429") if t < 2 else RUNNING)
    watch(service, 1000, wait=120.0)
    seconds = Counter(int(moment) for moment in service.moments)
    assert 10 <= min(seconds[second] for second in range(4, 9)) <= max(seconds[second] for second in range(4, 9)) <= 30
    assert seconds[90] >= 48


@pytest.mark.parametrize("asked", [3600.0, 600.0])
def test_an_absurd_retry_after_is_obeyed_for_a_minute(asked: float) -> None:
    """``Retry-After`` is obeyed up to 60 s; otherwise one odd header turns paid images into a timeout."""
    limited = errors.RateLimited("429", retry_after=asked)
    service = Service(default=lambda t, n: limited if n == 1 else COMPLETED)
    assert watch(service, wait=600.0).outcome == "finished"
    assert 60.0 <= service.moments[1] <= 125.0


def test_a_thousand_image_tasks_share_the_rate_evenly() -> None:
    service = Service(default=until(300, RUNNING, COMPLETED))
    done = watch(service, 1000, rate=40.0)
    assert (done.outcome, Counter(done.statuses.values())) == ("finished", {"completed": 1000})
    assert service.most_busy <= 13
    moments = service.moments
    assert all(late - early >= 1 - EPSILON for early, late in zip(moments, moments[43:], strict=False))
    counts = [len(polls) for polls in service.polls.values()]
    assert max(counts) - min(counts) <= 4, "nobody starves"
    assert max(late - early for polls in service.polls.values() for early, late in itertools.pairwise(polls)) <= 40.0


def test_cancellation_passes_through_and_leaves_nothing_behind() -> None:
    service = Service(default=lambda t, n: RUNNING)

    async def cancelled() -> float:
        async with World(service).polling() as poller:
            task = asyncio.create_task(follow(made(50), poller))
            await asyncio.sleep(33)
            at = now() - START
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(poller) == 0
            await asyncio.sleep(60)
            return at

    assert run(cancelled()) >= service.moments[-1] and service.busy == 0


def test_a_bug_is_not_taken_for_an_outcome() -> None:
    service = Service({"t3": lambda t, n: KeyError("a bug")}, lambda t, n: RUNNING)
    with pytest.raises(KeyError, match="a bug"):
        watch(service, 5)


def test_the_log_tells_changes_and_not_polls(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    service = Service(
        default=lambda t, n: {**RUNNING, "status": "queued"} if t < 20 else RUNNING if t < 130 else COMPLETED
    )
    watch(service)
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("Image task t0")] == [
        "Image task t0: queued", "Image task t0: in_progress", "Image task t0: completed",
    ]  # fmt: skip
    assert len(lines) == 6 and sum("polls/s" in line for line in lines) == 3


def test_a_completed_answer_without_an_image_is_asked_again() -> None:
    body = {"status": "completed", "completed_at": START}
    service = Service(default=lambda t, n: body if t < 60 else COMPLETED)
    assert watch(service).statuses == {"t0": "completed"} and len(service.moments) > 10


@pytest.mark.parametrize(
    ("enough", "outcome", "ended"), [(1, "enough", 1), (3, "enough", 3), (5, "finished", 5), (9, "finished", 5)]
)
def test_a_part_can_be_enough(enough: int, outcome: str, ended: int) -> None:
    service = Service({f"t{n}": until(20 + 30 * n, RUNNING, COMPLETED) for n in range(5)})
    done = watch(service, 5, enough=enough)
    assert (done.outcome, Counter(done.statuses.values())["completed"]) == (outcome, ended)


def test_what_is_never_enough_times_out() -> None:
    assert watch(Service(default=lambda t, n: RUNNING), 5, wait=30, enough=2).outcome == "timeout"
