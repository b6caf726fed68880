"""``Storage.create``: whoever creates a file knows it, whatever became of the answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.exclusive import NotExclusive
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.toapis.errors import StorageFailed

TROUBLE = [StorageFailed("503"), FileExistsError("there"), NotExclusive("no links")]


class Place(LocalStorage):
    """A folder whose creates end as told; ``written`` is what stands there by then."""

    ends: Exception
    written: bytes | None = None

    def put_new(self, name: str, content: bytes) -> None:
        if self.written is not None:
            (self.folder / name).write_bytes(self.written)
        raise self.ends


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("ends", TROUBLE)
def test_a_create_whose_answer_was_lost_is_ours(place: Place, ends: Exception) -> None:
    place.ends, place.written = ends, b"our nonce"
    assert place.create("x.g0.json", b"our nonce") is True


@pytest.mark.parametrize("ends", TROUBLE)
@pytest.mark.parametrize("there", [b"", b"their nonce", b"our nonce, and more", b"our"])
def test_another_s_file_is_another_s(place: Place, ends: Exception, there: bytes) -> None:
    place.ends, place.written = ends, there
    assert place.create("x.g0.json", b"our nonce") is False


@pytest.mark.parametrize("ends", TROUBLE)
def test_neither_there_nor_refused_is_not_known(place: Place, ends: Exception) -> None:
    place.ends = ends
    with pytest.raises(StorageFailed, match=r"not known: .*(503|there|no links)\. It is not there yet") as caught:
        place.create("x.g0.json", b"our nonce")
    assert caught.value.retryable
    assert caught.value.__cause__ is ends


@pytest.mark.parametrize("ends", TROUBLE)
def test_what_cannot_be_read_back_is_not_known(place: Place, ends: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ends, place.written = ends, b"our nonce"
    monkeypatch.setattr("os.open", _fail)
    with pytest.raises(StorageFailed, match="Input/output"):
        place.create("x.g0.json", b"our nonce")


def _fail(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


def test_no_other_error_is_taken_for_an_answer(place: Place) -> None:
    place.ends, place.written = KeyError("a bug"), b"our nonce"
    with pytest.raises(KeyError):
        place.create("x.g0.json", b"our nonce")


def test_places_below_belong_to_one_destination(tmp_path: Path) -> None:
    for uri in (str(tmp_path), "memory://bucket/x"):
        store = ImageStore(uri)
        claims = store.reserved("claims")
        assert claims is store.reserved("claims")
        assert claims.destination is store.reserved("books").destination
        assert claims.below("deeper").destination is claims.destination
        assert claims.uri("a").endswith("/.nanobanana/claims/a")
