"""``spend`` beside the bank: what the files at a destination tell is what was charged, to the cent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.durable.claims import BookEntry
from airflow_provider_nanobanana.emulator import Emulator
from tests.integration.batch.harness import GenerateTask
from tests.support.claims import BUYER, claim, write_book, write_claim


def bank(emulator: Emulator) -> float:
    """Return what the account was charged, refunds taken off."""
    charged: float = sum(task["charged_usd"] for task in emulator.ledger()["image_tasks"] if not task["refunded"])
    return round(charged, 6)


class Shown:
    """What the command prints of a destination."""

    def __init__(self, capsys: pytest.CaptureFixture[str], batch: GenerateTask, status: int = 0) -> None:
        capsys.readouterr()
        by = [word for name in ("run", "request", "model", "day") for word in ("--by", name)]
        assert main(["spend", batch.folder.as_uri(), "--json", *by]) == status
        content: dict[str, Any] = json.loads(capsys.readouterr().out)
        self.totals = {name: value for name, value in content["totals"].items() if value}
        self.runs = {row["run"]: row["paid_usd"] for row in content["by"]["run"]}
        self.requests = {row["request"]: row["paid_usd"] for row in content["by"]["request"]}
        self.claims = content["open_claims"]
        for rows in content["by"].values():
            assert round(sum(row["paid_usd"] for row in rows), 6) == content["totals"]["paid_usd"]

    @property
    def paid(self) -> float:
        paid: float = self.totals["paid_usd"]
        return paid


def test_a_week_of_runs_comes_to_what_the_bank_says(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    dear = {"prompt": "a boat", "resolution": "4K", "name": "boat"}
    for run_id, requests in (
        ("monday", ["a kite", dear, "a hat [[fail]]"]),
        ("tuesday", ["a kite", dear, "a hat", "a shoe"]),
        ("wednesday", ["a shoe", "a glove"]),
    ):
        batch.next_run(run_id)
        batch.attempt(requests=requests, allow_partial=True)
    shown = Shown(capsys, batch)
    assert shown.paid == bank(batch.emulator) == 0.14
    assert shown.totals == {"paid_usd": 0.14, "bought": 5, "reused": 3, "refunded": 1}
    assert shown.runs == {"monday": 0.065, "tuesday": 0.05, "wednesday": 0.025}
    assert shown.requests == {"boat": 0.04, "a kite": 0.025, "a hat": 0.025, "a shoe": 0.025, "a glove": 0.025} | {
        "a hat [[fail]]": 0.0
    }


def test_a_retry_and_a_clear_with_another_list_write_the_manifest_anew_and_forget_no_money(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    batch.attempt(requests=["a kite", "a boat", "a hat [[fail]]"])
    assert Shown(capsys, batch).paid == bank(batch.emulator) == 0.05
    batch.attempt(requests=["a kite", "a boat", "a hat [[fail]]"])
    assert Shown(capsys, batch).paid == bank(batch.emulator) == 0.05
    batch.clear()
    batch.attempt(requests=["a kite", "a shoe"])
    shown = Shown(capsys, batch)
    assert shown.paid == bank(batch.emulator) == 0.075
    assert shown.totals == {"paid_usd": 0.075, "earlier_usd": 0.025, "bought": 2}


def test_what_is_lost_and_bought_again_counts_twice(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    batch.attempt(requests=["a kite"], timeout=1)
    batch.clock.sleep(30 * 3600)
    batch.attempt(requests=["a kite"], on_expired="resubmit")
    shown = Shown(capsys, batch)
    assert shown.totals["paid_usd"] == bank(batch.emulator) == 0.05
    assert shown.totals["bought"] == 1


def test_the_books_of_a_run_that_was_killed_are_counted_until_its_manifest_is_there(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    batch.attempt(requests=["a kite"])
    (image,) = batch.manifest["images"]
    by = BUYER.model_copy(update={"dag_id": "dag", "run_id": batch.run_id})
    write_book(batch.folder, {f"{image['key']}.g0": BookEntry("bought", image["id"])}, buyer=by)
    assert Shown(capsys, batch).totals == {"paid_usd": 0.025, "bought": 1}
    (manifest,) = batch.folder.glob("manifest-*")
    manifest.unlink()
    shown = Shown(capsys, batch)
    assert shown.totals == {"paid_usd": 0.025, "of_which_listed_usd": 0.025, "booked": 1}
    assert shown.runs == {batch.run_id: 0.025}


def test_a_claim_is_open_until_its_file_is_in_place(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    batch.attempt(requests=["a kite"])
    (image,) = batch.manifest["images"]
    made = claim(image["key"], digest=image["digest"])
    write_claim(batch.folder, made)
    assert Shown(capsys, batch).claims == []
    (picture,) = batch.folder.glob("*.png")
    picture.unlink()
    (shown,) = Shown(capsys, batch).claims
    assert (shown["stem"], shown["client_business_id"]) == (image["key"], made.client_business_id)
