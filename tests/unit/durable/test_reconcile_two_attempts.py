"""Two attempts of one task instance alive at once, interleaved at the moments that random search rarely finds."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.toapis.models import ImageRequest
from tests.support.durable import Fate, Live, World

RETRIES = 3


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("airflow_provider_nanobanana.submission.workflow.verify_support", lambda *_: None)
    return World()


def live(world: World, try_number: int, max_tries: int = RETRIES, prompt: str = "a kite", **rules: Any) -> Live:
    attempt = TaskAttempt.of(try_number=try_number, max_tries=max_tries, retries=RETRIES, started_at=world.now)
    request = ImageRequest.parse({"prompt": prompt})
    regeneration = 0 if rules.get("reuse_existing", True) else attempt.tries_before_clear
    return Live(world, 0, request, attempt, SubmissionPolicy(**rules), shared=True, regeneration=regeneration)


def until(attempt: Live, at: str) -> None:
    """Go on until the attempt stands before such a side effect, or has ended."""
    attempt.step()
    while attempt.at != at and not attempt.over:
        attempt.step()


def finish(attempt: Live, fate: Fate | None = None) -> Live:
    attempt.finish(lambda: fate or Fate(), most=500)
    return attempt


def test_a_late_starter_does_not_overwrite_what_another_bought_meanwhile(world: World) -> None:
    sleeper = live(world, 1)
    until(sleeper, "read")
    searcher = live(world, 2)
    started = world.now
    while world.now < started + 75:
        until(searcher, "sleep")
    finish(sleeper, Fate(shown_in=30.0))
    finish(searcher)
    assert len(world.books) == 1
    assert searcher.bought == sleeper.bought


def test_a_refusal_that_is_noted_late_does_not_hide_what_another_bought(world: World) -> None:
    refused = live(world, 1)
    until(refused, "post")
    refused.fate = Fate("limited")
    until(refused, "answer")
    finish(live(world, 2))
    finish(refused)
    finish(live(world, 3))
    assert len(world.books) == 1


def test_a_lost_answer_that_is_noted_late_does_not_forget_the_id(world: World) -> None:
    loser = live(world, 1)
    until(loser, "post")
    loser.fate = Fate("lost")
    until(loser, "answer")
    finder = finish(live(world, 2))
    assert finder.bought is not None
    finish(loser)
    assert world.row is not None
    assert world.row.image_task_id == finder.bought.id
    assert len(world.books) == 1


def test_handing_on_an_abandoned_image_does_not_hide_the_one_bought_after_the_clear(world: World) -> None:
    old = live(world, 1)
    until(old, "post")
    until(old, "answer")
    until(old, "write")
    old.step()  # it has its image and is about to hand it on
    new = live(world, 2, max_tries=1 + RETRIES, prompt="another kite")
    until(new, "post")
    new.fate = Fate(shown_in=30.0)
    until(new, "answer")
    new.kill()
    finish(old)
    finish(live(world, 3, max_tries=1 + RETRIES, prompt="another kite"))
    assert len(world.books) == 2, "one for each prompt"


def test_an_attempt_from_before_the_clear_does_not_undo_the_clear(world: World) -> None:
    """Its lower ``max_tries`` in the record would make the next retry pass for a second clear."""
    finish(live(world, 1, reuse_existing=False))
    old = live(world, 2, reuse_existing=False)
    until(old, "look")
    cleared = finish(live(world, 3, max_tries=2 + RETRIES, reuse_existing=False), Fate(shown_in=30.0))
    finish(old)
    retried = finish(live(world, 4, max_tries=2 + RETRIES, reuse_existing=False))
    assert retried.bought == cleared.bought
    assert len(world.books) == 2, "the first run's, and the one that the clear asked for"


def test_an_image_bought_a_moment_ago_is_found_when_the_request_changes_back(world: World) -> None:
    first = finish(live(world, 1), Fate(shown_in=30.0))
    finish(live(world, 2, max_tries=1 + RETRIES, prompt="another kite"))
    back = finish(live(world, 3, max_tries=2 + RETRIES))
    assert back.bought is not None and first.bought is not None
    assert back.bought.id == first.bought.id
    assert len(world.books) == 2
