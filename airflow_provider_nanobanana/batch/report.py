"""BatchReport: what a finished batch amounts to, as result in XCom, as manifest, and as success or one error."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.batch.costs import Spent, format_usd
from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome, StoredItem
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED, NOT_READY_CODES, failure_code
from airflow_provider_nanobanana.toapis.redaction import truncate_json
from airflow_provider_nanobanana.toapis.response_values import storable

#: Version of the manifest's form.
VERSION: Final = 1
#: How the name of each manifest begins.
MANIFEST_PREFIX: Final = "manifest-"
#: Above so many images and failures XCom holds nothing for each; the manifest does.
MOST_IN_XCOM: Final = 500
#: Bytes of JSON for one image or failure in XCom.
LONGEST_RECORD: Final = 600
#: Given up in this order where ids and destinations are long; the manifest keeps them.
_DISPENSABLE: Final = ("id", "sha256", "message", "reason")
_MOST_LISTED: Final = 20
#: Answers without an image that an error quotes, and bytes of JSON of each.
_MOST_QUOTED: Final = 3
_LONGEST_QUOTE: Final = 400
#: Not parsed as a URL: ``extra_body`` may hold anything, also what is none.
_LINK: Final = re.compile(r"\s*(https?://)(?:[^/?#]*@)?([^?#]*).*", re.IGNORECASE | re.DOTALL)


class BatchIncomplete(errors.ImageTaskFailed):
    """Images of a batch are missing, and a retry may bring some of them; what is in place is not bought again."""

    retryable = True


class BatchReport:
    """What a batch amounts to, by request; further images of an image task stand behind its first.

    :param outcomes: How each request ended, and each further image.
    :param totals: From ``CostTracker.totals``.
    :param abandoned: Records of what is paid of an earlier list and is not in place.
    :param former: Records of what was landed of an earlier list.
    """

    def __init__(
        self,
        outcomes: Iterable[Outcome],
        totals: Mapping[str, Any],
        *,
        abandoned: Sequence[Mapping[str, Any]] = (),
        former: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        ordered = sorted(outcomes, key=lambda outcome: (outcome.item.index, outcome.extra))
        self.stored = [outcome for outcome in ordered if isinstance(outcome, StoredItem)]
        self.failed = [outcome for outcome in ordered if isinstance(outcome, FailedItem)]
        self._totals = totals
        self._abandoned = list(abandoned)
        self._former = list(former)
        #: Requests whose image somebody else bought, and those whose image was in place before.
        self.shared = sum(image.shared for image in self.stored if not image.extra)
        self.reused = sum(image.reused for image in self.stored if not image.extra)

    def result(self, manifest_uri: str | None) -> dict[str, Any]:
        """Return what goes through XCom: at most 600 bytes of JSON for each image, no lists above 500 of them.

        ``count`` is of requests whose image is in place; ``reused`` of them were there before, ``shared`` were bought
        by somebody else; ``extra_count`` is of further images of the same image tasks.

        :param manifest_uri: None where there is no manifest.
        """
        truncated = len(self.stored) + len(self.failed) > MOST_IN_XCOM
        stored = [] if truncated else self.stored
        failed = [] if truncated else self.failed
        extras = sum(image.extra for image in self.stored)
        value: dict[str, Any] = storable(
            {
                "images": [_fitted(image.record()) for image in stored],
                "failed": [_fitted(failure.record()) for failure in failed],
                "quarantined": [_fitted(kept) for failure in failed if (kept := failure.quarantined())],
                "abandoned": self._abandoned if len(self._abandoned) <= MOST_IN_XCOM else [],
                "count": len(self.stored) - extras,
                "failed_count": len(self.failed),
                "extra_count": extras,
                "cost_usd": self._totals["cost_usd"],
                "paid_usd": self._totals["paid_usd"],
                "lost_race": self._totals["lost_race"],
                "shared": self.shared,
                "reused": self.reused,
                "manifest": manifest_uri,
                "truncated": truncated,
            }
        )
        return value

    def manifest(self, *, run: Mapping[str, Any], destination: str) -> dict[str, Any]:
        """Return the manifest as plain JSON.

        :param run: ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and whatever else names the task instance.
        :param destination: URI of the folder that the images are in.
        """
        first = [image for image in self.stored if not image.extra]
        content: dict[str, Any] = storable(
            {
                "version": VERSION,
                **run,
                "destination": destination,
                **self._totals,
                "count": len(first),
                "extra_count": len(self.stored) - len(first),
                "shared": self.shared,
                "reused": self.reused,
                "unfinished": 0,
                "images": [_image(image) for image in self.stored],
                "failed": [_failure(failure) for failure in self.failed],
                "quarantined": [kept for failure in self.failed if (kept := failure.quarantined())],
                "abandoned": self._abandoned,
                "former": self._former,
            }
        )
        return content

    def error(self, *, allow_partial: bool, manifest_uri: str | None) -> errors.ToApisError | None:
        """Return the error that the batch amounts to, or None for success.

        Airflow retries it as long as a retry may bring any image. With ``allow_partial`` one image is enough.
        Further images of an image task are paid, too: one that is not in place is missing like any other.

        :param manifest_uri: None where nothing can be said of a manifest.
        """
        stored, failed = self.stored, self.failed
        if not failed or (allow_partial and stored):
            return None
        where = f"; they are listed in {manifest_uri}" if manifest_uri and stored else ""
        in_place = f"{len(stored):,} of {len(stored) + len(failed):,} images are in place{where}."
        text = f"{in_place} {self._money()} {_next_steps(failed)}\n{self.failure_table()}"
        codes = {failure.code for failure in failed}
        return _error_class(failed)(
            text,
            image_task_id=next((failure.id for failure in failed if failure.id), None),
            code=codes.pop() if len(codes) == 1 else None,
            charged=errors.worst_charge(
                [failure.charged for failure in failed], paid=any(image.spent.paid.usd != 0 for image in stored)
            ),
        )

    def failure_table(self) -> str:
        """Return which requests brought no image and why, one line each, the first 20 of them; empty for none.

        What may be paid has the id of its image task beside it.
        """
        failed = self.failed
        if not failed:
            return ""
        rows = [("request", "code", "money", "image task", "message"), *map(_row, failed[:_MOST_LISTED])]
        # Where nothing is paid there is no column of ids.
        columns = [column for column in range(4) if any(row[column] for row in rows[1:])]
        widths = {column: max(len(row[column]) for row in rows) for column in columns}
        lines = [
            "  ".join([*(row[column].ljust(widths[column]) for column in columns), row[4]]).rstrip() for row in rows
        ]
        if len(failed) > _MOST_LISTED:
            lines.append(f"and {len(failed) - _MOST_LISTED:,} more in the manifest")
        return "\n".join([*lines, *_quotes(failed)])

    def last_line(self) -> str:
        """Return what there is in the end and who paid, as one line of the log."""
        others = {"shared with other runs": self.shared, "reused": self.reused}
        parts = ", ".join(f"{words}: {number:,}" for words, number in others.items() if number)
        place = f"{len(self.stored):,} ({parts})" if parts else f"{len(self.stored):,}"
        return f"Images in place: {place}, missing: {len(self.failed):,}; {money_in_words(self._totals)}"

    def _money(self) -> str:
        listed = self._totals.get("of_which_listed_usd") or 0.0
        part = f", {format_usd(listed)} of it at list price" if listed else ""
        words = money_in_words(self._totals)
        return f"{words[0].upper()}{words[1:]}{part}."


def money_in_words(totals: Mapping[str, Any]) -> str:
    """Return what a batch has cost, and what its task paid where that is not the same; as a part of a sentence.

    :param totals: From ``CostTracker.totals``.
    """
    cost, paid, lost_race = (totals[name] for name in ("cost_usd", "paid_usd", "lost_race"))
    if (cost, lost_race) == (paid, 0):
        return f"the batch has cost {format_usd(cost)}"
    lost = f", {format_usd(lost_race)} of it lost in a race" if lost_race else ""
    return f"this task has paid {format_usd(paid)}{lost}; the images cost {format_usd(cost)}"


def manifest_name(dag_id: str, run_id: str, task_id: str, map_index: int | None, namespace: str = "") -> str:
    """Return what the manifest of a task instance is called, without suffix: readable, and no other's.

    :param map_index: None or below 0 for one that is not mapped.
    :param namespace: The connection's: tells installations apart whose DAGs and runs are called the same.
    """
    index = -1 if map_index is None or map_index < 0 else map_index
    parts = [dag_id, run_id, task_id, str(index), *([namespace] if namespace else [])]
    # "-" joins what may hold it: the hash alone tells a mapped "land", 1, from a task "land-1".
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    shown = [dag_id, run_id, task_id, *([str(index)] if index >= 0 else []), *([namespace] if namespace else [])]
    return MANIFEST_PREFIX + "-".join([*shown, digest])


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


def _fitted(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of at most 600 bytes of JSON; the keys are always all there."""
    for key in _DISPENSABLE:
        if len(json.dumps(record)) <= LONGEST_RECORD:
            break
        record = {**record, **({key: None} if key in record else {})}
    return record


def _image(image: StoredItem) -> dict[str, Any]:
    return {
        **image.image,
        **_identity(image.item),
        **_spent(image.spent),
        "reused": image.reused,
        "shared": image.shared,
        "times": dict(image.times),
    }


def _failure(failure: FailedItem) -> dict[str, Any]:
    return {
        **failure.record(),
        **_identity(failure.item),
        **_spent(failure.spent),
        "shared": failure.shared,
        "retry_may_help": failure.retryable,
        "index": failure.index,
        **({"answer": failure.answer} if failure.answer else {}),
    }


def _spent(spent: Spent) -> dict[str, Any]:
    return {
        "cost_usd": spent.cost.usd,
        "paid_usd": spent.paid.usd,
        "lost_race": spent.lost_race.usd,
        "cost_is_listed": spent.listed,
    }


def _identity(item: BatchItem) -> dict[str, Any]:
    """Return which request it was: position, name, identity, and the fields as they were asked for."""
    fields = item.request.model_dump(mode="json")
    return {
        "request": item.index,
        "name": item.name,
        "key": item.key,
        "digest": item.fingerprint,
        "model": item.request.model,
        "fields": {
            key: _bare(value) if key in ("reference_images", "extra_body") else value for key, value in fields.items()
        },
    }


def _bare(value: Any) -> Any:
    """Return a value with every link in it stripped of what may be secret: query, fragment and user."""
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_bare(inner) for inner in value]
    link = _LINK.fullmatch(value) if isinstance(value, str) else None
    return f"{link[1]}{link[2]}" if link else value
