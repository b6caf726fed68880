"""A catalogue from a table: a row in, a picture with its row out.

The prompt is a template over the columns of the CSV. Columns that are fields of a request (``name``, ``size``,
``reference_images``...) are used, all others come back as the picture's ``meta``: in the result where they are few, in
the manifest always. Run it again, and only rows that are new or whose prompt changed are bought. A picture is not
what you wanted: trigger it with ``{"redo": ["wool-scarf"]}``, which makes a new version of it and leaves the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

with DAG(
    "nanobanana_catalogue",
    schedule=None,
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "products": Param(Path(__file__).with_name("products.csv").as_uri(), type="string"),
        "destination": Param("file:///tmp/nanobanana-catalogue", type="string"),
        "redo": Param([], type=["array", "null"], items={"type": "string"}),
    },
):
    pictures = NanoBananaGenerateOperator(
        task_id="pictures",
        requests="{{ params.products }}",
        prompt="A catalogue picture of {title}, {scene}, soft daylight",
        size="4:3",
        destination="{{ params.destination }}",
        redo="{{ params.redo }}",
        max_cost_usd=5.00,
        preflight_balance=True,
    )

    @task
    def pages(made: dict[str, Any]) -> list[str]:
        from airflow.sdk import ObjectStoragePath

        images = json.loads(ObjectStoragePath(made["manifest"]).read_text())["images"]
        return [f"{image['meta']['title']}, {image['meta']['price']}: {image['uri']}" for image in images]

    pages(pictures.output)
