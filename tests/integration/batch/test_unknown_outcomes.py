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
from tests.integration.batch.harness import GenerateTask
from tests.support.text import flat


def many(count: int) -> list[str]:
    return [f"picture {number}" for number in range(count)]


def twice(batch: GenerateTask) -> list[str]:
    """Give what was paid more than once."""
    sold = batch.emulator.ledger()["image_tasks"]
    prompts = Counter(image_task["prompt"] for image_task in sold if not image_task["refunded"])
    return [prompt for prompt, times in prompts.items() if times > 1]


@pytest.fixture
def small_groups(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> GenerateTask:
    """A task instance at the default rate; the emulator's own is so high that all is one wave."""
    connection = with_store.emulator.connection_json(timeout=30, submit_rate=5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    return with_store


# --- the limit of cost ---------------------------------------------------------------------------------------------


def test_the_limit_holds_after_a_kill_while_submits_are_invisible(small_groups: GenerateTask) -> None:
    batch = small_groups
    batch.emulator.configure(lookup_delay=30)
    options: dict[str, Any] = {"requests": many(45), "max_cost_usd": 25 * 0.025}
    batch.attempt(**options, crash_on=("submit under way", 20))
    run = batch.attempt(**options)
    batch.emulator.configure(lookup_delay=0)
    assert "max_cost_usd" in flat(run.error)
    assert batch.charges == len(batch.files) == 25


def test_the_limit_holds_after_a_look_up_that_failed(small_groups: GenerateTask) -> None:
    batch = small_groups
    options: dict[str, Any] = {"requests": many(45), "max_cost_usd": 25 * 0.025}
    batch.attempt(**options, crash_on=("submit under way", 20))
    batch.emulator.fault(on="status", kind="server_error", match="picture 1", times=4 * 4)
    batch.attempt(**options)
    batch.emulator.clear_faults()
    batch.attempt(**options)
    assert batch.charges == len(batch.files) == 25


@pytest.mark.parametrize("point", [("before submit", 1), ("after submit", 1), ("before status", 5)])
def test_the_limit_counts_what_expired_before_a_kill(with_store: GenerateTask, point: tuple[str, int]) -> None:
    """What a lost image task cost stays in the ledger when the next one takes its place, sent or not."""
    batch = with_store
    options: dict[str, Any] = {"requests": many(3), "max_cost_usd": 4 * 0.025, "on_expired": "resubmit"}
    batch.attempt(**options, crash_on=("submit under way", 3))
    assert batch.charges == 3
    batch.clock.sleep(100_000)
    batch.attempt(**options, crash_on=point)
    for _ in range(2):
        batch.attempt(**options)
    assert batch.charges == 4


@pytest.mark.parametrize("lookup_delay", [0, 30])
def test_the_limit_counts_what_may_be_paid_of_the_list_before_a_clear(
    small_groups: GenerateTask, lookup_delay: int
) -> None:
    batch = small_groups
    batch.emulator.configure(lookup_delay=lookup_delay)
    limit: dict[str, Any] = {"max_cost_usd": 25 * 0.025}
    batch.attempt(requests=many(20), crash_on=("submit under way", 12), **limit)
    batch.clear()
    others = [f"another {number}" for number in range(20)]
    run = batch.attempt(requests=others, **limit)
    assert batch.charges <= 25 and "max_cost_usd" in flat(run.error)
    batch.clock.sleep(200.0)
    batch.attempt(requests=others, **limit)
    batch.emulator.configure(lookup_delay=0)
    assert batch.charges == 25, "what was never sent counts no more"


@pytest.mark.parametrize("client_ids", [True, False])
def test_the_limit_counts_what_nobody_can_find(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, client_ids: bool
) -> None:
    """A submit whose answer was lost and that cannot be found may be paid, in every later attempt."""
    batch = with_store
    connection = batch.emulator.connection_json(timeout=30, client_ids=client_ids)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    batch.emulator.configure(ignore_client_ids=True)
    batch.emulator.fault(on="submit", kind="server_error", committed=True, times=1, match="picture 1")
    options: dict[str, Any] = {"requests": many(6), "max_cost_usd": 4 * 0.025, "on_unknown_submission": "fail"}
    for _ in range(3):
        batch.attempt(**options)
    batch.emulator.configure(ignore_client_ids=False)
    assert batch.charges == 4


def test_without_a_limit_nobody_waits_for_what_is_in_doubt(small_groups: GenerateTask) -> None:
    batch = small_groups
    batch.emulator.configure(lookup_delay=30)
    batch.attempt(requests=many(45), crash_on=("submit under way", 20))
    began, known = batch.clock.now, batch.posts
    run = batch.attempt(requests=many(45))
    batch.emulator.configure(lookup_delay=0)
    assert run.error is None and batch.charges == 45 and not twice(batch)
    bought = [sold["created"] - began for sold in batch.emulator.ledger()["image_tasks"][known:]]
    assert min(bought) < 20, "others are bought meanwhile"


@pytest.mark.parametrize("quick", [False], indirect=True, ids=["no-store"])
@pytest.mark.parametrize("limit", [None, 1000.0])
def test_more_unknown_outcomes_than_a_slice_can_look_up_are_settled_all_the_same(
    quick: GenerateTask, monkeypatch: pytest.MonkeyPatch, limit: float | None
) -> None:
    """Without a store all items of a killed try are in doubt; each look takes a while."""
    batch = quick
    connection = batch.emulator.connection_json(timeout=30, submit_rate=5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    exchange = ToApisClient._exchange

    def slowly(self: ToApisClient, call: Any) -> Any:
        if call.kind is CallKind.STATUS:
            batch.clock.sleep(0.24)
        return exchange(self, call)

    monkeypatch.setattr(ToApisClient, "_exchange", slowly)
    batch.attempt(requests=many(150), max_cost_usd=limit, crash_on=("submit under way", 20))
    run = batch.attempt(requests=many(150), max_cost_usd=limit)
    assert run.error is None, str(run.error)[:300]
    # What is in doubt is waited for without a worker: 135 seconds, in pauses of five here.
    assert batch.charges == 150 and len(batch.pauses) < 40


# --- the account's balance -----------------------------------------------------------------------------------------


def test_preflight_of_a_retry_lands_what_is_paid_before_it_fails(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.configure(credits=1000.0)
    prompts = [*many(5), "unlucky"]
    batch.emulator.fault(on="submit", kind="failed", times=1, match="unlucky")
    batch.emulator.fault(on="submit", kind="latency", seconds=100, match="picture")
    batch.attempt(requests=prompts, timeout=60, preflight_balance=True)
    batch.emulator.clear_faults()
    assert batch.charges == 5
    batch.emulator.configure(credits=0.0)
    run = batch.attempt(requests=prompts, timeout=60, preflight_balance=True)
    batch.emulator.configure(credits=None)
    assert isinstance(run.error, NanoBananaFailException) and "too little" in flat(run.error)
    assert len(batch.files) == 5 and batch.manifest["count"] == 5
    assert run.ti.xcoms["return_value"]["failed_count"] == 1


def test_preflight_after_a_kill_finds_what_is_paid(small_groups: GenerateTask) -> None:
    batch = small_groups
    batch.attempt(requests=many(45), preflight_balance=True, crash_on=("submit under way", 20))
    paid = batch.charges
    batch.emulator.configure(credits=0.0)
    run = batch.attempt(requests=many(45), preflight_balance=True)
    batch.emulator.configure(credits=None)
    assert run.error is not None
    assert batch.charges == len(batch.files) == paid
    batch.clear()
    assert batch.attempt(requests=many(45), preflight_balance=True).result["count"] == batch.charges == 45


def test_a_slice_after_the_pause_buys_nothing_either(small_groups: GenerateTask) -> None:
    """The balance is asked once in an attempt; what it said holds for all its processes."""
    batch = small_groups
    batch.emulator.fault(on="submit", kind="latency", seconds=100)
    batch.attempt(requests=many(45), preflight_balance=True, crash_on=("submit under way", 20))
    paid = batch.charges
    batch.emulator.configure(credits=0.0)

    def times_asked() -> int:
        return sum("/balance" in request["path"] for request in batch.emulator.requests())

    def top_up_once_it_was_asked() -> None:
        # How far the killed process wrote ahead decides whether it is asked before the first pause or after some.
        if times_asked() > asked_before:
            batch.emulator.configure(credits=None)

    asked_before = times_asked()
    batch.on_pause = top_up_once_it_was_asked
    run = batch.attempt(requests=many(45), preflight_balance=True)
    assert batch.pauses and run.error is not None
    assert batch.charges == len(batch.files) == paid


# --- client ids ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before status", "submit under way", "after submit"])
def test_a_kill_before_client_ids_were_proved_buys_nothing_twice(small_groups: GenerateTask, point: str) -> None:
    """The answer gave an id, and the service would resolve no other."""
    batch = small_groups
    batch.emulator.configure(ignore_client_ids=True)
    batch.attempt(requests=many(24), crash_on=(point, 1))
    run = batch.attempt(requests=many(24))
    batch.emulator.configure(ignore_client_ids=False)
    if point == "before status":
        assert not twice(batch), run.error
    assert len(twice(batch)) <= 1, "one POST at most is under way before the service was seen to resolve ids"


def test_answers_lost_while_ids_do_not_resolve_are_not_sent_again(small_groups: GenerateTask) -> None:
    batch = small_groups
    batch.emulator.configure(ignore_client_ids=True)
    batch.emulator.fault(on="submit", kind="server_error", committed=True, times=12)
    run = batch.attempt(requests=many(24))
    batch.emulator.configure(ignore_client_ids=False)
    assert not twice(batch) and run.error is not None
    failed = run.ti.xcoms["return_value"]["failed"]
    assert {failure["charged"] for failure in failed} <= {"unknown", "no"}


@pytest.mark.parametrize("how", ["no client ids", "slow to resolve"])
def test_submits_overlap(small_groups: GenerateTask, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """One after another is for the time before it is known whether ids resolve, and for no longer."""
    batch, under_way, most, lock = small_groups, [0], [0], threading.Lock()
    if how == "no client ids":
        connection = batch.emulator.connection_json(timeout=30, submit_rate=5, client_ids=False)
        monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    else:
        batch.emulator.configure(lookup_delay=1)
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
    run = batch.attempt(requests=many(20))
    batch.emulator.configure(lookup_delay=0)
    assert run.error is None and most[0] > 1


# --- clears --------------------------------------------------------------------------------------------------------


def test_a_clear_for_new_pictures_lands_what_was_bought_and_not_landed(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=many(3), reuse_existing=False, crash_on=("before land", 1))
    batch.clear()
    batch.attempt(requests=many(3), reuse_existing=False)
    assert batch.posts == len(batch.files) == 3
    batch.clock.sleep(100_000)
    run = batch.attempt(requests=many(3), reuse_existing=False)
    assert run.error is None and batch.posts == 3, "a retry of that clear finds it done, though the links are dead"


def test_a_retry_of_that_needs_no_balance(with_store: GenerateTask) -> None:
    batch = with_store
    options: dict[str, Any] = {"requests": many(3), "reuse_existing": False, "preflight_balance": True}
    batch.attempt(**options, crash_on=("before land", 1))
    batch.clear()
    batch.attempt(**options, crash_on=("after manifest", 1))
    batch.emulator.configure(credits=0.0)
    run = batch.attempt(**options)
    batch.emulator.configure(credits=None)
    assert run.error is None, str(run.error)
