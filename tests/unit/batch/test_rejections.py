from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_nanobanana.batch.rejections import (
    newer_versions,
    rejected_among,
    take_back_rejections,
    write_rejections,
)
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.landing.versions import VersionFolder
from airflow_provider_nanobanana.toapis.errors import StorageFailed, ToApisError


def rejected(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / ".nanobanana" / "rejections").glob("*.json"))


def uris(folder: Path, *names: str) -> list[str]:
    return [f"{folder.as_uri()}/{name}" for name in names]


def write(given: list[str]) -> dict[str, str]:
    unwritten = write_rejections(given, by="ada" * 100, comment="ü" * 10_000, now=0.0)
    return {uri: error.message for uri, error in unwritten.items()}


def test_each_is_rejected_in_its_own_folder(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    given = [*uris(one, "cup-1.png", "cup-1-v2.jpg", "kite-1.1.webp"), *uris(two, "cup-1.png")]
    assert write(given) == {}
    assert (rejected(one), rejected(two)) == (["cup-1", "cup-1-v2", "kite-1.1"], ["cup-1"])
    assert VersionFolder(ImageStore(str(one)).reserved).of("cup-1").alive == []
    record = one / ".nanobanana" / "rejections" / "cup-1.json"
    assert record.stat().st_size < 4_096
    assert json.loads(record.read_text())["comment"] == "ü" * 500


def test_one_that_cannot_be_written_keeps_no_other_from_being(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = LocalStorage.publish

    def full(self: LocalStorage, staged: object, name: str, *rest: object, **options: object) -> None:
        if name == "b.json":
            raise StorageFailed("No space left on device")
        publish(self, staged, name, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStorage, "publish", full)
    (uri,) = failed = write(uris(tmp_path, "a.png", "b.png", "c.png"))
    assert uri.endswith("/b.png") and "No space left" in failed[uri]
    assert rejected(tmp_path) == ["a", "c"]


@pytest.mark.parametrize("uri", ["nowhere/a.png", "https://x/a.png", "file:///x/.nanobanana/thumbs/a.png"])
def test_what_is_no_place_for_images_is_said(uri: str) -> None:
    assert [*write([uri])] == [uri]


def test_what_is_approved_is_rejected_no_more(tmp_path: Path) -> None:
    write(uris(tmp_path, "a.png", "b.png"))
    assert take_back_rejections(uris(tmp_path, "a.png", "never.png")) == {}
    assert rejected(tmp_path) == ["b"]


def test_which_of_several_are_rejected(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(uris(one, "a.png", "b.png"))
    given = uris(one, "a.png", "a.jpg", "c.png") + uris(two, "b.png")
    assert rejected_among(given) == {*given[:2]}
    assert rejected_among([]) == set()


def test_which_versions_would_be_used_instead_of_an_older_one(tmp_path: Path) -> None:
    folder = VersionFolder(ImageStore(tmp_path.as_uri()).reserved)
    for number in (2, 3, 4):
        folder.take("cup-1", number, ["dag", "run"], 0.0)
    folder.take("kite-1", 2, ["dag", "run"], 0.0)
    write(uris(tmp_path, "cup-1-v3.png"))
    first, second, kite = uris(tmp_path, "cup-1.png", "cup-1-v2.webp", "kite-1.png")
    assert newer_versions([first], []) == uris(tmp_path, "cup-1-v4.png", "cup-1-v2.png")
    assert newer_versions([second], []) == uris(tmp_path, "cup-1-v4.webp")
    assert newer_versions([first, second], [first, second]) == uris(tmp_path, "cup-1-v4.webp")
    assert newer_versions([kite], uris(tmp_path, "kite-1-v2.jpg")) == []
    assert newer_versions(uris(tmp_path / "none", "cup-1.png"), []) == []


def test_a_folder_that_cannot_be_asked_is_an_error_that_says_so() -> None:
    for ask in (rejected_among, lambda given: newer_versions(given, [])):
        with pytest.raises(ToApisError):
            ask(["nowhere/a.png"])


def test_nothing_is_asked_of_a_folder_without_rejections(tmp_path: Path) -> None:
    assert take_back_rejections(uris(tmp_path / "none", "a.png")) == {}
    assert not (tmp_path / "none").exists()
