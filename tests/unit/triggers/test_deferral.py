from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.polling.result import PollResult
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.triggers.deferral import first_poll_after, tells_of_long_answers
from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger


@pytest.mark.parametrize(
    ("poll_interval", "for_nothing", "seconds"), [(5, False, 5), (5, True, 60), (300, False, 300), (300, True, 300)]
)
def test_a_worker_that_was_woken_for_nothing_is_not_woken_again_at_once(
    poll_interval: float, for_nothing: bool, seconds: float
) -> None:
    assert first_poll_after(1000.0, poll_interval, for_nothing=for_nothing) == 1000.0 + seconds


@pytest.mark.parametrize(
    ("error", "told"), [(errors.ResponseTooLong("long"), True), (errors.TransientFailure("502"), False)]
)
def test_the_trigger_s_event_tells_of_answers_that_were_too_long(error: errors.ToApisError, told: bool) -> None:
    trigger = NanoBananaTrigger(image_task_ids=["a", "b"], started_at=1.0, deadline=2.0)
    subscription = trigger._subscription()
    subscription.notify(PollResult("b", error=error))
    assert tells_of_long_answers(trigger._event(subscription)) is told


@pytest.mark.parametrize("event", [None, "foreign", {}, {"counts": None}, {"counts": ["a"]}, {"counts": {"unseen": 1}}])
def test_any_other_event_tells_of_none(event: Any) -> None:
    assert not tells_of_long_answers(event)
