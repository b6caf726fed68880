"""Thumbnails beside the images: written with them, never worth an error, made again by whoever misses one."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from PIL import Image

from airflow_provider_nanobanana.landing import decoder, thumbnails
from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage
from airflow_provider_nanobanana.landing.storage.base import Storage
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.landing.suspects import SuspectCode
from airflow_provider_nanobanana.landing.thumbnails import ThumbnailFolder, is_sha256, make_thumbnail, thumbnail_name
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageSuspect, ImageTooCostly, StorageFailed
from tests.support.images import picture, saved

STEM = "boat-0"
PNG = picture("png", (640, 400))
SHA = hashlib.sha256(PNG).hexdigest()
NAME = f"{SHA[:24]}.webp"


def writes(data: bytes) -> Callable[[BinaryIO], object]:
    return lambda sink: sink.write(data)


def thumbs(folder: Path) -> list[str]:
    place = folder / ".nanobanana" / "thumbs"
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "WEBP"
        return image.size


def other_size(_: StoredImage) -> tuple[SuspectCode, ...]:
    return ("other_size",)


def test_names() -> None:
    assert thumbnail_name(SHA) == NAME
    for bad in ("", SHA[:24], SHA.upper(), f"{SHA}\n", "../" + SHA[3:], "g" * 64):
        assert not is_sha256(bad)
        with pytest.raises(ValueError, match="SHA-256"):
            thumbnail_name(bad)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp", "gif"])
def test_one_is_made_of_any_picture(image_format: str) -> None:
    assert size_of(make_thumbnail(picture(image_format, (640, 400)))) == (320, 200)


def test_it_is_written_with_the_image(tmp_path: Path) -> None:
    stored = ImageStore(str(tmp_path), thumbnails=True).land(STEM, "t", 0, writes(PNG))
    assert (stored.sha256, thumbs(tmp_path)) == (SHA, [NAME])
    assert size_of((tmp_path / ".nanobanana" / "thumbs" / NAME).read_bytes()) == (320, 200)
    assert (tmp_path / f"{STEM}.png").read_bytes() == PNG


def test_none_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    ImageStore(str(tmp_path)).land(STEM, "t", 0, writes(PNG))
    assert not (tmp_path / ".nanobanana").exists()


def test_what_is_in_place_gets_none_and_is_not_decoded_for_one(tmp_path: Path) -> None:
    """The api-server makes those: a run that reuses ten thousand images has enough to do."""
    ImageStore(str(tmp_path)).land(STEM, "t", 0, writes(PNG))
    store = ImageStore(str(tmp_path), thumbnails=True)
    assert store.land(STEM, "t", 0, writes(b"")).sha256 == SHA
    assert store.find(STEM) is not None
    assert thumbs(tmp_path) == []


def test_what_is_kept_apart_has_one_and_keeps_it(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path), thumbnails=True)
    with pytest.raises(ImageSuspect):
        store.land(STEM, "t", 0, writes(PNG), on_suspect="quarantine", judge=other_size)
    assert thumbs(tmp_path) == [NAME]
    before = (tmp_path / ".nanobanana" / "thumbs" / NAME).stat()
    held = store.find_in_quarantine(STEM)
    assert held is not None
    store.accept(STEM, held)
    assert (tmp_path / f"{STEM}.png").read_bytes() == PNG
    assert (tmp_path / ".nanobanana" / "thumbs" / NAME).stat() == before


@pytest.mark.parametrize("wanted", [True, False])
def test_what_was_kept_apart_without_one_gets_it_when_it_is_accepted(tmp_path: Path, wanted: bool) -> None:
    with pytest.raises(ImageSuspect):
        ImageStore(str(tmp_path)).land(STEM, "t", 0, writes(PNG), on_suspect="quarantine", judge=other_size)
    store = ImageStore(str(tmp_path), thumbnails=wanted)
    assert store.land(STEM, "t", 0, writes(b"")).sha256 == SHA
    assert thumbs(tmp_path) == ([NAME] if wanted else [])


def test_what_no_thumbnail_can_be_made_of_is_landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder._Child, "_thumbnail", lambda self: self._answer(10.0, 1 << 20)[:0])
    store = ImageStore(str(tmp_path), thumbnails=True)
    assert store.land(STEM, "t", 0, writes(PNG)).sha256 == SHA
    assert thumbs(tmp_path) == []


class Failing(LocalStorage):
    """A folder that takes no file."""

    tried = 0

    def write(self, name: str, content: bytes, mime_type: str = "application/json") -> None:
        Failing.tried += 1
        raise StorageFailed("Could not write x: PermissionError")


def test_one_that_cannot_be_written_is_no_error_of_the_image_and_the_last_that_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(str(tmp_path), thumbnails=True)
    real = store.reserved

    def reserved(folder: str) -> Storage:
        return Failing(tmp_path / "x") if folder == "thumbs" else real(folder)

    monkeypatch.setattr(store, "reserved", reserved)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            stored = store.land(f"{STEM}{number}", "t", number, writes(PNG))
            assert (tmp_path / f"{STEM}{number}.png").exists() and stored.sha256 == SHA
    assert Failing.tried == 1
    (said,) = [record.getMessage() for record in caplog.records]
    assert "No further thumbnails" in said and "PermissionError" in said


def test_a_file_in_the_place_of_the_folder_stops_no_image(tmp_path: Path) -> None:
    (tmp_path / ".nanobanana").mkdir()
    (tmp_path / ".nanobanana" / "thumbs").write_text("mine")
    store = ImageStore(str(tmp_path), thumbnails=True)
    assert store.land(STEM, "t", 0, writes(PNG)).sha256 == SHA
    assert (tmp_path / ".nanobanana" / "thumbs").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (ImageInvalid("broken"), True),
        (ImageTooCostly("10 s"), True),
        (StorageFailed("no child"), False),
        (MemoryError(), False),
        (FileNotFoundError(2, "gone"), False),
    ],
)
def test_whatever_happens_to_one_that_is_missing(
    tmp_path: Path, error: Exception, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: bytes) -> bytes:
        raise error

    monkeypatch.setattr(thumbnails, "make_thumbnail", fails)
    (tmp_path / "a.png").write_bytes(PNG)
    folder = ThumbnailFolder(lambda: LocalStorage(tmp_path / "thumbs"), wanted=True)
    folder.write_missing(SHA, tmp_path / "a.png")
    assert folder.wanted is goes_on
    assert not (tmp_path / "thumbs").exists()


def test_nothing_is_asked_of_the_storage_for_nothing(tmp_path: Path) -> None:
    def place() -> Storage:
        raise AssertionError("no thumbnail is to be written")

    ThumbnailFolder(place, wanted=True).write(SHA, b"")
    off = ThumbnailFolder(place, wanted=False)
    off.write(SHA, b"x")
    off.write_missing(SHA, tmp_path / "missing.png")


def test_a_picture_of_one_colour_has_a_small_one(tmp_path: Path) -> None:
    """Suspect, in place with a warning, and looked at for that reason."""
    data = saved(Image.new("RGB", (1024, 1024), "navy"), "png")
    stored = ImageStore(str(tmp_path), thumbnails=True).land(STEM, "t", 0, writes(data))
    assert stored.suspect == ("one_colour",)
    assert thumbs(tmp_path) == [thumbnail_name(stored.sha256)]
