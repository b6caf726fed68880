"""The probe: whether a destination can create a file only where there is none, and what its refusals mean."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage import exclusive, object_store
from airflow_provider_nanobanana.landing.storage.base import Storage
from airflow_provider_nanobanana.toapis.errors import StorageFailed

README = "/bucket/x/.nanobanana/README.txt"


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "_found", {})
    monkeypatch.setattr(object_store, "_CONFLICT_PAUSES", (0, 0, 0))


class ClientError(Exception):
    """As botocore raises it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def translated(kind: Callable[[], Exception], status: int, code: str) -> Exception:
    """As s3fs raises it: an error of Python's whose cause is botocore's."""
    error = kind()
    error.__cause__ = ClientError(status, code)
    return error


class Store(MemoryFileSystem):
    """A store that is told what its next requests meet; ``ignores`` drops the condition."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self.writes: list[Exception | None] = []
        self.reads: list[Exception] = []
        self.requests = 0
        self.ignores = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self.requests += 1
        if self.writes and (problem := self.writes.pop(0)):
            raise problem
        super().pipe_file(path, value, mode="overwrite" if self.ignores else mode)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> Any:
        self.requests += 1
        if self.reads:
            raise self.reads.pop(0)
        return super().cat_file(path, start, end)


def places(fs: AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.io.store import ObjectStore

    cache = {name: ObjectStore(name, None, fs) for name in ("memory", "s3", "gs", "abfs", "hdfs")}
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", cache)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    places(made, monkeypatch)
    return made


def claims(destination: str = "s3://bucket/x") -> Storage:
    return ImageStore(destination).reserved("claims")


# --- local -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_exclusive_and_explains_itself(tmp_path: Path) -> None:
    assert claims(str(tmp_path)).missing_exclusivity() == ""
    text = (tmp_path / ".nanobanana" / "README.txt").read_text()
    for folder in ("claims/", "books/", "quarantine/"):
        assert folder in text
    assert "Do not delete" in text and max(map(len, text.splitlines())) <= 120
    assert [path.name for path in (tmp_path / ".nanobanana").iterdir()] == ["README.txt"]


def test_each_place_of_a_destination_asks_the_same_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(str(tmp_path))
    assert store.reserved("claims").missing_exclusivity() == ""
    monkeypatch.setattr("os.link", lambda *_: pytest.fail("asked again"))
    assert store.reserved("books").missing_exclusivity() == ""
    assert ImageStore(str(tmp_path)).reserved("claims").missing_exclusivity() == ""


def test_a_readme_that_is_there_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims(str(tmp_path)).missing_exclusivity()
    monkeypatch.setattr(exclusive, "_found", {})
    (tmp_path / ".nanobanana" / "README.txt").write_text("an older text")
    assert claims(str(tmp_path)).missing_exclusivity() == ""
    assert (tmp_path / ".nanobanana" / "README.txt").read_text() == "an older text"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_hard_links(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", _raise(OSError(code, "no links here")))
    assert "has no hard links (no links here)" in claims(str(tmp_path)).missing_exclusivity()


def test_a_folder_that_was_copied_to_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims(str(tmp_path)).missing_exclusivity()
    monkeypatch.setattr(exclusive, "_found", {})
    monkeypatch.setattr("os.link", _raise(OSError(errno.EPERM, "no links here")))
    assert "has no hard links" in claims(str(tmp_path)).missing_exclusivity()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_a_disk_in_trouble_is_asked_again(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as trouble:
        trouble.setattr("os.link", _raise(OSError(code, "a bad day")))
        with pytest.raises(StorageFailed, match="a bad day"):
            claims(str(tmp_path)).missing_exclusivity()
    assert claims(str(tmp_path)).missing_exclusivity() == ""


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_without_rights(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.mkdir", _raise(OSError(code, "not yours")))
    assert "rights" in claims(str(tmp_path)).missing_exclusivity()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / ".nanobanana").write_bytes(b"")
    assert "no folder" in claims(str(tmp_path)).missing_exclusivity()


def _raise(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# --- stores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", ["s3://bucket/x", "gs://bucket/x", "memory://bucket/x"])
def test_a_store_that_excludes(store: Store, destination: str) -> None:
    assert claims(destination).missing_exclusivity() == ""
    assert store.store[README].getvalue() == exclusive.TEXT
    assert store.requests == 3
    assert claims(destination).missing_exclusivity() == ""
    assert store.requests == 3, "once a process"


def test_a_store_that_ignores_the_condition(store: Store) -> None:
    store.ignores = True
    assert "could be created twice" in claims().missing_exclusivity()
    assert "could be created twice" in claims().missing_exclusivity()
    assert store.requests == 2, "it is not asked again"


def test_a_store_that_ignores_the_condition_on_what_is_there(store: Store) -> None:
    store.pipe_file(README, b"there")
    store.ignores = True
    assert "could be created twice" in claims().missing_exclusivity()


def test_an_unknown_store_is_not_asked(store: Store) -> None:
    assert "none of the stores" in claims("hdfs://host/x").missing_exclusivity()
    assert store.requests == 0


def test_a_library_that_looks_and_then_writes_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of fsspec's own for local disks has no create of its own: five of 500 names were created twice."""

    class Wrapper(AbstractFileSystem):
        cachable = False

    places(Wrapper(), monkeypatch)
    assert "looks and then writes" in claims().missing_exclusivity()


@pytest.mark.parametrize("destination", ["s3://bucket/x", "abfs://bucket/x"])
def test_a_library_that_is_too_old(destination: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(MemoryFileSystem):
        cachable = False

        def pipe_file(self, path: str, value: bytes, **dropped: Any) -> None:
            super().pipe_file(path, value)

    places(Old(), monkeypatch)
    assert "too old" in claims(destination).missing_exclusivity()


@pytest.mark.parametrize(
    "refusal",
    [
        translated(lambda: OSError(errno.EINVAL, "At least one of the pre-conditions"), 412, "PreconditionFailed"),
        translated(lambda: FileExistsError("there"), 412, "PreconditionFailed"),
        OSError("Forbidden: /b/bucket/o\nme@x does not have storage.objects.delete access to the object."),
    ],
)
def test_every_way_to_say_that_it_is_there(store: Store, refusal: Exception) -> None:
    store.writes = [None, refusal]
    assert claims().missing_exclusivity() == ""


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (translated(lambda: PermissionError("Access Denied"), 403, "AccessDenied"), "rights"),
        (OSError("Forbidden: https://storage.googleapis.com/upload"), "rights"),
        (ClientError(403, "AuthorizationPermissionMismatch"), "rights"),
        (translated(lambda: OSError(errno.ENOSYS, "A header you provided"), 501, "NotImplemented"), "no condition"),
        (NotImplementedError(), "no condition"),
        (TypeError("got an unexpected keyword argument 'overwrite'"), "no condition"),
    ],
)
def test_what_stays_so_is_a_reason(store: Store, refusal: Exception, words: str) -> None:
    store.writes = [refusal]
    assert words in claims().missing_exclusivity()
    assert words in claims().missing_exclusivity(), "it is not asked again"


@pytest.mark.parametrize(
    "trouble",
    [
        translated(lambda: OSError(errno.EBUSY, "Slow down"), 503, "SlowDown"),
        translated(lambda: PermissionError("The provided token has expired"), 400, "ExpiredToken"),
        translated(lambda: PermissionError("The difference is too large"), 403, "RequestTimeTooSkewed"),
        ClientError(500, "InternalError"),
        TimeoutError("read timed out"),
        ConnectionResetError(),
        TypeError("'NoneType' object is not subscriptable"),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_what_may_pass_is_asked_again(store: Store, trouble: Exception, at: int) -> None:
    store.writes = [None] * at + [trouble]
    with pytest.raises(StorageFailed):
        claims().missing_exclusivity()
    assert claims().missing_exclusivity() == ""


def test_what_may_be_written_and_not_read(store: Store) -> None:
    store.reads = [PermissionError("Access Denied")]
    assert "rights" in claims().missing_exclusivity()


def test_could_not_be_read_now(store: Store) -> None:
    store.reads = [TimeoutError("read timed out")]
    with pytest.raises(StorageFailed, match="read timed out"):
        claims().missing_exclusivity()
    assert claims().missing_exclusivity() == ""


def test_two_that_ask_a_new_destination_at_once(store: Store) -> None:
    """S3 answers 409 to one of two conditional writes that meet, and asks to repeat it."""
    store.writes = [translated(lambda: OSError(errno.EIO, "conflict"), 409, "ConditionalRequestConflict")] * 2
    assert claims().missing_exclusivity() == ""


def test_a_conflict_that_does_not_end(store: Store) -> None:
    store.writes = [ClientError(409, "ConditionalRequestConflict")] * 4
    with pytest.raises(StorageFailed, match="ConditionalRequestConflict"):
        claims().missing_exclusivity()


def test_threads_ask_once(store: Store) -> None:
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(claims().missing_exclusivity())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [""] * 8
    assert store.requests == 3
