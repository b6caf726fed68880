"""What both sides of a batch share, the buying and the collecting: the orders, the ledger, the money and the rules."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome, StoredItem
from airflow_provider_nanobanana.batch.progress import BatchProgress
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, Lost, StoredFile
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity
from airflow_provider_nanobanana.submission.client_ids import known_supported, known_unsupported
from airflow_provider_nanobanana.toapis.errors import (
    Charged,
    InsufficientCredits,
    StorageFailed,
    ToApisError,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED, NOT_READY_CODES
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS, LINK_MARGIN_SECONDS

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.cost_tracker import CostTracker
    from airflow_provider_nanobanana.batch.costs import Budget
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.checkpoint import CheckpointStore
    from airflow_provider_nanobanana.durable.ledger import Ledger
    from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
    from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
    from airflow_provider_nanobanana.landing import StoredImage
    from airflow_provider_nanobanana.landing.downloader import ImageDownloader
    from airflow_provider_nanobanana.submission.references import ReferenceUploader
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = logging.getLogger(__name__)

Stage = Literal["unsent", "running", "landed", "failed"]

#: Failures told one by one; the table and the manifest tell the rest.
_MOST_TOLD = 20
#: So many images in a row that the destination does not take, and no more are bought.
_UNSTORED = 8
#: Seconds from its submit for which an image is waited for that nobody wants any more: most take less than a minute.
_FORMER_SECONDS = 120.0
#: Ids in one line of the log.
_MOST_NAMED = 50


class Killed(TransientFailure):
    """Airflow ends this attempt: nothing more is bought."""


@dataclass
class BatchState:
    """The state of one task instance's batch, in one process; the ledger is what other attempts see of it.

    :param scope: dag id, run id, task id, map index.
    :param tag: Sets this run's pictures apart from others of the same names; empty where they may be reused.
    :param timeout: Seconds that one attempt waits for an image, from its own submit or, on a retry, from its start.
    :param notebook: What is kept of this attempt beside the ledger.
    :param former: What was asked for before a clear changed the list, as far as it may be paid and is not landed: it is
        landed while its links live, and neither bought nor waited for.
    :param preflight: Compares the balance with what is to be bought; asked once, when that is known for certain. None
        where there is nothing to compare (any more).
    :ivar halt: What keeps any further order from being submitted, and no retry by itself changes.
    :ivar refusals: Why orders with a model are not submitted, by the model.
    :ivar broke: Whether the next order would pass ``max_cost_usd``.
    :ivar blocked: Whether the destination took none of the last images: then nothing more is bought.
    :ivar troubles: What kept an order from being submitted or landed for now, by its key.
    :ivar never_sent: Keys of former orders that turned out not to have been submitted at all.
    """

    session: ToApisSession
    items: Sequence[BatchItem]
    ledger: Ledger
    downloader: ImageDownloader
    references: ReferenceUploader
    budget: Budget
    costs: CostTracker
    attempt: TaskAttempt
    rules: SubmissionPolicy
    scope: tuple[str, ...]
    timeout: float
    checkpoints: CheckpointStore
    former_items: Sequence[BatchItem] = ()
    preflight: Callable[[], None] | None = None
    name_suffix: str = ""
    adopt: Mapping[str, str] = field(default_factory=dict)
    account_error: ToApisError | None = None
    model_errors: dict[str | None, ToApisError] = field(default_factory=dict)
    budget_exhausted: bool = False
    last_errors: dict[str, ToApisError] = field(default_factory=dict)
    never_sent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._anew: set[str] = set()
        self._former = {order.key for order in self.former_items}
        self._told = 0
        self._unstored: set[str] = set()
        self.storage_blocked = self.checkpoints.current.storage_blocked

    # --- where things stand ----------------------------------------------------------------------------------------

    def entry(self, order: BatchItem) -> LedgerEntry:
        """Return what the ledger knows of an order."""
        return self.ledger.get(order.key)

    def pending(self) -> list[BatchItem]:
        """Return the orders that this attempt has no image task for yet, in the order of the requests."""
        return [order for order in self.items if self._stage(order) == "unsent"]

    def running(self) -> list[BatchItem]:
        """Return the orders with an image task that has not landed yet."""
        return [order for order in self.items if self._stage(order) == "running"]

    def untouched(self, order: BatchItem) -> bool:
        """Whether nothing was sent for an order as far as the ledger knows, and nothing is in place."""
        entry = self.entry(order)
        unsent = entry.record is None or entry.record.state is RecordState.QUEUED
        return unsent and entry.status == "open"

    def image_task_id(self, order: BatchItem) -> str | None:
        """Return the image task of an order, if it has one."""
        record = self.entry(order).record
        return record.image_task_id if record else None

    def deadline(self, order: BatchItem) -> float:
        """Return until when an order is waited for, in epoch seconds."""
        most = _FORMER_SECONDS if order.key in self._former else math.inf
        return self.waited_since(order) + min(self.timeout, most)

    def waited_since(self, order: BatchItem) -> float:
        """Return from when an order is waited for, in epoch seconds; one that nobody wants any more from its submit."""
        if order.key in self._former:
            entry = self.entry(order)
            return entry.submitted_at or (entry.record.may_have_left_at if entry.record else 0.0)
        return max(self.entry(order).submitted_at or 0.0, self.attempt.started_at)

    def last_progress(self) -> float:
        """Return when something was submitted last, or the attempt began, in epoch seconds."""
        return max(map(self.waited_since, self.items), default=self.attempt.started_at)

    def progress(self) -> BatchProgress:
        """Return how far the batch has come."""
        counts = Counter(self._stage(order) for order in self.items)
        return BatchProgress(counts["unsent"], counts["running"], counts["landed"], counts["failed"])

    def _stage(self, order: BatchItem) -> Stage:
        entry = self.entry(order)
        if entry.status != "open":
            return "failed" if entry.status == "failed" else "landed"
        # One that is taken up again has an image task, but nothing was submitted for it by this attempt.
        return "unsent" if entry.submitted_at is None or self.image_task_id(order) is None else "running"

    def needs_lookup(self, order: BatchItem) -> bool:
        """Whether an earlier attempt may have bought what is unsent by this one: it is looked for before any POST."""
        record = self.entry(order).record
        if record is None:
            return not self.ledger.complete and (self.attempt.retry or self.attempt.cleared)
        return record.state is not RecordState.QUEUED

    def to_buy(self, order: BatchItem) -> bool:
        """Whether an unsent order will be bought, as far as anyone can tell."""
        return order.key in self._anew or not self.needs_lookup(order) or self.bought_again(order)

    def bought_again(self, order: BatchItem) -> bool:
        """Whether what was sent for an order is certainly lost by now, and is bought anew without asking."""
        return self._anew_when_lost(order) and self._link_age(order) > LINK_LIFETIME_SECONDS + LINK_MARGIN_SECONDS

    def perhaps_to_buy(self, order: BatchItem) -> bool:
        """Whether an order that is looked for first may be bought after all, without anything failing meanwhile."""
        if self.image_task_id(order) is None:
            return True
        return self._anew_when_lost(order) and self._link_age(order) > LINK_LIFETIME_SECONDS - LINK_MARGIN_SECONDS

    def _anew_when_lost(self, order: BatchItem) -> bool:
        record = self.entry(order).record
        cleared = record is not None and self.attempt.seems_cleared_since(record)
        return record is not None and (cleared or self.rules.on_expired == "resubmit")

    def _link_age(self, order: BatchItem) -> float:
        """Return the seconds since the last moment at which the image task of an order can have been submitted."""
        entry = self.entry(order)
        return self.session.clock() - max(
            entry.record.may_have_left_at if entry.record else 0.0, entry.submitted_at or 0.0
        )

    def funded(self) -> bool:
        """Whether the account can pay for what is to be bought, where that was to be asked; if not, nothing is."""
        ask, self.preflight = self.preflight, None
        try:
            if ask is not None:
                ask()
        except InsufficientCredits as poor:
            self.stop_buying(poor)
        return self.account_error is None

    def stop_buying(self, poor: InsufficientCredits) -> None:
        """Buy nothing in this attempt; what is paid already is landed first, then it fails."""
        log.warning("%s What is paid already is looked for and landed.", poor.message)
        self.account_error = poor
        self.checkpoints.update(stop_reason=poor.message)

    @property
    def client_ids_resolve(self) -> bool | None:
        """Whether what was bought can be found again by its client id; None before the service was asked.

        Once it was seen not to, that stands for the task instance: nobody can tell what was bought by then.
        """
        base_url, known = self.session.settings.base_url, self.checkpoints.current.client_ids_resolve
        if not self.rules.client_ids or known is False or known_unsupported(base_url):
            return False
        return True if known or known_supported(base_url) else None

    def unblock(self) -> None:
        """Forget that: no image is left that the destination did not take."""
        self._unstored, self.storage_blocked = set(), False

    def identity(self, order: BatchItem, regeneration: int) -> SubmissionIdentity:
        """Return what makes the submission of an order this one."""
        return SubmissionIdentity(self.scope, order.fingerprint, order.occurrence, regeneration)

    @property
    def regeneration(self) -> int:
        """Rises when the user wants the same requests made anew."""
        return 0 if self.rules.reuse_existing else self.attempt.tries_before_clear

    # --- what becomes of an order ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Let other attempts see how far this one has come.

        :raises TransientFailure: It is not known to be kept, or another attempt is at work.
        """
        self.ledger.save()
        self.checkpoints.update(client_ids_resolve=self.client_ids_resolve, storage_blocked=self.storage_blocked)

    def mark_submitted(self, order: BatchItem, image_task: ImageTask) -> None:
        """Note the image task of an order."""
        self.costs.observe(order, image_task.id, image_task)
        self.costs.release(order)
        now = self.session.clock()
        # A service whose clock is ahead must not make us wait longer.
        submitted_at = self.entry(order).submitted_at or min(image_task.created_at or now, now)
        self.ledger.update(order.key, submitted_at=submitted_at, **self.costs.ledger_fields(order, image_task.id))

    def mark_reused(self, order: BatchItem, image: StoredImage, extras: Sequence[StoredImage] = ()) -> None:
        """Note that an earlier run landed the image of an order, and further ones beside it."""
        self.ledger.update(
            order.key,
            status="reused",
            stored=_file(image),
            cost=0.0,
            is_list_price=False,
            error=None,
            extras=tuple(map(_file, extras)),
            lost=(),
        )

    def verified(self, order: BatchItem, image: StoredImage) -> None:
        """Note what lies under the name of an order's image; a person may have put another image there."""
        landed = self.entry(order).stored
        if landed is not None and landed.sha256 != image.sha256:
            log.warning("%s is another image than was landed there; it is left as it is", image.uri)
            self.ledger.update(order.key, stored=_file(image))

    def mark_stored(
        self, order: BatchItem, image: StoredImage, extras: Sequence[StoredImage] = (), lost: Sequence[FailedItem] = ()
    ) -> None:
        """Note that the image of an order is in place.

        :param extras: Further images of its image task that are in place.
        :param lost: Those that are not.
        """
        record = self.entry(order).record
        self.last_errors.pop(order.key, None)
        self.unblock()
        self.ledger.update(
            order.key,
            record=record.with_state(RecordState.DONE) if record else None,
            status="landed",
            stored=_file(image),
            error=None,
            extras=tuple(map(_file, extras)),
            lost=tuple(map(_lost, lost)),
            **self.costs.ledger_fields(order, self.image_task_id(order)),
        )
        count_ended(self, order)

    def landed_further(self, order: BatchItem, extras: Sequence[StoredImage], lost: Sequence[FailedItem]) -> None:
        """Note what became of images beside the first one that were not in place before."""
        entry = self.entry(order)
        tried = {image.index for image in extras} | {failure.index for failure in lost}
        self.ledger.update(
            order.key,
            extras=entry.extras + tuple(map(_file, extras)),
            lost=(*(one for one in entry.lost if one.index not in tried), *map(_lost, lost)),
        )

    def storage_failed(self, order: BatchItem, trouble: ToApisError) -> None:
        """Note that the image of an order is there and could not be landed for now."""
        self.last_errors[order.key] = trouble
        if isinstance(trouble, StorageFailed):
            self._unstored.add(order.key)
            self.storage_blocked = self.storage_blocked or len(self._unstored) >= _UNSTORED

    def model_failed(self, order: BatchItem, refusal: ToApisError) -> None:
        """Note that no order with the model of this one would be accepted."""
        words = f"Not sent, as another request with model {order.request.model} was refused: {refusal.message}"
        self.model_errors.setdefault(order.request.model, refusal.reworded(words))

    def mark_failed(self, failure: FailedItem) -> None:
        """Note that an order ended without an image."""
        if failure.charged != "no":
            self.costs.gave_up(failure.item)
        self._told += 1
        level = logging.WARNING if self._told <= _MOST_TOLD else logging.DEBUG
        label = failure.item.label + (" of the list before the clear" if failure.item.key in self._former else "")
        log.log(level, "Request %s: %s (%s): %s", label, failure.code, failure.charged_text, failure.message)
        self.last_errors.pop(failure.item.key, None)
        self.ledger.update(
            failure.item.key,
            status="failed",
            error=_fault(failure),
            **self.costs.ledger_fields(failure.item, self.image_task_id(failure.item)),
        )
        count_ended(self, failure.item)

    def reopen(self, order: BatchItem, *, anew: bool = False) -> None:
        """Take an order up again; it goes through the decision anew, which looks before it buys.

        :param anew: Whether another image task will have to be bought.
        """
        if anew:
            self._anew.add(order.key)
        self.ledger.update(order.key, status="open", stored=None, error=None, submitted_at=None)

    def kill(self) -> list[str]:
        """Let nothing more be bought, and return the ids of the image tasks that go on and stay paid; never waits."""
        self.account_error = Killed("Airflow ends this attempt; nothing was sent for this request.", charged="no")
        return [image_task_id for order in self.running() if (image_task_id := self.image_task_id(order))]

    def outcomes(self) -> list[Outcome]:
        """Return how each order ended; those that were never submitted ended with what kept them from it."""
        return [outcome for order in self.items for outcome in outcomes_of(self, order)]


def name_ids(ids: Iterable[str]) -> str:
    """Return ids in words, the first 50 of them."""
    every = list(ids)
    more = f" and {len(every) - _MOST_NAMED:,} more" if len(every) > _MOST_NAMED else ""
    return f"{', '.join(every[:_MOST_NAMED])}{more}"


def _file(image: StoredImage) -> StoredFile:
    name = PurePosixPath(image.uri).name
    return StoredFile(name, image.sha256, image.bytes, image.format, image.width, image.height, image.index)


def _fault(failure: FailedItem) -> ItemError:
    return ItemError(
        failure.code,
        failure.message,
        failure.charged,
        failure.retryable,
        failure.billed > 0,
        failure.kept,
        failure.answer,
    )


def _lost(failure: FailedItem) -> Lost:
    return Lost(failure.index, _fault(failure))


def outcomes_of(shop: BatchState, order: BatchItem) -> list[Outcome]:
    """Return how an order ended, and behind it each further image of its image task.

    One that has not ended did so with what holds it up.
    """
    entry, cost = shop.entry(order), shop.costs.cost(order)
    if entry.stored is not None and entry.status in ("landed", "reused"):
        times, reused = {"submitted_at": entry.submitted_at}, entry.status == "reused"
        landed = [
            StoredItem(order, _image(shop, order, entry.stored), cost, reused, times),
            *(StoredItem(order, _image(shop, order, file), Cost(), reused, times, extra=True) for file in entry.extras),
        ]
        return [*landed, *(_failed(shop, order, lost.fault, Cost(), lost.index) for lost in entry.lost)]
    if entry.error is not None and entry.status == "failed":
        return [_failed(shop, order, entry.error, cost)]
    return [_held_up(shop, order, cost)]


def _image(shop: BatchState, order: BatchItem, file: StoredFile) -> dict[str, Any]:
    return {
        "uri": shop.downloader.landing.uri(file.name),
        "id": shop.image_task_id(order),
        "index": file.index,
        "sha256": file.sha256,
        "bytes": file.bytes,
        "format": file.format,
        "width": file.width,
        "height": file.height,
    }


def _failed(shop: BatchState, order: BatchItem, fault: ItemError, cost: Cost, index: int = 0) -> FailedItem:
    """Return the failure that a fault of the ledger stands for.

    :param index: Not 0 for an image beside the one that was asked for.
    """
    return FailedItem(
        order,
        shop.image_task_id(order),
        fault.code,
        fault.message,
        fault.charged,
        fault.retryable,
        cost,
        billed=(shop.entry(order).cost or 0.0) if fault.billed else 0.0,
        kept=fault.kept,
        answer=fault.answer,
        index=index,
        extra=index > 0,
    )


def _held_up(shop: BatchState, order: BatchItem, cost: Cost) -> FailedItem:
    """Return the outcome of an order that is neither landed nor failed."""
    trouble = shop.last_errors.get(order.key) or shop.model_errors.get(order.request.model)
    image_task_id, charged = shop.image_task_id(order), _charged(shop, order)
    if (
        trouble is None
        and shop.account_error is None
        and shop.budget_exhausted
        and shop.budget.max_cost_usd is not None
    ):
        failure = FailedItem.over_budget(order, shop.budget.max_cost_usd)
        return replace(failure, id=image_task_id, charged=charged, cost=cost)
    why = trouble or shop.account_error or _others(shop)
    own = trouble.image_task_id if trouble else None
    return replace(FailedItem.from_error(order, why, cost=cost), id=image_task_id or own, charged=charged)


def _others(shop: BatchState) -> ToApisError:
    """Return what kept an attempt from an order that met nothing itself."""
    met = next(iter(shop.last_errors.values()), None)
    if met is None:
        return TransientFailure("not submitted by this attempt")
    cause = "the destination took no image" if shop.storage_blocked else "others met"
    return met.reworded(f"not submitted by this attempt: {cause}: {met.message}")


def _charged(shop: BatchState, order: BatchItem) -> Charged:
    if shop.image_task_id(order) is not None:
        return "yes"
    record = shop.entry(order).record
    # An intent on the shelf that was never used is no submit: what counts is what this attempt knows.
    sent = record is not None and record.state is RecordState.INTENT
    return "unknown" if sent or shop.needs_lookup(order) else "no"


def count_ended(shop: BatchState, order: BatchItem) -> None:
    """Count an order that has just ended; what merely takes longer is counted again when it lands."""
    entry = shop.entry(order)
    tags: dict[str, Any] = {"conn_id": shop.session.conn_id, "model": order.request.model}
    if entry.error is None:
        metrics.count("completed", **tags)
    elif entry.error.code in NOT_READY_CODES:
        metrics.count("timed_out", **tags)
        return
    else:
        metrics.count("failed", **tags, code=metrics.code_tag(entry.error.code))
        if entry.error.retryable and entry.error.code != EXPIRED.code:
            return
    if micros := metrics.micro_usd(entry.cost):
        metrics.count("cost_micro_usd", micros, **tags)
