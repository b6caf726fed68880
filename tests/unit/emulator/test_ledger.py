"""TaskLedger: an emulator that runs for weeks keeps the newest image tasks, and counts all of them."""

from __future__ import annotations

import random

import pytest

from airflow_provider_nanobanana.emulator import ledger as ledger_module
from airflow_provider_nanobanana.emulator.ledger import Failure, TaskLedger
from airflow_provider_nanobanana.emulator.requests import Submission


def test_beyond_its_bound_the_oldest_is_forgotten_and_the_totals_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_IMAGE_TASKS", 10)
    ledger = TaskLedger(random.Random(1))
    for number in range(25):
        client_id = f"client-{number // 2}" if number % 3 else None
        task = ledger.accept(Submission("m", f"prompt {number}", client_business_id=client_id), float(number), 1.0)
        if number % 5 == 0:
            ledger.fail(task, Failure("x", "y", "object"), float(number))
    said = ledger.as_dict(100.0)
    assert len(ledger.image_tasks) == len(said["image_tasks"]) == 10
    assert (said["count"], said["by_status"]) == (25, {"completed": 20, "failed": 5})
    price = said["charged_usd"] / 25
    assert said["net_usd"] == pytest.approx(20 * price) and said["refunded_usd"] == pytest.approx(5 * price)
    assert {task.id for found in ledger.by_client_id.values() for task in found} <= ledger.image_tasks.keys()
    assert ledger.find("client-0", 100.0, 0.0) is None and ledger.find("client-12", 100.0, 0.0) is None
    assert ledger.find("client-11", 100.0, 0.0) is not None


def test_long_prompts_are_bounded_together_and_the_newest_is_kept_whatever_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PROMPT_CHARACTERS", 1000)
    ledger = TaskLedger(random.Random(1))
    for length in (400, 400, 400, 5000, 10):
        newest = ledger.accept(Submission("m", "x" * length), 0.0, 1.0)
        assert newest.id in ledger.image_tasks
        assert len(ledger.image_tasks) == 1 or ledger.prompt_characters <= 1000
        assert ledger.prompt_characters == sum(len(task.prompt) for task in ledger.image_tasks.values())
    assert ledger.as_dict(5.0)["count"] == 5
