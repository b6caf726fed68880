"""Object stores, and whatever else Airflow's ``ObjectStoragePath`` reaches, as a place for images."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.compat import SUPERVISOR_LOCK
from airflow_provider_nanobanana.landing.storage.base import Storage, storage_failures
from airflow_provider_nanobanana.landing.storage.destination import refuse_credentials
from airflow_provider_nanobanana.landing.storage.staging import StagedFile, stage
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest, StorageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import ObjectStoragePath

_PROVIDERS: Final = {
    "s3": "apache-airflow-providers-amazon[s3fs]",
    "s3a": "apache-airflow-providers-amazon[s3fs]",
    "gs": "apache-airflow-providers-google",
    "gcs": "apache-airflow-providers-google",
    "abfs": "apache-airflow-providers-microsoft-azure",
    "abfss": "apache-airflow-providers-microsoft-azure",
    "adl": "apache-airflow-providers-microsoft-azure",
    "wasb": "apache-airflow-providers-microsoft-azure",
}
# How each store is told the content type; s3fs and gcsfs do not know WebP on every Python version.
_CONTENT_TYPE: Final = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}
# Stores that list by prefix: one request instead of two for every possible suffix.
_FIND_BY_PREFIX: Final = frozenset(_CONTENT_TYPE)


def object_path(uri: str) -> ObjectStoragePath:
    """Return Airflow's own path object for a URI of a store; nothing is connected to yet.

    :raises InvalidRequest: It holds credentials, or is no URI of a store: Airflow would take it for a relative path.
    :raises ConfigurationError: The scheme is not known to Airflow or fsspec.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    refuse_credentials(uri)
    name = uri.partition("?")[0]
    scheme, separator, rest = uri.partition("://")
    try:
        path = ObjectStoragePath(scheme.lower() + separator + rest)
    except TypeError as error:
        raise ConfigurationError(
            f"{name!r} cannot be used: Airflow 3.0 reaches no object store with universal-pathlib 0.3 or newer. "
            'Install "universal-pathlib<0.3".'
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{name!r} cannot be used: {error}. {_hint(scheme)}") from error
    if str(path.protocol) in ("", "file", "local"):
        raise InvalidRequest(f"{name!r} is no URI of an object store (s3://bucket/folder)")
    return path


class ObjectStorage(Storage):
    """An object store, or any other file system that fsspec reaches. A file is one PUT after all checks.

    :param given: The URI as the user wrote it, which ``root`` may spell differently; for messages.
    """

    def __init__(self, root: ObjectStoragePath, given: str = "") -> None:
        self._root = root
        self._given = given or str(root)
        self._protocol = str(root.protocol)
        self.lists_by_prefix = self._protocol in _FIND_BY_PREFIX

    @cached_property
    def _fs(self) -> Any:
        with storage_failures(f"connect to {self._given}", Exception):
            return file_system(self._root, self._given)

    def _path(self, name: str) -> str:
        return str((self._root / name).path)

    def uri(self, name: str) -> str:
        return str(self._root / name)

    def below(self, folder: str) -> ObjectStorage:
        return ObjectStorage(self._root / folder, f"{self._given.rstrip('/')}/{folder}")

    def check(self) -> None:
        _ = self._fs

    @contextlib.contextmanager
    def stage(self, stem: str) -> Iterator[StagedFile]:
        with contextlib.ExitStack() as stack:
            with storage_failures("write a temporary file", OSError):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nanobanana-"))
                staged = stack.enter_context(stage(Path(folder), stem))
            yield staged

    def publish(self, staged: StagedFile, name: str, mime_type: str) -> None:
        fs, path = self._fs, self._path(name)
        # File systems that are not told the content type guess it from the local name.
        typed = staged.path.with_name(name)
        option = {key: mime_type} if (key := _CONTENT_TYPE.get(self._protocol)) else {}
        with storage_failures(f"write {self.uri(name)}", Exception):
            size = staged.size()
            staged.path.replace(typed)
            try:
                fs.put_file(str(typed), path, **option)
            except FileExistsError:  # some stores (adlfs) do not replace unasked
                fs.rm_file(path)
                fs.put_file(str(typed), path, **option)
            written = fs.info(path).get("size")
        if written not in (None, size):
            raise StorageFailed(f"{self.uri(name)} has {written} bytes after writing {size}")

    def existing(self, stem: str, suffixes: tuple[str, ...]) -> list[str]:
        if self.lists_by_prefix:
            found = set(self.names(f"{stem}."))
            return [stem + suffix for suffix in suffixes if stem + suffix in found]
        fs = self._fs
        with storage_failures(f"look into {self._given}", Exception):
            fs.invalidate_cache(str(self._root.path))  # another worker may have written since a listing was cached
            return [stem + suffix for suffix in suffixes if _is_file(fs, self._path(stem + suffix))]

    def names(self, prefix: str = "") -> Iterator[str]:
        fs, folder = self._fs, str(self._root.path)
        with storage_failures(f"list {self._given}", Exception):
            fs.invalidate_cache(folder)
            paths = _find_directly(fs, folder, prefix) if self.lists_by_prefix and prefix else _list(fs, folder)
        found = (path.rstrip("/").rpartition("/")[2] for path in paths)
        yield from (name for name in found if name.startswith(prefix))

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        fs = self._fs
        with contextlib.ExitStack() as stack:
            with storage_failures(f"read {self.uri(name)}", Exception):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nanobanana-"))
                fs.get_file(self._path(name), str(Path(folder, name)))
            yield Path(folder, name)

    def delete(self, name: str) -> None:
        with storage_failures(f"delete {self.uri(name)}", Exception), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))


def _is_file(fs: Any, path: str) -> bool:
    """Ask ``info``, because ``isfile`` and ``exists`` of fsspec call every failure "not there"."""
    try:
        return bool(fs.info(path)["type"] == "file")
    except FileNotFoundError:
        return False


def _find_directly(fs: Any, folder: str, prefix: str) -> list[str]:
    """List by prefix, not into the folders below; an s3fs before 2026 cannot leave those out by itself."""
    try:
        paths = fs.find(folder, maxdepth=1, prefix=prefix)
    except ValueError:
        paths = fs.find(folder, prefix=prefix)
    depth = folder.strip("/").count("/") + 1
    return [path for path in paths if path.strip("/").count("/") == depth]


def _list(fs: Any, folder: str) -> list[str]:
    try:
        return [str(path) for path in fs.ls(folder, detail=False)]
    except FileNotFoundError:  # stores have no empty folders
        return []


def connection_id(path: ObjectStoragePath) -> str | None:
    """Return the Airflow connection a path names: an attribute since Airflow 3.2, an option of the storage before."""
    found = getattr(path, "conn_id", None) or path.storage_options.get("conn_id")
    return str(found) if found else None


def require_connection(path: ObjectStoragePath, given: str = "") -> None:
    """Look for the connection that a path names: without it, Amazon's provider would take other credentials unasked.

    :param given: How the message calls the path.
    :raises ConfigurationError: There is no such connection.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    conn_id = connection_id(path)
    if conn_id is None:
        return
    try:
        with SUPERVISOR_LOCK:
            BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"{given or path} cannot be used: there is no connection {conn_id!r}; what stands before the @ is the id "
            f"of an Airflow connection ({path.protocol}://conn_id@bucket/folder)"
        ) from error


def file_system(path: ObjectStoragePath, given: str = "") -> Any:
    """Return the file system with the credentials of the path's connection, or the surroundings' where it has none.

    :param given: How messages call the path.
    :raises ConfigurationError: Nothing installed serves the scheme, or the connection is missing.
    """
    import fsspec
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    name = given or str(path)
    try:
        try:
            with SUPERVISOR_LOCK:
                fs = path.fs
        except ValueError:  # no Airflow provider registers this scheme
            if connection_id(path) is not None:
                raise
            return fsspec.filesystem(str(path.protocol))
    except (ValueError, TypeError, ImportError, AirflowNotFoundException) as error:
        if isinstance(error, AirflowNotFoundException):
            require_connection(path, name)
        raise ConfigurationError(f"{name} cannot be used: {error}. {_hint(str(path.protocol))}") from error
    require_connection(path, name)
    return fs


def _hint(scheme: str) -> str:
    """Say what to install for a scheme that nothing serves."""
    package = _PROVIDERS.get(scheme.lower())
    return f"Install {package}" if package else "No installed provider package serves this scheme"
