"""A creative refresh: every night a new picture of each product in each format, into a folder of that day.

``variant`` makes the same prompt a new picture each day; a retry within the day finds what it already bought. The asset
tells downstream DAGs that the day's creatives are there. Unpausing this DAG also
starts the run that is due, and that run buys its pictures at once.
"""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, Param, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor

PRODUCTS = Path(__file__).with_name("products.csv")
DAY = "{{ dag_run.run_after.strftime('%Y-%m-%d') }}"

with DAG(
    "nanobanana_creative_refresh",
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "season": Param("autumn", type="string"),
        "formats": Param(["1:1", "9:16"], type="array", items={"type": "string"}),
        "destination": Param("file:///tmp/nanobanana-creatives", type="string"),
    },
):

    @task
    def plan(params: dict[str, list[str] | str]) -> list[dict[str, str]]:
        with PRODUCTS.open(newline="", encoding="utf-8") as file:
            products = list(csv.DictReader(file))
        return [
            {"prompt": f"{product['title']}, {product['scene']}, {params['season']} mood, studio light", "size": size}
            for product in products
            for size in params["formats"]
        ]

    submit = NanoBananaSubmitOperator.partial(
        task_id="submit", variant=DAY, map_index_template="{{ task.size }} {{ task.prompt[:80] }}"
    ).expand_kwargs(plan())
    wait = NanoBananaSensor(task_id="wait", image_task_ids=submit.output, allow_partial=True, trigger_rule="all_done")
    download = NanoBananaDownloadOperator(
        task_id="download",
        images=wait.output,
        destination="{{ params.destination }}/" + DAY,
        outlets=[Asset("nanobanana_creatives")],
        trigger_rule="all_done",
    )
    [submit, wait, download] >> EmptyOperator(task_id="complete")
