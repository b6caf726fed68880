"""Names for files and object keys, made from ids that somebody else chose."""

from __future__ import annotations

import hashlib
import re
from typing import Final

MAX_SLUG: Final = 48
"""Characters of the original id kept in a name; with the hash and the index a stem stays under 72 bytes."""


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
