"""Destinations: which URIs are accepted, and which storage they are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.local import local_path
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
        ImageStore(destination)


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
    home = "airflow.sdk.io.fs" if importlib.util.find_spec("airflow.sdk.io.fs") else "airflow.io"  # before 3.1
    monkeypatch.setattr(f"{home}._register_filesystems", dict)
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    for module in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=words):
        ImageStore(destination).check_writable()


def test_an_unknown_scheme_is_refused_before_anything_is_bought() -> None:
    with pytest.raises(ConfigurationError, match="bogus"):  # below Airflow 3.2 a path takes any scheme
        ImageStore("bogus://x").check_writable()


@pytest.mark.parametrize(
    "destination",
    [
        # What templates, copies and forms leave.
        "'s3://bucket/x'", '"s3://bucket/x"', "s3 ://bucket/x", "['s3://bucket/x']", "<s3://bucket/x>", "(s3://bucket/x)",
        '{"uri": "s3://bucket/x"}', "uri=s3://bucket/x", "1s3://bucket/x", "://bucket/x", "\ufeffs3://bucket/x", "`s3://b`",
        "“s3://bucket/x”", "s3:// bucket/x", "s3://<bucket>/x", "s3://{{ var.value.bucket }}/x", "/data/{{ ds }}",
        "simplecache::s3://bucket/x", "None", "nan", "[]", "'/data/x'", "\\\\server\\share", "C:\\images",
        # No bucket, or no name of one.
        "s3://", "s3:///x", "s3://conn@/x", "gs:///x", "s3://a b/x", "s3://-bucket/x", "s3://a..b/x", "s3://bucket./x",
        "abfss:///x", "s3://" + "b" * 256 + "/x",
        # Control characters, and half characters.
        "s3://bucket/a\x00b", "/data/a\x00b", "file:///a\nb", "s3://bucket/a\tb", "/data/\ud800", "s3://bucket/\udfff",
        "s3://bucket/\x1b[31m", "/data/\x85x",
    ],
)  # fmt: skip
def test_what_is_no_destination_is_refused_in_a_clear_sentence(destination: str) -> None:
    with pytest.raises(InvalidRequest, match="destination") as refused:
        ImageStore(destination)
    assert refused.value.message.isprintable()


def test_a_file_system_that_needs_more_than_a_uri_is_no_passing_trouble() -> None:
    with pytest.raises(ConfigurationError, match="github"):
        ImageStore("github://x").check_writable()


@pytest.mark.parametrize(
    "destination",
    [["s3://bucket/x"], {"uri": "s3://bucket/x"}, b"s3://bucket/x", None, 5, 1.5, True, ("/data",), object()],
)
def test_what_is_neither_text_nor_path_is_refused(destination: object) -> None:
    with pytest.raises(InvalidRequest, match="not a text or a path"):
        ImageStore(destination)


def test_path_objects_are_taken(tmp_path: Path) -> None:
    from airflow.sdk import ObjectStoragePath

    for given in (tmp_path / "x", ObjectStoragePath(f"file://{tmp_path}/x")):
        assert ImageStore(given).uri("a.png") == f"file://{tmp_path}/x/a.png"
    assert "bucket/x/a.png" in ImageStore(ObjectStoragePath("memory://bucket/x")).uri("a.png")


@pytest.mark.parametrize(
    "destination",
    [
        "s3://AKIAKEY:s3cretPW@bucket/x", "s3://AKIAKEY:s3cr/etPW@bucket/x", "ftp://user:s3cretPW@host/x",
        "sftp://u:s3cretPW@h", "smb://u:s3cretPW@h/s", "s3://user:1234s3cret@bucket", "gs://b/x?token=s3cretPW",
        "s3://conn@b/x?versionId=s3cretPW", "abfss://c/x?sv=2024&sig=s3cretPW", "s3://k:s3cretPW@b/" + "x" * 300,
        "s3://AKIAKEY:s3cretPW@bucket/\x00", "'s3://k:s3cretPW@b/x'",
    ],
)  # fmt: skip
def test_credentials_in_a_destination_are_refused_and_not_repeated(destination: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ImageStore(destination)
    assert "s3cr" not in refused.value.message
    assert "etPW" not in refused.value.message


@pytest.mark.parametrize(
    "destination",
    [
        "s3://conn@bucket/x", "s3://my-conn.2@bucket/a&b@c:d/(e)", "s3://bucket/a?b/c", "s3://bucket/a#b", "s3://b",
        "s3://bucket/100%/x%20y", "S3://bucket/upper", "s3a://bucket/x", "s3://bucket/a/../b", "s3://bucket/dt=2026-01-01",
        "memory://box/x", "/data/a?b=c", "file:///data/a:b@c", "s3://bucket/été 猫", "s3://conn@bucket/two//slashes",
    ],
)  # fmt: skip
def test_odd_and_legal_destinations_are_taken(destination: str) -> None:
    assert ImageStore(destination).uri("a.png").endswith("/a.png")


def test_an_azure_uri_is_shown_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CONTAINER", raising=False)
    written = "abfss://container@account.dfs.core.windows.net/x"
    with pytest.raises(ConfigurationError) as refused:
        ImageStore(written).check_writable()
    assert written in refused.value.message


def test_a_folder_whose_name_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_nanobanana.landing.storage.destination.MAX_DESTINATION", 1000)
    with pytest.raises(StorageFailed, match="File name too long"):
        ImageStore(tmp_path / ("x" * 300)).check_writable()


def test_check_writable_tries_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not yet" / "there"
    ImageStore(str(folder)).check_writable()
    assert list(folder.iterdir()) == []
    (folder / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="Could not write"):
        ImageStore(str(folder / "file" / "sub")).check_writable()
    with pytest.raises(StorageFailed):
        ImageStore("/proc/nanobanana").check_writable()


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
    if path is not None and uri.partition("://")[0].islower():  # before Airflow 3.2 a scheme has small letters
        assert ObjectStoragePath(uri).path == path


@pytest.fixture
def old_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.0 with universal-pathlib 0.3: every path is refused, in these words."""

    def refuse(uri: str) -> None:
        raise TypeError("ObjectStoragePath(...) detected protocol which is incompatible with ObjectStoragePath.")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", refuse)


@pytest.mark.usefixtures("old_airflow")
def test_folders_need_nothing_of_airflow(tmp_path: Path) -> None:
    ImageStore(f"file://{tmp_path}/out").check_writable()
    assert (tmp_path / "out").is_dir()


@pytest.mark.usefixtures("old_airflow")
def test_a_store_that_this_airflow_cannot_reach_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r'Install "universal-pathlib<0\.3"'):
        ImageStore("s3://bucket/folder")
