"""Values that a backend of the workers keeps in an object store, while Airflow's database has references to them.

So do ``XComObjectStorageBackend`` and, from Airflow 3.3 on, ``StateStoreObjectStorageBackend``, both of the provider
``common.io``. Airflow's own pages show the reference. Here a value is read where the setting of that backend says its
folder is, right below the part of that DAG, and nowhere else: a reference may have been edited by whoever may edit
XComs. Nothing but plain JSON comes of it. All of it blocks.
"""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from airflow.providers.common.compat.sdk import conf

from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.landing.storage.confined_local import ConfinedLocalStorage
from airflow_provider_nanobanana.toapis.errors import StorageFailed, ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.ui.confinement import Folder, NotReadable, parse_folder
from airflow_provider_nanobanana.ui.image_bytes import read_confined
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.storage.base import Storage

log = LineLogger(__name__)

#: Bytes of an object, and of what it unpacks to; ours take 60 kB at most.
_MOST_BYTES: Final = 1 << 20
#: Bytes of memory to unpack one, which the header of LZMA asks for; its strongest preset needs 65 MiB.
_MOST_MEMORY: Final = 128 << 20
#: Objects read at once.
_THREADS: Final = 8
#: Under which key Airflow's task state store keeps what a backend of the workers returned (3.3 to 3.4).
_STATE_REFERENCE: Final = "__airflow_state_ref__"
#: By the end of its name, what unpacks an object.
_UNPACKERS: Final[Mapping[str, Callable[[], Any]]] = {
    "gz": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY),
}


def xcom_values(pushed: Sequence[tuple[str, Any]]) -> list[Any]:
    """Return what XComs hold; None for one whose object is gone or cannot be read here.

    :param pushed: Of each the DAG, and the value as the database has it.
    """
    base = _base("xcom_objectstorage_path")
    with WorkerPool(_THREADS) as pool:
        return list(pool.map(lambda one: _xcom_value(base, *one), pushed)) if base else [value for _, value in pushed]


def state_value(stored: Any, dag_id: str) -> Any:
    """Return what an entry of the task state store holds; None where its object is gone.

    :param stored: As the database has it, without its JSON.
    :raises ToApisError: It cannot be read here.
    :raises ValueError: It holds no JSON.
    """
    if not isinstance(stored, Mapping) or not isinstance(reference := stored.get(_STATE_REFERENCE), str):
        return stored
    base = _base("state_store_objectstorage_path")
    # A small value stands in the database as it would stand in the object.
    return _referenced(base, reference, dag_id) if _is_below(base, reference) else json.loads(reference)


def _xcom_value(base: str, dag_id: str, value: Any) -> Any:
    try:
        # As text of JSON, or without its quotes.
        reference = json.loads(value) if isinstance(value, str) and value.startswith('"') else value
        return _referenced(base, reference, dag_id) if _is_below(base, reference) else value
    except (ToApisError, ValueError) as error:
        log.warning("An XCom of %s cannot be read in the api-server: %s", dag_id, error)
        return None


def _base(option: str) -> str:
    """Return the folder that a backend of ``common.io`` is told to use; empty where it has none."""
    return str(conf.get("common.io", option, fallback="") or "").rstrip("/")


def _is_below(base: str, value: object) -> bool:
    return bool(base) and isinstance(value, str) and value.startswith(f"{base}/")


def _referenced(base: str, reference: str, dag_id: str) -> Any:
    """Return the JSON of an object; None where there is none."""
    try:
        root = parse_folder(base)
        folder, _, name = reference.rpartition("/")
        found = parse_folder(f"{folder}/")
    except NotReadable as refused:
        raise StorageFailed(f"{refused}") from None
    parts = found.parts[len(root.parts) :]
    # Of the same DAG: whoever asks may read that one, and the reference may be anybody's.
    if not root.holds(found) or not parts or parts[0] not in (dag_id, quote(dag_id, safe="")):
        raise StorageFailed("What is stored is no reference to a value of this DAG")
    content = read_confined(_storage(root), "/".join((*parts, name)), _MOST_BYTES)
    if content is None:
        return None
    make = _UNPACKERS.get(name.rpartition(".")[2])
    try:
        text = content if make is None else make().decompress(content, _MOST_BYTES + 1)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"it does not unpack: {type(error).__name__}") from error
    if len(text) > _MOST_BYTES:
        raise StorageFailed("A value has too many bytes to be read in the api-server")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@lru_cache(maxsize=8)
def _storage(folder: Folder) -> Storage:
    """Return the storage of a folder that a setting names; kept, as each new one asks Airflow for its connection."""
    if not folder.is_local:
        return open_storage(folder.uri)
    return ConfinedLocalStorage(Path(f"/{'/'.join(folder.parts)}").resolve())
