"""What the api-server gives of a picture: bounded, of three kinds, from below the destination alone, in fixed words."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import string
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from airflow_provider_nanobanana.landing.image_store import ImageStore, open_storage
from airflow_provider_nanobanana.landing.shrink_picture import MOST_BYTES
from airflow_provider_nanobanana.landing.storage.base import Storage
from airflow_provider_nanobanana.landing.storage.confined_local import ConfinedLocalStorage
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly, StorageFailed
from airflow_provider_nanobanana.ui import image_bytes
from airflow_provider_nanobanana.ui.image_bytes import (
    NotShown,
    Picture,
    read_confined,
    read_original,
    read_thumbnail,
)
from tests.support.images import grey_pictures, odd_pictures, picture, png_header

PNG = picture("png", (640, 400))
SHA = hashlib.sha256(PNG).hexdigest()
THUMBS = ".nanobanana/thumbs"
HELD = ".nanobanana/quarantine"


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    image_bytes._kept.clear()


@pytest.fixture
def memory() -> Iterator[Storage]:
    files = fsspec.filesystem("memory")
    yield open_storage("memory://bucket/folder")
    files.rm("/", recursive=True)


def put(folder: Path, name: str, content: bytes) -> Storage:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return ConfinedLocalStorage(folder)


def refused(storage: Storage, name: str) -> int:
    """The one status that both readers refuse a name with."""
    with pytest.raises(NotShown) as original:
        read_original(storage, name)
    with pytest.raises(NotShown) as small:
        read_thumbnail(storage, name, None)
    assert original.value.status == small.value.status
    assert str(original.value) == original.value.words != ""
    return original.value.status


def size_of(shown: Picture) -> tuple[int, int]:
    assert shown.media_type == "image/webp"
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.format == "WEBP"
        return image.size


# --- originals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("name", ["a.png", "a", "a.html", f"{HELD}/a.bin"])
def test_the_original_is_given_as_it_is_and_its_bytes_say_what_it_is(
    tmp_path: Path, image_format: str, name: str
) -> None:
    data = picture(image_format)
    assert read_original(put(tmp_path, name, data), name) == Picture(data, f"image/{image_format}")


def test_of_a_store_too_without_asking_for_its_connection_again(
    memory: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.write("a.png", PNG, "image/png")
    memory.below(HELD).write("b.png", PNG, "image/png")
    memory.below(THUMBS).write(f"{SHA[:24]}.webp", b"RIFF\0\0\0\0WEBP made by the worker", "image/webp")
    monkeypatch.setattr(type(memory), "below", never)
    assert read_thumbnail(memory, f"{HELD}/b.png", SHA).content.endswith(b"made by the worker")
    assert read_original(memory, "a.png") == read_original(memory, f"{HELD}/b.png") == Picture(PNG, "image/png")
    assert refused(memory, "c.png") == 404


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", SVG, b"<?xml version='1.0'?>" + SVG, b"<html><script>alert(1)</script>", b"%PDF-1.7", b"GIF89",
        b'{"password": "secret"}', b"root:x:0:0:root:/root:/bin/bash\n", b"RIFF\0\0\0\0WAVE", bytes(999),
        b" " + picture("png"), b"-----BEGIN PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_what_is_no_picture_is_not_given(tmp_path: Path, data: bytes) -> None:
    assert refused(put(tmp_path, "a.png", data), "a.png") == 415


def test_a_picture_of_another_kind_has_a_thumbnail_only(tmp_path: Path) -> None:
    storage = put(tmp_path, "a.gif", picture("gif"))
    with pytest.raises(NotShown) as error:
        read_original(storage, "a.gif")
    assert error.value.status == 415
    assert size_of(read_thumbnail(storage, "a.gif", None)) == (64, 48)


def test_no_more_is_read_than_a_picture_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_bytes, "MAX_BYTES", len(PNG))
    assert read_original(put(tmp_path, "a.png", PNG), "a.png").content == PNG
    assert refused(put(tmp_path, "b.png", PNG + b"x"), "b.png") == 413


def test_a_file_without_end_is_read_to_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_bytes, "MAX_BYTES", 1000)
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(1 << 40)
    assert refused(ConfinedLocalStorage(tmp_path), "sparse.png") == 413


# --- confinement -----------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture that lies beside the destination, which is ``tmp_path/out``."""
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.png").write_bytes(PNG)
    return tmp_path / "secret" / "a.png"


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../secret/a.png", "sub/../../secret/a.png", "/secret/a.png", "//secret/a.png", "sub//a.png",
        "./../secret/a.png", "..\\secret\\a.png", "a.png\0", "../secret/a.png\0.png", "sub/", "sub",
        "%2e%2e/secret/a.png", ".nanobanana/../../secret/a.png", "sub/./a.png", "\n", "x" * 300, "a/" * 3000 + "a.png",
        "\udc80.png", "~/a.png",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_destination(tmp_path: Path, secret: Path, name: str) -> None:
    assert refused(ConfinedLocalStorage(tmp_path / "out"), name) in (404, 502)
    assert refused(ConfinedLocalStorage(tmp_path / "out" / "sub"), name) in (404, 502)


def test_the_whole_path_is_no_name(tmp_path: Path, secret: Path) -> None:
    assert refused(ConfinedLocalStorage(tmp_path / "out"), str(secret)) == 404


def test_ten_thousand_names_lead_nowhere(tmp_path: Path, secret: Path) -> None:
    """Every byte that is read is one of the picture below the destination."""
    inside = picture("webp")
    storage = put(tmp_path / "out", "sub/a.png", inside)
    (tmp_path / "out" / "link").symlink_to(secret.parent)
    rng = random.Random(14)
    parts = ["..", ".", "", "sub", "secret", "a.png", "out", "link", "\\", "\0", str(tmp_path), "%2e%2e", "…", "a.png/"]
    found = 0
    for _ in range(10_000):
        name = "/".join(rng.choice(parts) for _ in range(rng.randrange(1, 6)))
        if rng.random() < 0.3:
            at = rng.randrange(len(name) + 1)
            name = name[:at] + rng.choice(string.printable) + name[at:]
        try:
            content = read_confined(storage, name, 1 << 20)
        except StorageFailed:
            continue
        assert content in (None, inside)
        found += content is not None
    assert found


@pytest.mark.parametrize("where", ["a.png", "sub/a.png", f"{HELD}/a.png"])
def test_a_link_is_not_followed(tmp_path: Path, secret: Path, where: str) -> None:
    link = tmp_path / "out" / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(secret)
    assert refused(ConfinedLocalStorage(tmp_path / "out"), where) in (404, 502)


def test_a_linked_folder_is_not_followed(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "out" / "folder").symlink_to(secret.parent)
    (tmp_path / "out" / ".nanobanana").symlink_to(secret.parent)
    storage = ConfinedLocalStorage(tmp_path / "out")
    assert refused(storage, "folder/a.png") in (404, 502)
    assert refused(storage, ".nanobanana/a.png") in (404, 502)
    assert refused(storage.below("folder"), "a.png") in (404, 502)


def test_a_linked_thumbnail_is_not_followed(tmp_path: Path, secret: Path) -> None:
    storage = put(tmp_path / "out", "a.png", PNG)
    (tmp_path / "out" / ".nanobanana").mkdir()
    (secret.parent / f"{SHA[:24]}.webp").write_bytes(b"RIFF\0\0\0\0WEBP secret")
    (tmp_path / "out" / THUMBS).symlink_to(secret.parent)
    assert b"secret" not in read_thumbnail(storage, "a.png", SHA).content


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    storage = ConfinedLocalStorage(tmp_path)
    assert refused(storage, "pipe.png") == 502
    assert refused(storage, "folder.png") == 502


# --- thumbnails ------------------------------------------------------------------------------------------------------


def never(*_: object) -> bytes:
    raise AssertionError("nothing is to be made")


def test_the_worker_s_is_given_and_nothing_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ImageStore(str(tmp_path), thumbnails=True).land("a", "t", 0, lambda sink: sink.write(PNG))
    monkeypatch.setattr(image_bytes, "make_thumbnail", never)
    (tmp_path / "a.png").unlink()
    (stored,) = (tmp_path / THUMBS).iterdir()
    shown = read_thumbnail(ConfinedLocalStorage(tmp_path), "a.png", SHA)
    assert shown == Picture(stored.read_bytes(), "image/webp")
    assert size_of(shown) == (320, 200)


def test_one_that_is_missing_is_made_once_and_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = put(tmp_path, "a.png", PNG)
    first = read_thumbnail(storage, "a.png", SHA)
    assert size_of(first) == (320, 200)
    monkeypatch.setattr(image_bytes, "make_thumbnail", never)
    assert read_thumbnail(storage, "a.png", SHA) == first
    assert read_thumbnail(storage, "a.png", None) == first
    assert read_thumbnail(storage, "a.png", "no hash") == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_of_a_picture_in_quarantine_the_destination_s_folder_has_it(tmp_path: Path) -> None:
    storage = put(tmp_path, f"{HELD}/a.png", PNG)
    put(tmp_path, f"{THUMBS}/{SHA[:24]}.webp", b"RIFF\0\0\0\0WEBP made by the worker")
    for where, name in ((storage, f"{HELD}/a.png"), (storage.below(HELD), "a.png")):
        assert read_thumbnail(where, name, SHA).content.endswith(b"made by the worker")


@pytest.mark.parametrize("stored", [b"", b"<script>", PNG, b"RIFF\0\0\0\0WEBP" + bytes(MOST_BYTES)])
def test_what_lies_in_its_place_and_is_none_is_not_given(tmp_path: Path, stored: bytes) -> None:
    storage = put(tmp_path, "a.png", PNG)
    put(tmp_path, f"{THUMBS}/{SHA[:24]}.webp", stored)
    assert size_of(read_thumbnail(storage, "a.png", SHA)) == (320, 200)


def test_a_claimed_hash_shows_nothing_of_another_destination(tmp_path: Path) -> None:
    """Whoever writes a manifest may claim the hash of any picture."""
    theirs = put(tmp_path / "theirs", "a.png", PNG)
    assert size_of(read_thumbnail(theirs, "a.png", SHA)) == (320, 200)
    ours = put(tmp_path / "ours", "a.png", picture("png", (30, 30)))
    assert size_of(read_thumbnail(ours, "a.png", SHA)) == (30, 30)
    assert refused(ours, "b.png") == 404
    with pytest.raises(NotShown) as error:
        read_thumbnail(ours, "b.png", SHA)
    assert error.value.status == 404


def test_every_kind_of_picture_has_one(tmp_path: Path) -> None:
    for name, data in {**odd_pictures(), **grey_pictures()}.items():
        assert size_of(read_thumbnail(put(tmp_path, name, data), name, None)) == (320, 240)


@pytest.mark.parametrize(
    ("error", "status", "is_final"),
    [
        (ImageInvalid("broken"), 415, True),
        (ImageTooCostly("10 s"), 413, True),
        (StorageFailed("no child: KEY=secret"), 502, False),
    ],
)
def test_why_none_can_be_made_is_said_and_found_out_once(
    tmp_path: Path, error: Exception, status: int, is_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def fails(data: bytes) -> bytes:
        made.append(data)
        raise error

    monkeypatch.setattr(image_bytes, "make_thumbnail", fails)
    storage = put(tmp_path, "a.png", PNG)
    for _ in range(3):
        with pytest.raises(NotShown) as shown:
            read_thumbnail(storage, "a.png", SHA)
        assert shown.value.status == status
        assert "secret" not in shown.value.words
    assert len(made) == (1 if is_final else 3)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    storage = put(tmp_path, "a.png", png_header(50_000, 50_000))
    with pytest.raises(NotShown) as error:
        read_thumbnail(storage, "a.png", None)
    assert error.value.status == 415


def test_what_the_storage_says_goes_to_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise StorageFailed("Could not read s3://conn@bucket: ClientError: InvalidAccessKeyId")

    storage = put(tmp_path, "a.png", PNG)
    monkeypatch.setattr(image_bytes, "read_confined", fails)
    with caplog.at_level(logging.WARNING):
        assert refused(storage, "a.png") == 502
        with pytest.raises(NotShown) as error:
            read_thumbnail(storage, "a.png", SHA)
    assert error.value.words == "The api-server cannot read this store."
    assert error.value.__cause__ is None and error.value.__suppress_context__
    assert "InvalidAccessKeyId" in caplog.text
