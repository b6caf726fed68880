"""A metadata database of Airflow's in this process, and rows in it as its scheduler and workers write them.

The tables are Airflow's own, so this works on each version that the gallery does; columns that a test does not care
for are filled by their type.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

NOW: Final = datetime(2026, 11, 26, 8, tzinfo=UTC)
#: Of a task instance, where a test names none.
GENERATE: Final = "NanoBananaGenerateOperator"


@contextlib.contextmanager
def airflow_database(folder: Path) -> Iterator[None]:
    """Let Airflow use an empty SQLite database in a folder."""
    from airflow import settings

    name = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    before = os.environ.get(name)
    os.environ[name] = f"sqlite:///{folder / 'airflow.db'}"
    _connect()
    try:
        from airflow.models import import_all_models
        from airflow.models.base import Base

        import_all_models()
        Base.metadata.create_all(settings.engine)
        yield
    finally:
        settings.dispose_orm()
        os.environ.pop(name) if before is None else os.environ.update({name: before})
        _connect()


def _connect() -> None:
    from airflow import settings

    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()


def add_run(dag_id: str, run_id: str, state: str = "success") -> None:
    """Write a run, and its DAG where there is none."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        if session.scalar(select(DagBundleModel.name)) is None:
            _insert(session, DagBundleModel, name="dags")
        if session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id)) is None:
            _insert(session, DagModel, dag_id=dag_id, bundle_name="dags")
        times = dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end"))
        _insert(session, DagRun, dag_id=dag_id, run_id=run_id, state=state, run_after=NOW, **times)


def add_task(
    dag_id: str,
    run_id: str,
    task_id: str,
    *,
    map_index: int = -1,
    operator: str = GENERATE,
    custom_operator_name: str = "",
    state: str | None = "success",
    try_number: int = 1,
    rendered: dict[str, Any] | None = None,
    xcoms: dict[str, Any] | None = None,
    end_date: datetime | None = NOW,
) -> None:
    """Write a task instance, with what it rendered and pushed."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    names = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    id_ = uuid.uuid4()
    is_new = "region_index" in TaskInstance.__table__.columns
    with create_session(scoped=False) as session:
        own = {**names, "id": id_ if is_new else _of_column(TaskInstance, "id", id_)}
        if is_new:
            own["region_index"] = own.pop("map_index")
            own["region_id"] = uuid.UUID(int=0)
        _insert(
            session,
            TaskInstance,
            **own,
            operator=operator,
            custom_operator_name=custom_operator_name,
            state=state,
            try_number=try_number,
            end_date=end_date,
        )
        if rendered is not None:
            owner = {"task_instance_id": id_} if is_new else names
            _insert(session, RenderedTaskInstanceFields, **owner, rendered_fields=rendered)
    for key, value in (xcoms or {}).items():
        set_xcom(dag_id, run_id, task_id, map_index, key, value)


def set_xcom(dag_id: str, run_id: str, task_id: str, map_index: int, key: str, value: Any) -> None:
    """Write an XCom as the execution API does: as JSON, not as a text of it."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        if hasattr(XComModel, "set_for_attempt"):
            id_ = session.scalar(
                select(TaskInstance.id).where(
                    TaskInstance.dag_id == dag_id,
                    TaskInstance.run_id == run_id,
                    TaskInstance.task_id == task_id,
                    TaskInstance.map_index == map_index,
                )
            )
            XComModel.set_for_attempt(task_instance_id=id_, key=key, value=value, serialize=False, session=session)
            return
        run = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        names = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        session.execute(
            XComModel.__table__.delete().where(
                XComModel.dag_run_id == run,
                XComModel.task_id == task_id,
                XComModel.map_index == map_index,
                XComModel.key == key,
            )
        )
        _insert(session, XComModel, **names, dag_run_id=run, key=key, value=value, timestamp=datetime.now(UTC))


def _of_column(model: Any, name: str, value: uuid.UUID) -> Any:
    """Return a UUID as a column takes it: some versions keep texts."""
    return value if _python_type(model.__table__.columns[name]) is uuid.UUID else str(value)


def _python_type(column: Any) -> type:
    try:
        return column.type.python_type  # type: ignore[no-any-return]
    except NotImplementedError:  # Airflow 3.0: a text, on SQLite
        return str


def _insert(session: Any, model: Any, **values: Any) -> None:
    table = model.__table__
    for column in table.columns:
        has_default = column.default is not None or column.server_default is not None or column.autoincrement is True
        is_key = column.primary_key and _python_type(column) is int
        if column.name not in values and not column.nullable and not has_default and not is_key:
            values[column.name] = _filler(column)
    session.execute(table.insert().values(**{name: value for name, value in values.items() if name in table.columns}))


def _filler(column: Any) -> Any:
    kind = _python_type(column)
    fillers: dict[type, Any] = {str: "x", int: 1, bool: False, float: 0.0, datetime: NOW, uuid.UUID: uuid.UUID(int=0)}
    return fillers.get(kind, {})
