"""Metrics of a batch: each image task is counted where its order ends, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.batch.outcome import EXPIRED
from airflow_provider_nanobanana.toapis.outcome import LATE

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.hooks.workshop import Workshop


def count_ended(shop: Workshop, order: Order) -> None:
    """Count an order that has just ended; what merely takes longer is counted again when it lands."""
    entry = shop.entry(order)
    tags: dict[str, Any] = {"conn_id": shop.hook.nanobanana_conn_id, "model": order.request.model}
    if entry.error is None:
        metrics.count("completed", **tags)
    elif entry.error.code in LATE:
        metrics.count("timed_out", **tags)
        return
    else:
        metrics.count("failed", **tags, code=metrics.code_tag(entry.error.code))
        if entry.error.again and entry.error.code != EXPIRED:
            return
    if micros := metrics.micro_usd(entry.cost):
        metrics.count("cost_micro_usd", micros, **tags)
