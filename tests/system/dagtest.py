"""Run ``dag.test()`` and write what came of it as JSON: ``python -m tests.system.dagtest FILE DAG CONF ANSWER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.0 and 3.1
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]


def main(file: str, dag_id: str, conf: str, answer: str) -> None:
    """Load the file, test the DAG, write state, task states and XComs."""
    dag = _load(file, dag_id)
    run = dag.test(run_conf=json.loads(conf))
    instances = run.get_task_instances()
    tasks = {_name(each.task_id, each.map_index): str(each.state) for each in instances}
    with create_session() as session:
        rows = session.scalars(select(XComModel).where(XComModel.run_id == run.run_id, XComModel.dag_id == dag_id))
        xcoms = {_name(row.task_id, row.map_index): row.value for row in rows if row.key == "return_value"}
    found = {"state": str(run.state), "tasks": tasks, "xcoms": xcoms}
    Path(answer).write_text(json.dumps(found, default=str))


def _load(file: str, dag_id: str) -> Any:
    bag = DagBag(file)
    if bag.import_errors:
        sys.exit("\n".join(bag.import_errors.values()))
    return bag.dags[dag_id]


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


if __name__ == "__main__":
    main(*sys.argv[1:])
