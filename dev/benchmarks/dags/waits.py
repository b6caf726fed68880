"""Hundreds of mapped waits, ours and the usual kind, and a timer beside them that says whether it is on time."""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from dev.benchmarks.ticker import BaselineSensor, Ticker

IDS = {"ids": Param([], type="array", items={"type": "string"})}

for dag_id, sensor in (("bench_ours", NanoBananaSensor), ("bench_baseline", BaselineSensor)):
    with DAG(dag_id, schedule=None, catchup=False, params=IDS, max_active_tasks=1000):

        @task
        def ids(params: dict[str, list[str]]) -> list[str]:
            return params["ids"]

        sensor.partial(task_id="wait", timeout=3600).expand(image_task_ids=ids())

with DAG("bench_ticker", schedule=None, catchup=False, params={"file": Param("", type="string")}):
    Ticker(task_id="tick", file="{{ params.file }}")
