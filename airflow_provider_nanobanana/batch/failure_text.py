"""What a batch that lacks images says: one error, the table of what is missing, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.batch.costs import format_usd
from airflow_provider_nanobanana.batch.outcome import FailedItem, StoredItem
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED, NOT_READY_CODES, failure_code
from airflow_provider_nanobanana.toapis.redaction import truncate_json

_MOST_LISTED: Final = 20
#: Answers without an image that an error quotes, and bytes of JSON of each.
_MOST_QUOTED: Final = 3
_LONGEST_QUOTE: Final = 400


class BatchIncomplete(errors.ImageTaskFailed):
    """Images of a batch are missing, and a retry may bring some of them; what is in place is not bought again."""

    retryable = True


def batch_error(
    stored: Sequence[StoredItem], failed: Sequence[FailedItem], totals: Mapping[str, Any], manifest_uri: str | None
) -> errors.ToApisError:
    """Return the error of a batch that lacks images.

    Further images of an image task are paid, too: one that is not in place is missing like any other.

    :param failed: Not empty.
    :param totals: From ``CostTracker.totals``.
    :param manifest_uri: None where nothing can be said of a manifest.
    """
    where = f"; they are listed in {manifest_uri}" if manifest_uri and stored else ""
    in_place = f"{len(stored):,} of {len(stored) + len(failed):,} images are in place{where}."
    text = f"{in_place} {_money(totals)} {_next_steps(failed)}\n{failure_table(failed)}"
    codes = {failure.code for failure in failed}
    return _error_class(failed)(
        text,
        image_task_id=next((failure.id for failure in failed if failure.id), None),
        code=codes.pop() if len(codes) == 1 else None,
        charged=errors.worst_charge(
            [failure.charged for failure in failed], paid=any(image.spent.paid.usd != 0 for image in stored)
        ),
    )


def failure_table(failed: Sequence[FailedItem]) -> str:
    """Return which requests brought no image and why, one line each, the first 20 of them; empty for none.

    What may be paid has the id of its image task beside it.
    """
    if not failed:
        return ""
    rows = [("request", "code", "money", "image task", "message"), *map(_row, failed[:_MOST_LISTED])]
    # Where nothing is paid there is no column of ids.
    columns = [column for column in range(4) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in columns}
    lines = ["  ".join([*(row[column].ljust(widths[column]) for column in columns), row[4]]).rstrip() for row in rows]
    if len(failed) > _MOST_LISTED:
        lines.append(f"and {len(failed) - _MOST_LISTED:,} more in the manifest")
    return "\n".join([*lines, *_quotes(failed)])


def money_in_words(totals: Mapping[str, Any]) -> str:
    """Return what a batch has cost, and what its task paid where that is not the same; as a part of a sentence.

    :param totals: From ``CostTracker.totals``.
    """
    cost, paid, lost_race = (totals[name] for name in ("cost_usd", "paid_usd", "lost_race"))
    if (cost, lost_race) == (paid, 0):
        return f"the batch has cost {format_usd(cost)}"
    lost = f", {format_usd(lost_race)} of it lost in a race" if lost_race else ""
    return f"this task has paid {format_usd(paid)}{lost}; the images cost {format_usd(cost)}"


def _money(totals: Mapping[str, Any]) -> str:
    listed = totals.get("of_which_listed_usd") or 0.0
    part = f", {format_usd(listed)} of it at list price" if listed else ""
    words = money_in_words(totals)
    return f"{words[0].upper()}{words[1:]}{part}."


def _row(failure: FailedItem) -> tuple[str, str, str, str, str]:
    message = f"image {failure.index}: {failure.message}" if failure.extra else failure.message
    if failure.kept is not None:
        message += f" Its bytes are kept: {failure.kept.get('uri')}"
    paid = failure.id if failure.charged != "no" else None
    return failure.item.label, failure.code, failure.charged_text, paid or "", message


def _quotes(failed: Sequence[FailedItem]) -> list[str]:
    """Return the answers in which no image was found: a person may still find it."""
    answers = [(failure.item.label, failure.answer) for failure in failed if failure.answer]
    return [f"answer for {label}: {truncate_json(answer, _LONGEST_QUOTE)}" for label, answer in answers[:_MOST_QUOTED]]


def _next_steps(failed: Sequence[FailedItem]) -> str:
    """Say what a retry repeats, and what only a person can change."""
    steps = Counter(_step(failure) for failure in failed if failure.retryable)
    final = [failure for failure in failed if not failure.retryable]
    sentences = []
    if steps:
        parts = ", ".join(step.format(n) for step, n in steps.most_common())
        sentences.append(f"A retry, or a clear, keeps what is in place and {parts}.")
    if final:
        who = "any of them" if len(final) == len(failed) else f"{len(final):,} of them"
        sentences.append(f"No retry changes {who}: {_way_out(final)}.")
    return " ".join(sentences)


def _way_out(final: Sequence[FailedItem]) -> str:
    """Say what a person can do about what no retry changes; a clear alone buys again what expired."""
    codes = {failure.code: True for failure in final if not failure.extra}
    expired = codes.pop(EXPIRED.code, False)
    remedies = dict.fromkeys(failure_code(code).remedy for code in codes)
    clear = "clear the task, which keeps what is in place" + (" and buys again what expired" if expired else "")
    if any(failure.extra for failure in final):
        clear += " and goes on without the further images that are lost"
    return f"{', '.join(remedies)}, then {clear}" if remedies else clear


def _step(failure: FailedItem) -> str:
    if failure.billed:
        return "submits, and pays, {:,} again that the service failed and charged all the same"
    if failure.code == EXPIRED.code:
        return "buys {:,} again whose paid results are lost"
    return {
        "no": "submits {:,} again for which nothing is paid",
        "yes": "goes on with {:,} that are paid, without buying them again",
        "unknown": "finds out about {:,} before it submits anything for them",
    }[failure.charged]


def _error_class(failed: Sequence[FailedItem]) -> type[errors.ToApisError]:
    if all(failure.code in NOT_READY_CODES and failure.retryable and failure.charged != "no" for failure in failed):
        return errors.ImageTaskTimeout
    if any(failure.retryable for failure in failed):
        return BatchIncomplete
    return errors.ResultExpired if all(failure.code == EXPIRED.code for failure in failed) else errors.ImageTaskFailed
