"""The identity of a submission, and what is done about one that may exist."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable import (
    LOOKUP_DELAYS,
    Attempt,
    SubmissionIdentity,
    Verdict,
    blind_retry_error,
    decide,
)
from airflow_provider_nanobanana.toapis.errors import ContentRefused, ResultExpired, SubmissionUnknown
from tests.unit.samples import COMPLETED, FAILED, ID, NOW, RUNNING, STATUS, answer

IDENTITY = SubmissionIdentity(scope=("dag", "run", "task", "-1"), fingerprint="f" * 64)
FIRST = Attempt.of(try_number=1, max_tries=2, retries=2)
RETRY = Attempt.of(try_number=2, max_tries=2, retries=2)
CLEARED = Attempt.of(try_number=3, max_tries=4, retries=2)
REFUSED = {"code": "content_policy_violation", "message": "no"}


@pytest.mark.parametrize(
    "change",
    [
        {"scope": ("dag2", "run", "task", "-1")},
        {"scope": ("dag", "run2", "task", "-1")},
        {"scope": ("dag", "run", "task2", "-1")},
        {"scope": ("dag", "run", "task", "0")},
        {"scope": ("da", "grun", "task", "-1")},
        {"fingerprint": "e" * 64},
        {"occurrence": 1},
        {"regeneration": 1},
    ],
)
def test_everything_that_tells_submissions_apart_changes_the_id(change: dict[str, Any]) -> None:
    assert dataclasses.replace(IDENTITY, **change).client_business_id(0) != IDENTITY.client_business_id(0)


def test_occurrence_regeneration_and_generation_are_not_interchangeable() -> None:
    ids = {
        dataclasses.replace(IDENTITY, occurrence=o, regeneration=r).client_business_id(g)
        for o in range(4) for r in range(4) for g in range(4)
    }  # fmt: skip
    assert len(ids) == 64


def test_the_id_is_the_same_in_every_process() -> None:
    """A changed derivation would lose sight of what earlier versions bought."""
    assert IDENTITY.client_business_id(0) == "nb-2fec2213d6bce612380c04d1d4c40043b9cc3cc4"


@given(st.tuples(*[st.text(max_size=50)] * 4), st.integers(0, 30))
def test_the_id_fits_the_bounds_of_other_clients(scope: tuple[str, ...], generation: int) -> None:
    """Contract 10, row 15: ``A-Za-z0-9._:-``, at most 128 characters."""
    client_id = SubmissionIdentity(scope, "f").client_business_id(generation)
    assert re.fullmatch(r"[A-Za-z0-9._:-]{10,43}", client_id)


def test_a_lone_surrogate_in_a_run_id_is_hashed() -> None:
    assert SubmissionIdentity(("d", "\ud800", "t", "-1"), "f").client_business_id(0)


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retries", "cleared", "retry"),
    [
        (1, 0, 0, False, False),
        (1, 3, 3, False, False),
        (2, 3, 3, False, True),
        (4, 3, 3, False, True),
        (3, 5, 3, True, False),
        (4, 5, 3, True, True),
        (2, 1, 0, True, False),
        # retries lowered, then raised, in the DAG file while the run went on
        (2, 3, 5, False, True),
    ],
)
def test_where_an_attempt_stands(try_number: int, max_tries: int, retries: int, cleared: bool, retry: bool) -> None:
    attempt = Attempt.of(try_number=try_number, max_tries=max_tries, retries=retries)
    assert (attempt.cleared, attempt.retry, attempt.must_look) == (cleared, retry, cleared or retry)


def task(body: dict[str, Any], **changes: Any) -> Any:
    return STATUS.conclude(answer(200, {**body, **changes}), NOW)


@pytest.mark.parametrize("attempt", [FIRST, RETRY, CLEARED])
@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (None, Verdict.SUBMIT),
        (task(RUNNING), Verdict.USE),
        (task(RUNNING, status="reticulating"), Verdict.USE),
        (task(COMPLETED), Verdict.USE),
        (task(COMPLETED, result=None), Verdict.USE),
        (task(COMPLETED, expires_at=None, completed_at=None), Verdict.USE),
        (task(FAILED), Verdict.NEXT_GENERATION),
        (task(FAILED, error=None), Verdict.NEXT_GENERATION),
    ],
)
def test_what_lives_is_used_and_what_failed_is_made_anew(attempt: Attempt, found: Any, verdict: Verdict) -> None:
    decision = decide(found, attempt, NOW)
    assert decision.verdict is verdict
    assert found is None or ID in decision.reason


def test_a_refused_content_is_final_for_a_retry_and_free_for_a_clear() -> None:
    with pytest.raises(ContentRefused) as caught:
        decide(task(FAILED, error=REFUSED), RETRY, NOW)
    assert (caught.value.charged, caught.value.image_task_id) == ("no", ID)
    assert decide(task(FAILED, error=REFUSED), CLEARED, NOW).verdict is Verdict.NEXT_GENERATION


def test_an_expired_result_is_never_bought_again_by_a_retry() -> None:
    expired = COMPLETED["expires_at"]
    assert decide(task(COMPLETED), RETRY, expired - 1).verdict is Verdict.USE
    with pytest.raises(ResultExpired) as caught:
        decide(task(COMPLETED), RETRY, expired)
    assert (caught.value.charged, caught.value.retryable) == ("yes", False)
    assert decide(task(COMPLETED), CLEARED, expired).verdict is Verdict.NEXT_GENERATION


def test_a_running_image_task_does_not_expire() -> None:
    assert decide(task(RUNNING, expires_at=1), RETRY, NOW).verdict is Verdict.USE


@pytest.mark.parametrize("client_id", ["nb-1", None])
def test_a_blind_retry_is_stopped_with_instructions(client_id: str | None) -> None:
    error = blind_retry_error(client_id)
    assert type(error) is SubmissionUnknown and error.charged == "unknown"
    assert "Nothing was sent" in error.message and "console" in error.message
    assert (client_id or "client_ids: false") in error.message


def test_not_there_is_believed_only_after_a_minute_of_asking() -> None:
    assert sum(LOOKUP_DELAYS) >= 60
