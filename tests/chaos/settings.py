"""Airflow's settings for a campaign: a killed process is noticed within seconds instead of minutes.

Every value stands beside Airflow's default (its configuration reference, 3.3.2). None changes what Airflow does, only
how long it waits before it does it, so that a campaign meets in minutes what an installation meets in months.
"""

from __future__ import annotations

FAST_DETECTION = {
    # A running task whose supervisor is silent is given up after 30 s (300), looked for every 5 s (10). Shorter than
    # a restart of the api-server on a busy machine, it would fail every running task at each such restart.
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    # A scheduler is dead after 30 s without a heartbeat (30), its tasks are adopted or reset every 10 s (300). With a
    # threshold of 10 s a busy scheduler was repeatedly taken for dead, and every running task was reset.
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    # A task that never leaves the queue (its worker died with it in hand) is queued again after 40 s (600).
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "40",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    # It gives the task up after two such rounds; dying workers make more.
    "SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "10",
    # A triggerer is dead after 12 s without a heartbeat (30), sent every 2 s (5); then the other takes its triggers.
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
    # A supervisor looks for the end of its task, and asks the api-server, every 2 s (5).
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    # It outlasts a restart of the api-server in 12 heartbeats and calls (3 and 5), the calls at most 5 s apart (90).
    "WORKERS__MAX_FAILED_HEARTBEATS": "12",
    "WORKERS__EXECUTION_API_RETRIES": "12",
    "WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    # A crowded machine answers late (5).
    "WORKERS__EXECUTION_API_TIMEOUT": "15",
}

CELERY = {
    "CORE__EXECUTOR": "CeleryExecutor",
    # Redis hands out again what a dead worker took: after 5 minutes (24 h), longer than any task here.
    "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "300",
    # The scheduler must not wait for the remote control of a killed worker.
    "CELERY__WORKER_ENABLE_REMOTE_CONTROL": "False",
}


def environment(*groups: dict[str, str], **more: str) -> dict[str, str]:
    """Return settings as environment variables."""
    merged: dict[str, str] = {}
    for group in (*groups, more):
        merged |= group
    return {f"AIRFLOW__{name}": value for name, value in merged.items()}
