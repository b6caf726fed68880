"""GenerateTask: one Generate task instance, attempt by attempt, in virtual time and with a crash at any side effect."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_nanobanana.batch import submitter
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage import exclusive
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.submission import client_ids
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.client import ToApisClient
from tests.integration.submission.crash_points import Clock, Crash, CrashPoints, short_circuit
from tests.support.images import picture
from tests.support.task_runner import Run, TaskInstance
from tests.support.task_state_store import MemoryTaskStateStore

#: Seconds that a deferral takes: the triggerer fires, a worker starts.
PAUSE = 5.0
MOST_PAUSES = 60


class SharedClock(Clock):
    """A clock that many threads may move."""

    def __init__(self) -> None:
        super().__init__(now=time.time())
        self.lock = threading.RLock()

    def sleep(self, seconds: float) -> None:
        with self.lock:
            super().sleep(seconds)


@dataclass
class SharedCrashPoints(CrashPoints):
    """Crash points of many threads: a crash in one of them is a crash in all."""

    dead: bool = False
    lock: Any = field(default_factory=threading.RLock)

    def reach(self, name: str, in_flight: Callable[[], Any] | None = None) -> None:
        with self.lock:
            if self.dead:
                raise Crash(name)
            try:
                super().reach(name, in_flight)
            except Crash:
                self.dead = True
                raise


@dataclass
class GenerateTask:
    """One Generate task instance with its store, its destination and Airflow's counts.

    :param folder: The destination.
    :param store: None is an Airflow before 3.3.
    :param discards: Whether a clear discards what is in the store, as on Airflow 3.4.
    """

    emulator: Emulator
    clock: SharedClock
    crash_points: SharedCrashPoints
    folder: Path
    store: MemoryTaskStateStore | None = field(default_factory=MemoryTaskStateStore)
    retries: int = 9
    tries: int = 0
    max_tries: int = 9
    run_id: str = "run"
    map_index: int = -1
    xcoms: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    outlets: Any = None
    pauses: list[TaskDeferred] = field(default_factory=list)
    on_pause: Callable[[], Any] = lambda: None
    discards: bool = False

    def attempt(
        self, *, crash_at: int | None = None, crash_on: tuple[str, int] | None = None, surely: bool = True,
        leaked: bool = False, **options: Any,
    ) -> Run:  # fmt: skip
        """Run the next try, each slice in a process of its own; after a crash there is neither result nor error.

        :param surely: Whether it must come to ``crash_on``.
        :param leaked: Airflow resumes instead of starting it, with the event of another try (its issue 62845).
        """
        self.tries += 1
        self.crash_points.passed, self.crash_points.dead = [], False
        self.crash_points.crash_at, self.crash_points.crash_on = crash_at, crash_on
        self.xcoms.clear()
        try:
            run = self._follow(options, {"event": {"version": 1}} if leaked else None)
            assert crash_on is None or not surely, (
                f"no crash at {crash_on}: passed {sorted(set(self.crash_points.passed))}"
            )
            return run
        except Crash:
            return Run()
        finally:
            self.crash_points.crash_at = self.crash_points.crash_on = None
            self.crash_points.dead = False

    def _follow(self, options: dict[str, Any], resumed: dict[str, Any] | None) -> Run:
        ti = self.instance()
        run, context = Run(ti=ti), self.context(ti)
        self.pauses = []
        while True:
            client_ids._checked.clear()
            try:
                run.result = self.run_slice(context, options, resumed)
            except TaskDeferred as pause:
                self.pause(pause)
                resumed = {"event": {"version": 1}}
                continue
            except AirflowException as error:
                run.error = error
            self.crash_points.reach("returned")
            return run

    def pause(self, pause: TaskDeferred) -> None:
        """Let the time of a deferral pass."""
        self.pauses.append(pause)
        assert len(self.pauses) < MOST_PAUSES, "it never ends"
        path, kwargs = pause.trigger.serialize()
        json.dumps(kwargs)
        wake = kwargs["moment"] if path.endswith("TimerTrigger") else kwargs["deadline"]
        self.on_pause()
        self.clock.sleep(max(0.1, min(PAUSE, wake - self.clock.now)))

    def run_slice(self, context: Any, options: dict[str, Any], resumed: dict[str, Any] | None) -> Any:
        """Run one slice of an attempt, as one process does."""
        operator = self.operator(**options)
        if resumed is None:
            return operator.execute(context)
        return operator.resume_execution("execute_complete", resumed, context)

    def operator(self, **options: Any) -> Any:
        """Return the operator as a new process would make it."""
        options = {"destination": self.folder.as_uri(), "retries": self.retries, **self.options, **options}
        return NanoBananaGenerateOperator(task_id="generate", **options)

    def instance(self) -> TaskInstance:
        return TaskInstance(
            run_id=self.run_id,
            task_id="generate",
            map_index=self.map_index,
            try_number=self.tries,
            max_tries=self.max_tries,
            xcoms=self.xcoms,
            store=self.store,
        )

    def context(self, ti: TaskInstance) -> Any:
        context: dict[str, Any] = {"ti": ti, "task_instance": ti}
        if self.store is not None:
            context["task_state_store"] = self.store
        if self.outlets is not None:
            context["outlet_events"] = self.outlets
        return context

    def clear(self) -> None:
        """Clear the task as Airflow does while it does not run: it gets all of its retries again."""
        self.max_tries = self.tries + self.retries
        if self.discards and self.store is not None:
            self.store.rows.clear()

    def next_run(self, run_id: str) -> None:
        """Become the task of another DAG run with the same destination."""
        self.run_id, self.tries, self.max_tries = run_id, 0, self.retries
        self.store = None if self.store is None else MemoryTaskStateStore()

    def begin_again(self) -> None:
        """Begin with an empty service and folder, as a task instance that never ran."""
        service = self.emulator.service.ledger
        service.image_tasks.clear()
        service.by_client_id.clear()
        self.clock.in_flight.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        exclusive._found.clear()
        self.next_run("run")

    @property
    def charges(self) -> int:
        """How many image tasks are paid and not refunded."""
        return sum(not task["refunded"] for task in self.emulator.ledger()["image_tasks"])

    @property
    def posts(self) -> int:
        """How many submits the service accepted, refunded ones too."""
        return int(self.emulator.ledger()["count"])

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.png"))

    @property
    def manifest(self) -> dict[str, Any]:
        (path,) = self.folder.glob(f"manifest-*{self.run_id}*.json")
        content: dict[str, Any] = json.loads(path.read_text())
        return content


def one_thread_at_a_time(effect: Callable[..., Any], airflow: threading.Lock) -> Callable[..., Any]:
    """Fail if two threads ask Airflow at once: before 3.3 they hang, or get each other's answers."""

    def asked(*args: Any, **kwargs: Any) -> Any:
        assert airflow.acquire(blocking=False), "two threads ask Airflow at once"
        try:
            time.sleep(0)
            return effect(*args, **kwargs)
        finally:
            airflow.release()

    return asked


def install_crash_points(
    monkeypatch: pytest.MonkeyPatch, emulator: Emulator, clock: SharedClock, *, sockets: bool, pictures: bool
) -> SharedCrashPoints:
    """Make a crash point of every side effect of a batch: store, XComs, calls, waits, images, manifest.

    :param sockets: Whether calls really travel; only then there are faults.
    :param pictures: Whether pictures are downloaded; otherwise each is a small one.
    """
    crash_points = SharedCrashPoints(clock)
    exchange = ToApisClient._exchange
    lock, airflow = threading.RLock(), threading.Lock()

    def send(self: ToApisClient, call: Any) -> Any:
        if sockets or call.kind not in (CallKind.SUBMIT, CallKind.STATUS):
            return exchange(self, call)
        with lock:
            return short_circuit(emulator.service, call)

    crash_points.install(monkeypatch, send)
    for owner, names in (
        (MemoryTaskStateStore, {"get": "read", "set": "write"}),
        (TaskInstance, {"xcom_pull": "read", "xcom_push": "write"}),
        (ImageDownloader, {"land": "land"}),
    ):
        for method, name in names.items():
            effect = getattr(owner, method)
            if owner is not ImageDownloader:
                effect = one_thread_at_a_time(effect, airflow)
            monkeypatch.setattr(owner, method, crash_points.around(name, effect))
    write = ImageStore.write_manifest
    final, interim = crash_points.around("manifest", write), crash_points.around("interim manifest", write)

    def write_manifest(*given: Any, **how: Any) -> Any:
        return (interim if how.get("compact") else final)(*given, **how)

    monkeypatch.setattr(ImageStore, "write_manifest", write_manifest)
    if not pictures:
        tiny = picture("png", (8, 8))
        monkeypatch.setattr(ImageDownloader, "_write", lambda self, image, sink, **_: sink.write(tiny))
    monkeypatch.setattr(submitter, "_FEWEST_THREADS", 2)
    return crash_points
