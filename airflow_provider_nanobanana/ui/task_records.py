"""What the gallery reads of Airflow's own database, in the api-server alone: task instances and what they pushed.

Task code never does this. All goes through Airflow's models as its own routes use them (3.1.1 to 3.4): XComs through
``XComModel.get_many``, which hides in which table they are, rendered fields through the task instance's relationship.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_4_PLUS
from airflow.utils.session import create_session
from sqlalchemy import or_, select

from airflow_provider_nanobanana.stored_forms import GALLERY_POINTER
from airflow_provider_nanobanana.ui.links import OPERATOR_NAMES
from airflow_provider_nanobanana.ui.referenced_values import xcom_values

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql import Select

#: Under which key our tasks say where their manifest is.
POINTER_KEY: Final = "nanobanana_gallery"
#: Of a task instance that has ended, and of a run.
ENDED: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True)
class TaskRecord:
    """What Airflow knows of one task instance of ours.

    :param map_index: -1 for one that is not mapped.
    :param operator: As Airflow shows it.
    :param state: None before it is scheduled.
    :param manifest: URI of its manifest as its XCom says: anybody may have written that. None where there is none.
    :param destination: What it rendered; None where Airflow does not keep it.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    operator: str
    state: str | None
    try_number: int
    manifest: str | None
    destination: str | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is still to come by itself."""
        return self.state in ENDED


def run_state(session: Session, dag_id: str, run_id: str) -> str | None:
    """Return the state of a run; None where there is no such run."""
    found = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return None if found is None else str(getattr(found, "value", found))


def read_tasks(
    session: Session, dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None
) -> list[TaskRecord]:
    """Return the task instances of a run that have or may have pictures, in the order in which the tasks began.

    :param task_id: None for all of the run.
    :param map_index: None for all of the task.
    """
    if not run_id:
        return []
    pushed: Any = XComModel.get_many(
        run_id=run_id, key=POINTER_KEY, dag_ids=dag_id, task_ids=task_id, map_indexes=map_index
    )
    pointers = {names[2:]: manifest for names, manifest in _manifests(session, pushed).items()}
    wanted = _with_rendered_fields().where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    if task_id is not None:
        wanted = wanted.where(TaskInstance.task_id == task_id)
    if map_index is not None:
        wanted = wanted.where(TaskInstance.map_index == map_index)
    # A team's own subclass is told by what it pushed.
    theirs = TaskInstance.task_id.in_({task for task, _ in pointers})
    ours = or_(TaskInstance.operator.in_(OPERATOR_NAMES), TaskInstance.custom_operator_name.in_(OPERATOR_NAMES), theirs)
    rows = session.execute(wanted.where(ours).add_columns(TaskInstance.start_date)).all()
    begun: dict[str, datetime] = {}
    for row in rows:
        if row.start_date is not None:
            begun[row.task_id] = min(begun.get(row.task_id, row.start_date), row.start_date)
    never = datetime.max.replace(tzinfo=UTC)
    ordered = sorted(rows, key=lambda row: (begun.get(row.task_id, never), row.task_id, row.map_index))
    return [_record(row, pointers) for row in ordered]


def tasks_since(since: datetime) -> Iterator[TaskRecord]:
    """Yield the task instances of all DAGs that said since a moment where their manifest is; three queries in all."""
    with create_session(scoped=False) as session:
        pushed = _manifests(session, _pushed_since(since))
        dags, tasks = ({names[part] for names in pushed} for part in (0, 2))
        wanted = _with_rendered_fields().where(TaskInstance.dag_id.in_(dags), TaskInstance.task_id.in_(tasks))
        recent = or_(TaskInstance.end_date.is_(None), TaskInstance.end_date >= since)
        for row in session.execute(wanted.where(recent)).all() if pushed else ():
            names = (row.dag_id, row.run_id, row.task_id, row.map_index)
            if names in pushed:
                yield _record(row, {names[2:]: pushed[names]})


def _pushed_since(since: datetime) -> Any:
    if not AIRFLOW_V_3_4_PLUS:
        return select(XComModel).where(XComModel.key == POINTER_KEY, XComModel.timestamp >= since)
    # From 3.4 on they are kept by attempt, in two tables; the run is not looked at where the attempts are given.
    recent = or_(TaskInstance.end_date.is_(None), TaskInstance.end_date >= since)
    attempts: dict[str, Any] = {"producer_ids": select(TaskInstance.id).where(recent)}
    return XComModel.get_many(run_id="~", key=POINTER_KEY, **attempts)


def _with_rendered_fields() -> Select[Any]:
    names = ("dag_id", "run_id", "task_id", "map_index", "operator", "custom_operator_name", "state", "try_number")
    columns = [getattr(TaskInstance, name).label(name) for name in names]
    return select(*columns, RenderedTaskInstanceFields.rendered_fields.label("rendered_fields")).outerjoin(
        TaskInstance.rendered_task_instance_fields
    )


def _record(row: Any, pointers: dict[tuple[str, int], str | None]) -> TaskRecord:
    rendered = row.rendered_fields
    destination = rendered.get("destination") if isinstance(rendered, dict) else None
    return TaskRecord(
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        operator=row.custom_operator_name or row.operator or "",
        state=None if row.state is None else str(getattr(row.state, "value", row.state)),
        try_number=row.try_number,
        manifest=pointers.get((row.task_id, row.map_index)),
        destination=destination if isinstance(destination, str) else None,
    )


def _manifests(session: Session, pushed: Any) -> dict[tuple[str, str, str, int], str | None]:
    """Return the URIs that pointers hold, by DAG, run, task and map index."""
    rows = session.scalars(pushed).all()
    values = xcom_values([(row.dag_id, row.value) for row in rows])
    return {
        (row.dag_id, row.run_id, row.task_id, row.map_index): _manifest(value)
        for row, value in zip(rows, values, strict=True)
    }


def _manifest(value: Any) -> str | None:
    """Return the URI that a pointer holds; of what is none, nothing."""
    if isinstance(value, str):
        # Written through Airflow's REST API, or before 3.1.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, dict) or GALLERY_POINTER.is_newer(value.get("version")):
        return None
    found = value.get("manifest")
    return found if isinstance(found, str) else None
