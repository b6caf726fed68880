"""What a task's work asks of Airflow is asked under the lock: nobody asks any more once the task was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.compat import was_skipped
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaGenerateOperator
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK
from tests.support.task_runner import TaskInstance, attempt, sensor


class Lock:
    """Says whether it is held."""

    held = 0

    def acquire(self, timeout: float = -1) -> bool:
        self.held += 1
        return True

    def release(self) -> None:
        self.held -= 1


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    lock = Lock()
    monkeypatch.setattr(SUPERVISOR_LOCK, "_lock", lock)
    return lock


@dataclass
class Asked(TaskInstance):
    """Notes of each question whether the lock was held."""

    lock: Lock = field(default_factory=Lock)
    questions: list[tuple[str, bool]] = field(default_factory=list)

    def note(self, question: str) -> None:
        self.questions.append((question, self.lock.held > 0))

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        self.note("states")
        return super().get_task_states(dag_id, task_ids, run_ids)

    def xcom_push(self, key: str, value: Any) -> None:
        self.note("push")
        super().xcom_push(key, value)

    def get_first_reschedule_date(self, context: Any) -> Any:
        self.note("reschedule")
        return super().get_first_reschedule_date(context)

    def output(self, values: list[Any]) -> Output:
        """Return what a mapped task before returned."""
        return Output(self, values)


@dataclass
class Output:
    ti: Asked
    values: list[Any]

    def __iter__(self) -> Iterator[Any]:
        for value in self.values:
            self.ti.note("next")
            yield value


def test_download(emulator: Emulator, buy: Callable[..., str], folder: Path, lock: Lock) -> None:
    ti = Asked(lock=lock)
    entries = attempt(sensor(buy())).result
    operator = NanoBananaDownloadOperator(task_id="land", images=ti.output([entries]), destination=str(folder))
    assert attempt(operator, ti).error is None
    # Where the gallery finds the manifest, and the result.
    assert ti.questions == [("next", True), ("push", True), ("push", True)]


def test_generate(emulator: Emulator, folder: Path, lock: Lock) -> None:
    ti = Asked(task_id="make", lock=lock)
    requests: Any = ti.output(["a red kite", "a blue kite"])
    operator = NanoBananaGenerateOperator(task_id="make", requests=requests, destination=str(folder), deferrable=False)
    assert attempt(operator, ti).error is None
    assert {name for name, _ in ti.questions} >= {"next", "push"}
    assert [name for name, held in ti.questions if not held] == []


def test_sensor(emulator: Emulator, buy: Callable[..., str], lock: Lock) -> None:
    ti = Asked(lock=lock)
    run = attempt(sensor(ti.output([buy("[[fail]]")])), ti)
    assert run.error is not None
    assert {name for name, _ in ti.questions} == {"next", "push"}
    context: Any = {"ti": ti}
    sensor("tsk_1", deferrable=False, mode="reschedule")._wait_of_attempt(context)
    assert ti.questions[-1][0] == "reschedule"
    assert [name for name, held in ti.questions if not held] == []


def test_whether_what_was_before_was_skipped(lock: Lock) -> None:
    ti = Asked(lock=lock, upstream={"plan": "skipped"})
    operator = sensor([])
    operator.upstream_task_ids.add("plan")
    context: Any = {"ti": ti}
    assert was_skipped(operator, context)
    assert ti.questions == [("states", True)]
