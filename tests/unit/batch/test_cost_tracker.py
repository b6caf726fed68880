"""The till: every image task of an order counts, what is refunded does not, and the limit is never passed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.budget import Budget
from airflow_provider_nanobanana.batch.cost_tracker import BudgetExceeded, CostTracker, Unbilled
from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
from airflow_provider_nanobanana.toapis.models import ImageTask
from tests.support.batch import item, items
from tests.support.ledger import landed as landed_entry
from tests.support.ledger import submitted as submitted_entry
from tests.support.responses import COMPLETED, FAILED, NOW, RUNNING, STATUS, response

FIRST, SECOND, THIRD = items(["first", "second", "third"])


def seen(body: dict[str, Any], **changes: Any) -> ImageTask:
    return STATUS.parse(response(200, {**body, **changes}), NOW)


def till(
    max_cost_usd: float | None = None, entries: dict[str, LedgerEntry] | None = None, *, tested: bool = True
) -> CostTracker:
    """Return a till that has seen, or not, that an image of the usual kind costs what the price list says."""
    bank = CostTracker(Budget(max_cost_usd), (entries or {}).items())
    if tested:
        bank.stop_waiting_for_bill(item(99))
    return bank


def billed(usd: float) -> ImageTask:
    return seen(COMPLETED, billing={"status": "settled", "cost_usd": str(usd)})


def test_what_is_about_to_be_bought_counts_before_its_image_task_does() -> None:
    bank = till(0.05)
    bank.reserve(FIRST)
    bank.reserve(SECOND)
    assert bank.usd == pytest.approx(0.05)
    with pytest.raises(BudgetExceeded):
        bank.reserve(THIRD)
    assert bank.usd == pytest.approx(0.05) and bank.cost(THIRD) == Cost()


def test_an_order_does_not_stand_in_its_own_way() -> None:
    bank = till(0.025)
    bank.reserve(FIRST)
    bank.reserve(FIRST)
    assert bank.usd == pytest.approx(0.025)


def test_what_was_not_accepted_is_taken_back() -> None:
    bank = till(0.025)
    bank.reserve(FIRST)
    bank.release(FIRST)
    assert bank.usd == 0
    bank.reserve(SECOND)
    assert bank.usd == pytest.approx(0.025)


def test_the_services_own_amount_takes_the_place_of_the_list_price() -> None:
    bank = till()
    bank.reserve(FIRST)
    bank.observe(FIRST, "a", seen(RUNNING))
    bank.release(FIRST)
    assert bank.cost(FIRST) == Cost(0.025, listed=True)
    bank.observe(FIRST, "a", seen(COMPLETED))
    said = bank.cost(FIRST)
    assert not said.listed and said.usd is not None and said.usd > 0
    assert bank.totals() == {"cost_usd": said.usd, "of_which_listed_usd": 0.0, "unpriced": 0}


def test_a_failed_image_task_gives_its_money_back() -> None:
    bank = till(0.025)
    bank.reserve(FIRST)
    bank.observe(FIRST, "a", seen(FAILED))
    bank.release(FIRST)
    assert bank.usd == 0
    bank.reserve(FIRST)
    assert bank.usd == pytest.approx(0.025)


def test_one_that_may_be_under_way_counts_at_list_price() -> None:
    bank = till()
    bank.observe(FIRST, "a", None)
    assert bank.cost(FIRST) == Cost(0.025, listed=True)


def test_a_lost_image_task_stays_sunk() -> None:
    bank = till()
    bank.observe(FIRST, "lost", None)
    bank.observe(FIRST, "now", None)
    assert bank.cost(FIRST).usd == pytest.approx(0.05)
    assert bank.ledger_fields(FIRST, "now") == {
        "cost": 0.025,
        "is_list_price": True,
        "sunk_cost": 0.025,
        "sunk_is_list_price": True,
    }
    assert bank.ledger_fields(FIRST, "lost")["cost"] == 0.025
    bank.reserve(FIRST)
    assert bank.ledger_fields(FIRST, "now")["sunk_cost"] == 0.025, "what is merely about to be bought is not sunk"


def test_a_ledger_brings_back_what_the_till_said() -> None:
    before = till()
    before.observe(FIRST, "lost", None)
    before.observe(FIRST, "now", seen(COMPLETED))
    entry = replace(submitted_entry(0), **before.ledger_fields(FIRST, "now"))
    after = till(entries={FIRST.key: entry})
    assert after.cost(FIRST) == before.cost(FIRST) and after.usd == before.usd


def test_what_nobody_wants_any_more_was_paid_all_the_same() -> None:
    bank = till(0.05, {"abandoned": landed_entry(0), "another": landed_entry(1)})
    assert bank.usd == pytest.approx(0.05)
    with pytest.raises(BudgetExceeded):
        bank.reserve(FIRST)


def test_an_image_without_a_price_is_counted_apart() -> None:
    bank = till()
    bank.observe(item(extra_body={"resolution": "8K"}), "a", None)
    assert bank.totals() == {"cost_usd": 0.0, "of_which_listed_usd": 0.0, "unpriced": 1}


# --- bills above the price list -------------------------------------------------------------------------------------


def waits(bank: CostTracker) -> bool:
    return bank.waits_for_bills


def test_before_the_first_bill_few_are_bought_on_trust() -> None:
    """Ten times the list price must still keep within the limit; the first is bought in any case."""
    wanted = items([f"picture {number}" for number in range(10)])
    bank = till(1.0, tested=False)
    for one in wanted[:4]:
        bank.reserve(one)
        bank.observe(one, one.key, seen(RUNNING))
        bank.release(one)
    with pytest.raises(Unbilled):
        bank.reserve(wanted[4])
    assert waits(bank) and bank.can_afford(wanted[4])
    bank.observe(wanted[0], wanted[0].key, billed(0.025))
    assert not waits(bank)
    bank.reserve(wanted[4])


@pytest.mark.parametrize("ends", ["landed", "given up", "refunded"])
def test_a_small_limit_lets_one_after_another_through_until_one_has_ended(ends: str) -> None:
    bank = till(0.1, tested=False)
    bank.reserve(FIRST)
    with pytest.raises(Unbilled):
        bank.reserve(SECOND)
    if ends == "landed":
        bank.observe(FIRST, "a", seen(COMPLETED, billing=None))
        bank.release(FIRST)
    elif ends == "given up":
        bank.observe(FIRST, "a", seen(RUNNING))
        bank.release(FIRST)
        bank.stop_waiting_for_bill(FIRST)
    else:
        bank.observe(FIRST, "a", seen(FAILED))
        bank.release(FIRST)
    bank.reserve(SECOND)


def test_the_highest_bill_counts_for_what_is_not_billed_yet() -> None:
    bank = till(0.5)
    for one in (FIRST, SECOND):
        bank.reserve(one)
        bank.observe(one, one.key, seen(RUNNING))
        bank.release(one)
    bank.observe(FIRST, FIRST.key, billed(0.2))
    with pytest.raises(BudgetExceeded):
        bank.reserve(THIRD)  # 0.2, 0.2 that are expected, and 0.2 more
    assert bank.usd == pytest.approx(0.225), "what is reported is what is known"
    bank.observe(SECOND, SECOND.key, billed(0.05))
    bank.reserve(THIRD)


def test_a_bill_below_the_list_price_lets_no_more_through() -> None:
    bank = till(0.05)
    bank.observe(FIRST, "a", billed(0.01))
    bank.reserve(SECOND)
    with pytest.raises(BudgetExceeded):
        bank.reserve(THIRD)


def test_a_bill_says_nothing_of_another_resolution_or_model() -> None:
    large, other = item(1, resolution="4K"), item(2, model="gemini-3.1-flash-image-official")
    bank = CostTracker(Budget(1.0, {other.request.model or "": {"1K": 0.025}}), [])
    bank.observe(FIRST, "a", billed(0.5))
    assert bank.can_afford(large) and bank.can_afford(other)
    bank.reserve(SECOND)
    assert not bank.can_afford(THIRD) and not bank.can_afford(large), "all of it is spent"


def test_bills_of_earlier_attempts_are_known() -> None:
    entry = replace(landed_entry(0), cost=0.134, is_list_price=False)
    bank = CostTracker(Budget(1.0), [(FIRST.key, entry)], [FIRST])
    bought = 0
    for one in items([f"picture {number}" for number in range(20)]):
        try:
            bank.reserve(one)
        except BudgetExceeded:
            break
        bought += 1
    assert bought == 6 and not bank.waits_for_bills


def test_without_a_limit_nothing_waits_for_a_bill() -> None:
    bank = till(tested=False)
    for one in items([f"picture {number}" for number in range(50)]):
        bank.reserve(one)
    assert not bank.waits_for_bills


def test_many_threads_do_not_pass_the_limit() -> None:
    wanted = items([f"picture {number}" for number in range(200)])
    bank, barrier = till(50 * 0.025), threading.Barrier(8)

    def buy(some: int) -> int:
        barrier.wait()
        bought = 0
        for one in wanted[some::8]:
            try:
                bank.reserve(one)
            except BudgetExceeded:
                continue
            bank.observe(one, one.key, None)
            bank.release(one)
            bought += 1
        return bought

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(buy, range(8))) == 50
    assert bank.usd == pytest.approx(50 * 0.025)
