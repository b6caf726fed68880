"""Airflow ends a task while a thread of it is stuck: what is paid is found, and no harm is done when it goes on.

As after ``kill -9``, but the threads of the attempt that was ended still live, as they do until its process is gone.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_nanobanana import worker_threads
from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.state_store import TaskStateStore
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.submission.claims import ClaimFolder
from tests.integration.batch.harness import GenerateTask
from tests.support.supervisor_lock import ask_under

PROMPTS = [f"picture {number}" for number in range(8)]
#: What a thread is stuck at, and at which time of it.
POINTS = [
    ("before submit", 1),
    ("before submit", 4),
    ("after submit", 1),
    ("after submit", 5),
    ("before claim", 3),
    ("after claim", 3),
    ("before write", 4),
    ("after write", 4),
    ("before land", 2),
    ("before keep", 2),
    ("after keep", 2),
]


class TaskTimeout(BaseException):
    """As AirflowTaskTimeout, which each Airflow keeps elsewhere."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_threads, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr(worker_threads, "SAVE_SECONDS", 0.5)
    monkeypatch.setattr(worker_threads, "_LAST_QUESTION_SECONDS", 0.1)


class Stuck:
    """Lets one thread wait at a point until it is released, and tells the main thread as Airflow does."""

    def __init__(self, batch: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reach = batch.crash_points.reach
        self._lock = threading.Lock()
        self._release = threading.Event()
        self._before = set(threading.enumerate())
        self.point, self.left = "", 0
        monkeypatch.setattr(batch.crash_points, "reach", self.reach)
        for owner, method, name in ((ClaimFolder, "create", "claim"), (ImageStore, "_measure", "keep")):
            monkeypatch.setattr(owner, method, batch.crash_points.around(name, getattr(owner, method)))

    def reach(self, name: str, in_flight: Any = None) -> None:
        self._reach(name, in_flight)
        with self._lock:
            self.left -= name == self.point
            here = name == self.point and self.left == 0
        if here:
            os.kill(os.getpid(), signal.SIGALRM)
            self._release.wait()

    def release(self) -> None:
        """Let it go on, and wait until no thread of the attempt is left."""
        self._release.set()
        deadline = time.monotonic() + 20
        while left := [one for one in set(threading.enumerate()) - self._before if one.name.startswith(OURS)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.02)


OURS = ("task", "slice", "submitter", "collector", "worker")


@pytest.fixture
def stuck(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    def ends(number: int, frame: Any) -> None:
        raise TaskTimeout

    before = signal.signal(signal.SIGALRM, ends)
    stuck = Stuck(with_store, monkeypatch)
    yield stuck
    stuck._release.set()
    signal.signal(signal.SIGALRM, before)


def test_what_is_paid_is_saved_before_a_destination_that_hangs_ends_it(
    with_store: GenerateTask, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread waits for a claim, and the books of what the others bought are written to the same place."""
    batch = with_store
    hangs = threading.Event()
    write_book = ClaimFolder.write_book

    def write(self: ClaimFolder, *args: Any) -> None:
        if stuck.left <= 0:
            hangs.wait()
        write_book(self, *args)

    monkeypatch.setattr(ClaimFolder, "write_book", write)
    stuck.point, stuck.left = "before claim", 6
    try:
        with pytest.raises(TaskTimeout):
            batch.attempt(requests=PROMPTS)
        bought = {sold["id"] for sold in batch.emulator.ledger()["image_tasks"]}
        entries = Ledger.load(TaskStateStore(batch.store), first=False).items()
        known = {entry.record.image_task_id for _, entry in entries if entry.record is not None}
        assert bought and bought <= known
    finally:
        hangs.set()
        stuck.release()


@pytest.mark.parametrize(("point", "occurrence"), POINTS)
def test_each_image_is_paid_once(
    with_store: GenerateTask, stuck: Stuck, point: str, occurrence: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store
    stuck.point, stuck.left = point, occurrence
    with pytest.raises(TaskTimeout):
        batch.attempt(requests=PROMPTS)
    another_process = threading.RLock()
    ours = worker_threads.SUPERVISOR_LOCK
    ask_under(another_process, monkeypatch)
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and again.result["count"] == len(PROMPTS)
    assert batch.store is not None
    kept, files = dict(batch.store.rows), batch.files
    ask_under(ours, monkeypatch)
    stuck.release()
    if point != "before write":  # that one write was under way, as it may be at a kill -9
        assert batch.store.rows == kept, "what the next attempt knows is not overwritten"
    batch.clear()
    cleared = batch.attempt(requests=PROMPTS)
    assert cleared.error is None and cleared.result["count"] == len(PROMPTS)
    assert batch.posts == batch.charges == len(PROMPTS)
    assert batch.files == files
