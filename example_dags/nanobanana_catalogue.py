"""A catalogue in one task: each product in its scene, true to the photo of it that lies in your object storage.

``plan`` says what to draw; ``pictures`` reads the photos, buys the pictures, waits without a worker and lands them,
verified, with a manifest beside them. What a photo shows is part of its request: run this DAG again, and only what
changed, a scene or a photo, is bought. The rest is found at the destination and costs nothing. What two runs at once
both want is bought by one of them.

With the default params it runs from this folder; for your own, give ``s3://my_aws_connection@my-bucket/photos``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

HERE = Path(__file__).parent

with DAG(
    "nanobanana_catalogue",
    schedule=None,
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "photos": Param((HERE / "photos").as_uri(), type="string"),
        "size": Param("4:3", type="string"),
        "destination": Param("file:///tmp/nanobanana-catalogue", type="string"),
    },
):

    @task
    def plan(params: dict[str, str]) -> list[dict[str, Any]]:
        products = json.loads((HERE / "products.json").read_text())
        return [
            {
                "name": product["sku"],  # the file's name begins with it
                "prompt": f"The product of the photo, {product['name']}, {product['scene']}, soft daylight",
                "reference_images": [f"{params['photos']}/{product['photo']}"],
            }
            for product in products
        ]

    NanoBananaGenerateOperator(
        task_id="pictures",
        requests=plan(),
        size="{{ params.size }}",
        destination="{{ params.destination }}",
        max_cost_usd=5.00,
        preflight_balance=True,
    )
