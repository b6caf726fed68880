"""The same images three ways: one Generate task, mapped pipelines of three tasks, mapped tasks that hold a worker."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task, task_group

from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaDownloadOperator,
    NanoBananaGenerateOperator,
    NanoBananaSubmitOperator,
)
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from dev.benchmarks.scenarios.generate_blocking import BlockingOperator

DESTINATION = "{{ params.destination }}"
OPTIONS: dict[str, Any] = {
    "schedule": None,
    "catchup": False,
    "params": {"count": Param(1, type="integer"), "destination": Param("", type="string")},
    "max_active_tasks": 1000,
    "default_args": {"retries": 2},
}


@task
def prompts(params: dict[str, int]) -> list[str]:
    return [f"picture {number} of a catalogue" for number in range(params["count"])]


with DAG("bench_generate", **OPTIONS):
    NanoBananaGenerateOperator(task_id="generate", requests=prompts(), destination=DESTINATION)  # type: ignore[call-arg]

with DAG("bench_pipelines", **OPTIONS):

    @task_group
    def pipeline(prompt: str) -> None:
        submit = NanoBananaSubmitOperator(task_id="submit", prompt=prompt)
        wait = NanoBananaSensor(task_id="wait", image_task_ids=submit.output)
        NanoBananaDownloadOperator(task_id="download", images=wait.output, destination=DESTINATION)

    pipeline.expand(prompt=prompts())  # type: ignore[call-arg]

with DAG("bench_blocking", **OPTIONS):
    BlockingOperator.partial(task_id="make", destination=DESTINATION).expand(
        prompt=prompts()  # type: ignore[call-arg]  # Airflow fills in params
    )
