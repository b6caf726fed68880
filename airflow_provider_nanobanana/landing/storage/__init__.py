"""Where images are put: a folder of this machine, or an object store."""

from __future__ import annotations

import json
from typing import Final

from airflow_provider_nanobanana.landing.storage.base import Storage, storage_failures
from airflow_provider_nanobanana.landing.storage.folder import LocalFolder, local_path
from airflow_provider_nanobanana.landing.storage.listing import stems_present
from airflow_provider_nanobanana.landing.storage.store import RemoteStore, object_path, require_connection
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

__all__ = [
    "MAX_DESTINATION",
    "Storage",
    "local_path",
    "object_path",
    "open_storage",
    "require_connection",
    "stems_present",
    "storage_failures",
]

MAX_DESTINATION: Final = 256
"""Longest destination, in bytes of JSON: each image's URI travels through XCom in a record of at most 600 bytes."""

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
    folder = local_path(text)
    if text.partition("://")[0].lower() in _NOT_STORES or (folder is not None and not folder.is_absolute()):
        raise InvalidRequest(
            f"destination {text!r} must be an absolute path (file:///folder: workers run in different folders) "
            "or the URI of an object store (s3://bucket/folder)"
        )
    return RemoteStore(object_path(text)) if folder is None else LocalFolder(folder)
