"""The operator that buys one image and hands its image task id on."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException, airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_nanobanana.durable import Attempt, OnUnknownSubmission, SubmissionIdentity
    from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask

#: A queued submit wakes no sooner: Airflow up to 3.3 fails some tasks that resume within seconds of deferring.
_SHORTEST_QUEUE_WAIT = 15.0


class NanoBananaSubmitOperator(BaseOperator):
    """Buy one image and return its image task id (a ``str``) through XCom; made for ``.expand(prompt=[...])``.

    A retry, or a clear, first asks the service for the image task of the earlier attempt and uses it while its result
    lives. A rate limit that persists is waited out without a worker slot.

    :param prompt: What the picture shows.
    :param size: Aspect ratio, such as ``16:9``.
    :param resolution: ``1K``, ``2K`` or ``4K`` (``0.5K`` for some models).
    :param reference_images: At most 14 http(s) URLs, or storage URIs, which are checked and uploaded.
    :param model: Model id; the connection's when None.
    :param response_format: ``url`` or ``b64_json``.
    :param extra_body: Fields sent as they are; they win over ours.
    :param variant: Makes an otherwise equal request a different one, such as ``{{ ds }}`` for a picture a day.
    :param reuse_existing: Whether a clear uses what the same request already bought; False buys anew.
    :param on_unknown_submission: What follows when an attempt's outcome cannot be found out: ``resubmit`` or ``fail``.
    :param timeout: Seconds that a rate-limited submit may queue in all.
    :param nanobanana_conn_id: Id of the connection.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "size",
        "resolution",
        "reference_images",
        "model",
        "variant",
        "nanobanana_conn_id",
    )
    ui_color = "#fff3b0"

    def __init__(
        self,
        *,
        prompt: str,
        size: str = "1:1",
        resolution: str = "1K",
        reference_images: Sequence[str] | None = None,
        model: str | None = None,
        response_format: Literal["url", "b64_json"] = "url",
        extra_body: Mapping[str, Any] | None = None,
        variant: str = "",
        reuse_existing: bool = True,
        on_unknown_submission: OnUnknownSubmission = "resubmit",
        timeout: float = 900,
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_unknown_submission not in ("resubmit", "fail"):
            raise ValueError(f"on_unknown_submission is 'resubmit' or 'fail', not {on_unknown_submission!r}")
        self.prompt = prompt
        self.size = size
        self.resolution = resolution
        self.reference_images = reference_images
        self.model = model
        self.response_format = response_format
        self.extra_body = extra_body
        self.variant = variant
        self.reuse_existing = reuse_existing
        self.on_unknown_submission = on_unknown_submission
        self.timeout = timeout
        self.nanobanana_conn_id = nanobanana_conn_id

    def execute(self, context: Context) -> str:
        """Submit, or find what an earlier attempt submitted, and return the image task id."""
        return self._submit(context, queue_deadline=time.time() + self.timeout)

    def execute_queued(self, context: Context, event: Mapping[str, Any] | None = None) -> str:
        """Try again after a wait in the queue; the deadline comes back with the event."""
        deadline = (event or {}).get("deadline")
        return self._submit(context, queue_deadline=deadline if isinstance(deadline, (int, float)) else time.time())

    def _submit(self, context: Context, queue_deadline: float) -> str:
        with NanoBananaHook(self.nanobanana_conn_id) as hook:
            request = hook.parse(self._request())
            try:
                image_task = self._adopt_or_buy(context, hook, request)
            except NanoBananaException as failure:
                if isinstance(failure.error, (errors.RateLimited, errors.ServiceUnavailable)):
                    self._queue(failure.error, queue_deadline)
                if isinstance(failure.error, errors.SubmissionUnknown):
                    self._explain_unknown(failure.error, hook.settings.client_ids)
                raise
        self.log.info("Image task %s is %s.", image_task.id, image_task.wire_status or image_task.status)
        return image_task.id

    def _request(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "size": self.size,
            "resolution": self.resolution,
            "reference_images": self.reference_images,
            "model": self.model,
            "response_format": self.response_format,
            "extra_body": dict(self.extra_body or {}),
            "variant": self.variant,
        }

    def _adopt_or_buy(self, context: Context, hook: NanoBananaHook, request: ImageRequest) -> ImageTask:
        from airflow_provider_nanobanana.durable import Attempt, blind_retry_error
        from airflow_provider_nanobanana.hooks.walk import first_free_generation

        ti: Any = context["ti"]
        attempt = Attempt.of(try_number=ti.try_number, max_tries=ti.max_tries, retries=self.retries or 0)
        identity = self._identity(ti, request, attempt)
        generation = 0
        if attempt.must_look and hook.settings.client_ids:
            with airflow_errors():
                found, generation = first_free_generation(hook, identity, attempt)
            if found is not None:
                return found
        client_id = identity.client_business_id(generation)
        if attempt.retry and not (hook.settings.client_ids and self.on_unknown_submission == "resubmit"):
            raise NanoBananaFailException(blind_retry_error(client_id if hook.settings.client_ids else None))
        return hook.submit(request, client_business_id=client_id)

    def _identity(self, ti: Any, request: ImageRequest, attempt: Attempt) -> SubmissionIdentity:
        from airflow_provider_nanobanana.durable import SubmissionIdentity

        return SubmissionIdentity(
            scope=(ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index)),
            fingerprint=request.fingerprint(),
            regeneration=0 if self.reuse_existing else attempt.tries_before_clear,
        )

    def _queue(self, error: errors.ToApisError, deadline: float) -> None:
        """Wait for the account's rate limit without a slot; returns only when the deadline leaves no time."""
        from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger

        now = time.time()
        # Spread, so that hundreds of queued submits do not come back in one second.
        moment = now + max(error.retry_after or 0.0, _SHORTEST_QUEUE_WAIT) * (1 + random.random())
        if moment >= deadline:
            return
        self.log.info("%s Queueing without a slot for %.0f s.", error.message, moment - now)
        self.defer(
            trigger=NanoBananaTimerTrigger(moment=moment, deadline=deadline),
            method_name="execute_queued",
            timeout=timedelta(seconds=moment - now + 60),
        )

    def _explain_unknown(self, error: errors.ToApisError, client_ids: bool) -> NoReturn:
        if client_ids and self.on_unknown_submission == "resubmit":
            raise NanoBananaException(error) from error
        raise NanoBananaFailException(
            errors.SubmissionUnknown(
                f"{error.message} It is not sent again by itself (client_ids: {str(client_ids).lower()}, "
                f"on_unknown_submission={self.on_unknown_submission!r}): look at the account's task list in the ToAPIs "
                "console; pass the id to the sensor if the image is there, clear this task if it is not."
            )
        ) from error
