"""One shape of manifest for both forms, told by its schema; names that never meet; and the lines of the index."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.manifest import index_lines, manifest_name, utc_text
from airflow_provider_nanobanana.landing.image_file import SUFFIXES
from airflow_provider_nanobanana.stored_forms import MANIFEST
from airflow_provider_nanobanana.toapis.models import ImageRequest
from tests.support.batch import landed
from tests.support.manifests import manifest_faults, schema
from tests.support.reports import OK, REFUSAL, report
from tests.support.responses import NOW

RUN = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}


def whole() -> dict[str, Any]:
    named = replace(OK.item, name="SKU-007", meta={"sku": 7, "note": "a\u2028b\u0085c\nd"})
    return report(replace(OK, item=named, times={"submitted_at": NOW}), REFUSAL).manifest(
        run=RUN, destination="s3://bucket", now=NOW
    )


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_schema_is_of_this_version_and_takes_what_is_written() -> None:
    assert schema()["properties"]["version"]["const"] == MANIFEST.version and manifest_faults(whole()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"form": "submit"},
        {"form": "download"},
        {"written_at": 1795698873.0},
        {"written_at": "2026-11-26 08:00:00"},
        {"paid_usd": None},
        {"image_tasks": []},
        {"surprise": 1},
        {"count": -1},
        {"images": [{}]},
    ],
)
def test_the_schema_refuses_what_is_no_manifest(change: dict[str, Any]) -> None:
    assert manifest_faults({**whole(), **change})


@pytest.mark.parametrize("key", ["version", "form", "dag_id", "written_at", "images", "failed", "skipped_count"])
def test_the_schema_misses_what_is_not_there(key: str) -> None:
    assert manifest_faults({name: value for name, value in whole().items() if name != key})


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of the schema that has keys of its own."""
    if isinstance(node, dict):
        if "properties" in node and node.get("type"):
            yield node
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from objects(inner)


def test_no_object_of_the_schema_takes_keys_that_it_does_not_name() -> None:
    found = list(objects(schema()))
    assert len(found) > 8 and all(each["additionalProperties"] is False for each in found)


def test_the_schema_knows_every_format_and_every_field_of_a_request() -> None:
    image = schema()["$defs"]["image"]["properties"]
    assert set(image["format"]["enum"]) == set(SUFFIXES)
    assert set(image["fields"]["properties"]) == set(ImageRequest.model_fields)


# --- moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (1795698873.0, "2026-11-26T13:14:33.000Z"),
        (1795698873.25, "2026-11-26T13:14:33.250Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (None, None),
        (1e300, None),
        (math.nan, None),
    ],
)
def test_a_moment_is_told_in_utc(at: float | None, text: str | None) -> None:
    assert utc_text(at) == text


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("d", "r", "land", 1), ("d", "r", "land-1", -1)),
        (("sales-eu", "2026", "t", -1), ("sales", "eu-2026", "t", -1)),
        (("d", "r-t", "u", None), ("d", "r", "t-u", None)),
        (("d", "r", "t", 11), ("d", "r", "t-1", 1)),
        (("d", "r", "t", 0), ("d", "r", "t", None)),
    ],
)
def test_no_two_task_instances_share_a_manifest(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert manifest_name(*one) != manifest_name(*other)
    assert manifest_name(*one) == manifest_name(*one) and manifest_name(*one).startswith(f"manifest-{one[0]}-{one[1]}")
    assert manifest_name("d", "r", "t", None) == manifest_name("d", "r", "t", -1)


def test_two_installations_have_manifests_of_their_own() -> None:
    names = [manifest_name("d", "r", "t", -1, namespace) for namespace in ("", "prod", "staging")]
    assert len(set(names)) == 3
    assert names[0] == manifest_name("d", "r", "t", -1)


# --- the index -------------------------------------------------------------------------------------------------------


def test_the_index_has_a_line_an_image_and_none_for_failures() -> None:
    text = "".join(index_lines(whole()))
    assert text.endswith("\n") and len(text.splitlines()) == 1
    line = json.loads(text)
    assert line["uri"] == OK.image["uri"] and line["meta"] == {"sku": 7, "note": "a\u2028b\u0085c\nd"}
    assert (line["name"], line["prompt"], line["size"], line["resolution"]) == ("SKU-007", "picture 0", "1:1", "1K")
    assert line["submitted_at"] == line["written_at"] == utc_text(NOW) and RUN.items() <= line.items()
    nested = [key for key, value in line.items() if isinstance(value, (dict, list))]
    assert nested == ["meta", "suspect"]


def test_the_index_of_nothing_is_empty() -> None:
    content = report(REFUSAL).manifest(run=RUN, destination="s3://bucket", now=NOW)
    assert list(index_lines(content)) == []


def test_an_image_without_a_request_has_the_same_keys_in_the_index() -> None:
    content = whole()
    content["images"] += [{**content["images"][0], "fields": None, "times": {}}]
    one, other = map(json.loads, index_lines(content))
    assert one.keys() == other.keys() and other["size"] is None and other["submitted_at"] is None


def test_suspects_are_told() -> None:
    odd = landed(1)
    odd = replace(odd, image={**odd.image, "suspect": ("one_colour",)})
    content = report(odd).manifest(run=RUN, destination="s3://bucket", now=NOW)
    assert manifest_faults(content) == []
    assert json.loads(next(index_lines(content)))["suspect"] == ["one_colour"] == odd.record()["suspect"]
