"""The collecting side of a stretch: what has finished is landed, what has failed is noted, the rest is waited for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.batch.outcome import FailedItem
from airflow_provider_nanobanana.error_boundary import errors_of_the_tree_only
from airflow_provider_nanobanana.polling.latency import LatencyEstimator, latency_key
from airflow_provider_nanobanana.polling.result import WaitWindow
from airflow_provider_nanobanana.polling.worker import poll_once
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import GeneratedImage

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.landing import StoredImage
    from airflow_provider_nanobanana.polling.result import PollResult
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)

#: Downloads under way at once; images are decoded one at a time.
_THREADS: Final = 4
#: Seconds between two looks at one image task while a stretch goes on.
_BETWEEN_LOOKS: Final = 10.0
#: Orders looked at, landed and saved together.
_ROUND: Final = 40
#: What keeps a paid image from being landed and is not its own fault.
_NOT_THE_IMAGES: Final[errors.Family] = (errors.StorageFailed, *errors.TRANSIENT_ERRORS, *errors.ACCESS_ERRORS)


class ResultCollector:
    """Lands the images of a workshop as they get ready."""

    def __init__(self, shop: BatchState) -> None:
        self._shop = shop
        self._looked_at: dict[str, float] = {}
        self._latencies = LatencyEstimator()

    def collect_due(self, enough: Callable[[], bool]) -> bool:
        """Look at what may be ready by now and was not looked at lately; say whether all of that was looked at.

        :param enough: Asked between two rounds; true leaves the rest for later.
        """
        now = self._shop.session.clock()
        return self.collect([order for order in self._shop.running() if self._ripe(order, now)], enough)

    def collect(self, orders: Sequence[BatchItem], enough: Callable[[], bool]) -> bool:
        """Look at orders that have an image task; land, or note, what has ended, and say whether all were looked at.

        :param enough: As for :meth:`collect_ripe`.
        """
        for start in range(0, len(orders), _ROUND):
            if enough():
                return False
            self._collect_some(orders[start : start + _ROUND])
            self._shop.save()
        return True

    def complete(self) -> None:
        """Try once more for images beside others that an earlier stretch could not land; looking is free."""
        shop = self._shop
        orders = [order for order in shop.items if any(lost.fault.retryable for lost in shop.entry(order).lost)]
        orders = [order for order in orders if shop.entry(order).status == "landed" and shop.image_task_id(order)]
        ids = [shop.image_task_id(order) or "" for order in orders]
        sent = {image_task_id: order.request.sent_links() for image_task_id, order in zip(ids, orders, strict=True)}
        sightings = poll_once(shop.session, ids, sent)
        for order, sighting in zip(orders, sightings, strict=True):
            entry, shown = shop.entry(order), sighting.image_task.images if sighting.image_task else ()
            missing = {lost.index for lost in entry.lost}
            images = [image for image in shown if image.index in missing]
            if images and entry.stored:
                found = self._land_further(order, sighting.id, images, entry.stored.stem)
                shop.landed_further(order, *found)

    def _ripe(self, order: BatchItem, now: float) -> bool:
        if now >= self._shop.deadline(order):
            return True
        kind = latency_key(order.request.model, order.request.resolution)
        age = now - (self._shop.entry(order).submitted_at or 0.0)
        return age >= self._latencies.first_poll_age(kind) and now >= self._looked_at.get(order.key, 0) + _BETWEEN_LOOKS

    def _collect_some(self, orders: Sequence[BatchItem]) -> None:
        shop = self._shop
        ids = {order.key: shop.image_task_id(order) or "" for order in orders}
        sent = {ids[order.key]: order.request.sent_links() for order in orders}
        sightings = {sighting.id: sighting for sighting in poll_once(shop.session, list(sent), sent)}
        refused = [sighting.error for sighting in sightings.values() if sighting.access_denied]
        if refused and len(refused) == len(sightings):
            raise _blind(refused[0], len(shop.running()))
        now = shop.session.clock()
        self._looked_at |= dict.fromkeys(ids, now)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="collector") as pool:
            list(pool.map(lambda order: self._take(order, sightings[ids[order.key]], now), orders))

    def _take(self, order: BatchItem, sighting: PollResult, now: float) -> None:
        """Land an order, or note its failure, if it has ended; what is odd about one is no matter of the others."""
        wait = WaitWindow(self._shop.waited_since(order), self._shop.deadline(order))
        try:
            with errors_of_the_tree_only(f"Request {order.label} was not landed", image_task_id=sighting.id):
                self._conclude(order, sighting, wait, now)
        except errors.ToApisError as error:
            self._not_landed(order, error, late=wait.over(now))

    def _conclude(self, order: BatchItem, sighting: PollResult, wait: WaitWindow, now: float) -> None:
        shop = self._shop
        image_task = sighting.image_task
        shop.costs.observe(order, sighting.id, image_task)
        if image_task is not None and image_task.completed_at and image_task.created_at:
            kind = latency_key(order.request.model, order.request.resolution)
            self._latencies.observe(kind, image_task.completed_at - image_task.created_at)
        if image_task is not None and image_task.images:
            self._land(order, image_task, late=wait.over(now))
        elif (sighting.is_final(wait, now) or wait.over(now)) and (failure := sighting.failure(wait, now)):
            shop.mark_failed(
                FailedItem.from_poll(
                    order,
                    failure,
                    cost=shop.costs.cost(order),
                    bill=Cost.of(image_task, None) if image_task else None,
                    rebuy_expired=shop.rules.on_expired == "resubmit",
                )
            )

    def _land(self, order: BatchItem, image_task: ImageTask, *, late: bool) -> None:
        """Land the image that was asked for, and those that came beside it, whatever becomes of one of them."""
        shop, stem = self._shop, order.stem(self._shop.name_suffix)
        first, *further = sorted(image_task.images, key=lambda image: image.index)
        try:
            stored = self._landed(order, image_task.id, first, stem, order.request.expected_pixels())
        except errors.ToApisError as error:
            self._not_landed(order, error, late=late)
            _tell_of_further(order, *self._land_further(order, image_task.id, further, stem))
            return
        extras, lost = self._land_further(order, image_task.id, further, PurePosixPath(stored.uri).stem)
        shop.mark_stored(order, stored, extras, lost)

    def _landed(
        self,
        order: BatchItem,
        image_task_id: str,
        image: GeneratedImage,
        stem: str,
        pixels: tuple[int, int] | None = None,
    ) -> StoredImage:
        wanted = GeneratedImage(id=image_task_id, index=image.index, url=image.url)
        with errors_of_the_tree_only(f"Image {image.index} was not landed", image_task_id=image_task_id):
            return self._shop.downloader.land(wanted, pixels, stem=stem, sent=order.request.sent_links())

    def _land_further(
        self, order: BatchItem, image_task_id: str, images: Sequence[GeneratedImage], stem: str
    ) -> tuple[list[StoredImage], list[FailedItem]]:
        """Land the images beside the first; return those in place, and those that are left to :meth:`complete`."""
        extras, lost = [], []
        for image in images:
            try:
                extras.append(self._landed(order, image_task_id, image, f"{stem}.{image.index}"))
            except errors.ToApisError as error:
                failure = FailedItem.from_error(order, _paid(error))
                again = failure.retryable or isinstance(error, _NOT_THE_IMAGES)
                lost.append(replace(failure, retryable=again, index=image.index, extra=True))
        return extras, lost

    def _not_landed(self, order: BatchItem, error: errors.ToApisError, *, late: bool) -> None:
        """Note what keeps an order from being landed; trouble that may pass ends it only when its time is over."""
        shop, paid = self._shop, _paid(error)
        if isinstance(error, _NOT_THE_IMAGES) and not late:
            # It is tried again; what is paid waits at the service.
            shop.storage_failed(order, paid)
        else:
            shop.mark_failed(
                FailedItem.from_error(
                    order, paid, cost=shop.costs.cost(order), rebuy_expired=shop.rules.on_expired == "resubmit"
                )
            )


def _tell_of_further(order: BatchItem, extras: Sequence[StoredImage], lost: Sequence[FailedItem]) -> None:
    """Name what came beside a first image that is not in place: the ledger knows of none without the first."""
    kept = [str(failure.kept.get("uri")) for failure in lost if failure.kept is not None]
    if uris := [*(image.uri for image in extras), *kept]:
        log.warning("Paid with request %s, whose own image is not in place: %s", order.label, ", ".join(uris))


def _paid(error: errors.ToApisError) -> errors.ToApisError:
    return error if error.charged != "no" else error.reworded(error.message, charged="yes")


def _blind(refusal: errors.ToApisError | None, running: int) -> errors.ToApisError:
    """Say what a refused key means for what is under way."""
    assert refusal is not None
    return refusal.reworded(
        f"{refusal.message} {running} image tasks under way cannot be looked at; they go on and stay paid. Mend the "
        "connection and clear the task: nothing is bought twice.",
        charged="yes",
    )
