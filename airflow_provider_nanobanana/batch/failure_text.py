"""What a batch that lacks images says: one error, the table of what is missing, and what to do next."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.batch.costs import format_usd
from airflow_provider_nanobanana.batch.outcome import FailedItem, StoredItem
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED, NOT_READY_CODES, failure_code
from airflow_provider_nanobanana.toapis.redaction import one_line, truncate_json
from airflow_provider_nanobanana.toapis.text_lines import LINE_WIDTH, fold

_MOST_LISTED: Final = 20
_HEAD: Final = ("request", "prompt", "code", "money")
#: The column that gets what the others leave.
_PROMPT: Final = 1
#: Spaces between two columns, and most characters of each.
_GAP: Final = 2
_LONGEST_NAME: Final = 28
_LONGEST_PROMPT: Final = 40
_SHORTEST_PROMPT: Final = 10
_LONGEST_CODE: Final = 26
#: Answers without an image that an error quotes, and bytes of JSON of each.
_MOST_QUOTED: Final = 3
_LONGEST_QUOTE: Final = 400
#: How a message begins to say where the bytes are.
_KEPT_AS: Final = re.compile(r" (?:What came|It) is kept as ")


class BatchIncomplete(errors.ImageTaskFailed):
    """Images of a batch are missing, and a retry may bring some of them; what is in place is not bought again."""

    retryable = True
    first_step = errors.TransientFailure.first_step


def batch_error(
    stored: Sequence[StoredItem], failed: Sequence[FailedItem], totals: Mapping[str, Any], manifest_uri: str | None
) -> errors.ToApisError:
    """Return the error of a batch that lacks images.

    Further images of an image task are paid, too: one that is not in place is missing like any other.

    :param failed: Not empty.
    :param totals: From ``CostTracker.totals``.
    :param manifest_uri: None where nothing can be said of a manifest.
    """
    where = [f"Listed in {manifest_uri}"] if manifest_uri else []
    in_place = f"{len(stored):,} of {len(stored) + len(failed):,} images are in place. {_money(totals)}"
    paragraphs = [in_place, *where, *_next_steps(failed), failure_table(failed)]
    codes = {failure.code for failure in failed}
    return _error_class(failed)(
        "\n".join(paragraphs),
        image_task_id=next((failure.id for failure in failed if failure.id), None),
        code=codes.pop() if len(codes) == 1 else None,
        charged=errors.worst_charge(
            [failure.charged for failure in failed], paid=any(image.spent.paid.usd != 0 for image in stored)
        ),
        first_step=_first_step(failed),
    )


def failure_table(failed: Sequence[FailedItem]) -> str:
    """Return which requests brought no image and why, in short lines, the first 20 of them; empty for none.

    A row is name, beginning of the prompt, code and money; below it are the words, where the row before has others, and
    the image task of what may be paid.
    """
    if not failed:
        return ""
    shown = failed[:_MOST_LISTED]
    rows = [_HEAD, *map(_row, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    taken = sum(widths) - widths[_PROMPT] + _GAP * (len(_HEAD) - 1)
    widths[_PROMPT] = min(widths[_PROMPT], max(LINE_WIDTH - taken, _SHORTEST_PROMPT))
    lines = [_aligned(_HEAD, widths)]
    said = ""
    for failure, row in zip(shown, rows[1:], strict=True):
        words = _words(failure)
        lines.append(_aligned(row, widths))
        lines += [fold(f"  {words}", indent="  ")] if words != said else []
        said = words
    if len(failed) > _MOST_LISTED:
        counts = Counter(failure.code for failure in failed)
        lines.append(f"and {len(failed) - _MOST_LISTED:,} more in the manifest")
        lines.append(fold(f"In all: {', '.join(f'{number:,} {code}' for code, number in counts.most_common())}"))
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


def _row(failure: FailedItem) -> tuple[str, str, str, str]:
    return (
        _cut(failure.item.label, _LONGEST_NAME),
        one_line(failure.item.request.prompt, limit=_LONGEST_PROMPT),
        _cut(failure.code, _LONGEST_CODE),
        failure.charged_text,
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True))
    return (" " * _GAP).join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _words(failure: FailedItem) -> str:
    """Return what stands below the row of a failure."""
    message = f"image {failure.index}: {failure.message}" if failure.extra else failure.message
    if failure.kept is not None and str(failure.kept.get("uri")) not in message:
        # The message was cut where it said so.
        message = f"{_KEPT_AS.split(message)[0]} Its bytes are kept: {failure.kept.get('uri')}"
    paid = failure.id if failure.charged != "no" else None
    return f"image task {paid}: {message}" if paid else message


def _quotes(failed: Sequence[FailedItem]) -> list[str]:
    """Return the answers in which no image was found: a person may still find it."""
    answers = [(failure.item.label, failure.answer) for failure in failed if failure.answer]
    return [
        fold(f"answer for {label}: {truncate_json(answer, _LONGEST_QUOTE)}") for label, answer in answers[:_MOST_QUOTED]
    ]


def _first_step(failed: Sequence[FailedItem]) -> str:
    """Say what a person does first."""
    final = [failure for failure in failed if not failure.retryable]
    if not final:
        return BatchIncomplete.first_step
    remedies = _remedies(final)
    rest = "" if len(final) == len(failed) else "; the rest is retried"
    step = f"{', '.join(remedies)}, then clear this task{rest}." if remedies else f"Clear this task{rest}."
    return f"{step[0].upper()}{step[1:]}"


def _next_steps(failed: Sequence[FailedItem]) -> list[str]:
    """Say what a retry repeats, and what only a person can change."""
    steps = Counter(_step(failure) for failure in failed if failure.retryable)
    final = [failure for failure in failed if not failure.retryable]
    sentences = []
    if steps:
        parts = ", ".join(step.format(n) for step, n in steps.most_common())
        sentences.append(f"A retry, or a clear, keeps what is in place and {parts}.")
    if final:
        who = "any of them" if len(final) == len(failed) else f"{len(final):,} of them"
        sentences.append(f"No retry changes {who}; a clear {_after_clear(final)}.")
    return sentences


def _after_clear(final: Sequence[FailedItem]) -> str:
    """Say what a clear does about what no retry changes."""
    does = ["keeps what is in place"]
    if any(failure.code == EXPIRED.code for failure in final if not failure.extra):
        does.append("buys again what expired")
    if any(failure.extra for failure in final):
        does.append("goes on without the further images that are lost")
    return " and ".join(does)


def _remedies(final: Sequence[FailedItem]) -> list[str]:
    own = [failure for failure in final if not failure.extra and failure.code != EXPIRED.code]
    return list(dict.fromkeys(failure.remedy or failure_code(failure.code).remedy for failure in own))


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
