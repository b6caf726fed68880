"""What a batch may spend: the limit, the estimate, the account's balance."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch.budget import Budget, Estimate, check_balance
from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.responses import Balance
from tests.support.batch import items

GEMINI = "gemini-3.1-flash-image-preview"
UNPRICED = {"prompt": "a", "resolution": "0.5K", "model": GEMINI}


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "5", True, Decimal(5), [1]])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="give a number of USD above 0, or None") as caught:
        Budget(limit)
    assert "nothing was charged" in caught.value.message


def buy(budget: Budget, wanted: list[Any], paid: float = 0.0) -> tuple[int, float]:
    """Buy in order until the budget says stop, at list prices; return how many, and what is paid in all."""
    spent = Cost(paid)
    for number, o in enumerate(wanted):
        if not budget.may_buy(o, spent.usd or 0.0):
            return number, spent.usd or 0.0
        spent = spent.plus(Cost(budget.price(o), listed=True))
    return len(wanted), spent.usd or 0.0


@pytest.mark.parametrize(("limit", "bought"), [(0.075, 3), (0.0749, 2), (0.1, 4), (0.3, 12), (0.024, 0), (100, 50)])
def test_the_limit_is_reached_to_the_cent_and_never_passed(limit: float, bought: int) -> None:
    """0.1 + 0.2 is not 0.3 in floats; here three times 0.025 is 0.075."""
    wanted = items(["a"] * 50)
    number, usd = buy(Budget(limit), wanted)
    assert number == bought and usd <= limit
    assert Budget(limit).estimate(wanted).within_images == bought


@given(st.lists(st.sampled_from(["1K", "2K", "4K"]), max_size=30), st.integers(1, 10**6), st.integers(0, 10**6))
def test_the_estimate_says_where_the_limit_will_stop(sizes: list[str], limit: int, paid: int) -> None:
    wanted = items([{"prompt": "a", "resolution": size} for size in sizes])
    budget, before = Budget(limit / 10**6), paid / 10**6
    estimate = budget.estimate(wanted, before)
    number, usd = buy(budget, wanted, before)
    assert estimate.within_images == number
    assert usd == pytest.approx(before + estimate.within_usd)
    assert usd <= max(budget.max_cost_usd or 0, before)


def test_a_cheaper_request_behind_the_one_that_would_pass_is_not_bought() -> None:
    wanted = items([{"prompt": "a", "resolution": "4K"}, {"prompt": "b", "resolution": "4K"}, "c"])
    assert Budget(0.07).estimate(wanted) == Estimate(3, 0.105, 0, 1, 0.04)


def test_earlier_attempts_count() -> None:
    wanted = items(["a"] * 10)
    assert Budget(1.0).estimate(wanted, 0.9).within_images == 4
    assert Budget(1.0).estimate(wanted, 1.2).within_images == 0


def test_without_a_limit_an_unknown_price_is_only_counted() -> None:
    wanted = items(["a", UNPRICED])
    assert Budget().estimate(wanted) == Estimate(2, 0.025, 1, 2, 0.025)
    assert Budget().may_buy(wanted[1], 0.0)


def test_with_a_limit_an_unknown_price_is_refused_and_the_cure_named() -> None:
    wanted = items(["a", UNPRICED])
    for ask in (lambda: Budget(5).estimate(wanted), lambda: Budget(5).may_buy(wanted[1], 0.0)):
        with pytest.raises(errors.InvalidRequest, match='extra "prices"') as caught:
            ask()
        assert "#1" in caught.value.message and "0.5K" in caught.value.message
        assert "nothing charged" in caught.value.message
    assert Budget(5, {"0.5K": 0.01}).estimate(wanted).total_usd == 0.035


def test_of_a_model_whose_row_is_gone_the_row_is_asked_for_and_not_its_price() -> None:
    (bought,) = items(["a"])
    stored = replace(bought, request=bought.request.model_copy(update={"model": "mine"}).with_models(None))
    with pytest.raises(errors.InvalidRequest, match=r'"models":\{"mine"') as caught:
        Budget(5).estimate([stored])
    assert 'extra "prices"' not in caught.value.message


def test_the_estimate_in_words() -> None:
    wanted = items(["a"] * 2000)
    assert Budget().estimate(wanted).line() == "Estimate: 2,000 images to buy, $50.00 at list prices."
    assert Budget(10).estimate(wanted).line().endswith("; max_cost_usd stops after 400 of them, $10.00.")
    assert "1 image without a known price" in Budget().estimate(items(UNPRICED)).line()


# --- the account ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "enough"),
    [
        (Balance(remain_credits=20), True),
        (Balance(remain_credits=19.999), False),
        (Balance(remain_credits=0), False),
        (Balance(remain_credits=0, unlimited=True), True),
        (Balance(remain_credits=10, credits_per_usd=100), True),
    ],
)
def test_the_account_must_hold_what_will_be_bought(balance: Balance, enough: bool) -> None:
    estimate = Budget().estimate(items(["a"] * 4))
    if enough:
        check_balance(balance, estimate)
        return
    with pytest.raises(errors.InsufficientCredits, match=r"4 images to buy: \$0\.10 ") as caught:
        check_balance(balance, estimate)
    assert caught.value.charged == "no" and not caught.value.retryable
    assert "submitted nothing" in caught.value.message and "preflight_balance=False" in caught.value.message


def test_only_what_the_limit_lets_through_must_be_there() -> None:
    check_balance(Balance(remain_credits=10), Budget(0.05).estimate(items(["a"] * 1000)))
