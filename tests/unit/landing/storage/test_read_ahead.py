from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_nanobanana.landing.storage.read_ahead import read_files
from airflow_provider_nanobanana.toapis.errors import StorageFailed


class Place:
    """As much of a storage as is asked here; files are named by their numbers."""

    def __init__(self, *, local: bool) -> None:
        self.looks_for_free = local
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def uri(self, name: str) -> str:
        return f"s3://b/{name}"

    def read(self, name: str, most: int) -> bytes | None:
        with self._lock:
            self.asked.append(name)
        if name == "3":
            raise StorageFailed("Could not read it: 503")
        return None if name == "4" else b"x" * int(name)


@pytest.mark.parametrize("local", [True, False])
def test_files_come_in_order_and_what_cannot_be_had_is_named(local: bool) -> None:
    place: Any = Place(local=local)
    skipped: list[tuple[str, str]] = []
    names = [str(number) for number in range(30)]
    found = list(read_files(place, names, 25, lambda uri, why: skipped.append((uri, why))))
    assert [name for name, _ in found] == [name for name in names if name not in ("3", "4", "26", "27", "28", "29")]
    assert all(content == b"x" * int(name) for name, content in found)
    assert skipped[:2] == [
        ("s3://b/3", "Could not read it: 503"),
        ("s3://b/4", "it is gone since the folder was listed"),
    ]
    assert [why for _, why in skipped[2:]] == ["it is longer than 25 bytes"] * 4
    assert sorted(place.asked) == sorted(names)


@pytest.mark.parametrize(("local", "ahead"), [(True, 1), (False, 8)])
def test_no_more_than_a_few_are_in_memory(local: bool, ahead: int) -> None:
    place: Any = Place(local=local)
    given: list[str] = []

    def names() -> Iterator[str]:
        for number in range(5, 100):
            given.append(str(number))
            yield given[-1]

    for count, (name, _) in enumerate(read_files(place, names(), 100, print), 1):
        assert name == str(count + 4)
        assert len(given) < count + ahead
        if count == 20:
            break
