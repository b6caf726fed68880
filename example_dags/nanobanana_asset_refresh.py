"""A refresh driven by assets: a new product list starts new pictures, true to photos, and they start a report.

Three small DAGs. ``nanobanana_products`` says that the product list changed. That starts ``nanobanana_asset_refresh``:
its function returns what to draw, ``@task.nanobanana`` makes it, and the asset event of its outlet carries ``count``,
``cost_usd`` and ``manifest``. That event starts ``nanobanana_asset_news``, which reads them.

The whole list is asked for every time, and only what changed is paid, be it a scene or the photo of a product: what a
photo shows is part of its request. Two refreshes at once buy each picture once. With the default params the photos are
in this folder; for your own, give ``s3://my_aws_connection@my-bucket/photos``.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Param, task

HERE = Path(__file__).parent
PRODUCTS = Asset("nanobanana_products")
PICTURES = Asset("nanobanana_pictures")


def products() -> list[dict[str, str]]:
    with (HERE / "products.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


with DAG(
    "nanobanana_products",
    schedule=None,
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
):

    @task(outlets=[PRODUCTS])
    def new_list() -> int:
        return len(products())

    new_list()

with DAG(
    "nanobanana_asset_refresh",
    schedule=[PRODUCTS],
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "photos": Param((HERE / "photos").as_uri(), type="string"),
        "destination": Param("file:///tmp/nanobanana-refresh", type="string"),
    },
):

    @task.nanobanana(destination="{{ params.destination }}", size="3:4", max_cost_usd=5.00, outlets=[PICTURES])
    def pictures(params: dict[str, str]) -> list[dict[str, Any]]:
        return [
            {
                "name": each["name"],  # the file's name begins with it
                "prompt": f"The product of the photo, {each['title']}, {each['scene']}, studio light",
                "reference_images": [f"{params['photos']}/{each['photo']}"],
            }
            for each in products()
        ]

    pictures()

with DAG(
    "nanobanana_asset_news",
    schedule=[PICTURES],
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
):

    @task(inlets=[PICTURES])
    def announce(inlet_events: Any) -> str:
        made = inlet_events[PICTURES][-1].extra
        return f"{made['count']} pictures for ${made['cost_usd']:.3f}: {made['manifest']}"

    announce()
