"""The sensor that waits for image tasks, by default without a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_nanobanana.exceptions import (
    NanoBananaException,
    airflow_errors,
    airflow_exception,
    sensor_exception,
)
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_nanobanana.toapis.outcome import Sighting, Wait

Records = list[dict[str, Any]]

#: Airflow's own timeout of a deferral stands this far behind ours: a net, never the rule.
_NET_SECONDS = 60.0


class NanoBananaSensor(BaseSensorOperator):
    """Wait for image tasks and return what became of each, in the order of the ids.

    Each entry is ``{"id", "status": "completed"|"failed"|"timeout", "images": [{"url"}], "expires_at", "cost_usd",
    "error"}``. It never submits and never cancels. The entries are in XCom also when the sensor fails, so that a
    download task with ``trigger_rule="all_done"`` lands what is paid.

    :param image_task_ids: One id, or a list of ids (also the output of a mapped submit, with holes in it).
    :param allow_partial: Whether one completed image task is enough.
    :param deferrable: Wait in the triggerer; otherwise poke or reschedule, with the same result and errors.
    :param timeout: Seconds that one attempt waits, counted from its start.
    :param poke_interval: Seconds between two polls of one image task.
    :param nanobanana_conn_id: Id of the connection.
    """

    template_fields: Sequence[str] = ("image_task_ids", "nanobanana_conn_id")
    ui_color = "#fde2a7"

    def __init__(
        self,
        *,
        image_task_ids: str | Sequence[str] | XComArg,
        allow_partial: bool = False,
        deferrable: bool = True,
        timeout: float | timedelta = 900,
        poke_interval: float | timedelta = 5,
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=timeout, poke_interval=poke_interval, **kwargs)
        self.image_task_ids = image_task_ids
        self.allow_partial = allow_partial
        self.deferrable = deferrable
        self.nanobanana_conn_id = nanobanana_conn_id
        self._wait: Wait | None = None
        self._settled: dict[str, Sighting] = {}

    def execute(self, context: Context) -> Any:
        """Look once, then wait in the way that was asked for."""
        self._wait = self._wait_of_attempt(context)
        if self.deferrable:
            return self._softened(lambda: self._defer_or_conclude(context))
        return self._softened(lambda: super(NanoBananaSensor, self).execute(context), context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; what is softened is decided here, since the base class softens every error."""
        base = super().resume_execution
        return self._softened(lambda: base(next_method, next_kwargs, context), context)

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Read the results after the trigger's wake-up; a foreign or broken event is no more than a wake-up either."""
        event = event if isinstance(event, dict) else {}
        self._wait = _wait_of_event(event) or self._wait_of_attempt(context)
        records = self._defer_or_conclude(context, refused=event.get("outcome") == "refused")
        self.log.info("Every one of %d image tasks is settled.", len(records))
        return records

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once at what has not settled yet."""
        wait = self._wait = self._wait or self._wait_of_attempt(context)
        sightings = self._look()
        if all(sighting.settled(wait, time.time()) for sighting in sightings) or wait.over(time.time()):
            return PokeReturnValue(True, self._conclude(context, sightings, wait))
        return False

    def _defer_or_conclude(self, context: Context, *, refused: bool = False) -> Records:
        wait = self._wait or self._wait_of_attempt(context)
        sightings = self._look()
        now = time.time()
        waiting = [sighting for sighting in sightings if not sighting.settled(wait, now)]
        if not waiting or wait.over(now):
            return self._conclude(context, sightings, wait)
        if refused:
            raise NanoBananaException(
                errors.TransientFailure(
                    "The triggerer was refused by the gateway, this worker is not: do both see the same connection "
                    f"{self.nanobanana_conn_id!r}? The image tasks go on and stay paid; a retry waits on for free.",
                    charged="yes",
                )
            )
        self._defer(waiting, wait, now)

    def _defer(self, waiting: Sequence[Sighting], wait: Wait, now: float) -> NoReturn:
        from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger

        self.log.info(
            "%d image tasks are running; waiting without a worker for at most %.0f s.",
            len(waiting),
            wait.remaining(now),
        )
        self.defer(
            trigger=NanoBananaTrigger(
                image_task_ids=[sighting.id for sighting in waiting],
                nanobanana_conn_id=self.nanobanana_conn_id,
                started_at=wait.started_at,
                deadline=wait.deadline,
                poll_interval=float(self.poke_interval),
                first_polls=[round(max(sighting.first_poll(now), now + self.poke_interval), 1) for sighting in waiting],
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=wait.remaining(now) + _NET_SECONDS),
        )
        raise AssertionError("defer raises")

    def _look(self) -> list[Sighting]:
        """Look at every image task that has not settled in this process; the poll that is refused is raised."""
        from airflow_provider_nanobanana.hooks.sightings import look_at
        from airflow_provider_nanobanana.sensors.ids import read_ids
        from airflow_provider_nanobanana.toapis.outcome import REFUSALS

        with airflow_errors():
            ids = read_ids(self.image_task_ids)
        wait = self._wait
        with NanoBananaHook(self.nanobanana_conn_id) as hook:
            fresh = {
                sighting.id: sighting for sighting in look_at(hook, [id_ for id_ in ids if id_ not in self._settled])
            }
        for sighting in fresh.values():
            if isinstance(sighting.error, REFUSALS):
                raise airflow_exception(_refusal(sighting.error, ids)) from sighting.error
            if wait is not None and sighting.settled(wait, time.time()):
                self._settled[sighting.id] = sighting
        return [self._settled.get(id_) or fresh[id_] for id_ in ids]

    def _conclude(self, context: Context, sightings: Sequence[Sighting], wait: Wait) -> Records:
        """Return the records, or raise what they amount to; then they are in XCom all the same."""
        from airflow_provider_nanobanana.toapis.outcome import conclude

        now = time.time()
        records = [sighting.record(wait, now) for sighting in sightings]
        error = conclude(records, allow_partial=self.allow_partial)
        if error is None:
            incomplete = [record for record in records if record["status"] != "completed"]
            if incomplete:
                self.log.warning(
                    "Going on without %d of %d image tasks: %s", len(incomplete), len(records), incomplete[:10]
                )
            return records
        if records and self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=records)
        raise sensor_exception(error)

    def _wait_of_attempt(self, context: Context) -> Wait:
        from airflow_provider_nanobanana.toapis.outcome import Wait

        rescheduled = (
            context["ti"].get_first_reschedule_date(context) if self.reschedule and not self.deferrable else None
        )
        started_at = rescheduled.timestamp() if rescheduled else time.time()
        return Wait(started_at, started_at + self.timeout)

    def _softened(self, action: Callable[[], Any], context: Context | None = None) -> Any:
        """Run, and skip only what ``soft_fail`` or ``never_fail`` may: one rule for every way of waiting."""
        try:
            return self._undone(action, context)
        except NanoBananaException as failure:
            outcome = isinstance(failure.error, (errors.ImageTaskFailed, errors.ImageTaskTimeout))
            if self.never_fail or (self.soft_fail and outcome):
                raise AirflowSkipException(f"Skipped instead of failed: {failure.error.message}") from failure
            raise

    def _undone(self, action: Callable[[], Any], context: Context | None) -> Any:
        """Run, and undo what the base class made of it: its skips of any error, and its own clock's timeout."""
        try:
            return action()
        except (AirflowSensorTimeout, AirflowSkipException) as ended:
            reason = ended.__cause__ if isinstance(ended, AirflowSkipException) else ended
            if isinstance(reason, NanoBananaException):
                raise reason from reason.error
            if context is not None and (reason is None or isinstance(reason, AirflowSensorTimeout)):
                # Airflow's clock ran out a moment before ours: the answer is ours all the same.
                now = time.time()
                self._wait = _over(self._wait, now)
                return self._conclude(context, self._look(), self._wait)
            if reason is not None and not self.never_fail:
                raise reason from None
            raise


def _over(wait: Wait | None, now: float) -> Wait:
    from airflow_provider_nanobanana.toapis.outcome import NOT_FOUND_GRACE_SECONDS, Wait

    return Wait(wait.started_at if wait else now - NOT_FOUND_GRACE_SECONDS, now)


def _wait_of_event(event: dict[str, Any]) -> Wait | None:
    from airflow_provider_nanobanana.toapis.outcome import Wait

    started_at, deadline = event.get("started_at"), event.get("deadline")
    if isinstance(started_at, (int, float)) and isinstance(deadline, (int, float)):
        return Wait(started_at, deadline)
    return None


def _refusal(error: errors.ToApisError, ids: Sequence[str]) -> errors.ToApisError:
    shown = ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
    return type(error)(
        f"{error.message} The image tasks go on and stay paid: {shown}. Mend the connection and clear this sensor; do "
        "not clear the submit tasks.",
        image_task_id=error.image_task_id,
        http_status=error.http_status,
        code=error.code,
        charged="yes",
    )
