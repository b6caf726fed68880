"""error_for: what the records of a finished wait amount to.

Success, or the one error that says what became of the money and which Airflow tasks to clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import (
    EXPIRED,
    FAILURE_CODES,
    SERVICE_FAILURE,
    FailureCode,
    failure_code,
)

Records = Sequence[Mapping[str, Any]]

_MOST_LISTED: Final = 10


def error_for(records: Records, *, allow_partial: bool) -> errors.ToApisError | None:
    """Return the error that final records amount to, or None for success.

    A remote failure outweighs a timeout. With ``allow_partial`` one completed image task is enough.
    """
    if not records:
        return errors.InvalidRequest(
            "There are no image task ids to wait for: every submit failed or there was nothing to submit. "
            "Nothing is paid; clear the submit tasks, then this one."
        )
    completed = [record["id"] for record in records if record["status"] == "completed"]
    groups = _by_meaning(records)
    if not groups or (allow_partial and completed):
        return None
    sentences = [f"{len(completed)} of {len(records)} image tasks completed."]
    sentences += [f"{meaning.heading} {_listed(group)}. {meaning.advice}" for meaning, group in groups.items()]
    if completed:
        sentences.append(
            f"Paid and completed: {listed_ids(completed)}. They are in this task's XCom; a download task with "
            "trigger_rule='all_done' lands them all the same."
        )
    return _error_class(groups)(
        " ".join(sentences),
        image_task_id=next(iter(groups.values()))[0]["id"],
        charged=errors.worst_charge([meaning.charged for meaning in groups], paid=bool(completed)),
    )


def listed_ids(ids: Sequence[str]) -> str:
    """Return the first ids as text, and how many more there are."""
    return ", ".join(ids[:_MOST_LISTED]) + _more(len(ids))


def _by_meaning(records: Records) -> dict[FailureCode, list[Mapping[str, Any]]]:
    """Return the records that are not completed by what they mean, failures first."""
    groups: dict[FailureCode, list[Mapping[str, Any]]] = {meaning: [] for meaning in FAILURE_CODES}
    for record in records:
        if record["status"] != "completed":
            meaning = failure_code(record["error"]["code"], pending=record["status"] == "timeout")
            groups[SERVICE_FAILURE if meaning.charged == "no" else meaning].append(record)
    return {meaning: group for meaning, group in groups.items() if group}


def _error_class(meanings: Iterable[FailureCode]) -> type[errors.ToApisError]:
    failures = {meaning for meaning in meanings if not meaning.pending}
    if not failures:
        return errors.ImageTaskTimeout
    return errors.ResultExpired if failures == {EXPIRED} else errors.ImageTaskFailed


def _listed(records: Records) -> str:
    shown = (
        f"{record['id']} ({record['error']['code']}: {record['error']['message']})" for record in records[:_MOST_LISTED]
    )
    amount = f"{len(records)} image task{'s' if len(records) > 1 else ''}"
    return f"({amount}): {'; '.join(shown)}{_more(len(records))}"


def _more(count: int) -> str:
    return f" and {count - _MOST_LISTED} more" if count > _MOST_LISTED else ""
