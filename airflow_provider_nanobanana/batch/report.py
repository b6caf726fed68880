"""BatchReport: what a batch amounts to, as result in XCom, as manifest, and as success or one error.

Of a batch that is still at work (:mod:`~.interim_report`) it makes the manifest alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.batch import failure_text
from airflow_provider_nanobanana.batch.costs import Spent
from airflow_provider_nanobanana.batch.items import SkippedRow
from airflow_provider_nanobanana.batch.manifest import failed_entry, image_entry, manifest_content, under_way_entry
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome, StoredItem, UnderWayItem
from airflow_provider_nanobanana.batch.xcom_record import fit_record
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.response_values import storable

#: Above so many images and failures XCom holds nothing for each; the manifest does.
MOST_IN_XCOM: Final = 500


class BatchReport:
    """What a batch amounts to, by request; further images of an image task stand behind its first.

    :param outcomes: How each request ended, and each further image.
    :param totals: From ``CostTracker.totals``.
    :param abandoned: Records of what is paid of an earlier list and is not in place.
    :param former: Records of what was landed of an earlier list.
    :param skipped: Rows that were left out.
    :param prepared_references: What was done to reference images before they were sent, by URI.
    :param under_way: What is bought and not in place yet, of a batch that has not ended.
    :param waiting: How many of its requests have no image task yet.
    """

    def __init__(
        self,
        outcomes: Iterable[Outcome],
        totals: Mapping[str, Any],
        *,
        abandoned: Sequence[Mapping[str, Any]] = (),
        former: Sequence[Mapping[str, Any]] = (),
        skipped: Sequence[SkippedRow] = (),
        prepared_references: Mapping[str, str] | None = None,
        under_way: Sequence[UnderWayItem] = (),
        waiting: int = 0,
    ) -> None:
        ordered = _in_order(outcomes)
        self.stored = [outcome for outcome in ordered if isinstance(outcome, StoredItem)]
        self.failed = [outcome for outcome in ordered if isinstance(outcome, FailedItem)]
        self._totals = totals
        self._abandoned = list(abandoned)
        self._former = list(former)
        self._skipped = [{"request": row.index, "name": row.name, "message": row.message} for row in skipped]
        self._prepared = [{"uri": uri, "prepared": done} for uri, done in sorted((prepared_references or {}).items())]
        self._under_way = under_way
        self._waiting = waiting
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
                "images": [fit_record(image.record()) for image in stored],
                "failed": [fit_record(failure.record()) for failure in failed],
                "quarantined": [fit_record(kept) for failure in failed if (kept := failure.quarantined())],
                "abandoned": self._abandoned if len(self._abandoned) <= MOST_IN_XCOM else [],
                "count": len(self.stored) - extras,
                "failed_count": len(self.failed),
                "extra_count": extras,
                "skipped_count": len(self._skipped),
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

    def manifest(
        self, *, run: Mapping[str, Any], destination: str, now: float, finished: bool = True
    ) -> dict[str, Any]:
        """Return the manifest as plain JSON.

        :param run: ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and whatever else names the task instance.
        :param destination: URI of the folder that the images are in.
        :param now: Epoch seconds.
        :param finished: Whether the work on the batch is over.
        """
        extras = sum(image.extra for image in self.stored)
        return manifest_content(
            "generate",
            run,
            now=now,
            destination=destination,
            totals=self._totals,
            counts={
                "count": len(self.stored) - extras,
                "extra_count": extras,
                "shared": self.shared,
                "reused": self.reused,
                "unfinished": 0,
            },
            images=[_image(image) for image in self.stored],
            failed=[_failure(failure) for failure in self.failed],
            quarantined=[kept for failure in self.failed if (kept := failure.quarantined())],
            skipped=self._skipped,
            abandoned=self._abandoned,
            former=self._former,
            under_way=[_under_way(one) for one in self._under_way],
            waiting=self._waiting,
            finished=finished,
            more={"prepared_references": self._prepared},
        )

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
        skipped = f"; rows skipped: {len(self._skipped):,}" if self._skipped else ""
        return f"Images in place: {place}, missing: {len(self.failed):,}{skipped}; {money}"


def _in_order(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return outcomes by row, those of one item together: several items, its variants, may share a row."""
    given = list(outcomes)
    places: dict[str, int] = {}
    for outcome in given:
        places.setdefault(outcome.item.key, len(places))
    return sorted(given, key=lambda each: (each.item.index, places[each.item.key], each.extra))


def _image(image: StoredItem) -> dict[str, Any]:
    return image_entry(
        image.image,
        image.request,
        _money(image.spent),
        times=image.times,
        reused=image.reused,
        shared=image.shared,
    )


def _failure(failure: FailedItem) -> dict[str, Any]:
    known = {"index": failure.index, "retry_may_help": failure.retryable, "shared": failure.shared}
    return failed_entry({**failure.record(), **known}, failure.request, _money(failure.spent), answer=failure.answer)


def _under_way(one: UnderWayItem) -> dict[str, Any]:
    image = {"id": one.id, "index": 0, "shared": one.shared}
    return under_way_entry(image, one.request, _money(one.spent), submitted_at=one.submitted_at)


def _money(spent: Spent) -> dict[str, Any]:
    return {
        "cost_usd": spent.cost.usd,
        "paid_usd": spent.paid.usd,
        "lost_race": spent.lost_race.usd,
        "cost_is_listed": spent.listed,
    }
