"""What attempts know of one another: pauses, leaked events, damaged records, and two of them alive at once."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from tests.integration.batch.harness import GenerateTask
from tests.integration.submission.crash_points import Crash
from tests.support.supervisor_lock import ask_under
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat

PROMPTS = [f"picture {number}" for number in range(6)]


def test_an_event_that_airflow_leaks_into_the_next_try_is_no_resume(batch: GenerateTask) -> None:
    """Its issue 62845: the try begins with ``execute_complete``."""
    batch.attempt(requests=PROMPTS, crash_on=("submit under way", 3))
    run = batch.attempt(requests=PROMPTS, leaked=True)
    assert run.error is None and run.result["count"] == 6 and batch.posts == 6


def test_a_pause_that_lost_its_records_looks_up_before_it_buys(batch: GenerateTask) -> None:
    """The store was wiped, or XComs were deleted by hand, while the task was deferred."""

    def wipe() -> None:
        if len(batch.pauses) == 1:
            batch.xcoms.clear()
            if batch.store is not None:
                batch.store.rows.clear()

    batch.on_pause = wipe
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and run.result["count"] == 6
    assert batch.posts == 6


@pytest.mark.parametrize("name", ["nanobanana_ledger", "nanobanana_ledger_0", "nanobanana_input", "nanobanana_input_0",
                                  "nanobanana_checkpoint"])  # fmt: skip
@pytest.mark.parametrize("text", ["{", '{"version": 99}', "[]", '"x"', "12", '{"version": 1}'])
def test_a_damaged_record_stops_everything(with_store: GenerateTask, name: str, text: str) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS, crash_on=("submit under way", 4))
    assert batch.store is not None
    # A list's chunks are named by what is in them.
    name = next(key for key in batch.store.rows if key.startswith(name[:-2]) and key.endswith(name[-2:]))
    whole = dict(batch.store.rows)
    batch.store.rows[name] = json.dumps(text)
    run = batch.attempt(requests=PROMPTS)
    assert isinstance(run.error, NanoBananaException) and not isinstance(run.error, NanoBananaFailException)
    assert run.error.charged == "unknown" and batch.posts == 4
    batch.store.rows = whole
    assert batch.attempt(requests=PROMPTS).error is None
    assert batch.posts == 6


def test_a_store_that_forgets_while_it_is_written_stops_everything(with_store: GenerateTask, monkeypatch: Any) -> None:
    batch = with_store
    monkeypatch.setattr(MemoryTaskStateStore, "set", lambda self, key, value, retention=None: None)
    run = batch.attempt(requests=PROMPTS)
    assert isinstance(run.error, NanoBananaException) and batch.posts == 0


@pytest.mark.parametrize("overlap", ["before the first submit", "between submits", "while waiting"])
def test_two_live_attempts_pay_once(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, overlap: str) -> None:
    """A scheduler took the first for dead: the second begins and ends while the first goes on, and both end."""
    batch = with_store
    moments = {"before the first submit": ("before write", 1), "between submits": ("after submit", 3),
               "while waiting": ("before status", 1)}  # fmt: skip
    name, occurrence = moments[overlap]
    errors: list[BaseException | None] = []
    original, started = batch.crash_points.reach, threading.Event()
    seen = [0]

    def second() -> None:
        batch.tries += 1
        context = batch.context(batch.instance())
        operator = batch.operator(requests=PROMPTS)
        resumed: dict[str, Any] | None = None
        while True:
            try:
                batch.run_slice(context, {"requests": PROMPTS}, resumed)
                errors.append(None)
                return
            except TaskDeferred:
                batch.clock.sleep(5.0)
                resumed = {"event": {}}
            except NanoBananaException as error:
                errors.append(error)
                return
            finally:
                del operator
                operator = None

    def reach(at: str, in_flight: Any = None) -> None:
        original(at, in_flight)
        seen[0] += at == name
        if at == name and seen[0] == occurrence and not started.is_set():
            started.set()
            ask_under(threading.RLock(), monkeypatch)  # the second is another process
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    monkeypatch.setattr(batch.crash_points, "reach", reach)
    first = batch.attempt(requests=PROMPTS)
    monkeypatch.setattr(batch.crash_points, "reach", original)
    assert started.is_set()
    assert not isinstance(first.error, Crash)
    final = batch.attempt(requests=PROMPTS)
    assert final.error is None and final.result["count"] == 6
    assert batch.posts == 6, (first.error, errors)


def test_a_bug_in_one_thread_saves_what_the_others_bought(with_store: GenerateTask, monkeypatch: Any) -> None:
    batch = with_store
    from airflow_provider_nanobanana.toapis.protocol import submit_call

    def poisoned(request: Any, *args: Any) -> Any:
        if request.prompt == "picture 4":
            raise ZeroDivisionError("a bug")
        return submit_call(request, *args)

    monkeypatch.setattr("airflow_provider_nanobanana.submission.workflow.submit_call", poisoned)
    with pytest.raises(ZeroDivisionError):
        batch.attempt(requests=PROMPTS)
    bought = batch.posts
    assert 4 <= bought <= 5
    monkeypatch.setattr("airflow_provider_nanobanana.submission.workflow.submit_call", submit_call)
    before = batch.clock.now
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and batch.posts == 6
    assert batch.clock.now - before < 60, "nothing had to be looked for: the ledger was saved"


def test_a_key_refused_for_polls_says_what_is_paid(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="status", kind="unauthorized", skip=1)
    run = batch.attempt(requests=PROMPTS)
    assert isinstance(run.error, NanoBananaFailException) and run.error.charged == "yes"
    assert "Image tasks under way: 6; they cannot be polled" in flat(run.error)
    batch.emulator.clear_faults()
    batch.clear()
    assert batch.attempt(requests=PROMPTS).error is None and batch.posts == 6
