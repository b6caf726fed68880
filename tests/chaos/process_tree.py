"""The processes that run tasks, found by their place in the process tree.

A task is two processes. The supervisor is LocalExecutor's worker (a child of the scheduler) or a pool process of a
Celery worker; it forks the task process for each task. An idle worker has no child and is left alone: it holds the lock
of LocalExecutor's queue, and killing it would show a weakness of Python's queues, not of a submission.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from dev.stack.processes import session_members

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class RunningTask:
    """One running task.

    :param task_instance_id: Empty where the titles of the processes do not hold it.
    """

    task: psutil.Process
    supervisor: psutil.Process
    task_instance_id: str = ""


def running_tasks(leaders: Iterable[int]) -> list[RunningTask]:
    """List the running tasks below these session leaders."""
    chosen = set(leaders)
    members = {}
    for pid in session_members(chosen):
        try:
            members[pid] = psutil.Process(pid)
        except psutil.Error:
            continue
    found = (_running_task(process, members, chosen) for process in members.values())
    return sorted((running for running in found if running), key=lambda running: running.task.pid)


def _running_task(process: psutil.Process, members: dict[int, psutil.Process], leaders: set[int]) -> RunningTask | None:
    try:
        parent = process.ppid()
        supervisor = members.get(parent)
        if supervisor is None or parent in leaders:
            return None
        title = f"{' '.join(process.cmdline())} {' '.join(supervisor.cmdline())}"
    except psutil.Error:
        return None
    found = _UUID.search(title)
    return RunningTask(process, supervisor, found[0] if found else "")


def kill(process: psutil.Process) -> bool:
    """Send SIGKILL to a process; return whether it was alive (its number is checked against its start time)."""
    try:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.Error:
        return False
    return True
