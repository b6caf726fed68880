"""TaskManifest: the JSON file beside the images that says what one task instance made; and its result in XCom.

The generate and the download operator leave both behind: the result first, so that it is there whatever follows. A
manifest that cannot be written never loses a paid image: the images are in place, and a retry writes it for free. Its
index, a line of JSON an image below ``.nanobanana/index``, is written with it; trouble with that is a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_nanobanana.landing.image_store import ImageStore

log = LineLogger(__name__)

#: Below the destination's own folder.
_INDEX: Final = "index"


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
