from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage import exclusive
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.landing.versions import (
    MOST_VERSIONS,
    VersionFolder,
    Versions,
    reject,
    rejected_stems,
    split_stem,
    take_back,
    versioned_stem,
)
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

RUN, OTHER = ("dag", "monday"), ("dag", "tuesday")


def folder(path: Path) -> VersionFolder:
    """Return the versions as a new process reads them."""
    return VersionFolder(ImageStore(str(path)).reserved)


@pytest.mark.parametrize(
    ("stem", "parts"),
    [
        ("cup-0123456789", ("cup-0123456789", 1)),
        ("cup-0123456789-v2", ("cup-0123456789", 2)),
        ("cup-v2-0123456789-v12", ("cup-v2-0123456789", 12)),
        ("cup-0123456789-v1", ("cup-0123456789-v1", 1)),
        ("cup-0123456789-v02", ("cup-0123456789-v02", 1)),
        ("cup-0123456789-v1000", ("cup-0123456789-v1000", 1)),
    ],
)
def test_what_a_stem_stands_for(stem: str, parts: tuple[str, int]) -> None:
    assert split_stem(stem) == parts
    assert versioned_stem(*parts) == stem


def test_which_versions_may_be_used() -> None:
    assert Versions().alive == [1] and Versions().next == 2
    some = Versions(frozenset({2, 4}), frozenset({4, 7}))
    assert some.alive == [2, 1] and some.next == 8
    assert Versions(frozenset(), frozenset({1})).alive == []


@pytest.mark.parametrize(
    ("rejected", "in_place", "current"),
    [({4}, {1, 2, 4}, 2), ({4}, {1}, 1), ({4}, set(), 2), ({1, 2, 4}, {1, 2, 4}, 5), ({4, 2}, {4, 2}, 1)],
)
def test_which_version_is_the_current_one(rejected: set[int], in_place: set[int], current: int) -> None:
    assert Versions(frozenset({2, 4}), frozenset(rejected)).current(in_place.__contains__) == current


def test_a_number_is_one_runs_and_stays_it(tmp_path: Path) -> None:
    assert folder(tmp_path).take("cup", 2, RUN, 0.0)
    assert folder(tmp_path).take("cup", 2, RUN, 9.0), "a retry finds it"
    assert not folder(tmp_path).take("cup", 2, OTHER, 0.0)
    assert folder(tmp_path).of("cup").registered == {2}
    assert folder(tmp_path).own("cup", [1, 2], RUN) == 2 and folder(tmp_path).own("cup", [1, 2], OTHER) is None


def test_the_newest_of_a_run_counts(tmp_path: Path) -> None:
    for number in (2, 3, 10):
        folder(tmp_path).take("cup", number, RUN, 0.0)
    assert folder(tmp_path).own("cup", [2, 3, 10], RUN) == 10
    assert folder(tmp_path).own("cup", [2, 3], RUN) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b'{"run": 7}', b"\xff\xfe", b"[" * 4_000])
def test_a_damaged_file_is_a_number_of_somebody_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".nanobanana" / "versions" / "cup-v2.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert folder(tmp_path).of("cup").registered == {2}
    assert folder(tmp_path).own("cup", [2], RUN) is None
    assert not folder(tmp_path).take("cup", 2, RUN, 0.0)


def test_of_many_that_take_one_number_one_gets_it(tmp_path: Path) -> None:
    folder(tmp_path).take("warm-up", 2, RUN, 0.0)
    start = threading.Barrier(8)

    def take(number: int) -> bool:
        start.wait()
        return folder(tmp_path).take("cup", 2, ("dag", f"run {number}"), 0.0)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1


def test_where_creates_are_not_exclusive_the_first_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LocalStorage, name: str, content: bytes) -> None:
        raise exclusive.NotExclusive("no hard links")

    monkeypatch.setattr(LocalStorage, "put_new", refuse)
    monkeypatch.setattr(exclusive, "_found", {})
    assert folder(tmp_path).take("cup", 2, RUN, 0.0)
    assert not folder(tmp_path).take("cup", 2, OTHER, 0.0)


def test_there_is_an_end_to_them(tmp_path: Path) -> None:
    assert folder(tmp_path).take("cup", MOST_VERSIONS, RUN, 0.0)
    with pytest.raises(InvalidRequest, match="another name"):
        folder(tmp_path).take("cup", MOST_VERSIONS + 1, RUN, 0.0)


def test_a_rejection_says_who_and_why(tmp_path: Path) -> None:
    reject(ImageStore(str(tmp_path)), "cup-v3", by="ada", comment="der Henkel 🫖", now=1_790_000_000.0)
    assert folder(tmp_path).of("cup").rejected == {3}
    path = tmp_path / ".nanobanana" / "rejections" / "cup-v3.json"
    assert json.loads(path.read_text()) == {
        "version": 1,
        "stem": "cup-v3",
        "by": "ada",
        "comment": "der Henkel 🫖",
        "rejected_at": "2026-09-21T14:13:20Z",
    }


def test_a_rejection_is_taken_back(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    reject(store, "cup-v3", by="ada", comment="", now=0.0)
    reject(store, "cup", by="ada", comment="", now=0.0)
    assert rejected_stems(store) == {"cup", "cup-v3"}
    take_back(store, "cup-v3")
    take_back(store, "never")
    assert rejected_stems(store) == {"cup"}
    assert folder(tmp_path).of("cup").rejected == {1}


def test_a_rejection_by_hand_needs_no_content(tmp_path: Path) -> None:
    path = tmp_path / ".nanobanana" / "rejections" / "cup.json"
    path.parent.mkdir(parents=True)
    path.touch()
    assert folder(tmp_path).of("cup").alive == []


@pytest.mark.parametrize("stem", ["../cup", "", "a/b", ".hidden"])
def test_what_names_no_file_is_not_rejected(tmp_path: Path, stem: str) -> None:
    with pytest.raises(InvalidRequest):
        reject(ImageStore(str(tmp_path)), stem, by="ada", comment="", now=0.0)


def test_where_a_file_stands_in_place_of_our_folder_there_are_no_versions(tmp_path: Path) -> None:
    (tmp_path / ".nanobanana").touch()
    assert folder(tmp_path).of("cup") == Versions()
