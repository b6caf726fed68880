"""Some pictures are better than none: what was made is published at once, what was not goes to a person.

With ``allow_partial`` the task succeeds if anything did, and its result says what failed, why, and what became of the
money; a branch decides by ``failed_count``, which is there at any size. If nothing was made the task fails, and nothing
is published. Above 500 requests the lists of a result are empty (``truncated``): the manifest has them.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

with DAG(
    "nanobanana_partial_failure",
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
            maxItems=500,
        ),
        "destination": Param("file:///tmp/nanobanana-partial", type="string"),
    },
):

    @task.nanobanana(destination="{{ params.destination }}", allow_partial=True)
    def pictures(params: dict[str, list[str]]) -> list[str]:
        return params["prompts"]

    @task.branch
    def complete(result: dict[str, Any]) -> list[str]:
        return ["publish", "review"] if result["failed_count"] else ["publish"]

    @task
    def publish(result: dict[str, Any]) -> list[str]:
        return [image["uri"] for image in result["images"]]

    @task
    def review(result: dict[str, Any], params: dict[str, list[str]]) -> list[str]:
        return [f"{params['prompts'][failed['request']]}: {failed['message']}" for failed in result["failed"]]

    made = pictures()
    complete(made) >> [publish(made), review(made)]
