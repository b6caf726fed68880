"""ImageStore: verified images, and the manifest, at one destination in the team's own storage.

Bytes are written verbatim, never re-encoded. A file appears under its final name only when it has been decoded
fully: in a folder by a hard link, on an object store by one PUT. Names are deterministic, so a second landing of the
same image finds the first and downloads nothing. What is whole is never replaced, also where it appeared during the
download (on an object store: where creates were found to be exclusive). Bytes that fail a check are paid all the
same: they are kept in :mod:`~airflow_provider_nanobanana.landing.quarantine`, as are suspect pictures where that was
asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from airflow_provider_nanobanana.landing.decoder import decode_file
from airflow_provider_nanobanana.landing.file_names import check_stem, safe_name
from airflow_provider_nanobanana.landing.image_file import SUFFIXES, ImageFormat
from airflow_provider_nanobanana.landing.quarantine import QUARANTINE_FOLDER, Quarantine, suspect_error
from airflow_provider_nanobanana.landing.storage.base import (
    Storage,
    is_numbered,
    numbers_present,
    stems_present,
    storage_failures,
)
from airflow_provider_nanobanana.landing.storage.destination import RESERVED, parse_destination
from airflow_provider_nanobanana.landing.storage.local import LocalStorage, local_path
from airflow_provider_nanobanana.landing.suspects import OnSuspect, SuspectCode, in_order, in_words, is_other_size
from airflow_provider_nanobanana.landing.thumbnails import THUMBNAILS_FOLDER, ThumbnailFolder
from airflow_provider_nanobanana.toapis.errors import (
    ImageInvalid,
    ImageTooCostly,
    InvalidRequest,
    StorageFailed,
)
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.storage_uris import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from airflow_provider_nanobanana.landing.storage.staging import StagedFile

log = LineLogger(__name__)


class StoredImage(BaseModel):
    """One image that is stored in the team's storage and was decoded fully there or on the way.

    ``uri`` is one ``ObjectStoragePath`` takes, ``id`` the image task's, ``index`` the position in its result,
    ``bytes`` the size of the file; ``width`` and ``height`` are pixels of the first frame; ``suspect`` are the codes of
    what makes the picture suspect (:mod:`~airflow_provider_nanobanana.landing.suspects`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    id: str
    index: int
    sha256: str
    bytes: int
    format: ImageFormat
    width: int
    height: int
    suspect: tuple[SuspectCode, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the plain JSON that goes through XCom, at most 600 bytes (destination and ids being bounded)."""
        return self.model_dump(mode="json")


class ImageStore:
    """Lands images in one destination.

    :param destination: An ``ObjectStoragePath`` URI (``file:///...``, ``s3://conn_id@bucket/...``) or an absolute path.
    :param thumbnails: Whether one is written of each image that is landed.
    :raises InvalidRequest: The destination is empty, relative, too long or not a place for files.
    :raises ConfigurationError: Its scheme is unknown.
    """

    def __init__(self, destination: Any, *, thumbnails: bool = False) -> None:
        self._storage: Storage = open_storage(destination)
        self._reserved: dict[str, Storage] = {}
        self._quarantine = Quarantine(lambda: self.reserved(QUARANTINE_FOLDER))
        self._thumbnails = ThumbnailFolder(lambda: self.reserved(THUMBNAILS_FOLDER), wanted=thumbnails)

    def reserved(self, folder: str) -> Storage:
        """Return the place for what this provider keeps beside the images, where nothing looks for any.

        :param folder: One name, such as ``claims``; it is made with the first file that is written.
        """
        if folder not in self._reserved:
            self._reserved[folder] = self._storage.below(f"{RESERVED}/{folder}")
        return self._reserved[folder]

    def check_writable(self) -> None:
        """Find out before anything is bought whether images can be put here.

        A local folder is created and written to; of a store only the connection and its libraries are looked up,
        because not every account that may write may also delete.

        :raises ConfigurationError: The provider package, its extra or the Airflow connection is missing.
        :raises StorageFailed: The folder cannot be written.
        """
        self._storage.check()

    def uri(self, name: str) -> str:
        """Return the URI of a file here, by its name with suffix; whether it is there is not asked."""
        return self._storage.uri(name)

    def find(self, stem: str) -> StoredImage | None:
        """Return the image landed before under this stem, verified fully, or None; its ``id`` is empty.

        A file that is not one whole image does not count.

        :raises StorageFailed: The destination could not be asked, or the file takes too much time or memory to check;
            never "not there".
        """
        return self._find(stem, "", 0)[0]

    def present(self, stems: Collection[str]) -> set[str]:
        """Return the stems of which a file is there, whole or not: a listing, nothing is read.

        :raises StorageFailed: The destination could not be asked; never "not there".
        """
        for stem in stems:
            check_stem(stem)
        return stems_present(self._storage, stems, tuple(SUFFIXES.values()))

    def numbered(self, heads: Mapping[str, int]) -> set[str]:
        """Return the stems ``<head>-<number>`` of which a file is there, whole or not, or in quarantine.

        Nothing is read.

        :param heads: How many are wanted of each head; files with higher numbers are found, too.
        :raises StorageFailed: The destination could not be asked; never "not there".
        """
        for head in heads:
            check_stem(head)
        held = {stem for stem in self._quarantine.stems() if is_numbered(stem, heads)} if heads else set()
        return numbers_present(self._storage, heads, tuple(SUFFIXES.values())) | held

    def land(
        self,
        stem: str,
        image_id: str,
        index: int,
        fetch: Callable[[BinaryIO], object],
        expected_pixels: tuple[int, int] | None = None,
        *,
        on_in_place: Callable[[StoredImage], None] | None = None,
        on_suspect: OnSuspect = "warn",
        judge: Callable[[StoredImage], Collection[SuspectCode]] | None = None,
    ) -> StoredImage:
        """Land one image, unless it is there already, or another appears under the stem meanwhile.

        What is in place is never moved. A suspect picture that was put into quarantine before is not downloaded again.

        :param stem: Name without suffix, from :func:`stem_for`; the suffix comes from the bytes.
        :param fetch: Writes the image into the file it is given; not called when the image is there. It returns False
            where it cannot know that this was all.
        :param expected_pixels: Width and height asked for; another size makes it suspect.
        :param on_in_place: Called with the image that is returned where it was found, not written: before the download
            (which image task it came from is not known), or after it, when it is another picture than ours.
        :param on_suspect: What becomes of a suspect picture: it is put in place with a warning, or with ``quarantine``
            kept apart.
        :param judge: Returns what else makes a downloaded picture suspect.
        :raises ImageInvalid: What ``fetch`` wrote is not one whole image, or it raised this itself; what it wrote is
            kept in quarantine, and ``kept`` says where.
        :raises ImageSuspect: It is in quarantine, now or since an earlier time, and ``kept`` says where.
        :raises StorageFailed: The destination did not take it; nothing is left behind.
        """
        found, broken = self._find(stem, image_id, index)
        if found:
            return self._in_place(found, on_in_place)
        if self.in_quarantine((stem,)) and (held := self.find_in_quarantine(stem, image_id, index)):
            if on_suspect == "quarantine":
                raise suspect_error(held.record(), in_words(held.suspect))
            return self.accept(stem, held)
        with self._storage.stage(stem) as staged:
            sure: object = True
            try:
                with storage_failures("write the image", OSError):
                    sure = fetch(staged.file)
                    staged.file.flush()
                small = self._thumbnails.wanted
                stored, thumbnail = self._measure(staged.path, image_id, index, stem=stem, thumbnail=small)
            except ImageInvalid as error:
                if sure is False:
                    error = error.reworded(f"{error.message}; where it ends was not said, so it may be cut")
                raise self._quarantine.keep_broken(staged, stem, image_id, index, error) from error
            stored = _with_suspicion(stored, expected_pixels, judge)
            if stored.suspect and on_suspect == "quarantine":
                why = in_words(stored.suspect)
                kept = self._quarantine.keep_suspect(staged, stem, stored.format, stored.record(), why)
                self._thumbnails.write(stored.sha256, thumbnail)
                raise kept
            found, broken = self._publish(staged, stored, stem, broken)
        if found and found.sha256 != stored.sha256:
            return self._in_place(found, on_in_place)
        self._thumbnails.write(stored.sha256, thumbnail)
        self._remove_broken(broken, stored)
        if stored.suspect:
            # Whoever puts the results together says it once, by name.
            size = f"{stored.width}x{stored.height} pixels"
            log.debug(
                "%s is suspect: %s (%s, asked for %s)", stored.uri, in_words(stored.suspect), size, expected_pixels
            )
        return stored

    def in_quarantine(self, stems: Collection[str]) -> set[str]:
        """Return the stems of which a whole picture is in quarantine; one listing for each object of this class.

        :raises StorageFailed: The destination could not be asked; never "not there".
        """
        return self._quarantine.stems().intersection(stems)

    def find_in_quarantine(self, stem: str, image_id: str = "", index: int = 0) -> StoredImage | None:
        """Return the suspect picture that is in quarantine for a stem, verified fully, or None.

        :raises StorageFailed: The destination could not be asked, or the file takes too much time or memory to check;
            never "not there".
        """
        check_stem(stem)
        return self._whole_of(self._quarantine.place, self._quarantine.names(stem), image_id, index)[0]

    def as_accepted(self, stem: str, held: StoredImage) -> StoredImage:
        """Return a picture that is in quarantine as it would be in its place; nothing is moved.

        :param held: As :meth:`find_in_quarantine` returns it.
        """
        return held.model_copy(update={"uri": self._storage.uri(stem + SUFFIXES[held.format])})

    def accept(self, stem: str, held: StoredImage) -> StoredImage:
        """Put a picture that is in quarantine in its place, free of charge, and return it as it is there.

        Where another whole one is there by now, that is returned, and the quarantine left as it is.

        :param held: As :meth:`find_in_quarantine` returns it.
        :raises StorageFailed: The destination did not take it; it stays in quarantine.
        """
        stored = self.as_accepted(stem, held)
        name = stem + SUFFIXES[held.format]
        try:
            with self._storage.stage(stem) as staged, self._quarantine.place.local_copy(name) as path:
                with storage_failures(f"read {held.uri}", OSError), open(path, "rb") as file:
                    shutil.copyfileobj(file, staged.file)
                    staged.file.flush()
                found, _ = self._publish(staged, stored, stem, set())
                if found is None:
                    self._thumbnails.write_missing(stored.sha256, path)
        except StorageFailed:
            # Another task may have accepted it since it was looked at.
            found, _ = self._find(stem, held.id, held.index)
            if found is None:
                raise
            return found
        if found and found.sha256 != stored.sha256:
            return found
        self._quarantine.drop(stem, name)
        log.info("The suspect picture %s is accepted and put in place as %s", held.uri, stored.uri)
        return stored

    def _publish(
        self, staged: StagedFile, stored: StoredImage, stem: str, broken: set[str]
    ) -> tuple[StoredImage | None, set[str]]:
        """Publish the staged image, or find the whole one that appeared under its stem during the download.

        :param broken: Names of the stem that hold no whole image; one of that name is replaced.
        :return: As :meth:`_find`.
        """
        name = stem + SUFFIXES[stored.format]
        # A broken file may have been replaced by a whole one; what else appeared is looked for where that is free.
        if broken or self._storage.looks_for_free:
            found, broken = self._find(stem, stored.id, stored.index)
            if found:
                return found, broken
        try:
            self._storage.publish(staged, name, f"image/{stored.format}", replace=name in broken)
        except FileExistsError:
            found, broken = self._find(stem, stored.id, stored.index)
            if found:
                return found, broken
            self._storage.publish(staged, name, f"image/{stored.format}")
        return None, broken - {name}

    def _in_place(self, found: StoredImage, on_in_place: Callable[[StoredImage], None] | None) -> StoredImage:
        log.info("In place already: %s", found.uri)
        if on_in_place is not None:
            on_in_place(found)
        return found

    def _remove_broken(self, names: set[str], stored: StoredImage) -> None:
        """Remove what is not a whole image beside one that is."""
        for name in names:
            log.warning("Removing %s: it is not a whole image, and %s is", self._storage.uri(name), stored.uri)
            self._storage.delete(name)

    def write_manifest(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        compact: bool = False,
        unless: Callable[[], bool] = lambda: False,
    ) -> str:
        """Write ``data`` as JSON with sorted keys beside the images, replacing an earlier one, and return its URI.

        :param name: Any text, such as a run id; what a file name cannot hold is replaced.
        :param compact: Whether to write it in one line, which takes a third of the time.
        :param unless: Asked right before the write; where it is true, what is there stays.
        :raises StorageFailed: The destination did not take it.
        """
        stem = safe_name(name.removesuffix(".json"))
        indent = None if compact else 2
        text = json.dumps(data, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        if not unless():
            self._storage.write(f"{stem}.json", text.encode())
        return self._storage.uri(f"{stem}.json")

    def _find(self, stem: str, image_id: str, index: int) -> tuple[StoredImage | None, set[str]]:
        """Return the whole image of this stem, or None with the names of the broken ones.

        :raises StorageFailed: There is none, but a file that this machine cannot check: it may be whole, and paid.
        """
        check_stem(stem)
        return self._whole_of(self._storage, self._storage.existing(stem, tuple(SUFFIXES.values())), image_id, index)

    def _whole_of(
        self, place: Storage, names: Collection[str], image_id: str, index: int
    ) -> tuple[StoredImage | None, set[str]]:
        """Return the first whole image of some files, or None with the names of the broken ones; errors as above."""
        broken: set[str] = set()
        unchecked: StorageFailed | None = None
        for name in names:
            with place.local_copy(name) as path:
                try:
                    return self._measure(path, image_id, index, place.uri(name))[0], broken
                except ImageTooCostly as error:
                    what = f"{place.uri(name)} is there and could not be checked: {error.message}."
                    unchecked = StorageFailed(f"{what} If it is no whole image, move it away.")
                except ImageInvalid as error:
                    log.warning("%s does not count: %s", place.uri(name), error)
                    broken.add(name)
        if unchecked is not None:
            raise unchecked
        return None, broken

    def _measure(
        self, path: Path, image_id: str, index: int, uri: str = "", *, stem: str = "", thumbnail: bool = False
    ) -> tuple[StoredImage, bytes]:
        """Check the local file fully and describe it under its URI, or the stem with the suffix of its bytes.

        :return: And its thumbnail, where that was asked for and could be made.
        """
        try:
            facts = decode_file(path, thumbnail=thumbnail)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except (OSError, MemoryError) as error:  # of the machine, not of the image
            raise StorageFailed(f"Could not read back the image: {type(error).__name__}: {error}") from error
        stored = StoredImage(
            uri=uri or self._storage.uri(stem + SUFFIXES[facts.format]),
            id=image_id,
            index=index,
            sha256=digest,
            bytes=size,
            format=facts.format,
            width=facts.width,
            height=facts.height,
            suspect=(facts.look,) if facts.look else (),
        )
        return stored, facts.thumbnail


def _with_suspicion(
    stored: StoredImage,
    expected_pixels: tuple[int, int] | None,
    judge: Callable[[StoredImage], Collection[SuspectCode]] | None,
) -> StoredImage:
    """Return a picture that was downloaded with all that makes it suspect."""
    codes = [*stored.suspect, *(judge(stored) if judge else ())]
    if is_other_size(stored.width, stored.height, expected_pixels):
        codes.append("other_size")
    return stored.model_copy(update={"suspect": in_order(codes)}) if codes else stored


def open_storage(destination: Any) -> Storage:
    """Return the place of a destination; nothing is connected to or written yet.

    :raises InvalidRequest: The destination is empty, relative, too long or not a place for files.
    :raises ConfigurationError: Its scheme is unknown.
    """
    text = parse_destination(destination)
    folder = local_path(text)
    if folder is None:
        # Loads Airflow, which a command that looks at a local folder does without.
        from airflow_provider_nanobanana.landing.storage.object_store import ObjectStorage, object_path

        return ObjectStorage(object_path(text), text)
    if not folder.is_absolute():
        raise InvalidRequest(
            f"destination {shown(text)!r} must be an absolute path (file:///folder: workers run in different folders) "
            "or the URI of an object store (s3://bucket/folder)"
        )
    return LocalStorage(folder)
