"""Runs an operator the way Airflow does, deferrals included, without Airflow's processes."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger
from tests.support.task_state_store import MemoryTaskStateStore

#: What the record of an image in quarantine looks like.
KEPT: Final[Mapping[str, Any]] = {
    "uri": "file:///x/.nanobanana/quarantine/a",
    "id": "t",
    "index": 0,
    "sha256": "f",
    "bytes": 3,
    "reason": "cut",
}
RUN_STARTED: Final = datetime(2026, 11, 26, 3, 0, 0, 123456, tzinfo=UTC)


@dataclass
class TaskInstance:
    """As much of a running task instance as our operators touch.

    :param store: None is an Airflow before 3.3.
    :param run_started: When its run began; a clear of a finished run begins it anew.
    :param run_due: When its run was due.
    """

    dag_id: str = "dag"
    run_id: str = "run"
    task_id: str = "task"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    first_reschedule: datetime | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    upstream: dict[str, str] = field(default_factory=dict)
    store: MemoryTaskStateStore | None = None
    run_started: datetime = RUN_STARTED
    run_due: datetime = RUN_STARTED

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        return {run_ids[0]: {name: self.upstream[name] for name in task_ids}} if self.upstream else {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return self.first_reschedule


@dataclass
class Run:
    """What one attempt did."""

    result: Any = None
    error: BaseException | None = None
    ti: TaskInstance = field(default_factory=TaskInstance)
    deferrals: list[TaskDeferred] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)


def attempt(operator: Any, ti: TaskInstance | None = None, *, at_deferral: Callable[[], object] = lambda: None) -> Run:
    """Execute once; follow every deferral through a serialised trigger; keep the result or what was raised.

    :param at_deferral: Called when the task instance is deferred, before its trigger runs.
    """
    run = Run(ti=ti or TaskInstance(task_id=operator.task_id))
    dag_run = SimpleNamespace(start_date=run.ti.run_started, run_after=run.ti.run_due)
    context: Any = {"ti": run.ti, "task_instance": run.ti, "dag_run": dag_run}
    if run.ti.store is not None:
        context["task_state_store"] = run.ti.store

    def step() -> Any:
        if not run.deferrals:
            return operator.execute(context)
        deferral = run.deferrals[-1]
        if isinstance(deferral.trigger, NanoBananaTimerTrigger):
            # What is tested is what follows: the wait passes on the hook's clock only.
            clock: Any = NanoBananaHook.clock
            clock.sleep(max(0.0, deferral.trigger.moment - clock()))
            deferral.trigger.moment = 0.0
        elif abs(ahead := NanoBananaHook.clock() - time.time()) > 1.0:
            # The operator's waits moved the hook's clock and took no time; the trigger goes by the wall's.
            deferral.trigger.deadline -= ahead
            deferral.trigger.not_before -= ahead
        at_deferral()
        event = asyncio.run(fire(deferral.trigger))
        run.events.append(event)
        return operator.resume_execution(deferral.method_name, {"event": event}, context)

    while True:
        try:
            run.result = step()
        except TaskDeferred as deferral:
            run.deferrals.append(deferral)
            continue
        except AirflowException as error:
            run.error = error
        return run


def resume(operator: Any, method: str = "execute_complete", **kwargs: Any) -> Run:
    """Resume an operator that was deferred, once, as Airflow does; ``__fail__`` with an error stands for a crash."""
    run = Run(ti=TaskInstance(task_id=operator.task_id))
    try:
        run.result = operator.resume_execution(method, kwargs, {"ti": run.ti, "task_instance": run.ti})
    except TaskDeferred as deferral:
        run.deferrals.append(deferral)
    except AirflowException as error:
        run.error = error
    return run


def sensor(ids: Any, **options: Any) -> NanoBananaSensor:
    """Return a sensor that polls as fast as the emulator answers."""
    return NanoBananaSensor(task_id="wait", image_task_ids=ids, **{"poke_interval": 0.05, "timeout": 20, **options})


#: Options of the sensor for each way of waiting.
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "deferred": {"deferrable": True},
    "poked": {"deferrable": False},
    "rescheduled": {"deferrable": False, "mode": "reschedule"},
}


def wait(
    ids: Any,
    way: str = "deferred",
    ti: TaskInstance | None = None,
    *,
    at_deferral: Callable[[], object] = lambda: None,
    **options: Any,
) -> Run:
    """Wait for image tasks in one attempt; a rescheduled sensor is executed repeatedly, as the scheduler does.

    :param at_deferral: As for :func:`attempt`.
    """
    ti = ti or TaskInstance(task_id="wait")
    started = datetime.now(UTC)
    for _ in range(500):
        run = attempt(sensor(ids, **{"poke_interval": 0.01, **WAYS[way], **options}), ti, at_deferral=at_deferral)
        if type(run.error).__name__ != "AirflowRescheduleException":
            return run
        ti.first_reschedule = started
    raise AssertionError("rescheduled without end")


def entries_of(*ids: str) -> list[dict[str, Any]]:
    """Return what a wait that succeeds tells of the image tasks."""
    entries: list[dict[str, Any]] = wait(list(ids)).result
    return entries


def land(images: Any, folder: Path) -> Run:
    """Download what a sensor returned."""
    return attempt(NanoBananaDownloadOperator(task_id="download", images=images, destination=f"file://{folder}"))


async def fire(trigger: Any) -> Any:
    """Run a trigger as a triggerer does: rebuilt from its JSON, first event only."""
    async for event in rebuilt(trigger).run():
        return json.loads(json.dumps(event.payload))
    raise AssertionError("the trigger ended without an event")


def rebuilt(trigger: Any) -> Any:
    """Return the trigger as it comes out of the database."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(kwargs)))
