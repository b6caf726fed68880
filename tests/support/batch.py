"""Samples of batch items and their outcomes, and a BatchState that can neither send nor land."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from airflow_provider_nanobanana.batch.budget import Budget
from airflow_provider_nanobanana.batch.cost_tracker import CostTracker
from airflow_provider_nanobanana.batch.costs import Charge, Cost, Spent
from airflow_provider_nanobanana.batch.items import BatchItem, build_items
from airflow_provider_nanobanana.batch.outcome import FailedItem, StoredItem
from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.batch.stop_conditions import StopConditions
from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.checkpoint import AttemptCheckpoint, CheckpointStore
from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore, StateStore
from airflow_provider_nanobanana.landing.image_store import StoredImage
from airflow_provider_nanobanana.toapis.failure_codes import ImageTaskFailure, failure_code
from airflow_provider_nanobanana.toapis.models import ImageTask
from tests.support.responses import NOW, RUNNING, STATUS, response
from tests.support.session import make_session

MODEL = "nano_banana_2"


def no_storage(uri: str) -> str:
    raise AssertionError(f"{uri} was asked for")


def items(given: Any, **defaults: Any) -> list[BatchItem]:
    """Build the items of requests that name no stored reference image."""
    return build_items(given, defaults=defaults, default_model=MODEL, digest_of=no_storage)


def item(index: int = 0, **fields: Any) -> BatchItem:
    """Return one item at a position of a longer batch."""
    return replace(items({"prompt": f"picture {index}", **fields})[0], index=index)


def spent_on(cost: Cost) -> Spent:
    """Return what was spent on an item of one image task that its own task instance bought."""
    return Spent.on([Charge(cost)])


def landed(index: int = 0, *, cost: Cost | None = None, **changes: Any) -> StoredItem:
    image = {
        "uri": f"s3://bucket/{index}.png",
        "id": f"tsk_{index}",
        "index": 0,
        "sha256": "f" * 64,
        "bytes": 100,
        "format": "png",
        "width": 1024,
        "height": 1024,
    }
    return StoredItem(item(index), image, spent_on(cost or Cost(0.025)), **changes)


def failed(index: int = 0, code: str = "generation_failed", status: str = "failed", **how: Any) -> FailedItem:
    meaning = failure_code(code, pending=status == "timeout")
    failure = ImageTaskFailure(f"tsk_{index}", meaning, code, f"words of {index}")
    spent = spent_on(how.pop("cost", Cost()))
    return replace(FailedItem.from_poll(item(index), failure, **how), spent=spent)


def in_place(name: str, **changes: Any) -> StoredImage:
    """Return an image that lies at the destination of :func:`make_state`."""
    fields: dict[str, Any] = {
        "uri": f"s3://bucket/{name}.png",
        "id": "",
        "index": 0,
        "sha256": "a" * 64,
        "bytes": 100,
        "format": "png",
        "width": 1024,
        "height": 1024,
    }
    return StoredImage(**{**fields, **changes})


def make_state(
    wanted: Sequence[BatchItem], store: StateStore | None = None, *, max_cost_usd: float | None = None
) -> BatchState:
    """Return the state of a batch as a new process has it; nothing of it can send or land.

    :param store: What an earlier process left.
    """
    store = store or InMemoryStateStore()
    ledger, budget = Ledger.load(store, first=True), Budget(max_cost_usd)
    nothing: Any = None
    downloader: Any = SimpleNamespace(store=SimpleNamespace(uri=lambda name: f"s3://bucket/{name}"))
    return BatchState(
        session=make_session(None, clock=lambda: NOW),
        items=wanted,
        ledger=ledger,
        downloader=downloader,
        references=nothing,
        budget=budget,
        costs=CostTracker(budget, ledger.items(), wanted),
        attempt=TaskAttempt.of(try_number=1, max_tries=2, retries=2, started_at=NOW),
        policy=SubmissionPolicy(),
        scope=("dag", "run", "task", "-1"),
        timeout=900,
        checkpoints=CheckpointStore(store, AttemptCheckpoint(1, NOW)),
        stops=StopConditions(),
    )


def bought_by(image_task_id: str, body: Mapping[str, Any] = RUNNING, **changes: Any) -> ImageTask:
    """Return an image task with an id of one's own choice."""
    return STATUS.parse(response(200, {**body, **changes}), NOW).model_copy(update={"id": image_task_id})


def note_image_task(state: BatchState, item: BatchItem, image_task: ImageTask, *, shared: bool = False) -> None:
    """Do with an image task what a submission does: the record first, then what is known of it."""
    record = SubmissionRecord(
        state=RecordState.SUBMITTED,
        fingerprint=item.fingerprint,
        clear_number=0,
        generation=0,
        client_business_id=f"nb-{image_task.id}",
        image_task_id=image_task.id,
        may_have_left_at=NOW,
        max_tries=2,
        writer="",
    )
    fields = state.costs.ledger_fields(item, image_task.id)
    state.ledger.put_record(item.key, record, **fields)
    state.mark_submitted(item, image_task, shared=shared)
