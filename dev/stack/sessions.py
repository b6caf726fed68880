"""End every process of a session, whatever groups its members have moved to.

Airflow gives each task a process group of its own, so that killing the group of the scheduler leaves its tasks alive.
All of them stay in the session in which the scheduler was started; that is what is swept here. Run as a module it is a
guardian: it reads session ids from standard input and sweeps them when the pipe closes, that is, also when the program
that started them was killed with SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable

import psutil


def members(sessions: Iterable[int]) -> set[int]:
    """List the living processes of these sessions, zombies left out."""
    wanted = set(sessions)
    found = set()
    for pid in psutil.pids():
        try:
            if os.getsid(pid) in wanted and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def send(sessions: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to every living process of these sessions."""
    for pid in members(sessions):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def sweep(sessions: Iterable[int], grace: float) -> set[int]:
    """End these sessions: ask first, then kill.

    :param grace: Seconds between SIGTERM and SIGKILL; 0 kills at once.
    :return: The processes that are still there, normally none.
    """
    chosen = list(sessions)
    if grace > 0:
        send(chosen, signal.SIGTERM)
        _wait_until_gone(chosen, grace)
    for _ in range(3):  # a member may have forked between the listing and the kill
        send(chosen, signal.SIGKILL)
        if not _wait_until_gone(chosen, 2.0):
            return set()
    return members(chosen)


def _wait_until_gone(sessions: list[int], seconds: float) -> set[int]:
    deadline = time.monotonic() + seconds
    while (left := members(sessions)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def guard() -> None:
    """Wait for the pipe to close, then sweep the sessions that were announced and not withdrawn."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: set[int] = set()
    for line in sys.stdin:
        sign, session = line[0], int(line[1:])
        if sign == "+":
            watched.add(session)
        else:
            watched.discard(session)
    if watched:
        sweep(watched, grace=0)


if __name__ == "__main__":
    guard()
