"""What differs between the Airflow versions that are supported."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK

try:
    from airflow.sdk.exceptions import TaskDeferralError
except ImportError:  # Airflow 3.0 and 3.1; the compat provider does not know it
    from airflow.exceptions import TaskDeferralError  # type: ignore[no-redef]

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

__all__ = [
    "TaskDeferralError",
    "clear_discards_task_state",
    "give_stats_their_backend",
    "has_retry_left",
    "reads_hook_lineage",
    "was_skipped",
]


def clear_discards_task_state() -> bool:
    """Whether a clear discards what a task instance keeps in its task state store, unless the user asks to keep it.

    So does Airflow 3.4 (``keep_task_state``, https://github.com/apache/airflow/issues/72929).
    """
    from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

    return get_base_airflow_version_tuple() >= (3, 4)


def has_retry_left(context: Context) -> bool:
    """Whether Airflow retries the task instance if it fails now: its tries are not used up."""
    ti: Any = context["ti"]
    # As Airflow's own task runner counts (3.0.6 to 3.3.2); a clear raises ``max_tries``.
    return bool(ti.max_tries) and ti.try_number <= ti.max_tries


def was_skipped(operator: BaseOperator, context: Context) -> bool:
    """Whether the tasks directly before this one were skipped, and none of them failed.

    Asked of Airflow's task execution interface (``get_task_states``, 3.0 and later); False when it cannot be asked.
    """
    ti: Any = context["ti"]
    if not operator.upstream_task_ids or not hasattr(ti, "get_task_states"):
        return False
    upstream = sorted(operator.upstream_task_ids)
    with SUPERVISOR_LOCK:
        runs = ti.get_task_states(dag_id=ti.dag_id, task_ids=upstream, run_ids=[ti.run_id])
    states = set(runs.get(ti.run_id, {}).values())
    return "skipped" in states and states <= {"skipped", "success"}


def reads_hook_lineage() -> bool:
    """Whether a plugin reads hook-level lineage; asked before the collector, which takes long to build for nobody."""
    try:
        # Airflow 3.2 and later
        from airflow.sdk.plugins_manager import get_hook_lineage_readers_plugins
    except ImportError:
        plugins_manager: Any = importlib.import_module("airflow.plugins_manager")
        plugins_manager.initialize_hook_lineage_readers_plugins()
        return bool(plugins_manager.hook_lineage_reader_classes)
    return bool(get_hook_lineage_readers_plugins())


def give_stats_their_backend() -> None:
    """Let Airflow's stats send to what ``[metrics]`` says, in a triggerer of Airflow 3.4 too."""
    # From Airflow 3.2 on this import does it; in 3.4's triggerer nobody else imports it.
    with suppress(ImportError):
        importlib.import_module("airflow.sdk.serde")
