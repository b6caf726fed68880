"""What a review decides, and what the tasks around it then use and buy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaReviewOperator
from tests.integration.batch.harness import GenerateTask
from tests.support.images import picture
from tests.support.task_runner import TaskInstance
from tests.support.versions import REVIEWS, gives, reason

if not gives(REVIEWS):
    pytest.skip(reason(REVIEWS), allow_module_level=True)

from airflow.providers.standard.operators import hitl

WAITS: Any = (TaskDeferred, getattr(hitl, "TaskAwaitingInput", TaskDeferred))
MUG = [{"prompt": "a mug", "name": "mug"}]


class Form:
    """A review of what a generate task returned, which waits."""

    def __init__(self, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ti = TaskInstance(task_id="review")
        self.ti.id = "ti"  # type: ignore[attr-defined]
        context: Any = {"ti": self.ti, "task_instance": self.ti}
        self.context = context
        monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **_: None)
        with pytest.raises(WAITS):
            self.operator(given).execute(context)

    def operator(self, given: Any) -> NanoBananaReviewOperator:
        return NanoBananaReviewOperator(task_id="review", images=given)

    def answer(self, given: Any, option: str) -> dict[str, Any]:
        """Answer it; by then the task before has returned this."""
        event = {
            "chosen_options": [option],
            "params_input": {},
            "responded_at": datetime(2026, 11, 26, tzinfo=UTC),
            "responded_by_user": {"id": "7", "name": "uma"},
        }
        result: dict[str, Any] = self.operator(given).execute_complete(self.context, event)
        return result


def stems(run: Any) -> list[str]:
    assert run.error is None, run.error
    return [Path(image["uri"]).stem for image in run.result["images"]]


def test_after_a_second_look_at_the_first_version_it_is_used_and_nothing_is_bought(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = batch.attempt(requests=MUG)
    rejected = Form(first.result, monkeypatch).answer(first.result, "Reject all")["rejected"]
    batch.clear()
    again = batch.attempt(requests=MUG, redo=rejected)
    assert (stems(again), batch.charges) == ([f"{stems(first)[0]}-v2"], 2)
    # Only the review is cleared: it shows the first version once more.
    second_look = Form(first.result, monkeypatch).answer(first.result, "Approve all")
    assert second_look["rejected"] == []
    batch.clear()
    assert stems(batch.attempt(requests=MUG, redo=second_look["rejected"])) == stems(first)
    batch.next_run("later")
    assert stems(batch.attempt(requests=MUG)) == stems(first)
    assert batch.charges == 2


def test_what_was_bought_anew_under_the_same_name_while_a_form_waited_is_asked_about_again(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = batch.attempt(requests=MUG)
    form = Form(first.result, monkeypatch)
    for name in batch.files:
        (batch.folder / name).unlink()
    batch.clock.sleep(3 * 86_400)
    batch.clear()
    other = picture("png", (9, 9))
    monkeypatch.setattr(ImageDownloader, "_write", lambda self, image, sink, **_: sink.write(other))
    anew = batch.attempt(requests=MUG, on_expired="resubmit")
    assert (stems(anew), batch.charges) == (stems(first), 2)
    assert anew.result["images"][0]["sha256"] != first.result["images"][0]["sha256"]
    with pytest.raises(NanoBananaException, match="asks again"):
        form.answer(anew.result, "Reject all")
    batch.clear()
    assert stems(batch.attempt(requests=MUG)) == stems(first)
    assert batch.charges == 2


def test_a_clear_that_finds_the_picture_in_place_loses_no_decision(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run's record of it is another one, and the picture is the same."""
    first = batch.attempt(requests=MUG)
    form = Form(first.result, monkeypatch)
    batch.next_run("second")
    later = batch.attempt(requests=MUG)
    assert later.result["images"][0]["reused"]
    assert len(form.answer(later.result, "Approve all")["approved"]) == 1
