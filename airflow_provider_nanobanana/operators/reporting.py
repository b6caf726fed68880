"""What a task leaves in Airflow and beside its images: result first, then manifest, asset events and last words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.manifest import manifest, manifest_name
from airflow_provider_nanobanana.batch.money import dollars
from airflow_provider_nanobanana.batch.outcome import Failed
from airflow_provider_nanobanana.batch.result import MOST_IN_XCOM, conclude, failure_table, result
from airflow_provider_nanobanana.hooks import former
from airflow_provider_nanobanana.hooks.unexpected import only_tree_errors
from airflow_provider_nanobanana.landing.naming import safe_name
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_nanobanana.batch.outcome import Outcome
    from airflow_provider_nanobanana.hooks.retrieval import Retrieval
    from airflow_provider_nanobanana.hooks.workshop import Workshop
    from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator

log = logging.getLogger(__name__)

#: Ids of image tasks in one line of the log.
_IDS_IN_A_LINE: Final = 50


def report(
    context: Context, operator: NanoBananaGenerateOperator, shop: Workshop
) -> tuple[dict[str, Any], errors.ToApisError | None]:
    """Leave the result in XCom, then the manifest beside the images; return the result and the error it amounts to.

    A manifest that cannot be written loses nothing: its sentence is added to the error, and alone it is an error that
    a retry mends for free.
    """
    outcomes, totals = shop.outcomes(), shop.till.totals()
    left = former.abandoned(shop)
    former.tell(shop, left)
    uri = manifest_uri(context, shop.retrieval)
    value = result(outcomes, uri, totals)
    # As the other lists: many are in the manifest only.
    value["abandoned"] = left if len(left) <= MOST_IN_XCOM else []
    push(context, operator, value)
    content = manifest(outcomes, run=run_of(context), destination=shop.retrieval.landing.uri(""), totals=totals)
    content |= {"former": former.landed(shop), "abandoned": left}
    refusal = write_manifest(context, shop.retrieval, content)
    if refusal is not None:
        value, uri = {**value, "manifest": None}, None
        push(context, operator, value)
        log_paid(outcomes)
    error = conclude(outcomes, allow_partial=operator.allow_partial, manifest_uri=uri, totals=totals)
    _say(value, totals)
    if error is None:
        _say_missing(outcomes)
    return value, with_refusal(error, refusal, f"{value['count']:,} images are in place")


def push(context: Context, operator: BaseOperator, value: Any) -> None:
    """Leave a result in XCom at once, so that it is there whatever follows."""
    if operator.do_xcom_push:
        context["ti"].xcom_push(key="return_value", value=value)


def run_of(context: Context) -> dict[str, Any]:
    """Return what names a task instance in a manifest."""
    ti: Any = context["ti"]
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}


def manifest_uri(context: Context, retrieval: Retrieval) -> str | None:
    """Return where the manifest of a task instance is, or will be."""
    return retrieval.landing.uri(f"{safe_name(manifest_name(**run_of(context)))}.json")


def write_manifest(context: Context, retrieval: Retrieval, content: Mapping[str, Any]) -> errors.ToApisError | None:
    """Write the manifest of a task instance; return what kept it from being written."""
    try:
        with only_tree_errors("The manifest was not written"):
            retrieval.write_manifest(manifest_name(**run_of(context)), content)
    except errors.ToApisError as error:
        log.warning("The manifest could not be written: %s", error.message)
        return error
    return None


def with_refusal(
    error: errors.ToApisError | None, refusal: errors.ToApisError | None, in_place: str
) -> errors.ToApisError | None:
    """Return the error of a task whose manifest could not be written: its own, or one that a retry mends.

    :param in_place: What was landed, as the beginning of a sentence.
    """
    if refusal is None:
        return error
    words = f"The manifest could not be written: {refusal.message} The same is in XCom."
    if error is not None:
        first, line, rest = error.message.partition("\n")
        return error.reworded(f"{first} {words}{line}{rest}")
    free = "A retry, or a clear, writes it and buys nothing again."
    return errors.StorageFailed(f"{in_place}, and paid. {words} {free}", charged="yes")


def log_paid(outcomes: Sequence[Outcome]) -> None:
    """Name in the log every image task that is, or may be, paid and whose image is not in place."""
    failed = (outcome for outcome in outcomes if isinstance(outcome, Failed) and outcome.charged != "no")
    ids = list(dict.fromkeys(failure.id for failure in failed if failure.id))
    for start in range(0, len(ids), _IDS_IN_A_LINE):
        log.warning("Paid, and not in place: %s", ", ".join(ids[start : start + _IDS_IN_A_LINE]))


def log_standing(shop: Workshop) -> None:
    """Say what an attempt leaves that ends before its work is done: what is there, what is paid, and what follows."""
    plan, usd = shop.plan(), dollars(shop.till.usd)
    there = f"{plan.landed:,} of {plan.total:,} images are in place, {plan.running:,} under way"
    log.warning("%s, %d not submitted; the batch has cost %s so far.", there, plan.unsent, usd)
    log.warning("A retry, or a clear, goes on from here: nothing of it is bought again.")
    log_paid(shop.outcomes())


def announce(context: Context, operator: BaseOperator, value: Mapping[str, Any]) -> None:
    """Give the events of the task's assets count, cost and manifest; nothing that goes wrong here fails a paid task."""
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    events: Any = context.get("outlet_events")
    if events is None:
        return
    extra = {name: value[name] for name in ("count", "cost_usd", "manifest")}
    for outlet in operator.outlets:
        # Lineage entities have no events. A reference to an asset is looked up by Airflow, which may not know it yet.
        if not isinstance(outlet, (Asset, AssetAlias)) and not type(outlet).__name__.endswith("Ref"):
            continue
        try:
            with only_tree_errors(f"The event of {outlet} was not given"):
                events[outlet].extra.update(extra)
        except errors.ToApisError as error:
            log.warning("%s The images are in place all the same.", error.message)


def _say(value: Mapping[str, Any], totals: Mapping[str, Any]) -> None:
    """Say in the log what there is in the end."""
    if value["extra_count"]:
        log.info(
            "%d images more than asked for came with the others; they lie beside them, with a number behind the name",
            value["extra_count"],
        )
    in_place, cost = value["count"] + value["extra_count"], dollars(totals["cost_usd"])
    log.info("%d images are in place, %d are not; the batch has cost %s", in_place, value["failed_count"], cost)
    where = f"All of it is in {value['manifest']}. " if value["manifest"] else ""
    log.info("%sA clear buys nothing again of what is in place.", where)


def _say_missing(outcomes: Sequence[Outcome]) -> None:
    """Say in the log what a task that succeeds goes on without."""
    if failed := [outcome for outcome in outcomes if isinstance(outcome, Failed)]:
        log.warning("Going on without:\n%s", failure_table(failed))
