"""NanoBananaSensor: waits for image tasks, by default without a worker, and returns what became of each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    TaskDeferred,
)

from airflow_provider_nanobanana.batch.lineage_operator import LineageOperator
from airflow_provider_nanobanana.compat import TaskDeferralError, has_retry_left, was_skipped
from airflow_provider_nanobanana.exceptions import NanoBananaException, airflow_errors, sensor_exception, without_twin
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.metrics import count_results
from airflow_provider_nanobanana.polling.outcome_error import listed_ids, listed_records
from airflow_provider_nanobanana.retry_policy import with_retry_policy
from airflow_provider_nanobanana.stored_forms import readable_event
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.errors import InvalidRequest, ToApisError, TransientFailure
from airflow_provider_nanobanana.toapis.failure_codes import failure_code
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.storage_uris import is_object_address
from airflow_provider_nanobanana.toapis.text_lines import fold
from airflow_provider_nanobanana.triggers.deferral import defer_timeout, first_poll_after, tells_of_long_answers
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK, StoppableOperator, take_each

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_nanobanana.polling.poll_tracker import PollTracker
    from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow

log = LineLogger(__name__)

Records = list[dict[str, Any]]

#: What the base class raises of its own, or makes of an error of ours.
_BASE_CLASS_ERRORS: Final = (AirflowSensorTimeout, AirflowSkipException, TaskDeferralError)


class NanoBananaSensor(LineageOperator, StoppableOperator, BaseSensorOperator):
    """Wait for image tasks and return what became of each, in the order of the ids.

    Each entry of the list is ``{"id", "status": "completed"|"failed"|"timeout", "images": [{"url"}], "expires_at",
    "cost_usd", "error": {"code", "message"}}``, at most 600 bytes of JSON; ``expires_at`` is in epoch seconds, what an
    entry has not is None. The sensor never submits and never cancels. The entries are in XCom also when it fails, so
    that a download task with ``trigger_rule="all_done"`` lands what is paid. Without ids it is skipped when its
    upstream was.

    :param image_task_ids: One id, or a list of ids (also the output of a mapped submit, with holes in it).
    :param allow_partial: Whether one completed image task is enough to succeed. With ``"after_retries"`` what was not
        ready in time is waited for again by each retry first: then a timeout is retried.
    :param deferrable: Wait in the triggerer; otherwise poke or reschedule, with the same result and errors.
    :param timeout: Seconds (or a timedelta) that one attempt waits, counted from its start.
    :param poke_interval: Seconds (or a timedelta) between two polls of one image task.
    :param nanobanana_conn_id: Id of the connection.
    :raises NanoBananaFailException: Image tasks failed or expired, or the key is refused.
    :raises NanoBananaSensorTimeout: Time is up; the image tasks go on and stay paid.
    :raises NanoBananaException: The wait broke off; a retry waits on for free.
    """

    template_fields: Sequence[str] = ("image_task_ids", "nanobanana_conn_id")
    ui_color = "#fde2a7"
    #: What was polled so far, for a sensor that pokes.
    _tracker: PollTracker | None = None

    def __init__(
        self,
        *,
        image_task_ids: str | Sequence[str] | XComArg,
        allow_partial: bool | Literal["after_retries"] = False,
        deferrable: bool = True,
        timeout: float | timedelta = 900,
        poke_interval: float | timedelta = 5,
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=timeout, poke_interval=poke_interval, **with_retry_policy(kwargs))
        self.image_task_ids = image_task_ids
        self.allow_partial = allow_partial
        self.deferrable = deferrable
        self.nanobanana_conn_id = nanobanana_conn_id

    def execute(self, context: Context) -> Any:
        """Poll once, then wait in the way that was asked for."""
        with airflow_errors():
            return self._run_stoppable(lambda: self._wait_for_all(context))

    def on_kill(self) -> None:
        """Stop waiting; the image tasks go on and stay paid."""
        self._stop()

    def _wait_for_all(self, context: Context) -> Any:
        with self._soft_fail():
            self._check_arguments()
            tracker = self._tracker = self._new_tracker(self._wait_of_attempt(context))
            if not tracker.ids and was_skipped(self, context):
                raise AirflowSkipException("There is nothing to wait for: the tasks before were skipped.")
            if self.deferrable:
                return self._conclude_or_defer(context, tracker)
            try:
                return super().execute(context)
            except _BASE_CLASS_ERRORS as ended:
                return self._after_base_class_error(ended, context)

    def _check_arguments(self) -> None:
        if self.allow_partial not in (True, False, "after_retries"):
            with airflow_errors():
                raise InvalidRequest(
                    f"allow_partial is True, False or 'after_retries', not {self.allow_partial!r:.40}. Nothing was "
                    "asked; the image tasks go on and stay paid."
                )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; what is softened is decided here, since the base class softens every error."""
        with airflow_errors():
            return self._run_stoppable(lambda: self._resume(next_method, next_kwargs, context))

    def _resume(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with self._soft_fail():
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except _BASE_CLASS_ERRORS as ended:
                return self._after_base_class_error(ended, context)

    def execute_complete(self, context: Context, event: Any = None, **_from_newer_versions: Any) -> Any:
        """Read the results after the trigger's wake-up; a foreign or broken event is no more than a wake-up either."""
        event = readable_event(event)
        tracker = self._new_tracker(_wait_of_event(event) or self._wait_of_attempt(context))
        records = self._conclude_or_defer(context, tracker, event)
        log.info("All results of %d image tasks are final.", len(records))
        return records

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll once what is not final yet."""
        tracker = self._tracker = self._tracker or self._new_tracker(self._wait_of_attempt(context))
        self._poll(context, tracker)
        return PokeReturnValue(True, self._conclude(context, tracker)) if tracker.over else False

    def _conclude_or_defer(
        self, context: Context, tracker: PollTracker, event: Mapping[str, Any] | None = None
    ) -> Records:
        """Poll once; conclude where that ends the wait, else defer.

        :param event: What the trigger said, where one has woken this worker.
        """
        event = event or {}
        self._poll(context, tracker)
        if tracker.over:
            return self._conclude(context, tracker)
        waiting = tracker.not_final()
        if event.get("outcome") == "refused" and any(result.image_task is not None for result in waiting):
            self._fail(context, tracker, _triggerer_refused(self.nanobanana_conn_id, tracker.ids))
        raise self._deferral(waiting, tracker.wait, for_nothing=tells_of_long_answers(event))

    def _deferral(self, waiting: Sequence[PollResult], wait: WaitWindow, *, for_nothing: bool) -> TaskDeferred:
        """Return what ends this process until the trigger fires."""
        from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger

        now = NanoBananaHook.clock()
        remaining = wait.remaining(now)
        log.info("Still running: %d. Waiting without a worker for %.0f s at most.", len(waiting), remaining)
        return TaskDeferred(
            trigger=NanoBananaTrigger(
                image_task_ids=[result.id for result in waiting],
                nanobanana_conn_id=self.nanobanana_conn_id,
                started_at=wait.started_at,
                deadline=wait.deadline,
                poll_interval=float(self.poke_interval),
                created_at=[result.created_at for result in waiting],
                kinds=[result.latency_key for result in waiting],
                not_before=first_poll_after(now, float(self.poke_interval), for_nothing=for_nothing),
            ),
            method_name="execute_complete",
            timeout=defer_timeout(remaining),
        )

    def _poll(self, context: Context, tracker: PollTracker) -> None:
        """Poll what is not final; raise where the key was refused for all of it."""
        with airflow_errors(), NanoBananaHook(self.nanobanana_conn_id) as hook:
            refusal = tracker.poll(hook.session)
        if refusal is not None:
            self._fail(context, tracker, _key_refused(refusal, tracker.ids))

    def _conclude(self, context: Context, tracker: PollTracker) -> Records:
        """Return the records, or raise what they amount to."""
        from airflow_provider_nanobanana.batch.task_lineage import of_wait
        from airflow_provider_nanobanana.batch.upstream_requests import spoken_of_all
        from airflow_provider_nanobanana.polling.outcome_error import error_for

        records = tracker.records()
        self._task_lineage = lambda: of_wait(records, tracker.models.values())
        self._count(context, records, tracker.models)
        waits_on = self.allow_partial == "after_retries" and any(r["status"] == "timeout" for r in records)
        incomplete = [record for record in records if record["status"] != "completed"]
        spoken = spoken_of_all(self, context, [record["id"] for record in incomplete])
        if waits_on and has_retry_left(context) and (error := error_for(records, allow_partial=False, spoken=spoken)):
            # Airflow never retries the timeout of a sensor, so it is not called one.
            words = f"{error.message} A retry of this task waits on for free."
            self._fail(context, tracker, TransientFailure(words, charged=error.charged))
        error = error_for(records, allow_partial=bool(self.allow_partial), spoken=spoken)
        if error is not None:
            self._fail(context, tracker, error)
        if incomplete:
            log.warning(
                "Going on without %d of %d image tasks.\n%s",
                *(len(incomplete), len(records), "\n".join(listed_records(incomplete, spoken))),
            )
        return records

    def _count(self, context: Context, records: Records, models: Mapping[str, str | None]) -> None:
        """Count what became of each image task, and what was paid: once, where Airflow keeps what tries leave."""
        from airflow_provider_nanobanana.durable.counted import not_counted_before

        ended = {record["id"] for record in records if _has_ended(record)}
        new = not_counted_before(context, ended)
        told = [record for record in records if record["id"] not in ended or record["id"] in new]
        count_results(self.nanobanana_conn_id, told, models)

    def _fail(self, context: Context, tracker: PollTracker, error: ToApisError) -> NoReturn:
        """Raise, with the records in XCom all the same, so that what is paid and completed can be landed."""
        records = tracker.records()
        if records and self.do_xcom_push:
            with SUPERVISOR_LOCK:
                context["ti"].xcom_push(key="return_value", value=records)
        raise without_twin(sensor_exception(error)) from None

    def _new_tracker(self, wait: WaitWindow) -> PollTracker:
        from airflow_provider_nanobanana.polling.poll_tracker import PollTracker

        with airflow_errors():
            return PollTracker(read_ids(self.image_task_ids), wait)

    def _wait_of_attempt(self, context: Context) -> WaitWindow:
        from airflow_provider_nanobanana.polling.result import WaitWindow

        rescheduled = None
        if self.reschedule and not self.deferrable:
            with SUPERVISOR_LOCK:
                rescheduled = context["ti"].get_first_reschedule_date(context)
        started_at = rescheduled.timestamp() if rescheduled else NanoBananaHook.clock()
        return WaitWindow(started_at, started_at + self.timeout)

    @contextlib.contextmanager
    def _soft_fail(self) -> Iterator[None]:
        """Skip where ``soft_fail`` or ``never_fail`` allows it: one rule for every way of waiting."""
        try:
            yield
        except NanoBananaException as failure:
            # A wrong key, say, stays loud.
            if self.never_fail or (self.soft_fail and isinstance(failure.error, errors.OUTCOME_ERRORS)):
                skipped = f"Skipped instead of failed: {failure.error.message}"
                raise AirflowSkipException(fold(skipped)) from failure
            raise

    def _after_base_class_error(self, ended: Exception, context: Context) -> Records:
        """Conclude, or raise our own error, where the base class raised one of its own.

        ========================================  ==========================================================
        the base class raises, or skips from      here
        ========================================  ==========================================================
        one of our errors, which it softened      our error is raised; :meth:`_soft_fail` decides
        its timeout, or a skip without a cause    its clock ran out: a last poll, then the results decide
        ``TaskDeferralError``                     the trigger crashed: a last poll; not final means a retry
        any other error, which it softened        that error is raised, unless ``never_fail`` skips
        ========================================  ==========================================================
        """
        reason = ended.__cause__ if isinstance(ended, AirflowSkipException) else ended
        if isinstance(reason, NanoBananaException):
            raise reason from None
        if reason is None or isinstance(reason, AirflowSensorTimeout):
            return self._after_timeout(context)
        if isinstance(reason, TaskDeferralError):
            return self._after_crash(context, reason)
        if not self.never_fail:
            raise reason from None
        raise ended

    def _after_timeout(self, context: Context) -> Records:
        """Conclude: Airflow's clock ran out a moment before ours, or its net behind our trigger held."""
        from airflow_provider_nanobanana.polling.result import NOT_FOUND_GRACE_SECONDS, WaitWindow

        now = NanoBananaHook.clock()
        tracker = self._tracker or self._new_tracker(WaitWindow(now - NOT_FOUND_GRACE_SECONDS, now))
        tracker.wait = WaitWindow(tracker.wait.started_at, now)
        self._poll(context, tracker)
        return self._conclude(context, tracker)

    def _after_crash(self, context: Context, crash: Exception) -> Records:
        """Conclude if all results are final by now; else fail so that a retry waits on."""
        from airflow_provider_nanobanana.polling.result import WaitWindow

        now = NanoBananaHook.clock()
        tracker = self._new_tracker(WaitWindow(now, now))
        self._poll(context, tracker)
        if tracker.not_final():
            self._fail(context, tracker, _trigger_crashed(crash, self.nanobanana_conn_id, tracker.ids))
        return self._conclude(context, tracker)


def _has_ended(record: Mapping[str, Any]) -> bool:
    """Whether nothing more can become of an image task; what this key is not shown may be paid and be seen later."""
    if record["status"] == "failed":
        return failure_code(record["error"]["code"]).charged != "unknown"
    return bool(record["status"] == "completed")


def _wait_of_event(event: Mapping[str, Any]) -> WaitWindow | None:
    from airflow_provider_nanobanana.polling.result import WaitWindow

    started_at, deadline = event.get("started_at"), event.get("deadline")
    if isinstance(started_at, (int, float)) and isinstance(deadline, (int, float)):
        return WaitWindow(started_at, deadline)
    return None


def read_ids(value: Any) -> list[str]:
    """Return the ids in order, each once: from one id, a list, or the lazy output of a mapped submit with holes in it.

    :raises InvalidRequest: for anything else; nothing was asked.
    """
    entries = [value] if isinstance(value, str) else value
    if entries is None:
        entries = []
    if not isinstance(entries, Iterable) or isinstance(entries, (bytes, dict)):
        raise InvalidRequest(f"image_task_ids is one id or a list of ids, not {type(value).__name__}.")
    ids = [_read_id(entry) for entry in take_each(entries) if entry is not None]
    return list(dict.fromkeys(ids))


def _read_id(entry: Any) -> str:
    if not isinstance(entry, str) or not entry.strip():
        raise InvalidRequest(f"image_task_ids holds {entry!r:.80}, which is no image task id.")
    text = entry.strip()
    if text.startswith(("[", "{", "(")) or any(character.isspace() or character == "," for character in text):
        raise InvalidRequest(
            f"image_task_ids holds the text {text!r:.80}, which looks like a rendered list. Pass the task's .output, "
            "or set render_template_as_native_obj=True on the DAG."
        )
    if is_object_address(text):
        raise InvalidRequest(
            "image_task_ids holds the address of an object, which is no image task id: an XCom whose object is gone "
            "from the XCom backend's store comes as its address. Clear the task before this one: it buys nothing again."
        )
    return text


def _key_refused(error: ToApisError, image_task_ids: Sequence[str]) -> ToApisError:
    """Return the error of a key that is shown nothing; a person must fix the connection."""
    words = f"{error.message} Fix the connection and clear this sensor. {_paid(image_task_ids)}"
    return error.reworded(
        words, charged="yes", first_step="Correct the connection, then clear this task; no submit task."
    )


def _triggerer_refused(conn_id: str, image_task_ids: Sequence[str]) -> ToApisError:
    """Return the error of a triggerer that is refused what this worker is shown."""
    return TransientFailure(
        "The triggerer was refused by the gateway, this worker is not: do both see the same connection "
        f"{conn_id!r}? A retry waits on for free. {_paid(image_task_ids)}",
        charged="yes",
    )


def _trigger_crashed(crash: Exception, conn_id: str, image_task_ids: Sequence[str]) -> ToApisError:
    """Return the error of a trigger that ended without an event."""
    return TransientFailure(
        f"The trigger failed ({crash}; the log above says why: does the triggerer see the connection {conn_id!r}? One "
        f"that belongs to a team it does not). A retry waits on for free. {_paid(image_task_ids)}",
        charged="yes",
    )


def _paid(image_task_ids: Sequence[str]) -> str:
    return f"Do not clear the submit tasks. The image tasks go on and stay paid:\n{listed_ids(image_task_ids)}"
