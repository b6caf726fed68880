"""``not_counted_before``: which image tasks a task instance has not counted in metrics yet, over its tries and clears.

Metrics only add up: what is counted twice stays so. Known from Airflow 3.3 on, whose task state store survives a try.
Trouble with it costs no more than a second count, and never the task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.durable.state_store import TaskStateStore, decode, encode
from airflow_provider_nanobanana.stored_forms import COUNTED
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

log = LineLogger(__name__)

NAME: Final = "nanobanana_counted"
#: Digits of the hash that stands for an id: 8,000 of them stay below what the store takes without a warning.
_DIGITS: Final = 10


def not_counted_before(context: Any, image_task_ids: Iterable[str]) -> AbstractSet[str]:
    """Return the ids that this task instance is told of for the first time, and note them.

    Noted before they are counted: a process that is killed in between loses a count, and never counts twice.

    :param context: Of the running task instance.
    """
    given = set(image_task_ids)
    store = context.get("task_state_store")
    if store is None or not given:
        return given
    noted = TaskStateStore(store)
    try:
        before = _read(noted)
        new = {each for each in given if _short(each) not in before}
        if new:
            noted.write(
                NAME, encode({"version": COUNTED.version, "ids": "".join(sorted(before | set(map(_short, new))))})
            )
        return new
    except ToApisError as error:
        log.debug("What was counted before could not be read or noted; all is counted: %s", error.message)
        return given


def _read(store: TaskStateStore) -> set[str]:
    text = store.read(NAME)
    if text is None:
        return set()
    value = decode(NAME, text)
    if isinstance(value, dict):
        COUNTED.refuse_newer(value.get("version"), f"What is stored under {NAME!r}")
    ids = value.get("ids") if isinstance(value, dict) else None
    if not isinstance(ids, str):
        return set()
    return {ids[start : start + _DIGITS] for start in range(0, len(ids), _DIGITS)}


def _short(image_task_id: str) -> str:
    return hashlib.sha256(image_task_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
