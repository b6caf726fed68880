"""Best of three: three pictures of each prompt, of which a task of your own keeps one.

``variants=3`` buys each picture three times and tells them apart (``variant`` is ``1`` to ``3``); the result says which
belong together. ``best`` takes the one with most detail: put your own judgement there, or a person's. Run it again, and
the same pictures are found and cost nothing.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

with DAG(
    "nanobanana_best_of_three",
    schedule=None,
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "prompts": Param(["a red kite over dunes", "a paper boat on a lake"], type="array", minItems=1, maxItems=100),
        "destination": Param("file:///tmp/nanobanana-best-of-three", type="string"),
    },
):

    @task.nanobanana(destination="{{ params.destination }}", variants=3, max_cost_usd=1.00)
    def pictures(params: dict[str, list[str]]) -> list[str]:
        return params["prompts"]

    @task
    def best(made: dict[str, Any]) -> list[str]:
        from airflow.sdk import ObjectStoragePath
        from PIL import Image, ImageFilter, ImageStat

        def detail(image: dict[str, Any]) -> float:
            with ObjectStoragePath(image["uri"]).open("rb") as file, Image.open(file) as picture:
                return float(ImageStat.Stat(picture.convert("L").filter(ImageFilter.FIND_EDGES)).var[0])

        chosen: dict[int, dict[str, Any]] = {}
        for image in sorted(made["images"], key=detail):
            chosen[image["request"]] = image  # the position of the prompt: the last one has most detail
        return [chosen[request]["uri"] for request in sorted(chosen)]

    best(pictures())
