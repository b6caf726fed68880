"""What there is to see on the screenshots: pictures that a person decides about."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaReviewOperator

ROWS = Param([], type="array")
PLACE = Param("file:///tmp/nanobanana-screenshots", type="string")
RETRIES = {"retries": 1, "retry_delay": 1}

with DAG(
    "autumn_banners",
    schedule=None,
    tags=["nanobanana"],
    default_args=RETRIES,
    params={"rows": ROWS, "destination": PLACE},
):

    @task.nanobanana(destination="{{ params.destination }}", size="16:9", task_id="pictures")
    def banners(params: dict[str, Any]) -> list[dict[str, Any]]:
        return list(params["rows"])

    NanoBananaReviewOperator(task_id="review", subject="Which banners may go out?", images=banners())
