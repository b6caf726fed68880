"""Object stores: one PUT after all checks, and what a store may do wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_nanobanana.landing.file_names import stem_for
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.base import Storage
from airflow_provider_nanobanana.landing.storage.object_store import connection_id
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, ImageInvalid, StorageFailed
from tests.support.images import jpeg_with_provenance, picture

ID = "tsk_img_01KXYZ"
STEM = stem_for(ID, 0)
PNG = picture("png")


class Store(MemoryFileSystem):
    """Memory that records its writes and, where told to, behaves like a store on a bad day."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        # Of its own, where the class shares one memory among all.
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self.puts: list[tuple[str, str, dict[str, Any]]] = []
        self.prefixes: list[str] = []
        self.trouble: dict[str, Exception] = {}

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self.puts.append((Path(lpath).name, rpath, options))
        if problem := self.trouble.pop("put", None):
            raise problem
        content = Path(lpath).read_bytes()[: getattr(self, "limit", None)]
        self.pipe_file(rpath, content, mode=options.get("mode", "overwrite"))

    def info(self, path: str, **options: Any) -> Any:
        if problem := self.trouble.pop("info", None):
            raise problem
        return super().info(path)

    def find(self, path: str, prefix: str = "", **options: Any) -> Any:
        self.prefixes.append(prefix)
        if problem := self.trouble.pop("find", None):
            raise problem
        return [name for name in super().find(path) if name.rpartition("/")[2].startswith(prefix)]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    from airflow.sdk.io.store import ObjectStore

    made = Store()
    cache = {
        name: ObjectStore(name.partition("-")[0], None, made) for name in ("memory", "memory-conn", "s3", "s3-conn")
    }
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", cache)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_CONN", "generic://")
    yield made
    assert list(tmp_path.iterdir()) == [], "temporary files are gone"


DESTINATIONS = ["memory://bucket/run=1", "memory://conn@bucket/run=1", "s3://conn@bucket/a b", "s3://bucket"]


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_one_put_of_the_verbatim_bytes(store: Store, destination: str) -> None:
    landing = ImageStore(destination)
    landing.check_writable()
    data = jpeg_with_provenance()
    stored = landing.land(STEM, ID, 0, lambda sink: sink.write(data))
    ((local, remote, options),) = store.puts
    assert local == f"{STEM}.jpg", "stores guess the content type from this name"
    assert options == ({"ContentType": "image/jpeg"} if destination.startswith("s3") else {})
    assert store.cat_file(remote) == data
    # Below Airflow 3.2 an absolute path is written where there is no connection id, too.
    assert stored.uri.replace("memory:///", "memory://") == f"{_shown(destination)}/{STEM}.jpg"
    assert landing.find(STEM) == stored.model_copy(update={"id": ""})
    assert landing.land(STEM, ID, 0, lambda _: pytest.fail("downloaded again")) == stored
    assert len(store.puts) == 1


def _shown(destination: str) -> str:
    # Airflow writes an absolute path after the connection id, which it reads back to the same place.
    return destination.replace("conn@bucket", "conn@/bucket") if destination.startswith("memory") else destination


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_the_uri_leads_back_to_the_file(store: Store, destination: str) -> None:
    from airflow.sdk import ObjectStoragePath

    stored = ImageStore(destination).land(STEM, ID, 0, lambda sink: sink.write(PNG))
    path = ObjectStoragePath(stored.uri)
    assert path.fs.cat_file(path.path) == PNG


def test_a_listing_by_prefix_is_one_request(store: Store) -> None:
    ImageStore("s3://bucket/x").land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert store.prefixes == [f"{STEM}."]


def test_nothing_is_put_before_all_checks(store: Store) -> None:
    with pytest.raises(ImageInvalid):
        ImageStore("memory://bucket").land(STEM, ID, 0, lambda sink: sink.write(PNG[:-30]))
    ((_, remote, _),) = store.puts
    assert remote.startswith("/bucket/.nanobanana/quarantine/")


@pytest.mark.parametrize("destination", ["memory://bucket", "s3://bucket"])
def test_a_broken_object_is_replaced(store: Store, destination: str) -> None:
    store.pipe_file(f"/bucket/{STEM}.jpg", b"half")
    store.pipe_file(f"/bucket/{STEM}.png", PNG[:-30])
    landing = ImageStore(destination)
    assert landing.find(STEM) is None
    stored = landing.land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert [name for name in store.store if STEM in name] == [f"/bucket/{STEM}.png"]
    assert landing.find(STEM) == stored.model_copy(update={"id": ""})


def test_a_store_that_does_not_replace_unasked(store: Store) -> None:
    store.pipe_file(f"/bucket/{STEM}.png", PNG[:-30])
    store.trouble["put"] = FileExistsError("BlobAlreadyExists")
    ImageStore("memory://bucket").land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert store.cat_file(f"/bucket/{STEM}.png") == PNG


class ClientError(Exception):
    """Stands for what botocore, google-auth or azure-core raise: no OSError."""


@pytest.mark.parametrize(("operation", "destination"), [("put", "s3://b"), ("info", "memory://b"), ("find", "s3://b")])
def test_whatever_a_client_library_raises_is_a_storage_failure(store: Store, operation: str, destination: str) -> None:
    store.trouble[operation] = ClientError("no credentials")
    with pytest.raises(StorageFailed, match="ClientError: no credentials"):
        ImageStore(destination).land(STEM, ID, 0, lambda sink: sink.write(PNG))


def test_could_not_look_is_not_not_there(store: Store) -> None:
    store.trouble["info"] = PermissionError("AccessDenied")
    with pytest.raises(StorageFailed, match="AccessDenied"):
        ImageStore("memory://b").find(STEM)


def test_a_store_that_keeps_only_half(store: Store) -> None:
    store.limit = 100
    with pytest.raises(StorageFailed, match=f"100 bytes after writing {len(PNG)}"):
        ImageStore("memory://b").land(STEM, ID, 0, lambda sink: sink.write(PNG))


@pytest.mark.parametrize("destination", ["memory://bucket/x", "s3://bucket/x", "s3://conn@bucket/x"])
def test_what_fails_a_check_is_one_put_into_the_quarantine(store: Store, destination: str) -> None:
    landing = ImageStore(destination)
    with pytest.raises(ImageInvalid) as caught:
        landing.land(STEM, ID, 0, lambda sink: sink.write(PNG[:-30]))
    ((_, remote, options),) = store.puts
    assert caught.value.kept is not None
    assert caught.value.kept["uri"].endswith(remote.lstrip("/").removeprefix("bucket/"))
    assert remote.lstrip("/").startswith(f"bucket/x/.nanobanana/quarantine/{STEM}.")
    assert options == ({"ContentType": "application/octet-stream"} if destination.startswith("s3") else {})
    assert store.cat_file(remote) == PNG[:-30]
    assert landing.find(STEM) is None
    assert landing.present([STEM, *map(str, range(40))]) == set()
    landing.land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert landing.present([STEM, *map(str, range(40))]) == {STEM}


def test_a_store_that_takes_no_quarantine_hides_nothing(store: Store) -> None:
    store.trouble["put"] = ClientError("AccessDenied")
    with pytest.raises(ImageInvalid, match=r"504 Gateway.*could not be kept.*AccessDenied") as caught:
        ImageStore("s3://bucket").land(STEM, ID, 0, lambda sink: sink.write(b"<html>504 Gateway"))
    assert caught.value.kept is None


def test_a_name_in_a_folder_below_is_not_there(store: Store) -> None:
    """A listing by prefix also brings what lies in folders whose names begin so."""
    store.pipe_file(f"bucket/{STEM}.old/{STEM}.png", PNG)
    landing = ImageStore("s3://bucket")
    assert landing.find(STEM) is None
    assert landing.present([STEM]) == set()


class OldPath:
    """Stands for Airflow's path object before 3.2, which keeps the connection in the options of its storage."""

    protocol = "s3"

    def __init__(self, conn_id: str | None) -> None:
        self.storage_options = {} if conn_id is None else {"conn_id": conn_id}


class NewPath(OldPath):
    """And since 3.2."""

    def __init__(self, conn_id: str | None) -> None:
        super().__init__(None)
        self.conn_id = conn_id


@pytest.mark.parametrize("kind", [OldPath, NewPath])
@pytest.mark.parametrize(("given", "expected"), [("conn", "conn"), (None, None)])
def test_the_connection_of_a_path_on_every_airflow(kind: Any, given: str | None, expected: str | None) -> None:
    assert connection_id(kind(given)) == expected


@pytest.mark.parametrize(
    "problem", [ClientError("x"), MemoryError(), UnicodeError("x"), RecursionError(), ValueError()]
)
def test_whatever_reading_back_raises_is_a_storage_failure(
    store: Store, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = ImageStore("s3://bucket")
    landing.land(STEM, ID, 0, lambda sink: sink.write(PNG))
    monkeypatch.setattr(store, "get_file", lambda *_, **__: (_ for _ in ()).throw(problem))
    with pytest.raises(StorageFailed, match=type(problem).__name__):
        landing.find(STEM)


def test_manifest_in_a_store(store: Store) -> None:
    uri = ImageStore("s3://bucket/x").write_manifest("run/1", {"b": 1, "a": 2})
    assert uri.startswith("s3://bucket/x/run-1.")
    assert store.puts[0][2] == {"ContentType": "application/json"}
    assert store.cat_file("/" + uri.removeprefix("s3://")) == b'{\n  "a": 2,\n  "b": 1\n}\n'


def test_a_connection_that_is_not_there_is_never_replaced_by_other_credentials(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CONN")
    with pytest.raises(ConfigurationError, match="there is no connection 'conn'"):
        ImageStore("s3://conn@bucket/x").check_writable()
    ImageStore("s3://bucket/x").check_writable()


# --- files that are created once -------------------------------------------------------------------------------------


@pytest.fixture
def claims(store: Store, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr("airflow_provider_nanobanana.landing.storage.exclusive._found", {})
    return ImageStore("s3://bucket/x").reserved("claims")


def test_a_claim_is_created_once(store: Store, claims: Storage) -> None:
    assert claims.create("a.g0.json", b"first") is True
    assert claims.create("a.g0.json", b"second") is False
    assert claims.create("a.g0.json", b"first") is True, "it is this content's"
    assert store.cat_file("/bucket/x/.nanobanana/claims/a.g0.json") == b"first"


def test_threads_that_create_in_memory(claims: Storage) -> None:
    """Its own create looks first and writes then."""
    place = ImageStore("memory://bucket/x").reserved("claims")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: place.create(f"{n // 8}", b"%d" % n), range(8 * 200)))
    assert sum(won) == 200


@pytest.mark.parametrize(("most", "expected"), [(100, b"12345"), (5, b"12345"), (3, b"1234")])
def test_longer_than_expected_shows(claims: Storage, most: int, expected: bytes) -> None:
    claims.create("a", b"12345")
    assert claims.read("a", most) == expected


def test_read_tells_nothing_there_from_could_not_look(claims: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert claims.read("a", 10) is None
    monkeypatch.setattr(Store, "cat_file", _raise(PermissionError("AccessDenied")))
    with pytest.raises(StorageFailed, match="AccessDenied"):
        claims.read("a", 10)


def test_an_empty_object_has_no_range(claims: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    class RangeError(OSError):
        status = 416

    claims.create("empty", b"")
    claims.create("full", b"1")
    monkeypatch.setattr(Store, "cat_file", _raise(RangeError()))
    assert claims.read("empty", 10) == b""
    with pytest.raises(StorageFailed):
        claims.read("full", 10)


@pytest.mark.parametrize("key", ["LastModified", "mtime", "last_modified"])
def test_a_listing_tells_when_each_file_was_written(claims: Storage, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    moment = datetime(2026, 11, 26, 14, 0, tzinfo=UTC)
    folder = "/bucket/x/.nanobanana/claims"
    found = [
        {"name": f"{folder}/a.g0.json", "type": "file", key: moment},
        {"name": f"{folder}/b.g0.json", "type": "file", key: moment.replace(tzinfo=None)},
        {"name": f"{folder}/c.g0.json", "type": "file", key: "yesterday"},
        {"name": f"{folder}/d.g0.json", "type": "file"},
        {"name": f"{folder}/e", "type": "directory", key: moment},
    ]
    monkeypatch.setattr(Store, "ls", lambda *_, detail: found)
    at = moment.timestamp()
    assert dict(claims.entries()) == {"a.g0.json": at, "b.g0.json": at, "c.g0.json": None, "d.g0.json": None}
    monkeypatch.setattr(Store, "ls", _raise(FileNotFoundError()))
    assert list(claims.entries()) == []
    monkeypatch.setattr(Store, "ls", _raise(PermissionError("AccessDenied")))
    with pytest.raises(StorageFailed, match="AccessDenied"):
        list(claims.entries())


def test_a_listing_in_a_cache_is_no_answer(store: Store, claims: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "info", lambda *_, **__: pytest.fail("stores answer this from listings in memory"))
    claims.create("a", b"1")
    assert claims.read("a", 10) == b"1"
    assert claims.read("b", 10) is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC), 1e9),
        (datetime(2001, 9, 9, 1, 46, 40), 1e9),
        ("Sunday", None),
        (None, None),
    ],
)
def test_modified_is_the_store_s_time(
    claims: Storage, told: Any, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert claims.modified("a") is None
    monkeypatch.setattr(Store, "modified", lambda *_: told)
    assert claims.modified("a") == expected


def test_a_store_without_times(claims: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "modified", _raise(NotImplementedError()))
    assert claims.modified("a") is None


def test_could_not_ask_for_the_time_is_a_failure(claims: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "modified", _raise(ClientError("503")))
    with pytest.raises(StorageFailed, match="503"):
        claims.modified("a")


def test_write_replaces_in_a_store(claims: Storage) -> None:
    for content in (b"first", b"second"):
        claims.write("a", content)
    assert claims.read("a", 100) == b"second"


def _raise(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# --- another picture appears during the download ---------------------------------------------------------------------


OTHER = picture("png", (32, 32))


def _lands_while_another_does(store: Store, content: bytes) -> tuple[Any, list[Any]]:
    landing = ImageStore("s3://bucket/x")

    def fetch(sink: Any) -> object:
        store.pipe_file(f"/bucket/x/{STEM}.png", content)
        return sink.write(PNG)

    found: list[Any] = []
    return landing.land(STEM, ID, 0, fetch, on_in_place=found.append), found


def test_what_landed_first_stays(store: Store, claims: Storage) -> None:
    assert claims.missing_exclusivity() == ""
    stored, found = _lands_while_another_does(store, OTHER)
    assert found == [stored] and stored.bytes == len(OTHER)
    assert store.cat_file(f"/bucket/x/{STEM}.png") == OTHER


def test_our_own_picture_whose_answer_was_lost_is_no_other(store: Store, claims: Storage) -> None:
    assert claims.missing_exclusivity() == ""
    stored, found = _lands_while_another_does(store, PNG)
    assert found == [] and stored.id == ID


def test_a_broken_object_that_appears_is_replaced(store: Store, claims: Storage) -> None:
    assert claims.missing_exclusivity() == ""
    _, found = _lands_while_another_does(store, PNG[:-20])
    assert found == []
    assert store.cat_file(f"/bucket/x/{STEM}.png") == PNG


def test_a_store_that_was_not_found_to_tell_takes_images_as_before(store: Store, claims: Storage) -> None:
    _lands_while_another_does(store, OTHER)
    assert store.cat_file(f"/bucket/x/{STEM}.png") == PNG
    assert "mode" not in store.puts[0][2], "some stores refuse what they do not know"


def test_a_store_that_takes_no_condition_on_large_files(store: Store, claims: Storage) -> None:
    assert claims.missing_exclusivity() == ""
    store.trouble["put"] = NotImplementedError("not of a file")
    ImageStore("s3://bucket/x").land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert store.cat_file(f"/bucket/x/{STEM}.png") == PNG


def test_a_put_that_fails_is_a_storage_failure_that_was_paid(store: Store, claims: Storage) -> None:
    assert claims.missing_exclusivity() == ""
    store.trouble["put"] = ClientError("503")
    with pytest.raises(StorageFailed, match="503") as caught:
        ImageStore("s3://bucket/x").land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert caught.value.charged == "yes"
