"""Bytes that were paid and fail a check: kept, said so, asked for again, and never taken for an image."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

from airflow_provider_nanobanana.landing import image_store
from airflow_provider_nanobanana.landing.decoder import decode_file
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.landing.file_names import stem_for
from airflow_provider_nanobanana.landing.image_file import ImageFacts
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.quarantine import Quarantine
from airflow_provider_nanobanana.landing.reuse import find_existing
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.toapis.errors import (
    DownloadFailed,
    ImageInvalid,
    ImageSuspect,
    ImageTooCostly,
    InvalidRequest,
    ResultMissing,
    StorageFailed,
    ToApisError,
    UnsafeAddress,
)
from airflow_provider_nanobanana.toapis.models import GeneratedImage, ImageTask
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.images import picture
from tests.support.link_server import Send, respond, serve
from tests.support.session import make_session

ID = "tsk_img_01KXYZ"
STEM = stem_for(ID, 0)
PNG = picture("png")
HTML = b"<!DOCTYPE html><html><body>Bad gateway</body></html>"


def refused(landing: ImageStore, data: bytes, stem: str = STEM) -> ImageInvalid:
    with pytest.raises(ImageInvalid) as caught:
        landing.land(stem, ID, 0, lambda sink: sink.write(data))
    return caught.value


def kept_in(folder: Path) -> list[Path]:
    return sorted((folder / ".nanobanana" / "quarantine").iterdir())


@pytest.mark.parametrize(
    ("data", "suffix", "reason"),
    [
        (PNG[:-30], ".png", "truncated"),
        (picture("jpeg")[:800], ".jpg", "truncated"),
        (picture("webp")[:-9], ".webp", "truncated"),
        (picture("gif")[:-40], ".gif", "truncated"),
        (picture("bmp"), ".bmp", "a BMP image, which is not landed"),
        (picture("tiff"), ".tif", "a TIFF image"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(50), ".heic", "a HEIC image"),
        (b"\xff\x0a" + bytes(50), ".jxl", "a JPEG XL image"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(50), ".jp2", "a JPEG 2000 image"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42" + bytes(50), ".mp4", "a video"),
        (b"<?xml version='1.0'?>\n<!-- made -->\n<svg xmlns='http://www.w3.org/2000/svg'/>", ".svg", "an SVG drawing"),
        (HTML, ".html", "Bad gateway"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ".xml", "AccessDenied"),
        (b'\n{"error": "expired"}', ".json", "expired"),
        ("链接已过期".encode(), ".txt", "链接已过期"),
        (b"PK\x03\x04" + bytes(range(128, 250)), ".zip", "begin with 50 4b"),
        (bytes(1000), ".bin", "begin with 00"),
    ],
)
def test_what_fails_a_check_is_kept_with_the_reason(tmp_path: Path, data: bytes, suffix: str, reason: str) -> None:
    error = refused(ImageStore(str(tmp_path)), data)
    (path,) = kept_in(tmp_path)
    digest = hashlib.sha256(data).hexdigest()
    assert path.read_bytes() == data
    assert path.name == f"{STEM}.{digest[:12]}{suffix}"
    assert error.kept is not None
    said = dict(error.kept)
    assert reason in said.pop("reason")
    assert said == {"uri": f"file://{path}", "id": ID, "index": 0, "sha256": digest, "bytes": len(data)}
    assert str(path) in error.message
    assert (error.retryable, error.charged) == (True, "yes")
    assert list(tmp_path.iterdir()) == [tmp_path / RESERVED]


def test_other_bytes_get_another_name_and_the_same_are_kept_once(tmp_path: Path) -> None:
    landing = ImageStore(str(tmp_path))
    for data in (PNG[:-30], PNG[:-31], PNG[:-30]):
        refused(landing, data)
    assert sorted(len(path.read_bytes()) for path in kept_in(tmp_path)) == [len(PNG) - 31, len(PNG) - 30]


def test_what_is_kept_is_never_taken_for_an_image(tmp_path: Path) -> None:
    landing = ImageStore(str(tmp_path))
    refused(landing, PNG[:-30])
    quarantine = tmp_path / RESERVED / "quarantine"
    (quarantine / f"{STEM}.png").write_bytes(PNG)
    many = {STEM, *(f"other-{number}" for number in range(40))}
    assert landing.present(many) == landing.present([STEM]) == set()
    assert landing.find(STEM) is None
    assert find_existing(landing, [("k", STEM)]) == {}
    for inside in (quarantine, tmp_path / RESERVED, f"file://{quarantine}/x", f"s3://bucket/{RESERVED}"):
        with pytest.raises(InvalidRequest, match="own folder"):
            ImageStore(inside)
    for stem in (RESERVED, f"{RESERVED}/quarantine/x", f"../{RESERVED}"):
        with pytest.raises(InvalidRequest, match="cannot name a file"):
            landing.land(stem, ID, 0, lambda sink: sink.write(PNG))
        assert RESERVED not in landing.write_manifest(stem, {}).removeprefix(f"file://{tmp_path}").split("/")


def test_a_quarantine_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / RESERVED).write_text("a file where the folder should be")
    error = refused(ImageStore(str(tmp_path)), HTML)
    assert error.kept is None
    assert "Bad gateway" in error.message
    assert "could not be kept: Could not write" in error.message
    assert error.__cause__ is not error


def test_nothing_is_kept_of_nothing(tmp_path: Path) -> None:
    error = refused(ImageStore(str(tmp_path)), b"")
    assert (error.kept, error.message) == (None, "The file is no image but empty")
    assert list(tmp_path.iterdir()) == []


def test_what_is_said_of_a_kept_file_is_small(tmp_path: Path) -> None:
    folder = tmp_path / ("ü" * 20) / ("x" * 60)
    error = refused(ImageStore(folder), ("é" * 400).encode(), "s" * 100)
    assert error.kept is not None
    assert len(json.dumps(dict(error.kept))) <= 600
    assert error.kept["reason"].startswith("The file is no image")


def test_too_little_memory_is_no_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing = ImageStore(str(tmp_path))
    landing.land(STEM, ID, 0, lambda sink: sink.write(PNG))
    for failure in (MemoryError(), OSError(5, "read"), StorageFailed("its process ended: SIGKILL")):
        monkeypatch.setattr(image_store, "decode_file", Mock(side_effect=failure))
        with pytest.raises(StorageFailed, match=r"MemoryError|read|SIGKILL"):
            landing.find(STEM)  # not "broken", which would be bought again
    assert not (tmp_path / RESERVED).exists()


# --- from the link to the quarantine ---------------------------------------------------------------------------------


class Service:
    """Answers each question for an image task with the next of some images; counts."""

    def __init__(self, *images: GeneratedImage) -> None:
        self.images = list(images)
        self.asked = 0

    def call(self, call: object, retry: object = None) -> Any:
        self.asked += 1
        image = self.images.pop(0) if len(self.images) > 1 else self.images[0]
        return ImageTask(id=ID, status=ImageTaskStatus.COMPLETED, wire_status="completed", images=(image,))


def retrieval(folder: Path, service: Service, waits: list[float] | None = None) -> ImageDownloader:
    """A retrieval whose session only asks for links, and may reach this machine."""
    sleep = (waits if waits is not None else []).append
    return ImageDownloader(make_session(service, sleep=sleep, timeout=5.0), str(folder))


@pytest.fixture
def bodies() -> Iterator[tuple[list[bytes], Callable[[], GeneratedImage], list[str]]]:
    """Bodies to serve one after another (the last for ever), the image that links there, and what was asked for."""
    waiting: list[bytes] = []
    asked: list[str] = []

    def answer(path: str, send: Send) -> None:
        asked.append(path)
        send(respond(200, waiting.pop(0) if len(waiting) > 1 else waiting[0]))

    with serve(answer) as server:
        yield waiting, lambda: GeneratedImage(id=ID, index=0, url=server.url()), asked


Bodies = tuple[list[bytes], Callable[[], GeneratedImage], list[str]]


def test_the_same_bytes_twice_are_final(tmp_path: Path, bodies: Bodies) -> None:
    waiting, image, asked = bodies
    waiting.append(HTML)
    waits: list[float] = []
    with retrieval(tmp_path, Service(image()), waits) as one, pytest.raises(ImageInvalid) as caught:
        one.land(image())
    assert (len(asked), waits) == (2, [1.0])
    assert caught.value.kept is not None
    assert len(kept_in(tmp_path)) == 1


def too_costly_below(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file of fewer bytes take too much time."""

    def decode(path: Path, *, thumbnail: bool) -> ImageFacts:
        if path.stat().st_size < most:
            raise ImageTooCostly("Decoding the image takes more than 10 s of processor time, the limit for one file")
        return decode_file(path, thumbnail=thumbnail)

    monkeypatch.setattr(image_store, "decode_file", decode)


def test_what_takes_too_much_is_kept_and_final_at_once(
    tmp_path: Path, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, image, asked = bodies
    waiting.append(PNG)
    too_costly_below(len(PNG) + 1, monkeypatch)
    with retrieval(tmp_path, Service(image())) as one, pytest.raises(ImageTooCostly) as caught:
        one.land(image())
    assert len(asked) == 1
    (path,) = kept_in(tmp_path)
    assert path.read_bytes() == PNG
    for words in ("10 s of processor time", path.name, "it is paid, and not bought again"):
        assert words in caught.value.message
    assert caught.value.kept is not None


def test_where_inline_bytes_take_too_much_the_link_is_tried(
    tmp_path: Path, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, image, asked = bodies
    waiting.append(PNG)
    too_costly_below(len(PNG), monkeypatch)
    both = image().model_copy(update={"b64_json": base64.b64encode(PNG[:-9]).decode()})
    with retrieval(tmp_path, Service(both)) as one:
        assert one.land(both).bytes == len(PNG)
    assert len(asked) == 1


def test_other_bytes_are_tried_on_until_an_image_comes(tmp_path: Path, bodies: Bodies) -> None:
    waiting, image, asked = bodies
    waiting += [HTML, PNG[:-30], PNG]
    waits: list[float] = []
    with retrieval(tmp_path, Service(image()), waits) as one:
        assert one.land(image()).bytes == len(PNG)
    assert (len(asked), waits) == (3, [1.0, 2.0])
    assert len(kept_in(tmp_path)) == 2


def test_bytes_that_came_before_the_last_are_final_too(tmp_path: Path, bodies: Bodies) -> None:
    waiting, image, asked = bodies
    waiting += [HTML, PNG[:-30], HTML, PNG]
    with retrieval(tmp_path, Service(image())) as one, pytest.raises(ImageInvalid):
        one.land(image())
    assert len(asked) == 3


def test_text_that_is_no_base64_is_kept_as_it_came(tmp_path: Path) -> None:
    image = GeneratedImage(id=ID, index=0, b64_json="data:image/png;base64,!!not base64!!")
    service = Service(image)
    with retrieval(tmp_path, service) as one, pytest.raises(ImageInvalid, match="not base64"):
        one.land(image)
    (path,) = kept_in(tmp_path)
    assert path.read_text() == image.b64_json
    assert service.asked == 1


def test_where_inline_bytes_are_no_picture_the_link_is_tried(tmp_path: Path, bodies: Bodies) -> None:
    waiting, image, asked = bodies
    waiting.append(PNG)
    both = image().model_copy(update={"b64_json": base64.b64encode(HTML).decode()})
    with retrieval(tmp_path, Service(both)) as one:
        assert one.land(both).bytes == len(PNG)
    assert len(asked) == 1


def test_more_than_is_taken_is_not_kept_and_says_so(tmp_path: Path, bodies: Bodies) -> None:
    def answer(path: str, send: Send) -> None:
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 70000000\r\n\r\n")

    with serve(answer) as server:
        image = GeneratedImage(id=ID, index=0, url=server.url())
        with retrieval(tmp_path, Service(image)) as one, pytest.raises(ImageInvalid, match="none kept") as caught:
            one.land(image)
    assert caught.value.kept is None


def test_a_body_that_may_have_been_cut_says_so(tmp_path: Path) -> None:
    def answer(path: str, send: Send) -> None:
        send(respond(200, PNG[:-30], length=False))

    with serve(answer) as server:
        image = GeneratedImage(id=ID, index=0, url=server.url())
        with (
            retrieval(tmp_path, Service(image)) as one,
            pytest.raises(ImageInvalid, match="where it ends was not said"),
        ):
            one.land(image)


@pytest.mark.parametrize(
    "entry",
    [
        {"id": ID, "index": 10**5000}, {"id": ID, "index": -1}, {"id": ID, "index": True}, {"id": ID, "index": 1.0},
        {"id": ID, "index": None}, {"id": ""}, {"id": "a\x00b"}, {"id": "\ud800"}, {"id": "a\nb"}, {"id": "x" * 1000},
        {"id": 5}, {}, {"id": ID, "url": 5}, {"id": ID, "url": ["x"]},
    ],
)  # fmt: skip
def test_an_entry_that_is_none_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    with retrieval(tmp_path, Service(GeneratedImage(id=ID))) as one, pytest.raises(InvalidRequest, match="An image to"):
        one.land(entry)


@pytest.mark.parametrize(
    "url",
    [
        "\ud800", "https://h.example/\ud800", "https://xn--a/", "https://xn--zzzzzz.com/", "javascript:alert(1)", "x y",
        "https://h.example:99999/", "https://[::1", "https://" + "a" * 64 + ".com/",
        "https://h.example/" + "a" * 70_000,
        "http://ä.example/", "data:image/png;base64,AAAA", "//", "",
    ],
)  # fmt: skip
def test_any_text_in_place_of_a_link_ends_in_the_tree(tmp_path: Path, url: str) -> None:
    image = GeneratedImage.model_construct(id=ID, index=0, url=url, b64_json=None)
    with retrieval(tmp_path, Service(image)) as one:
        for given in (image, {"id": ID, "url": url}):
            with pytest.raises((UnsafeAddress, DownloadFailed, ResultMissing)) as caught:
                one.land(given)
            assert isinstance(caught.value, ToApisError)


# --- suspect pictures ------------------------------------------------------------------------------------------------


def test_of_two_suspect_pictures_of_an_image_both_are_kept(tmp_path: Path) -> None:
    """Two runs at once, each with a purchase of its own: neither has seen the other's."""
    stores = [ImageStore(str(tmp_path)), ImageStore(str(tmp_path))]
    assert [store.in_quarantine([STEM]) for store in stores] == [set(), set()]
    for store, picture_of_one in zip(stores, map(plain, ("white", "black")), strict=True):
        source = io.BytesIO(picture_of_one)
        with pytest.raises(ImageSuspect) as caught:
            store.land(STEM, ID, 0, partial(shutil.copyfileobj, source), on_suspect="quarantine")
        kept = caught.value.kept
        assert kept is not None
        content = Path(str(kept["uri"]).removeprefix("file://")).read_bytes()
        assert content == picture_of_one and hashlib.sha256(content).hexdigest() == kept["sha256"]
    assert len(kept_in(tmp_path)) == 2
    assert ImageStore(str(tmp_path)).in_quarantine([STEM]) == {STEM}


def plain(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "png")
    return buffer.getvalue()


def test_a_suspect_picture_is_kept_where_this_account_may_not_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(str(tmp_path))

    def refuse(*_: object) -> list[str]:
        raise StorageFailed("no rights") from PermissionError("list")

    monkeypatch.setattr(Quarantine, "names", refuse)
    with pytest.raises(ImageSuspect):
        store.land(STEM, ID, 0, lambda sink: sink.write(plain("white")), on_suspect="quarantine")
    assert len(kept_in(tmp_path)) == 1


def test_of_two_tasks_that_accept_a_picture_at_once_both_have_it(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    with pytest.raises(ImageSuspect):
        store.land(STEM, ID, 0, lambda sink: sink.write(plain("white")), on_suspect="quarantine")
    held = store.find_in_quarantine(STEM)
    assert held is not None
    first, second = store.accept(STEM, held), ImageStore(str(tmp_path)).accept(STEM, held)
    assert first.uri == second.uri == (tmp_path / f"{STEM}.png").as_uri() and first.sha256 == second.sha256
    Path(first.uri.removeprefix("file://")).unlink()
    with pytest.raises(StorageFailed):
        store.accept(STEM, held)
