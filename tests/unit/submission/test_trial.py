from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_nanobanana.submission.trial import LONGEST_WAIT, LOOK_UPS, Attempt, Post, TrialPurchase, TrialSeen
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask
from airflow_provider_nanobanana.toapis.protocol import ApiCall
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.session import make_session

REQUEST = ImageRequest.parse({"prompt": "a kite"}, "nano_banana_2")


def task(image_task_id: str, status: ImageTaskStatus = ImageTaskStatus.RUNNING) -> ImageTask:
    return ImageTask(id=image_task_id, status=status)


class Service:
    """Answers submits from a list and everything else "not there"; time passes when somebody waits."""

    on_answer = None

    def __init__(self, *submits: ImageTask | BaseException) -> None:
        self.now = 1_000_000.0
        self.sent: list[tuple[float, str | None]] = []
        self.looked: list[float] = []
        self.told: list[str] = []
        self._submits: Iterator[ImageTask | BaseException] = iter(submits)

    def call(self, call: ApiCall[Any], retry: Any = None) -> Any:
        if call.kind is not CallKind.SUBMIT:
            self.looked.append(self.now)
            raise errors.ImageTaskNotFound("not there") if call.kind is CallKind.STATUS else errors.TransientFailure("")
        assert call.body is not None
        client_id = call.body.get("client_business_id")
        assert client_id is None or client_id in self.told[-1], "told before it leaves"
        self.sent.append((self.now, client_id))
        answer = next(self._submits)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def trial(self) -> TrialPurchase:
        session = make_session(self, clock=lambda: self.now, sleep=self.sleep, submit_rate=1000)
        return TrialPurchase(session, REQUEST, self.told.append)


def test_looks_are_made_when_they_are_said_to_be() -> None:
    service = Service(errors.SubmissionUnknown("reset"))
    trial = service.trial()
    trial.run()
    assert trial.seen.look_ups is not None
    assert trial.seen.look_ups.at == LOOK_UPS
    assert trial.seen.look_ups.found_after is None
    assert len(service.sent) == 1, "after a lost answer nothing more is sent"


def test_an_image_task_that_never_shows_is_waited_for_within_reason() -> None:
    service = Service(task("a"), task("b"))
    service.trial().run()
    assert service.now - 1_000_000 <= LOOK_UPS[-1] + 2 * (LONGEST_WAIT + 5)
    assert any("image task a" in line for line in service.told) and any("image task b" in line for line in service.told)


@pytest.mark.parametrize("error", [errors.InsufficientCredits("none"), errors.ModelNotFound("no", http_status=503)])
def test_what_is_refused_for_another_reason_is_not_sent_without_its_id(error: errors.ToApisError) -> None:
    service = Service(error)
    trial = service.trial()
    trial.run()
    assert len(service.sent) == 1
    assert trial.seen.image_task_ids == ()


def test_a_refused_id_is_left_out_once() -> None:
    service = Service(errors.InvalidRequest("unknown parameter", http_status=400), errors.SubmissionUnknown("reset"))
    trial = service.trial()
    trial.run()
    assert [client_id is None for _, client_id in service.sent] == [False, True]
    lost = trial.seen.post(Attempt.WITHOUT_ID)
    assert lost is not None and lost.lost


def test_not_accepted_is_sent_again_and_only_so_often() -> None:
    service = Service(*itertools.repeat(errors.RateLimited("slow", retry_after=3.0), 20))
    trial = service.trial()
    trial.run()
    assert len(service.sent) == 4
    assert trial.seen.image_task_ids == ()


def test_the_first_submit_repeats_nothing_whatever_the_service_says() -> None:
    error = errors.SubmissionUnknown("already exists", http_status=409)
    assert Post(Attempt.FIRST, "nb-1", 0.0, error=error).lost
    assert not Post(Attempt.REPEATED, "nb-1", 0.0, error=error, refused_as_repeated=True).lost


def test_a_submit_under_way_may_have_bought() -> None:
    assert Post(Attempt.FIRST, "nb-1", 0.0).lost
    assert not Post(Attempt.FIRST, "nb-1", 0.0, error=errors.InvalidRequest("no")).lost


def test_an_image_task_counts_once() -> None:
    posts = (Post(Attempt.FIRST, "nb-1", 0.0, task("a")), Post(Attempt.REPEATED, "nb-1", 1.0, task("a")))
    assert TrialSeen(posts, leads_to="a").image_task_ids == ("a",)
    assert TrialSeen(posts, leads_to="b").image_task_ids == ("a", "b")
