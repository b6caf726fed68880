from __future__ import annotations

import base64
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from airflow_provider_nanobanana.landing import ImageStore, StoredImage, decode_b64, stem_for
from airflow_provider_nanobanana.landing.storage import MAX_DESTINATION
from airflow_provider_nanobanana.toapis.errors import (
    DownloadFailed,
    ImageInvalid,
    InvalidRequest,
    StorageFailed,
)
from tests.support.images import FORMATS, SUFFIX, jpeg_with_provenance, picture, png_with_provenance

ID = "task_img_abc"
STEM = stem_for(ID, 0)
PNG = picture("png")


def writes(data: bytes) -> Callable[[BinaryIO], object]:
    return lambda sink: sink.write(data)


def untouched(sink: BinaryIO) -> object:
    raise AssertionError("the image is there: nothing may be downloaded")


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def files_in(folder: Path) -> list[str]:
    """What people see there: not what the provider keeps in its own folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not yet" / "there"


@pytest.mark.parametrize("data", [png_with_provenance(), jpeg_with_provenance(), *map(picture, FORMATS)])
def test_bytes_land_verbatim(folder: Path, data: bytes) -> None:
    stored = ImageStore(f"file://{folder}").land(STEM, ID, 0, writes(data))
    (name,) = everything_in(folder)
    assert (folder / name).read_bytes() == data
    assert stored.uri == f"file://{folder}/{name}"
    assert name == STEM + SUFFIX[stored.format]


def test_record_is_small_plain_json(folder: Path) -> None:
    stored = ImageStore(str(folder)).land(STEM, ID, 3, writes(PNG))
    record = json.loads(json.dumps(stored.record()))
    assert record == {
        "uri": f"file://{folder}/{STEM}.png",
        "id": ID,
        "index": 3,
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "bytes": len(PNG),
        "format": "png",
        "width": 64,
        "height": 48,
    }
    assert StoredImage(**record) == stored


def test_the_longest_record_stays_under_600_bytes() -> None:
    destination = "memory://" + "é" * 30 + "x" * (MAX_DESTINATION - 9 - 6 * 30)
    long_id = "A" * 60
    name = f"{stem_for(long_id, 9999)}.webp"
    stored = StoredImage(
        uri=f"{destination}/{name}", id=long_id, index=9999, sha256="f" * 64, bytes=64 * 2**20, format="webp",
        width=12288, height=12288,
    )  # fmt: skip
    assert ImageStore(destination)
    assert len(json.dumps(stored.record())) <= 600
    with pytest.raises(InvalidRequest, match="longer than 256"):
        ImageStore(destination + "x")


def test_second_landing_downloads_nothing_and_overwrites_nothing(folder: Path) -> None:
    landing = ImageStore(str(folder))
    first = landing.land(STEM, ID, 0, writes(picture("jpeg")))
    stamp = (folder / f"{STEM}.jpg").stat().st_mtime_ns
    assert landing.land(STEM, ID, 0, untouched) == first
    assert ImageStore(f"file://{folder}/").land(STEM, ID, 0, untouched) == first
    assert landing.find(STEM, image_id=ID) == first
    assert (folder / f"{STEM}.jpg").stat().st_mtime_ns == stamp


def test_find_in_a_folder_that_is_not_there(folder: Path) -> None:
    assert ImageStore(str(folder)).find(STEM) is None
    assert not folder.exists()


@pytest.mark.parametrize("broken", [b"", b"<html>", PNG[:-20], PNG[: len(PNG) // 2]])
def test_a_broken_file_does_not_count_and_is_replaced(folder: Path, broken: bytes) -> None:
    landing = ImageStore(str(folder))
    folder.mkdir(parents=True)
    for suffix in (".png", ".jpg"):
        (folder / f"{STEM}{suffix}").write_bytes(broken)
    assert landing.find(STEM) is None
    assert everything_in(folder) == [f"{STEM}.jpg", f"{STEM}.png"]
    landing.land(STEM, ID, 0, writes(PNG))
    assert everything_in(folder) == [f"{STEM}.png"]


def test_a_broken_file_stays_until_there_is_a_better_one(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{STEM}.jpg").write_bytes(b"half an image")
    with pytest.raises(ImageInvalid):
        ImageStore(str(folder)).land(STEM, ID, 0, writes(b"<html>"))
    assert files_in(folder) == [f"{STEM}.jpg"]


def test_another_size_than_asked_for_is_landed_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    landing = ImageStore(str(folder))
    with caplog.at_level(logging.WARNING):
        landing.land(stem_for(ID, 0), ID, 0, writes(PNG), expected_pixels=(64, 48))
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert landing.land(stem_for(ID, 1), ID, 1, writes(PNG), expected_pixels=(1024, 1024)).width == 64
    assert "64x48 pixels, asked for 1024x1024" in caplog.text


@pytest.mark.parametrize(
    ("problem", "seen"),
    [
        (DownloadFailed("refused", http_status=403), DownloadFailed),
        (OSError(errno.ENOSPC, "No space left on device"), StorageFailed),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_nothing_is_left_behind_by_a_failure(folder: Path, problem: BaseException, seen: type[BaseException]) -> None:
    def fetch(sink: BinaryIO) -> object:
        sink.write(PNG[:100])
        assert len(everything_in(folder)) == 1, "written beside its final place, hidden"
        assert everything_in(folder)[0].startswith(".")
        raise problem

    with pytest.raises(seen):
        ImageStore(str(folder)).land(STEM, ID, 0, fetch)
    assert everything_in(folder) == []


def test_what_is_no_image_is_not_landed(folder: Path) -> None:
    with pytest.raises(ImageInvalid, match="504 Gateway"):
        ImageStore(str(folder)).land(STEM, ID, 0, writes(b"<html><h1>504 Gateway</h1></html>"))
    assert files_in(folder) == []


def test_inline_images_land_like_links(folder: Path) -> None:
    text = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert ImageStore(str(folder)).land(STEM, ID, 0, lambda sink: decode_b64(text, sink)).bytes == len(PNG)
    with pytest.raises(ImageInvalid, match="not base64"):
        ImageStore(str(folder)).land(stem_for(ID, 1), ID, 1, lambda sink: decode_b64("###", sink))
    assert everything_in(folder) == [f"{STEM}.png"]


@pytest.mark.parametrize("stem", ["", "..", "a/b", "../a", ".hidden", "a\x00", "-a", "a" * 104, "a b", "é"])
def test_a_stem_must_be_one_plain_name(folder: Path, stem: str) -> None:
    with pytest.raises(InvalidRequest):
        ImageStore(str(folder)).land(stem, ID, 0, untouched)


# --- manifest --------------------------------------------------------------------------------------------------------


def test_manifest_is_sorted_and_named_safely(folder: Path) -> None:
    landing = ImageStore(str(folder))
    for number in (1, 2):
        uri = landing.write_manifest(
            "manual__2026-01-01T00:00:00+00:00/../x", {"z": "é", "a": {"d": number, "c": None}}
        )
    (name,) = everything_in(folder)
    assert uri == f"file://{folder}/{name}"
    assert (folder / name).read_text() == '{\n  "a": {\n    "c": null,\n    "d": 2\n  },\n  "z": "é"\n}\n'
    assert name.endswith(".json")
    assert "/" not in name


@pytest.mark.parametrize("data", [{"a": object()}, {"a": float("nan")}])
def test_a_manifest_that_is_no_json_writes_nothing(folder: Path, data: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        ImageStore(str(folder)).write_manifest("run", data)
    assert everything_in(folder) == []


def test_could_not_look_is_not_not_there(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{STEM}.png").symlink_to(folder / f"{STEM}.png")  # a loop: stat fails
    with pytest.raises(StorageFailed):
        ImageStore(str(folder)).land(STEM, ID, 0, untouched)


def test_a_directory_in_the_way_is_a_storage_failure(folder: Path) -> None:
    (folder / f"{STEM}.png").mkdir(parents=True)
    with pytest.raises(StorageFailed):
        ImageStore(str(folder)).land(STEM, ID, 0, writes(PNG))
    assert everything_in(folder) == [f"{STEM}.png"]


def test_others_may_read_what_landed(folder: Path) -> None:
    mask = os.umask(0o027)
    try:
        ImageStore(str(folder)).land(STEM, ID, 0, writes(PNG))
    finally:
        os.umask(mask)
    assert (folder / f"{STEM}.png").stat().st_mode & 0o777 == 0o640
