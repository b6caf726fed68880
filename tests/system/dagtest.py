"""Run ``dag.test()``, and tests that do, as they are asked for: ``python -m tests.system.dagtest PORT``.

A request is a line of JSON from that port of this machine, and so is its answer. One process for all of them: what
Airflow prepares for its first task takes longer than the next ten tasks.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_nanobanana.polling.latency import LatencyEstimator

try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.0 and 3.1
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]


def main(port: str) -> None:
    """Answer until the other side hangs up."""
    # The emulator is faster than the service: no waiting for the earliest expected result.
    with (
        mock.patch.object(LatencyEstimator, "first_poll_age", lambda self, key: 0.0),
        socket.create_connection(("127.0.0.1", int(port))) as connection,
        connection.makefile("rw") as lines,
    ):
        for line in lines:
            request = json.loads(line)
            call = run_dag if request.pop("call") == "dag" else run_pytest
            with mock.patch.dict(os.environ, request.pop("env")):
                answer = call(**request)
            sys.stdout.flush()
            print(json.dumps(answer, default=str), file=lines, flush=True)


def run_dag(file: str, dag_id: str, conf: dict[str, Any], reviewer: str | None) -> dict[str, Any]:
    """Load the file, test the DAG, return state, task states and XComs.

    :param reviewer: What is answered where a task asks a person (not before Airflow 3.1); None where none does.
    """
    dag = _load(file, dag_id)
    asked = reviewer is not None and find_spec("airflow.models.hitl") is not None
    with _reviewing(reviewer) if reviewer and asked else contextlib.nullcontext():
        tested = dag.test(run_conf=conf)
    tasks = {_name(each.task_id, each.map_index): str(each.state) for each in tested.get_task_instances()}
    names = (XComModel.run_id == tested.run_id, XComModel.dag_id == dag_id)
    with create_session() as session:
        rows = session.scalars(select(XComModel).where(*names))
        xcoms = {_name(row.task_id, row.map_index): row.value for row in rows if row.key == "return_value"}
    return {"state": str(tested.state), "tasks": tasks, "xcoms": xcoms}


def run_pytest(file: str) -> dict[str, Any]:
    """Run the tests of a file, by themselves."""
    folder = str(Path(file).parent)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull, file])
    return {"state": pytest.ExitCode(code).name, "tasks": {}, "xcoms": {}}


def _load(file: str, dag_id: str) -> Any:
    bag = DagBag(file)
    if bag.import_errors:
        sys.exit("\n".join(bag.import_errors.values()))
    return bag.dags[dag_id]


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


@contextlib.contextmanager
def _reviewing(option: str) -> Iterator[None]:
    """Answer each review, as Airflow's API does beside a ``dag.test()``; needs Airflow 3.3."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            _answer(option)

    reviewer = threading.Thread(target=look)
    reviewer.start()
    try:
        yield
    finally:
        over.set()
        reviewer.join()


def _answer(option: str) -> None:
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.sdk import timezone
    from airflow.triggers.base import TriggerEvent

    waiting = select(HITLDetail).join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
    with create_session(scoped=False) as session:
        for question in session.scalars(waiting.where(TaskInstance.state == "awaiting_input")).unique():
            question.chosen_options, question.params_input = [option], {}
            question.responded_at, question.responded_by = timezone.utcnow(), {"id": "uma", "name": "uma"}
            event = TriggerEvent(question.as_resume_event_payload())
            handle_event_submit(event, task_instance=question.task_instance, session=session)


if __name__ == "__main__":
    main(*sys.argv[1:])
