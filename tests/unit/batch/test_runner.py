"""BatchRunner: what is waited for between two slices, and until when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_nanobanana.batch import runner
from airflow_provider_nanobanana.batch.admission import AdmissionControl
from airflow_provider_nanobanana.batch.collector import ResultCollector
from airflow_provider_nanobanana.batch.progress import LONGEST_WATCH, PAUSE_SECONDS
from airflow_provider_nanobanana.batch.runner import BatchRunner, WaitSpec
from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.toapis import errors
from tests.support.batch import bought_by, failed, in_place, items, make_state, note_image_task
from tests.support.responses import NOW
from tests.support.session import make_session

WANTED = items([f"picture {number}" for number in range(4)])
UNSTORED = errors.StorageFailed("503 SlowDown")


def state_of(*, running: int, stored: int = 0) -> BatchState:
    """Return a batch of four, of which the first are stored, the next run and the rest was not submitted."""
    state = make_state(WANTED)
    for number, item in enumerate(WANTED[: stored + running]):
        note_image_task(state, item, bought_by(f"tsk_{number}"))
    for number, item in enumerate(WANTED[:stored]):
        state.mark_stored(item, in_place(f"picture-{number}"))
    return state


def wait_of(state: BatchState) -> WaitSpec:
    wait = BatchRunner(state).next_wait()
    assert wait is not None
    return wait


def test_until_the_first_image_is_there_one_is_enough_whatever_is_left_to_submit() -> None:
    assert wait_of(state_of(running=4)).enough == 1
    wait = wait_of(state_of(running=3))
    assert (len(wait.image_task_ids), wait.enough, wait.wake_at) == (3, 1, NOW + PAUSE_SECONDS)


def test_then_all_are_waited_for() -> None:
    wait = wait_of(state_of(stored=1, running=3))
    assert (wait.image_task_ids, wait.enough) == (["tsk_1", "tsk_2", "tsk_3"], 3)
    assert NOW + PAUSE_SECONDS < wait.wake_at <= NOW + LONGEST_WATCH


def test_a_failure_is_the_news_that_the_first_image_would_be() -> None:
    state = state_of(running=4)
    state.mark_failed(failed(0))
    assert WANTED[0].key == failed(0).item.key
    assert wait_of(state).enough == 3


def test_with_more_to_submit_a_moment_is_waited_for_and_not_what_may_have_ended_already() -> None:
    wait = wait_of(state_of(stored=1, running=2))
    assert (wait.image_task_ids, wait.wake_at) == ([], NOW + PAUSE_SECONDS)


@pytest.mark.parametrize(("asked", "seconds"), [(5.0, PAUSE_SECONDS), (200.0, 200.0), (1e9, 900.0)])
def test_a_pause_is_as_long_as_the_service_asks_and_ends_with_the_attempt(asked: float, seconds: float) -> None:
    state = state_of(stored=1, running=2)
    state.last_errors[WANTED[3].key] = errors.RateLimited("429", retry_after=asked)
    assert wait_of(state).wake_at == NOW + seconds


@pytest.mark.parametrize(
    "other", [errors.SubmissionUnknown("no answer"), errors.ServiceUnavailable("503", retry_after=30.0)]
)
def test_the_account_s_limit_is_waited_for_whatever_others_met(other: errors.ToApisError) -> None:
    state = state_of(stored=1, running=1)
    state.last_errors[WANTED[2].key] = errors.RateLimited("429", retry_after=200)
    state.last_errors[WANTED[3].key] = other
    assert wait_of(state).wake_at == NOW + 200.0


def test_what_the_host_of_a_link_asks_for_holds_up_no_submit() -> None:
    state = state_of(stored=1, running=2)
    state.landing_failed(WANTED[1], errors.DownloadFailed("503", retry_after=3600.0))
    assert wait_of(state).wake_at == NOW + PAUSE_SECONDS


def test_what_could_not_be_landed_has_ended_and_is_not_waited_for() -> None:
    state = state_of(stored=1, running=3)
    state.landing_failed(WANTED[1], UNSTORED)
    wait = wait_of(state)
    assert (wait.image_task_ids, wait.enough) == (["tsk_2", "tsk_3"], 2)
    for item in WANTED[2:]:
        state.landing_failed(item, UNSTORED)
    wait = wait_of(state)
    assert (wait.image_task_ids, wait.wake_at) == ([], NOW + PAUSE_SECONDS)


def test_an_image_that_is_ready_and_cannot_be_landed_is_news_as_well() -> None:
    """Or a worker would start for each one that ends while the link's host is down."""
    state = state_of(running=4)
    state.landing_failed(WANTED[0], errors.TransientFailure("503"))
    wait = wait_of(state)
    assert (wait.image_task_ids, wait.enough) == (["tsk_1", "tsk_2", "tsk_3"], 3)


def test_a_destination_that_takes_nothing_is_not_tried_at_each_image_that_ends() -> None:
    state = state_of(running=3)
    state.stops.storage_blocked = True
    wait = wait_of(state)
    assert (wait.image_task_ids, wait.wake_at) == ([], NOW + PAUSE_SECONDS)


def test_with_all_in_place_there_is_nothing_to_wait_for() -> None:
    assert BatchRunner(state_of(stored=4, running=0)).next_wait() is None


# --- a slice -------------------------------------------------------------------------------------------------------


def install_submitter(monkeypatch: pytest.MonkeyPatch, submit: Callable[[BatchState], None]) -> None:
    """Let a function do what a slice does to submit."""

    class Submitter:
        def __init__(self, state: BatchState) -> None:
            self._state = state

        def submit(self, wanted: list[Any], until: float) -> None:
            submit(self._state)

    monkeypatch.setattr(runner, "BatchSubmitter", Submitter)
    monkeypatch.setattr(runner, "_BETWEEN_ROUNDS", 0.001)


@pytest.mark.parametrize(
    ("met", "raised"),
    [
        (errors.PermissionRefused("403"), errors.PermissionRefused),
        (errors.TransientFailure("the ledger was not saved"), errors.TransientFailure),
        (KeyError("a mistake"), errors.TransientFailure),
    ],
)
def test_nothing_more_is_bought_once_landing_has_ended(
    monkeypatch: pytest.MonkeyPatch, met: Exception, raised: type[errors.ToApisError]
) -> None:
    state = state_of(running=2)
    closed = threading.Event()

    def submit(state: BatchState) -> None:
        for _ in range(1000):  # a slice, in which something else could be bought
            if state.stops.error_for("any model"):
                closed.set()
                return
            threading.Event().wait(0.01)

    def collect_due(self: Any, enough: Any) -> bool:
        raise met

    install_submitter(monkeypatch, submit)
    monkeypatch.setattr(ResultCollector, "collect_due", collect_due)
    with pytest.raises(raised):
        BatchRunner(state).run_slice(300.0)
    assert closed.is_set()


def test_that_airflow_ends_the_attempt_is_not_forgotten_for_an_error_after_it() -> None:
    state = state_of(running=2)
    state.kill()
    state.stops.account_error = errors.InsufficientCredits("402")
    assert state.stops.killed is not None and state.stops.account_error is state.stops.killed
    assert state.stops.stops_lookups


@pytest.mark.parametrize("due", [True, False])
def test_images_that_are_ready_when_a_slice_ends_are_landed_soon(monkeypatch: pytest.MonkeyPatch, due: bool) -> None:
    """Also where nothing is left to submit: those under way may take as long as the attempt waits."""
    state = state_of(stored=1, running=2)
    now = [NOW]
    state.session = make_session(None, clock=lambda: now[0])

    def submit_the_last(state: BatchState) -> None:
        note_image_task(state, WANTED[3], bought_by("tsk_3"))
        now[0] += 301.0

    install_submitter(monkeypatch, submit_the_last)
    monkeypatch.setattr(runner, "_BETWEEN_ROUNDS", 60.0)
    monkeypatch.setattr(ResultCollector, "_is_due", lambda self, item, now: due)
    batch = BatchRunner(state)
    batch.run_slice(300.0)
    wait = batch.next_wait()
    assert wait is not None
    assert (wait.wake_at == now[0] + PAUSE_SECONDS) is due
    assert len(wait.image_task_ids) == (0 if due else 3)


def test_what_ended_the_landing_is_no_failure_of_what_was_not_sent_for_it() -> None:
    """Alone, a refusal of a submit is one of its model."""
    state = state_of(running=2)
    admission = AdmissionControl(state)
    refused = errors.PermissionRefused("403", charged="yes")
    state.stops.account_error = refused
    assert not admission.on_error(WANTED[3], refused.reworded("403", charged="no"))
    assert [item.key for item in state.pending()] == [WANTED[2].key, WANTED[3].key]
    assert not state.stops.model_errors
