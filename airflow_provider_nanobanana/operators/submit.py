"""The operator that buys one image and hands its image task id on."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_nanobanana.batch.lineage_operator import LineageOperator
from airflow_provider_nanobanana.exceptions import NanoBananaException, airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.arguments import (
    as_list,
    check_choices,
    one_prompt,
    parse_adopt,
    parse_meta,
    parse_seconds,
)
from airflow_provider_nanobanana.operators.base import RequestOperator
from airflow_provider_nanobanana.retry_policy import with_retry_policy
from airflow_provider_nanobanana.stored_forms import readable_event
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.redaction import one_line
from airflow_provider_nanobanana.toapis.request_values import as_text, is_blank
from airflow_provider_nanobanana.toapis.text_lines import fold
from airflow_provider_nanobanana.triggers.deferral import defer_timeout
from airflow_provider_nanobanana.worker_threads import StoppableOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_nanobanana.batch.task_lineage import TaskLineage
    from airflow_provider_nanobanana.durable.reconcile import OnExpired, OnUnknownSubmission
    from airflow_provider_nanobanana.durable.record_store import RecordStore
    from airflow_provider_nanobanana.submission.references import ReferenceUploader
    from airflow_provider_nanobanana.submission.workflow import Submission
    from airflow_provider_nanobanana.toapis.models import ImageRequest

log = LineLogger(__name__)

#: Seconds before which no queued submit wakes: Airflow up to 3.3 fails some tasks that resume soon after deferring.
_SHORTEST_QUEUE_WAIT: Final = 15.0
#: Characters of a prompt in an error.
_SPOKEN_PROMPT: Final = 60
#: The longest wait for one ``Retry-After``, in seconds; an absurd header must not use up the whole timeout.
_LONGEST_QUEUE_WAIT: Final = 60.0


class NanoBananaSubmitOperator(LineageOperator, StoppableOperator, RequestOperator):
    """Buy one image and return its image task id (a ``str``) through XCom; made for ``.expand(prompt=[...])``.

    Under the XCom key ``nanobanana_request`` it leaves what was asked for, which a download after it finds by that id.

    A retry, or a clear, first finds out what the earlier attempt bought and uses it while its result lives
    (``docs/durability.md``). All submits of a machine keep the account's ``submit_rate`` together; a slot that is more
    than ten seconds away, and a rate limit that persists, are waited for without a worker slot.

    :param prompt: What the picture shows.
    :param size: Aspect ratio, such as ``16:9``.
    :param resolution: ``1K``, ``2K`` or ``4K`` (``0.5K`` for some models; docs/toapis.md, "Models and sizes").
    :param reference_images: At most 14 http(s) URLs, or storage URIs, which are checked and uploaded.
    :param model: Model id; the connection's when None.
    :param response_format: ``url`` or ``b64_json``.
    :param extra_body: Fields sent as they are; they win over ours.
    :param variant: Makes an otherwise equal request a different one, such as
        ``{{ dag_run.run_after.strftime('%Y-%m-%d') }}`` for a picture a day; ``ds`` is not there in every run.
    :param name: What you call the picture, for a mapped task whose upstream may list it at another place another time:
        what was bought is then found by name, not by map index. As the name of a request of generate; unique among the
        mapped tasks. The download calls its file by it.
    :param meta: The row's own data, a mapping of plain JSON of at most 2,048 bytes, which goes with the picture into
        the download's manifest; no part of the request.
    :param reuse_existing: Whether a clear uses what the same request already bought; False buys again.
    :param on_unknown_submission: What follows when an attempt's outcome cannot be found out: ``resubmit`` or ``fail``.
    :param on_expired: What follows when what was bought has expired (24 hours, docs/toapis.md, "Result links"), at a
        retry and at a clear alike: ``fail``, or ``resubmit``, which pays again.
    :param timeout: Seconds (or a timedelta) that a rate-limited submit may queue in all.
    :param adopt: Image tasks chosen by a person where the program cannot know, by the ``client_business_id`` that the
        failed attempt named. Templated: ``"{{ var.json.get('nanobanana_adopt', None) | tojson }}"`` takes it
        from an Airflow Variable.
    :param prepare_references: Whether storage references are made fit for the service first: turned upright (EXIF),
        converted from CMYK to RGB, made smaller than 10 MB. It changes no identity: switching it buys nothing.
    :param nanobanana_conn_id: Id of the connection.
    :raises NanoBananaFailException: No retry can help; ``charged`` says what became of the money.
    :raises NanoBananaException: A retry looks up what this attempt may have bought, then goes on.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "size",
        "resolution",
        "reference_images",
        "model",
        "variant",
        "name",
        "meta",
        "adopt",
        "nanobanana_conn_id",
    )
    ui_color = "#fff3b0"
    #: By it a download knows which of the tasks before it have something to say of its images.
    hands_on_request: ClassVar[bool] = True
    #: The submission at work in this process, for :meth:`on_kill`.
    _submission: Submission | None = None

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
        name: str | None = None,
        meta: Mapping[str, Any] | None = None,
        reuse_existing: bool = True,
        on_unknown_submission: OnUnknownSubmission = "resubmit",
        on_expired: OnExpired = "fail",
        timeout: float | timedelta = 900,
        adopt: Mapping[str, str] | None = None,
        prepare_references: bool = True,
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(kwargs))
        self.prompt = prompt
        self.size = size
        self.resolution = resolution
        self.reference_images = reference_images
        self.model = model
        self.response_format = response_format
        self.extra_body = extra_body
        self.variant = variant
        self.name = name
        self.meta = meta
        self.reuse_existing = reuse_existing
        self.on_unknown_submission = on_unknown_submission
        self.on_expired = on_expired
        self.timeout = timeout
        self.adopt = adopt
        self.prepare_references = prepare_references
        self.nanobanana_conn_id = nanobanana_conn_id

    def execute(self, context: Context) -> str:
        """Submit, or find what an earlier attempt submitted, and return the image task id."""
        return self._submit(context)

    def execute_queued(
        self, context: Context, event: Mapping[str, Any] | None = None, **_from_newer_versions: Any
    ) -> str:
        """Try again after a wait for the rate limit; the deadline comes back with the event, if the event is ours."""
        # Airflow leaks events into later attempts (its issue 62845): then this is a start like any other.
        said = readable_event(event)
        deadline = said.get("deadline") if said.get("ticket") == self._ticket(context) else None
        return self._submit(context, deadline if isinstance(deadline, (int, float)) else None)

    def on_kill(self) -> None:
        """Stop, and log what a killed attempt leaves behind: the service has no cancel."""
        self._stop()
        left = self._submission.left_behind() if self._submission else ""
        said = "Killed. A submit that has left goes on and stays paid; the next attempt, or a clear, finds it."
        self.log.warning(fold(f"{said}\n{left}" if left else said))

    def _submit(self, context: Context, queue_deadline: float | None = None) -> str:
        with airflow_errors():
            return self._run_stoppable(lambda: self._submit_or_find(context, queue_deadline))

    def _submit_or_find(self, context: Context, queue_deadline: float | None) -> str:
        from airflow_provider_nanobanana.batch.upstream_requests import push_request

        with airflow_errors():
            check_choices(self, flags=("reuse_existing", "prepare_references"))
            adopt = parse_adopt(self.adopt)
            meta = parse_meta(self.meta)
            timeout = parse_seconds(self.timeout, "timeout")
        with NanoBananaHook(self.nanobanana_conn_id) as hook:
            session = hook.session
            if queue_deadline is None:
                queue_deadline = session.clock() + timeout
            submission = self._submission = self._open(context, hook, adopt)
            try:
                with (
                    self._telling_lineage(hook, lambda: self._lineage(hook)),
                    airflow_errors(),
                    self._naming_the_image(),
                ):
                    image_task = submission.run()
                    submission.mark_done()
            except NanoBananaException as failure:
                if isinstance(failure.error, errors.SUBMIT_LIMIT_ERRORS):
                    deferral = self._queue_deferral(context, failure.error, session.clock(), queue_deadline)
                    if deferral is not None:
                        raise deferral from failure
                raise
        log.debug("Image task %s is %s.", image_task.id, image_task.wire_status or image_task.status)
        name = _parse_name(self.name)
        push_request(context, self, image_task.id, submission.bought_request(), name=name or None, meta=meta)
        return image_task.id

    def _lineage(self, hook: NanoBananaHook) -> TaskLineage:
        """Return the references of the request; asked where somebody reads lineage."""
        from airflow_provider_nanobanana.batch.task_lineage import of_submit

        return of_submit(hook.parse_request(self._request()))

    @contextlib.contextmanager
    def _naming_the_image(self) -> Iterator[None]:
        """Say in an error which image it is about: hundreds of mapped submits may each have one."""
        try:
            yield
        except errors.ToApisError as error:
            prompt = one_line(self.prompt, limit=_SPOKEN_PROMPT)
            name = as_text(self.name)
            spoken = prompt if is_blank(name) else f"{name} ({prompt})"
            raise error.reworded(f"{error.message}\nThe image: {spoken}") from None

    def _open(self, context: Context, hook: NanoBananaHook, adopt: Mapping[str, str]) -> Submission:
        from airflow_provider_nanobanana.durable.attempt import TaskAttempt, salt_of
        from airflow_provider_nanobanana.durable.record import SubmissionIdentity
        from airflow_provider_nanobanana.durable.record_store import SingleRecordStore
        from airflow_provider_nanobanana.durable.state_store import state_store_for
        from airflow_provider_nanobanana.submission.client_ids import policy_for
        from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
        from airflow_provider_nanobanana.submission.references import ReferenceUploader
        from airflow_provider_nanobanana.submission.workflow import Submission

        session = hook.session
        store = SingleRecordStore(state_store_for(context))
        references = ReferenceUploader.of(session, prepare=self.prepare_references)
        with airflow_errors():
            request = hook.parse_request(self._request())
            fingerprint = _fingerprint(request, references, store)
            name = _parse_name(self.name)
        attempt = TaskAttempt.from_context(
            context,
            retries=self.retries or 0,
            started_at=session.clock(),
            namespace=session.settings.namespace,
        )
        return Submission(
            session,
            request,
            identity=SubmissionIdentity(
                scope=attempt.scope,
                fingerprint=fingerprint,
                clear_number=0 if self.reuse_existing else attempt.tries_before_clear,
                name=name,
                salt=salt_of(context),
            ),
            attempt=attempt,
            policy=policy_for(
                session,
                on_unknown_submission=self.on_unknown_submission,
                reuse_existing=self.reuse_existing,
                on_expired=self.on_expired,
            ),
            record_store=store,
            rate_limiter=SubmitRateLimiter.of(session.settings),
            references=references,
            adopt=adopt,
        )

    def _request(self) -> dict[str, Any]:
        return {
            "prompt": one_prompt(self.prompt),
            "size": self.size,
            "resolution": self.resolution,
            "reference_images": as_list(self.reference_images),
            "model": self.model,
            "response_format": self.response_format,
            "extra_body": self.extra_body,
            "variant": self.variant,
        }

    def _ticket(self, context: Context) -> str:
        """Return what tells this task instance's own timer events from those of others."""
        ti: Any = context["ti"]
        return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}/{ti.try_number}"

    def _queue_deferral(
        self, context: Context, error: errors.ToApisError, now: float, deadline: float
    ) -> TaskDeferred | None:
        """Return a wait for the account's rate limit without a worker slot; None when the deadline leaves no time."""
        from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger

        asked = min(error.retry_after or 0.0, _LONGEST_QUEUE_WAIT)
        # Spread, so that hundreds of queued submits do not come back in one second.
        moment = now + max(asked, _SHORTEST_QUEUE_WAIT) * (1 + random.random())
        if moment >= deadline:
            return None
        log.info("%s Queueing without a slot for %.0f s.", error.message, moment - now)
        return TaskDeferred(
            trigger=NanoBananaTimerTrigger(moment=moment, deadline=deadline, ticket=self._ticket(context)),
            method_name="execute_queued",
            timeout=defer_timeout(moment - now),
        )


def _parse_name(value: Any) -> str:
    """Return what the user calls the image, as generate's requests are named; empty where it is not given.

    :raises InvalidRequest: It cannot be the name of an image's file.
    """
    from airflow_provider_nanobanana.batch.row_names import name_error

    name = as_text(value)
    if is_blank(name):
        return ""
    if fault := name_error(name):
        raise errors.InvalidRequest(f"{fault}. Nothing was sent and nothing was charged; a retry would meet the same.")
    return str(name)


def _fingerprint(request: ImageRequest, references: ReferenceUploader, store: RecordStore) -> str:
    """Return the hash of a request with its storage references taken by content, as generate takes them.

    What an earlier attempt bought is found whatever has become of the files since.

    :raises ToApisError: A reference cannot be read, and nothing was sent before.
    """
    from airflow_provider_nanobanana.durable.record import RecordState

    try:
        return references.fingerprint(request)
    except errors.ToApisError:
        record = store.read()
        if record is None or record.state is RecordState.QUEUED:
            raise
        return record.fingerprint
