"""Reference images from local files and stores: read without a word of what else a file may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_nanobanana.hooks.reference import read_reference
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest, TransientFailure
from airflow_provider_nanobanana.toapis.protocol import Upload
from tests.unit.picture_fixtures import picture


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
