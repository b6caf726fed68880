"""``render_template_as_native_obj``: each operator, its arguments rendered from params of many types and from XComs."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaDownloadOperator,
    NanoBananaGenerateOperator,
    NanoBananaSubmitOperator,
)
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor

with DAG(
    "native_objects",
    schedule=None,
    render_template_as_native_obj=True,
    # Texts that Python would read as a number, a list, nothing, and a text without its quotes.
    params={
        "texts": ["['looks', 'like a list']", "1984", "None", "'a quoted word'"],
        "number": 7,
        "budget": 5,
        "few": ["native one", "native two"],
        "destination": "file:///tmp/nanobanana-native",
    },
    # In the worker: how they wait is not what is shown here.
    default_args={"retries": 1, "deferrable": False, "poke_interval": 1},
):

    @task
    def texts(params: dict[str, Any]) -> list[str]:
        return list(params["texts"])

    # A prompt is one prompt, whatever it looks like.
    NanoBananaGenerateOperator.partial(
        task_id="mapped",
        destination="{{ params.destination }}/mapped",
        variant="{{ params.number }}",
        max_cost_usd="{{ params.budget }}",
    ).expand(prompt=texts())
    NanoBananaGenerateOperator(
        task_id="listed", requests="{{ params.few }}", destination="{{ params.destination }}/listed"
    )
    submit = NanoBananaSubmitOperator(
        task_id="submit", prompt="{{ params.texts[0] }} {{ params.number }}", name="{{ params.number }}"
    )
    wait = NanoBananaSensor(task_id="wait", image_task_ids="{{ ti.xcom_pull(task_ids='submit') }}")
    download = NanoBananaDownloadOperator(
        task_id="download",
        images="{{ ti.xcom_pull(task_ids='wait') }}",
        destination="{{ params.destination }}/three",
    )
    single = NanoBananaGenerateOperator(
        task_id="single", prompt="{{ params.texts[-1] }}", destination="{{ params.destination }}/single"
    )
    submit >> wait >> [download, single]
