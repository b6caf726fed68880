"""Reference images from local files and stores: read without a word of what else a file may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from PIL import Image

from airflow_provider_nanobanana.submission.references import read_reference
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest, TransientFailure
from airflow_provider_nanobanana.toapis.protocol import Upload
from tests.support.images import picture, png_header


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
