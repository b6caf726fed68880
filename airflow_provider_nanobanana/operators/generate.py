"""The operator that makes images: prompts in, verified images in the team's storage out, one or ten thousand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.arguments import (
    adoptions,
    check_choices,
    one_prompt,
    repeatable,
    seconds_of,
    usd_of,
)
from airflow_provider_nanobanana.operators.base import RequestOperator
from airflow_provider_nanobanana.retry_policy import with_retry_policy
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.upstream import was_skipped

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_nanobanana.durable.decision import OnExpired, OnUnknownSubmission
    from airflow_provider_nanobanana.hooks.opening import Commission
    from airflow_provider_nanobanana.hooks.retrieval import Retrieval
    from airflow_provider_nanobanana.hooks.stretch import Pause
    from airflow_provider_nanobanana.hooks.workshop import Workshop

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
    _shop: Workshop | None = None
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
        from airflow_provider_nanobanana.batch.orders import NothingToMake
        from airflow_provider_nanobanana.hooks.retrieval import Retrieval

        with airflow_errors():
            commission = self._commission(context)
            with NanoBananaHook(self.nanobanana_conn_id) as hook, Retrieval(hook, self.destination) as retrieval:
                try:
                    self._shop = shop = self._open(context, hook, retrieval, commission, resumed=resumed)
                except NothingToMake as nothing:
                    raise AirflowSkipException(nothing.message) from nothing
                if self._killed:
                    shop.kill()
                return self._carry_out(context, shop)

    def _carry_out(self, context: Context, shop: Workshop) -> Any:
        from airflow_provider_nanobanana.hooks.stretch import Stretch
        from airflow_provider_nanobanana.operators.reporting import announce, log_standing, report

        stretch = Stretch(shop)
        while True:
            try:
                stretch.run()
            except errors.ToApisError as error:
                if not error.retryable:
                    with suppress(errors.ToApisError):
                        report(context, self, shop)
                log_standing(shop)
                raise
            pause = stretch.pause()
            stretch.say(last=self.deferrable or pause is None)
            if pause is None:
                break
            if self.deferrable:
                self._defer(shop, pause)
            shop.hook.sleep(min(self._poke_seconds(), max(0.0, pause.wake_at - shop.hook.clock())))
        value, failure = report(context, self, shop)
        if failure is not None:
            raise failure
        announce(context, self, value)
        return value

    def _commission(self, context: Context) -> Commission:
        """Check what only shows after rendering and mapping; nothing was sent."""
        from airflow_provider_nanobanana.batch.money import Budget
        from airflow_provider_nanobanana.hooks.opening import Commission

        check_choices(self, _CHOICES)
        self._poke_seconds()
        return Commission(
            given=lambda: self._given(context),
            defaults={
                "size": self.size,
                "resolution": self.resolution,
                "reference_images": repeatable(self.reference_images),
                "model": self.model,
                "extra_body": self.extra_body,
                "variant": self.variant,
            },
            budget=Budget(usd_of(self.max_cost_usd)),
            timeout=seconds_of(self.timeout, "timeout"),
            preflight_balance=self.preflight_balance,
            adopt=adoptions(context, self.adopt),
            at_hand=self._at_hand(),
        )

    def _at_hand(self) -> Any:
        """Return what is asked for, where it is plain and here already."""
        given = self.prompt if self.requests is None else self.requests
        return given if isinstance(given, (str, list, tuple, dict)) else None

    def _given(self, context: Context) -> Any:
        from airflow_provider_nanobanana.batch.orders import NothingToMake

        prompt = one_prompt(self.prompt)
        if prompt is None and self.requests is None and was_skipped(self, context):
            raise NothingToMake("There is nothing to make: the tasks before were skipped. Nothing was charged.")
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
        self, context: Context, hook: NanoBananaHook, retrieval: Retrieval, commission: Commission, *, resumed: bool
    ) -> Workshop:
        from airflow_provider_nanobanana.durable.attempt import Attempt
        from airflow_provider_nanobanana.durable.shelf import shelf_for
        from airflow_provider_nanobanana.hooks.opening import Opening

        ti: Any = context["ti"]
        attempt = Attempt.of(
            try_number=ti.try_number, max_tries=ti.max_tries, retries=self.retries or 0, started_at=hook.clock()
        )
        return Opening(
            hook=hook,
            retrieval=retrieval,
            shelf=shelf_for(context),
            commission=commission,
            scope=(ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index)),
            attempt=attempt,
            retries=self.retries or 0,
            try_number=ti.try_number,
            rules=hook.rules(
                on_unknown_submission=self.on_unknown_submission,
                reuse_existing=self.reuse_existing,
                on_expired=self.on_expired,
                clear_rebuys=True,
            ),
            resumed=resumed,
            pauses=self.deferrable,
        ).open()

    def _defer(self, shop: Workshop, pause: Pause) -> NoReturn:
        from airflow_provider_nanobanana.operators.waiting import announcement, trigger_for

        now, poke = shop.hook.clock(), self._poke_seconds()
        self.log.info("%s", announcement(pause))
        self.defer(
            trigger=trigger_for(pause, conn_id=self.nanobanana_conn_id, poll_interval=poke, now=now),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, pause.wake_at - now) + 60),
        )
        raise AssertionError("defer raises")

    def _poke_seconds(self) -> float:
        return seconds_of(self.poke_interval, "poke_interval")
