from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from airflow_provider_nanobanana.landing import Landing, stem_for
from airflow_provider_nanobanana.toapis.errors import (
    ConfigurationError,
    InvalidRequest,
    StorageFailed,
)
from tests.unit.picture_fixtures import picture

ID = "task_img_abc"
STEM = stem_for(ID, 0)
PNG = picture("png")


def writes(data: bytes) -> Callable[[BinaryIO], object]:
    return lambda sink: sink.write(data)


def untouched(sink: BinaryIO) -> object:
    raise AssertionError("the image is there: nothing may be downloaded")


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not yet" / "there"


@pytest.mark.parametrize(
    "destination", ["", "  ", "out", "./out", "~/out", "file://out", "file:out", "http://h/x", "https://h/x", "x" * 300]
)
def test_destinations_that_cannot_work(destination: str) -> None:
    with pytest.raises(InvalidRequest, match="destination"):
        Landing(destination)


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("s3://bucket/folder", r"apache-airflow-providers-amazon\[s3fs\]"),
        ("s3://conn@bucket/folder", r"apache-airflow-providers-amazon\[s3fs\]"),
        ("gs://bucket", "apache-airflow-providers-google"),
        ("abfs://container/folder", "apache-airflow-providers-microsoft-azure"),
        ("memory://conn@bucket", "No installed provider package serves this scheme"),
    ],
)
def test_a_missing_provider_is_named_before_anything_is_bought(
    destination: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow.sdk.io.fs._register_filesystems", dict)
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    for module in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=words):
        Landing(destination).check_writable()


def test_an_unknown_scheme_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="bogus"):
        Landing("bogus://x")


def test_check_writable_tries_a_folder(folder: Path) -> None:
    Landing(str(folder)).check_writable()
    assert everything_in(folder) == []
    (folder / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="Could not write"):
        Landing(str(folder / "file" / "sub")).check_writable()
    with pytest.raises(StorageFailed):
        Landing("/proc/nanobanana").check_writable()
