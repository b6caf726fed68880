"""What final records amount to: success, or the one error that says what became of the money and what to clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_nanobanana.polling.result import NOT_READY_CODES
from airflow_provider_nanobanana.toapis import errors

Records = Sequence[Mapping[str, Any]]

#: What became of the money, the worst first.
_CHARGES: Final[tuple[errors.Charged, ...]] = ("yes", "unknown", "no")
_MOST_LISTED: Final = 10


@dataclass(frozen=True)
class _Kind:
    """One way not to be completed: what a person reads about it, and what became of the money."""

    heading: str
    advice: str
    charged: errors.Charged


#: By the error code of the record; each other code of a failed record is the service's own word, and refunded.
_KINDS: Final[Mapping[str, _Kind]] = {
    "failed": _Kind(
        "Failed at the service and refunded",
        "To make them anew, clear the submit tasks concerned (a refused prompt must be changed first), then wait and "
        "download.",
        "no",
    ),
    "expired": _Kind(
        "Paid, and lost: expired at the service",
        "To buy them anew, clear the submit tasks concerned, then wait and download.",
        "yes",
    ),
    "result_missing": _Kind(
        "Completed without an image, and paid",
        "Clear this task to ask again for free; do not clear their submit tasks.",
        "yes",
    ),
    "task_not_found": _Kind(
        "Unknown to the service, so nothing is known of the money",
        "Check that connection, host and account are those of the submit, then clear this task; do not clear their "
        "submit tasks.",
        "unknown",
    ),
    "look_refused": _Kind(
        "Not shown to this key while others are, so nothing is known of the money",
        "Check key and account, then clear this task; do not clear their submit tasks.",
        "unknown",
    ),
    "timeout": _Kind(
        "Not ready in time, paid and going on",
        "Clear this task to wait again for free; do not clear their submit tasks.",
        "yes",
    ),
    "undelivered": _Kind(
        "Completed without an image so far, and paid",
        "Clear this task to ask again for free; do not clear their submit tasks.",
        "yes",
    ),
    "not_seen": _Kind(
        "Not seen in time, so nothing is known of the money",
        "Clear this task to look again for free; do not clear their submit tasks.",
        "unknown",
    ),
}


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
    groups = _by_kind(records)
    if not groups or (allow_partial and completed):
        return None
    sentences = [f"{len(completed)} of {len(records)} image tasks completed."]
    sentences += [f"{_KINDS[name].heading} {_listed(group)}. {_KINDS[name].advice}" for name, group in groups.items()]
    if completed:
        sentences.append(
            f"Paid and completed: {listed_ids(completed)}. They are in this task's XCom; a download task with "
            "trigger_rule='all_done' lands them all the same."
        )
    charges = {_KINDS[name].charged for name in groups} | ({"yes"} if completed else set())
    return _error_class(groups)(
        " ".join(sentences),
        image_task_id=next(iter(groups.values()))[0]["id"],
        charged=next(charged for charged in _CHARGES if charged in charges),
    )


def listed_ids(ids: Sequence[str]) -> str:
    """Return the first ids as text, and how many more there are."""
    return ", ".join(ids[:_MOST_LISTED]) + _more(len(ids))


def _by_kind(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    """Return what did not complete, by kind, in the order of the kinds: failures first."""
    groups: dict[str, list[Mapping[str, Any]]] = {name: [] for name in _KINDS}
    for record in records:
        if record["status"] != "completed":
            groups[_kind(record["status"], record["error"]["code"])].append(record)
    return {name: group for name, group in groups.items() if group}


def _kind(status: str, code: str) -> str:
    """Return the kind; a service that fails an image task with a code like "timeout" has failed it all the same."""
    if (status, code) == ("timeout", "result_missing"):
        return "undelivered"
    return code if code in _KINDS and (code in NOT_READY_CODES) == (status == "timeout") else status


def _error_class(kinds: Mapping[str, object]) -> type[errors.ToApisError]:
    failures = kinds.keys() - NOT_READY_CODES - {"undelivered"}
    if not failures:
        return errors.ImageTaskTimeout
    return errors.ResultExpired if failures == {"expired"} else errors.ImageTaskFailed


def _listed(records: Records) -> str:
    shown = (
        f"{record['id']} ({record['error']['code']}: {record['error']['message']})" for record in records[:_MOST_LISTED]
    )
    amount = f"{len(records)} image task{'s' if len(records) > 1 else ''}"
    return f"({amount}): {'; '.join(shown)}{_more(len(records))}"


def _more(count: int) -> str:
    return f" and {count - _MOST_LISTED} more" if count > _MOST_LISTED else ""
