"""Numbers, times and the account's answers: decimal texts, absent and absurd values."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.responses import Balance
from tests.support.responses import (
    BALANCE,
    BALANCE_CALL,
    COMPLETED,
    ID,
    MODEL_LIST,
    MODELS,
    NOW,
    STATUS,
    UPLOAD,
    UPLOADED,
    answer,
    image_task,
)


@pytest.mark.parametrize(
    ("billing", "status", "cost"),
    [
        ({"status": "settled", "credits": "5", "cost_usd": "0.025"}, "settled", 0.025),
        ({"status": "refunded", "credits": "0", "cost_usd": "0"}, "refunded", 0.0),
        ({"status": "pending"}, "pending", None),
        ({"status": "settled", "cost_usd": "much"}, "settled", None),
        ({"status": "settled", "cost_usd": "-1"}, "settled", None),
        ({"status": "settled", "cost_usd": "nan"}, "settled", None),
        ({"status": "settled", "cost_usd": True}, "settled", None),
        ({"status": "settled", "cost_usd": 0.04}, "settled", 0.04),
        ({"status": "settled", "cost_usd": "0.025 USD"}, "settled", 0.025),
        ({"status": "settled", "cost_usd": "$0.025"}, "settled", 0.025),
        ({"status": "settled", "cost_usd": "0.025 EUR"}, "settled", None),
        ({"status": "settled", "cost_usd": "0,025"}, "settled", None),
        ({"status": "settled", "cost_usd": "1_000"}, "settled", None),
        ({"status": "settled", "cost_usd": 1e308}, "settled", None),
        ({"status": "settled", "cost_usd": 1e9}, "settled", None),
        ({"status": "settled", "cost_usd": "1e400"}, "settled", None),
        ({"status": "settled", "cost_usd": 10**400}, "settled", None),
        ({"status": "settled", "cost_usd": [0.04]}, "settled", None),
    ],
)
def test_billing(billing: dict[str, Any], status: str, cost: float | None) -> None:
    task = image_task(billing=billing)
    assert task.billing is not None
    assert (task.billing.status, task.cost_usd) == (status, cost)


@pytest.mark.parametrize("billing", [None, "free", [], {}, {"cost_usd": "0"}])
def test_an_absent_bill_is_never_free(billing: Any) -> None:
    assert image_task(billing=billing).cost_usd is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1790000053, 1790000053.0),
        ("1790000053", 1790000053.0),
        (1790000053000, 1790000053.0),
        (0, None),
        (-5, None),
        ("2026-09-21", None),
        (True, None),
        (1e300, None),
        (10**400, None),
    ],
)
def test_times(value: Any, seconds: float | None) -> None:
    assert image_task(completed_at=value).completed_at == seconds


def test_a_bill_for_a_failed_image_task_is_kept() -> None:
    failed = STATUS.parse(
        answer(200, {"id": ID, "status": "failed", "billing": {"status": "settled", "cost_usd": 0.025}}), NOW
    )
    assert failed.cost_usd == 0.025


@pytest.mark.parametrize("value", [1e308, 1e13, "1e300", 10**300, float("inf"), float("nan"), True])
def test_absurd_credits_are_no_balance_and_every_balance_can_be_calculated_with(value: Any) -> None:
    with pytest.raises(ToApisError):
        BALANCE_CALL.parse(answer(200, {**BALANCE, "remain_credits": value}), NOW)
    odd = {**BALANCE, "remain_credits": 1e12, "credits_per_usd": 5e-324, "used_credits": value}
    left = BALANCE_CALL.parse(answer(200, odd), NOW)
    assert left.remain_usd == 5e9 and left.used_credits is None


@pytest.mark.parametrize(
    ("value", "progress"),
    [(101, None), (1e308, None), (40, 40.0), ("100%", 100.0), ("soon", None), (None, None), ([], None)],
)
def test_progress_is_informational(value: Any, progress: float | None) -> None:
    assert image_task(progress=value).progress == progress


def test_expiry_is_the_reported_one() -> None:
    assert image_task().expires(NOW) == COMPLETED["expires_at"]


def test_expiry_is_a_day_after_completion_when_it_is_absent() -> None:
    assert image_task(expires_at=None).expires(NOW) == COMPLETED["completed_at"] + 86_400
    assert image_task(expires_at=None, completed_at=None).expires(NOW) == NOW + 86_400


@pytest.mark.parametrize("nonsense", [1790000053, 1790000000, 1])
def test_an_expiry_before_completion_is_not_believed(nonsense: int) -> None:
    """An ``expires_at`` in the past on a fresh image task means a day after completion."""
    assert image_task(expires_at=nonsense).expires(NOW) == COMPLETED["completed_at"] + 86_400


def test_balance() -> None:
    left = BALANCE_CALL.parse(answer(200, BALANCE), NOW)
    assert left == Balance(remain_credits=300, used_credits=100, credits_per_usd=200, unlimited=False)
    assert left.remain_usd == 1.5


def test_an_unlimited_balance_is_no_amount() -> None:
    body = {**BALANCE, "unlimited_quota": True, "remain_balance": -1, "remain_credits": -200}
    left = BALANCE_CALL.parse(answer(200, body), NOW)
    assert left.unlimited and left.remain_usd is None


def test_a_balance_below_zero_is_no_credits() -> None:
    """Images are settled after they were made, so an account can owe; that is not an unreadable answer."""
    left = BALANCE_CALL.parse(answer(200, {**BALANCE, "remain_credits": -3}), NOW)
    assert left.remain_credits is not None and left.remain_credits <= 0


@pytest.mark.parametrize("rate", [0, -1, None, "x"])
def test_an_absurd_exchange_rate_falls_back_to_the_documented_one(rate: Any) -> None:
    assert BALANCE_CALL.parse(answer(200, {**BALANCE, "credits_per_usd": rate}), NOW).remain_usd == 1.5


@pytest.mark.parametrize("body", [{"success": False, "message": "no"}, {"success": True}, {"remain_balance": 3}])
def test_a_200_without_a_balance_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ToApisError) as caught:
        BALANCE_CALL.parse(answer(200, body), NOW)
    assert caught.value.http_status == 200


def test_model_ids() -> None:
    body = {**MODELS, "data": [*MODELS["data"], {"id": None}, "junk", {"id": "gemini-x"}]}
    assert MODEL_LIST.parse(answer(200, body), NOW) == ["nano_banana_2", "gemini-x"]


def test_no_models_at_all_is_an_empty_list() -> None:
    assert MODEL_LIST.parse(answer(200, {**MODELS, "data": []}), NOW) == []


def test_upload_url() -> None:
    assert UPLOAD.parse(answer(200, UPLOADED), NOW) == UPLOADED["data"]["url"]


@pytest.mark.parametrize("status", [200, 400])
def test_a_refused_upload_says_why(status: int) -> None:
    with pytest.raises(ToApisError, match="unsupported file type"):
        UPLOAD.parse(answer(status, {"success": False, "message": "unsupported file type"}), NOW)


def test_an_answer_to_an_unknown_status_keeps_the_service_s_word() -> None:
    task = STATUS.parse(answer(200, {"id": ID, "status": "reticulating"}), NOW)
    assert (task.wire_status, task.terminal) == ("reticulating", False)
