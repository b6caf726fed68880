"""What the example DAGs promise before anything runs."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.sdk import DAG
from PIL import Image

from airflow_provider_nanobanana.batch.items import build_items
from airflow_provider_nanobanana.batch.row_files import read_row_file
from airflow_provider_nanobanana.landing.reference_image import check_reference
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from tests.support.versions import HASHABLE_ASSETS, REVIEWS, needs

EXAMPLES = Path(__file__).parents[2] / "example_dags"
#: ``task_instance.rendered_map_index`` is a String(250); PostgreSQL refuses a longer text, after the image was paid.
LONGEST_MAP_INDEX = 250


def buyers_of(dag: DAG) -> list[NanoBananaGenerateOperator]:
    return [task for task in dag.tasks if isinstance(task, NanoBananaGenerateOperator)]


def no_reference(uri: str) -> str:
    pytest.fail(f"no reference is wanted, and {uri} is one")


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"nanobanana_{name}.py"))


def test_the_name_of_a_mapped_task_fits_whatever_the_prompt() -> None:
    submit = load("creative_refresh")["submit"]
    task = submit.unmap({"prompt": "a red kite over dunes, " * 220, "size": "9:16"})
    name = submit.dag.get_template_env().from_string(submit.partial_kwargs["map_index_template"]).render(task=task)
    assert "a red kite over dunes" in name
    assert len(name) <= LONGEST_MAP_INDEX


@pytest.mark.parametrize(
    "name",
    [
        "generate",
        "catalogue",
        "partial_failure",
        "asset_refresh",
        "best_of_three",
        "backfill",
        "channels",
        pytest.param("review", marks=needs(REVIEWS)),
    ],
)
def test_where_pictures_are_reused_their_purchases_are_claimed_and_retried(name: str, declared_dags: list[DAG]) -> None:
    load(name)
    [dag] = [dag for dag in declared_dags if buyers_of(dag)]
    for buyer in buyers_of(dag):
        assert (buyer.reuse_existing, buyer.claims, buyer.retries) == (True, "auto", 2)


def test_the_catalogue_is_its_table_with_what_is_no_field_as_meta(declared_dags: list[DAG], tmp_path: Path) -> None:
    pages = load("catalogue")["pages"].function
    [buyer] = buyers_of(declared_dags[0])
    products = read_row_file(declared_dags[0].params["products"])
    items = build_items(
        products, defaults={}, default_model="nano_banana_2", digest_of=no_reference, template=buyer.prompt
    )
    assert [(item.name, item.meta["price"]) for item in items if item.meta] == [
        ("espresso-cup", "14.90"),
        ("wool-scarf", "49.00"),
        ("desk-lamp", "129.00"),
    ]
    assert items[1].request.prompt.startswith("A catalogue picture of a wool scarf in moss green, folded on a stone")
    image = {"uri": "file:///a.png", "meta": {"title": "a lamp", "price": "129.00"}}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"images": [image]}))
    assert pages({"manifest": manifest.as_uri()}) == ["a lamp, 129.00: file:///a.png"]


def test_the_refresh_asks_for_each_product_with_its_photo() -> None:
    requests = load("asset_refresh")["pictures"].function(params={"photos": (EXAMPLES / "photos").as_uri()})

    def digest(uri: str) -> str:
        path = Path(urlsplit(uri).path)
        assert check_reference(path.read_bytes()) == "image/jpeg"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    items = build_items(requests, defaults={"size": "4:3"}, default_model="nano_banana_2", digest_of=digest)
    assert len({item.request.reference_images for item in items}) == len(items) == 3
    assert [item.name for item in items] == ["espresso-cup", "wool-scarf", "desk-lamp"]


def test_the_best_of_three_is_the_one_with_most_detail_of_each_prompt(tmp_path: Path) -> None:
    made = []
    for request, widths in enumerate([(64, 2, 32), (4, 64, 64)]):
        for variant, width in enumerate(widths, 1):
            path = tmp_path / f"{request}-{variant}.png"
            stripes = Image.new("L", (64, 64))
            for left in range(0, 64, 2 * width):
                stripes.paste(255, (left, 0, left + width, 64))
            stripes.save(path)
            made.append({"uri": path.as_uri(), "request": request, "variant": str(variant)})
    best = load("best_of_three")["best"].function({"images": made})
    assert [Path(urlsplit(uri).path).name for uri in best] == ["0-2.png", "1-1.png"]


def test_the_channels_have_exact_pixels_and_the_original_is_not_touched(tmp_path: Path) -> None:
    example, original = load("channels"), tmp_path / "kite-v2.png"
    Image.new("RGBA", (300, 200), "red").save(original)
    before = original.read_bytes()
    made, params = {"images": [{"uri": original.as_uri()}]}, {"copies": (tmp_path / "copies").as_uri()}
    copies = example["channels"].function(made, params)
    assert example["channels"].function(made, params) == copies
    assert original.read_bytes() == before
    for copy, (channel, pixels) in zip(copies, example["CHANNELS"].items(), strict=True):
        assert urlsplit(copy).path == str(tmp_path / "copies" / channel / "kite-v2.webp")
        with Image.open(urlsplit(copy).path) as image:
            assert (image.format, image.size) == ("WEBP", pixels)


def test_a_day_of_the_backfill_has_a_mood_of_its_own_and_the_logo_of_all(declared_dags: list[DAG]) -> None:
    load("backfill")
    [logos, moods] = buyers_of(declared_dags[0])
    assert logos.destination == moods.destination == "{{ params.destination }}"
    assert (logos.variant, "run_after" in moods.variant) == ("", True)


def test_a_person_is_asked_only_where_something_is_missing() -> None:
    example = load("partial_failure")
    assert example["complete"].function({"failed": [], "failed_count": 0}) == ["publish"]
    missing = {"failed": [{"request": 1, "message": "refused"}], "failed_count": 1}
    assert example["complete"].function(missing) == ["publish", "review"]
    assert example["review"].function(missing, params={"prompts": ["a kite", "a boat"]}) == ["a boat: refused"]


@needs(HASHABLE_ASSETS)
def test_the_event_of_a_refresh_is_news() -> None:
    example = load("asset_refresh")
    event = type("Event", (), {"extra": {"count": 3, "cost_usd": 0.075, "manifest": "file:///m.json"}})
    assert example["announce"].function({example["PICTURES"]: [event]}) == "3 pictures for $0.075: file:///m.json"
