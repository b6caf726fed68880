"""The operator that makes images: prompts in, verified images in the team's storage out, one or ten thousand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_nanobanana.batch import abandoned
from airflow_provider_nanobanana.batch.costs import format_usd
from airflow_provider_nanobanana.batch.outcome import FailedItem
from airflow_provider_nanobanana.batch.report import (
    MOST_IN_XCOM,
    batch_error,
    build_manifest,
    build_result,
    failure_table,
    manifest_name,
)
from airflow_provider_nanobanana.compat import was_skipped
from airflow_provider_nanobanana.error_boundary import errors_of_the_tree_only
from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.landing.image_store import safe_name
from airflow_provider_nanobanana.operators.arguments import (
    as_list,
    check_choices,
    one_prompt,
    parse_adopt,
    parse_seconds,
    parse_usd,
)
from airflow_provider_nanobanana.operators.base import RequestOperator
from airflow_provider_nanobanana.retry_policy import with_retry_policy
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_nanobanana.batch.outcome import Outcome
    from airflow_provider_nanobanana.batch.preparation import BatchSpec
    from airflow_provider_nanobanana.batch.runner import WaitSpec
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.durable.reconcile import OnExpired, OnUnknownSubmission
    from airflow_provider_nanobanana.landing.downloader import ImageDownloader
    from airflow_provider_nanobanana.toapis.session import ToApisSession

_CHOICES: dict[str, tuple[object, ...]] = {
    "on_unknown_submission": ("resubmit", "fail"),
    "on_expired": ("fail", "resubmit"),
    "reuse_existing": (True, False),
    "allow_partial": (True, False),
    "preflight_balance": (True, False),
    "deferrable": (True, False),
}


class NanoBananaGenerateOperator(RequestOperator):
    """Buy images, wait for them without a worker and land them, verified; each request is paid for once.

    Returns ``{"images": [...], "failed": [...], "quarantined": [...], "count", "failed_count", "extra_count",
    "cost_usd", "manifest", "truncated"}``; above 500 images the lists are in the manifest only. A retry, or a clear,
    goes on where the last attempt was: it submits only what has no paid image task and lands only what is not in place.
    What an image landed by an earlier run at this destination shows is verified and not paid again
    (``reuse_existing``); that is no lock between two runs at once, so set ``max_active_runs=1`` or give each run a
    destination of its own.

    :param destination: Any ``ObjectStoragePath`` URI of a folder.
    :param prompt: What the picture shows; or ``requests``.
    :param requests: A list of prompts and of mappings ``{"prompt", "size", "resolution", "reference_images", "model",
        "extra_body", "variant", "name"}``; also the output of another task.
    :param size: Aspect ratio of requests that give none; likewise ``resolution``, ``reference_images``, ``model``,
        ``extra_body`` and ``variant``.
    :param max_cost_usd: Stop before the first request that would pass it, counting what earlier attempts paid.
    :param preflight_balance: Whether to compare the estimate with the account before the first submit.
    :param allow_partial: Whether one image is enough; what failed is listed in the result.
    :param reuse_existing: Whether an image landed before for the same request is used; False buys anew after a clear.
    :param on_unknown_submission: What follows when a submit's outcome cannot be found out: ``resubmit`` or ``fail``.
    :param on_expired: What follows when a paid link has died: ``fail`` or ``resubmit``.
    :param deferrable: Wait in the triggerer; otherwise in the worker.
    :param timeout: Seconds (or a timedelta) that one attempt waits for an image, from its own submit.
    :param poke_interval: Seconds between two polls of one image task.
    :param adopt: As for :class:`NanoBananaSubmitOperator`.
    :param nanobanana_conn_id: Id of the connection.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "requests",
        "destination",
        "size",
        "resolution",
        "reference_images",
        "model",
        "extra_body",
        "variant",
        "max_cost_usd",
        "adopt",
        "nanobanana_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json"}
    ui_color = "#ffe066"
    #: The batch at work in this process, for :meth:`on_kill`.
    _shop: BatchState | None = None
    _killed = False

    def __init__(
        self,
        *,
        destination: str,
        prompt: str | None = None,
        requests: Any = None,
        size: str = "1:1",
        resolution: str = "1K",
        reference_images: Sequence[str] | None = None,
        model: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        variant: str = "",
        max_cost_usd: float | str | None = None,
        preflight_balance: bool = False,
        allow_partial: bool = False,
        reuse_existing: bool = True,
        on_unknown_submission: OnUnknownSubmission = "resubmit",
        on_expired: OnExpired = "fail",
        deferrable: bool = True,
        timeout: float | timedelta = 900,
        poke_interval: float | timedelta = 5,
        adopt: Mapping[str, str] | None = None,
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(kwargs))
        self.destination, self.prompt, self.requests = destination, prompt, requests
        self.size, self.resolution, self.variant = size, resolution, variant
        self.reference_images, self.model, self.extra_body = reference_images, model, extra_body
        self.max_cost_usd, self.preflight_balance, self.allow_partial = max_cost_usd, preflight_balance, allow_partial
        self.reuse_existing, self.adopt = reuse_existing, adopt
        self.on_unknown_submission, self.on_expired = on_unknown_submission, on_expired
        self.deferrable, self.timeout, self.poke_interval = deferrable, timeout, poke_interval
        self.nanobanana_conn_id = nanobanana_conn_id

    def execute(self, context: Context) -> Any:
        """Find out what earlier attempts and runs have of it, then buy, wait and land the rest."""
        return self._work(context, resumed=False)

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Go on after a pause; the event is no more than a wake-up, since the ledger knows everything."""
        return self._work(context, resumed=True)

    def on_kill(self) -> None:
        """Stop the buying, and say what a killed attempt leaves behind: the service has no cancel."""
        self._killed = True
        ids = self._shop.kill() if self._shop is not None else []
        self.log.warning(
            "Killed. Nothing more is bought. What was submitted goes on and stays paid; the next attempt, or a clear "
            "of this task, finds and lands it. %d image tasks are known to be under way%s.",
            len(ids),
            f": {', '.join(ids)}" if ids else "",
        )

    def _work(self, context: Context, *, resumed: bool) -> Any:
        from airflow_provider_nanobanana.batch.items import EmptyBatch
        from airflow_provider_nanobanana.landing.downloader import ImageDownloader

        with airflow_errors():
            commission = self._commission(context)
            with (
                NanoBananaHook(self.nanobanana_conn_id) as hook,
                ImageDownloader(hook.session, self.destination) as retrieval,
            ):
                try:
                    self._shop = shop = self._open(context, hook.session, retrieval, commission, resumed=resumed)
                except EmptyBatch as nothing:
                    raise AirflowSkipException(nothing.message) from nothing
                if self._killed:
                    shop.kill()
                return self._carry_out(context, shop)

    def _carry_out(self, context: Context, shop: BatchState) -> Any:
        from airflow_provider_nanobanana.batch.runner import BatchRunner
        from airflow_provider_nanobanana.operators.generate import announce, log_standing, report

        stretch = BatchRunner(shop)
        while True:
            try:
                stretch.run_slice()
            except errors.ToApisError as error:
                if not error.retryable:
                    with suppress(errors.ToApisError):
                        report(context, self, shop)
                log_standing(shop)
                raise
            pause = stretch.next_wait()
            stretch.log_progress(last=self.deferrable or pause is None)
            if pause is None:
                break
            if self.deferrable:
                self._defer(shop, pause)
            shop.session.sleep(min(self._poke_seconds(), max(0.0, pause.wake_at - shop.session.clock())))
        value, failure = report(context, self, shop)
        if failure is not None:
            raise failure
        announce(context, self, value)
        return value

    def _commission(self, context: Context) -> BatchSpec:
        """Check what only shows after rendering and mapping; nothing was sent."""
        from airflow_provider_nanobanana.batch.costs import Budget
        from airflow_provider_nanobanana.batch.preparation import BatchSpec

        check_choices(self, _CHOICES)
        self._poke_seconds()
        return BatchSpec(
            given=lambda: self._given(context),
            defaults={
                "size": self.size,
                "resolution": self.resolution,
                "reference_images": as_list(self.reference_images),
                "model": self.model,
                "extra_body": self.extra_body,
                "variant": self.variant,
            },
            budget=Budget(parse_usd(self.max_cost_usd)),
            timeout=parse_seconds(self.timeout, "timeout"),
            preflight_balance=self.preflight_balance,
            adopt=parse_adopt(self.adopt),
            at_hand=self._at_hand(),
        )

    def _at_hand(self) -> Any:
        """Return what is asked for, where it is plain and here already."""
        given = self.prompt if self.requests is None else self.requests
        return given if isinstance(given, (str, list, tuple, dict)) else None

    def _given(self, context: Context) -> Any:
        from airflow_provider_nanobanana.batch.items import EmptyBatch

        prompt = one_prompt(self.prompt)
        if prompt is None and self.requests is None and was_skipped(self, context):
            raise EmptyBatch("There is nothing to make: the tasks before were skipped. Nothing was charged.")
        if (prompt is None) == (self.requests is None):
            none = "both are None, as is the output of a task that was skipped or returned nothing"
            raise errors.InvalidRequest(
                f"Give either prompt or requests: {none if prompt is None else 'both are given'}. Nothing was "
                "sent and nothing was charged; a retry would meet the same."
            )
        if isinstance(self.requests, str):
            raise errors.InvalidRequest(
                "requests is one text: a template renders to text unless the DAG sets render_template_as_native_obj. "
                "Give a list, or the output of a task. Nothing was sent and nothing was charged."
            )
        return prompt if self.requests is None else self.requests

    def _open(
        self,
        context: Context,
        session: ToApisSession,
        retrieval: ImageDownloader,
        commission: BatchSpec,
        *,
        resumed: bool,
    ) -> BatchState:
        from airflow_provider_nanobanana.batch.preparation import BatchPreparation
        from airflow_provider_nanobanana.durable.attempt import TaskAttempt
        from airflow_provider_nanobanana.durable.state_store import state_store_for
        from airflow_provider_nanobanana.submission.client_ids import policy_for

        ti: Any = context["ti"]
        attempt = TaskAttempt.of(
            try_number=ti.try_number, max_tries=ti.max_tries, retries=self.retries or 0, started_at=session.clock()
        )
        return BatchPreparation(
            session=session,
            retrieval=retrieval,
            shelf=state_store_for(context),
            spec=commission,
            scope=(ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index)),
            attempt=attempt,
            retries=self.retries or 0,
            try_number=ti.try_number,
            rules=policy_for(
                session,
                on_unknown_submission=self.on_unknown_submission,
                reuse_existing=self.reuse_existing,
                on_expired=self.on_expired,
                clear_rebuys=True,
            ),
            resumed=resumed,
        ).prepare()

    def _defer(self, shop: BatchState, pause: WaitSpec) -> NoReturn:
        from airflow_provider_nanobanana.operators.generate import announcement, trigger_for

        now, poke = shop.session.clock(), self._poke_seconds()
        self.log.info("%s", announcement(pause))
        self.defer(
            trigger=trigger_for(pause, conn_id=self.nanobanana_conn_id, poll_interval=poke, now=now),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, pause.wake_at - now) + 60),
        )
        raise AssertionError("defer raises")

    def _poke_seconds(self) -> float:
        return parse_seconds(self.poke_interval, "poke_interval")


def announcement(pause: WaitSpec) -> str:
    """Return what the log says of a pause."""
    latest = datetime.fromtimestamp(pause.wake_at, UTC).strftime("%H:%M:%S UTC")
    if not pause.image_task_ids:
        return f"Waiting without a worker until {latest}."
    return f"Waiting without a worker until {latest} at the latest; {len(pause.image_task_ids):,} under way."


def trigger_for(pause: WaitSpec, *, conn_id: str, poll_interval: float, now: float) -> BaseTrigger:
    """Return the trigger of a pause.

    :param poll_interval: Seconds between two polls of one image task.
    :param now: Epoch seconds.
    """
    if not pause.image_task_ids:
        from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger

        return NanoBananaTimerTrigger(moment=pause.wake_at, deadline=pause.wake_at)
    from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger

    return NanoBananaTrigger(
        image_task_ids=pause.image_task_ids,
        nanobanana_conn_id=conn_id,
        started_at=now,
        deadline=pause.wake_at,
        poll_interval=poll_interval,
        created_at=pause.created_at,
        kinds=pause.kinds,
        not_before=now + poll_interval,
        enough=pause.enough,
    )


log = logging.getLogger(__name__)

#: Ids of image tasks in one line of the log.
_IDS_IN_A_LINE: Final = 50


def report(
    context: Context, operator: NanoBananaGenerateOperator, shop: BatchState
) -> tuple[dict[str, Any], errors.ToApisError | None]:
    """Leave the result in XCom, then the manifest beside the images; return the result and the error it amounts to.

    A manifest that cannot be written loses nothing: its sentence is added to the error, and alone it is an error that
    a retry mends for free.
    """
    outcomes, totals = shop.outcomes(), shop.costs.totals()
    left = abandoned.abandoned(shop)
    abandoned.tell(shop, left)
    uri = manifest_uri(context, shop.downloader)
    value = build_result(outcomes, uri, totals)
    # As the other lists: many are in the manifest only.
    value["abandoned"] = left if len(left) <= MOST_IN_XCOM else []
    push(context, operator, value)
    content = build_manifest(outcomes, run=run_of(context), destination=shop.downloader.landing.uri(""), totals=totals)
    content |= {"former": abandoned.landed(shop), "abandoned": left}
    refusal = write_manifest(context, shop.downloader, content)
    if refusal is not None:
        value, uri = {**value, "manifest": None}, None
        push(context, operator, value)
        log_paid(outcomes)
    error = batch_error(outcomes, allow_partial=operator.allow_partial, manifest_uri=uri, totals=totals)
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


def manifest_uri(context: Context, retrieval: ImageDownloader) -> str | None:
    """Return where the manifest of a task instance is, or will be."""
    return retrieval.landing.uri(f"{safe_name(manifest_name(**run_of(context)))}.json")


def write_manifest(
    context: Context, retrieval: ImageDownloader, content: Mapping[str, Any]
) -> errors.ToApisError | None:
    """Write the manifest of a task instance; return what kept it from being written."""
    try:
        with errors_of_the_tree_only("The manifest was not written"):
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
    failed = (outcome for outcome in outcomes if isinstance(outcome, FailedItem) and outcome.charged != "no")
    ids = list(dict.fromkeys(failure.id for failure in failed if failure.id))
    for start in range(0, len(ids), _IDS_IN_A_LINE):
        log.warning("Paid, and not in place: %s", ", ".join(ids[start : start + _IDS_IN_A_LINE]))


def log_standing(shop: BatchState) -> None:
    """Say what an attempt leaves that ends before its work is done: what is there, what is paid, and what follows."""
    plan, usd = shop.progress(), format_usd(shop.costs.usd)
    there = f"{plan.stored:,} of {plan.total:,} images are in place, {plan.running:,} under way"
    log.warning("%s, %d not submitted; the batch has cost %s so far.", there, plan.pending, usd)
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
            with errors_of_the_tree_only(f"The event of {outlet} was not given"):
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
    in_place, cost = value["count"] + value["extra_count"], format_usd(totals["cost_usd"])
    log.info("%d images are in place, %d are not; the batch has cost %s", in_place, value["failed_count"], cost)
    where = f"All of it is in {value['manifest']}. " if value["manifest"] else ""
    log.info("%sA clear buys nothing again of what is in place.", where)


def _say_missing(outcomes: Sequence[Outcome]) -> None:
    """Say in the log what a task that succeeds goes on without."""
    if failed := [outcome for outcome in outcomes if isinstance(outcome, FailedItem)]:
        log.warning("Going on without:\n%s", failure_table(failed))
