"""One poller for many watches, in virtual time: shared, reference-counted, and loyal to what the connection holds."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from airflow_provider_nanobanana.polling.result import WaitWindow
from airflow_provider_nanobanana.polling.schedule import PollQueue
from airflow_provider_nanobanana.polling.subscription import PollTarget, Subscription
from airflow_provider_nanobanana.toapis import errors
from tests.support.polled_service import LOG, Service, World, follow, made, shared, shared_world, until, wait_for
from tests.support.responses import COMPLETED, FAILED, RUNNING
from tests.support.virtual_time import START, now, run

REFUSED = errors.AuthenticationFailed("401", code="unauthorized")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return shared_world(monkeypatch, completed=60)


def test_a_thousand_watches_share_one_line_and_the_rate(world: World) -> None:
    async def go() -> list[Subscription]:
        return await asyncio.gather(*(wait_for(made([f"t{n}"])) for n in range(1000)))

    assert Counter(watch.outcome for watch in run(go())) == {"finished": 1000}
    assert (world.reads, len(world.lines)) == (1, 1) and world.lines[0].closed
    moments = world.service.moments
    assert all(late - early >= 1 - 1e-3 for early, late in zip(moments, moments[53:], strict=False))


def test_the_last_to_leave_closes_it_and_the_next_opens_anew(world: World) -> None:
    async def go() -> None:
        async with shared("nb") as one:
            async with shared("nb") as two, shared("other") as other:
                assert one is two is not other
            assert [line.closed for line in world.lines] == [False, True]
        async with shared("nb") as three:
            assert three is not one

    run(go())
    assert [line.closed for line in world.lines] == [True, True, True]


def test_an_image_task_of_two_watches_is_polled_once_at_the_shorter_interval(world: World) -> None:
    async def go() -> list[Subscription]:
        watches = made(["a"], interval=5), made(["a", "b"], interval=20), made(["a"], wait=31)
        return await asyncio.gather(*map(wait_for, watches))

    first, second, impatient = run(go())
    assert (first.outcome, second.outcome, impatient.outcome) == ("finished", "finished", "timeout")
    polls = world.service.polls
    assert min(late - early for early, late in itertools.pairwise(polls["b"])) >= 18
    assert 10 <= len(polls["a"]) <= 15


@pytest.mark.parametrize("moment", [0.03, 0.1, 5.3, 33.0])
def test_one_that_is_cancelled_in_the_middle_of_a_poll_harms_no_other(world: World, moment: float) -> None:
    async def go() -> Subscription:
        victim = asyncio.create_task(wait_for(made(["a", "b"])))
        other = asyncio.create_task(wait_for(made(["b", "c"])))
        await asyncio.sleep(moment)
        victim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await victim
        return await other

    assert run(go()).statuses == {"b": "completed", "c": "completed"}
    assert all(poll <= moment for poll in world.service.polls["a"])


def test_nobody_is_left_after_all_were_cancelled(world: World) -> None:
    async def go() -> None:
        tasks = [asyncio.create_task(wait_for(made(3))) for _ in range(50)]
        await asyncio.sleep(7.1)
        for task in tasks:
            task.cancel()
        assert {type(ended) for ended in await asyncio.gather(*tasks, return_exceptions=True)} == {
            asyncio.CancelledError
        }

    run(go())  # which checks that no task is left running
    assert world.service.busy == 0 and all(line.closed for line in world.lines)


def test_a_connection_that_cannot_be_read_is_everybodys_error_and_no_poller_is_left(world: World) -> None:
    broken = NanoBananaFailException(errors.ConfigurationError("no key"))

    async def read(nanobanana_conn_id: str) -> Any:
        raise broken

    async def go() -> list[Any]:
        world.read = read  # type: ignore[method-assign]
        ended = await asyncio.gather(*(wait_for(made(1)) for _ in range(3)), return_exceptions=True)
        del world.read
        return [*ended, await wait_for(made(1))]

    *ended, later = run(go())
    assert ended == [broken] * 3 and later.outcome == "finished"


def test_a_bug_in_a_look_ends_those_who_wait_for_that_image_task_and_nobody_else(world: World) -> None:
    """An answer that we stumble over must not take a thousand other waits with it, again after each retry."""
    world.service.scripts["bad"] = lambda t, n: KeyError("a bug")

    async def go() -> list[Any]:
        waiting = made(["bad"]), made(["good"]), made(["bad", "good"])
        first = await asyncio.gather(*map(wait_for, waiting), return_exceptions=True)
        world.service.scripts.clear()
        return [*first, await wait_for(made(["bad"]))]

    bad, good, both, later = run(go())
    assert [type(error) for error in (bad, both)] == [KeyError, KeyError]
    assert (good.statuses, later.statuses) == ({"good": "completed"}, {"bad": "completed"})


def test_a_bug_of_the_poller_ends_all_who_wait_and_nobody_who_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = PollQueue.pop_due

    def buggy(queue: PollQueue, at: float, rate: float) -> Any:
        if 0.5 < now() - START < 0.8:
            raise KeyError("a bug")
        return take(queue, at, rate)

    monkeypatch.setattr(PollQueue, "pop_due", buggy)

    async def go() -> list[Any]:
        waiting = [asyncio.create_task(wait_for(made([name], first=0.7))) for name in ("one", "two")]
        await asyncio.sleep(1)
        later = asyncio.create_task(wait_for(made(["other"])))
        return [*await asyncio.gather(*waiting, return_exceptions=True), await later]

    *ended, later = run(go())
    assert [type(error) for error in ended] == [KeyError, KeyError] and later.outcome == "finished"
    assert all(line.closed for line in world.lines)


# --- the key ----------------------------------------------------------------------------------------------------------


def keyed(service: Service, good: str, since: float) -> None:
    """Refuse every other key from a moment on."""
    service.default = lambda t, n: (
        REFUSED if t >= since and service.keys[-1] != good else until(200, RUNNING, COMPLETED)(t, n)
    )


def test_a_rotated_key_is_read_once_and_nobody_notices(world: World) -> None:
    keyed(world.service, "sk-2", since=20)
    world.service.latency = 0.0

    async def go() -> list[Subscription]:
        async def rotate() -> None:
            await asyncio.sleep(19)
            world.key = "sk-2"

        watches, _ = await asyncio.gather(asyncio.gather(*(wait_for(made([f"t{n}"])) for n in range(100))), rotate())
        return list(watches)

    assert {(watch.outcome, watch.statuses[watch.targets[0].id]) for watch in run(go())} == {("finished", "completed")}
    assert (world.reads, [line.settings.api_key.get_secret_value() for line in world.lines]) == (2, ["sk-1", "sk-2"])


def test_a_refused_key_that_the_connection_still_holds_is_final_after_one_look_at_it(world: World) -> None:
    keyed(world.service, "sk-2", since=20)

    async def go() -> list[Subscription]:
        return await asyncio.gather(*(wait_for(made([f"t{n}"])) for n in range(100)))

    assert {(watch.outcome, watch.error_code) for watch in run(go())} == {("refused", "unauthorized")}
    assert (world.reads, len(world.lines)) == (2, 1)


def test_the_connection_is_read_again_every_few_minutes_and_its_rate_followed(world: World) -> None:
    world.service.default = until(800, RUNNING, COMPLETED)

    async def go() -> None:
        waiting = asyncio.create_task(wait_for(made(200)))
        await asyncio.sleep(250)
        world.rate = 2.0
        await waiting

    run(go())
    assert 3 <= world.reads <= 4 and len(world.lines) == 2
    seconds = Counter(int(moment) for moment in world.service.moments)
    assert (
        sum(seconds[second] for second in range(100, 200)) >= 3700
        and max(seconds[second] for second in range(330, 700)) <= 3
    )


def test_a_connection_that_vanishes_meanwhile_stops_nobody(world: World) -> None:
    world.service.default = until(400, RUNNING, COMPLETED)

    async def vanished(nanobanana_conn_id: str) -> Any:
        raise NanoBananaFailException(errors.ConfigurationError("gone"))

    async def go() -> Subscription:
        waiting = asyncio.create_task(wait_for(made(1)))
        await asyncio.sleep(10)
        world.read = vanished  # type: ignore[method-assign]
        return await waiting

    assert run(go()).statuses == {"t0": "completed"}


# --- when -------------------------------------------------------------------------------------------------------------


def test_polling_begins_near_the_expected_result_and_learns(world: World) -> None:
    """The service takes 60 s by now; after some dozens of images nobody asks after 17 s any more."""
    born: dict[str, float] = {}

    def answer(image_task_id: str) -> Any:
        def script(t: float, n: int) -> dict[str, Any]:
            times = {"created_at": born[image_task_id], "completed_at": born[image_task_id] + 60.0}
            return {**RUNNING, **times} if START + t < times["completed_at"] else {**COMPLETED, **times}

        return script

    async def one(name: str) -> None:
        born[name] = now()
        world.service.scripts[name] = answer(name)
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
    ages = [world.service.polls[name][0] + START - born[name] for name in born]
    assert ages[0] == pytest.approx(LatencyEstimator().first_poll_age("m"), abs=1)
    assert ages[-1] == pytest.approx(60, abs=1)
    assert len(world.service.polls["t59"]) <= 2 < len(world.service.polls["t0"])


@pytest.mark.parametrize(
    ("created_at", "first"), [(START - 1000, 0.0), (START + 5000, 18.1), (None, 0.0), (START, 18.1)]
)
def test_a_clock_that_runs_ahead_postpones_nothing(world: World, created_at: float | None, first: float) -> None:
    watch = Subscription(
        [PollTarget("a", created_at)], wait=WaitWindow(START, START + 900), interval=5, log=LOG, now=now
    )
    run(wait_for(watch))
    assert world.service.moments[0] == pytest.approx(first, abs=1)


def test_a_failed_image_task_teaches_no_latency(world: World) -> None:
    world.service.default = lambda t, n: {**FAILED, "created_at": START, "completed_at": START + 1}

    async def go() -> float:
        async with shared("nb") as poller:
            await follow(made(300), poller)
            return poller._latencies.first_poll_age("")

    assert run(go()) == LatencyEstimator().first_poll_age("")
