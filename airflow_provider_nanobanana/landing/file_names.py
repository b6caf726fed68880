"""How a landed file is named: from an image task's id and an index, or from any text; equal texts get equal names."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from airflow_provider_nanobanana.toapis.errors import InvalidRequest

#: 100 characters, and the number of an image beside the first.
_STEM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,102}")

#: Characters of the original id kept in a name; with the hash and the index a stem stays under 72 bytes.
MAX_SLUG: Final = 48
#: Hexadecimal digits of the hash of an image task's id behind a name.
_ID_DIGITS: Final = 8
#: Hexadecimal digits of an image's key.
_KEY_DIGITS: Final = 24


def safe_name(text: str) -> str:
    """Turn any text into a name that every file system and object store takes; equal texts get equal names.

    Short lower-case ids stay as they are. Whenever something had to be replaced or cut, or case alone tells two ids
    apart (some file systems ignore it), a dot and 12 hexadecimal digits of the text's SHA-256 follow; a dot appears
    nowhere else, so such a name never meets an unchanged one.
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:MAX_SLUG].strip("-")
    if slug == text and slug == slug.lower() and slug:
        return slug
    return f"{slug or 'x'}.{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def stem_for(image_task_id: str, index: int) -> str:
    """Name one image of an image task, without suffix: the same for every attempt, so that landing can be repeated.

    :param image_task_id: The opaque id the service gave.
    :param index: Position of the image in the result, from 0.
    """
    return f"{safe_name(image_task_id)}-{index:d}"


def named_stem(name: str, image_task_id: str, index: int) -> str:
    """Name one image of an image task by what the user calls it, without suffix; the same for every attempt.

    Two image tasks of one name get two names. None of them meets one of :func:`stem_for`, whose number has four digits
    at most.

    :param name: One that a request may have.
    :param index: Position of the image in the result, from 0.
    """
    digest = hashlib.sha256(image_task_id.encode("utf-8", "surrogatepass")).hexdigest()
    stem = f"{name}-{digest[:_ID_DIGITS]}"
    return f"{stem}.{index:d}" if index else stem


def is_stem(text: str) -> bool:
    """Whether a text can be the name of a file, without suffix; none of them leads out of a folder."""
    return _STEM.fullmatch(text) is not None


def check_stem(stem: str) -> None:
    """Refuse a stem that no file can have; raises ``InvalidRequest``."""
    if not is_stem(stem):
        raise InvalidRequest(f"{stem!r} cannot name a file: letters, digits, '_', '-' and '.' are allowed")


def image_key(uri: str) -> str:
    """Return what stands for an image in links and forms, 24 hexadecimal digits: nothing can be read through it alone.

    :param uri: Of the file, as results and manifests have it.
    """
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY_DIGITS]
