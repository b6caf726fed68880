"""A DAG without images: it shows that the processes of the stack work together, with a deferral."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, task

with DAG("stack_smoke", schedule=None, catchup=False, default_args={"retries": 2}, params={"word": "nothing"}):

    @task
    def say(**context: Any) -> Any:
        return context["params"]["word"]

    pause = TimeDeltaSensor(task_id="pause", delta=timedelta(seconds=15), deferrable=True)

    @task
    def repeat(word: Any) -> str:
        return f"{word} {word}"

    said = say()
    said >> pause >> repeat(said)
