"""The example DAGs on real Airflow processes: what is paid, what is landed, and what survives."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import AirflowStack
from tests.support.images import pixels
from tests.support.statsd import Sent, StatsdServer
from tests.system.conftest import EXAMPLES, LATENCY_SECONDS
from tests.system.harness import DagTester, Run, System

if TYPE_CHECKING:
    from tests.system.harness import Tested

PIPELINE = "nanobanana_pipeline"
REFRESH = "nanobanana_creative_refresh"
PROMPTS = ["a red kite over dunes", "a paper boat", "a brass lamp"]
PARTLY = ["good one", "refused at once [[refuse]]", "good two", "failed later [[fail]]"]
METRICS = ("submitted", "completed", "failed", "cost_micro_usd", "polls")
#: Seconds.
NEVER = 3600.0
CONN = {"conn_id": "nanobanana_default"}
#: All of it is played before the first test.
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Played:
    """The runs of the pipeline, all of them at their end; a destination is ``images`` and the name of the run.

    :param waiting: The task instance ``wait`` of ``whole`` while it was deferred, before its triggerer was killed.
    :param triggers: The rows of triggers in the database at that moment: class and arguments.
    :param records: What submit and download of ``whole`` returned, and when its files were written, before it was
        cleared.
    :param metrics: What the run ``partly`` sent: totals, and its delays of detection.
    """

    system: System
    whole: Run
    partly: Run
    empty: Run
    refresh: Run
    tested: Tested
    waiting: dict[str, Any]
    triggers: list[tuple[str, str]]
    records: tuple[list[str], list[Any], dict[str, int]]
    metrics: tuple[dict[str, float], list[Sent]]

    def landed(self, name: str) -> dict[str, int]:
        """Give the pictures of a run, each with the time it was written."""
        return landed(self.system, name)

    def bought(self, *prompts: str) -> list[dict[str, Any]]:
        """Give what the emulator sold for these prompts, or in which one of them occurs."""
        sold = self.system.emulator.ledger()["image_tasks"]
        return [task for task in sold if any(prompt in task["prompt"] for prompt in prompts)]


@pytest.fixture(scope="module")
def played(
    stack: AirflowStack,
    emulator: Emulator,
    statsd: StatsdServer,
    dag_tester: DagTester,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Played]:
    stack.processes.check()
    try:
        yield _play(System(stack, emulator, tmp_path_factory.mktemp("pipeline")), statsd, dag_tester)
    finally:
        emulator.reset()


def _play(system: System, statsd: StatsdServer, dag_tester: DagTester) -> Played:
    stack = system.stack
    before = {name: statsd.total(f"nanobanana.{name}", **CONN) for name in METRICS}
    seen = len(statsd.named("nanobanana.detection_delay"))
    # Until they are told to be: a sensor on a slow machine would find them done at its first look, and not defer.
    system.emulator.configure(latency=NEVER)
    partly = _start(system, PIPELINE, "partly", prompts=PARTLY)
    empty = _start(system, PIPELINE, "empty", prompts=[])
    system.wait_deferred(partly, "wait")
    system.emulator.complete_all()
    system.emulator.configure(latency=1.0)
    destination = (system.images / "tested").as_uri()
    tested = dag_tester(EXAMPLES / f"{PIPELINE}.py", PIPELINE, prompts=["tested"], destination=destination)
    for run in (partly, empty):
        run.wait()
    metrics = _metrics(statsd, before, seen)

    system.emulator.configure(latency=NEVER)
    whole = _start(system, PIPELINE, "whole", prompts=PROMPTS)
    waiting = system.wait_deferred(whole, "wait")
    with sqlite3.connect(f"file:{stack.home / 'airflow.db'}?mode=ro", uri=True) as database:
        triggers = database.execute("select classpath, kwargs from trigger").fetchall()
    stack.kill("triggerer", signal.SIGKILL)
    stack.restart("triggerer")
    system.emulator.complete_all()
    system.emulator.configure(latency=LATENCY_SECONDS)
    refresh = _start(system, REFRESH, "refresh", formats=["1:1", "3:4"])
    assert whole.wait() == "success", show(whole)
    ids = [whole.xcom("submit", index) for index in range(len(PROMPTS))]
    records = (ids, whole.xcom("download"), landed(system, "whole"))
    whole.clear("submit", "wait", "download")
    for run in (whole, refresh):
        assert run.wait() == "success", show(run)
    return Played(system, whole, partly, empty, refresh, tested, waiting, triggers, records, metrics)


def _start(system: System, dag_id: str, name: str, **conf: Any) -> Run:
    return system.start(dag_id, destination=(system.images / name).as_uri(), **conf)


def _metrics(statsd: StatsdServer, before: dict[str, float], seen: int) -> tuple[dict[str, float], list[Sent]]:
    for name, amount in {"submitted": 3, "completed": 2, "failed": 1, "polls": 3}.items():
        statsd.wait_for(f"nanobanana.{name}", before[name] + amount, **CONN)
    sent = {name: statsd.total(f"nanobanana.{name}", **CONN) - before[name] for name in METRICS}
    return sent, statsd.named("nanobanana.detection_delay")[seen:]


def landed(system: System, name: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (system.images / name).rglob("*.png")}


def show(run: Run) -> str:
    return f"{run.states()}\n{run.log('wait')}"


def test_prompts_become_files_and_no_worker_waits(played: Played) -> None:
    assert played.waiting["trigger"]["classpath"].endswith("NanoBananaTrigger")
    ids, records, files = played.records
    assert [record["id"] for record in records] == ids
    assert len(files) == 3
    for path in (played.system.images / "whole").glob("*.png"):
        assert pixels(path) == (1376, 768)
    assert max(len(json.dumps(record)) for record in [*records, *played.whole.xcom("wait")]) <= 600
    log = played.whole.log("wait")
    assert "3 of 3 image tasks have ended" in log, "the trigger's log shows how far it is"


def test_killed_triggerer_and_cleared_tasks_pay_nothing_twice(played: Played) -> None:
    ids, _, files = played.records
    assert [played.whole.xcom("submit", index) for index in range(len(PROMPTS))] == ids
    assert played.landed("whole") == files
    assert sorted(task["prompt"] for task in played.bought(*PROMPTS)) == sorted(PROMPTS)


def test_refused_and_failed_prompts_do_not_lose_the_others(played: Played) -> None:
    run = played.partly
    states = run.states()
    assert states["submit"] == ["success", "failed", "success", "success"]
    assert (states["wait"], states["download"]) == (["failed"], ["success"])
    assert (states["complete"], run.wait()) == (["upstream_failed"], "failed"), "complete makes the run red"
    assert [entry["status"] for entry in run.xcom("wait")] == ["completed", "completed", "failed"]
    assert len(played.landed("partly")) == 2
    sold = played.bought("good one", "refused at once", "good two", "failed later")
    assert [(task["prompt"], task["refunded"]) for task in sorted(sold, key=lambda one: one["prompt"])] == [
        ("failed later [[fail]]", True),
        ("good one", False),
        ("good two", False),
    ]
    assert "content policy" in run.log("submit", 1)
    assert "refunded" in run.log("wait")
    instances = [*run.instances("submit"), *run.instances("wait")]
    assert {instance["try_number"] for instance in instances} == {1}, "no retry is burnt on what cannot succeed"


def test_workers_and_triggers_send_their_metrics(played: Played, statsd: StatsdServer) -> None:
    """The workers' and those of the process that runs the triggers."""
    pytest.importorskip("statsd")
    sent, delays = played.metrics
    assert {**sent, "polls": 3} == {
        "submitted": 3, "completed": 2, "failed": 1, "cost_micro_usd": 50_000, "polls": 3
    }  # fmt: skip
    assert statsd.named("nanobanana.failed", code="generation_failed")
    assert len(delays) == 3
    # The emulator tells whole seconds; a poll is due every five.
    assert all(delay.kind == "ms" and 0 <= delay.value < 30_000 for delay in delays)


def test_an_empty_plan_is_skipped_to_its_end(played: Played) -> None:
    states = played.empty.states()
    assert played.empty.wait() == "success", states
    assert [states[name] for name in ("submit", "wait", "download")] == [["skipped"]] * 3
    assert played.landed("empty") == {}


def test_a_creative_refresh_reaches_every_product_in_every_format(played: Played) -> None:
    sizes = sorted(pixels(path) for path in (played.system.images / "refresh").rglob("*.png"))
    assert sizes == [(896, 1200)] * 3 + [(1024, 1024)] * 3
    assert len(played.bought("autumn mood")) == 6


def test_the_key_is_nowhere_on_disk(played: Played, api_key: str) -> None:
    """Logs, the database with XComs, rendered fields and trigger rows, and serialised DAGs, after all runs so far."""
    [(classpath, kwargs)] = played.triggers
    assert classpath.endswith("NanoBananaTrigger")
    assert "image_task_ids" in kwargs
    assert api_key not in kwargs
    assert api_key not in played.system.all_text()


def test_dag_test_runs_the_pipeline(played: Played) -> None:
    assert played.tested.state == "success", played.tested.output
    assert len(played.landed("tested")) == len(played.bought("tested")) == len(played.tested.xcoms["download"]) == 1
