"""Rows of docs/durability.md: remote failures, expiry, changed requests, and where only a person can tell."""

from __future__ import annotations

import re

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_nanobanana.exceptions import NanoBananaException
from tests.integration.submission.harness import Story
from tests.support.task_state_store import MemoryTaskStateStore

DAY = 86_400.0


def stopped(story: Story, said: str, charged: str) -> NanoBananaException:
    """Run an attempt that must end for good, saying so."""
    error = story.attempt().error
    assert isinstance(error, AirflowFailException)
    assert isinstance(error, NanoBananaException)
    assert said in str(error)
    assert error.charged == charged
    return error


def named_id(error: BaseException) -> str:
    found = re.search(r"nb-[0-9a-f]{40}", str(error))
    assert found is not None, f"nothing to adopt by in: {error}"
    return found.group()


def test_r18_it_failed_remotely(story: Story) -> None:
    story.stage.emulator.fault(on="submit", kind="failed", times=1)
    failed = story.attempt().result
    again = story.attempt()
    assert again.result != failed
    assert ([again.result], story.accepted) == (story.charges, 2)
    assert story.attempt().result == again.result


def test_r19_its_content_was_refused(story: Story) -> None:
    story.stage.emulator.fault(on="submit", kind="failed", code="content_policy_violation", times=1)
    story.attempt()
    stopped(story, "content policy", "no")
    assert (story.charges, story.accepted) == ([], 1)
    story.clear()
    assert [story.attempt().result] == story.charges


def test_r20_its_result_expired(story: Story) -> None:
    bought = story.bought_by(crash_on="returned")
    story.stage.clock.sleep(2 * DAY)
    error = stopped(story, "Clear the task with on_expired='resubmit'", "yes")
    assert error.image_task_id == bought[0]
    assert story.charges == bought
    story.options = {"on_expired": "resubmit"}
    run = story.attempt()
    assert story.charges == [*bought, run.result]
    assert story.attempt().result == run.result


def test_r21_the_request_changed_between_attempts(recorded: Story) -> None:
    recorded.options = {"prompt": "try 1, at 10:00:00"}
    bought = recorded.bought_by(crash_on="after submit")
    recorded.options = {"prompt": "try 2, at 10:05:00"}
    assert [recorded.attempt().result] == bought == recorded.charges


def test_r22_the_request_changed_and_there_is_no_record(unrecorded: Story) -> None:
    unrecorded.options = {"prompt": "try 1, at 10:00:00"}
    bought = unrecorded.bought_by(crash_on="after submit")
    unrecorded.options = {"prompt": "try 2, at 10:05:00"}
    run = unrecorded.attempt()
    assert unrecorded.charges == [*bought, run.result]


def test_r23_a_reference_link_was_signed_anew(story: Story) -> None:
    for signature in ("one", "two"):
        story.options = {"reference_images": [f"https://example.com/a.png?X-Signature={signature}"]}
        run = story.attempt(crash_on="after submit" if signature == "one" else "")
    assert [run.result] == story.charges


@pytest.mark.parametrize("cleared", [True, False])
def test_r24_unknown_and_told_to_fail(story: Story, cleared: bool) -> None:
    story.stage.emulator.configure(ignore_client_ids=True)
    story.options = {"on_unknown_submission": "fail"}
    story.attempt(crash_on="submit under way")
    bought = story.charges
    key = named_id(stopped(story, "console", "unknown"))
    assert story.charges == bought
    story.options |= {"adopt": {key: bought[0]}}
    if cleared:
        story.clear()
    assert [story.attempt().result] == bought == story.charges


def test_r25_unknown_and_not_there(story: Story) -> None:
    story.options = {"on_unknown_submission": "fail"}
    story.attempt(crash_on="before submit")
    stopped(story, "if it is not there, clear this task to submit", "unknown")
    assert story.charges == []
    story.clear()
    assert [story.attempt().result] == story.charges


@pytest.fixture
def without_client_ids(story: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    connection = story.stage.emulator.connection_json(timeout=30, client_ids=False)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    return story


@pytest.mark.parametrize("cleared", [True, False])
def test_r26_without_client_ids(without_client_ids: Story, cleared: bool) -> None:
    story = without_client_ids
    story.stage.emulator.configure(reject_client_ids=True)
    story.attempt(crash_on="submit under way")
    bought = story.charges
    key = named_id(stopped(story, "client_ids: false", "unknown"))
    story.options = {"adopt": {key: bought[0]}}
    if cleared:
        story.clear()
    assert [story.attempt().result] == bought == story.charges


def test_r27_the_service_does_not_resolve_client_ids(story: Story) -> None:
    """Seen by the check after the first submit of a process; from then on it does not believe "not there"."""
    story.stage.emulator.configure(ignore_client_ids=True)
    first = story.attempt().result
    another = Story(
        story.stage, None if story.store is None else MemoryTaskStateStore(), options={"variant": "another"}
    )
    story.stage.emulator.fault(on="submit", kind="drop", times=1, committed=True)
    run = another.attempt_in_same_process()
    assert isinstance(run.error, AirflowFailException)
    assert "console" in str(run.error)
    assert story.charges[0] == first
    assert len(story.charges) == 2, "one for each image; the second is paid and waits to be adopted"


def test_r28_the_recorded_id_is_another_accounts(recorded: Story) -> None:
    recorded.attempt(crash_on="returned")
    recorded.stage.emulator.fault(on="status", kind="not_found")
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
def test_r29_the_client_id_is_known_to_the_service_already(story: Story, status: int, code: str, text: str) -> None:
    bought = story.bought_by(crash_on="after submit")
    story.stage.emulator.configure(lookup_delay=600)
    story.stage.emulator.fault(on="submit", kind="server_error", status=status, code=code, text=text)
    error = story.attempt().error
    assert isinstance(error, NanoBananaException)
    assert (error.retryable, error.charged) == (True, "unknown")
    assert named_id(error)
    assert story.state == ("intent" if story.store else None)
    story.stage.clock.sleep(600)
    assert [story.attempt().result] == bought == story.charges
