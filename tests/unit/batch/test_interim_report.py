"""What a manifest says of a batch at work: each item in one list, and all that is paid, once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.cost_tracker import CostTracker
from airflow_provider_nanobanana.batch.interim_report import interim_report
from airflow_provider_nanobanana.batch.outcome import FailedItem
from airflow_provider_nanobanana.batch.spend import summarise
from airflow_provider_nanobanana.batch.spend_records import manifest_records
from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.toapis.failure_codes import ImageTaskFailure, failure_code
from tests.support.batch import bought_by, in_place, item, items, make_state, note_image_task
from tests.support.manifests import manifest_faults
from tests.support.responses import FAILED, NOW

RUN = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1}


class _References:
    def __init__(self) -> None:
        self.prepared: dict[str, str] = {}


def state_of(number: int, **options: Any) -> BatchState:
    state = make_state([item(n) for n in range(number)], **options)
    state.references = _References()  # type: ignore[assignment]
    return state


def manifest_of(state: BatchState) -> dict[str, Any]:
    report = interim_report(state)
    assert report is not None
    content = report.manifest(run=RUN, destination="s3://bucket", now=NOW, finished=False)
    assert manifest_faults(content) == []
    assert len(state.items) == (
        content["count"] + content["failed_count"] + len(content["under_way"]) + content["waiting"]
    )
    return content


def paid(content: dict[str, Any]) -> float:
    return summarise(manifest_records(content, "s3://bucket").records).totals.paid / 1_000_000


def intend(state: BatchState, index: int) -> None:
    """Do what comes before a POST."""
    one = state.items[index]
    state.costs.reserve(one)
    intent = state.attempt.intent(state.identity(one, 0), 0, client_ids=True, may_leave_at=NOW)
    state.ledger.put_record(one.key, intent)


def buy(state: BatchState, index: int, **changes: Any) -> str:
    image_task_id = f"tsk_{index}"
    note_image_task(state, state.items[index], bought_by(image_task_id), **changes)
    return image_task_id


def test_what_is_being_bought_waits_and_is_not_paid() -> None:
    state = state_of(2)
    intend(state, 0)
    content = manifest_of(state)
    assert (content["waiting"], content["under_way"], content["paid_usd"]) == (2, [], 0)
    assert content["finished"] is False


def test_what_is_bought_is_named_with_its_money() -> None:
    state = state_of(2)
    intend(state, 0)
    buy(state, 0)
    content = manifest_of(state)
    (one,) = content["under_way"]
    assert (one["id"], one["paid_usd"], one["shared"], one["request"]) == ("tsk_0", 0.025, False, 0)
    assert content["paid_usd"] == paid(content) == 0.025
    assert content["waiting"] == 1


def test_an_image_task_counts_from_its_record_on() -> None:
    # Between the record and the note of its cost.
    state = state_of(1)
    intend(state, 0)
    one = state.items[0]
    record = state.entry(one).record
    assert record is not None
    record = record.with_state(RecordState.SUBMITTED, image_task_id="tsk_0")
    state.ledger.put_record(one.key, record, **state.costs.ledger_fields(one, "tsk_0"))
    content = manifest_of(state)
    assert [entry["id"] for entry in content["under_way"]] == ["tsk_0"]
    assert content["paid_usd"] == paid(content) == 0.025


def test_a_purchase_between_two_looks_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(1)
    intend(state, 0)
    look = CostTracker.spent_so_far

    def interrupted(costs: CostTracker, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(CostTracker, "spent_so_far", look)
        seen = look(costs, *args, **kwargs)
        buy(state, 0)
        return seen

    monkeypatch.setattr(CostTracker, "spent_so_far", interrupted)
    content = manifest_of(state)
    assert [entry["id"] for entry in content["under_way"]] == ["tsk_0"]
    assert content["paid_usd"] == paid(content) == 0.025


def test_what_others_bought_is_under_way_and_not_paid() -> None:
    state = state_of(1)
    buy(state, 0, shared=True)
    content = manifest_of(state)
    (one,) = content["under_way"]
    assert (one["shared"], one["paid_usd"], one["cost_usd"]) == (True, 0, 0.025)
    records = manifest_records(content, "s3://bucket")
    assert records.records == [] and records.shared == {"tsk_0"} and not records.finished


def test_what_has_ended_is_as_in_the_end() -> None:
    state = state_of(3)
    for index in range(3):
        buy(state, index)
    state.mark_stored(state.items[0], in_place("a", id="tsk_0"))
    refused = bought_by("tsk_1", FAILED)
    state.costs.observe(state.items[1], "tsk_1", refused)
    failure = ImageTaskFailure("tsk_1", failure_code("generation_failed"), "generation_failed", "no")
    state.mark_failed(FailedItem.from_poll(state.items[1], failure))
    content = manifest_of(state)
    assert [image["id"] for image in content["images"]] == ["tsk_0"]
    assert [entry["id"] for entry in content["failed"]] == ["tsk_1"]
    assert [entry["id"] for entry in content["under_way"]] == ["tsk_2"]
    assert content["paid_usd"] == paid(content) == 0.05


def test_what_is_refunded_and_tried_again_waits() -> None:
    state = state_of(1)
    buy(state, 0)
    state.costs.observe(state.items[0], "tsk_0", bought_by("tsk_0", FAILED))
    failure = ImageTaskFailure("tsk_0", failure_code("generation_failed"), "generation_failed", "no")
    state.mark_failed(FailedItem.from_poll(state.items[0], failure))
    state.reopen(state.items[0], rebuy=True)
    state.looked_up.add(state.items[0].key)
    content = manifest_of(state)
    assert (content["waiting"], content["under_way"], paid(content)) == (1, [], 0)


def test_what_is_paid_and_taken_up_again_is_under_way() -> None:
    state = state_of(1)
    buy(state, 0)
    state.reopen(state.items[0])
    state.looked_up.add(state.items[0].key)
    content = manifest_of(state)
    (one,) = content["under_way"]
    assert (one["id"], one["submitted_at"]) == ("tsk_0", None)
    assert paid(content) == 0.025


def test_money_of_a_list_before_a_clear_stays_in_the_sum() -> None:
    state = state_of(1)
    before = items("another picture")[0]
    note_image_task(state, before, bought_by("tsk_old"))
    state.costs.observe(before, "tsk_old", bought_by("tsk_old"))
    content = manifest_of(state)
    assert [entry["id"] for entry in content["abandoned"]] == ["tsk_old"]
    assert content["paid_usd"] == paid(content) == 0.025


def test_nothing_is_said_while_an_earlier_attempt_may_have_bought_more() -> None:
    state = state_of(2)
    intend(state, 0)
    state.attempt = replace(state.attempt, try_number=2, retry=True)
    assert interim_report(state) is None
    state.looked_up.add(state.items[0].key)
    assert interim_report(state) is not None


def test_a_limit_that_holds_money_back_for_an_answer_counts_nothing_yet() -> None:
    state = state_of(1, max_cost_usd=1.0)
    intend(state, 0)
    state.costs.hold(state.items[0])
    assert manifest_of(state)["paid_usd"] == 0
