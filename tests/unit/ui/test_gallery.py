"""Manifests as cards: in order, without URIs, and whatever stands in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_nanobanana.landing.file_names import image_key
from airflow_provider_nanobanana.ui.confinement import Folder
from airflow_provider_nanobanana.ui.gallery import (
    Gallery,
    is_manifest_of,
    read_gallery,
    read_rejection,
    sum_totals,
    task_json,
    without_uris,
)
from airflow_provider_nanobanana.ui.task_records import TaskRecord

FOLDER = Folder("s3", "team@bucket", ("a",))
IMAGE = {"uri": "s3://team@bucket/a/x.png", "name": "x", "request": 3, "sha256": "b" * 64, "key": "x-v2", "version": 2}


def test_a_card_stays_where_its_request_is() -> None:
    content = {
        "images": [IMAGE],
        "failed": [{"name": "late", "request": 9}, {"name": "first", "request": 0}],
        "under_way": [{"name": "second", "request": 1}],
        "skipped": [{"name": "none of the list"}],
    }
    labels = [card["label"] for card in read_gallery(content, FOLDER).cards]
    assert labels == ["first", "second", "x", "late", "none of the list"]


def test_what_a_card_says() -> None:
    gallery = read_gallery({"images": [IMAGE | {"variant": "b", "suspect": ["flat"], "meta": {"a": 1}}]}, FOLDER)
    (card,) = gallery.cards
    assert card == {
        **{"kind": "image", "label": "x/b", "name": "x", "variant": "b", "request": 3, "version": 2, "group": "x"},
        **{"key": image_key(str(IMAGE["uri"])), "file": "x.png", "sha": "b" * 8, "suspect": ["flat"], "meta": {"a": 1}},
    }
    assert list(gallery.pictures) == [card["key"]]


def test_a_picture_that_lies_elsewhere_has_no_key() -> None:
    gallery = read_gallery({"images": [IMAGE | {"uri": "s3://team@bucket/b/x.png"}]}, FOLDER)
    (card,) = gallery.cards
    assert "key" not in card
    assert card["code"] == "outside"
    assert gallery.pictures == {}


def test_a_download_says_what_image_spend_counts_for_it() -> None:
    run = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
    tasks = [{"id": "a", "status": "completed", "cost_usd": 0.025}, {"id": "b", "status": "failed", "cost_usd": None}]
    content = {**run, "version": 2, "form": "download", "paid_usd": None, "image_tasks": tasks, "images": []}
    assert read_gallery(content, FOLDER).totals["paid_usd"] == 0.025


def test_sums_over_several() -> None:
    one = read_gallery({"images": [IMAGE], "paid_usd": 0.1, "cost_usd": 0.2, "waiting": 4}, FOLDER)
    totals = sum_totals([one, one, Gallery()])
    assert (totals["images"], totals["waiting"], totals["paid_usd"], totals["cost_usd"]) == (2, 8, 0.2, 0.4)
    assert sum_totals([Gallery()])["paid_usd"] is None


@pytest.mark.parametrize(
    ("change", "is_own"),
    [
        ({}, True),
        ({"map_index": False}, False),
        ({"map_index": 0}, False),
        ({"task_id": "u"}, False),
        ({"run_id": None}, False),
    ],
)
def test_only_the_own_manifest_counts(change: dict[str, Any], is_own: bool) -> None:
    content = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1} | change
    assert is_manifest_of(content, "d", "r", "t", -1) is is_own
    assert not is_manifest_of([content], "d", "r", "t", -1)
    assert not is_manifest_of({**content, "map_index": True}, "d", "r", "t", 1)


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [None], [[]], {"a": 1}, float("nan"), 10**400], ids=range(10))
def test_whatever_a_manifest_holds_it_can_be_told(value: Any) -> None:
    names = [*IMAGE, "prompt", "fields", "meta", "suspect", "cost_usd", "index", "id", "variant", "message"]
    content: dict[str, Any] = {
        "images": [IMAGE | {name: value} for name in names],
        "failed": [dict.fromkeys(names, value)],
    }
    lists = ("images", "failed", "quarantined", "under_way", "skipped", "image_tasks")
    others = [dict.fromkeys(lists, value), dict.fromkeys(("waiting", "shared", "paid_usd", "form", "finished"), value)]
    for made in (content, *others, {**others[0], "form": "download", "dag_id": "d", "version": 2}):
        gallery = read_gallery(made, FOLDER)
        json.dumps([gallery.cards, gallery.totals], allow_nan=False)


def test_messages_without_uris() -> None:
    text = (
        "kept as s3://c@b/a/.nanobanana/quarantine/x.png, and file:///data/y.jpg. See https://host/ and 'gs://b/z.webp'"
    )
    assert without_uris(text) == "kept as x.png, and y.jpg. See … and 'z.webp'"
    assert without_uris("no URI: a/b, 16:9") == "no URI: a/b, 16:9"
    assert without_uris("s3://conn@bucket, s3://key:secret@b/x.png?token=y and gs://b/a#b/c") == "…, x.png and a"


def test_the_destination_is_the_last_name_of_a_folder_that_may_be_read() -> None:
    task = TaskRecord("d", "r", "t", -1, "x", "success", 1, None, "s3://key:secret@bucket?token=y")
    told = [task_json(task, Gallery(), folder, []) for folder in (None, Folder("s3", "c@bucket", ()), FOLDER)]
    assert [one["destination"] for one in told] == [None, "", "a"]


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"by": 7}'], ids=range(7))
def test_a_rejection_that_cannot_be_read_is_one(content: bytes | None) -> None:
    assert read_rejection(content) == {"by": None, "comment": None, "rejected_at": None}
