"""BatchReport: what a finished batch amounts to, as result in XCom, as manifest, and as success or one error."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.batch import failure_text
from airflow_provider_nanobanana.batch.costs import Spent
from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome, StoredItem
from airflow_provider_nanobanana.toapis import errors
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
#: Not parsed as a URL: ``extra_body`` may hold anything, also what is none.
_LINK: Final = re.compile(r"\s*(https?://)(?:[^/?#]*@)?([^?#]*).*", re.IGNORECASE | re.DOTALL)


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

        :param manifest_uri: None where nothing can be said of a manifest.
        """
        if not self.failed or (allow_partial and self.stored):
            return None
        return failure_text.batch_error(self.stored, self.failed, self._totals, manifest_uri)

    def failure_table(self) -> str:
        """Return which requests brought no image and why, one line each, the first 20 of them; empty for none."""
        return failure_text.failure_table(self.failed)

    def last_line(self) -> str:
        """Return what there is in the end and who paid, as one line of the log."""
        others = {"shared with other runs": self.shared, "reused": self.reused}
        parts = ", ".join(f"{words}: {number:,}" for words, number in others.items() if number)
        place = f"{len(self.stored):,} ({parts})" if parts else f"{len(self.stored):,}"
        money = failure_text.money_in_words(self._totals)
        return f"Images in place: {place}, missing: {len(self.failed):,}; {money}"


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
