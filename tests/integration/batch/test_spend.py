"""``spend`` beside the bank: what the files at a destination tell is what was charged, to the cent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.emulator import Emulator
from tests.integration.batch.harness import GenerateTask


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


def test_what_two_runs_share_is_paid_by_the_one_that_bought_it(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    batch.next_run("monday")
    batch.attempt(requests=["a kite"], timeout=1)
    batch.next_run("tuesday")
    assert batch.attempt(requests=["a kite", "a boat"]).error is None
    shown = Shown(capsys, batch)
    assert shown.paid == bank(batch.emulator) == 0.05
    assert shown.totals == {"paid_usd": 0.05, "of_which_listed_usd": 0.025, "missing": 1, "shared": 1, "bought": 1}
    assert shown.runs == {"monday": 0.025, "tuesday": 0.025}
    assert shown.claims == []


def test_a_killed_run_is_counted_by_its_books_until_it_writes_its_manifest(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    requests = ["a kite", {"prompt": "a boat", "resolution": "4K"}]
    # One each: until it is known that the service finds what was bought.
    batch.attempt(requests=requests, crash_on=("before interim manifest", 1))
    shown = Shown(capsys, batch)
    assert shown.paid == bank(batch.emulator) == 0.065
    assert shown.totals == {"paid_usd": 0.065, "of_which_listed_usd": 0.065, "booked": 2}
    assert len(shown.claims) == 2
    assert all(claim["retry"].startswith("asks the service: if it is there, uses it") for claim in shown.claims)
    assert batch.attempt(requests=requests).error is None
    shown = Shown(capsys, batch)
    assert shown.paid == bank(batch.emulator) == 0.065
    assert shown.totals == {"paid_usd": 0.065, "bought": 2} and shown.claims == []


def test_a_run_at_work_is_counted_by_the_manifest_that_grows(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch, at_work = with_store, []
    batch.on_pause = lambda: at_work.append((Shown(capsys, batch), bank(batch.emulator), batch.manifest["finished"]))
    for clear in (False, True):
        batch.attempt(requests=["a kite", {"prompt": "a boat", "resolution": "4K"}, "a shoe" if clear else "a hat"])
        batch.clear()
    assert at_work and not any(finished for _, _, finished in at_work)
    assert [shown.paid for shown, _, _ in at_work] == [charged for _, charged, _ in at_work]
    assert all("booked" not in shown.totals for shown, _, _ in at_work)
    assert Shown(capsys, batch).paid == bank(batch.emulator) == 0.115


@pytest.mark.parametrize("crash_at", range(1, 60, 4))
def test_a_run_that_was_killed_is_never_counted_twice(
    quick: GenerateTask, capsys: pytest.CaptureFixture[str], crash_at: int
) -> None:
    batch = quick
    for attempt in range(3):
        batch.attempt(requests=["a kite", "a boat", "a hat"], crash_at=crash_at + attempt)
        if any(batch.folder.glob("manifest-*")) or any(batch.folder.glob(".nanobanana/books/*")):
            assert Shown(capsys, batch).totals.get("paid_usd", 0) <= bank(batch.emulator)
    assert batch.attempt(requests=["a kite", "a boat", "a hat"]).error is None
    assert Shown(capsys, batch).paid == bank(batch.emulator) == 0.075


def test_a_run_that_is_made_again_pays_nothing_and_what_the_first_one_paid_is_not_forgotten(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = with_store
    batch.attempt(requests=["a kite"])
    batch.next_run(batch.run_id)
    assert batch.attempt(requests=["a kite"]).result["reused"] == 1
    assert Shown(capsys, batch).paid == bank(batch.emulator) == 0.025


@pytest.mark.parametrize("crash_at", range(1, 40, 3))
def test_wherever_a_run_is_killed_and_goes_on_the_sum_is_the_banks_in_the_end(
    quick: GenerateTask, capsys: pytest.CaptureFixture[str], crash_at: int
) -> None:
    """Also on an Airflow that remembers nothing between attempts."""
    batch = quick
    requests = ["a kite", "a boat", "a hat"]
    batch.attempt(requests=requests, crash_at=crash_at)
    assert batch.attempt(requests=requests).error is None
    assert Shown(capsys, batch).paid == bank(batch.emulator) == 0.075


def test_new_versions_and_a_clear_after_them_are_counted_once(
    with_store: GenerateTask, capsys: pytest.CaptureFixture[str]
) -> None:
    batch, requests = with_store, [{"prompt": "a mug", "name": "mug"}, {"prompt": "a hat", "name": "hat"}]
    batch.attempt(requests=requests)
    first = batch.store, batch.tries
    for run_id in ("tuesday", "wednesday"):
        batch.next_run(run_id)
        batch.attempt(requests=requests, redo=["mug"])
    shown = Shown(capsys, batch)
    assert shown.paid == bank(batch.emulator) == 0.1
    assert shown.runs == {"run": 0.05, "tuesday": 0.025, "wednesday": 0.025}
    batch.next_run("run")
    batch.store, batch.tries = first
    batch.clear()
    run = batch.attempt(requests=requests)
    assert run.result["reused"] == 1 and run.result["paid_usd"] == 0.05
    assert Shown(capsys, batch).paid == bank(batch.emulator) == 0.1
