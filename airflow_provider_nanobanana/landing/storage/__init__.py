"""Where images are put: a folder of this machine, or an object store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from airflow_provider_nanobanana.landing.storage.base import Storage
from airflow_provider_nanobanana.landing.storage.folder import LocalFolder
from airflow_provider_nanobanana.landing.storage.store import RemoteStore, hint
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest

__all__ = ["MAX_DESTINATION", "Storage", "open_storage"]

MAX_DESTINATION: Final = 256
"""Longest destination, in bytes of JSON: each image's URI travels through XCom in a record of at most 600 bytes."""

_LOCAL: Final = ("", "file", "local")
_NOT_STORES: Final = ("http", "https", "data")


def open_storage(destination: str) -> Storage:
    """Parse a destination; nothing is connected to or written yet.

    :param destination: An ``ObjectStoragePath`` URI (``file:///...``, ``s3://conn_id@bucket/...``) or an absolute path.
    :raises InvalidRequest: Empty, relative, too long, or something that images cannot be put to.
    :raises ConfigurationError: The scheme is not known to Airflow or fsspec.
    """
    text = str(destination).strip()
    if not text:
        raise InvalidRequest("destination is empty: give a URI such as s3://bucket/folder or file:///folder")
    if len(json.dumps(text)) - 2 > MAX_DESTINATION:
        raise InvalidRequest(f"destination is longer than {MAX_DESTINATION} bytes: {text[:80]}…")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower() if separator else ""
    local = scheme in _LOCAL
    if (local and not (rest.rpartition("@")[2] if separator else text).startswith("/")) or scheme in _NOT_STORES:
        raise InvalidRequest(
            f"destination {text!r} must be an absolute path (file:///folder: workers run in different folders) "
            "or the URI of an object store (s3://bucket/folder)"
        )
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        root = ObjectStoragePath(text)
    except ValueError as error:
        raise ConfigurationError(f"destination {text!r}: {error}. {hint(scheme)}") from error
    return LocalFolder(Path(root.path)) if local else RemoteStore(root)
