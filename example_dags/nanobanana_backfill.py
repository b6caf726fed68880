"""A backfill that pays once: what is the same every day is bought by one of the days, whatever runs at once.

``airflow backfill create --dag-id nanobanana_backfill --from-date 2026-01-01 --to-date 2026-01-05`` makes five runs.
They share one destination, so ``logos`` is bought by one of them and the others wait for it and use it. ``moods`` shall
be new each day, and only there the day is a ``variant``. The day is of ``run_after``, which every run has; a run by
hand has no ``ds``.
"""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG, Param

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

with DAG(
    "nanobanana_backfill",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={"destination": Param("file:///tmp/nanobanana-backfill", type="string")},
):
    NanoBananaGenerateOperator(
        task_id="logos",
        requests=[{"prompt": "a banana as a logo, flat", "name": "logo"}],
        destination="{{ params.destination }}",
    )
    NanoBananaGenerateOperator(
        task_id="moods",
        requests=[{"prompt": "a fruit market in the morning", "name": "mood"}],
        variant="{{ dag_run.run_after.strftime('%Y-%m-%d') }}",
        destination="{{ params.destination }}",
    )
