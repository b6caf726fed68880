"""What a part's numbers amount to, without any process."""

from __future__ import annotations

from typing import Any

import pytest

from tests.overlap.parts import PARTS
from tests.overlap.prompts import KILLED, KILLED_SUBMITS, MAPPED, batch
from tests.overlap.report import Outcome, as_text, outcome_of


def charge(prompt: str, refunded: bool = False) -> dict[str, Any]:
    return {"prompt": prompt, "charged_usd": 0.025, "refunded": refunded}


def result(*ids: str, **money: float) -> dict[str, Any]:
    return {"images": [{"id": one} for one in ids], "cost_usd": 0.025 * len(ids), **money}


def outcome(part: str, charges: list[dict[str, Any]], files: int, results: list[list[Any]], **more: Any) -> Outcome:
    facts: dict[str, Any] = {"failed": [], "stuck": [], "kills": 0, "seconds": 1.0, **more}
    return outcome_of(PARTS[part], [*charges, charge("of another part")], files, results, **facts)


def test_a_picture_paid_by_every_run_breaks_the_promise() -> None:
    one, two = batch("backfill")
    results = [[result("a", "b"), result("c", "d")]]
    five = outcome("backfill", [charge(one), charge(two), charge(one), charge(two)], 2, results)
    assert five.broken() == ["2 charges too many"]
    assert (five.charges, five.files, five.paid_usd, five.bank_usd) == (4, 2, 0.1, 0.1)
    shared = [[result("a", "b", paid_usd=0.05), result("a", "b", paid_usd=0)]]
    assert outcome("backfill", [charge(one), charge(two)], 2, shared).broken() == []
    assert "kept" in as_text("3.3.2", [outcome("backfill", [charge(one), charge(two)], 2, shared)])


def test_a_lost_race_is_a_charge_that_is_told() -> None:
    one, two = batch("backfill")
    charges = [charge(one), charge(two), charge(two), charge(two, refunded=True)]
    told = [[result("a", "b", paid_usd=0.075, lost_race=0.025)]]
    assert outcome("backfill", charges, 2, told).broken() == []
    untold = outcome("backfill", charges, 2, [[result("a", "b", paid_usd=0.05)]]).broken()
    assert untold == ["1 charges too many", "the tasks say 0.050 USD were paid"]


@pytest.mark.parametrize(("part", "faults"), [("apart", ["1 image tasks in both installations"]), ("together", [])])
def test_an_image_task_in_both_installations(part: str, faults: list[str]) -> None:
    charges = [charge(prompt) for prompt in batch(part) for _ in range(PARTS[part].wanted // 2)]
    ids = ["a", "b", "c", "d"][: PARTS[part].wanted]
    results = [[result(*ids, paid_usd=0.025 * len(ids))], [result("a", paid_usd=0)]]
    assert outcome(part, charges, PARTS[part].wanted, results).broken() == faults


def test_only_two_accounts_may_refuse_and_nobody_may_be_stuck() -> None:
    failed = {"failed": ["it says why"]}
    assert outcome("keys", [], 0, [[], []], **failed).broken() == []
    assert outcome("keys", [], 0, [[], []]).broken() == ["2 images lost"]
    assert outcome("together", [], 0, [[], []], **failed).broken() == ["2 images lost", "1 tasks failed"]
    assert "1 tasks stuck" in outcome("keys", [], 0, [[], []], stuck=["running"]).broken()


def test_the_submit_operator_hands_on_ids() -> None:
    charges = [charge(prompt) for prompt in KILLED_SUBMITS] * 2
    own = [[f"a{number}" for number in range(12)], [f"b{number}" for number in range(12)]]
    assert outcome("killed-submits", charges, 0, own).broken() == []
    taken = outcome("killed-submits", charges[:12], 0, [own[0], own[0]])
    assert (taken.files, taken.both) == (12, 12)
    assert taken.broken() == ["12 image tasks in both installations", "12 images lost"]


def test_what_is_wanted() -> None:
    assert {name: part.wanted for name, part in PARTS.items()} == {
        "backfill": 2,
        "scheduled": 2,
        "mapped": 10,
        "apart": 4,
        "together": 2,
        "keys": 2,
        "killed": 24,
        "killed-together": 12,
        "killed-submits": 24,
    }
    assert len(MAPPED) == 30
    assert len(KILLED) == 12
