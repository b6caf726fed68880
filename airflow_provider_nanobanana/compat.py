"""What differs between the Airflow versions that are supported, and what a worker asks of Airflow's supervisor."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

try:
    from airflow.sdk.exceptions import TaskDeferralError
except ImportError:  # Airflow 3.0 and 3.1; the compat provider does not know it
    from airflow.exceptions import TaskDeferralError  # type: ignore[no-redef]

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

__all__ = ["SUPERVISOR_LOCK", "TaskDeferralError", "was_skipped"]

#: Held by code of ours that runs in several threads of a task while it asks Airflow's supervisor for a connection, an
#: XCom or a task state; what only the task's main thread asks, with no other at work, needs it not. Before 3.3 the
#: connection to it is not made for threads: two that ask at once get each other's answers, or wait for ever (seen on
#: 3.0.6 and 3.1.8; ``CommsDecoder.send`` of 3.3.2 locks it).
SUPERVISOR_LOCK: Final = threading.RLock()


def was_skipped(operator: BaseOperator, context: Context) -> bool:
    """Whether the tasks directly before this one were skipped, and none of them failed.

    Asked of Airflow's task execution interface (``get_task_states``, 3.0 and later); False when it cannot be asked.
    """
    ti: Any = context["ti"]
    if not operator.upstream_task_ids or not hasattr(ti, "get_task_states"):
        return False
    runs = ti.get_task_states(dag_id=ti.dag_id, task_ids=sorted(operator.upstream_task_ids), run_ids=[ti.run_id])
    states = set(runs.get(ti.run_id, {}).values())
    return "skipped" in states and states <= {"skipped", "success"}
