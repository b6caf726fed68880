"""Where images are put: a folder of this machine, or an object store."""

from __future__ import annotations

from typing import Any

from airflow_provider_nanobanana.landing.storage.base import Storage, stems_present, storage_failures
from airflow_provider_nanobanana.landing.storage.destination import MAX_DESTINATION, RESERVED, parse_destination, shown
from airflow_provider_nanobanana.landing.storage.local import LocalStorage, local_path
from airflow_provider_nanobanana.landing.storage.object_store import (
    ObjectStorage,
    connection_id,
    file_system,
    object_path,
    require_connection,
)
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

__all__ = [
    "MAX_DESTINATION",
    "RESERVED",
    "Storage",
    "connection_id",
    "file_system",
    "local_path",
    "object_path",
    "open_storage",
    "require_connection",
    "stems_present",
    "storage_failures",
]


def open_storage(destination: Any) -> Storage:
    """Parse a destination; nothing is connected to or written yet.

    :param destination: An ``ObjectStoragePath`` URI (``file:///...``, ``s3://conn_id@bucket/...``), an absolute path,
        or a path object.
    :raises InvalidRequest: Empty, relative, too long, or something that images cannot be put to.
    :raises ConfigurationError: The scheme is not known to Airflow or fsspec.
    """
    text = parse_destination(destination)
    folder = local_path(text)
    if folder is None:
        return ObjectStorage(object_path(text), text)
    if not folder.is_absolute():
        raise InvalidRequest(
            f"destination {shown(text)!r} must be an absolute path (file:///folder: workers run in different folders) "
            "or the URI of an object store (s3://bucket/folder)"
        )
    return LocalStorage(folder)
