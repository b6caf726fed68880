"""Money: exact sums, a limit that holds, and costs that are never guessed to be nothing."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch.costs import (
    MILLION,
    Charge,
    Cost,
    Spent,
    Whose,
    format_usd,
    micros,
    price,
    totals,
)
from tests.support.batch import item, items
from tests.support.responses import COMPLETED, FAILED, NOW, RUNNING, STATUS, response

costs = st.builds(Cost, st.integers(0, 10**8).map(lambda amount: amount / MILLION), st.booleans())
GEMINI = "gemini-3.1-flash-image-preview"
UNPRICED = {"prompt": "a", "resolution": "0.5K", "model": GEMINI}


def cost(body: dict[str, Any], list_price: float | None = 0.03, **changes: Any) -> Cost:
    return Cost.of(STATUS.parse(response(200, {**body, **changes}), NOW), list_price)


@pytest.mark.parametrize(
    ("fields", "usd"),
    [
        ({}, 0.025),
        ({"resolution": "2K"}, 0.030),
        ({"resolution": "4K"}, 0.040),
        ({"extra_body": {"resolution": "4K"}}, 0.040),
        ({"extra_body": {"metadata": {"resolution": "2K"}}, "model": GEMINI}, 0.030),
        ({"resolution": "2K", "model": GEMINI, "extra_body": {"metadata": {"seed": 1}}}, 0.030),
        ({"extra_body": {"resolution": "8K"}}, None),
        ({"resolution": "0.5K", "model": GEMINI}, None),
    ],
)
def test_the_price_is_that_of_the_resolution_which_is_sent(fields: dict[str, Any], usd: float | None) -> None:
    assert price(item(**fields)) == usd


def test_the_accounts_own_prices_win() -> None:
    assert [price(o, {"1K": 0.02, "0.5K": 0.01}) for o in (item(), item(resolution="2K"), *items(UNPRICED))] == [
        0.02,
        0.03,
        0.01,
    ]


@pytest.mark.parametrize(
    ("usd", "text"),
    [(0, "$0.00"), (0.025, "$0.025"), (0.5, "$0.50"), (1234.5, "$1,234.50"), (50.0, "$50.00"), (1e-6, "$0.000001")],
)
def test_amounts_are_written_as_people_read_them(usd: float, text: str) -> None:
    assert format_usd(usd) == text


# --- what it has cost -----------------------------------------------------------------------------------------------


def test_a_reported_cost_is_real_and_anything_else_is_the_list_price() -> None:
    assert cost(COMPLETED) == Cost(0.025)
    assert cost(COMPLETED, billing=None) == cost(COMPLETED, billing={"status": "settled"}) == Cost(0.03, listed=True)
    assert cost(RUNNING) == Cost(0.03, listed=True)
    assert cost(COMPLETED, billing={"status": "pending", "cost_usd": "0"}) == Cost(0.03, listed=True)
    assert cost(COMPLETED, None, billing=None) == Cost(None, listed=True)
    assert Cost.of(None, 0.03) == Cost(0.03, listed=True)


def test_what_failed_is_refunded_unless_the_service_says_otherwise() -> None:
    assert cost(FAILED) == cost(FAILED, billing=None) == Cost(0.0)
    assert cost(FAILED, billing={"status": "settled", "cost_usd": "0.01"}) == Cost(0.01)
    assert cost(FAILED, status="expired", billing=None) == Cost(0.03, listed=True)


def test_a_picture_that_was_lost_and_bought_again_has_cost_both() -> None:
    assert Cost(0.1).plus(Cost(0.2)) == Cost(0.3)
    assert Cost(0.025).plus(Cost(0.03, listed=True)) == Cost(0.055, listed=True)
    assert Cost(0.025).plus(Cost(None, listed=True)) == Cost(None, listed=True)


# --- who paid -------------------------------------------------------------------------------------------------------

NOTHING = {"cost_usd": 0.0, "paid_usd": 0.0, "lost_race": 0.0, "of_which_listed_usd": 0.0, "unpriced": 0}


def test_what_others_bought_is_a_cost_and_not_paid_here() -> None:
    spent = Spent.on([Charge(Cost(0.03, listed=True), "shared"), Charge(Cost(0.025))])
    assert (spent.cost, spent.paid, spent.lost_race) == (Cost(0.055, listed=True), Cost(0.025), Cost())


def test_a_lost_race_is_paid_here_and_no_cost_of_the_image() -> None:
    spent = Spent.on([Charge(Cost(0.03, listed=True), "lost_race"), Charge(Cost(0.025), "shared")])
    assert (spent.cost, spent.paid) == (Cost(0.025), Cost(0.03, listed=True)) and spent.listed
    assert spent.lost_race == spent.paid


def test_what_has_no_price_is_in_no_sum_and_counted_once() -> None:
    unknown = Cost(None, listed=True)
    spent = [Spent.on([Charge(unknown, whose)]) for whose in get_args(Whose)]
    assert totals(spent) == {**NOTHING, "unpriced": 3}


@given(st.lists(st.lists(st.builds(Charge, costs, st.sampled_from(get_args(Whose))), max_size=4)))
def test_the_sums_are_exact_to_a_millionth(charges: list[list[Charge]]) -> None:
    def exact(*whose: str) -> float:
        return sum(micros(one.cost.usd or 0.0) for some in charges for one in some if one.whose in whose) / MILLION

    every = totals(Spent.on(some) for some in charges)
    assert every["cost_usd"] == exact("ours", "shared") and every["paid_usd"] == exact("ours", "lost_race")
    assert every["lost_race"] == exact("lost_race") and every["of_which_listed_usd"] <= every["cost_usd"]


def test_ten_thousand_images_cost_what_they_cost() -> None:
    spent = [Spent.on([Charge(Cost(0.025, listed=True))])] * 10_000
    assert totals(spent) == {**NOTHING, "cost_usd": 250.0, "paid_usd": 250.0, "of_which_listed_usd": 250.0}
