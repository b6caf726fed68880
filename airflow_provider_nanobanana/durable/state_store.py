"""``StateStore``: named texts that Airflow keeps for one task instance, and the one form of what is stored in them.

Whoever finds out that a value cannot be read raises an error: it is never the same as "there is none", and nothing is
bought on it.
"""

from __future__ import annotations

import base64
import json
import zlib
from abc import ABC, abstractmethod
from typing import Any, Protocol

from airflow_provider_nanobanana.stored_forms import StoredForm
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK


class StateStore(Protocol):
    """Keeps texts under names, for one task instance."""

    def read(self, name: str) -> str | None:
        """Return the text, or None where there certainly is none.

        :raises TransientFailure: It could not be read, which is never the same as "there is none".
        """
        ...

    def write(self, name: str, text: str) -> None:
        """Replace the text; it is kept when this returns, and may or may not be when this raises.

        :raises TransientFailure: It is not known to be kept.
        """
        ...


class InMemoryStateStore:
    """Forgets with the process: tests, and callers without a task instance.

    :param texts: What is stored in it already.
    """

    def __init__(self, texts: dict[str, str] | None = None) -> None:
        self.texts = {} if texts is None else texts

    def read(self, name: str) -> str | None:
        """Return what was written."""
        return self.texts.get(name)

    def write(self, name: str, text: str) -> None:
        """Keep it."""
        self.texts[name] = text


class _VerifiedStore(ABC):
    """What both of Airflow's places have in common: anything may fail, and a write counts once it is read back.

    Safe to use from several threads, whatever else they ask Airflow for.
    """

    _place: str

    @abstractmethod
    def _get(self, name: str) -> Any: ...

    @abstractmethod
    def _set(self, name: str, text: str) -> None: ...

    def read(self, name: str) -> str | None:
        """Return the text.

        :raises TransientFailure: It could not be read, or is no text.
        """
        try:
            with SUPERVISOR_LOCK:
                value = self._get(name)
        except Exception as error:
            raise _unread(name, f"{type(error).__name__}: {error}") from error
        if value is None or isinstance(value, str):
            return value
        raise _unread(name, f"it holds {type(value).__name__}, no text")

    def write(self, name: str, text: str) -> None:
        """Write it and read it back.

        :raises TransientFailure: It was not kept.
        """
        try:
            with SUPERVISOR_LOCK:
                self._set(name, text)
                kept = self._get(name)
        except Exception as error:
            raise _unwritten(name, f"{type(error).__name__}: {error}") from error
        if kept != text:
            raise _unwritten(name, f"{self._place} did not keep it")


class TaskStateStore(_VerifiedStore):
    """Airflow's task state store (3.3 and later): it survives retries, kills, deferrals and a clear.

    Its ``set`` ignores an error of the API server (3.3.2). A value holds 65,535 bytes of JSON by default
    (``[state_store] max_value_storage_bytes``); more is stored all the same, with a warning in the task's log, but
    cannot be edited through the REST API any more (3.3.2).

    :param store: ``context["task_state_store"]``.
    """

    _place = "the task state store"

    def __init__(self, store: Any) -> None:
        self._store = store

    def _get(self, name: str) -> Any:
        return self._store.get(name)

    def _set(self, name: str, text: str) -> None:
        from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]

        self._store.set(name, text, retention=NEVER_EXPIRE)


class XComStateStore(_VerifiedStore):
    """XComs of this very task instance, for Airflow before 3.3: they survive a deferral and end with the try.

    :param ti: ``context["ti"]``.
    """

    _place = "XCom"

    def __init__(self, ti: Any) -> None:
        self._ti = ti

    def _get(self, name: str) -> Any:
        # All of it is named: left out, the map index means "any" in some versions, the task "all upstream" in others.
        return self._ti.xcom_pull(task_ids=self._ti.task_id, key=name, map_indexes=self._ti.map_index)

    def _set(self, name: str, text: str) -> None:
        self._ti.xcom_push(key=name, value=text)


def state_store_for(context: Any) -> StateStore:
    """Return the best store that this Airflow has for a running task instance."""
    store = context.get("task_state_store")
    return XComStateStore(context["ti"]) if store is None else TaskStateStore(store)


def encode(value: Any) -> str:
    """Return plain JSON as the text that is stored for it: compressed (zlib), in ASCII (base64).

    :raises ValueError: It is no plain JSON.
    """
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(plain.encode())).decode()


def decode(name: str, text: str) -> Any:
    """Return the plain JSON that a stored text stands for; zlib's checksum tells whether it is whole.

    :param name: Under which it is stored, for the error.
    :raises TransientFailure: It stands for none.
    """
    try:
        return json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    except (ValueError, RecursionError, zlib.error) as error:
        raise unreadable(name, error) from error


def check_version(form: StoredForm, name: str, version: Any) -> None:
    """Stop at a version that this release does not read.

    :param name: Under which it is stored, for the error.
    :raises TransientFailure: A later release wrote it; or it is no version.
    """
    form.refuse_newer(version, f"What is stored under {name!r} (the task's state store, or its XComs)")
    if version != form.version:
        raise unreadable(name, f"version {version!r:.20} of the {form.name}, not {form.version}")


def unreadable(name: str, why: Exception | str) -> TransientFailure:
    """Return the error for a stored value that is there and cannot be understood.

    :param why: What is wrong with it.
    """
    reason = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
    return TransientFailure(
        f"What earlier attempts stored under {name!r} (the task's state store, or its XComs) cannot be understood "
        f"({reason}); nothing was sent now. It was written by another version of this provider, or by hand.",
        charged="unknown",
    )


def _unread(name: str, why: str) -> TransientFailure:
    return TransientFailure(
        f"What earlier attempts stored under {name!r} could not be read ({why}); nothing was sent now. A retry reads "
        "it again. If it stays so, as where an object of the workers' state store was cut off: before you delete it "
        "there, see docs/guides/kubernetes-and-celery.md.",
        charged="unknown",
    )


def _unwritten(name: str, why: str) -> TransientFailure:
    return TransientFailure(
        f"The record of what is bought ({name!r}) could not be written ({why}). What was bought is found again by its "
        "client ids: a retry goes on.",
        charged="unknown",
    )
