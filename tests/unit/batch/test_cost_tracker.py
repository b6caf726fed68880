"""CostTracker: every image task of an item counts, what is refunded does not, and the limit is never passed."""

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

#: The totals of a batch that cost nothing.
NOTHING = {"cost_usd": 0.0, "paid_usd": 0.0, "lost_race": 0.0, "of_which_listed_usd": 0.0, "unpriced": 0}
FIRST, SECOND, THIRD = items(["first", "second", "third"])


def seen(body: dict[str, Any], **changes: Any) -> ImageTask:
    return STATUS.parse(response(200, {**body, **changes}), NOW)


def tracker(
    max_cost_usd: float | None = None, entries: dict[str, LedgerEntry] | None = None, *, tested: bool = True
) -> CostTracker:
    """Return a tracker that has seen, or not, that an image of the usual kind costs what the price list says."""
    costs = CostTracker(Budget(max_cost_usd), (entries or {}).items())
    if tested:
        costs.stop_waiting_for_bill(item(99))
    return costs


def billed(usd: float) -> ImageTask:
    return seen(COMPLETED, billing={"status": "settled", "cost_usd": str(usd)})


def test_what_is_about_to_be_bought_counts_before_its_image_task_does() -> None:
    costs = tracker(0.05)
    costs.reserve(FIRST)
    costs.reserve(SECOND)
    assert costs.paid_usd == pytest.approx(0.05)
    with pytest.raises(BudgetExceeded):
        costs.reserve(THIRD)
    assert costs.paid_usd == pytest.approx(0.05) and costs.spent(THIRD).paid == Cost()


def test_an_item_does_not_stand_in_its_own_way() -> None:
    costs = tracker(0.025)
    costs.reserve(FIRST)
    costs.reserve(FIRST)
    assert costs.paid_usd == pytest.approx(0.025)


def test_what_was_not_accepted_is_taken_back() -> None:
    costs = tracker(0.025)
    costs.reserve(FIRST)
    costs.release(FIRST)
    assert costs.paid_usd == 0
    costs.reserve(SECOND)
    assert costs.paid_usd == pytest.approx(0.025)


def test_the_services_own_amount_takes_the_place_of_the_list_price() -> None:
    costs = tracker()
    costs.reserve(FIRST)
    costs.observe(FIRST, "a", seen(RUNNING))
    costs.release(FIRST)
    assert costs.spent(FIRST).cost == Cost(0.025, listed=True)
    costs.observe(FIRST, "a", seen(COMPLETED))
    said = costs.spent(FIRST).cost
    assert not said.listed and said.usd is not None and said.usd > 0
    assert costs.totals() == {**NOTHING, "cost_usd": said.usd, "paid_usd": said.usd}


def test_a_failed_image_task_gives_its_money_back() -> None:
    costs = tracker(0.025)
    costs.reserve(FIRST)
    costs.observe(FIRST, "a", seen(FAILED))
    costs.release(FIRST)
    assert costs.paid_usd == 0
    costs.reserve(FIRST)
    assert costs.paid_usd == pytest.approx(0.025)


def test_one_that_may_be_under_way_counts_at_list_price() -> None:
    costs = tracker()
    costs.observe(FIRST, "a", None)
    assert costs.spent(FIRST).cost == Cost(0.025, listed=True)


def test_a_lost_image_task_stays_sunk() -> None:
    costs = tracker()
    costs.observe(FIRST, "lost", None)
    costs.observe(FIRST, "now", None)
    assert costs.spent(FIRST).cost.usd == pytest.approx(0.05)
    assert costs.ledger_fields(FIRST, "now") == {
        "cost": 0.025,
        "is_list_price": True,
        "shared": False,
        "lost_races": (),
        "sunk_cost": 0.025,
        "sunk_is_list_price": True,
    }
    assert costs.ledger_fields(FIRST, "lost")["cost"] == 0.025
    costs.reserve(FIRST)
    assert costs.ledger_fields(FIRST, "now")["sunk_cost"] == 0.025, "what is merely about to be bought is not sunk"


def test_a_ledger_brings_back_what_the_tracker_knew() -> None:
    before = tracker()
    before.observe(FIRST, "lost", None)
    before.observe(FIRST, "now", seen(COMPLETED))
    entry = replace(submitted_entry(0), **before.ledger_fields(FIRST, "now"))
    after = tracker(entries={FIRST.key: entry})
    assert after.spent(FIRST) == before.spent(FIRST) and after.paid_usd == before.paid_usd


def test_what_nobody_wants_any_more_was_paid_all_the_same() -> None:
    costs = tracker(0.05, {"abandoned": landed_entry(0), "another": landed_entry(1)})
    assert costs.paid_usd == pytest.approx(0.05)
    with pytest.raises(BudgetExceeded):
        costs.reserve(FIRST)


def test_an_image_without_a_price_is_counted_apart() -> None:
    costs = tracker()
    costs.observe(item(extra_body={"resolution": "8K"}), "a", None)
    assert costs.totals() == {**NOTHING, "unpriced": 1}


# --- bills above the price list -------------------------------------------------------------------------------------


def waits(costs: CostTracker) -> bool:
    return costs.waits_for_bills


def test_before_the_first_bill_few_are_bought_on_trust() -> None:
    """Ten times the list price must still keep within the limit; the first is bought in any case."""
    wanted = items([f"picture {number}" for number in range(10)])
    costs = tracker(1.0, tested=False)
    for one in wanted[:4]:
        costs.reserve(one)
        costs.observe(one, one.key, seen(RUNNING))
        costs.release(one)
    with pytest.raises(Unbilled):
        costs.reserve(wanted[4])
    assert waits(costs) and costs.can_afford(wanted[4])
    costs.observe(wanted[0], wanted[0].key, billed(0.025))
    assert not waits(costs)
    costs.reserve(wanted[4])


@pytest.mark.parametrize("ends", ["landed", "given up", "refunded"])
def test_a_small_limit_lets_one_after_another_through_until_one_has_ended(ends: str) -> None:
    costs = tracker(0.1, tested=False)
    costs.reserve(FIRST)
    with pytest.raises(Unbilled):
        costs.reserve(SECOND)
    if ends == "landed":
        costs.observe(FIRST, "a", seen(COMPLETED, billing=None))
        costs.release(FIRST)
    elif ends == "given up":
        costs.observe(FIRST, "a", seen(RUNNING))
        costs.release(FIRST)
        costs.stop_waiting_for_bill(FIRST)
    else:
        costs.observe(FIRST, "a", seen(FAILED))
        costs.release(FIRST)
    costs.reserve(SECOND)


def test_the_highest_bill_counts_for_what_is_not_billed_yet() -> None:
    costs = tracker(0.5)
    for one in (FIRST, SECOND):
        costs.reserve(one)
        costs.observe(one, one.key, seen(RUNNING))
        costs.release(one)
    costs.observe(FIRST, FIRST.key, billed(0.2))
    with pytest.raises(BudgetExceeded):
        costs.reserve(THIRD)  # 0.2, 0.2 that are expected, and 0.2 more
    assert costs.paid_usd == pytest.approx(0.225), "what is reported is what is known"
    costs.observe(SECOND, SECOND.key, billed(0.05))
    costs.reserve(THIRD)


def test_a_bill_below_the_list_price_lets_no_more_through() -> None:
    costs = tracker(0.05)
    costs.observe(FIRST, "a", billed(0.01))
    costs.reserve(SECOND)
    with pytest.raises(BudgetExceeded):
        costs.reserve(THIRD)


def test_a_bill_says_nothing_of_another_resolution_or_model() -> None:
    large, other = item(1, resolution="4K"), item(2, model="gemini-3.1-flash-image-official")
    costs = CostTracker(Budget(1.0, {other.request.model or "": {"1K": 0.025}}), [])
    costs.observe(FIRST, "a", billed(0.5))
    assert costs.can_afford(large) and costs.can_afford(other)
    costs.reserve(SECOND)
    assert not costs.can_afford(THIRD) and not costs.can_afford(large), "all of it is spent"


def test_bills_of_earlier_attempts_are_known() -> None:
    entry = replace(landed_entry(0), cost=0.134, is_list_price=False)
    costs = CostTracker(Budget(1.0), [(FIRST.key, entry)], [FIRST])
    bought = 0
    for one in items([f"picture {number}" for number in range(20)]):
        try:
            costs.reserve(one)
        except BudgetExceeded:
            break
        bought += 1
    assert bought == 6 and not costs.waits_for_bills


def test_without_a_limit_nothing_waits_for_a_bill() -> None:
    costs = tracker(tested=False)
    for one in items([f"picture {number}" for number in range(50)]):
        costs.reserve(one)
    assert not costs.waits_for_bills


def test_many_threads_do_not_pass_the_limit() -> None:
    wanted = items([f"picture {number}" for number in range(200)])
    costs, barrier = tracker(50 * 0.025), threading.Barrier(8)

    def buy(some: int) -> int:
        barrier.wait()
        bought = 0
        for one in wanted[some::8]:
            try:
                costs.reserve(one)
            except BudgetExceeded:
                continue
            costs.observe(one, one.key, None)
            costs.release(one)
            bought += 1
        return bought

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(buy, range(8))) == 50
    assert costs.paid_usd == pytest.approx(50 * 0.025)
