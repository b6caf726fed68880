"""error_for: what the records of a finished wait amount to.

Success, or the one error that says what became of the money and which Airflow tasks to clear.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import (
    EXPIRED,
    FAILURE_CODES,
    SERVICE_FAILURE,
    FailureCode,
    failure_code,
)
from airflow_provider_nanobanana.toapis.text_lines import fold

Records = Sequence[Mapping[str, Any]]

_MOST_LISTED: Final = 10


def error_for(
    records: Records, *, allow_partial: bool, spoken: Mapping[str, str] | None = None
) -> errors.ToApisError | None:
    """Return the error that final records amount to, or None for success.

    A remote failure outweighs a timeout. With ``allow_partial`` one completed image task is enough.

    :param spoken: What people call the images, by image task id, as far as it is known.
    """
    if not records:
        return errors.InvalidRequest(
            "There are no image task ids to wait for: every submit failed or there was nothing to submit. "
            "Nothing is paid; clear the submit tasks, then this one.",
            first_step="Correct and clear the submit tasks, then this one.",
        )
    completed = [record["id"] for record in records if record["status"] == "completed"]
    groups = _by_meaning(records)
    if not groups or (allow_partial and completed):
        return None
    paragraphs = [f"{len(completed)} of {len(records)} image tasks completed."]
    for meaning, group in groups.items():
        paragraphs += [f"{meaning.heading} ({_amount(len(group))}). {meaning.advice}", *listed_records(group, spoken)]
    if completed:
        paragraphs += [
            "Paid and completed, and in this task's XCom; a download task with trigger_rule='all_done' lands them:",
            listed_ids(completed),
        ]
    return _error_class(groups)(
        "\n".join(paragraphs),
        image_task_id=next(iter(groups.values()))[0]["id"],
        charged=errors.worst_charge([meaning.charged for meaning in groups], paid=bool(completed)),
        first_step=_first_step(groups),
    )


def listed_ids(ids: Sequence[str]) -> str:
    """Return the first ids in lines of their own, and how many more there are."""
    lines = [fold(f"  {', '.join(ids[:_MOST_LISTED])}", indent="  ")]
    return "\n".join([*lines, *_more(len(ids))])


def listed_records(records: Records, spoken: Mapping[str, str] | None = None) -> list[str]:
    """Return what is known of each of the first records that are not completed, and how many more there are.

    :param spoken: As :func:`error_for` takes it.
    """
    shown = [fold(_line(record, (spoken or {}).get(record["id"])), indent="    ") for record in records[:_MOST_LISTED]]
    return [*shown, *_more(len(records))]


def _line(record: Mapping[str, Any], spoken: str | None) -> str:
    why = f"({record['error']['code']}: {record['error']['message']})"
    return f"  {record['id']} {why}" if spoken is None else f"  {spoken}:\n  {record['id']} {why}"


def _first_step(meanings: Collection[FailureCode]) -> str:
    """Say what a person does first: which of the tasks that submit, wait and download to clear."""
    rebuy = [meaning for meaning in meanings if meaning in (SERVICE_FAILURE, EXPIRED)]
    if not rebuy:
        return "Clear this task, and the download task after it; no submit task."
    renew = "Set on_expired='resubmit'; clear" if EXPIRED in rebuy else "Clear"
    which = "submit" if len(rebuy) == len(meanings) else "submit (where it says so)"
    return f"{renew} {which}, this task and download."


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


def _amount(count: int) -> str:
    return f"{count} image task{'s' if count > 1 else ''}"


def _more(count: int) -> list[str]:
    return [f"  and {count - _MOST_LISTED} more"] if count > _MOST_LISTED else []
