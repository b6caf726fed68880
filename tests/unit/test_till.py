"""The till: every image task of an order counts, what is refunded does not, and the limit is never passed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.money import Budget, Cost
from airflow_provider_nanobanana.durable.entry import Entry
from airflow_provider_nanobanana.hooks.till import OverBudget, Till
from airflow_provider_nanobanana.toapis.models import ImageTask
from tests.unit.batch_world import order, orders
from tests.unit.ledger_samples import landed as landed_entry
from tests.unit.ledger_samples import submitted as submitted_entry
from tests.unit.samples import COMPLETED, FAILED, NOW, RUNNING, STATUS, answer

FIRST, SECOND, THIRD = orders(["first", "second", "third"])


def seen(body: dict[str, Any], **changes: Any) -> ImageTask:
    return STATUS.conclude(answer(200, {**body, **changes}), NOW)


def till(max_cost_usd: float | None = None, entries: dict[str, Entry] | None = None) -> Till:
    return Till(Budget(max_cost_usd), (entries or {}).items())


def test_what_is_about_to_be_bought_counts_before_its_image_task_does() -> None:
    bank = till(0.05)
    bank.about_to_buy(FIRST)
    bank.about_to_buy(SECOND)
    assert bank.usd == pytest.approx(0.05)
    with pytest.raises(OverBudget):
        bank.about_to_buy(THIRD)
    assert bank.usd == pytest.approx(0.05) and bank.cost(THIRD) == Cost()


def test_an_order_does_not_stand_in_its_own_way() -> None:
    bank = till(0.025)
    bank.about_to_buy(FIRST)
    bank.about_to_buy(FIRST)
    assert bank.usd == pytest.approx(0.025)


def test_what_was_not_accepted_is_taken_back() -> None:
    bank = till(0.025)
    bank.about_to_buy(FIRST)
    bank.settled(FIRST)
    assert bank.usd == 0
    bank.about_to_buy(SECOND)
    assert bank.usd == pytest.approx(0.025)


def test_the_services_own_amount_takes_the_place_of_the_list_price() -> None:
    bank = till()
    bank.about_to_buy(FIRST)
    bank.saw(FIRST, "a", seen(RUNNING))
    bank.settled(FIRST)
    assert bank.cost(FIRST) == Cost(0.025, listed=True)
    bank.saw(FIRST, "a", seen(COMPLETED))
    said = bank.cost(FIRST)
    assert not said.listed and said.usd is not None and said.usd > 0
    assert bank.totals() == {"cost_usd": said.usd, "of_which_listed_usd": 0.0, "unpriced": 0}


def test_a_failed_image_task_gives_its_money_back() -> None:
    bank = till(0.025)
    bank.about_to_buy(FIRST)
    bank.saw(FIRST, "a", seen(FAILED))
    bank.settled(FIRST)
    assert bank.usd == 0
    bank.about_to_buy(FIRST)
    assert bank.usd == pytest.approx(0.025)


def test_one_that_may_be_under_way_counts_at_list_price() -> None:
    bank = till()
    bank.saw(FIRST, "a", None)
    assert bank.cost(FIRST) == Cost(0.025, listed=True)


def test_a_lost_image_task_stays_sunk() -> None:
    bank = till()
    bank.saw(FIRST, "lost", None)
    bank.saw(FIRST, "now", None)
    assert bank.cost(FIRST).usd == pytest.approx(0.05)
    assert bank.fields(FIRST, "now") == {"cost": 0.025, "listed": True, "sunk": 0.025, "sunk_listed": True}
    assert bank.fields(FIRST, "lost")["cost"] == 0.025
    bank.about_to_buy(FIRST)
    assert bank.fields(FIRST, "now")["sunk"] == 0.025, "what is merely about to be bought is not sunk"


def test_a_ledger_brings_back_what_the_till_said() -> None:
    before = till()
    before.saw(FIRST, "lost", None)
    before.saw(FIRST, "now", seen(COMPLETED))
    entry = replace(submitted_entry(0), **before.fields(FIRST, "now"))
    after = till(entries={FIRST.key: entry})
    assert after.cost(FIRST) == before.cost(FIRST) and after.usd == before.usd


def test_what_nobody_wants_any_more_was_paid_all_the_same() -> None:
    bank = till(0.05, {"abandoned": landed_entry(0), "another": landed_entry(1)})
    assert bank.usd == pytest.approx(0.05)
    with pytest.raises(OverBudget):
        bank.about_to_buy(FIRST)


def test_an_image_without_a_price_is_counted_apart() -> None:
    bank = till()
    bank.saw(order(extra_body={"resolution": "8K"}), "a", None)
    assert bank.totals() == {"cost_usd": 0.0, "of_which_listed_usd": 0.0, "unpriced": 1}


def test_many_threads_do_not_pass_the_limit() -> None:
    wanted = orders([f"picture {number}" for number in range(200)])
    bank, barrier = till(50 * 0.025), threading.Barrier(8)

    def buy(some: int) -> int:
        barrier.wait()
        bought = 0
        for one in wanted[some::8]:
            try:
                bank.about_to_buy(one)
            except OverBudget:
                continue
            bank.saw(one, one.key, None)
            bank.settled(one)
            bought += 1
        return bought

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(buy, range(8))) == 50
    assert bank.usd == pytest.approx(50 * 0.025)
