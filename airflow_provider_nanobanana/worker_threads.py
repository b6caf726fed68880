"""Threads of a worker, and how a task ends in time whatever they do: ``StoppableTask``, ``WorkerPool``.

Airflow ends a task by an exception in the main thread (``execution_timeout``) or by a signal whose handler calls
``on_kill`` (SIGTERM; SIGKILL follows after 5 s, or never: docs/durability.md, "How a task ends"). Neither reaches a
thread that waits for a connection, a decoder, a name server or a lock, and neither may interrupt the code that keeps
the ledger half way. So an operator's work runs in a thread of its own, while the main thread does nothing but wait;
and every further thread of it comes from a pool.

What a stop does, in this order:

1. at once: no job of a pool begins, no call of the service leaves; there, and in a sleep, :class:`TaskEnded` is raised;
2. after 2 s: jobs that still run, or are submitted later, are given up, so that the work goes on with what it knows,
   saves it and ends;
3. after 3 s: the task is left. Its threads ask Airflow for nothing more, write no ledger and send nothing; they go with
   the process.

A POST that is given up is one of a process that was killed: it was written ahead, and the next attempt looks for it.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, InvalidStateError, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar

from airflow_provider_nanobanana.toapis.errors import TransientFailure
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

log = LineLogger(__name__)

#: Seconds in which what is under way may come to its end by itself.
FINISH_SECONDS: Final = 2.0
#: Seconds after them in which the work may save what it knows.
SAVE_SECONDS: Final = 1.0
#: Seconds after which a signal is noticed at the latest.
_SIGNAL_SECONDS: Final = 0.25
#: Seconds for a question to Airflow that is under way when the task is left.
_LAST_QUESTION_SECONDS: Final = 0.5

P = ParamSpec("P")
T = TypeVar("T")


class TaskEnded(BaseException):
    """The task is being ended, and this thread is to go no further; no error of what it worked on."""


class StoppableTask:
    """One run of an operator's work, which ends within about 3 s of a stop.

    :param on_stop: Called once when the task is to stop, in the thread of :meth:`run`.
    """

    def __init__(self, on_stop: Callable[[], object] = lambda: None) -> None:
        self._on_stop = on_stop
        # The one means between threads that a signal handler may use, whatever the main thread is at.
        self._news: SimpleQueue[Literal["ended", "stop"]] = SimpleQueue()
        self._stopping = threading.Event()
        self._left = False
        self._jobs: set[_Job[Any]] = set()

    def run(self, work: Callable[[], T]) -> T:
        """Do the work in a thread, with this thread's context variables; return its result or raise its error.

        What interrupts this thread meanwhile (``AirflowTaskTimeout``, ``KeyboardInterrupt``) stops the work, and is
        raised once it has ended or is left.

        :raises TransientFailure: :meth:`stop` was called, and the work did not come to its end.
        """
        job = _Job(self, work)
        job.future.add_done_callback(lambda _: self._news.put("ended"))
        try:
            threading.Thread(target=job.run, name="task", daemon=True).start()
            if self._first_news() == "stop":
                self._end(job.future)
        except BaseException:
            self._end(job.future)
            raise
        if not job.future.done() or isinstance(job.future.exception(), TaskEnded):
            raise _ended_early()
        return job.future.result()

    def stop(self) -> None:
        """Stop the work; for signal handlers: returns at once, and may be called in any thread."""
        self._news.put("stop")

    def watch(self, job: _Job[Any]) -> None:
        """Give a job of a pool up when the task stops; at once where it has stopped, since it would never begin."""
        self._jobs.add(job)
        job.future.add_done_callback(lambda _: self._jobs.discard(job))
        # Only now: of a stop that comes meanwhile, either this or `_end` sees the job.
        if self._stopping.is_set():
            job.give_up()

    def check(self) -> None:
        """Go on only while the task is not stopped.

        :raises TaskEnded: It is.
        """
        if self._stopping.is_set():
            raise TaskEnded

    def check_not_left(self) -> None:
        """Go on only while the task's end is waited for.

        :raises TaskEnded: It is not any more: another attempt may be at work.
        """
        if self._left:
            raise TaskEnded

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds.

        :raises TaskEnded: The task is stopped.
        """
        if self._stopping.wait(seconds):
            raise TaskEnded

    def _end(self, work: Future[Any]) -> None:
        """Stop the work and return once it has ended, or is left."""
        try:
            self._stopping.set()
            self._on_stop()
            if not self._has_ended(work, FINISH_SECONDS):
                for job in tuple(self._jobs):
                    job.give_up()
                self._has_ended(work, SAVE_SECONDS)
        finally:
            self._left = True
            # Whoever is inside has asked already: an answer that comes later would be taken for that of another.
            if SUPERVISOR_LOCK.acquire(timeout=_LAST_QUESTION_SECONDS):
                SUPERVISOR_LOCK.release()
            if not work.done():
                log.warning("The task ends while threads of it still wait; they end with its process.")

    def _first_news(self) -> str:
        # A signal that comes right before the wait, or to another thread, is not noticed before the wait is over.
        while True:
            with suppress(Empty):
                return self._news.get(timeout=_SIGNAL_SECONDS)

    def _has_ended(self, work: Future[Any], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not work.done() and (left := deadline - time.monotonic()) > 0:
            with suppress(Empty):
                self._news.get(timeout=left)
        return work.done()


def _ended_early() -> TransientFailure:
    return TransientFailure(
        "Airflow ended this attempt before its work was done. What was submitted goes on and stays paid; the next "
        "attempt, or a clear, finds it.",
        charged="unknown",
    )


class StoppableOperator:
    """Mixin of the operators and the sensor: their work ends in time when Airflow ends the task."""

    #: The work of this process, for ``on_kill``.
    _stoppable: StoppableTask | None = None
    #: Whether Airflow ends the task of this process; its signal may come while the operator's templates are rendered.
    _stopped = False

    def _run_stoppable(self, work: Callable[[], T], on_stop: Callable[[], object] = lambda: None) -> T:
        """Do the work as :meth:`StoppableTask.run` does; work within it is a part of it.

        :raises TransientFailure: As of there; also where :meth:`_stop` was called before, and nothing was done.
        """
        if current_task() is not None:
            return work()
        task = self._stoppable = StoppableTask(on_stop)
        try:
            # Only now: of a signal that comes meanwhile, either this or the task hears.
            if self._stopped:
                raise _ended_early()
            return task.run(work)
        finally:
            self._stoppable = None

    def _stop(self) -> None:
        """Stop the work, or keep it from beginning; for ``on_kill``, which Airflow calls in a signal handler."""
        self._stopped = True
        if self._stoppable is not None:
            self._stoppable.stop()


_current: Final[contextvars.ContextVar[StoppableTask | None]] = contextvars.ContextVar("task", default=None)


def current_task() -> StoppableTask | None:
    """Return the task that this thread works for; None outside of an operator of ours."""
    return _current.get()


def check_not_stopped() -> None:
    """Go on only while the task that this thread works for, if any, is not stopped; asked right before a call leaves.

    :raises TaskEnded: It is.
    """
    if (task := current_task()) is not None:
        task.check()


def sleep(seconds: float) -> None:
    """Wait so many seconds.

    :raises TaskEnded: The task that this thread works for is stopped.
    """
    task = current_task()
    if task is None:
        time.sleep(seconds)
    else:
        task.sleep(seconds)


class _SupervisorLock:
    """A reentrant lock that threads of a task that was left get no more."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def acquire(self, timeout: float = -1) -> bool:
        """Wait for the lock; say whether it was free in time."""
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Free the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            if (task := current_task()) is not None:
                task.check_not_left()
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


#: Held by code of ours while it asks Airflow's supervisor for a connection, an XCom or a task state, also where no
#: other thread of the task asks: when the task is left, its main thread tells the supervisor how it ended. Before 3.3
#: the connection to it is not made for threads: two that ask at once get each other's answers, or wait for ever (seen
#: on 3.0.6 and 3.1.8; ``CommsDecoder.send`` of 3.3.2 locks it). A ledger is written under it, so that no thread writes
#: one whose task was left.
SUPERVISOR_LOCK: Final = _SupervisorLock()


def take_each(values: Iterable[T]) -> Iterator[T]:
    """Yield what an iterable gives, each one taken under :data:`SUPERVISOR_LOCK`.

    What a mapped task returned is a sequence that asks Airflow for one XCom after the other while it is read.

    :raises TaskEnded: The task was left.
    """
    iterator = iter(values)
    while True:
        with SUPERVISOR_LOCK:
            try:
                value = next(iterator)
            except StopIteration:
                return
        yield value


class _Job(Generic[T]):
    """One call, made once or not at all; its future ends with it, or when it is given up."""

    def __init__(self, task: StoppableTask | None, call: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self._call = call
        self._context = contextvars.copy_context()
        self._context.run(_current.set, task)
        #: Whether it has begun, or never will.
        self._settled = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """Make the call, unless it was cancelled or given up."""
        if not self._begin():
            return
        try:
            result = self._context.run(self._checked)
        except BaseException as error:  # noqa: BLE001 - raised where its result is asked for
            with suppress(InvalidStateError):  # given up meanwhile
                self.future.set_exception(error)
        else:
            with suppress(InvalidStateError):
                self.future.set_result(result)

    def give_up(self) -> None:
        """End the future, whatever the call is at."""
        with self._lock:
            self._settled = True
        with suppress(InvalidStateError):  # it has ended, or was cancelled
            self.future.set_exception(TaskEnded())

    def cancel(self) -> None:
        """See to it that the call is never made, where it has not begun."""
        with self._lock:
            if not self._settled and self.future.cancel():
                self._settled = True
                self.future.set_running_or_notify_cancel()

    def _begin(self) -> bool:
        with self._lock:
            if self._settled:
                return False
            self._settled = True
            return self.future.set_running_or_notify_cancel()

    def _checked(self) -> T:
        check_not_stopped()
        return self._call()


class WorkerPool(Executor):
    """A few threads for the time of a ``with`` block, which no thread outlasts but one that is given up.

    As :class:`~concurrent.futures.ThreadPoolExecutor`, and besides: the threads work for the task, and with the context
    variables, of whoever submits a job; after an exception no job begins; the wait for jobs that run ends when the task
    is stopped, and outside of a task, after what ends a process (``AirflowTaskTimeout``, ``KeyboardInterrupt``), soon;
    the interpreter's exit waits for none.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str = "worker") -> None:
        self._most = max_workers
        self._prefix = thread_name_prefix
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._open: set[_Job[Any]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a call made by the next thread that is free."""
        task = current_task()
        job = _Job(task, lambda: fn(*args, **kwargs))
        with self._lock:
            if self._closed:
                raise RuntimeError("The pool is closed.")
            self._open.add(job)
            job.future.add_done_callback(lambda _: self._open.discard(job))
            if task is not None:
                task.watch(job)
            self._queue.put(job)
            if not self._idle.acquire(blocking=False) and self._threads < self._most:
                self._threads += 1
                name = f"{self._prefix}-{self._threads}"
                threading.Thread(target=_work, args=(self._queue, self._idle), name=name, daemon=True).start()
        return job.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further jobs, and let the threads end when those that are there are done."""
        self._close(cancel=cancel_futures)
        if wait:
            self._await_jobs(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ends = kind is not None and not issubclass(kind, Exception)
        self._close(cancel=kind is not None)
        # The jobs of a task that is stopped are given up in time.
        self._await_jobs(FINISH_SECONDS if ends and current_task() is None else None)

    def _close(self, *, cancel: bool) -> None:
        with self._lock:
            self._closed = True
        for job in tuple(self._open) if cancel else ():
            job.cancel()
        self._queue.put(None)

    def _await_jobs(self, seconds: float | None) -> None:
        wait([job.future for job in tuple(self._open)], seconds)


def _work(queue: SimpleQueue[_Job[Any] | None], idle: threading.Semaphore) -> None:
    """Do one job after another until there are no more."""
    while (job := queue.get()) is not None:
        job.run()
        del job
        idle.release()
    queue.put(None)  # for the next thread
