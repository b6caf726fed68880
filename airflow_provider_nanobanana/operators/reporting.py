"""What a batch leaves beside its images and in Airflow: manifest, result and asset events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.batch.manifest import manifest
from airflow_provider_nanobanana.batch.result import MOST_IN_XCOM, conclude, result
from airflow_provider_nanobanana.hooks import former

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_nanobanana.batch.outcome import Outcome
    from airflow_provider_nanobanana.hooks.workshop import Workshop
    from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator
    from airflow_provider_nanobanana.toapis.errors import ToApisError


def report(
    context: Context, operator: NanoBananaGenerateOperator, shop: Workshop
) -> tuple[dict[str, Any], ToApisError | None]:
    """Write the manifest; return the result, and the error that it amounts to: then the result is in XCom already."""
    outcomes, totals = shop.outcomes(), shop.till.totals()
    left = former.abandoned(shop)
    former.tell(shop, left)
    manifest_uri = write_manifest(context, shop, outcomes, totals)
    value = result(outcomes, manifest_uri, totals)
    # As the other lists: many are in the manifest only.
    value["abandoned"] = left if len(left) <= MOST_IN_XCOM else []
    error = conclude(outcomes, allow_partial=operator.allow_partial, manifest_uri=manifest_uri, totals=totals)
    if error is not None and operator.do_xcom_push:
        context["ti"].xcom_push(key="return_value", value=value)
    return value, error


def write_manifest(context: Context, shop: Workshop, outcomes: Sequence[Outcome], totals: Mapping[str, Any]) -> str:
    """Write the manifest of a batch beside its images, named by the run, and return its URI."""
    ti: Any = context["ti"]
    mapped = f"-{ti.map_index}" if ti.map_index is not None and ti.map_index >= 0 else ""
    content = manifest(
        outcomes,
        run={"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index},
        destination=shop.retrieval.landing.uri(""),
        totals=totals,
        unfinished=len(shop.orders) - len(outcomes),
    ) | {"former": former.landed(shop), "abandoned": former.abandoned(shop)}
    return shop.retrieval.write_manifest(f"manifest-{ti.dag_id}-{ti.run_id}-{ti.task_id}{mapped}", content)


def announce(context: Context, operator: BaseOperator, value: Mapping[str, Any]) -> None:
    """Give the events of the task's outlets count, cost and manifest."""
    events: Any = context.get("outlet_events")
    if events is None:
        return
    extra = {name: value[name] for name in ("count", "cost_usd", "manifest")}
    for outlet in operator.outlets:
        events[outlet].extra.update(extra)
