"""Against a server that speaks S3 (moto's), through Airflow's own path objects and an Amazon connection.

Not run where moto or Amazon's provider is missing; the ``dev`` extra installs both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.durable.claims import BookEntry, encode_book
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.landing.image_store import ImageStore, open_storage
from airflow_provider_nanobanana.landing.reuse import find_existing, find_numbered
from airflow_provider_nanobanana.landing.storage.base import Storage
from airflow_provider_nanobanana.landing.storage.object_store import ObjectStorage
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.submission.claim_sweep import sweep_claims
from airflow_provider_nanobanana.submission.claims import ClaimFolder, MachineClock
from airflow_provider_nanobanana.submission.references import ReferenceUploader, read_reference
from airflow_provider_nanobanana.toapis.errors import (
    ConfigurationError,
    ImageInvalid,
    InvalidRequest,
    StorageFailed,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.protocol import status_call
from airflow_provider_nanobanana.ui.image_bytes import NotShown, read_original, read_thumbnail
from tests.support.campaign import of_campaign
from tests.support.claims import BUYER, claim
from tests.support.create_race import assert_created_once
from tests.support.images import jpeg_with_provenance, picture
from tests.support.moto_store import conditional_writes
from tests.support.s3_proxy import S3Proxy, s3_proxy
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore

MISSING = [name for name in ("moto", "flask", "flask_cors", "s3fs") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"not installed: {', '.join(MISSING)}; install the dev extra",
)

PNG = picture("png")
#: Airflow's, for this file: opening a store takes a second.
STORES: dict[str, Any] = {}
BUCKET = "pictures"


def connection(endpoint: str, **config: Any) -> str:
    """Return an Amazon connection as it stands in the environment."""
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1", "config_kwargs": config}
    return json.dumps({"conn_type": "aws", "login": "an-access-key", "password": "a-secret-key", "extra": extra})


class Bucket:
    """What lies in the store, seen past everything under test."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.endpoint = endpoint
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def content_type(self, key: str) -> str:
        return str(self.client.head_object(Bucket=BUCKET, Key=key)["ContentType"])

    def empty(self) -> None:
        if keys := self.keys():
            self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys]})


@pytest.fixture(scope="module")
def running_bucket() -> Iterator[Bucket]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = Bucket(f"http://{host}:{port}")
    bucket.client.create_bucket(Bucket=BUCKET)
    with conditional_writes():
        yield bucket
    server.stop()


@pytest.fixture
def bucket(running_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, empty, with the connection ``store`` to it; no other credentials, no proxy."""
    running_bucket.empty()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AIRFLOW_CONN_STORE", connection(running_bucket.endpoint))
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", STORES)
    return running_bucket


# --- landing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_an_image_is_one_object_with_its_type(bucket: Bucket, image_format: str) -> None:
    data = jpeg_with_provenance() if image_format == "jpeg" else picture(image_format)
    landing = ImageStore(f"s3://store@{BUCKET}/run=1/a b")
    landing.check_writable()
    stored = landing.land("hero", "tsk_img_1", 0, lambda sink: sink.write(data))
    (key,) = bucket.keys()
    assert stored.uri == f"s3://store@{BUCKET}/{key}"
    assert bucket.get(key) == data
    assert bucket.content_type(key) == f"image/{image_format}"
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert landing.find("hero") == stored.model_copy(update={"id": ""})
    assert ImageStore(f"s3://store@{BUCKET}/run=1/a b/").land("hero", "tsk_img_1", 0, untouched) == stored


def untouched(sink: object) -> None:
    raise AssertionError("the image is there: nothing may be downloaded")


def test_the_uri_opens_in_the_next_task(bucket: Bucket) -> None:
    from airflow.sdk import ObjectStoragePath

    stored = ImageStore(f"s3://store@{BUCKET}").land("hero", "tsk_img_1", 0, lambda sink: sink.write(PNG))
    assert ObjectStoragePath(stored.uri).read_bytes() == PNG


def test_another_worker_s_image_is_seen_at_once(bucket: Bucket) -> None:
    landing = ImageStore(f"s3://store@{BUCKET}/x")
    assert landing.find("hero") is None
    bucket.put("x/hero.png", PNG)
    found = landing.find("hero")
    assert found is not None
    assert found.bytes == len(PNG)


def test_half_an_object_does_not_count_and_is_replaced(bucket: Bucket) -> None:
    bucket.put("x/hero.jpg", PNG[:100])
    landing = ImageStore(f"s3://store@{BUCKET}/x")
    assert landing.find("hero") is None
    landing.land("hero", "tsk_img_1", 0, lambda sink: sink.write(PNG))
    assert bucket.keys() == ["x/hero.png"]


def test_nothing_is_put_before_all_checks(bucket: Bucket) -> None:
    with pytest.raises(ImageInvalid):
        ImageStore(f"s3://store@{BUCKET}").land("hero", "tsk_img_1", 0, lambda sink: sink.write(PNG[:-30]))
    (key,) = bucket.keys()
    assert key.startswith(".nanobanana/quarantine/hero.")
    assert bucket.get(key) == PNG[:-30]
    assert bucket.content_type(key) == "application/octet-stream"
    landing = ImageStore(f"s3://store@{BUCKET}")
    assert landing.find("hero") is None
    assert landing.present({"hero", *(f"other-{number}" for number in range(40))}) == set()


def test_a_manifest_is_replaced_by_the_next(bucket: Bucket) -> None:
    landing = ImageStore(f"s3://store@{BUCKET}/x")
    for count in (1, 2):
        uri = landing.write_manifest("run-1", {"count": count})
    assert uri == f"s3://store@{BUCKET}/x/run-1.json"
    assert json.loads(bucket.get("x/run-1.json")) == {"count": 2}
    assert bucket.content_type("x/run-1.json") == "application/json"


# --- reuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [3, 2_000])
def test_what_is_there_is_found_among_others(bucket: Bucket, many: int) -> None:
    stems = [f"{hashlib.sha256(str(number).encode()).hexdigest()[:16]}-0" for number in range(many)]
    bucket.put(f"x/{stems[0]}.png", PNG)
    bucket.put(f"x/{stems[1]}.webp", PNG[:50])
    bucket.put(f"x/{stems[2][:2]}/{stems[2]}.png", PNG)
    bucket.put("x/somebody.png", PNG)
    found = find_existing(ImageStore(f"s3://store@{BUCKET}/x"), [(stem, stem) for stem in stems])
    assert list(found) == stems[:1]
    assert found[stems[0]].uri == f"s3://store@{BUCKET}/x/{stems[0]}.png"
    heads = {stem.rpartition("-")[0]: 1 for stem in stems}
    bucket.put(f"x/{stems[2][:-1]}7.png", PNG)
    assert find_numbered(ImageStore(f"s3://store@{BUCKET}/x"), heads) == {*stems[:2], f"{stems[2][:-1]}7"}


def test_a_listing_of_more_than_one_page(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "4")  # where S3 gives 1,000 names a page
    wanted = [f"sku-{number:04d}" for number in range(1_100)]
    there = wanted[:11]
    for stem in there:
        bucket.put(f"{stem}.png", b"")
    assert len(bucket.keys()) == 4, "this is a page"
    assert ImageStore(f"s3://store@{BUCKET}").present(wanted) == set(there)
    monkeypatch.undo()
    bucket.empty()


# --- could not ask ---------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_there(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection leads to a port where nobody listens."""
    monkeypatch.setenv("AIRFLOW_CONN_STORE", connection("http://127.0.0.1:9", retries={"total_max_attempts": 1}))
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})


@pytest.mark.usefixtures("nobody_there")
def test_a_store_that_does_not_answer_is_not_empty() -> None:
    with pytest.raises(StorageFailed, match="EndpointConnectionError"):
        ImageStore(f"s3://store@{BUCKET}").find("hero")
    with pytest.raises(StorageFailed, match="Nothing was bought"):
        find_existing(ImageStore(f"s3://store@{BUCKET}"), [(str(number), f"sku-{number}") for number in range(20)])
    with pytest.raises(TransientFailure, match="a retry reads it again"):
        read_reference(f"s3://store@{BUCKET}/hat.png")


def test_a_bucket_that_is_not_there_is_not_empty(bucket: Bucket) -> None:
    with pytest.raises(StorageFailed, match="bucket does not exist"):
        ImageStore("s3://store@no-such-bucket/x").find("hero")
    with pytest.raises(StorageFailed):
        ImageStore("s3://store@no-such-bucket/x").land("hero", "t", 0, lambda sink: sink.write(PNG))


@pytest.mark.usefixtures("bucket")
def test_a_connection_that_is_not_there_is_no_reason_to_try_without() -> None:
    with pytest.raises(ConfigurationError, match="there is no connection 'stroe'"):
        ImageStore(f"s3://stroe@{BUCKET}/x").check_writable()
    with pytest.raises(ConfigurationError, match="there is no connection 'stroe'"):
        read_reference(f"s3://stroe@{BUCKET}/hat.png")


# --- files that are created once -------------------------------------------------------------------------------------


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """The connection leads through a proxy; nothing is remembered of the destination."""
    with s3_proxy(bucket.endpoint) as running:
        # The library's own repetitions take 40 s of a store that never answers; s3fs repeats five times beside them.
        once = connection(running.endpoint, retries={"total_max_attempts": 1})
        monkeypatch.setenv("AIRFLOW_CONN_STORE", once)
        monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
        monkeypatch.setattr("airflow_provider_nanobanana.landing.storage.exclusive._found", {})
        yield running


def claims() -> Storage:
    return ImageStore(f"s3://store@{BUCKET}/x").reserved("claims")


def test_one_of_many_processes_creates_each_name(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    # 500 were raced once (docs/storage.md).
    assert_created_once(claims, of_campaign(50, 500))


def test_a_create_whose_answer_is_lost_is_ours(bucket: Bucket, proxy: S3Proxy) -> None:
    proxy.lost_answers = 1
    assert claims().create("a.g0.json", b"our nonce") is True
    assert proxy.puts == 2, "the library repeated it, and was told that it is there"
    assert bucket.keys() == ["x/.nanobanana/claims/a.g0.json"]
    assert claims().create("a.g0.json", b"their nonce") is False


def test_a_create_whose_every_answer_is_lost_is_ours(bucket: Bucket, proxy: S3Proxy) -> None:
    proxy.lost_answers = 1_000
    assert claims().create("a.g0.json", b"our nonce") is True


@pytest.mark.parametrize(
    ("status", "code"), [(412, "PreconditionFailed"), (403, "AccessDenied"), (404, "NoSuchKey"), (500, "InternalError")]
)
def test_whatever_a_create_is_answered_the_object_decides(
    bucket: Bucket, proxy: S3Proxy, status: int, code: str
) -> None:
    bucket.put("x/.nanobanana/claims/a", b"our nonce")
    bucket.put("x/.nanobanana/claims/b", b"their nonce")
    for name, expected in (("a", True), ("b", False)):
        proxy.answers["PUT"] = [(status, code)] * 20
        assert claims().create(name, b"our nonce") is expected
    proxy.answers["PUT"] = [(status, code)] * 20
    with pytest.raises(StorageFailed, match="not known"):
        claims().create("c", b"our nonce")
    proxy.answers.clear()
    assert claims().create("c", b"our nonce") is True


def test_a_conflict_is_sent_again(bucket: Bucket, proxy: S3Proxy) -> None:
    proxy.answers["PUT"] = [(409, "ConditionalRequestConflict")]
    assert claims().create("a", b"our nonce") is True


def test_a_create_that_cannot_be_read_back_is_not_known(bucket: Bucket, proxy: S3Proxy) -> None:
    claims().create("a", b"our nonce")
    proxy.answers["GET"] = [(403, "AccessDenied")]
    with pytest.raises(StorageFailed, match="AccessDenied"):
        claims().create("a", b"our nonce")


def test_the_probe_of_a_store_that_excludes(bucket: Bucket, proxy: S3Proxy) -> None:
    assert claims().missing_exclusivity() == ""
    assert bucket.keys() == ["x/.nanobanana/README.txt"]
    assert b"Do not delete" in bucket.get("x/.nanobanana/README.txt")
    assert proxy.puts == 2
    assert claims().missing_exclusivity() == "" and proxy.puts == 2


def test_the_probe_of_a_store_that_ignores_the_condition(bucket: Bucket, proxy: S3Proxy) -> None:
    proxy.ignores_condition = True
    assert "could be created twice" in claims().missing_exclusivity()


@pytest.mark.parametrize(
    ("status", "code", "words"), [(403, "AccessDenied", "rights"), (501, "NotImplemented", "no condition")]
)
def test_the_probe_of_a_store_that_refuses(bucket: Bucket, proxy: S3Proxy, status: int, code: str, words: str) -> None:
    proxy.answers["PUT"] = [(status, code)] * 20
    assert words in claims().missing_exclusivity()
    assert bucket.keys() == []


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ExpiredToken"), (403, "RequestTimeTooSkewed"), (500, "InternalError")]
)
def test_the_probe_of_a_store_on_a_bad_day(bucket: Bucket, proxy: S3Proxy, status: int, code: str) -> None:
    proxy.answers["PUT"] = [(status, code)] * 20
    with pytest.raises(StorageFailed):
        claims().missing_exclusivity()
    proxy.answers.clear()
    assert claims().missing_exclusivity() == ""


def test_read_and_modified_of_a_store(bucket: Bucket) -> None:
    place = claims()
    assert place.read("a", 10) is None and place.modified("a") is None
    bucket.put("x/.nanobanana/claims/a", b"")
    assert place.read("a", 10) == b""
    bucket.put("x/.nanobanana/claims/a", b"12345")
    assert [place.read("a", most) for most in (4, 5, 6)] == [b"12345", b"12345", b"12345"]
    assert place.read("a", 2) == b"123"
    written = place.modified("a")
    assert written is not None and abs(written - time.time()) < 3_600
    place.write("a", b"again")
    assert place.read("a", 10) == b"again"
    with pytest.raises(StorageFailed, match="bucket does not exist"):
        ImageStore("s3://store@no-such-bucket/x").reserved("claims").read("a", 10)


def test_what_landed_first_stays(bucket: Bucket, proxy: S3Proxy) -> None:
    landing = ImageStore(f"s3://store@{BUCKET}/x")
    assert landing.reserved("claims").missing_exclusivity() == ""
    other = picture("png", (32, 32))

    def fetch(sink: Any) -> object:
        bucket.put("x/hero.png", other)
        return sink.write(PNG)

    found: list[Any] = []
    stored = landing.land("hero", "tsk_img_1", 0, fetch, on_in_place=found.append)
    assert found == [stored] and bucket.get("x/hero.png") == other
    proxy.lost_answers = 1
    stored = landing.land("kite", "tsk_img_2", 0, lambda sink: sink.write(PNG), on_in_place=found.append)
    assert len(found) == 1 and stored.id == "tsk_img_2", "our own, whose answer was lost"
    assert landing.present({"hero", "kite", *map(str, range(40))}) == {"hero", "kite"}


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hat.png", "red hat%20 (1).png", "größe.png"])
def test_a_reference_is_read_from_the_store(bucket: Bucket, name: str) -> None:
    bucket.put(f"refs/{name}", PNG)
    upload = read_reference(f"s3://store@{BUCKET}/refs/{name}")
    assert (upload.content, upload.mime_type) == (PNG, "image/png")


@pytest.mark.parametrize("key", ["nothing.png", "refs", "refs/page.png"])
def test_a_reference_that_is_no_image_says_so(bucket: Bucket, key: str) -> None:
    bucket.put("refs/page.png", b"<html>")
    with pytest.raises(InvalidRequest, match=key):
        read_reference(f"s3://store@{BUCKET}/{key}")


# --- all of it -------------------------------------------------------------------------------------------------------


def completed(hook: NanoBananaHook, image_task_id: str) -> ImageTask:
    for _ in range(1_000):
        image_task = hook.client.call(status_call(image_task_id))
        if image_task.images:
            return image_task
    raise AssertionError("the emulator has no latency here")


def test_from_a_reference_in_the_store_to_an_image_in_the_store(bucket: Bucket, emulator: Emulator) -> None:
    for name in ("hat", "the same hat"):
        bucket.put(f"refs/{name}.png", PNG)
    uris = [f"s3://store@{BUCKET}/refs/{name}.png" for name in ("hat", "the same hat")]
    with NanoBananaHook() as hook, ImageDownloader(hook.session, f"s3://store@{BUCKET}/out") as retrieval:
        references = ReferenceUploader.of(hook.session)
        request = references.uploaded(hook.parse_request({"prompt": "a red hat", "reference_images": uris}))
        (image,) = completed(hook, hook.submit(request).id).images
        stored = retrieval.land(image, stem="0123456789abcdef-0")
        found = find_existing(retrieval.store, [("k", "0123456789abcdef-0")])
    assert len(set(request.reference_images)) == 1 and request.reference_images[0].startswith("http")
    assert found["k"] == stored.model_copy(update={"id": ""})
    assert stored.uri.startswith(f"s3://store@{BUCKET}/out/0123456789abcdef-0.")


def test_generate_from_store_to_store_and_a_next_run_that_pays_for_one_change(
    bucket: Bucket, emulator: Emulator
) -> None:
    bucket.put("refs/hat.png", PNG)
    hat = {"prompt": "a hat like this", "reference_images": [f"s3://store@{BUCKET}/refs/hat.png"], "name": "hat"}
    first = generate("first", ["a kite", "a boat", hat])
    assert first.error is None and emulator.ledger()["count"] == 3
    for image in first.result["images"]:
        content = bucket.get(image["uri"].removeprefix(f"s3://store@{BUCKET}/"))
        assert hashlib.sha256(content).hexdigest() == image["sha256"] and len(content) == image["bytes"]
    manifest = json.loads(bucket.get(first.result["manifest"].removeprefix(f"s3://store@{BUCKET}/")))
    assert manifest["count"] == 3 and manifest["images"][2]["name"] == "hat"
    bucket.put("refs/hat.png", picture("png", (64, 32)))
    second = generate("second", ["a boat", "a kite", hat])
    assert second.error is None and emulator.ledger()["count"] == 4, "the hat looks different now"
    assert [image["reused"] for image in second.result["images"]] == [True, True, False]


def test_in_a_bucket_with_versions_a_picture_that_was_deleted_is_gone(bucket: Bucket, emulator: Emulator) -> None:
    """docs/guides/bucket-expiry.md: it hides behind a delete marker; without the marker it is there again."""
    versions = "versions"
    bucket.client.create_bucket(Bucket=versions)
    bucket.client.put_bucket_versioning(Bucket=versions, VersioningConfiguration={"Status": "Enabled"})
    asked: dict[str, Any] = {"prompt": "a kite", "destination": f"s3://store@{versions}/x", "poke_interval": 0.05}

    def run(number: int) -> Run:
        ti = TaskInstance(run_id=f"run {number}", store=MemoryTaskStateStore())
        return attempt(NanoBananaGenerateOperator(task_id="generate", **asked), ti)

    (image,) = run(1).result["images"]
    key = f"x/{image['uri'].rpartition('/')[2]}"
    marker = bucket.client.delete_object(Bucket=versions, Key=key)
    assert run(2).result["reused"] == 0, "stored again from its link"
    again = bucket.client.delete_object(Bucket=versions, Key=key)
    assert marker["DeleteMarker"] and again["DeleteMarker"]
    bucket.client.delete_object(Bucket=versions, Key=key, VersionId=again["VersionId"])
    assert run(3).result["reused"] == 1
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize("thumbnails", [True, False])
def test_thumbnails_lie_in_the_store_and_what_is_missing_is_made_of_the_picture(
    bucket: Bucket, emulator: Emulator, thumbnails: bool
) -> None:
    run = generate("first", ["a kite"], thumbnails=thumbnails)
    (image,) = run.result["images"]
    key = f"out/.nanobanana/thumbs/{image['sha256'][:24]}.webp"
    assert bucket.keys().count(key) == int(thumbnails)
    storage = open_storage(f"s3://store@{BUCKET}/out")
    name = image["uri"].rpartition("/")[2]
    small = read_thumbnail(storage, name, image["sha256"])
    assert small.content[8:12] == b"WEBP"
    if thumbnails:
        assert small.content == bucket.get(key) and bucket.content_type(key) == "image/webp"
    assert hashlib.sha256(read_original(storage, name).content).hexdigest() == image["sha256"]
    for missing in ("nothing.png", "../out/" + name, ".nanobanana/quarantine/nothing.png"):
        with pytest.raises(NotShown) as error:
            read_original(storage, missing)
        assert error.value.status == 404


@pytest.mark.parametrize(
    "destination", [f"s3://nobody@{BUCKET}/out", "s3://store@no-such-bucket/out", "gs://pictures/out"]
)
def test_a_store_that_the_api_server_cannot_read_is_said_in_fixed_words(bucket: Bucket, destination: str) -> None:
    with pytest.raises(NotShown) as error:
        read_original(open_storage(destination), "a.png")
    assert (error.value.status, error.value.words) == (502, "The api-server cannot read this store.")


def test_a_new_version_lies_beside_the_first_in_a_store(bucket: Bucket, emulator: Emulator) -> None:
    requests = [{"prompt": f"a mug, number {number}", "name": f"mug-{number}"} for number in range(3)]
    assert generate("first", requests).error is None
    for run_id in ("second", "second", "third"):
        run = generate(run_id, requests, redo=["mug-1"] if run_id == "second" else None)
        assert run.error is None
        assert [image["uri"].endswith("-v2.png") for image in run.result["images"]] == [False, True, False]
    assert emulator.ledger()["count"] == 4
    stem = run.result["images"][1]["uri"].rpartition("/")[2].removesuffix(".png")
    bucket.put(f"out/.nanobanana/rejections/{stem}.json", b"")
    last = generate("fourth", requests)
    assert last.error is None and emulator.ledger()["count"] == 4
    assert not any("-v2" in image["uri"] for image in last.result["images"])


def test_who_may_not_look_below_our_folder_still_gets_images(
    bucket: Bucket, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = ObjectStorage.names

    def refused(self: ObjectStorage, prefix: str = "") -> Iterator[str]:
        if ".nanobanana/" in self.uri(""):
            raise StorageFailed("Could not list") from PermissionError("AccessDenied")
        return names(self, prefix)

    monkeypatch.setattr(ObjectStorage, "names", refused)
    run = generate("first", ["a kite"], claims="off")
    assert run.error is None and emulator.ledger()["count"] == 1
    assert "No rights to read" in caplog.text


def generate(run_id: str, requests: list[Any], **options: Any) -> Run:
    operator = NanoBananaGenerateOperator(
        task_id="generate",
        requests=requests,
        destination=f"s3://store@{BUCKET}/out",
        poke_interval=0.05,
        timeout=20,
        **options,
    )
    return attempt(operator, TaskInstance(task_id="generate", run_id=run_id, store=MemoryTaskStateStore()))


def test_what_was_paid_is_read_from_the_store_and_nothing_else_is_printed(
    bucket: Bucket, emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    for run_id in ("first", "second"):
        assert generate(run_id, ["a kite", "a boat"]).error is None
    made = claim("hat-5f0c6e9a1b")
    bucket.put(f"out/.nanobanana/claims/{made.name}.json", made.encode())
    book = encode_book({made.name: BookEntry("bought", "tsk_1")}, buyer=made.by, models={made.name: "nano_banana_2"})
    bucket.put(f"out/.nanobanana/books/{made.book}.json", book)
    bucket.put("out/manifest-of-another-tool.json", b"{}")
    capfd.readouterr()
    assert main(["spend", f"s3://store@{BUCKET}/out", "--json"]) == 1
    shown = capfd.readouterr()
    content = json.loads(shown.out)
    totals = {name: value for name, value in content["totals"].items() if value}
    # The emulator charged two of them; the third is told by the book alone.
    assert totals == {
        **{"paid_usd": 0.075, "of_which_listed_usd": 0.025},
        **{"bought": 2, "reused": 2, "booked": 1},
    }
    assert emulator.ledger()["count"] == 2
    ((open_claim,), (skipped,)) = content["open_claims"], content["skipped"]
    assert (open_claim["stem"], open_claim["image_task_id"]) == ("hat-5f0c6e9a1b", "tsk_1")
    assert 0 <= open_claim["age_seconds"] < 60, "by the store's clock"
    assert skipped["uri"] == f"s3://store@{BUCKET}/out/manifest-of-another-tool.json"
    assert "manifest-of-another-tool.json: it is no manifest" in shown.err


@pytest.mark.usefixtures("nobody_there")
@pytest.mark.parametrize(
    ("conn_id", "words"), [("store", "EndpointConnectionError"), ("stroe", "there is no connection 'stroe'")]
)
def test_of_a_store_that_cannot_be_asked_no_sum_is_printed(conn_id: str, words: str) -> None:
    """In a process of its own: what Airflow and its providers log is not in the answer either."""
    command = [sys.executable, "-m", "airflow_provider_nanobanana", "spend", f"s3://{conn_id}@{BUCKET}/out", "--json"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr and "Traceback" not in ended.stderr


def test_claims_of_more_than_a_week_ago_go(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's times are moto's: those of the listing are moved, not the clocks."""
    store = ImageStore(f"s3://store@{BUCKET}/x")
    old = claim("old-0"), claim("chain-0"), claim("chain-0", 1)
    young = claim("young-0"), claim("half-0"), claim("half-0", 1)
    for made in (*old, *young):
        bucket.put(f"x/.nanobanana/claims/{made.name}.json", made.encode())
    bucket.put(f"x/.nanobanana/books/{'b' * 32}.json", b"{}")
    bucket.put("x/.nanobanana/quarantine/old-0.g0.json", b"paid")
    weeks_ago = {f"{made.name}.json" for made in (*old, young[1])} | {f"{'b' * 32}.json"}
    listings: list[str] = []

    def entries(self: ObjectStorage) -> Iterator[tuple[str, float | None]]:
        listings.append(self.uri(""))
        for name, at in listed(self):
            assert at is not None and abs(at - time.time()) < 60
            yield name, at - 8 * 86400 if name in weeks_ago else at

    listed = ObjectStorage.entries
    monkeypatch.setattr(ObjectStorage, "entries", entries)
    folder = ClaimFolder(store, BUYER, MachineClock(time.time))
    assert sweep_claims(folder, store) == 4
    assert len(listings) == 3, "one of the markers, one of the claims, one of the books"
    kept = {"half-0.g0.json", "half-0.g1.json", "young-0.g0.json"}
    assert {key.removeprefix("x/.nanobanana/") for key in map(str, bucket.keys())} == {
        *(f"claims/{name}" for name in kept),
        "clock/now",
        "clock/swept-0",
        "quarantine/old-0.g0.json",
    }
    bucket.put(f"x/.nanobanana/claims/{old[0].name}.json", old[0].encode())
    assert sweep_claims(folder, store) == 0, "once a day"
