"""Rows of docs/durability.md: remote failures, expiry, changed requests, and where only a person can tell."""

from __future__ import annotations

import re

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_nanobanana.exceptions import NanoBananaException
from tests.integration.submission.harness import SubmitTask
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat

DAY = 86_400.0


def stopped(task: SubmitTask, said: str, charged: str) -> NanoBananaException:
    """Run an attempt that must end for good, saying so."""
    error = task.attempt().error
    assert isinstance(error, AirflowFailException)
    assert isinstance(error, NanoBananaException)
    assert said in flat(error)
    assert error.charged == charged
    return error


def named_id(error: BaseException) -> str:
    found = re.search(r"nb-[0-9a-f]{40}", str(error))
    assert found is not None, f"nothing to adopt by in: {error}"
    return found.group()


def test_r18_it_failed_remotely(task: SubmitTask) -> None:
    task.harness.emulator.fault(on="submit", kind="failed", times=1)
    failed = task.attempt().result
    again = task.attempt()
    assert again.result != failed
    assert ([again.result], task.accepted) == (task.charges, 2)
    assert task.attempt().result == again.result


def test_r19_its_content_was_refused(task: SubmitTask) -> None:
    task.harness.emulator.fault(on="submit", kind="failed", code="content_policy_violation", times=1)
    task.attempt()
    stopped(task, "content policy", "no")
    assert (task.charges, task.accepted) == ([], 1)
    task.clear()
    assert [task.attempt().result] == task.charges


def test_r20_its_result_expired(task: SubmitTask) -> None:
    bought = task.bought_by(crash_on="returned")
    task.harness.clock.sleep(2 * DAY)
    error = stopped(task, "Clear the task with on_expired='resubmit'", "yes")
    assert error.image_task_id == bought[0]
    assert task.charges == bought
    task.options = {"on_expired": "resubmit"}
    run = task.attempt()
    assert task.charges == [*bought, run.result]
    assert task.attempt().result == run.result


def test_r21_the_request_changed_between_attempts(recorded: SubmitTask) -> None:
    recorded.options = {"prompt": "try 1, at 10:00:00"}
    bought = recorded.bought_by(crash_on="after submit")
    recorded.options = {"prompt": "try 2, at 10:05:00"}
    assert [recorded.attempt().result] == bought == recorded.charges


def test_r22_the_request_changed_and_there_is_no_record(unrecorded: SubmitTask) -> None:
    unrecorded.options = {"prompt": "try 1, at 10:00:00"}
    bought = unrecorded.bought_by(crash_on="after submit")
    unrecorded.options = {"prompt": "try 2, at 10:05:00"}
    run = unrecorded.attempt()
    assert unrecorded.charges == [*bought, run.result]


def test_r23_a_reference_link_was_signed_again(task: SubmitTask) -> None:
    for signature in ("one", "two"):
        task.options = {"reference_images": [f"https://example.com/a.png?X-Signature={signature}"]}
        run = task.attempt(crash_on="after submit" if signature == "one" else "")
    assert [run.result] == task.charges


@pytest.mark.parametrize("cleared", [True, False])
def test_r24_unknown_and_told_to_fail(task: SubmitTask, cleared: bool) -> None:
    task.harness.emulator.configure(ignore_client_ids=True)
    task.options = {"on_unknown_submission": "fail"}
    task.attempt(crash_on="submit under way")
    bought = task.charges
    key = named_id(stopped(task, "console", "unknown"))
    assert task.charges == bought
    task.options |= {"adopt": {key: bought[0]}}
    if cleared:
        task.clear()
    assert [task.attempt().result] == bought == task.charges


def test_r25_unknown_and_not_there(task: SubmitTask) -> None:
    task.options = {"on_unknown_submission": "fail"}
    task.attempt(crash_on="before submit")
    stopped(task, "if it is not there, clear this task to submit", "unknown")
    assert task.charges == []
    task.clear()
    assert [task.attempt().result] == task.charges


@pytest.fixture
def without_client_ids(task: SubmitTask, monkeypatch: pytest.MonkeyPatch) -> SubmitTask:
    connection = task.harness.emulator.connection_json(timeout=30, client_ids=False)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    return task


@pytest.mark.parametrize("cleared", [True, False])
def test_r26_without_client_ids(without_client_ids: SubmitTask, cleared: bool) -> None:
    task = without_client_ids
    task.harness.emulator.configure(reject_client_ids=True)
    task.attempt(crash_on="submit under way")
    bought = task.charges
    key = named_id(stopped(task, "client_ids: false", "unknown"))
    task.options = {"adopt": {key: bought[0]}}
    if cleared:
        task.clear()
    assert [task.attempt().result] == bought == task.charges


def test_r27_the_service_does_not_resolve_client_ids(task: SubmitTask) -> None:
    """Seen by the check after the first submit of a process; from then on it does not believe "not there"."""
    task.harness.emulator.configure(ignore_client_ids=True)
    first = task.attempt().result
    another = SubmitTask(
        task.harness, None if task.store is None else MemoryTaskStateStore(), options={"variant": "another"}
    )
    task.harness.emulator.fault(on="submit", kind="drop", times=1, committed=True)
    run = another.attempt_in_same_process()
    assert isinstance(run.error, AirflowFailException)
    assert "console" in flat(run.error)
    assert task.charges[0] == first
    assert len(task.charges) == 2, "one for each image; the second is paid and waits to be adopted"


def test_r28_the_recorded_id_is_another_accounts(recorded: SubmitTask) -> None:
    recorded.attempt(crash_on="returned")
    recorded.harness.emulator.fault(on="status", kind="not_found")
    stopped(recorded, "does not know it", "unknown")
    assert recorded.accepted == 1


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (409, "duplicate_client_business_id", "client_business_id already used"),
        (409, "conflict", "conflict"),
        (400, "duplicate_request", "seen before"),
        (422, "", "client_business_id already exists"),
    ],
)
def test_r29_the_client_id_is_known_to_the_service_already(task: SubmitTask, status: int, code: str, text: str) -> None:
    bought = task.bought_by(crash_on="after submit")
    task.harness.emulator.configure(lookup_delay=600)
    task.harness.emulator.fault(on="submit", kind="server_error", status=status, code=code, text=text)
    error = task.attempt().error
    assert isinstance(error, NanoBananaException)
    assert (error.retryable, error.charged) == (True, "unknown")
    assert named_id(error)
    assert task.state == ("intent" if task.store else None)
    task.harness.clock.sleep(600)
    assert [task.attempt().result] == bought == task.charges
