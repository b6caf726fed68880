"""TaskManifest: the JSON file beside the images that says what one task instance made; and its result in XCom.

The generate and the download operator leave both behind: the result first, so that it is there whatever follows. A
manifest that cannot be written never loses a paid image: the images are in place, and a retry writes it for free. Its
index, a line of JSON an image below ``.nanobanana/index``, is written with it; trouble with that is a warning.

While the task works, :class:`GrowingManifest` writes the manifest as of then, so that people see what is there; and
:meth:`TaskManifest.announce` tells Airflow's UI where it is. Neither ever fails the task.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.stored_forms import GALLERY_POINTER
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_nanobanana.landing.image_store import ImageStore

log = LineLogger(__name__)

#: The XCom that tells Airflow's UI where a task instance's images and manifest are.
GALLERY_KEY: Final = "nanobanana_gallery"
#: Below the destination's own folder.
_INDEX: Final = "index"
#: Seconds before the first manifest of a process at work: what takes less writes one, in the end.
_FIRST_AFTER: Final = 2.0
#: Seconds between two manifests of a task at work, at least.
_LEAST_PAUSE: Final = 5.0
#: For each second that one takes to write, so many pass before the next: 2 % of the time.
_PAUSE_FACTOR: Final = 49.0
#: Seconds after one that could not be written.
_PAUSE_AFTER_FAILURE: Final = 120.0


@dataclass(frozen=True)
class TaskManifest:
    """The manifest of one task instance, named after it.

    :param store: Where the images are.
    :param run: ``dag_id``, ``run_id``, ``task_id`` and ``map_index``; and the connection's ``namespace``, if it has
        one: another installation at the same destination must not write over it.
    """

    store: ImageStore
    run: Mapping[str, Any]

    @classmethod
    def from_context(cls, context: Context, store: ImageStore, namespace: str) -> TaskManifest:
        """Return the manifest of the running task instance.

        :param namespace: The connection's; empty where it has none.
        """
        ti: Any = context["ti"]
        names = ("dag_id", "run_id", "task_id", "map_index")
        run = {name: getattr(ti, name) for name in names}
        return cls(store, {**run, "namespace": namespace} if namespace else run)

    @property
    def name(self) -> str:
        """The name of the file, without its suffix."""
        from airflow_provider_nanobanana.batch.manifest import manifest_name

        return manifest_name(**self.run)

    @property
    def uri(self) -> str:
        """Where the manifest is, or will be."""
        from airflow_provider_nanobanana.landing.file_names import safe_name

        return self.store.uri(f"{safe_name(self.name)}.json")

    def announce(self, context: Context) -> None:
        """Tell Airflow's UI where the images and their manifest are, or will be; whatever ``do_xcom_push`` says."""
        value = {"version": GALLERY_POINTER.version, "manifest": self.uri, "destination": self.store.uri("")}
        try:
            with wrap_unexpected_errors("Where the images are could not be told to Airflow"), SUPERVISOR_LOCK:
                context["ti"].xcom_push(key=GALLERY_KEY, value=value)
        except errors.ToApisError as error:
            log.warning("The gallery will not show this task instance: %s", error.message)

    def write(self, content: Mapping[str, Any]) -> errors.ToApisError | None:
        """Write the manifest, then its index; return the error that kept the manifest from being written."""
        try:
            with wrap_unexpected_errors("The manifest was not written"):
                self.store.write_manifest(self.name, content)
        except errors.ToApisError as error:
            log.warning("The manifest could not be written: %s", error.message)
            return error
        self._write_index(content)
        return None

    def _write_index(self, content: Mapping[str, Any]) -> None:
        """Write the lines of the index anew; whoever lacks them has the manifest."""
        from airflow_provider_nanobanana.batch.manifest import index_lines
        from airflow_provider_nanobanana.landing.file_names import safe_name

        try:
            with wrap_unexpected_errors("The index was not written"):
                lines = "".join(index_lines(content)).encode()
                self.store.reserved(_INDEX).write(f"{safe_name(self.name)}.jsonl", lines, "application/x-ndjson")
        except errors.ToApisError as error:
            log.warning("The index of the images could not be written; the manifest has all of it: %s", error.message)


class GrowingManifest:
    """Writes the manifest of a task at work, no more often than its size warrants.

    :param content: Returns it as of now, ``finished`` being false; None where nothing can be said yet.
    :param progress: Returns what tells whether anything has changed since the last one.
    :param written: What it returned when a process before this one wrote the last one; None where none did.
    :param overtaken: Whether another try is, or was, at work meanwhile, whose manifest knows more.
    :param no_book_written: Lets no book of purchases be written meanwhile.
    :param clock: Seconds; nobody sets it.
    """

    def __init__(
        self,
        manifest: TaskManifest,
        content: Callable[[], Mapping[str, Any] | None],
        progress: Callable[[], object],
        *,
        written: object = None,
        overtaken: Callable[[], bool] = lambda: False,
        no_book_written: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manifest = manifest
        self._content = content
        self._progress = progress
        self._overtaken = overtaken
        self._no_book_written = no_book_written
        self._clock = clock
        self._last = written
        self._next_at = clock() + _FIRST_AFTER
        self._failed = False

    def write_when_due(self) -> None:
        """Write it, if anything has changed and enough time has passed since the last one."""
        if self._clock() >= self._next_at:
            self.write()

    def write(self) -> None:
        """Write it, if anything has changed since the last one and that could be written; a failure loses nothing."""
        progress = self._progress()
        if progress == self._last or (self._failed and self._clock() < self._next_at):
            return
        began = self._clock()
        try:
            with wrap_unexpected_errors("The manifest so far was not written"), self._no_book_written():
                content = self._content()
                if content is not None:
                    self._manifest.store.write_manifest(
                        self._manifest.name, content, compact=True, unless=self._overtaken
                    )
                    self._last = progress
            self._failed = False
        except errors.ToApisError as error:
            log.log(
                *(logging.DEBUG if self._failed else logging.INFO, "The manifest so far was not written: %s"),
                error.message,
            )
            self._failed = True
        took = self._clock() - began
        self._next_at = began + took + max(_PAUSE_AFTER_FAILURE if self._failed else _LEAST_PAUSE, took * _PAUSE_FACTOR)


def push_result(context: Context, operator: BaseOperator, value: Any) -> None:
    """Write a task's result to XCom now instead of when it ends, so that it is there whatever follows."""
    if operator.do_xcom_push:
        with SUPERVISOR_LOCK:
            context["ti"].xcom_push(key="return_value", value=value)


def with_manifest_error(
    error: errors.ToApisError | None, unwritten: errors.ToApisError | None, in_place: str
) -> errors.ToApisError | None:
    """Return the error that a task ends with, given that of its images and that of its manifest.

    :param error: What images are missing for; None where none are.
    :param unwritten: What :meth:`TaskManifest.write` returned.
    :param in_place: What was landed, as the beginning of a sentence.
    """
    if unwritten is None:
        return error
    words = f"The manifest could not be written: {unwritten.message} The same is in XCom."
    if error is not None:
        first, line, rest = error.message.partition("\n")
        return error.reworded(f"{first} {words}{line}{rest}")
    free = "A retry, or a clear, writes it and buys nothing again."
    return errors.StorageFailed(f"{in_place}, all paid. {words} {free}", charged="yes")
