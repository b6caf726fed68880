"""What the example DAGs promise before anything runs."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.sdk import DAG

from airflow_provider_nanobanana.batch.items import build_items
from airflow_provider_nanobanana.landing.reference_image import check_reference
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

EXAMPLES = Path(__file__).parents[2] / "example_dags"
#: ``task_instance.rendered_map_index`` is a String(250); PostgreSQL refuses a longer text, after the image was paid.
LONGEST_MAP_INDEX = 250


def buyers_of(dag: DAG) -> list[NanoBananaGenerateOperator]:
    return [task for task in dag.tasks if isinstance(task, NanoBananaGenerateOperator)]


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"nanobanana_{name}.py"))


def test_the_name_of_a_mapped_task_fits_whatever_the_prompt() -> None:
    submit = load("creative_refresh")["submit"]
    task = submit.unmap({"prompt": "a red kite over dunes, " * 220, "size": "9:16"})
    name = submit.dag.get_template_env().from_string(submit.partial_kwargs["map_index_template"]).render(task=task)
    assert "a red kite over dunes" in name
    assert len(name) <= LONGEST_MAP_INDEX


@pytest.mark.parametrize("name", ["generate", "catalogue", "partial_failure", "asset_refresh"])
def test_where_pictures_are_reused_their_purchases_are_claimed_and_retried(name: str, declared_dags: list[DAG]) -> None:
    load(name)
    [dag] = [dag for dag in declared_dags if buyers_of(dag)]
    [buyer] = buyers_of(dag)
    assert (buyer.reuse_existing, buyer.claims, buyer.retries) == (True, "auto", 2)


def test_the_catalogue_asks_for_each_product_with_its_photo() -> None:
    plan = load("catalogue")["plan"].function
    requests = plan(params={"photos": (EXAMPLES / "photos").as_uri()})

    def digest(uri: str) -> str:
        path = Path(urlsplit(uri).path)
        assert check_reference(path.read_bytes()) == "image/jpeg"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    items = build_items(requests, defaults={"size": "4:3"}, default_model="nano_banana_2", digest_of=digest)
    assert len({item.request.reference_images for item in items}) == len(items) == 3
    assert [item.name for item in items] == ["espresso-cup", "wool-scarf", "desk-lamp"]


def test_a_person_is_asked_only_where_something_is_missing() -> None:
    example = load("partial_failure")
    assert example["complete"].function({"failed": [], "failed_count": 0}) == ["publish"]
    missing = {"failed": [{"request": 1, "message": "refused"}], "failed_count": 1}
    assert example["complete"].function(missing) == ["publish", "review"]
    assert example["review"].function(missing, params={"prompts": ["a kite", "a boat"]}) == ["a boat: refused"]


def test_the_refresh_asks_for_every_product_and_its_event_is_news() -> None:
    example = load("asset_refresh")
    event = type("Event", (), {"extra": {"count": 3, "cost_usd": 0.075, "manifest": "file:///m.json"}})
    assert example["announce"].function({example["PICTURES"]: [event]}) == "3 pictures for $0.075: file:///m.json"
    drawn = build_items(
        example["pictures"].function(),
        defaults={},
        default_model="nano_banana_2",
        digest_of=lambda uri: pytest.fail(f"no reference is wanted, and {uri} is one"),
    )
    assert [item.name for item in drawn] == ["espresso-cup", "wool-scarf", "desk-lamp"]
