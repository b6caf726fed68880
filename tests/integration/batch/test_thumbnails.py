"""A thumbnail of each image that a batch lands; none of them buys, lands or retries anything."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.landing import decoder
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.landing.thumbnails import thumbnail_name
from airflow_provider_nanobanana.toapis.errors import StorageFailed
from airflow_provider_nanobanana.ui.image_bytes import read_thumbnail
from tests.integration.batch.harness import GenerateTask
from tests.support.text import flat


def thumbs(batch: GenerateTask) -> set[str]:
    return {path.name for path in (batch.folder / ".nanobanana" / "thumbs").glob("*")}


def wanted(batch: GenerateTask) -> set[str]:
    contents = [(batch.folder / name).read_bytes() for name in batch.files]
    return {thumbnail_name(hashlib.sha256(content).hexdigest()) for content in contents}


def test_each_image_has_one_and_the_gallery_reads_it(batch: GenerateTask) -> None:
    run = batch.attempt(requests=["a mug", "a kite", "a boat"])
    assert run.error is None and batch.charges == 3
    assert thumbs(batch) == wanted(batch) != set()
    storage = open_storage(str(batch.folder))
    for image in run.result["images"]:
        shown = read_thumbnail(storage, image["uri"].rpartition("/")[2], image["sha256"])
        assert shown.content == (batch.folder / ".nanobanana/thumbs" / thumbnail_name(image["sha256"])).read_bytes()


def test_none_where_none_is_wanted(batch: GenerateTask) -> None:
    run = batch.attempt(prompt="a mug", thumbnails=False)
    assert run.error is None and len(batch.files) == 1 and thumbs(batch) == set()


def test_what_is_neither_true_nor_false_is_refused_before_anything_is_bought(batch: GenerateTask) -> None:
    run = batch.attempt(prompt="a mug", thumbnails="small")
    assert "thumbnails is True or False, not 'small'" in flat(run.error)
    assert batch.charges == 0 and batch.posts == 0


def test_they_are_nothing_that_is_found_or_counted(batch: GenerateTask) -> None:
    requests = [{"prompt": "a mug", "name": "mug"}, "a kite"]
    assert batch.attempt(requests=requests).error is None
    before = thumbs(batch)
    batch.next_run("second")
    run = batch.attempt(requests=requests)
    assert run.error is None and run.result["reused"] == 2 and batch.charges == 2
    assert thumbs(batch) == before


@pytest.mark.parametrize("trouble", ["of the folder", "of the picture"])
def test_trouble_with_them_costs_nothing(batch: GenerateTask, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    real = LocalStorage.write

    def write(self: LocalStorage, name: str, content: bytes, mime_type: str = "application/json") -> None:
        if self.folder.name == "thumbs":
            raise StorageFailed("Could not write: no space left")
        real(self, name, content, mime_type)

    if trouble == "of the folder":
        monkeypatch.setattr(LocalStorage, "write", write)
    else:
        monkeypatch.setattr(decoder._Child, "_thumbnail", lambda self: self._answer(10.0, 1 << 20)[:0])
    run = batch.attempt(requests=["a mug", "a kite"])
    assert run.error is None and run.result["count"] == 2 and batch.charges == 2
    assert thumbs(batch) == set()


def test_a_folder_of_thumbnails_that_is_gone_is_no_matter(batch: GenerateTask) -> None:
    assert batch.attempt(prompt="a mug").error is None
    place: Path = batch.folder / ".nanobanana" / "thumbs"
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    batch.clear()
    run: Any = batch.attempt(prompt="a mug")
    assert run.error is None and batch.charges == 1 and len(batch.files) == 1
