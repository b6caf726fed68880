"""What there is to see on the screenshots: a batch, mapped tasks, and one that fails."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, Param, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

PLACE = Param("file:///tmp/nanobanana-screenshots", type="string")
ROWS = Param([], type="array")
RETRIES = {"retries": 1, "retry_delay": 1}

with DAG(
    "summer_catalogue",
    schedule=None,
    tags=["nanobanana"],
    default_args=RETRIES,
    params={"rows": ROWS, "destination": PLACE, "redo": Param([], type="array")},
):

    @task.nanobanana(
        destination="{{ params.destination }}",
        redo="{{ params.redo }}",
        allow_partial=True,
        outlets=[Asset("summer_catalogue", uri="s3://shop/summer-catalogue")],
    )
    def pictures(params: dict[str, Any]) -> list[dict[str, Any]]:
        return list(params["rows"])

    pictures()

with DAG(
    "posters", schedule=None, tags=["nanobanana"], default_args=RETRIES, params={"prompts": ROWS, "destination": PLACE}
):

    @task
    def cities(params: dict[str, Any]) -> list[str]:
        return list(params["prompts"])

    NanoBananaGenerateOperator.partial(task_id="poster", size="3:4", destination="{{ params.destination }}").expand(
        prompt=cities()
    )

with DAG(
    "winter_launch",
    schedule=None,
    tags=["nanobanana"],
    default_args=RETRIES,
    params={"rows": ROWS, "destination": PLACE},
):

    @task.nanobanana(destination="{{ params.destination }}", task_id="pictures", timeout=15)
    def launch(params: dict[str, Any]) -> list[dict[str, Any]]:
        return list(params["rows"])

    launch()
