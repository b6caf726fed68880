"""One pipeline with three ways to submit, and mapped batches at one destination with three ways to generate.

The ways: ours, ours that fails on an unknown submission, and the baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaDownloadOperator,
    NanoBananaGenerateOperator,
    NanoBananaSubmitOperator,
)
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from tests.chaos.baseline_operator import BaselineGenerateOperator, BaselineSubmitOperator


def pipeline(dag_id: str, submitter: Callable[..., Any], **options: Any) -> DAG:
    """Build the pipeline around a way to submit; each run buys ``images`` images, every prompt occurring once."""
    with DAG(
        dag_id,
        schedule=None,
        catchup=False,
        max_active_tasks=64,
        max_active_runs=64,
        default_args={"retries": 12, "retry_delay": timedelta(seconds=3)},
        params={"images": Param(10, type="integer"), "destination": Param("file:///tmp/chaos", type="string")},
    ) as dag:

        @task
        def list_prompts(params: dict[str, Any], run_id: str) -> list[str]:
            return [f"{run_id} {index}" for index in range(params["images"])]

        submit = submitter(task_id="submit", **options).expand(prompt=list_prompts())
        wait = NanoBananaSensor(task_id="wait", image_task_ids=submit.output, trigger_rule="all_done")
        NanoBananaDownloadOperator(
            task_id="download", images=wait.output, destination="{{ params.destination }}", trigger_rule="all_done"
        )
    return dag


def overlapping(dag_id: str, generator: Callable[..., Any], **options: Any) -> DAG:
    """Build mapped batches around a way to generate; the conf of a run holds the batches."""
    with DAG(
        dag_id,
        schedule=None,
        catchup=False,
        max_active_tasks=64,
        max_active_runs=64,
        default_args={"retries": 12, "retry_delay": timedelta(seconds=3)},
        params={"batches": Param([], type="array"), "destination": Param("file:///tmp/chaos", type="string")},
    ) as dag:

        @task
        def list_batches(params: dict[str, Any]) -> list[list[dict[str, str]]]:
            return list(params["batches"])

        generator(task_id="generate", destination="{{ params.destination }}", **options).expand(requests=list_batches())
    return dag


provider = pipeline("chaos_provider", NanoBananaSubmitOperator.partial)
strict = pipeline("chaos_strict", NanoBananaSubmitOperator.partial, on_unknown_submission="fail")
naive = pipeline("chaos_naive", BaselineSubmitOperator.partial)
overlap = overlapping("chaos_overlap", NanoBananaGenerateOperator.partial)
overlap_strict = overlapping(
    "chaos_overlap_strict", NanoBananaGenerateOperator.partial, on_unknown_submission="fail", timeout=120
)
overlap_naive = overlapping("chaos_overlap_naive", BaselineGenerateOperator.partial)
