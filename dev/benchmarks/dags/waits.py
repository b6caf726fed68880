"""Hundreds of mapped waits, ours and the usual kind, and a timer beside them that says whether it is on time."""

from __future__ import annotations

import time

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from dev.benchmarks.ticker import TickTrigger

OPTIONS = {
    "schedule": None,
    "catchup": False,
    "params": {"ids": Param([], type="array", items={"type": "string"})},
    "max_active_tasks": 1000,
}
TIMEOUT = 3600


@task
def ids(params: dict[str, list[str]]) -> list[str]:
    return params["ids"]


@task
def wait(image_task_id: str) -> None:
    from dev.benchmarks.baseline import BaselineTrigger

    trigger = BaselineTrigger(image_task_id, NanoBananaHook.default_conn_name, time.time() + TIMEOUT)
    raise TaskDeferred(trigger=trigger, method_name="never: the benchmark ends before the wait")


@task
def tick(params: dict[str, str]) -> None:
    raise TaskDeferred(trigger=TickTrigger(params["file"]), method_name="never: the timer has no end")


with DAG("bench_ours", **OPTIONS):
    NanoBananaSensor.partial(task_id="wait", timeout=TIMEOUT).expand(image_task_ids=ids())

with DAG("bench_baseline", **OPTIONS):
    wait.expand(image_task_id=ids())

with DAG("bench_ticker", schedule=None, catchup=False, params={"file": Param("", type="string")}):
    tick()
