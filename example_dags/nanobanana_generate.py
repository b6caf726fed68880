"""One task: prompts in, verified images out. The smallest way to use this provider, and what ``make demo`` runs.

Run it again with the same prompts and destination: what is in place is verified and costs nothing, and what another run
is buying at the moment is not bought a second time.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

with DAG(
    "nanobanana_generate",
    schedule=None,
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "prompts": Param(
            ["a red kite over dunes", "a paper boat on a still lake"],
            type="array",
            items={"type": "string"},
            minItems=1,
        ),
        "size": Param("16:9", type="string"),
        "destination": Param("file:///tmp/nanobanana-generate", type="string"),
    },
):

    @task.nanobanana(destination="{{ params.destination }}", size="{{ params.size }}")
    def pictures(params: dict[str, list[str]]) -> list[str]:
        return params["prompts"]

    pictures()
