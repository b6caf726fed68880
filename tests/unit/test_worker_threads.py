"""Work that ends in time whatever its threads do, and what is left of it can do no harm."""

from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_nanobanana import worker_threads
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from airflow_provider_nanobanana.worker_threads import (
    SUPERVISOR_LOCK,
    StoppableOperator,
    StoppableTask,
    TaskEnded,
    WorkerPool,
    check_not_stopped,
    current_task,
    sleep,
    take_each,
)


class Interrupted(BaseException):
    """As AirflowTaskTimeout: raised in the main thread by a signal's handler."""


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What a thread waits for that never comes; set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a tenth of the time."""
    monkeypatch.setattr(worker_threads, "FINISH_SECONDS", 0.15)
    monkeypatch.setattr(worker_threads, "SAVE_SECONDS", 0.15)


@contextmanager
def alarm(after: threading.Event) -> Iterator[None]:
    """Interrupt the main thread once the event is set."""

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted

    def send() -> None:
        after.wait()
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    threading.Thread(target=send, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


class TestStoppableTask:
    def test_it_gives_the_result_and_raises_the_error_of_the_work(self) -> None:
        assert StoppableTask().run(lambda: threading.current_thread().name) == "task"
        with pytest.raises(ZeroDivisionError):
            StoppableTask().run(lambda: 1 / 0)
        with pytest.raises(SystemExit):
            StoppableTask().run(lambda: sys.exit(3))

    def test_the_work_has_the_context_of_who_asks(self) -> None:
        variable = contextvars.ContextVar("variable", default=0)
        variable.set(7)

        def work() -> int:
            with WorkerPool(1) as pool:
                return pool.submit(variable.get).result()

        assert StoppableTask().run(work) == 7

    def test_what_interrupts_the_main_thread_is_raised_though_the_work_is_stuck(self, stuck: threading.Event) -> None:
        begun = threading.Event()

        def work() -> None:
            begun.set()
            stuck.wait()

        with alarm(begun), pytest.raises(Interrupted):
            StoppableTask().run(work)
        assert not stuck.is_set()

    def test_jobs_that_are_stuck_are_given_up_and_the_work_saves_what_it_knows(self, stuck: threading.Event) -> None:
        begun = threading.Event()
        saved: list[str] = []

        def job() -> None:
            begun.set()
            stuck.wait()

        def work() -> None:
            try:
                with WorkerPool(2) as pool:
                    done: list[Future[Any]] = [
                        pool.submit(str, "fine"),
                        pool.submit(job),
                        pool.submit(job),
                        pool.submit(str, "late"),
                    ]
                    for future in done:
                        saved.append(future.result())
            finally:
                saved.append("saved")

        with alarm(begun), pytest.raises(Interrupted):
            StoppableTask().run(work)
        assert saved == ["fine", "saved"]

    def test_what_is_submitted_once_the_task_is_stopped_does_not_keep_the_work_from_saving(
        self, stuck: threading.Event
    ) -> None:
        begun = threading.Event()
        saved: list[str] = []

        def job() -> None:
            begun.set()
            stuck.wait()

        def work() -> None:
            try:
                with WorkerPool(1) as pool:
                    try:
                        pool.submit(job).result()
                    except TaskEnded:  # as a batch that closes its group's book once the group's last POST has ended
                        pool.submit(saved.append, "begun")
            finally:
                saved.append("saved")

        with alarm(begun), pytest.raises(Interrupted):
            StoppableTask().run(work)
        assert saved == ["saved"]

    def test_what_is_nearly_done_comes_to_its_end_and_nothing_begins_after_it(self) -> None:
        begun, go_on = threading.Event(), threading.Event()
        done: list[str] = []

        def first() -> None:
            begun.set()
            go_on.wait()
            done.append("first")

        def work() -> None:
            with WorkerPool(1) as pool:
                pool.submit(first)
                pool.submit(done.append, "second")

        with alarm(begun), pytest.raises(Interrupted):
            StoppableTask(on_stop=go_on.set).run(work)
        assert done == ["first"]

    def test_a_wait_for_the_first_of_several_ends(self, stuck: threading.Event) -> None:
        begun = threading.Event()
        ended: list[bool] = []

        def job() -> None:
            begun.set()
            stuck.wait()

        def work() -> None:
            with WorkerPool(1) as pool:
                active: set[Future[None]] = {pool.submit(job)}
                done, _ = wait(active, return_when=FIRST_COMPLETED)
                ended.append(done == active)
                done.pop().result()

        with alarm(begun), pytest.raises(Interrupted):
            StoppableTask().run(work)
        assert ended == [True]

    def test_pools_within_pools_end(self, stuck: threading.Event) -> None:
        begun = threading.Event()
        ended: list[str] = []

        def inner() -> None:
            begun.set()
            stuck.wait()

        def outer() -> None:
            try:
                with WorkerPool(1) as pool:
                    pool.submit(inner).result()
            finally:
                ended.append("outer")

        def work() -> None:
            with WorkerPool(1) as pool:
                pool.submit(outer).result()

        with alarm(begun), pytest.raises(Interrupted):
            StoppableTask().run(work)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("worker")]
        for thread in threads:
            thread.join(0.2)
        assert ended == ["outer"]

    @pytest.mark.parametrize("of", ["a handler of the main thread", "the work itself"])
    def test_a_stop_ends_the_work_with_an_error_that_may_be_retried(self, of: str, stuck: threading.Event) -> None:
        task = StoppableTask()
        before = signal.signal(signal.SIGTERM, lambda number, frame: task.stop())

        def work() -> None:
            if of == "the work itself":
                task.stop()
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            stuck.wait()

        try:
            with pytest.raises(TransientFailure, match="Airflow ended this attempt") as caught:
                task.run(work)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert caught.value.retryable and caught.value.charged == "unknown"

    def test_what_the_work_comes_to_after_a_stop_is_what_counts(self) -> None:
        task, go_on = StoppableTask(), threading.Event()
        task = StoppableTask(on_stop=go_on.set)

        def work(error: Exception | None) -> str:
            task.stop()
            go_on.wait()
            if error is not None:
                raise error
            return "done"

        assert task.run(lambda: work(None)) == "done"
        go_on = threading.Event()
        task = StoppableTask(on_stop=go_on.set)
        with pytest.raises(ValueError, match="mine"):
            task.run(lambda: work(ValueError("mine")))

    def test_calls_and_sleeps_end_at_once(self) -> None:
        task = StoppableTask()
        met: list[str] = []

        def work() -> None:
            task.stop()
            try:
                sleep(60)
            except TaskEnded:
                met.append("sleep")
            with pytest.raises(TaskEnded):
                check_not_stopped()
            met.append("call")

        task.run(work)
        assert met == ["sleep", "call"]

    def test_a_thread_that_was_left_asks_airflow_for_nothing(self, stuck: threading.Event) -> None:
        task = StoppableTask()
        asked: list[str] = []
        left = threading.Event()

        def work() -> None:
            with SUPERVISOR_LOCK:
                asked.append("before")
            task.stop()
            stuck.wait()
            try:
                with SUPERVISOR_LOCK:
                    asked.append("after")
            finally:
                left.set()

        with pytest.raises(TransientFailure):
            task.run(work)
        stuck.set()
        assert left.wait(5)
        assert asked == ["before"]
        with SUPERVISOR_LOCK:  # it is free, and others get it
            assert current_task() is None

    def test_what_is_read_one_by_one_is_read_no_further_once_the_task_was_left(self, stuck: threading.Event) -> None:
        task = StoppableTask()
        read: list[int] = []
        left = threading.Event()

        def work() -> None:
            try:
                for number in take_each(range(3)):
                    read.append(number)
                    task.stop()
                    stuck.wait()
            finally:
                left.set()

        with pytest.raises(TransientFailure):
            task.run(work)
        stuck.set()
        assert left.wait(5)
        assert read == [0]

    def test_the_task_is_left_though_a_question_to_airflow_is_not_answered(
        self, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker_threads, "_LAST_QUESTION_SECONDS", 0.05)
        begun, given_back = threading.Event(), threading.Event()

        def work() -> None:
            with SUPERVISOR_LOCK:
                begun.set()
                stuck.wait()
            given_back.set()

        with alarm(begun), pytest.raises(Interrupted):
            StoppableTask().run(work)
        stuck.set()
        assert given_back.wait(5)

    def test_a_second_stop_while_it_ends_changes_nothing(self, stuck: threading.Event) -> None:
        task = StoppableTask()
        task._on_stop = task.stop

        def work() -> None:
            task.stop()
            stuck.wait()

        with pytest.raises(TransientFailure):
            task.run(work)

    def test_an_interruption_while_it_ends_leaves_the_task(self, stuck: threading.Event) -> None:
        ending, lock_free = threading.Event(), threading.Event()
        task = StoppableTask(on_stop=ending.set)

        def work() -> None:
            task.stop()
            stuck.wait()
            try:
                with SUPERVISOR_LOCK:
                    pass
            except TaskEnded:
                lock_free.set()

        with alarm(ending), pytest.raises(Interrupted):
            task.run(work)
        stuck.set()
        assert lock_free.wait(5)


class TestStoppableOperator:
    def test_work_within_work_is_a_part_of_it(self) -> None:
        operator = StoppableOperator()
        seen: list[Any] = []

        def outer() -> None:
            seen.append(current_task())
            operator._run_stoppable(lambda: seen.append(current_task()))
            seen.append(operator._stoppable)

        operator._run_stoppable(outer)
        assert seen[0] is not None and seen[1] is seen[0] and seen[2] is seen[0]
        assert operator._stoppable is None

    def test_a_kill_before_the_work_keeps_it_from_beginning(self) -> None:
        operator = StoppableOperator()
        begun: list[int] = []
        operator._stop()
        with pytest.raises(TransientFailure, match="Airflow ended this attempt") as caught:
            operator._run_stoppable(lambda: begun.append(1))
        assert begun == [] and caught.value.retryable

    def test_a_kill_right_before_the_work_is_not_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        operator = StoppableOperator()
        begun: list[int] = []

        class Killed(StoppableTask):
            def __init__(self, on_stop: Any) -> None:
                super().__init__(on_stop)
                operator._stop()

        monkeypatch.setattr(worker_threads, "StoppableTask", Killed)
        with pytest.raises(TransientFailure):
            operator._run_stoppable(lambda: begun.append(1))
        assert begun == []

    def test_a_kill_after_the_work_is_no_error(self) -> None:
        operator = StoppableOperator()
        assert operator._run_stoppable(lambda: 1) == 1
        operator._stop()


class TestWorkerPool:
    def test_results_come_in_order_from_so_many_threads(self) -> None:
        both = threading.Barrier(2)

        def job(number: int) -> int:
            if number < 2:
                both.wait(5)
            return number

        with WorkerPool(2) as pool:
            assert list(pool.map(job, range(50))) == list(range(50))

    def test_no_more_threads_than_jobs_or_allowed(self) -> None:
        names: set[str] = set()
        lock = threading.Lock()

        def job(_: int) -> None:
            with lock:
                names.add(threading.current_thread().name)

        with WorkerPool(3, thread_name_prefix="few") as pool:
            list(pool.map(job, range(100)))
        assert names <= {"few-1", "few-2", "few-3"}
        names.clear()
        with WorkerPool(64, thread_name_prefix="one") as pool:
            pool.submit(job, 0)
        assert names == {"one-1"}

    def test_leaving_waits_for_all_jobs(self) -> None:
        done: list[int] = []
        with WorkerPool(2) as pool:
            for number in range(20):
                pool.submit(done.append, number)
        assert sorted(done) == list(range(20))
        with pytest.raises(RuntimeError):
            pool.submit(done.append, 20)

    def test_an_error_waits_for_what_runs_and_begins_nothing_else(self) -> None:
        begun, go_on = threading.Event(), threading.Event()
        done: list[str] = []

        def job() -> None:
            begun.set()
            go_on.wait(5)
            done.append("first")

        def fail() -> None:
            with WorkerPool(1) as pool:
                pool.submit(job)
                pool.submit(done.append, "second")
                begun.wait(5)
                go_on.set()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert done == ["first"]

    def test_outside_of_a_task_what_ends_a_process_waits_for_no_thread(self, stuck: threading.Event) -> None:
        begun = threading.Event()

        def job() -> None:
            begun.set()
            stuck.wait()

        def work() -> None:
            with WorkerPool(1) as pool:
                pool.submit(job).result(1)  # a signal is noticed at the end of a wait

        with alarm(begun), pytest.raises(Interrupted):
            work()

    def test_the_first_error_of_a_map_cancels_the_rest(self) -> None:
        done: list[int] = []

        def job(number: int) -> None:
            if number == 0:
                raise ZeroDivisionError
            done.append(number)

        with WorkerPool(1) as pool, pytest.raises(ZeroDivisionError):
            list(pool.map(job, range(1000)))
        assert len(done) < 1000

    def test_an_interpreter_ends_though_a_thread_is_stuck(self) -> None:
        program = """
import threading
from airflow_provider_nanobanana.worker_threads import StoppableTask, WorkerPool
task = StoppableTask()
def work():
    pool = WorkerPool(1)
    pool.submit(threading.Event().wait)
    task.stop()
    pool.shutdown(wait=False)
    threading.Event().wait()
try:
    task.run(work)
except Exception as error:
    print(type(error).__name__)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "TransientFailure"
