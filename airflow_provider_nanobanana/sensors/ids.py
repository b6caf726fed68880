"""Reading the image task ids a sensor was given, in whatever form XCom hands them over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_provider_nanobanana.toapis.errors import InvalidRequest


def read_ids(value: Any) -> list[str]:
    """Return the ids in order, each once: from one id, a list, or the lazy output of a mapped submit with holes in it.

    :raises InvalidRequest: for anything else; nothing was asked.
    """
    entries = [value] if isinstance(value, str) else value
    if entries is None:
        entries = []
    if not isinstance(entries, Iterable) or isinstance(entries, (bytes, dict)):
        raise InvalidRequest(f"image_task_ids is one id or a list of ids, not {type(value).__name__}.")
    ids = [_read_id(entry) for entry in entries if entry is not None]
    return list(dict.fromkeys(ids))


def _read_id(entry: Any) -> str:
    if not isinstance(entry, str) or not entry.strip():
        raise InvalidRequest(f"image_task_ids holds {entry!r:.80}, which is no image task id.")
    text = entry.strip()
    if text.startswith(("[", "{", "(")) or any(character.isspace() or character == "," for character in text):
        raise InvalidRequest(
            f"image_task_ids holds the text {text!r:.80}, which looks like a rendered list. Pass the task's .output, "
            "or set render_template_as_native_obj=True on the DAG."
        )
    return text
