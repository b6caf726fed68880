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


@task_group
def pipeline(prompt: str) -> None:
    submit = NanoBananaSubmitOperator(task_id="submit", prompt=prompt)
    wait = NanoBananaSensor(task_id="wait", image_task_ids=submit.output)
    NanoBananaDownloadOperator(task_id="download", images=wait.output, destination=DESTINATION)


@task
def make(prompt: str, destination: str) -> str:
    from dev.benchmarks.baseline import make_image

    return make_image(prompt, destination)


with DAG("bench_generate", **OPTIONS):
    NanoBananaGenerateOperator(task_id="generate", requests=prompts(), destination=DESTINATION)

with DAG("bench_pipelines", **OPTIONS):
    pipeline.expand(prompt=prompts())

with DAG("bench_blocking", **OPTIONS):
    make.partial(destination=DESTINATION).expand(prompt=prompts())
