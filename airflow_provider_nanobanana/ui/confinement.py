"""Which files may be read for a task instance: pure, and decided from parsed URIs, part by part.

A task's XCom is not trustworthy: whoever may edit it could name any file of any connection, and the api-server can use
them all. So a manifest is read only where the destination is that this very task instance rendered, or below a folder
that ``[nanobanana] gallery_roots`` names; and of what it tells only files right beside it are read, or in its own
quarantine. What is opened is built from the parts that were checked, never the text that was given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from airflow_provider_nanobanana.batch.manifest import MANIFEST_PREFIX
from airflow_provider_nanobanana.landing.quarantine import QUARANTINE_FOLDER
from airflow_provider_nanobanana.landing.storage.destination import RESERVED

#: What a task may choose by itself; every other storage must be among the roots.
_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "wasb"})
#: Never read, whoever names them: what lies there is somebody else's, or inside of something.
_NEVER: Final = frozenset(
    {"http", "https", "ftp", "ftps", "data", "memory", "zip", "tar", "libarchive", "blockcache", "filecache"}
    | {"simplecache", "reference", "cached", "dir", "github", "git", "generic"}
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
#: What some library would read as another path than it says: encoded dots and slashes, blanks that parsers drop.
_ENCODED: Final = re.compile(r"%(?:2e|2f|5c|25|00)", re.IGNORECASE)
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\\?#]|::")
_AUTHORITY: Final = re.compile(r"[^\s/]+")
#: A manifest's name as ``landing.file_names.safe_name`` makes it; a picture's as ``landing`` names it.
_MANIFEST: Final = re.compile(re.escape(MANIFEST_PREFIX) + r"[A-Za-z0-9_.-]{1,200}\.json")
_PICTURE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.(?:png|jpg|webp|gif|avif)")

OUTSIDE: Final = "What its XCom names lies outside of the folder that the task rendered, so nothing of it is read."
LOCAL: Final = (
    "The pictures are in a local folder: they are shown only if [nanobanana] gallery_roots names it (docs/gallery.md)."
)
NOT_RENDERED: Final = (
    "Airflow keeps no rendered destination of this task instance any more: its pictures are shown only if "
    "[nanobanana] gallery_roots names their folder (docs/gallery.md)."
)
OTHER_STORE: Final = (
    "Pictures in a storage of this kind are shown only if [nanobanana] gallery_roots names their folder "
    "(docs/gallery.md)."
)


class NotReadable(ValueError):
    """A file may not be read; the message says why, in words for a person, without any part of a URI."""


@dataclass(frozen=True)
class Folder:
    """A folder, taken apart.

    :param scheme: In lower case; ``file`` for a local path.
    :param authority: Bucket and connection as they are written; empty for a local one.
    :param parts: Names below it.
    """

    scheme: str
    authority: str
    parts: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The URI that is opened."""
        return f"{self.scheme}://{self.authority}/{'/'.join(self.parts)}"

    @property
    def name(self) -> str:
        """The last of its names, which tells nothing of bucket and connection; empty where it has none."""
        return self.parts[-1] if self.parts else ""

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return self.scheme == "file"

    def below(self, *parts: str) -> Folder:
        """Return a folder below this one."""
        return Folder(self.scheme, self.authority, (*self.parts, *parts))

    def holds(self, other: Folder) -> bool:
        """Whether another one is this one or lies below it."""
        same_place = (self.scheme, self.authority) == (other.scheme, other.authority)
        return same_place and other.parts[: len(self.parts)] == self.parts


@dataclass(frozen=True)
class ManifestPlace:
    """A manifest that may be read: its folder, and its name there."""

    folder: Folder
    name: str


@dataclass(frozen=True)
class PicturePlace:
    """A picture that may be read: whether it is in quarantine, and its name in that folder."""

    quarantined: bool
    name: str

    @property
    def stem(self) -> str:
        """Its name without extension."""
        return self.name.rpartition(".")[0]


def parse_folder(uri: str) -> Folder:
    """Take the URI of a folder, or an absolute local path, apart.

    :raises NotReadable: It is none, or two readers could take it for two places.
    """
    text = uri.strip(" ")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "file", text
        if not text.startswith("/"):
            raise NotReadable(OUTSIDE)
    scheme = scheme.lower()
    scheme = "file" if scheme == "local" else scheme
    authority, _, path = rest.partition("/")
    is_odd = _UNSAFE.search(text) or _ENCODED.search(text) or not _SCHEME.fullmatch(scheme) or scheme in _NEVER
    if is_odd or _is_odd_authority(scheme, authority):
        raise NotReadable(OUTSIDE)
    parts = path.rstrip("/").split("/") if path.rstrip("/") else []
    if scheme == "file":
        # As the file system reads it; of a store "a//b" is another key than "a/b".
        parts = [part for part in parts if part]
    if any(part.strip() in ("", ".", "..") for part in parts):
        raise NotReadable(OUTSIDE)
    return Folder(scheme, authority, tuple(parts))


def _is_odd_authority(scheme: str, authority: str) -> bool:
    if scheme == "file":
        return bool(authority)
    connection, _, bucket = authority.rpartition("@")
    # user:password@, or two of them
    return not _AUTHORITY.fullmatch(bucket) or ":" in connection or "@" in connection


def parse_roots(setting: str) -> list[Folder]:
    """Take ``[nanobanana] gallery_roots`` apart: URIs with commas between them, or a list of JSON.

    :raises NotReadable: One of them names no folder that may be read.
    """
    given = setting.strip()
    texts = given.split(",")
    if given.startswith("["):
        try:
            texts = [str(text) for text in json.loads(given)]
        except (ValueError, RecursionError) as error:
            raise NotReadable("[nanobanana] gallery_roots begins like a list and is none.") from error
    return [parse_folder(text.strip()) for text in texts if text.strip()]


def manifest_place(uri: str, destination: str | None, roots: Sequence[Folder]) -> ManifestPlace:
    """Return where a manifest may be read.

    :param uri: What the XCom of a task instance says; anybody may have written it.
    :param destination: What that task instance rendered; None where Airflow does not keep it.
    :param roots: From :func:`parse_roots`.
    :raises NotReadable: It may not.
    """
    folder, name = _parse_file(uri)
    if not _MANIFEST.fullmatch(name) or RESERVED in folder.parts:
        raise NotReadable(OUTSIDE)
    if any(root.holds(folder) for root in roots):
        return ManifestPlace(folder, name)
    if destination is None:
        raise NotReadable(NOT_RENDERED)
    if parse_folder(destination) != folder:
        raise NotReadable(OUTSIDE)
    if folder.scheme not in _STORES:
        raise NotReadable(LOCAL if folder.is_local else OTHER_STORE)
    return ManifestPlace(folder, name)


def picture_place(uri: object, folder: Folder) -> PicturePlace | None:
    """Return where a picture may be read that a manifest names; None where it may not.

    :param uri: What the manifest says.
    :param folder: The manifest's own.
    """
    if not isinstance(uri, str):
        return None
    try:
        found, name = _parse_file(uri)
    except NotReadable:
        return None
    if not _PICTURE.fullmatch(name):
        return None
    if found == folder:
        return PicturePlace(False, name)
    return PicturePlace(True, name) if found == folder.below(RESERVED, QUARANTINE_FOLDER) else None


def _parse_file(uri: str) -> tuple[Folder, str]:
    folder, slash, name = uri.rpartition("/")
    if not slash or not name:
        raise NotReadable(OUTSIDE)
    # "s3://bucket/name", "file:///name", "/name"
    return parse_folder(f"{folder}/"), name
