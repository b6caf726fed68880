"""Finding the processes that run tasks, by their place in the tree: nothing else of them is certain.

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
class Victim:
    """One running task.

    :param key: Id of the task instance, where the processes' titles tell it.
    """

    task: psutil.Process
    supervisor: psutil.Process
    key: str = ""


def running_tasks(leaders: Iterable[int]) -> list[Victim]:
    """List the running tasks below these session leaders."""
    chosen = set(leaders)
    members = {}
    for pid in session_members(chosen):
        try:
            members[pid] = psutil.Process(pid)
        except psutil.Error:
            continue
    found = (_victim(process, members, chosen) for process in members.values())
    return sorted((victim for victim in found if victim), key=lambda victim: victim.task.pid)


def _victim(process: psutil.Process, members: dict[int, psutil.Process], leaders: set[int]) -> Victim | None:
    try:
        parent = process.ppid()
        supervisor = members.get(parent)
        if supervisor is None or parent in leaders:
            return None
        title = f"{' '.join(process.cmdline())} {' '.join(supervisor.cmdline())}"
    except psutil.Error:
        return None
    key = _UUID.search(title)
    return Victim(process, supervisor, key[0] if key else "")


def kill(process: psutil.Process) -> bool:
    """Kill a process with SIGKILL; say whether it was alive (its number is checked against its start time)."""
    try:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.Error:
        return False
    return True
