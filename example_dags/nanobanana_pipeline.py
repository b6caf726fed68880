"""The three tasks: submit each prompt, wait for all without a worker, land what was made.

``trigger_rule="all_done"`` keeps one refused prompt from losing the others' paid images; ``complete`` makes the run red
all the same when anything failed. The rows of the grid are called by their prompts.
"""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, task

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor

with DAG(
    "nanobanana_pipeline",
    schedule=None,
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "prompts": Param(
            ["a red kite over dunes", "a paper boat on a still lake"], type="array", items={"type": "string"}
        ),
        "size": Param("16:9", type="string"),
        "destination": Param("file:///tmp/nanobanana", type="string"),
    },
):

    @task
    def read_prompts(params: dict[str, list[str]]) -> list[str]:
        return params["prompts"]

    submit = NanoBananaSubmitOperator.partial(task_id="submit", size="{{ params.size }}").expand(prompt=read_prompts())
    wait = NanoBananaSensor(task_id="wait", image_task_ids=submit.output, trigger_rule="all_done")
    download = NanoBananaDownloadOperator(
        task_id="download", images=wait.output, destination="{{ params.destination }}", trigger_rule="all_done"
    )
    [submit, wait, download] >> EmptyOperator(task_id="complete")
