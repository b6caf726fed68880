"""The operator that makes images: prompts in, verified images in the team's storage out, one or ten thousand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_provider_nanobanana.batch.lineage_operator import LineageOperator
from airflow_provider_nanobanana.compat import has_retry_left, was_skipped
from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.arguments import (
    AllowPartial,
    OnBadRow,
    OnSuspect,
    as_list,
    check_choices,
    one_prompt,
    parse_adopt,
    parse_flag,
    parse_redo,
    parse_seconds,
    parse_usd,
    parse_variants,
)
from airflow_provider_nanobanana.operators.base import RequestOperator
from airflow_provider_nanobanana.operators.manifest import (
    GrowingManifest,
    TaskManifest,
    push_result,
    with_manifest_error,
)
from airflow_provider_nanobanana.operators.shown_requests import (
    name_row,
    row_name_of,
    row_name_of_items,
    shown_items,
    shown_requests,
)
from airflow_provider_nanobanana.retry_policy import with_retry_policy
from airflow_provider_nanobanana.stored_forms import readable_event
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.request_values import as_reference
from airflow_provider_nanobanana.triggers.deferral import defer_timeout, first_poll_after, tells_of_long_answers
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import StoppableOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.outcome import Outcome
    from airflow_provider_nanobanana.batch.preparation import BatchPreparation, BatchSpec
    from airflow_provider_nanobanana.batch.runner import WaitSpec
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.batch.task_lineage import TaskLineage
    from airflow_provider_nanobanana.durable.claims import ClaimMode
    from airflow_provider_nanobanana.durable.reconcile import OnExpired, OnUnknownSubmission
    from airflow_provider_nanobanana.landing.downloader import ImageDownloader
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = LineLogger(__name__)

#: The arguments that are true or false.
_FLAGS: Final = ("reuse_existing", "preflight_balance", "deferrable", "prepare_references", "thumbnails")
#: Ids of image tasks in one line of the log.
_IDS_IN_A_LINE: Final = 50
#: Seconds; in a shorter slice hardly anything is submitted, and Airflow starts one worker after another.
_SHORTEST_SLICE: Final = 30.0
#: Slices of a process end at this share of Airflow's ``execution_timeout``.
_SHARE_OF_TIMEOUT: Final = 0.75
#: What of the result goes into the events of the task's assets.
_IN_ASSET_EVENTS: Final = ("count", "cost_usd", "paid_usd", "shared", "reused", "lost_race", "manifest")


class NanoBananaGenerateOperator(LineageOperator, StoppableOperator, RequestOperator):
    """Buy images, wait for them without a worker and land them, verified; each request is paid for once.

    A wanted image is its file: destination, name and request. A retry, a clear, another run, a mapped task or another
    installation that wants the same file uses what is in place, verified (``reuse_existing``), or what is being bought
    for it, and buys nothing (``claims``; docs/paying-once.md).

    Returns through XCom a mapping with these keys; above 500 images the lists are empty, ``truncated`` is true and the
    manifest alone holds them:

    * ``images``: for each request that has its image ``{"uri", "id", "index", "sha256", "bytes", "format", "width",
      "height", ...}``, in the order of the requests;
    * ``failed``: for each that has none ``{"request", "name", "id", "code", "message", "charged"}``, ``charged`` being
      ``no``, ``yes`` or ``unknown``;
    * ``quarantined``: bytes that were paid, failed a check and are kept; ``abandoned``: image tasks of requests that a
      clear removed, paid and not landed;
    * ``count``, ``failed_count``, ``extra_count``: numbers of images in place, missing, and more than asked for;
    * ``shared``, ``reused``: numbers of images that another run bought meanwhile, and that were in place before;
    * ``cost_usd``: what the images cost, whoever paid, in USD; one that was in place before counts nothing;
    * ``paid_usd``: what all attempts of this task instance paid, in USD; ``lost_race``: what of that went for images
      beside which another purchase was first in place;
    * ``manifest``: URI of the JSON file beside the images, None where it could not be written.

    :param destination: Any ``ObjectStoragePath`` URI of a folder, such as ``s3://conn@bucket/folder``, or a local path.
    :param prompt: What the picture shows. With ``requests`` it is a template over the columns of each of them, such as
        ``"{name}, {colour}, on a café table"`` (docs/tables.md).
    :param requests: A list of prompts and of mappings ``{"prompt", "size", "resolution", "reference_images", "model",
        "extra_body", "variant", "name", "meta"}``; a table of pandas, polars or arrow; the URI of a CSV, JSON lines or
        Parquet file; also the output of another task. Columns of a table that are no fields travel as ``meta``.
    :param size: Aspect ratio, such as ``16:9``, of requests that give none; likewise ``resolution`` (``1K``, ``2K`` or
        ``4K``), ``reference_images``, ``model``, ``extra_body`` and ``variant``.
    :param max_cost_usd: USD; no request is submitted that would pass it, counting what earlier attempts paid, and
        nothing that others did.
    :param preflight_balance: Whether to compare the estimate with the account's balance before the first submit.
    :param allow_partial: Whether one image is enough to succeed; what failed is listed in the result. With
        ``"after_retries"`` what a retry can help is retried first.
    :param variants: How many pictures to make of each request, told apart by ``variant``.
    :param on_bad_row: What follows when a row cannot be made a request: ``fail``, or ``skip`` the row.
    :param dry_run: Whether to say what is in place, what would be bought and what it would cost, and buy nothing.
    :param redo: Names, positions or URIs of images to make a new version of, in this run.
    :param on_suspect: What follows when an image looks empty, is the same as another prompt's or has another size
        (docs/suspects.md): ``warn``; ``fail`` with all in place; or ``quarantine``, kept apart as failed. None buys.
    :param thumbnails: Whether a small picture of each image that is landed is written, for the gallery in Airflow.
    :param prepare_references: Whether reference images in storage are made fit for the service first: turned upright
        (EXIF), converted from CMYK to RGB, made smaller than 10 MB. It changes no identity: switching it buys nothing.
    :param reuse_existing: Whether an image landed before for the same request is used; False buys again after a clear.
    :param on_unknown_submission: What follows when it cannot be found out whether a submit was accepted: ``resubmit``
        or ``fail``.
    :param on_expired: What follows when the link of a paid image has expired (24 hours, docs/toapis.md, "Result
        links"): ``fail``, or ``resubmit``, which pays again.
    :param deferrable: Wait in the triggerer; otherwise in the worker.
    :param timeout: Seconds (or a timedelta) that one attempt waits for an image, from its own submit.
    :param poke_interval: Seconds (or a timedelta) between two polls of one image task.
    :param slice_seconds: Seconds (or a timedelta), at least 30, after which the work begins again with what is left,
        and what failed for a moment is tried again: at once where there is something to submit, else after a pause
        without a worker. At most half of ``execution_timeout``.
    :param adopt: Image tasks chosen by a person where the program cannot know what it bought, by the
        ``client_business_id`` that the failed attempt named: ``{"<client_business_id>": "<image task id>"}``.
    :param claims: Whether each purchase is claimed beside its file first, so that whoever else wants the same file, in
        whatever run or installation, does not buy it too (docs/paying-once.md): ``auto`` where the destination can hold
        claims, ``require`` or fail before anything is bought, ``off``.
    :param nanobanana_conn_id: Id of the connection.
    :raises NanoBananaFailException: No retry can help: something is wrong with what was asked for or with the
        connection, or images are missing that a retry would not bring.
    :raises NanoBananaException: Images are missing, and a retry goes on from what is there.
    :raises AirflowSkipException: There is nothing to make.
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
        "variants",
        "is_dry_run",
        "redo",
        "adopt",
        "nanobanana_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json"}
    ui_color = "#ffe066"
    #: What was read from a table, a file or a function is shown when it has been read.
    overwrite_rtif_after_execution = True
    #: What stands for the requests where people read them, and all of the requests, where these are too many to show.
    _shown: Any = None
    _given: Any = None
    #: The batch at work in this process, for :meth:`on_kill`.
    _state: BatchState | None = None
    #: Whether Airflow ends the task.
    _killed = False
    #: Whether answers that are too long for a triggerer woke this process.
    _woken_by_long_answers = False

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
        allow_partial: AllowPartial = False,
        variants: int | str = 1,
        on_bad_row: OnBadRow = "fail",
        dry_run: bool | str = False,
        redo: Any = None,
        on_suspect: OnSuspect = "warn",
        thumbnails: bool = True,
        prepare_references: bool = True,
        reuse_existing: bool = True,
        on_unknown_submission: OnUnknownSubmission = "resubmit",
        on_expired: OnExpired = "fail",
        deferrable: bool = True,
        timeout: float | timedelta = 900,
        poke_interval: float | timedelta = 5,
        slice_seconds: float | timedelta = 300,
        adopt: Mapping[str, str] | None = None,
        claims: ClaimMode = "auto",
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(kwargs))
        self.destination = destination
        self.prompt = prompt
        self.requests = requests
        self._has_requests = requests is not None
        self.size = size
        self.resolution = resolution
        self.reference_images = reference_images
        self.model = model
        self.extra_body = extra_body
        self.variant = variant
        self.max_cost_usd = max_cost_usd
        self.preflight_balance = preflight_balance
        self.allow_partial = allow_partial
        self.variants = variants
        self.on_bad_row = on_bad_row
        # ``dry_run`` is a method of each operator of Airflow.
        self.is_dry_run = dry_run
        self.redo = redo
        self.on_suspect = on_suspect
        self.thumbnails = thumbnails
        self.prepare_references = prepare_references
        self.reuse_existing = reuse_existing
        self.on_unknown_submission = on_unknown_submission
        self.on_expired = on_expired
        self.deferrable = deferrable
        self.timeout = timeout
        self.poke_interval = poke_interval
        self.slice_seconds = slice_seconds
        self.adopt = adopt
        self.claims = claims
        self.nanobanana_conn_id = nanobanana_conn_id

    def execute(self, context: Context) -> Any:
        """Find what earlier attempts and runs have of the images, then buy, wait for and land the rest."""
        return self._make_images(context, resumed=False)

    def execute_complete(self, context: Context, event: Any = None, **_from_newer_versions: Any) -> Any:
        """Go on after a deferral; the event is no more than a wake-up, since the ledger knows everything."""
        self._woken_by_long_answers = tells_of_long_answers(readable_event(event))
        return self._make_images(context, resumed=True)

    def on_kill(self) -> None:
        """Stop buying, and log what a killed attempt leaves behind: the service has no cancel."""
        ids = self._stop_buying()
        self._stop()
        log.warning(
            "Killed. Nothing more is bought. What was submitted goes on and stays paid; the next attempt, or a clear "
            "of this task, finds and lands it. Image tasks known to be under way: %d%s.",
            len(ids),
            f" ({', '.join(ids)})" if ids else "",
        )

    def _make_images(self, context: Context, *, resumed: bool) -> Any:
        with airflow_errors():
            return self._run_stoppable(lambda: self._work(context, resumed=resumed), self._stop_buying)

    def _stop_buying(self) -> list[str]:
        """Buy nothing more, also where the batch is still being prepared; return the ids of what is under way."""
        self._killed = True
        return self._state.kill() if self._state is not None else []

    def _work(self, context: Context, *, resumed: bool) -> Any:
        from airflow_provider_nanobanana.batch.items import EmptyBatch
        from airflow_provider_nanobanana.landing.downloader import ImageDownloader

        with airflow_errors():
            spec = self._spec(context)
            with NanoBananaHook(self.nanobanana_conn_id) as hook:
                session = hook.session
                began = session.clock()
                with ImageDownloader(
                    session, self.destination, on_suspect=self.on_suspect, thumbnails=self.thumbnails
                ) as downloader:
                    try:
                        is_dry_run = parse_flag(self.is_dry_run, "dry_run")
                        preparation = self._preparation(context, session, downloader, spec, resumed=resumed)
                        # A dry run never waits: what is resumed is a batch, or a mistake of Airflow (its issue 62845).
                        if is_dry_run and not preparation.is_under_way():
                            return self._dry_run(preparation)
                        TaskManifest.from_context(context, downloader.store, session.settings.namespace).announce(
                            context
                        )
                        self._state = state = self._prepare(preparation)
                    except EmptyBatch as empty:
                        raise AirflowSkipException(empty.message) from empty
                    self._show_what_was_read(context, state.items)
                    if self._killed:
                        state.kill()
                    with self._telling_lineage(hook, lambda: self._lineage(state)):
                        return self._run(context, state, began, resumed=resumed)

    def _run(self, context: Context, state: BatchState, began: float, *, resumed: bool) -> Any:
        """Work in slices until nothing is left to wait for, then report; or defer between two slices.

        :param began: When this process began to work on the task, in epoch seconds.
        :param resumed: Whether it goes on after a pause.
        """
        from airflow_provider_nanobanana.batch.runner import BatchRunner

        growing = _growing_manifest(context, state, resumed=resumed)
        runner = BatchRunner(state, growing.write_when_due)
        before = state.progress()
        while True:
            try:
                runner.run_slice(self._slice_seconds(state.session.clock() - began))
            except errors.ToApisError as error:
                if not error.retryable:
                    with suppress(errors.ToApisError):
                        _report(context, self, state)
                elif not self._killed:
                    growing.write()
                _log_progress(state)
                raise
            if runner.can_go_on() and self._has_time_for_another(state.session.clock() - began):
                growing.write_when_due()
                continue
            wait = runner.next_wait()
            if wait is None:
                break
            runner.log_progress(last=self.deferrable)
            growing.write()
            if self.deferrable:
                for_nothing = self._woken_by_long_answers and state.progress() == before
                raise self._deferral(state, wait, for_nothing=for_nothing)
            state.session.sleep(min(self._poke_seconds(), max(0.0, wait.wake_at - state.session.clock())))
        result, failure = _report(context, self, state)
        runner.sweep_claims()
        if failure is not None:
            raise failure
        _add_to_asset_events(context, self, result, state.downloader.store.uri(""))
        return result

    def _show_what_is_asked(self, context: Context) -> None:
        """Name the row in the grid, and show of many requests the beginning; what is made are all of them."""
        super()._show_what_is_asked(context)
        name_row(self, context, row_name_of(self.requests))
        shown = shown_requests(self.requests)
        if shown is not self.requests:
            self._given, self._shown = self.requests, shown
            self.requests = shown

    def _all_requests(self) -> Any:
        """Return the requests as they were given, whatever is shown of them."""
        return self._given if self._shown is not None and self.requests is self._shown else self.requests

    def _show_what_was_read(self, context: Context, items: Sequence[BatchItem]) -> None:
        """Show what was read of a table, a file or a generator, and name the row after what is made."""
        name_row(self, context, row_name_of_items(items))
        given = self._all_requests()
        if given is not None and not isinstance(given, (list, tuple, dict)):
            self._given, self._shown = given, shown_items(items)
            self.requests = self._shown

    def _spec(self, context: Context) -> BatchSpec:
        """Return what is asked for; checks what only shows after rendering and mapping, and sends nothing."""
        from airflow_provider_nanobanana.batch.budget import Budget
        from airflow_provider_nanobanana.batch.preparation import BatchSpec

        check_choices(self, flags=_FLAGS)
        self._poke_seconds()
        self._slice_seconds()
        return BatchSpec(
            given=lambda: self._read_requests(context),
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
            claims=self.claims,
            at_hand=self._plain_requests(),
            redo=parse_redo(self.redo),
            prepare_references=self.prepare_references,
            template=self._template(),
            variants=parse_variants(self.variants),
            skips_bad_rows=self.on_bad_row == "skip",
        )

    def _row_file(self) -> str | None:
        """Return the URI of the file that the requests are read from, where the argument names one."""
        from airflow_provider_nanobanana.batch.row_locations import names_path, names_row_file

        given = self._all_requests()
        names_file = names_path(given) or (isinstance(given, str) and names_row_file(given, bare=True))
        return str(as_reference(given)) if names_file else None

    def _lineage(self, state: BatchState) -> TaskLineage:
        """Return what was read, and what is in place and paid by now; asked where somebody reads lineage."""
        from airflow_provider_nanobanana.batch.task_lineage import of_batch

        try:
            row_file = self._row_file()
        except errors.InvalidRequest:  # what is given since: this attempt goes on with the list that it has
            row_file = None
        return of_batch(state, row_file)

    def _plain_requests(self) -> Any:
        """Return what is asked for where it is plain data and here already, else None."""
        requests = self.prompt if self.requests is None else self._all_requests()
        return requests if isinstance(requests, (str, list, tuple, dict)) else None

    def _template(self) -> str | None:
        """Return the prompt where it is one over the columns of the requests."""
        return one_prompt(self.prompt) if self._has_requests else None

    def _read_requests(self, context: Context) -> Any:
        """Return what is asked for: a prompt, a request, an iterable of both, or a table; of a file its rows.

        :raises EmptyBatch: The tasks before were skipped.
        :raises InvalidRequest: Nothing is given, or requests is a text that names no file of rows.
        """
        from airflow_provider_nanobanana.batch.items import EmptyBatch
        from airflow_provider_nanobanana.batch.row_files import read_row_file
        from airflow_provider_nanobanana.batch.row_locations import check_prompt

        prompt = one_prompt(self.prompt)
        given = self._all_requests()
        # A template alone is no prompt: requests that turn out to be None must not make it one.
        nothing = given is None and (prompt is None or self._has_requests)
        if nothing and was_skipped(self, context):
            raise EmptyBatch("There is nothing to make: the tasks before were skipped. Nothing was charged.")
        if nothing:
            what = "requests is" if prompt is not None else "both are"
            raise errors.InvalidRequest(
                f"Give a prompt, or requests: {what} None, as is the output of a task that was skipped or returned "
                "nothing. Nothing was sent and nothing was charged; a retry would meet the same."
            )
        if given is None:
            check_prompt(prompt)
            return prompt
        if self._row_file() is not None:
            return read_row_file(given)
        if isinstance(given, str):
            raise errors.InvalidRequest(
                "requests is one text that names no file of rows: a template renders to text unless the DAG sets "
                "render_template_as_native_obj. Give a list, a table, the output of a task, or the URI of a CSV, JSON "
                "lines or Parquet file. Nothing was sent and nothing was charged; a retry would meet the same."
            )
        return given

    def _prepare(self, preparation: BatchPreparation) -> BatchState:
        return preparation.prepare()

    def _preparation(
        self,
        context: Context,
        session: ToApisSession,
        downloader: ImageDownloader,
        spec: BatchSpec,
        *,
        resumed: bool,
    ) -> BatchPreparation:
        from airflow_provider_nanobanana.batch.preparation import BatchPreparation
        from airflow_provider_nanobanana.durable.attempt import TaskAttempt
        from airflow_provider_nanobanana.durable.state_store import state_store_for
        from airflow_provider_nanobanana.submission.client_ids import policy_for

        retries = self.retries or 0
        return BatchPreparation(
            session=session,
            downloader=downloader,
            store=state_store_for(context),
            spec=spec,
            attempt=TaskAttempt.from_context(
                context, retries=retries, started_at=session.clock(), namespace=session.settings.namespace
            ),
            retries=retries,
            policy=policy_for(
                session,
                on_unknown_submission=self.on_unknown_submission,
                reuse_existing=self.reuse_existing,
                on_expired=self.on_expired,
                clear_rebuys=True,
            ),
            resumed=resumed,
        )

    def _dry_run(self, preparation: BatchPreparation) -> dict[str, Any]:
        """Return what a run would do; nothing is bought, written or taken for it."""
        from airflow_provider_nanobanana import metrics
        from airflow_provider_nanobanana.batch.dry_run import dry_run_line, dry_run_result

        # Claims are files, and only read to be written; Airflow would send the events of the assets by itself.
        spec = replace(preparation.spec, claims="off", preflight_balance=False, dry_run=True)
        self.outlets = []
        with metrics.muted():
            # Where a wait lost its records, a slice before it may have sent anything.
            result = dry_run_result(replace(preparation, spec=spec).rehearse())
        log.info("%s", dry_run_line(result))
        return result

    def _deferral(self, state: BatchState, wait: WaitSpec, *, for_nothing: bool) -> TaskDeferred:
        """Return what ends this process until the trigger of a wait fires."""
        now = state.session.clock()
        log.info("%s", wait_message(wait))
        return TaskDeferred(
            trigger=trigger_for(
                wait,
                conn_id=self.nanobanana_conn_id,
                poll_interval=self._poke_seconds(),
                now=now,
                not_before=first_poll_after(now, self._poke_seconds(), for_nothing=for_nothing),
            ),
            method_name="execute_complete",
            timeout=defer_timeout(wait.wake_at - now),
        )

    def _poke_seconds(self) -> float:
        return parse_seconds(self.poke_interval, "poke_interval")

    def _slice_seconds(self, elapsed: float = 0.0) -> float:
        """Return the seconds of a slice: Airflow's timeout is of one process, and must not end what comes along well.

        :param elapsed: Seconds since this process began: its preparation counts, too.
        :raises InvalidRequest: They are too few to get anywhere; nothing was sent.
        """
        seconds = parse_seconds(self.slice_seconds, "slice_seconds")
        if seconds < _SHORTEST_SLICE:
            raise errors.InvalidRequest(
                f"slice_seconds is at least {_SHORTEST_SLICE:g}, not {self.slice_seconds!r}. Nothing was charged."
            )
        limit = self._execution_seconds()
        # However long the preparation took: one that is followed by no work would be made for ever.
        return min(seconds, limit / 2, max(_SHARE_OF_TIMEOUT * limit - elapsed, _SHORTEST_SLICE))

    def _has_time_for_another(self, elapsed: float) -> bool:
        """Whether this process may begin a further slice: Airflow's timeout is counted anew after a deferral."""
        return not self.deferrable or elapsed + _SHORTEST_SLICE <= _SHARE_OF_TIMEOUT * self._execution_seconds()

    def _execution_seconds(self) -> float:
        return math.inf if self.execution_timeout is None else self.execution_timeout.total_seconds()


def wait_message(wait: WaitSpec) -> str:
    """Return the line of the log that a deferral begins with."""
    latest = datetime.fromtimestamp(wait.wake_at, UTC).strftime("%H:%M:%S UTC")
    if not wait.image_task_ids:
        return f"Waiting without a worker until {latest}."
    return f"Waiting without a worker until {latest} at the latest; {len(wait.image_task_ids):,} under way."


def trigger_for(wait: WaitSpec, *, conn_id: str, poll_interval: float, now: float, not_before: float) -> BaseTrigger:
    """Return the trigger of a wait.

    :param poll_interval: Seconds between two polls of one image task.
    :param now: Epoch seconds.
    :param not_before: Epoch seconds before which nothing is polled.
    """
    if not wait.image_task_ids:
        from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger

        return NanoBananaTimerTrigger(moment=wait.wake_at, deadline=wait.wake_at)
    from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger

    return NanoBananaTrigger(
        image_task_ids=wait.image_task_ids,
        nanobanana_conn_id=conn_id,
        started_at=now,
        deadline=wait.wake_at,
        poll_interval=poll_interval,
        created_at=wait.created_at,
        kinds=wait.kinds,
        not_before=not_before,
        enough=wait.enough,
    )


def _growing_manifest(context: Context, state: BatchState, *, resumed: bool) -> GrowingManifest:
    """Return what writes the manifest while the batch is at work."""
    from contextlib import nullcontext

    from airflow_provider_nanobanana.batch.interim_report import interim_report

    store = state.downloader.store
    manifest = TaskManifest.from_context(context, store, state.session.settings.namespace)

    def content() -> Mapping[str, Any] | None:
        report = None if state.stops.killed else interim_report(state)
        if report is None:
            return None
        now = state.session.clock()
        return report.manifest(run=_run_names(manifest, state), destination=store.uri(""), now=now, finished=False)

    no_book_written = nullcontext if state.claims is None else state.claims.no_book_written
    written = state.progress() if resumed else None
    return GrowingManifest(
        *(manifest, content, state.progress),
        written=written,
        overtaken=lambda: not state.checkpoints.is_last(),
        no_book_written=no_book_written,
    )


def _report(
    context: Context, operator: NanoBananaGenerateOperator, state: BatchState
) -> tuple[dict[str, Any], errors.ToApisError | None]:
    """Write the result to XCom, then the manifest beside the images; return the result and the error it amounts to.

    A manifest that cannot be written loses nothing: its sentence is added to the error, and alone it is an error that
    a retry fixes for free.
    """
    from airflow_provider_nanobanana.batch import removed_items
    from airflow_provider_nanobanana.batch.report import BatchReport
    from airflow_provider_nanobanana.batch.suspect_report import report_suspects

    outcomes = state.outcomes()
    totals = state.costs.totals()
    left = removed_items.abandoned_records(state)
    removed_items.log_abandoned(state, left)
    store = state.downloader.store
    manifest = TaskManifest.from_context(context, store, state.session.settings.namespace)
    former = removed_items.stored_records(state)
    report = BatchReport(
        outcomes,
        totals,
        abandoned=left,
        former=former,
        skipped=state.skipped,
        prepared_references=state.prepared_references(),
    )
    result = report.result(manifest.uri)
    push_result(context, operator, result)
    now = state.session.clock()
    unwritten = manifest.write(report.manifest(run=_run_names(manifest, state), destination=store.uri(""), now=now))
    if unwritten is not None:
        result = {**result, "manifest": None}
        push_result(context, operator, result)
        _log_paid(outcomes)
    error = report.error(allow_partial=False, manifest_uri=result["manifest"])
    if error is not None and _is_partial_enough(operator.allow_partial, error, context):
        error = report.error(allow_partial=True, manifest_uri=result["manifest"])
    suspicion = report_suspects(
        [image.image for image in report.stored],
        {str(image.image["uri"]): image.item.label for image in report.stored if not image.extra},
        operator.on_suspect,
        conn_id=state.session.conn_id,
    )
    error = error or suspicion
    _log_result(result, report.last_line(), store.uri(""))
    if error is None and report.failed:
        log.warning("Going on without:\n%s", report.failure_table())
    return result, with_manifest_error(error, unwritten, f"Images in place: {result['count']:,}")


def _run_names(manifest: TaskManifest, state: BatchState) -> dict[str, Any]:
    """Return what names the task instance in its manifest, the try, and whether the sums are of all tries."""
    return {**manifest.run, "try_number": state.attempt.try_number, "all_tries": state.ledger.complete}


def _is_partial_enough(allow_partial: AllowPartial, error: errors.ToApisError, context: Context) -> bool:
    """Whether what there is may be the result, given what the missing images amount to."""
    if allow_partial == "after_retries":
        return not (error.retryable and has_retry_left(context))
    return allow_partial


def _add_to_asset_events(context: Context, operator: BaseOperator, result: Mapping[str, Any], destination: str) -> None:
    """Add counts, costs and manifest to the events of the task's assets; a failure here fails no paid task.

    An alias gets one event, of the asset that the destination is: one an image would be thousands.
    """
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    from airflow_provider_nanobanana.lineage import asset_uri

    events: Any = context.get("outlet_events")
    if events is None:
        return
    extra = {name: result[name] for name in _IN_ASSET_EVENTS}
    for outlet in operator.outlets:
        # Lineage entities have no events. A reference to an asset is looked up by Airflow, which may not know it yet.
        if not isinstance(outlet, (Asset, AssetAlias)) and not type(outlet).__name__.endswith("Ref"):
            continue
        try:
            with wrap_unexpected_errors(f"The event of {outlet} was not given"):
                uri = asset_uri(destination.rstrip("/")) if isinstance(outlet, AssetAlias) else None
                if uri is None:
                    events[outlet].extra.update(extra)
                else:
                    events[outlet].add(Asset(uri=uri), extra=extra)
        except errors.ToApisError as error:
            log.warning("%s The images are in place all the same.", error.message)


def _log_paid(outcomes: Sequence[Outcome]) -> None:
    """Log every image task that is, or may be, paid and whose image is not in place."""
    from airflow_provider_nanobanana.batch.outcome import FailedItem

    failed = [outcome for outcome in outcomes if isinstance(outcome, FailedItem) and not outcome.shared]
    ids = list(dict.fromkeys(failure.id for failure in failed if failure.id and failure.charged != "no"))
    for start in range(0, len(ids), _IDS_IN_A_LINE):
        log.warning("Paid, and not in place: %s", ", ".join(ids[start : start + _IDS_IN_A_LINE]))


def _log_progress(state: BatchState) -> None:
    """Log what an attempt leaves that ends before its work is done: what is there, what is paid, and what follows."""
    from airflow_provider_nanobanana.batch.failure_text import money_in_words

    progress = state.progress()
    log.warning(
        "%s of %s images are in place, %s under way, %d not submitted; %s so far.",
        f"{progress.stored:,}",
        f"{progress.total:,}",
        f"{progress.running:,}",
        progress.pending,
        money_in_words(state.costs.totals()),
    )
    log.warning("A retry, or a clear, goes on from here: nothing of it is bought again.")
    _log_paid(state.outcomes())


def _log_result(result: Mapping[str, Any], last_line: str, destination: str) -> None:
    """Log what there is in the end, what it cost, and where it is."""
    if result["extra_count"]:
        log.info(
            "More images than asked for came with the others: %d; stored beside them, with a number behind the name",
            result["extra_count"],
        )
    log.info("%s", last_line)
    if result["count"]:
        log.info("Images: %s", destination)
    if result["manifest"]:
        log.info("Manifest: %s", result["manifest"])
    log.info("Clearing this task does not buy existing images again.")
