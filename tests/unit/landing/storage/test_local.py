"""Folders: one of many processes creates a name, and what is there stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.toapis.errors import StorageFailed
from tests.support.create_race import assert_created_once


def test_one_of_many_processes_creates_each_name(tmp_path: Path) -> None:
    """fsspec's own create looks first and writes then: it created 5 of 500 names six times."""
    assert_created_once(lambda: ImageStore(str(tmp_path)).reserved("claims"))
    left = {path.suffix for path in (tmp_path / ".nanobanana" / "claims").iterdir()}
    assert left == {".json"}, "no temporary file"


@pytest.fixture
def place(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_a_file_is_created_once_and_stays(place: LocalStorage) -> None:
    assert place.create("a", b"first") is True
    assert place.create("a", b"second") is False
    assert place.create("a", b"first") is True, "it is this content's"
    assert place.read("a", 100) == b"first"


def test_whoever_comes_later_writes_nothing(place: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    place.create("a", b"first")
    monkeypatch.setattr("os.fsync", lambda _: pytest.fail("written for nothing"))
    assert place.create("a", b"second") is False


def test_what_is_on_the_disk_before_it_has_its_name(place: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    link, fsync = os.link, os.fsync

    def noted_link(source: str, target: str) -> None:
        events.append("link")
        link(source, target)

    def noted_fsync(fd: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
        fsync(fd)

    monkeypatch.setattr("os.link", noted_link)
    monkeypatch.setattr("os.fsync", noted_fsync)
    assert place.create("a", b"content")
    assert events == ["sync file", "link", "sync folder"]


@pytest.mark.parametrize(("most", "expected"), [(100, b"12345"), (5, b"12345"), (4, b"12345"), (3, b"1234"), (0, b"1")])
def test_longer_than_expected_shows(place: LocalStorage, most: int, expected: bytes) -> None:
    place.create("a", b"12345")
    assert place.read("a", most) == expected


def test_read_tells_nothing_there_from_could_not_look(place: LocalStorage, tmp_path: Path) -> None:
    assert place.read("a", 10) is None
    assert place.below("not there").read("a", 10) is None
    place.create("empty", b"")
    assert place.read("empty", 10) == b""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("folder", "fifo", "device"):
        with pytest.raises(StorageFailed, match=name):
            place.read(name, 10)
    for name in ("x" * 300, "nul\0"):
        with pytest.raises(StorageFailed):
            place.read(name, 10)


def test_write_replaces(place: LocalStorage) -> None:
    for content in (b"first", b"second"):
        place.write("a", content)
    assert place.read("a", 100) == b"second"


def test_modified_is_the_file_system_s_time(place: LocalStorage, tmp_path: Path) -> None:
    assert place.modified("a") is None
    assert place.below("not there").modified("a") is None
    place.create("a", b"")
    os.utime(tmp_path / "a", (1e9, 1.5e9))
    assert place.modified("a") == 1.5e9


def test_temporary_files_are_in_no_listing(place: LocalStorage) -> None:
    with place.stage("x.g0"):
        place.create("x.g0.json", b"")
        assert list(place.names()) == ["x.g0.json"]


@pytest.mark.parametrize("mode", [0o2775, 0o700, 0o777])
def test_whoever_may_land_may_claim(tmp_path: Path, mode: int) -> None:
    """Otherwise two accounts that share a destination would not exclude each other."""
    tmp_path.chmod(mode)
    before = os.umask(0o022)
    try:
        ImageStore(str(tmp_path)).reserved("claims").create("a", b"")
    finally:
        os.umask(before)
    for folder in (".nanobanana", ".nanobanana/claims"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == mode


def test_rights_that_a_person_gave_stay(tmp_path: Path) -> None:
    (tmp_path / ".nanobanana").mkdir()
    (tmp_path / ".nanobanana").chmod(0o750)
    ImageStore(str(tmp_path)).reserved("claims").create("a", b"")
    assert stat.S_IMODE((tmp_path / ".nanobanana").stat().st_mode) == 0o750


def test_entries_are_the_files_with_their_times(place: LocalStorage, tmp_path: Path) -> None:
    for name in ("a", "b"):
        place.create(name, name.encode())
    os.utime(tmp_path / "a", (0, 1_700_000_000.5))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / ".x.0123456789abcdef.part").write_bytes(b"")
    assert dict(place.entries()) == {"a": 1_700_000_000.5, "b": place.modified("b")}
    assert list(place.below("missing").entries()) == []
