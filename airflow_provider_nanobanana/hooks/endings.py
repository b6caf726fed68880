"""How the orders of a batch ended; also those that an attempt gives up, with what holds them up and what is paid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.batch.money import Cost
from airflow_provider_nanobanana.batch.outcome import Failed, Landed, Outcome
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.toapis.errors import Charged, ToApisError, TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.durable.entry import Fault, LandedFile
    from airflow_provider_nanobanana.hooks.workshop import Workshop


def outcomes_of(shop: Workshop, order: Order) -> list[Outcome]:
    """Return how an order ended, and behind it each further image of its image task.

    One that has not ended did so with what holds it up.
    """
    entry, cost = shop.entry(order), shop.till.cost(order)
    if entry.landed is not None and entry.status in ("landed", "reused"):
        times, reused = {"submitted_at": entry.submitted_at}, entry.status == "reused"
        landed = [
            Landed(order, _image(shop, order, entry.landed), cost, reused, times),
            *(Landed(order, _image(shop, order, file), Cost(), reused, times, extra=True) for file in entry.extras),
        ]
        return [*landed, *(_failed(shop, order, lost.fault, Cost(), lost.index) for lost in entry.lost)]
    if entry.error is not None and entry.status == "failed":
        return [_failed(shop, order, entry.error, cost)]
    return [_held_up(shop, order, cost)]


def _image(shop: Workshop, order: Order, file: LandedFile) -> dict[str, Any]:
    return {
        "uri": shop.retrieval.landing.uri(file.name),
        "id": shop.image_task_id(order),
        "index": file.index,
        "sha256": file.sha256,
        "bytes": file.bytes,
        "format": file.format,
        "width": file.width,
        "height": file.height,
    }


def _failed(shop: Workshop, order: Order, fault: Fault, cost: Cost, index: int = 0) -> Failed:
    """Return the failure that a fault of the ledger stands for.

    :param index: Not 0 for an image beside the one that was asked for.
    """
    return Failed(
        order,
        shop.image_task_id(order),
        fault.code,
        fault.message,
        fault.charged,
        fault.again,
        cost,
        billed=(shop.entry(order).cost or 0.0) if fault.billed else 0.0,
        kept=fault.kept,
        answer=fault.answer,
        index=index,
        extra=index > 0,
    )


def _held_up(shop: Workshop, order: Order, cost: Cost) -> Failed:
    """Return the outcome of an order that is neither landed nor failed."""
    trouble = shop.troubles.get(order.key) or shop.refusals.get(order.request.model)
    image_task_id, charged = shop.image_task_id(order), _charged(shop, order)
    if trouble is None and shop.halt is None and shop.broke and shop.budget.max_cost_usd is not None:
        failure = Failed.over_budget(order, shop.budget.max_cost_usd)
        return replace(failure, id=image_task_id, charged=charged, cost=cost)
    why = trouble or shop.halt or _others(shop)
    own = trouble.image_task_id if trouble else None
    return replace(Failed.raised(order, why, cost=cost), id=image_task_id or own, charged=charged)


def _others(shop: Workshop) -> ToApisError:
    """Return what kept an attempt from an order that met nothing itself."""
    met = next(iter(shop.troubles.values()), None)
    if met is None:
        return TransientFailure("not submitted by this attempt")
    cause = "the destination took no image" if shop.blocked else "others met"
    return met.reworded(f"not submitted by this attempt: {cause}: {met.message}")


def _charged(shop: Workshop, order: Order) -> Charged:
    if shop.image_task_id(order) is not None:
        return "yes"
    record = shop.entry(order).record
    # An intent on the shelf that was never used is no submit: what counts is what this attempt knows.
    sent = record is not None and record.state is RecordState.INTENT
    return "unknown" if sent or shop.doubtful(order) else "no"
