"""What a hostile review of the poller found: one test for each defect, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from airflow_provider_nanobanana.polling.result import WaitWindow
from airflow_provider_nanobanana.polling.subscription import PollTarget, Subscription
from tests.support.polled_service import LOG, World, follow, made, shared, shared_world, wait_for
from tests.support.responses import COMPLETED
from tests.support.virtual_time import START, now, run

NEVER = START + 1e9


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return shared_world(monkeypatch, completed=400)


# --- who ends with whom -----------------------------------------------------------------------------------------------


def test_whoever_comes_in_after_a_bug_does_not_wait_for_nothing(world: World) -> None:
    """The bug comes while the newcomer stands at the door: the connection is being read at that moment."""

    async def go() -> list[Any]:
        async with shared("nb") as poller:
            newcomer = made(["late"])
            poller.bug = KeyError("a bug")
            return list(
                await asyncio.gather(follow(newcomer, poller), wait_for(made(["later"])), return_exceptions=True)
            )

    came_in, later = run(go())
    assert isinstance(came_in, KeyError) and later.outcome == "finished"


def test_a_trigger_cancelled_while_it_closes_the_poller_leaves_nothing_open(world: World) -> None:
    async def go() -> None:
        release = asyncio.Event()

        async def look(*args: Any) -> Any:
            try:
                await asyncio.sleep(1000)
            finally:
                await release.wait()  # a connection that is slow to close

        world.service.look = look  # type: ignore[assignment,method-assign]
        trigger = asyncio.create_task(wait_for(made(1)))
        await asyncio.sleep(5)
        trigger.cancel()
        await asyncio.sleep(5)
        trigger.cancel()
        await asyncio.gather(trigger, return_exceptions=True)
        release.set()
        await asyncio.sleep(1)

    run(go())
    assert all(line.closed for line in world.lines)


def test_a_line_that_ends_badly_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> Subscription:
        waiting = asyncio.create_task(wait_for(made(1)))
        await asyncio.sleep(1)

        async def aclose() -> None:
            world.lines[0].closed = True
            raise OSError("broken pipe")

        world.lines[0].aclose = aclose  # type: ignore[method-assign]
        return await waiting

    assert run(go()).statuses == {"t0": "completed"}


def test_facts_of_a_foreign_version_leave_no_ghost(world: World) -> None:
    foreign: Any = "2026-11-22"  # a version that wrote dates as text
    broken = Subscription(
        [PollTarget("a"), PollTarget("b", foreign)], wait=WaitWindow(START, NEVER), interval=5, log=LOG, now=now
    )

    async def go() -> int:
        async with shared("nb") as poller:
            with pytest.raises(TypeError):
                await follow(broken, poller)
            return len(poller)

    assert run(go()) == 0


# --- when -------------------------------------------------------------------------------------------------------------


def test_a_newcomer_does_not_wait_for_the_turn_of_a_slower_watch(world: World) -> None:
    async def go() -> Subscription:
        slow = asyncio.create_task(wait_for(made(["a"], interval=3600, wait=9000)))
        await asyncio.sleep(10)
        quick = await wait_for(made(["a"], interval=5))
        slow.cancel()
        return quick

    assert run(go()).outcome == "finished"
    assert len(world.service.polls["a"]) >= 70


def test_what_was_learnt_outlives_a_wait(world: World) -> None:
    """With one wait at a time the poller ends after each."""
    world.service.default = lambda t, n: {**COMPLETED, "created_at": START, "completed_at": START + 70.0}

    async def go() -> float:
        for number in range(250):
            await wait_for(made([f"t{number}"]))
        async with shared("nb") as poller:
            return poller._latencies.first_poll_age("")

    assert run(go()) == pytest.approx(70.0) != LatencyEstimator().first_poll_age("")
