"""Images landed before are found with few listings, verified, and never called "not there" for want of an answer."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_nanobanana.landing import image_store as image_store_module
from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage
from airflow_provider_nanobanana.landing.reuse import find_existing, find_numbered
from airflow_provider_nanobanana.toapis.errors import ImageTooCostly, InvalidRequest, StorageFailed
from tests.support.images import picture

PNG = picture("png", (8, 8))
JPEG = picture("jpeg", (8, 8))


class Listed(MemoryFileSystem):
    """A store that counts what it is asked."""

    cachable = False
    old = False
    """Whether it is an s3fs before 2026, which cannot keep a prefix and a depth apart."""

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self.asked: list[str] = []
        self.trouble: Exception | None = None

    def find(self, path: str, maxdepth: int | None = None, prefix: str = "", **options: Any) -> Any:
        if maxdepth is not None and self.old:
            raise ValueError("Can not specify 'prefix' option alongside 'maxdepth'")
        self._count(f"find {prefix}")
        start = f"/{path.strip('/')}/{prefix}"
        depth = start.count("/") if maxdepth else 99
        return [name.lstrip("/") for name in self.store if name.startswith(start) and name.count("/") <= depth]

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self._count("ls")
        return super().ls(path, detail=detail)

    def info(self, path: str, **options: Any) -> Any:
        self._count("info")
        return super().info(path)

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        self._count("get")
        Path(lpath).write_bytes(self.cat_file(rpath))

    def _count(self, call: str) -> None:
        self.asked.append(call)
        if self.trouble:
            raise self.trouble


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listed]:
    from airflow.sdk.io.store import ObjectStore

    made = Listed()
    monkeypatch.setattr(
        "airflow.sdk.io.store._STORE_CACHE", {name: ObjectStore(name, None, made) for name in ("memory", "s3")}
    )
    yield made


def stems(count: int) -> list[str]:
    """As a batch has them: the beginning of a hash, and which of several like it."""
    return [f"{hashlib.sha256(str(number).encode()).hexdigest()[:16]}-0" for number in range(count)]


def keyed(names: list[str]) -> list[tuple[str, str]]:
    return [(f"key of {name}", name) for name in names]


# --- what counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 40])
def test_whole_images_count_and_nothing_else_does(tmp_path: Path, many: int) -> None:
    names = stems(many * 5)
    whole, broken, other, folder, missing = (names[n * many : (n + 1) * many] for n in range(5))
    for number, name in enumerate(whole):
        (tmp_path / f"{name}{'.png' if number % 2 else '.jpg'}").write_bytes(PNG if number % 2 else JPEG)
    for name in broken:
        (tmp_path / f"{name}.png").write_bytes(PNG[:-20])
    for name in other:
        (tmp_path / f"{name}.json").write_bytes(b"{}")
    for name in folder:
        (tmp_path / name).mkdir()
    (tmp_path / "somebody else's.png").write_bytes(PNG)
    found = find_existing(ImageStore(str(tmp_path)), keyed(names))
    assert sorted(found) == sorted(f"key of {name}" for name in whole)
    assert missing[0] not in str(found)
    image = found[f"key of {whole[0]}"]
    assert (image.uri, image.bytes, image.width) == (f"file://{tmp_path}/{whole[0]}.jpg", len(JPEG), 8)


def test_a_broken_file_beside_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"half")
    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert find_existing(ImageStore(str(tmp_path)), [("k", "a")])["k"].uri.endswith("a.jpg")


@pytest.mark.parametrize("many", [0, 1, 100])
def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path, many: int) -> None:
    folder = tmp_path / "not yet"
    assert find_existing(ImageStore(str(folder)), keyed(stems(many))) == {}
    assert not folder.exists()


def test_the_record_of_a_found_image_is_that_of_the_landed_one(tmp_path: Path) -> None:
    landing = ImageStore(str(tmp_path))
    landed = landing.land("hero", "tsk_img_1", 0, lambda sink: sink.write(PNG))
    found = find_existing(landing, [("k", "hero")])["k"]
    assert found == landed.model_copy(update={"id": ""})


def test_a_name_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a file"):
        find_existing(ImageStore(str(tmp_path)), [("k", "../hero")])


# --- names with a number ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 30])
@pytest.mark.parametrize("destination", ["folder", "s3://bucket/x", "memory://bucket/x"])
def test_numbered_names_are_found_whatever_their_number(
    store: Listed, tmp_path: Path, destination: str, many: int
) -> None:
    heads = [stem.rpartition("-")[0] for stem in stems(many)]
    names = [
        f"{heads[0]}-{end}" for end in ("0.png", "3.jpg", "7.webp", "0.1.png", "5-cafe0123.png", "06.png", "2.json")
    ]
    for name in [*names, "f" * 16 + "-0.png"]:
        store.pipe_file(f"/bucket/x/{name}", b"")
        (tmp_path / name).write_bytes(b"")
    place = ImageStore(str(tmp_path) if destination == "folder" else destination)
    assert find_numbered(place, dict.fromkeys(heads, 3)) == {f"{heads[0]}-{number}" for number in (0, 3, 7)}


def test_what_is_there_is_no_more_to_ask_for_than_before(
    store: Listed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    head = stems(1)[0].rpartition("-")[0]
    find_numbered(ImageStore("s3://bucket/x"), {head: 2})
    assert sorted(store.asked) == [f"find {head}-", "ls"]  # the latter of the quarantine
    scandir = os.scandir
    most = lambda path: pytest.fail("a folder may hold a million other files") if path == tmp_path else scandir(path)  # noqa: E731
    monkeypatch.setattr(os, "scandir", most)
    for number in (1, 9, 10):
        (tmp_path / f"{head}-{number}.png").write_bytes(b"")
    assert find_numbered(ImageStore(str(tmp_path)), {head: 2}) == {f"{head}-1", f"{head}-9"}
    assert find_numbered(ImageStore(str(tmp_path)), {head: 1}) == {f"{head}-1"}


@pytest.mark.parametrize("many", [1, 100])
@pytest.mark.parametrize("scheme", ["s3", "memory"])
def test_numbers_that_could_not_be_asked_for_are_not_free(store: Listed, scheme: str, many: int) -> None:
    store.trouble = PermissionError("AccessDenied")
    heads = {stem.rpartition("-")[0]: 1 for stem in stems(many)}
    with pytest.raises(StorageFailed, match=r"could not be found out: .*AccessDenied.* Nothing was bought"):
        find_numbered(ImageStore(f"{scheme}://bucket/x"), heads)
    assert find_numbered(ImageStore(f"{scheme}://bucket/x"), {}) == set()


# --- how it reads and what stops it -----------------------------------------------------------------------------------


def test_few_files_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = stems(40)
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(PNG)
    now, most, lock, find = 0, 0, threading.Lock(), ImageStore.find

    def counted(self: ImageStore, stem: str, **options: Any) -> StoredImage | None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return find(self, stem, **options)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(ImageStore, "find", counted)
    assert len(find_existing(ImageStore(str(tmp_path)), keyed(names), threads=3)) == 40
    assert most <= 3


# --- could not ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 100])
@pytest.mark.parametrize("scheme", ["s3", "memory"])
def test_could_not_ask_is_not_not_there(store: Listed, scheme: str, many: int) -> None:
    store.trouble = PermissionError("AccessDenied")
    with pytest.raises(StorageFailed, match=r"could not be found out: .*AccessDenied.* Nothing was bought") as failed:
        find_existing(ImageStore(f"{scheme}://bucket/x"), keyed(stems(many)))
    assert failed.value.charged == "no"


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(StorageFailed):
        find_existing(ImageStore(str(tmp_path / "x")), keyed(stems(100)))


def test_a_file_that_cannot_be_read_is_not_broken(tmp_path: Path) -> None:
    names = stems(30)
    (tmp_path / f"{names[0]}.png").symlink_to(tmp_path / f"{names[0]}.png")  # a loop: stat fails
    with pytest.raises(StorageFailed):
        find_existing(ImageStore(str(tmp_path)), keyed(names))


def test_a_file_that_cannot_be_decoded_here_is_not_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(path: object, **_: object) -> None:
        raise ImageTooCostly("The image's decoder crashed twice (SIGILL)")

    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(image_store_module, "decode_file", crash)
    with pytest.raises(StorageFailed, match=r"a\.png .*SIGILL.* Nothing was bought") as failed:
        find_existing(ImageStore(str(tmp_path)), [("k", "a")])
    assert failed.value.charged == "no"


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["s3fs of 2026", "s3fs before"])
def test_ten_thousand_names_in_a_store_are_few_listings(store: Listed, old: bool) -> None:
    store.old = old
    names = stems(10_000)
    for name in [*names[:3], "0" * 16 + "-7"]:
        store.pipe_file(f"/bucket/x/{name}.png", PNG)
        store.pipe_file(f"/bucket/x/{name[:2]}/{names[3]}.png", PNG)
    found = find_existing(ImageStore("s3://bucket/x"), keyed(names))
    assert sorted(found) == sorted(f"key of {name}" for name in names[:3])
    assert found[f"key of {names[0]}"].uri == f"s3://bucket/x/{names[0]}.png"
    listings = [call for call in store.asked if call.startswith("find ") and not call.endswith(".")]
    assert len(listings) == 256
    assert store.asked.count("get") == 3, "what is there is read once, what is not, never"


def test_names_by_hand_are_few_listings_too(store: Listed) -> None:
    names = [f"sku-{number:05d}" for number in range(9_000)]
    store.pipe_file("/bucket/sku-00123.webp", picture("webp", (8, 8)))
    assert list(find_existing(ImageStore("s3://bucket"), keyed(names))) == ["key of sku-00123"]
    assert len([call for call in store.asked if len(call) == len("find sku-000")]) == 90


def test_a_store_without_prefixes_is_listed_once(store: Listed) -> None:
    names = stems(300)
    store.pipe_file(f"/bucket/x/{names[0]}.png", PNG)
    assert len(find_existing(ImageStore("memory://bucket/x"), keyed(names))) == 1
    assert store.asked.count("ls") == 1


def test_a_few_names_are_asked_for_one_by_one(store: Listed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_existing(ImageStore("s3://bucket/x"), keyed(stems(5)))
    assert sorted(store.asked) == sorted(f"find {name}." for name in stems(5))
    monkeypatch.setattr(os, "scandir", lambda _: pytest.fail("a folder may hold a million other files"))
    find_existing(ImageStore(str(tmp_path)), keyed(stems(16)))


def test_a_folder_is_read_once_for_ten_thousand_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scan(path))  # type: ignore[func-returns-value]
    (tmp_path / f"{stems(1)[0]}.png").write_bytes(PNG)
    assert len(find_existing(ImageStore(str(tmp_path)), keyed(stems(10_000)))) == 1
    assert len(scans) == 1
