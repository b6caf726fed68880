"""Four tasks whose threads wait for what never comes; in one DAG they have an ``execution_timeout`` of five seconds.

The connection's own timeout is ten minutes, so that nothing but Airflow ends them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaDownloadOperator,
    NanoBananaGenerateOperator,
    NanoBananaSubmitOperator,
)
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor


def stuck(dag_id: str, execution_timeout: timedelta | None) -> DAG:
    arguments: dict[str, Any] = {
        "nanobanana_conn_id": "nanobanana_patient",
        "execution_timeout": execution_timeout,
        "retries": 1,
        "retry_delay": timedelta(hours=1),
    }
    params = {"destination": "file:///tmp/nanobanana-stuck", "ids": "", "images": []}
    with DAG(dag_id, schedule=None, params=params, default_args=arguments, render_template_as_native_obj=True) as dag:
        NanoBananaGenerateOperator(
            task_id="generate",
            requests=[f"stuck generate {number}" for number in range(4)],
            destination="{{ params.destination }}",
        )
        NanoBananaSubmitOperator(task_id="submit", prompt="stuck submit")
        NanoBananaSensor(task_id="sensor", image_task_ids="{{ params.ids }}", deferrable=False)
        NanoBananaDownloadOperator(
            task_id="download", images="{{ params.images }}", destination="{{ params.destination }}"
        )
    return dag


timed = stuck("stuck_timed", timedelta(seconds=5))
signalled = stuck("stuck_signalled", None)
