"""Money while something is not known yet: what a killed attempt paid, what the account has, whether ids resolve."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.client import ToApisClient
from tests.integration.batch.harness import World


def many(count: int) -> list[str]:
    return [f"picture {number}" for number in range(count)]


def twice(world: World) -> list[str]:
    """Give what was paid more than once."""
    sold = world.emulator.ledger()["image_tasks"]
    prompts = Counter(image_task["prompt"] for image_task in sold if not image_task["refunded"])
    return [prompt for prompt, times in prompts.items() if times > 1]


@pytest.fixture
def waves(stored: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A task instance at the default rate; the emulator's own is so high that all is one wave."""
    connection = stored.emulator.connection_json(timeout=30, submit_rate=5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    return stored


# --- the limit of cost ---------------------------------------------------------------------------------------------


def test_the_limit_holds_after_a_kill_while_submits_are_invisible(waves: World) -> None:
    world = waves
    world.emulator.configure(lookup_delay=30)
    options: dict[str, Any] = {"requests": many(45), "max_cost_usd": 25 * 0.025}
    world.attempt(**options, crash_on=("submit under way", 20))
    run = world.attempt(**options)
    world.emulator.configure(lookup_delay=0)
    assert "max_cost_usd" in str(run.error)
    assert world.charges == len(world.files) == 25


def test_the_limit_holds_after_a_look_that_failed(waves: World) -> None:
    world = waves
    options: dict[str, Any] = {"requests": many(45), "max_cost_usd": 25 * 0.025}
    world.attempt(**options, crash_on=("submit under way", 20))
    world.emulator.fault(on="status", kind="server_error", match="picture 1", times=4 * 4)
    world.attempt(**options)
    world.emulator.clear_faults()
    world.attempt(**options)
    assert world.charges == len(world.files) == 25


def test_without_a_limit_nobody_waits_for_what_is_in_doubt(waves: World) -> None:
    world = waves
    world.emulator.configure(lookup_delay=30)
    world.attempt(requests=many(45), crash_on=("submit under way", 20))
    began, known = world.clock.now, world.posts
    run = world.attempt(requests=many(45))
    world.emulator.configure(lookup_delay=0)
    assert run.error is None and world.charges == 45 and not twice(world)
    bought = [sold["created"] - began for sold in world.emulator.ledger()["image_tasks"][known:]]
    assert min(bought) < 20, "others are bought meanwhile"


@pytest.mark.parametrize("quick", [False], indirect=True, ids=["no-store"])
@pytest.mark.parametrize("limit", [None, 1000.0])
def test_more_doubts_than_a_stretch_can_look_into_are_settled_all_the_same(
    quick: World, monkeypatch: pytest.MonkeyPatch, limit: float | None
) -> None:
    """Without a store all orders of a killed try are in doubt; each look takes a while."""
    world = quick
    connection = world.emulator.connection_json(timeout=30, submit_rate=5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    exchange = ToApisClient._exchange

    def slowly(self: ToApisClient, call: Any) -> Any:
        if call.kind is CallKind.STATUS:
            world.clock.sleep(0.24)
        return exchange(self, call)

    monkeypatch.setattr(ToApisClient, "_exchange", slowly)
    world.attempt(requests=many(150), max_cost_usd=limit, crash_on=("submit under way", 20))
    run = world.attempt(requests=many(150), max_cost_usd=limit)
    assert run.error is None, str(run.error)[:300]
    assert world.charges == 150 and len(world.pauses) < 12


# --- the account's balance -----------------------------------------------------------------------------------------


def test_preflight_of_a_retry_lands_what_is_paid_before_it_fails(stored: World) -> None:
    world = stored
    world.emulator.configure(credits=1000.0)
    prompts = [*many(5), "unlucky"]
    world.emulator.fault(on="submit", kind="failed", times=1, match="unlucky")
    world.emulator.fault(on="submit", kind="latency", seconds=100, match="picture")
    world.attempt(requests=prompts, timeout=60, preflight_balance=True)
    world.emulator.clear_faults()
    assert world.charges == 5
    world.emulator.configure(credits=0.0)
    run = world.attempt(requests=prompts, timeout=60, preflight_balance=True)
    world.emulator.configure(credits=None)
    assert isinstance(run.error, NanoBananaFailException) and "too little" in str(run.error)
    assert len(world.files) == 5 and world.manifest["count"] == 5
    assert run.ti.xcoms["return_value"]["failed_count"] == 1


def test_preflight_after_a_kill_finds_what_is_paid(waves: World) -> None:
    world = waves
    world.attempt(requests=many(45), preflight_balance=True, crash_on=("submit under way", 20))
    paid = world.charges
    world.emulator.configure(credits=0.0)
    run = world.attempt(requests=many(45), preflight_balance=True)
    world.emulator.configure(credits=None)
    assert run.error is not None
    assert world.charges == len(world.files) == paid
    world.clear()
    assert world.attempt(requests=many(45), preflight_balance=True).result["count"] == world.charges == 45


def test_a_stretch_after_the_pause_buys_nothing_either(waves: World) -> None:
    """The balance is asked once in an attempt; what it said holds for all its processes."""
    world = waves
    world.emulator.fault(on="submit", kind="latency", seconds=100)
    world.attempt(requests=many(45), preflight_balance=True, crash_on=("submit under way", 20))
    paid = world.charges
    world.emulator.configure(credits=0.0)
    world.on_pause = lambda: world.emulator.configure(credits=None)
    run = world.attempt(requests=many(45), preflight_balance=True)
    assert world.pauses and run.error is not None
    assert world.charges == len(world.files) == paid


# --- client ids ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before status", "submit under way", "after submit"])
def test_a_kill_before_client_ids_were_proved_buys_nothing_twice(waves: World, point: str) -> None:
    """The answer gave an id, and the service would resolve no other."""
    world = waves
    world.emulator.configure(ignore_client_ids=True)
    world.attempt(requests=many(24), crash_on=(point, 1))
    run = world.attempt(requests=many(24))
    world.emulator.configure(ignore_client_ids=False)
    if point == "before status":
        assert not twice(world), run.error
    assert len(twice(world)) <= 1, "one POST at most is under way before the service was seen to resolve ids"


def test_answers_lost_while_ids_do_not_resolve_are_not_sent_again(waves: World) -> None:
    world = waves
    world.emulator.configure(ignore_client_ids=True)
    world.emulator.fault(on="submit", kind="server_error", committed=True, times=12)
    run = world.attempt(requests=many(24))
    world.emulator.configure(ignore_client_ids=False)
    assert not twice(world) and run.error is not None
    failed = run.ti.xcoms["return_value"]["failed"]
    assert {failure["charged"] for failure in failed} <= {"unknown", "no"}


@pytest.mark.parametrize("how", ["no client ids", "slow to resolve"])
def test_submits_overlap(waves: World, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """One after another is for the time before it is known whether ids resolve, and for no longer."""
    world, under_way, most, lock = waves, [0], [0], threading.Lock()
    if how == "no client ids":
        connection = world.emulator.connection_json(timeout=30, submit_rate=5, client_ids=False)
        monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    else:
        world.emulator.configure(lookup_delay=1)
    exchange = ToApisClient._exchange

    def counted(self: ToApisClient, call: Any) -> Any:
        if call.kind is not CallKind.SUBMIT:
            return exchange(self, call)
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        try:
            time.sleep(0.05)  # real: two threads must meet
            return exchange(self, call)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(ToApisClient, "_exchange", counted)
    run = world.attempt(requests=many(20))
    world.emulator.configure(lookup_delay=0)
    assert run.error is None and most[0] > 1


# --- clears --------------------------------------------------------------------------------------------------------


def test_a_clear_for_new_pictures_lands_what_was_bought_and_not_landed(stored: World) -> None:
    world = stored
    world.attempt(requests=many(3), reuse_existing=False, crash_on=("before land", 1))
    world.clear()
    world.attempt(requests=many(3), reuse_existing=False)
    assert world.posts == len(world.files) == 3
    world.clock.sleep(100_000)
    run = world.attempt(requests=many(3), reuse_existing=False)
    assert run.error is None and world.posts == 3, "a retry of that clear finds it done, though the links are dead"


def test_a_retry_of_that_needs_no_balance(stored: World) -> None:
    world = stored
    options: dict[str, Any] = {"requests": many(3), "reuse_existing": False, "preflight_balance": True}
    world.attempt(**options, crash_on=("before land", 1))
    world.clear()
    world.attempt(**options, crash_on=("after manifest", 1))
    world.emulator.configure(credits=0.0)
    run = world.attempt(**options)
    world.emulator.configure(credits=None)
    assert run.error is None, str(run.error)
