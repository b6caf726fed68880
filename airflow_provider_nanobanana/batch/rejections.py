"""What a person decided of pictures, written beside them: a file for each that is rejected, none for the others.

Of several versions the newest that is not rejected is used. So an older one is chosen by rejecting the newer ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.versions import (
    VersionFolder,
    reject,
    rejected_stems,
    split_stem,
    take_back,
    versioned_stem,
)
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import WorkerPool

log = LineLogger(__name__)

_THREADS: Final = 8
#: Characters of a comment beside each picture; files of ours are read up to 4,096 bytes.
_LONGEST_COMMENT: Final = 500
_LONGEST_NAME: Final = 100

Unwritten = dict[str, ToApisError]


@dataclass(frozen=True)
class Place:
    """Where a picture is: its folder, and its file's name without suffix."""

    folder: str
    stem: str

    @classmethod
    def of(cls, uri: str) -> Place:
        """Return the place that a URI names, as results and manifests have it."""
        folder, _, name = uri.rpartition("/")
        return cls(folder, name.rpartition(".")[0])


def write_rejections(uris: Iterable[str], *, by: str, comment: str, now: float) -> Unwritten:
    """Reject pictures, each whatever becomes of the others; return why by the URI of each that could not be.

    :param by: Who rejects them.
    :param now: Epoch seconds.
    """

    def write(store: ImageStore, stem: str) -> None:
        reject(store, stem, by=by[:_LONGEST_NAME], comment=comment[:_LONGEST_COMMENT], now=now)

    return _for_each(uris, write, lambda store, stems: stems)


def take_back_rejections(uris: Iterable[str]) -> Unwritten:
    """Take the rejections of pictures back, as far as there are any; return why by URI where that failed.

    An earlier answer, or another person, may have rejected what is approved now.
    """

    def rejected_of(store: ImageStore, stems: set[str]) -> set[str]:
        return stems & rejected_stems(store)

    return _for_each(uris, take_back, rejected_of)


def rejected_among(uris: Iterable[str]) -> set[str]:
    """Return those of some pictures that are rejected.

    :raises ToApisError: A destination could not be asked.
    """
    places = {uri: Place.of(uri) for uri in uris}
    with wrap_unexpected_errors("Rejections could not be read"):
        rejected = {folder: rejected_stems(ImageStore(folder)) for folder in {each.folder for each in places.values()}}
    return {uri for uri, place in places.items() if place.stem in rejected[place.folder]}


def newer_versions(chosen: Iterable[str], asked: Iterable[str]) -> list[str]:
    """Return the versions that would be used instead of chosen ones: those above them that are not rejected.

    :param chosen: URIs of pictures.
    :param asked: URIs of pictures that are decided by themselves, and are left out.
    :raises ToApisError: A destination could not be asked.
    """
    places = {uri: Place.of(uri) for uri in chosen}
    known = {Place.of(uri) for uri in asked}
    found: dict[Place, str] = {}
    with wrap_unexpected_errors("Versions could not be read"):
        names = {place.folder for place in places.values()}
        folders = {name: VersionFolder(ImageStore(name).reserved) for name in names}
        for uri, place in places.items():
            base, number = split_stem(place.stem)
            for newer in folders[place.folder].of(base).alive:
                version = Place(place.folder, versioned_stem(base, newer))
                if newer > number and version not in known:
                    # Whatever its file is called, a rejection is about the name without suffix.
                    found[version] = f"{version.folder}/{version.stem}{PurePosixPath(uri).suffix}"
    return [*found.values()]


def _for_each(
    uris: Iterable[str],
    change: Callable[[ImageStore, str], None],
    among: Callable[[ImageStore, set[str]], set[str]],
) -> Unwritten:
    """Change something of each picture, folder by folder; return what went wrong by URI.

    :param among: Which stems of a folder there is anything to change of.
    """
    folders: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for uri in uris:
        place = Place.of(uri)
        folders[place.folder][place.stem] = uri
    failed: Unwritten = {}
    for folder, by_stem in folders.items():
        try:
            with wrap_unexpected_errors(f"{folder} could not be asked"):
                store = ImageStore(folder)
                concerned = among(store, {*by_stem})
        except ToApisError as error:
            failed.update(dict.fromkeys(by_stem.values(), error))
            continue
        stems = [stem for stem in by_stem if stem in concerned]
        with WorkerPool(_THREADS) as pool:
            ended = zip(stems, pool.map(partial(_failure, change, store), stems), strict=True)
            failed.update({by_stem[stem]: error for stem, error in ended if error is not None})
    return failed


def _failure(change: Callable[[ImageStore, str], None], store: ImageStore, stem: str) -> ToApisError | None:
    """Change something of a picture; return why that could not be done, None where it was."""
    try:
        with wrap_unexpected_errors("It could not be written"):
            change(store, stem)
    except ToApisError as error:
        return error
    return None
