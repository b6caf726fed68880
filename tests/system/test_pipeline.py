"""The example DAGs on real Airflow processes: what is paid, what is landed, and what survives."""

from __future__ import annotations

import json
import signal
import sqlite3

import pytest

from tests.support.images import pixels
from tests.system.conftest import EXAMPLES
from tests.system.harness import DagTester, Run, System

PIPELINE = "nanobanana_pipeline"


def landed(system: System) -> list[str]:
    return sorted(path.name for path in system.images.glob("*.png"))


def bought(system: System) -> int:
    return int(system.emulator.ledger()["count"])


def show(run: Run) -> str:
    return f"{run.states()}\n{run.log('wait')}"


def test_prompts_become_files_and_no_worker_waits(system: System) -> None:
    prompts = ["a red kite over dunes", "a paper boat", "a brass lamp"]
    run = system.start(PIPELINE, prompts=prompts)
    waiting = run.wait_for("wait", "deferred")
    assert waiting["trigger"]["classpath"].endswith("NanoBananaTrigger")
    assert run.wait() == "success", show(run)

    records = run.xcom("download")
    assert [record["id"] for record in records] == [run.xcom("submit", index) for index in range(3)]
    assert len(landed(system)) == 3
    for path in system.images.glob("*.png"):
        assert pixels(path) == (1376, 768)
    assert bought(system) == 3
    assert {task["prompt"] for task in system.emulator.ledger()["image_tasks"]} == set(prompts)
    assert max(len(json.dumps(record)) for record in [*records, *run.xcom("wait")]) <= 600
    assert "3 of 3 image tasks have ended" in run.log("wait"), "the trigger's log shows how far it is"


def test_refused_and_failed_prompts_do_not_lose_the_others(system: System) -> None:
    prompts = ["good one", "refused at once [[refuse]]", "good two", "failed later [[fail]]"]
    run = system.start(PIPELINE, prompts=prompts)
    assert run.wait() == "failed", "complete makes the run red"
    states = run.states()
    assert states["submit"] == ["success", "failed", "success", "success"]
    assert (states["wait"], states["download"], states["complete"]) == (["failed"], ["success"], ["upstream_failed"])
    assert [entry["status"] for entry in run.xcom("wait")] == ["completed", "completed", "failed"]
    assert len(landed(system)) == 2
    assert system.emulator.ledger()["net_usd"] == pytest.approx(2 * 0.025)
    assert "content policy" in run.log("submit", 1)
    assert "refunded" in run.log("wait")
    instances = [*run.instances("submit"), *run.instances("wait")]
    assert {instance["try_number"] for instance in instances} == {1}, "no retry is burnt on what cannot succeed"


def test_an_empty_plan_is_skipped_to_its_end(system: System) -> None:
    run = system.start(PIPELINE, prompts=[])
    assert run.wait() == "success", show(run)
    states = run.states()
    assert [states[name] for name in ("submit", "wait", "download")] == [["skipped"]] * 3
    assert bought(system) == 0


def test_killed_triggerer_and_cleared_tasks_pay_nothing_twice(system: System) -> None:
    run = system.start(PIPELINE, prompts=["one", "two"])
    run.wait_for("wait", "deferred")
    system.stack.kill("triggerer", signal.SIGKILL)
    system.stack.restart("triggerer")
    assert run.wait() == "success", show(run)
    first = [run.xcom("submit", index) for index in range(2)]
    written = {path: path.stat().st_mtime_ns for path in system.images.glob("*.png")}

    run.clear("submit", "wait", "download")
    assert run.wait() == "success", show(run)
    assert [run.xcom("submit", index) for index in range(2)] == first
    assert {path: path.stat().st_mtime_ns for path in system.images.glob("*.png")} == written
    assert bought(system) == 2


def test_a_creative_refresh_reaches_every_product_in_every_format(system: System) -> None:
    run = system.start("nanobanana_creative_refresh", formats=["1:1", "3:4"])
    assert run.wait() == "success", show(run)
    sizes = sorted(pixels(path) for path in system.images.rglob("*.png"))
    assert sizes == [(896, 1200)] * 3 + [(1024, 1024)] * 3
    assert bought(system) == 6


def test_the_key_is_nowhere_on_disk(system: System, api_key: str) -> None:
    """Logs, the database with XComs, rendered fields and trigger rows, and serialised DAGs, after the runs above."""
    run = system.start(PIPELINE, prompts=["one"])
    row = run.wait_for("wait", "deferred")
    assert row
    with sqlite3.connect(f"file:{system.stack.home / 'airflow.db'}?mode=ro", uri=True) as database:
        [(classpath, kwargs)] = database.execute("select classpath, kwargs from trigger").fetchall()
    assert classpath.endswith("NanoBananaTrigger")
    assert "image_task_ids" in kwargs
    assert api_key not in kwargs
    assert run.wait() == "success"
    assert api_key not in system.all_text()


@pytest.mark.parametrize("dag_id", [PIPELINE, "nanobanana_creative_refresh"])
def test_dag_test_runs_the_examples(dag_tester: DagTester, system: System, dag_id: str) -> None:
    tested = dag_tester(EXAMPLES / f"{dag_id}.py", dag_id, destination=system.images.as_uri())
    assert tested.state == "success", tested.output
    images = list(system.images.rglob("*.png"))
    assert len(images) == bought(system) == len(json.loads(json.dumps(tested.xcoms["download"])))
