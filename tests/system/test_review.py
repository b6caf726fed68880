"""The example with a review on real Airflow processes: a person's answer comes through Airflow's API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.file_names import image_key
from dev.stack.airflow_api import ApiError
from dev.stack.airflow_stack import AirflowStack
from tests.system.conftest import LATENCY_SECONDS
from tests.system.harness import Run, System
from tests.system.test_generate_examples import bought

REVIEW = "nanobanana_review"
PROMPT = "A banner with"
#: How a task waits for a person: from Airflow 3.3 on in a state of its own.
WAITS = ("awaiting_input", "deferred")
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Reviewed:
    """One run of the example at its end, and what a clear of its second purchase did.

    :param question: As Airflow's API gave it while the task waited.
    :param second: Status of an answer after the first.
    :param charges: How many banners the service sold until the review, the end, and the end after the clear.
    """

    run: Run
    question: dict[str, Any]
    second: int | None
    charges: tuple[int, int, int]
    images: Path
    published: Path


@pytest.fixture(scope="module")
def reviewed(stack: AirflowStack, emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reviewed]:
    stack.processes.check()
    folder = tmp_path_factory.mktemp("review")
    system = System(stack, emulator, folder / "images")
    published = folder / "published"
    run = system.start(REVIEW, published=published.as_uri())
    run.wait_for("review", *WAITS)
    # Airflow up to 3.3 loses an answer that comes within seconds, and asks again (its issue 71580).
    time.sleep(LATENCY_SECONDS)
    (question,) = stack.api.questions(REVIEW, run.run_id)
    charges = [len(bought(system, PROMPT))]
    cup, scarf, _ = question["params"]["approved"]["schema"]["examples"]
    fields = {"approved": [scarf, cup, scarf, "0" * 24], "comment": "too *dark*"}
    stack.api.answer(REVIEW, run.run_id, "review", "Approve selected", fields=fields)
    with pytest.raises(ApiError) as late:
        stack.api.answer(REVIEW, run.run_id, "review", "Approve all")
    assert run.wait() == "success", run.states()
    charges.append(len(bought(system, PROMPT)))
    run.clear("again", include_downstream=True)
    assert run.wait() == "success", run.states()
    charges.append(len(bought(system, PROMPT)))
    yield Reviewed(run, question, late.value.status, tuple(charges), system.images, published)  # type: ignore[arg-type]
    emulator.reset()


def test_the_form_shows_the_pictures_and_what_can_be_chosen(reviewed: Reviewed) -> None:
    question = reviewed.question
    images = reviewed.run.xcom("pictures")["images"]
    assert question["options"] == ["Approve selected", "Approve all", "Reject all"]
    assert question["params"]["approved"]["schema"]["examples"] == [image_key(image["uri"]) for image in images]
    assert [*question["params"]] == ["approved", "comment"]
    assert question["body"].count(f"](nanobanana/api/thumb/{REVIEW}?run_id=") == 3
    assert "task_id=pictures&map_index=-1&key=" in question["body"]
    assert "?task_id=review&map_index=-1)" in question["body"], "the page of this review"


def test_the_answer_is_the_result_and_there_is_one(reviewed: Reviewed) -> None:
    answer = reviewed.run.xcom("review")
    assert [image["name"] for image in answer["approved"]] == ["espresso-cup", "wool-scarf"]
    assert [image["name"] for image in answer["rejected"]] == ["desk-lamp"]
    assert answer["rejected"] == reviewed.run.xcom("pictures")["images"][2:], "whole records"
    assert (answer["by"], answer["comment"]) == ("admin", "too *dark*")
    assert reviewed.second == httpx.codes.CONFLICT


def test_what_was_rejected_is_bought_once_more_and_a_clear_buys_nothing(reviewed: Reviewed) -> None:
    assert reviewed.charges == (3, 4, 4)
    (rejection,) = (reviewed.images / ".nanobanana" / "rejections").iterdir()
    record = json.loads(rejection.read_text())
    assert (record["by"], record["comment"]) == ("admin", "too *dark*")
    assert [image["version"] for image in reviewed.run.xcom("again")["images"]] == [1, 1, 2]


def test_what_is_published_is_what_the_manifest_there_says(reviewed: Reviewed) -> None:
    published = json.loads((reviewed.published / "published.json").read_text())
    files = {Path(image["uri"]).name for image in published}
    assert {path.name for path in reviewed.published.iterdir()} == {*files, "published.json"}
    assert [image["version"] for image in published] == [1, 1, 2]
    for name in files:
        assert (reviewed.published / name).read_bytes() == (reviewed.images / name).read_bytes()
