"""Generate mapped in each way: over values, over keyword sets, over another task's output, and by the decorator."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

with DAG(
    "mapped_generate",
    schedule=None,
    catchup=False,
    params={"destination": "file:///tmp/nanobanana-mapped"},
    default_args={"retries": 1, "destination": "{{ params.destination }}"},
):

    @task
    def pages() -> list[list[str]]:
        return [["mapped page one", "mapped page two"], ["mapped page three"]]

    # In the worker: how they wait is not what is shown here, and each resumption is one more process.
    NanoBananaGenerateOperator.partial(task_id="by_prompt", deferrable=False).expand(
        prompt=["mapped kite", "mapped boat"]
    )
    NanoBananaGenerateOperator.partial(task_id="by_kwargs", map_index_template="{{ task.size }}").expand_kwargs(
        [{"prompt": "mapped wide", "size": "16:9"}, {"prompt": "mapped tall", "size": "9:16"}]
    )
    NanoBananaGenerateOperator.partial(task_id="by_output").expand(requests=pages())

    @task.nanobanana(map_index_template="{{ product }}")
    def by_decorator(product: str) -> str:
        return f"mapped product {product}"

    by_decorator.expand(product=["cup", "lamp"])
