"""One rule for what another version wrote: older is read, an unknown key is left out, newer is refused."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.stored_forms import FORMS, MANIFEST, WAIT, readable_event
from airflow_provider_nanobanana.toapis.errors import TransientFailure


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_newer_one_is_refused_and_everything_else_is_the_readers_business(form: Any) -> None:
    for version in (1, form.version, None, "9", 9.0, True, [9]):
        form.refuse_newer(version, "It")
    with pytest.raises(TransientFailure) as caught:
        form.refuse_newer(form.version + 1, "What is stored under 'x'")
    words = caught.value.message
    assert words.startswith(f"What is stored under 'x' was written by a newer version of this provider ({form.name}, ")
    assert all(said in words for said in ("nothing was sent", "nothing was written over", "stays paid", "Install"))
    assert caught.value.charged == "unknown", "what was bought under it is not known here"
    assert len(caught.value.first_step) <= 78


def test_the_names_tell_the_forms_apart() -> None:
    assert len({form.name for form in FORMS}) == len(FORMS)


@pytest.mark.parametrize("event", [None, "x", [], {"version": WAIT.version + 1, "outcome": "finished"}])
def test_an_event_that_cannot_be_understood_is_a_wake_up_and_no_more(event: Any) -> None:
    assert readable_event(event) == {}


@pytest.mark.parametrize("event", [{"deadline": 1.0}, {"version": 1, "outcome": "timeout", "mood": "new"}])
def test_an_event_of_an_earlier_release_and_one_with_more_are_read(event: Any) -> None:
    assert readable_event(event) == event


def test_manifests_of_the_first_version_are_no_newer_ones() -> None:
    assert MANIFEST.version == 2 and not MANIFEST.is_newer(1)
