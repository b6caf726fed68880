from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.result_images import ResultImages, read_manifest, result_images
from airflow_provider_nanobanana.toapis.errors import InvalidRequest, StorageFailed

A, B = {"uri": "file:///x/a.png", "name": "a"}, {"uri": "file:///x/b.png", "name": "b"}


def result(*images: dict[str, Any], manifest: str | None = None, truncated: bool = False) -> dict[str, Any]:
    return {"images": [*images], "count": len(images), "manifest": manifest, "truncated": truncated}


@pytest.mark.parametrize(
    "given",
    [
        result(A, B),
        [A, B],
        (A, B),
        [[A], [B]],
        [result(A), None, result(B)],
        [result(A, B), result(B)],
        (each for each in (A, B, A)),
        {"images": [A, B]},
    ],
)
def test_whatever_holds_images(given: Any) -> None:
    assert result_images(given).images == [A, B]


@pytest.mark.parametrize(
    "given", [None, [], [None, None], result(), [result(), []], {"dry_run": True, "images": [{"uri": None}]}]
)
def test_nothing_is_none(given: Any) -> None:
    assert result_images(given) == ResultImages([], [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{'images': []}", "render_template_as_native_obj"),
        (b"x", "b'x'"),
        (7, "type int"),
        ({}, "a mapping with nothing in it"),
        ({"request": 3, "code": "refused"}, "code, request"),
        ([{"id": "t", "status": "completed", "images": [{"url": "https://x"}]}], "a mapping with url"),
        ({"uri": ""}, "a mapping with uri"),
        ({"uri": 7}, "a mapping with uri"),
        ([A, "file:///x/b.png"], "file:///x/b.png"),
    ],
)
def test_what_is_no_image_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match="give what a generate or a download") as refused:
        result_images(given)
    assert words in refused.value.message
    assert refused.value.charged == "no"


def test_a_result_without_lists_is_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "manifest-x.json"
    entries = [{**A, "prompt": "a kite " * 100, "fields": {"size": "1:1"}, "digest": "0" * 64}, {**B, "meta": {"k": 1}}]
    path.write_text(json.dumps({"images": entries}))
    found = result_images([result(manifest=path.as_uri(), truncated=True)])
    assert found.manifests == [path.as_uri()]
    assert found.images[0] == {**A, "prompt": ("a kite " * 100)[:80]}
    assert found.images[1] == {**B, "meta": {"k": 1}}


def test_a_result_without_lists_and_manifest_says_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match="Clear the task that made them"):
        result_images(result(truncated=True))


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"images": 3}', "[" * 100_000])
def test_a_manifest_that_cannot_be_understood_may_be_there_later(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "manifest-x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StorageFailed, match=r"manifest-x\.json (is not there|cannot be understood)\.$") as failed:
        read_manifest(path.as_uri())
    assert failed.value.charged == "no"
