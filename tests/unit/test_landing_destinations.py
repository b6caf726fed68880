from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing import Landing
from airflow_provider_nanobanana.landing.storage import local_path
from airflow_provider_nanobanana.toapis.errors import (
    ConfigurationError,
    InvalidRequest,
    StorageFailed,
)


@pytest.mark.parametrize(
    "destination",
    ["", "  ", "out", "./out", "~/out", "file://out", "file:out", "file://h/x", "http://h/x", "https://h/x", "x" * 300],
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


def test_check_writable_tries_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not yet" / "there"
    Landing(str(folder)).check_writable()
    assert list(folder.iterdir()) == []
    (folder / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="Could not write"):
        Landing(str(folder / "file" / "sub")).check_writable()
    with pytest.raises(StorageFailed):
        Landing("/proc/nanobanana").check_writable()


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a b/c%20d", "/a b/c%20d"),
        ("file:///a%20b#c?d", "/a%20b#c?d"),
        ("FILE:///a", "/a"),
        ("local:///a", "/a"),
        ("file://conn@/a", "/a"),
        ("file:///a@b/c", "/a@b/c"),
        ("s3://bucket/a", None),
        ("s3://conn@bucket/a", None),
    ],
)
def test_a_local_path_is_read_as_airflow_reads_it(uri: str, path: str | None) -> None:
    from airflow.sdk import ObjectStoragePath

    assert local_path(uri) == (None if path is None else Path(path))
    if path is not None:
        assert ObjectStoragePath(uri).path == path


@pytest.fixture
def old_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.0 with universal-pathlib 0.3: every path is refused, in these words."""

    def refuse(uri: str) -> None:
        raise TypeError("ObjectStoragePath(...) detected protocol which is incompatible with ObjectStoragePath.")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", refuse)


@pytest.mark.usefixtures("old_airflow")
def test_folders_need_nothing_of_airflow(tmp_path: Path) -> None:
    Landing(f"file://{tmp_path}/out").check_writable()
    assert (tmp_path / "out").is_dir()


@pytest.mark.usefixtures("old_airflow")
def test_a_store_that_this_airflow_cannot_reach_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r'Install "universal-pathlib<0\.3"'):
        Landing("s3://bucket/folder")
