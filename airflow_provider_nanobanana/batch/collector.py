"""``ResultCollector``: lands the images of a batch as their image tasks end, and notes those that end without one.

It works beside ``BatchSubmitter`` during a slice. What cannot be landed for now stays open: it is paid, and tried again
until its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.batch.outcome import FailedItem
from airflow_provider_nanobanana.durable.claims import Claim
from airflow_provider_nanobanana.landing.suspects import PromptsByBytes
from airflow_provider_nanobanana.polling.latency import LatencyEstimator, latency_key
from airflow_provider_nanobanana.polling.poll_tracker import poll_once
from airflow_provider_nanobanana.polling.result import WaitWindow
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.models import GeneratedImage
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.landing.image_store import StoredImage
    from airflow_provider_nanobanana.polling.result import PollResult
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = LineLogger(__name__)

#: Downloads under way at once; images are decoded one at a time.
_THREADS: Final = 4
#: Seconds between two polls of one image task while a slice goes on.
_BETWEEN_POLLS: Final = 10.0
#: Items polled, landed and saved together.
_ROUND: Final = 40
#: What keeps a paid image from being landed and is not its own fault.
_NOT_THE_IMAGES: Final[errors.Family] = (errors.StorageFailed, *errors.TRANSIENT_ERRORS, *errors.ACCESS_ERRORS)


class ResultCollector:
    """Polls the running items of one process and lands their images."""

    def __init__(self, state: BatchState) -> None:
        self._state = state
        self._polled_at: dict[str, float] = {}
        self._latencies = LatencyEstimator()
        #: Models of which it was said that they bring more files than their rows know.
        self._more_files: set[str] = set()

    def collect_due(self, enough: Callable[[], bool]) -> bool:
        """Poll what may be ready by now and was not polled lately, and say whether all of that was polled.

        :param enough: Asked between two rounds; true leaves the rest for later.
        """
        now = self._state.session.clock()
        return self.collect([item for item in self._state.running() if self._is_due(item, now)], enough)

    def collect_ready(self, enough: Callable[[], bool]) -> bool:
        """Land all that is ready, also what gets ready meanwhile, and say whether nothing that was seen is left.

        :param enough: Asked between two rounds; true leaves the rest for later.
        """
        while True:
            before = self._state.progress()
            if not self.collect_due(enough):
                return False
            if self._state.progress() == before:
                return True

    def collect(self, items: Sequence[BatchItem], enough: Callable[[], bool]) -> bool:
        """Poll items that have an image task; land, or note, what has ended, and say whether all were polled.

        :param enough: Asked between two rounds; true leaves the rest for later.
        """
        for start in range(0, len(items), _ROUND):
            if enough():
                return False
            self._collect_some(items[start : start + _ROUND])
            self._state.save()
        return True

    def collect_missing_extras(self) -> None:
        """Try once more to land images beside others that an earlier slice could not land; polling is free."""
        state = self._state
        items = [item for item in state.items if any(lost.error.retryable for lost in state.entry(item).lost)]
        items = [item for item in items if state.entry(item).status == "landed" and state.image_task_id(item)]
        ids = [state.image_task_id(item) or "" for item in items]
        sent = {image_task_id: item.request.sent_links() for image_task_id, item in zip(ids, items, strict=True)}
        results = poll_once(state.session, ids, sent)
        for item, result in zip(items, results, strict=True):
            entry, shown = state.entry(item), result.image_task.images if result.image_task else ()
            missing = {lost.index for lost in entry.lost}
            images = [image for image in shown if image.index in missing]
            if images and entry.stored:
                found = self._land_further(item, result.id, images, entry.stored.stem)
                state.mark_extras_stored(item, *found)

    def _is_due(self, item: BatchItem, now: float) -> bool:
        if now >= self._state.deadline(item):
            return True
        kind = latency_key(item.request.model, item.request.resolution)
        age = now - (self._state.entry(item).submitted_at or 0.0)
        return age >= self._latencies.first_poll_age(kind) and now >= self._polled_at.get(item.key, 0) + _BETWEEN_POLLS

    def _collect_some(self, items: Sequence[BatchItem]) -> None:
        state = self._state
        ids = {item.key: state.image_task_id(item) or "" for item in items}
        sent = {ids[item.key]: item.request.sent_links() for item in items}
        results = {result.id: result for result in poll_once(state.session, list(sent), sent)}
        refused = [result.error for result in results.values() if result.error and result.access_denied]
        if refused and len(refused) == len(results):
            raise _access_error(refused[0], len(state.running()))
        now = state.session.clock()
        self._polled_at |= dict.fromkeys(ids, now)
        with WorkerPool(_THREADS, thread_name_prefix="collector") as pool:
            list(pool.map(lambda item: self._collect_one(item, results[ids[item.key]], now), items))

    def _collect_one(self, item: BatchItem, result: PollResult, now: float) -> None:
        """Land an item, or note its failure, if it has ended; an error of one item does not stop the others."""
        wait = WaitWindow(self._state.waited_since(item), self._state.deadline(item))
        try:
            with wrap_unexpected_errors(f"{item.label} was not landed", image_task_id=result.id):
                self._conclude(item, result, wait, now)
        except errors.ToApisError as error:
            self._landing_failed(item, error, late=wait.over(now))

    def _conclude(self, item: BatchItem, result: PollResult, wait: WaitWindow, now: float) -> None:
        state = self._state
        image_task = result.image_task
        state.costs.observe(item, result.id, image_task)
        if image_task is not None and image_task.completed_at and image_task.created_at:
            kind = latency_key(item.request.model, item.request.resolution)
            self._latencies.observe(kind, image_task.completed_at - image_task.created_at)
        if image_task is not None and image_task.images:
            self._land(item, image_task, late=wait.over(now))
        elif (result.is_final(wait, now) or wait.over(now)) and (failure := result.failure(wait, now)):
            state.mark_failed(
                FailedItem.from_poll(
                    item,
                    failure,
                    bill=Cost.of(image_task, None) if image_task else None,
                    rebuy_expired=state.policy.rebuys_expired,
                )
            )

    def _land(self, item: BatchItem, image_task: ImageTask, *, late: bool) -> None:
        """Land the image that was asked for, and those that came beside it, whatever becomes of one of them."""
        state, stem = self._state, item.stem(self._state.name_suffix)
        first, *further = sorted(image_task.images, key=lambda image: image.index)
        in_place: list[StoredImage] = []
        try:
            pixels = item.request.expected_pixels()
            stored = self._landed(item, image_task.id, first, stem, pixels=pixels, on_in_place=in_place.append)
            winner = self._winner(item) if in_place else None
        except errors.ToApisError as error:
            self._landing_failed(item, error, late=late)
            _log_further(item, *self._land_further(item, image_task.id, further, stem))
            return
        if winner is not None:
            state.mark_lost_race(item, image_task.id, stored, in_place_of=winner)
            return
        extras, lost = self._land_further(item, image_task.id, further, PurePosixPath(stored.uri).stem)
        self._warn_of_more_files(item, 1 + len(further))
        state.mark_stored(item, stored, extras, lost)

    def _warn_of_more_files(self, item: BatchItem, number: int) -> None:
        """Say once a model that an image task brought more than its row knows: they may have been charged, too."""
        row, model = item.request.row, item.request.model or ""
        if row is not None and number > row.files and model not in self._more_files:
            self._more_files.add(model)
            said = "%s brought %d files, and %s is known to bring at most %d: all are landed; compare its bill."
            log.warning(said, item.label, number, model, row.files)

    def _winner(self, item: BatchItem) -> str | None:
        """Return whose purchase the image is that was in place before ours came, in words; None where it is ours.

        An attempt that was killed after it had landed an image finds its own there.
        """
        state = self._state
        record = state.entry(item).record
        if record is None or state.entry(item).shared:
            return None
        if state.claims is None:
            again = state.attempt.retry or state.attempt.cleared
            return None if again else "of another run or task at the same destination"
        top = state.claims.highest(item.stem(state.name_suffix), item.fingerprint)
        if not isinstance(top, Claim) or top.client_business_id == record.client_business_id:
            return None
        return f"{top.client_business_id} of {top.by}"

    def _landed(
        self,
        item: BatchItem,
        image_task_id: str,
        image: GeneratedImage,
        stem: str,
        *,
        pixels: tuple[int, int] | None = None,
        on_in_place: Callable[[StoredImage], None] | None = None,
    ) -> StoredImage:
        wanted = GeneratedImage(id=image_task_id, index=image.index, url=image.url)
        with wrap_unexpected_errors(f"Image {image.index} was not landed", image_task_id=image_task_id):
            return self._state.downloader.land(
                wanted,
                pixels,
                stem=stem,
                sent=item.request.sent_links(),
                on_in_place=on_in_place,
                judge=lambda stored: self._prompts.judge(stored.sha256, item.request.prompt),
            )

    @cached_property
    def _prompts(self) -> PromptsByBytes:
        """What each picture that came before in this batch was asked for."""
        entries = ((item, self._state.entry(item).stored) for item in self._state.items)
        return PromptsByBytes((file.sha256, item.request.prompt) for item, file in entries if file is not None)

    def _land_further(
        self, item: BatchItem, image_task_id: str, images: Sequence[GeneratedImage], stem: str
    ) -> tuple[list[StoredImage], list[FailedItem]]:
        """Land the images beside the first; return those in place, and those left to :meth:`collect_missing_extras`."""
        extras, lost = [], []
        for image in images:
            try:
                extras.append(self._landed(item, image_task_id, image, f"{stem}.{image.index}"))
            except errors.ToApisError as error:
                failure = FailedItem.from_error(item, _paid(error))
                again = failure.retryable or isinstance(error, _NOT_THE_IMAGES)
                lost.append(replace(failure, retryable=again, index=image.index, extra=True))
        return extras, lost

    def _landing_failed(self, item: BatchItem, error: errors.ToApisError, *, late: bool) -> None:
        """Note what keeps an item from being landed; a transient error ends it only when its time is over."""
        state, paid = self._state, _paid(error)
        if isinstance(error, _NOT_THE_IMAGES) and not late:
            # It is tried again; what is paid waits at the service.
            state.landing_failed(item, paid)
        else:
            state.mark_failed(FailedItem.from_error(item, paid, rebuy_expired=state.policy.rebuys_expired))


def _log_further(item: BatchItem, extras: Sequence[StoredImage], lost: Sequence[FailedItem]) -> None:
    """Name what came beside a first image that is not in place: the ledger knows of none without the first."""
    kept = [str(failure.kept.get("uri")) for failure in lost if failure.kept is not None]
    if uris := [*(image.uri for image in extras), *kept]:
        log.warning("Paid with %s, whose own image is not in place: %s", item.label, ", ".join(uris))


def _paid(error: errors.ToApisError) -> errors.ToApisError:
    return error if error.charged != "no" else error.reworded(error.message, charged="yes")


def _access_error(refusal: errors.ToApisError, running: int) -> errors.ToApisError:
    """Say what a refused key means for what is under way."""
    return refusal.reworded(
        f"{refusal.message} Image tasks under way: {running}; they cannot be polled, go on and stay paid. Fix the "
        "connection and clear the task: nothing is bought twice.",
        charged="yes",
    )
