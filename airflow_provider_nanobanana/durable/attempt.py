"""Where a task instance stands between tries and clears."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity, SubmissionRecord

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def salt_of(context: Context) -> str:
    """Return what tells a task instance from one of the same ids: in another installation, or in a run made again.

    It is when the run began, to the microsecond, and when it was due: what any later attempt derives again, should the
    record that it is kept in be lost. A clear of a finished run begins the run anew (Airflow 3.3.2,
    ``clear_task_instances``), so that what is on record stands (:meth:`SubmissionRecord.salt`). Where a clear discards
    the record, when the run was due has to do. Empty without a task state store, where nothing could be kept.
    """
    from airflow_provider_nanobanana import compat

    run: Any = context.get("dag_run")
    if context.get("task_state_store") is None or run is None:
        return ""
    first, *others = [run.run_after] if compat.clear_discards_task_state() else [run.start_date, run.run_after]
    if first is None:
        return ""
    return " ".join(moment.astimezone(UTC).isoformat() for moment in (first, *others) if moment is not None)


@dataclass(frozen=True)
class TaskAttempt:
    """Where a task instance stands: Airflow counts tries on, and sets ``max_tries`` at every clear.

    :param started_at: Epoch seconds; nothing that this attempt does not know of can have left later. Minus infinity
        where nothing can have left at all.
    :param retry: Whether an earlier try since the last clear may have submitted.
    :param tries_before_clear: Tries spent before the last clear, 0 without one; tells the round of tries that it began.
    :param try_number: Airflow's, from 1; 0 where there is none.
    :param scope: What tells the task instance from others on the account: the connection's namespace, where it has
        one, then dag id, run id, task id and, last, map index; empty where there is no task instance.
    """

    started_at: float
    max_tries: int
    retry: bool
    tries_before_clear: int
    try_number: int = 0
    scope: tuple[str, ...] = ()

    @classmethod
    def from_context(cls, context: Context, *, retries: int, started_at: float, namespace: str) -> TaskAttempt:
        """Return the attempt that a worker is at.

        :param retries: The task's own, of the DAG as this worker has it.
        :param started_at: Epoch seconds.
        :param namespace: The connection's; empty where it has none.
        """
        ti: Any = context["ti"]
        attempt = cls.of(try_number=ti.try_number, max_tries=ti.max_tries, retries=retries, started_at=started_at)
        installation = (namespace,) if namespace else ()
        return replace(attempt, scope=(*installation, ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index)))

    @classmethod
    def of(cls, *, try_number: int, max_tries: int, retries: int, started_at: float) -> TaskAttempt:
        """Return the attempt: at first ``max_tries`` is ``retries``; a clear sets it to the tries so far plus that.

        ``retries`` is that of the worker's DAG, which somebody may have edited since ``max_tries`` was counted. What
        cannot be true is taken for a retry, which looks up before it buys.
        """
        before = max(0, max_tries - retries)
        if before >= try_number:
            before = 0
        return cls(started_at, max_tries, try_number > before + 1, tries_before_clear=before, try_number=try_number)

    @property
    def cleared(self) -> bool:
        """Whether the user cleared the task since its first run, as far as the counts tell without a record."""
        return self.tries_before_clear > 0

    def intent(
        self,
        identity: SubmissionIdentity,
        generation: int,
        *,
        client_ids: bool,
        may_leave_at: float,
        writer: str = "",
    ) -> SubmissionRecord:
        """Return the record that this attempt writes before the POST of a generation.

        :param client_ids: Whether the POST carries a ``client_business_id``.
        :param may_leave_at: Epoch seconds of the last moment at which the POST leaves.
        """
        return SubmissionRecord(
            state=RecordState.INTENT,
            fingerprint=identity.fingerprint,
            clear_number=identity.clear_number,
            generation=generation,
            client_business_id=identity.client_business_id(generation) if client_ids else None,
            image_task_id=None,
            may_have_left_at=may_leave_at,
            max_tries=self.max_tries,
            writer=writer,
            try_number=self.try_number,
            name=identity.name,
            salt=identity.salt,
        )

    def cleared_since(self, record: SubmissionRecord) -> bool:
        """Whether the user certainly cleared the task after a record was written: only a clear sets ``max_tries``."""
        if not (self.try_number and record.try_number):
            return self.max_tries > record.max_tries
        # An attempt from before the clear may still live, and find the record of one from after it.
        return self.try_number > record.try_number and self.max_tries != record.max_tries

    def seems_cleared_since(self, record: SubmissionRecord) -> bool:
        """As :meth:`cleared_since`; also where ``retries`` was lowered so that a clear left ``max_tries`` as it was.

        A retry after such an edit cannot be told from it.
        """
        hidden = 0 < record.try_number <= self.tries_before_clear
        return self.cleared_since(record) or (self.max_tries == record.max_tries and hidden)
