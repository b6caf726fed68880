"""Object stores, and whatever else Airflow's ``ObjectStoragePath`` reaches, as a place for images."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
import threading
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.landing.storage import client_errors
from airflow_provider_nanobanana.landing.storage.base import Storage, storage_failures
from airflow_provider_nanobanana.landing.storage.destination import refuse_credentials
from airflow_provider_nanobanana.landing.storage.exclusive import NotExclusive, is_known_exclusive
from airflow_provider_nanobanana.landing.storage.staging import StagedFile, stage
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest, StorageFailed
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK, sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
_AZURE: Final = frozenset({"abfs", "abfss", "adl", "wasb", "az"})
# How each store is told the content type; s3fs and gcsfs do not know WebP on every Python version.
_CONTENT_TYPE: Final = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}
# Stores that list by prefix: one request instead of two for every possible suffix.
_FIND_BY_PREFIX: Final = frozenset(_CONTENT_TYPE) | _AZURE
# How each library is told to create an object only where there is none: these stores decide that themselves, at once
# and for everybody. Others (fsspec's own way among them) look first and write then, and are not trusted.
_ONLY_NEW: Final[dict[str, dict[str, Any]]] = {
    **{protocol: {"mode": "create"} for protocol in ("s3", "s3a", "gs", "gcs", "memory")},
    **{protocol: {"overwrite": False} for protocol in _AZURE},
}
# The memory of this process looks first, too; only this provider's own creates exclude each other there.
_MEMORY_LOCK: Final = threading.Lock()
# How the libraries of S3, Google's store and Azure call in a listing what they return as ``modified``.
_MODIFIED: Final = ("LastModified", "mtime", "last_modified")
#: Seconds before each further try after a 409: S3 says so where two creates of one name meet, and asks to repeat it.
_CONFLICT_PAUSES: Final = (0.1, 0.4, 1.0)


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

    def __init__(self, root: ObjectStoragePath, given: str = "", above: ObjectStorage | None = None) -> None:
        super().__init__(above)
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
        return ObjectStorage(self._root / folder, f"{self._given.rstrip('/')}/{folder}", self)

    def check(self) -> None:
        _ = self._fs

    @contextlib.contextmanager
    def stage(self, stem: str) -> Iterator[StagedFile]:
        with contextlib.ExitStack() as stack:
            with storage_failures("write a temporary file", OSError):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nanobanana-"))
                staged = stack.enter_context(stage(Path(folder), stem))
            yield staged

    def publish(self, staged: StagedFile, name: str, mime_type: str, *, replace: bool = True) -> None:
        fs, path = self._fs, self._path(name)
        # File systems that are not told the content type guess it from the local name.
        typed = staged.path.with_name(name)
        option = {key: mime_type} if (key := _CONTENT_TYPE.get(self._protocol)) else {}
        with storage_failures(f"write {self.uri(name)}", Exception):
            size = staged.size()
            if not typed.exists():
                staged.path.replace(typed)
        written = False
        # Asked of no store that was not found to understand it: some refuse the request, and the image is paid.
        if not replace and is_known_exclusive(self.destination.uri("")):
            with contextlib.suppress(NotExclusive):
                self._put_new(name, lambda: fs.put_file(str(typed), path, **option, **self._only_new(fs)))
                written = True
        with storage_failures(f"write {self.uri(name)}", Exception):
            if not written:
                _replace(fs, str(typed), path, option)
            found = fs.info(path).get("size")
        if found not in (None, size):
            raise StorageFailed(f"{self.uri(name)} has {found} bytes after writing {size}")

    def put_new(self, name: str, content: bytes) -> None:
        fs, path = self._fs, self._path(name)
        option = self._only_new(fs)
        self._put_new(name, lambda: fs.pipe_file(path, content, **option))

    def _put_new(self, name: str, put: Callable[[], object]) -> None:
        """Send a request that the store refuses where the name is taken; raises as :meth:`put_new`."""
        for pause in (*_CONFLICT_PAUSES, None):
            try:
                with _MEMORY_LOCK if self._protocol == "memory" else contextlib.nullcontext():
                    put()
                return
            except Exception as error:
                if client_errors.is_there(error):
                    raise FileExistsError(self.uri(name)) from error
                if client_errors.refuses_condition(error):
                    raise NotExclusive(
                        f"{self.uri(name)}: the store or its library takes no condition: {error}"
                    ) from error
                if pause is None or not client_errors.is_conflict(error):
                    raise StorageFailed(
                        f"Could not create {self.uri(name)}: {type(error).__name__}: {error}"
                    ) from error
            sleep(pause)

    def _only_new(self, fs: Any) -> dict[str, Any]:
        """Return the options with which the library creates an object only where there is none.

        :raises NotExclusive: The store is none that is known to do so, or the library is too old, or not the store's.
        """
        from fsspec import AbstractFileSystem

        option = _ONLY_NEW.get(self._protocol)
        if option is None:
            raise NotExclusive(f"{self._protocol}:// is none of the stores that are known to create a file only once")
        kind = type(fs)
        library = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        write = getattr(kind, "_pipe_file", kind.pipe_file)
        if write is AbstractFileSystem.pipe_file:
            raise NotExclusive(f"{library} does not ask the store to create a file only once, it looks and then writes")
        if not option.keys() <= inspect.signature(write).parameters.keys():
            raise NotExclusive(f"the installed {library} is too old to create a file only where there is none")
        return option

    def read(self, name: str, most: int) -> bytes | None:
        fs, path = self._fs, self._path(name)
        with storage_failures(f"read {self.uri(name)}", Exception):
            try:
                # With a range, libraries neither look at a cached listing nor ask for the size first.
                return bytes(fs.cat_file(path, start=0, end=most + 1))
            except FileNotFoundError as error:
                if client_errors.lacks_bucket(error):
                    raise
                return None
            except Exception as error:
                if not client_errors.refuses_range(error):
                    raise
                # Of an object without content no store can send a range.
                fs.invalidate_cache()
                if fs.info(path).get("size") != 0:
                    raise
                return b""

    def modified(self, name: str) -> float | None:
        fs, path = self._fs, self._path(name)
        with storage_failures(f"look at {self.uri(name)}", Exception):
            fs.invalidate_cache()
            try:
                found = fs.modified(path)
            except (FileNotFoundError, NotImplementedError):
                return None
        return _epoch_seconds(found)

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

    def entries(self, prefix: str = "") -> Iterator[tuple[str, float | None]]:
        fs, folder = self._fs, str(self._root.path)
        with storage_failures(f"list {self._given}", Exception):
            fs.invalidate_cache(folder)
            try:
                if self.lists_by_prefix and prefix:
                    told = _find_directly(fs, folder, prefix, detail=True)
                else:
                    told = {one["name"]: one for one in fs.ls(folder, detail=True)}
            except FileNotFoundError:  # stores have no empty folders
                return
            for path, one in told.items():
                name = str(path).rpartition("/")[2]
                if one["type"] == "file" and name.startswith(prefix):
                    times = (one[key] for key in _MODIFIED if key in one)
                    yield name, _epoch_seconds(next(times, None))

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


def _epoch_seconds(found: Any) -> float | None:
    if not isinstance(found, datetime):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _replace(fs: Any, source: str, path: str, option: dict[str, str]) -> None:
    try:
        fs.put_file(source, path, **option)
    except FileExistsError:  # some stores (an older adlfs) do not replace unasked
        fs.rm_file(path)
        fs.put_file(source, path, **option)


def _is_file(fs: Any, path: str) -> bool:
    """Ask ``info``, because ``isfile`` and ``exists`` of fsspec call every failure "not there"."""
    try:
        return bool(fs.info(path)["type"] == "file")
    except FileNotFoundError:
        return False


def _find_directly(fs: Any, folder: str, prefix: str, *, detail: bool = False) -> dict[str, Any]:
    """List by prefix, not into the folders below; an s3fs before 2026 cannot leave those out by itself.

    Return what is told of each path, if details are wanted.
    """
    try:
        found = fs.find(folder, maxdepth=1, prefix=prefix, detail=detail)
    except ValueError:
        found = fs.find(folder, prefix=prefix, detail=detail)
    depth = folder.strip("/").count("/") + 1
    told = found if detail else dict.fromkeys(found)
    return {path: one for path, one in told.items() if path.strip("/").count("/") == depth}


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
