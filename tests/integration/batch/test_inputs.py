"""What a user gives, told in purchases: a mistake buys nothing, and a picture is never that of another product."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.decorators.nanobanana import nanobanana_task
from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from tests.integration.batch.harness import GenerateTask
from tests.support.text import flat


class Frame:
    """A table: read as a list it gives the names of its columns."""

    columns = ("prompt", "size")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize(
    "options",
    [
        {"requests": Frame()},
        {"requests": [Frame()]},
        {"prompt": Frame()},
        {"prompt": ["a kite", "a boat"]},
        {"prompt": {"prompt": "a kite"}},
        {"requests": ["a kite\0"]},
        {"requests": ["a kite"], "variant": "\x1b[31m"},
        {"requests": ["a kite"], "extra_body": {"metadata": {"client_business_id": "mine"}}},
        {"requests": ["a kite"], "max_cost_usd": "None"},
        {"requests": ["a kite"], "max_cost_usd": ""},
        {"requests": ["a kite"], "max_cost_usd": float("nan")},
        {"requests": ["a kite"], "max_cost_usd": 1, "model": "gemini-3-pro-image-preview"},
        {"prompt": float("nan")},
    ],
)
def test_a_mistake_is_refused_before_anything_is_sent(with_store: GenerateTask, options: dict[str, Any]) -> None:
    run = with_store.attempt(**options)
    assert isinstance(run.error, NanoBananaFailException) and "othing was " in flat(run.error)
    assert with_store.posts == 0


@pytest.mark.parametrize("returned", [Frame(), '["a kite", "a boat"]', ' [{"prompt": "a kite"}]'])
def test_a_function_that_returns_no_list_buys_nothing(with_store: GenerateTask, returned: Any) -> None:
    from airflow.sdk import DAG

    with DAG("dag", schedule=None):
        made: Any = nanobanana_task(task_id="generate", destination=with_store.folder.as_uri())(lambda: returned)()
    with_store.operator = lambda **_: made.operator  # type: ignore[method-assign]
    assert isinstance(with_store.attempt().error, NanoBananaFailException) and with_store.posts == 0


def test_an_unknown_price_is_named_with_the_way_to_say_it(with_store: GenerateTask) -> None:
    model = "gemini-3-pro-image-preview"
    error = with_store.attempt(requests=["a kite"], model=model, max_cost_usd=1).error
    message = " ".join(str(error).split())
    assert f"model {model}, resolution 1K" in message and f'{{"{model}": {{"1K": 0.02}}}}' in message


def test_rows_with_empty_cells_are_made_with_the_defaults(with_store: GenerateTask) -> None:
    nan = float("nan")
    rows = [
        {"prompt": "a kite", "size": nan, "name": 7.0, "reference_images": nan},
        {"prompt": 1984, "size": "", "name": nan, "variant": None},
    ]
    run = with_store.attempt(requests=rows, size="16:9")
    assert run.error is None and {image["request"] for image in run.result["images"]} == {0, 1}
    assert {fields["prompt"] for fields in (image["fields"] for image in with_store.manifest["images"])} == {
        "a kite",
        "1984",
    }
    assert any(name.startswith("7-") for name in with_store.files)


def test_a_text_that_looks_like_a_list_is_one_picture(with_store: GenerateTask) -> None:
    run = with_store.attempt(prompt="['a', 'b']")
    assert run.error is None and with_store.posts == 1
    assert with_store.manifest["images"][0]["fields"]["prompt"] == "['a', 'b']"


def test_products_told_apart_by_a_query_are_two_pictures(with_store: GenerateTask) -> None:
    def on_a_table(product: str, version: int = 1) -> dict[str, Any]:
        link = f"https://drive.google.com/uc?export=download&id={product}&v={version}&X-Amz-Signature={product}"
        return {"prompt": "on a marble table", "name": product, "reference_images": [link]}

    batch = with_store
    batch.attempt(requests=[on_a_table("mug"), on_a_table("lamp")])
    batch.next_run("second")
    run = batch.attempt(requests=[on_a_table("lamp"), on_a_table("chair"), on_a_table("mug", version=2)])
    assert batch.posts == 4, "the lamp is there, the chair and the new photo of the mug are not"
    assert [Path(image["uri"]).name.partition("-")[0] for image in run.result["images"]] == ["lamp", "chair", "mug"]


def test_another_spelling_of_a_request_buys_nothing(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=[{"prompt": "caf\u00e9", "extra_body": {"seed": 5}}])
    batch.next_run("second")
    run = batch.attempt(requests=[{"prompt": "cafe\u0301", "extra_body": {"seed": 5.0}}])
    assert run.error is None and batch.posts == 1
