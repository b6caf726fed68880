"""Reference images that lie in the team's storage: read and checked before anything is sent."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_nanobanana.landing.imagefile import MAX_REFERENCE_BYTES, check_reference
from airflow_provider_nanobanana.landing.storage import local_path, object_path
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.protocol import Upload


def is_remote(reference: str) -> bool:
    """Whether the service fetches a reference itself: http(s) URLs pass through as they are."""
    return urlsplit(reference.strip()).scheme.lower() in ("http", "https")


def read_reference(path_or_uri: str) -> Upload:
    """Return a reference image, read from a local path or any ``ObjectStoragePath`` URI and checked.

    :raises InvalidRequest: unreadable, no JPEG, PNG or WebP, or above 10 MiB; nothing was sent.
    :raises ConfigurationError: no file system serves the scheme; nothing was sent.
    """
    uri = path_or_uri.strip()
    shown = uri.partition("?")[0]
    try:
        with (local_path(uri) or object_path(uri)).open("rb") as file:
            # One byte more than allowed tells "too large" without reading a whole film.
            content = file.read(MAX_REFERENCE_BYTES + 1)
    except (OSError, ValueError, ImportError) as error:
        raise InvalidRequest(
            f"Reference image {shown!r} cannot be read ({type(error).__name__}: {error}). Give an http(s) URL, a local "
            "path or a storage URI that this worker can read; nothing was sent and nothing charged."
        ) from error
    mime_type = check_reference(content, name=f"Reference image {shown!r}")
    return Upload(PurePosixPath(urlsplit(uri).path).name or "reference", content, mime_type)
