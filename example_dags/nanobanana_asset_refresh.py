"""A refresh driven by assets: a new product list starts new pictures, and new pictures start a report.

Three small DAGs. ``nanobanana_products`` says that the product list changed. That starts ``nanobanana_asset_refresh``:
its function returns what to draw, ``@task.nanobanana`` makes it, and the asset event of its outlet carries ``count``,
``cost_usd`` and ``manifest``. That event starts ``nanobanana_asset_news``, which reads them.

The whole list is asked for every time, and only what changed is paid: the rest is found at the destination.
Two refreshes at once buy each picture once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Param, task

LIST = Path(__file__).with_name("products.json")
PRODUCTS = Asset("nanobanana_products")
PICTURES = Asset("nanobanana_pictures")

with DAG("nanobanana_products", schedule=None, catchup=False, tags=["nanobanana"], doc_md=__doc__):

    @task(outlets=[PRODUCTS])
    def new_list() -> int:
        return len(json.loads(LIST.read_text()))

    new_list()

with DAG(
    "nanobanana_asset_refresh",
    schedule=[PRODUCTS],
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={"destination": Param("file:///tmp/nanobanana-refresh", type="string")},
):

    @task.nanobanana(destination="{{ params.destination }}", size="3:4", max_cost_usd=5.00, outlets=[PICTURES])
    def pictures() -> list[dict[str, str]]:
        products = json.loads(LIST.read_text())
        return [{"name": each["sku"], "prompt": f"{each['name']}, {each['scene']}, studio light"} for each in products]

    pictures()

with DAG("nanobanana_asset_news", schedule=[PICTURES], catchup=False, tags=["nanobanana"], doc_md=__doc__):

    @task(inlets=[PICTURES])
    def announce(inlet_events: Any) -> str:
        made = inlet_events[PICTURES][-1].extra
        return f"{made['count']} pictures for ${made['cost_usd']:.3f}: {made['manifest']}"

    announce()
