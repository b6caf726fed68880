"""DAGs whose runs ask for the same pictures at the same place, with ``max_active_runs=1`` where that is a promise."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator, NanoBananaSubmitOperator
from tests.overlap.prompts import KILLED, KILLED_SUBMITS, KILLED_TOGETHER, MAPPED, batch

RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=4)}
#: Where the scheduled run lands, whose conf nobody can choose.
SCHEDULED = os.environ.get("OVERLAP_DESTINATION", "file:///tmp/overlap")


def params(destination: str = "", prompts: list[str] | None = None) -> dict[str, Param]:
    """Return what a run is told by its conf."""
    return {
        "destination": Param(destination, type="string"),
        "prompts": Param(prompts or [], type="array"),
        "conn_id": Param("nanobanana_default", type="string"),
    }


def dag(dag_id: str, **options: object) -> DAG:
    """Return an empty DAG; requests in templates stay lists."""
    return DAG(
        dag_id, catchup=False, max_active_tasks=64, default_args=RETRIES, render_template_as_native_obj=True,
        **{"params": params(), **options},
    )  # fmt: skip


def generate() -> NanoBananaGenerateOperator:
    """Return the task of a batch."""
    return NanoBananaGenerateOperator(
        task_id="generate",
        requests="{{ params.prompts }}",
        destination="{{ params.destination }}",
        nanobanana_conn_id="{{ params.conn_id }}",
        # Of two demonstrations with a refusal to wait for, the one ends with the other.
        timeout=240,
    )


# Its schedule ended long ago: only backfills start runs.
DAILY = {"schedule": "0 0 * * *", "start_date": datetime(2026, 1, 1, tzinfo=UTC), "max_active_runs": 1}
for part in ("backfill", "apart", "together", "keys"):
    with dag(f"overlap_{part}", **DAILY, end_date=datetime(2026, 3, 1, tzinfo=UTC)):
        generate()

with dag("overlap_scheduled", **DAILY, params=params(SCHEDULED, batch("scheduled"))):
    generate()

for part, prompts in (("mapped", MAPPED), ("killed", KILLED), ("killed_together", KILLED_TOGETHER)):
    with dag(f"overlap_{part}", schedule=None):
        NanoBananaGenerateOperator.partial(
            task_id="generate", destination="{{ params.destination }}", nanobanana_conn_id="{{ params.conn_id }}"
        ).expand(prompt=prompts)

with dag("overlap_killed_submits", schedule=None):
    NanoBananaSubmitOperator.partial(task_id="submit", nanobanana_conn_id="{{ params.conn_id }}").expand(
        prompt=KILLED_SUBMITS
    )
