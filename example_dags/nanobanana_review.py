"""Table -> pictures -> a person's review -> the rejected ones again, once -> publish: copies and a manifest of them."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator, NanoBananaReviewOperator

PARAMS = {name: Param(f"file:///tmp/nanobanana-review/{name}", type="string") for name in ("destination", "published")}
TABLE = {"requests": Path(__file__).with_name("products.csv").as_uri(), "prompt": "A banner with {title}, {scene}"}
ALL = {"retries": 2, "destination": "{{ params.destination }}", **TABLE}

with DAG("nanobanana_review", params=PARAMS, default_args=ALL, doc_md=__doc__, tags=["nanobanana"]):
    pictures = NanoBananaGenerateOperator(task_id="pictures")
    review = NanoBananaReviewOperator(task_id="review", images=pictures.output, response_timeout=timedelta(days=3))
    again = NanoBananaGenerateOperator(task_id="again", redo=review.output["rejected"])

    @task
    def publish(made: dict[str, Any], params: dict[str, str]) -> None:
        from airflow.sdk import ObjectStoragePath

        (folder := ObjectStoragePath(params["published"])).mkdir(parents=True, exist_ok=True)
        for image in made["images"]:
            (folder / Path(image["uri"]).name).write_bytes(ObjectStoragePath(image["uri"]).read_bytes())
        (folder / "published.json").write_text(json.dumps(made["images"]))

    publish(again.output)
