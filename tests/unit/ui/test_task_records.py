"""What is read of Airflow's database: of our tasks alone, in both forms, mapped, cleared, deferred."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_nanobanana.ui.task_records import POINTER_KEY, TaskRecord, read_tasks, run_state, tasks_since
from tests.support.airflow_database import NOW, add_run, add_task

DESTINATION = "s3://media@bucket/pictures"


def read(run_id: str, *only: Any, dag_id: str = "shop") -> list[TaskRecord]:
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        return read_tasks(session, dag_id, run_id, *only)


def pointer(name: str = "manifest-a.json") -> dict[str, Any]:
    return {POINTER_KEY: {"version": 1, "manifest": f"{DESTINATION}/{name}", "destination": DESTINATION}}


def test_a_task_of_ours_with_all_that_is_known_of_it(run_id: str) -> None:
    add_run("shop", run_id)
    rendered = {"destination": DESTINATION, "prompt": "a cat"}
    add_task("shop", run_id, "pictures", state="deferred", try_number=2, rendered=rendered, xcoms=pointer())
    (task,) = read(run_id)
    assert task == TaskRecord(
        *("shop", run_id, "pictures", -1, "NanoBananaGenerateOperator", "deferred", 2),
        f"{DESTINATION}/manifest-a.json",
        DESTINATION,
    )
    assert not task.has_ended


def test_each_form_and_no_other_operator(run_id: str) -> None:
    add_run("shop", run_id)
    add_task("shop", run_id, "a-generate")
    add_task("shop", run_id, "b-land", operator="NanoBananaDownloadOperator")
    add_task(
        *("shop", run_id, "c-function"),
        operator="_NanoBananaDecoratedOperator",
        custom_operator_name="@task.nanobanana",
    )
    add_task("shop", run_id, "d-own", operator="OurTeamsOwn", xcoms=pointer())
    add_task("shop", run_id, "submit", operator="NanoBananaSubmitOperator")
    add_task("shop", run_id, "other", operator="PythonOperator", xcoms={"return_value": {"manifest": "s3://x/y"}})
    found = {task.task_id: task.operator for task in read(run_id)}
    assert found == {
        "a-generate": "NanoBananaGenerateOperator",
        "b-land": "NanoBananaDownloadOperator",
        "c-function": "@task.nanobanana",
        "d-own": "OurTeamsOwn",
    }


def test_mapped_task_instances_in_order_or_one_of_them(run_id: str) -> None:
    add_run("shop", run_id)
    for index in (10, 2, 0):
        rendered = {"destination": f"{DESTINATION}/{index}"}
        add_task("shop", run_id, "rows", map_index=index, rendered=rendered, xcoms=pointer(f"manifest-{index}.json"))
    assert [(task.map_index, task.destination) for task in read(run_id, "rows")] == [
        (index, f"{DESTINATION}/{index}") for index in (0, 2, 10)
    ]
    (one,) = read(run_id, "rows", 2)
    assert (one.map_index, one.manifest) == (2, f"{DESTINATION}/manifest-2.json")
    assert read(run_id, "rows", 3) == []
    assert read(run_id, "other") == []


def test_a_cleared_one_that_has_not_begun_has_nothing(run_id: str) -> None:
    add_run("shop", run_id, state="running")
    add_task("shop", run_id, "pictures", state=None, end_date=None)
    (task,) = read(run_id)
    assert (task.state, task.manifest, task.destination, task.has_ended) == (None, None, None, False)


def test_only_the_run_and_dag_that_were_asked_for(run_id: str) -> None:
    for dag_id in ("shop", "secret"):
        add_run(dag_id, run_id)
        add_task(dag_id, run_id, f"pictures-of-{dag_id}", xcoms=pointer())
    assert [task.task_id for task in read(run_id)] == ["pictures-of-shop"]
    assert read(f"{run_id}-other") == []
    assert read("") == []
    assert read(run_id, dag_id="nowhere") == []


@pytest.mark.parametrize(
    ("value", "manifest"),
    [
        (json.dumps({"manifest": "s3://b/m.json"}), "s3://b/m.json"),
        ({"manifest": ["s3://b/m.json"]}, None),
        ({}, None),
        ([], None),
        (7, None),
        (None, None),
        ("no JSON", None),
        ("[" * 100_000, None),
        ("s3://xcom-backend/key", None),
    ],
    ids=range(9),
)
def test_whatever_the_pointer_holds(run_id: str, value: Any, manifest: str | None) -> None:
    add_run("shop", run_id)
    add_task("shop", run_id, "pictures", xcoms={POINTER_KEY: value})
    (task,) = read(run_id)
    assert task.manifest == manifest


@pytest.mark.parametrize("rendered", [{}, {"destination": None}, {"destination": ["a"]}, {"destination": 7}], ids=repr)
def test_a_destination_that_is_no_text_is_none(run_id: str, rendered: dict[str, Any]) -> None:
    add_run("shop", run_id)
    add_task("shop", run_id, "pictures", rendered=rendered)
    (task,) = read(run_id)
    assert task.destination is None


def test_the_state_of_a_run(run_id: str) -> None:
    from airflow.utils.session import create_session

    add_run("shop", run_id, state="running")
    with create_session(scoped=False) as session:
        assert run_state(session, "shop", run_id) == "running"
        assert run_state(session, "other", run_id) is None


def test_pointers_of_all_dags_since_a_moment(run_id: str) -> None:
    for dag_id in ("pointers-a", "pointers-b"):
        add_run(dag_id, run_id)
        add_task(dag_id, run_id, "pictures", rendered={"destination": DESTINATION}, xcoms=pointer())
        add_task(dag_id, run_id, "without")
    add_task("pointers-a", run_id, "running", end_date=None, state="running", xcoms=pointer())
    add_task("pointers-a", run_id, "long ago", end_date=NOW - timedelta(days=90), xcoms=pointer())
    found = {(task.dag_id, task.task_id): task for task in tasks_since(NOW - timedelta(days=1))}
    ours = {names for names in found if names[0].startswith("pointers-")}
    assert ours == {("pointers-a", "pictures"), ("pointers-b", "pictures"), ("pointers-a", "running")}
    assert found["pointers-b", "pictures"].destination == DESTINATION
    assert found["pointers-a", "running"].destination is None


def test_tasks_stand_in_the_order_in_which_they_began(run_id: str) -> None:
    """What makes rejected pictures again comes after what made them, whatever they are called."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    add_run("shop", run_id)
    for task_id, hour in (("again", 9), ("pictures", 8), ("never", None), ("early", None)):
        add_task("shop", run_id, task_id, end_date=None)
        if hour is not None:
            with create_session(scoped=False) as session:
                of = (TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
                session.execute(update(TaskInstance).where(*of).values(start_date=NOW.replace(hour=hour)))
    assert [task.task_id for task in read(run_id)] == ["pictures", "again", "early", "never"]
