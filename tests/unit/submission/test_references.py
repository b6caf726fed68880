"""The references of a run: every URI is read once, every content uploaded once, and no old hash covers new bytes."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from PIL import Image

from airflow_provider_nanobanana.landing.reference_image import fit_reference
from airflow_provider_nanobanana.submission import references as reference
from airflow_provider_nanobanana.submission.references import (
    ReferenceUploader,
    SingleFlight,
    load_reference,
    read_reference,
)
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest, ToApisError, TransientFailure
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.protocol import Upload
from tests.support.images import picture, png_header


class Service:
    """Takes uploads, several at a time, and fails where told to."""

    def __init__(self) -> None:
        self.uploads: list[Upload] = []
        self.trouble: list[ToApisError] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, upload: Upload) -> str:
        self.gate.wait(10)
        if self.trouble:
            raise self.trouble.pop()
        self.uploads.append(upload)
        return f"https://files.example/{len(self.uploads)}.png"


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every read of a storage, as it happens."""
    noted: list[str] = []
    monkeypatch.setattr(reference, "load_reference", lambda uri, **how: noted.append(uri) or load_reference(uri, **how))  # type: ignore[func-returns-value]
    return noted


def saved(folder: Path, name: str, width: int = 8) -> str:
    (folder / name).write_bytes(picture("png", (width, 8)))
    return f"file://{folder}/{name}"


def test_one_upload_for_each_content_and_one_read_for_each_uri(
    tmp_path: Path, service: Service, reads: list[str]
) -> None:
    red, same, blue = saved(tmp_path, "red.png"), saved(tmp_path, "same.png"), saved(tmp_path, "blue.png", 9)
    references = ReferenceUploader(service)
    assert (
        references.digest(red) == references.digest(f" {same} ") == hashlib.sha256(picture("png", (8, 8))).hexdigest()
    )
    assert references.digest(blue) != references.digest(red)
    assert [references.url(uri) for uri in (red, same, blue, red)] == [
        "https://files.example/1.png",
        "https://files.example/1.png",
        "https://files.example/2.png",
        "https://files.example/1.png",
    ]
    assert sorted(reads) == sorted([red, same, blue])
    assert [upload.content for upload in service.uploads] == [picture("png", (8, 8)), picture("png", (9, 8))]


def test_a_link_passes_through_and_is_never_read(service: Service, reads: list[str]) -> None:
    link = "https://shop.example/a.png?signature=1"
    references = ReferenceUploader(service)
    assert references.url(link) == link
    with pytest.raises(ValueError, match="http"):
        references.digest(link)
    assert (reads, service.uploads) == ([], [])


def test_a_request_is_sent_with_links_only(tmp_path: Path, service: Service) -> None:
    link, red = "https://shop.example/a.png", saved(tmp_path, "red.png")
    request = ImageRequest.parse({"prompt": "a hat", "reference_images": [red, link, red]}, "nano_banana_2")
    sent = ReferenceUploader(service).uploaded(request)
    assert sent.reference_images == ("https://files.example/1.png", link, "https://files.example/1.png")
    assert sent.model_copy(update={"reference_images": request.reference_images}) == request


def test_nothing_is_uploaded_before_all_of_a_request_are_checked(tmp_path: Path, service: Service) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    request = ImageRequest.parse(
        {"prompt": "a hat", "reference_images": [saved(tmp_path, "a.png"), f"file://{tmp_path}/b.png"]}
    )
    with pytest.raises(InvalidRequest, match=r"b\.png"):
        ReferenceUploader(service).uploaded(request)
    assert service.uploads == []


@pytest.mark.parametrize(("model", "refused"), [("doubao-seedream-4-0", True), ("nano_banana_2", False)])
def test_a_format_that_the_model_does_not_take_is_refused(
    tmp_path: Path, service: Service, model: str, refused: bool
) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture, "WEBP")
    references = ReferenceUploader(service)
    request = ImageRequest.parse({"prompt": "a hat", "reference_images": [str(picture)]}, model)
    for _ in range(2):
        if refused:
            with pytest.raises(InvalidRequest, match=r"is WEBP, and doubao-seedream-4-0 takes JPEG or PNG"):
                references.uploaded(request)
        else:
            assert references.uploaded(request).reference_images == ("https://files.example/1.png",)


def asks(uri: str, model: str) -> ImageRequest:
    return ImageRequest.parse({"prompt": "a hat", "reference_images": [uri]}, model)


SEEDREAM = "doubao-seedream-4-0"


@pytest.mark.parametrize(("mode", "sent"), [("RGB", "image/jpeg"), ("RGBA", "image/png")])
def test_what_is_prepared_is_in_a_format_that_the_model_takes(
    tmp_path: Path, service: Service, mode: str, sent: str
) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "a.webp")
    uri = f"file://{tmp_path}/a.webp"
    references = ReferenceUploader(service, prepare=True)
    both = [asks(uri, "nano_banana_2"), asks(uri, SEEDREAM)]
    references.expect(both)
    digest = references.digest(uri)
    for request in both:
        references.check(request)
        references.uploaded(request)
    # The identity is the original's, and what both take is uploaded once.
    assert digest == hashlib.sha256((tmp_path / "a.webp").read_bytes()).hexdigest()
    assert [upload.mime_type for upload in service.uploads] == [sent]
    assert "converted" in references.prepared[uri]


def test_a_model_that_nobody_told_of_gets_a_format_of_its_own(tmp_path: Path, service: Service) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp")
    Image.new("RGB", (8, 8)).save(tmp_path / "same.webp")
    uri = f"file://{tmp_path}/a.webp"
    references = ReferenceUploader(service, prepare=True)
    references.uploaded(asks(uri, "nano_banana_2"))
    references.uploaded(asks(f"file://{tmp_path}/same.webp", SEEDREAM))
    references.uploaded(asks(uri, SEEDREAM))
    assert [upload.mime_type for upload in service.uploads] == ["image/webp", "image/jpeg"]
    later = ReferenceUploader(service, prepare=True, digests=references.digests)
    later.uploaded(asks(uri, SEEDREAM))
    assert service.uploads[-1].mime_type == "image/jpeg"


def test_of_large_ones_one_at_a_time_is_in_memory(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    most: list[int] = []

    def watched(data: bytes, **how: Any) -> Any:
        held.append(len(data))
        most.append(len(held))
        try:
            return fit_reference(data, **how)
        finally:
            held.pop()

    monkeypatch.setattr(reference, "fit_reference", watched)
    monkeypatch.setattr(reference, "MAX_REFERENCE_BYTES", 10)
    uris = [saved(tmp_path, f"{number}.png", number + 1) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ReferenceUploader(service, prepare=True).digest, uris))) == 8
    assert most == [1] * 8


@pytest.mark.parametrize(("model", "warned"), [("nano_banana_2", True), ("gpt-image-2", False)])
def test_many_references_are_told_where_the_sources_differ(
    service: Service, caplog: pytest.LogCaptureFixture, model: str, warned: bool
) -> None:
    links = [f"https://example.com/{number}.png" for number in range(7)]
    ReferenceUploader(service).uploaded(ImageRequest.parse({"prompt": "x", "reference_images": links}, model))
    assert ("7 reference images" in caplog.text) == warned


def test_threads_that_want_the_same_wait_for_one_upload(tmp_path: Path, service: Service, reads: list[str]) -> None:
    uris = [saved(tmp_path, f"{number}.png") for number in range(8)]
    references = ReferenceUploader(service)
    service.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        urls = [pool.submit(references.url, uri) for uri in uris * 4]
        service.gate.set()
        assert {url.result() for url in urls} == {"https://files.example/1.png"}
    assert len(service.uploads) == 1
    assert sorted(reads) == sorted(uris)


def test_a_failed_upload_is_tried_again_by_who_asks_again(tmp_path: Path, service: Service, reads: list[str]) -> None:
    service.trouble = [TransientFailure("502")]
    references = ReferenceUploader(service)
    red = saved(tmp_path, "red.png")
    with pytest.raises(TransientFailure, match="502"):
        references.url(red)
    assert references.url(red) == "https://files.example/1.png"
    assert reads == [red]


def test_a_reference_that_could_not_be_read_is_read_again(service: Service, reads: list[str], tmp_path: Path) -> None:
    references, late = ReferenceUploader(service), f"file://{tmp_path}/late.png"
    with pytest.raises(InvalidRequest, match="cannot be read"):
        references.digest(late)
    assert references.digests == {}
    saved(tmp_path, "late.png")
    assert references.digest(late)
    assert reads == [late, late]


def test_many_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    together = threading.Barrier(8)

    def read(uri: str, **how: Any) -> Any:
        together.wait(10)  # breaks, and so fails the test, unless eight arrive
        return load_reference(uri, **how)

    monkeypatch.setattr(reference, "load_reference", read)
    uris = [saved(tmp_path, f"{number}.png", number + 1) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ReferenceUploader(service).digest, uris))) == 8


def test_what_is_known_from_before_is_not_read_again(tmp_path: Path, service: Service, reads: list[str]) -> None:
    red = saved(tmp_path, "red.png")
    first = ReferenceUploader(service)
    digest = first.digest(red)
    assert "red" not in str(first.digests), "a URI may hold a signature"
    (tmp_path / "red.png").unlink()
    assert ReferenceUploader(service, digests=first.digests).digest(red) == digest
    assert (len(reads), service.uploads) == (1, [])


def test_few_bytes_are_kept_and_the_rest_is_read_again(
    tmp_path: Path, service: Service, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [saved(tmp_path, f"{number}.png", 30 + number) for number in range(10)]
    sizes = [(tmp_path / f"{number}.png").stat().st_size for number in range(10)]
    monkeypatch.setattr(reference, "_KEPT_BYTES", sum(sizes[-3:]))
    references = ReferenceUploader(service)
    for uri in uris:
        references.digest(uri)
    for uri in reversed(uris):
        references.url(uri)
    assert reads == uris + uris[-4::-1]
    assert len(service.uploads) == 10


def test_a_file_that_changes_on_the_way_is_not_sent_under_the_old_hash(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_KEPT_BYTES", 0)
    references = ReferenceUploader(service)
    red = saved(tmp_path, "red.png")
    references.digest(red)
    saved(tmp_path, "red.png", 9)
    with pytest.raises(TransientFailure, match="a retry takes the new content"):
        references.url(red)
    bound = ReferenceUploader(service, digests=references.digests, bound=True)
    with pytest.raises(InvalidRequest, match="clear the task"):
        bound.url(red)
    assert service.uploads == []


def test_a_maker_that_is_killed_lets_the_others_go() -> None:
    made: SingleFlight[str] = SingleFlight()
    started, go = threading.Event(), threading.Event()

    def killed() -> str:
        started.set()
        go.wait(10)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(made.get, "a", killed)
        assert started.wait(10)
        second = pool.submit(made.get, "a", lambda: "made after all")
        go.set()
        assert isinstance(first.exception(), KeyboardInterrupt)
        # It waited for the first and was told, or came when the first was gone.
        assert isinstance(second.exception(), KeyboardInterrupt) or second.result() == "made after all"
    assert made.get("a", lambda: "b") in ("b", "made after all")


# --- reading references from local files and stores ------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://conn@{}", "local://{}", "  {} "])
def test_a_local_file_needs_nothing_of_airflow(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", None)
    path = tmp_path / "red hat%20.png"
    path.write_bytes(picture("png"))
    assert read_reference(form.format(path)) == Upload(path.name, picture("png"), "image/png")


@pytest.mark.parametrize("secret", [b"root:x:0:0:root", b"<password>hunter2</password>", b"\x00\x01hunter2"])
def test_a_file_that_is_no_image_is_not_quoted(secret: bytes, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(secret)
    with pytest.raises(InvalidRequest, match="must be JPEG, PNG or WebP") as refused:
        read_reference(f"file://{tmp_path}/passwd")
    assert "root" not in refused.value.message.replace(str(tmp_path), "")
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_file_that_is_no_whole_image_is_refused_before_it_is_uploaded(
    image_format: str, share: float, tmp_path: Path
) -> None:
    whole = picture(image_format, (300, 200))
    (tmp_path / "cut").write_bytes(whole[: max(12, int(len(whole) * share))])
    with pytest.raises(InvalidRequest, match="must be a whole JPEG, PNG or WebP") as refused:
        read_reference(f"{tmp_path}/cut")
    assert refused.value.charged == "no" and "nanobanana-" not in refused.value.message


def test_the_beginning_of_an_image_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InvalidRequest, match="must be a whole"):
        read_reference(tmp_path / "a.png")


def test_what_a_camera_makes_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    """24 megapixels: more than an image of the model may have."""
    photo = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((6000, 4000)).convert("RGB").save(photo, quality=60)
    assert read_reference(photo).mime_type == "image/jpeg"
    photo.write_bytes(photo.read_bytes()[:-20_000])
    with pytest.raises(InvalidRequest, match="must be a whole"):
        read_reference(photo)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(9_000, 9_000))
    with pytest.raises(InvalidRequest, match="9000x9000 pixels"):
        read_reference(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("name", "image_format", "sent"),
    [
        ("a.jpg", "png", "a.png"),
        ("a.JPEG", "jpeg", "a.JPEG"),
        ("a.png", "webp", "a.webp"),
        ("photo.heic", "jpeg", "photo.jpg"),
        ("no-suffix", "png", "no-suffix.png"),
        ("v1.5", "png", "v1.5.png"),
        ("100%+c#1.png", "jpeg", "100%+c#1.jpg"),
        ('фото 猫 é"q".png', "png", 'фото 猫 é"q".png'),
        (".png", "png", "reference.png"),
        ("x" * 200 + ".png", "png", "x" * 80 + ".png"),
    ],
)
def test_the_name_tells_what_the_file_is(name: str, image_format: str, sent: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(picture(image_format))
    assert read_reference(tmp_path / name).filename == sent


@pytest.mark.parametrize(
    "form", [str, Path, lambda path: f"file://{path}", lambda path: ObjectStoragePath(f"file://{path}")]
)
def test_a_path_object_is_a_path(form: Any, tmp_path: Path) -> None:
    (tmp_path / "a#1?.png").write_bytes(picture("png"))
    assert read_reference(form(tmp_path / "a#1?.png")).content == picture("png")


@pytest.mark.parametrize("value", [None, 3, ["a.png"], object()])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="is a path or a URI"):
        read_reference(value)


@pytest.mark.parametrize("uri", ["file:///nowhere/a.png", "/nowhere/a.png", "nowhere.png", "file://nowhere.png", ""])
def test_a_file_that_is_not_there_says_what_to_give(uri: str) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be read .* Give an http"):
        read_reference(uri)


def test_a_scheme_that_nothing_serves_keeps_the_signature_to_itself() -> None:
    with pytest.raises(ConfigurationError, match="No installed provider package") as refused:
        read_reference("bogus://bucket/a.png?signature=s3cret")
    assert "s3cret" not in refused.value.message


def test_a_storage_that_fails_for_now_may_be_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class EndpointConnectionError(Exception):
        """As of botocore: no OSError."""

    def fail(self: Path, *args: object) -> None:
        raise EndpointConnectionError("Could not connect to the endpoint URL")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(TransientFailure, match=r"a\.png.*EndpointConnectionError.*a retry reads it again") as failed:
        read_reference(str(tmp_path / "a.png"))
    assert failed.value.charged == "no"
