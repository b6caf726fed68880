from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.cli.verdict import (
    AccountSeen,
    Finding,
    Mark,
    Repetition,
    Resolution,
    Verdict,
    _submission_settings,
    cost_words,
    judge,
    repetition_of,
    resolution_of,
)
from airflow_provider_nanobanana.submission.trial import Attempt, LookUps, Post, TrialSeen
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.responses import ApiResponse, Balance
from airflow_provider_nanobanana.toapis.settings import ToApisSettings
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

FINE = AccountSeen(works=True, words="Key and model work.")


def settings(**fields: Any) -> ToApisSettings:
    return ToApisSettings.model_validate({"base_url": "https://toapis.com", "api_key": "sk-1", **fields})


def task(image_task_id: str) -> ImageTask:
    return ImageTask(id=image_task_id, status=ImageTaskStatus.RUNNING)


def post(attempt: Attempt, image_task_id: str | None = None, **fields: Any) -> Post:
    return Post(attempt, "nb-1", 0.0, task(image_task_id) if image_task_id else None, **fields)


def trial(*posts: Post, looks: LookUps | None = None, **fields: Any) -> TrialSeen:
    return TrialSeen(posts, looks, **fields)


FIRST = post(Attempt.FIRST, "a")
SEEN = LookUps((0.0,), task("a"))


@pytest.mark.parametrize(
    ("looks", "resolution"),
    [
        (SEEN, Resolution.PROMPT),
        (LookUps((0.0, 30.2), task("a")), Resolution.PROMPT),
        (LookUps((0.0, 45.0), task("a")), Resolution.LATE),
        (LookUps((0.0,), task("nb-1")), Resolution.PROMPT),
        (LookUps((0.0,), task("b")), Resolution.NEVER),
        (LookUps((0.0, 90.0)), Resolution.NEVER),
        (LookUps((0.0, 90.0), error=errors.TransientFailure("502")), Resolution.UNKNOWN),
        (None, Resolution.UNKNOWN),
    ],
)
def test_what_becomes_of_a_client_id(looks: LookUps | None, resolution: Resolution) -> None:
    assert resolution_of(trial(FIRST, looks=looks)) is resolution


REFUSED = errors.InvalidRequest("no", http_status=400)
LOST = errors.SubmissionUnknown("reset")


@pytest.mark.parametrize(
    ("repeated", "fields", "repetition"),
    [
        (post(Attempt.REPEATED, "a"), {}, Repetition.SAME),
        (post(Attempt.REPEATED, "b"), {}, Repetition.ANOTHER),
        (post(Attempt.REPEATED, error=LOST, refused_as_repeated=True), {}, Repetition.REFUSED),
        (post(Attempt.REPEATED, error=REFUSED), {}, Repetition.REFUSED),
        (post(Attempt.REPEATED, error=LOST), {}, Repetition.UNKNOWN),
        (post(Attempt.REPEATED, error=LOST), {"leads_to": "b"}, Repetition.ANOTHER),
        (post(Attempt.REPEATED, error=LOST), {"leads_to": "a"}, Repetition.UNKNOWN),
        (post(Attempt.REPEATED, error=errors.RateLimited("slow")), {}, Repetition.UNKNOWN),
        (post(Attempt.REPEATED), {}, Repetition.UNKNOWN),
        (None, {}, Repetition.UNKNOWN),
        # the same image task, and a bill that says otherwise
        (post(Attempt.REPEATED, "a"), {"used_credits": (0.0, 5.0, 10.0)}, Repetition.UNKNOWN),
        (post(Attempt.REPEATED, "a"), {"used_credits": (0.0, 5.0, 5.0)}, Repetition.SAME),
        (post(Attempt.REPEATED, "a"), {"used_credits": (0.0, 5.0, None)}, Repetition.SAME),
        (post(Attempt.REPEATED, error=REFUSED), {"used_credits": (0.0, 5.0, 10.0)}, Repetition.UNKNOWN),
    ],
)
def test_what_a_second_submit_comes_to(repeated: Post | None, fields: dict[str, Any], repetition: Repetition) -> None:
    posts = (FIRST, repeated) if repeated else (FIRST,)
    assert repetition_of(trial(*posts, looks=SEEN, **fields)) is repetition


@pytest.mark.parametrize("today", [True, False])
def test_an_image_that_does_not_show_is_bought_again_only_where_it_would_show(today: bool) -> None:
    told = {resolution: _submission_settings(resolution, today) for resolution in Resolution}
    assert told == {
        Resolution.PROMPT: (True, "resubmit"),
        Resolution.LATE: (True, "fail"),
        Resolution.NEVER: (False, "fail"),
        Resolution.REJECTED: (False, "fail"),
        Resolution.UNKNOWN: (today, "fail"),
    }


@pytest.mark.parametrize(
    ("unused_id", "mark"),
    [
        (errors.ImageTaskNotFound("no", http_status=404, code="task_not_found"), Mark.FINE),
        (errors.TransientFailure("no JSON", http_status=200), Mark.MISSING),
        (errors.RateLimited("slow", http_status=429), Mark.UNTRIED),
        (errors.PermissionRefused("no", http_status=403), Mark.MISSING),
        (task("somebody's"), Mark.MISSING),
    ],
)
def test_what_an_id_that_nobody_used_shows(unused_id: ImageTask | errors.ToApisError, mark: Mark) -> None:
    verdict = judge(settings(), AccountSeen(works=True, words="", unused_id=unused_id))
    assert [finding.mark for finding in verdict.findings if finding.about == "unknown id"] == [mark]


def test_what_the_key_may_spend_is_told() -> None:
    limited_key = AccountSeen(works=True, words="", key_balance=Balance(remain_credits=30))
    assert judge(settings(), limited_key).findings[1].words == "The key may spend 30 credits more (about $0.15)."


def test_ids_that_lead_anywhere_are_not_sent() -> None:
    account = AccountSeen(works=True, words="", unused_id=task("somebody's"))
    verdict = judge(settings(), account, (), trial(FIRST, post(Attempt.REPEATED, "a"), looks=SEEN))
    assert verdict.extra["client_ids"] is False
    assert verdict.arguments == {"on_unknown_submission": "fail"}


def limited(category: str | None, limit: str, status: int = 200, **headers: str) -> ApiResponse:
    named = {"x-ratelimit-limit": limit, **headers}
    return ApiResponse(status, named if category is None else {"x-ratelimit-category": category, **named})


@pytest.mark.parametrize(
    ("answers", "rate"),
    [
        ([], 3.0),
        ([limited("async_submit", "1000")], 1000 / 60),
        ([limited("async_submit", "1000"), limited("async_submit", "300", 429)], 5.0),
        ([limited("async_query", "3000")], 3.0),
        ([limited(None, "3000")], 3.0),
        ([limited("async_submit", "plenty")], 3.0),
        ([limited("async_submit", "5")], 3.0),
        ([limited("async_submit", "9999999")], 3.0),
    ],
)
def test_the_rate_is_what_the_account_names_for_submits(answers: list[ApiResponse], rate: float) -> None:
    verdict = judge(settings(submit_rate=3), FINE, answers, trial(FIRST, looks=SEEN))
    assert verdict.extra["submit_rate"] == rate


def test_what_is_limited_is_told_with_its_pause() -> None:
    verdict = judge(settings(), FINE, [limited("async_submit", "300", 429, **{"retry-after": "7"})])
    words = " ".join(finding.words for finding in verdict.findings if finding.about == "limits")
    assert "up to 7 s" in words and "5 calls a second" in words


@pytest.mark.parametrize(
    ("marks", "status"),
    [
        ((), 0),
        ((Mark.FINE, Mark.NOTE), 0),
        ((Mark.UNTRIED, Mark.FINE), 2),
        ((Mark.UNTRIED, Mark.MISSING, Mark.FINE), 1),
    ],
)
def test_what_is_missing_counts_before_what_was_not_tried(marks: tuple[Mark, ...], status: int) -> None:
    assert Verdict(tuple(Finding("", mark, "") for mark in marks)).exit_status == status


def test_an_unknown_price_is_not_made_up() -> None:
    assert "not known" in cost_words(settings(model="another"))
    assert '{"doubao-seedream-5-0": {"2K": 0.03}}' in cost_words(settings(model="doubao-seedream-5-0"))
    assert "$0.01, two for $0.02" in cost_words(settings(model="another", prices={"another": {"1K": 0.01}}))


def test_a_namespace_is_asked_for_where_ids_may_meet() -> None:
    deduplicated = trial(FIRST, post(Attempt.REPEATED, "a"), looks=SEEN)
    (words,) = judge(settings(), FINE, (), deduplicated).advice
    assert '{"namespace": "prod"}' in words and "get the other's image" in words
    (words,) = judge(settings(namespace="prod"), FINE, (), deduplicated).advice
    assert words.startswith("namespace stays 'prod'")


def test_the_key_is_in_no_part_of_a_verdict() -> None:
    known = settings(api_key="sk-1f7d93ab54c20e68")
    verdict = judge(known, FINE, (), trial(FIRST, looks=SEEN))
    assert "sk-1f7d93ab54c20e68" not in repr(verdict)
