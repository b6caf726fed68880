"""``BatchState``: where every item of a batch stands; shared by ``BatchSubmitter`` and ``ResultCollector``.

It answers from the ledger in memory and writes to it; :meth:`BatchState.save` lets other attempts see how far this one
has come.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.batch.costs import Cost, Spent, format_usd
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome, StoredItem
from airflow_provider_nanobanana.batch.progress import BatchProgress
from airflow_provider_nanobanana.batch.stop_conditions import Killed, StopConditions
from airflow_provider_nanobanana.durable import taking_up
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, Lost, StoredFile
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity
from airflow_provider_nanobanana.landing.quarantine import suspect_error
from airflow_provider_nanobanana.landing.suspects import in_order, in_words, is_other_size, same_for_other_prompts
from airflow_provider_nanobanana.submission.client_ids import known_to_resolve
from airflow_provider_nanobanana.toapis.errors import (
    Charged,
    InsufficientCredits,
    ToApisError,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED, NOT_READY_CODES, SUSPECT
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS, LINK_MARGIN_SECONDS

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.budget import Budget
    from airflow_provider_nanobanana.batch.cost_tracker import CostTracker
    from airflow_provider_nanobanana.batch.items import BatchItem, SkippedRow
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.checkpoint import CheckpointStore
    from airflow_provider_nanobanana.durable.ledger import Ledger
    from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
    from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
    from airflow_provider_nanobanana.landing.downloader import ImageDownloader
    from airflow_provider_nanobanana.landing.image_store import StoredImage
    from airflow_provider_nanobanana.submission.claims import ClaimFolder
    from airflow_provider_nanobanana.submission.references import ReferenceUploader
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = LineLogger(__name__)

Stage = Literal["pending", "running", "stored", "failed"]

#: Failures told one by one; the table and the manifest tell the rest.
_MOST_FAILURES_LOGGED = 20
#: Seconds from its submit for which an image is waited for that nobody wants any more: most take less than a minute.
_FORMER_SECONDS = 120.0
#: Ids in one line of the log.
_MOST_NAMED = 50


@dataclass
class BatchState:
    """Where every item of one task instance's batch stands, in one process; other attempts see the ledger of it.

    Shared by submitting and collecting: any thread may ask and tell it.

    :param items: What is to be made, in the order of the requests.
    :param scope: dag id, run id, task id, map index.
    :param timeout: Seconds that one attempt waits for an image, from its own submit or, on a retry, from its start.
    :param checkpoints: What is kept of this attempt beside the ledger.
    :param stops: Why no further item is submitted.
    :param former_items: What was asked for before a clear changed the list, as far as it may be paid and is not landed:
        it is landed while its links live, and neither bought nor waited for.
    :param preflight: Compares the balance with what is to be bought; asked once, when that is known for certain. None
        where there is nothing to compare (any more).
    :param name_suffix: Sets this run's images apart from others of the same names; empty where they may be reused.
    :param adopt: Image tasks chosen by a person, by ``client_business_id``.
    :param claims: Where purchases are claimed; None where they are not.
    :param skipped: Rows that no item was made of, for their faults.
    :ivar last_errors: What kept an item from being submitted or landed for now, by its key.
    :ivar looked_up: Keys of items of which this process found out what earlier attempts had bought.
    :ivar never_sent: Keys of former items that turned out not to have been submitted at all.
    """

    session: ToApisSession
    items: Sequence[BatchItem]
    ledger: Ledger
    downloader: ImageDownloader
    references: ReferenceUploader
    budget: Budget
    costs: CostTracker
    attempt: TaskAttempt
    policy: SubmissionPolicy
    scope: tuple[str, ...]
    timeout: float
    checkpoints: CheckpointStore
    stops: StopConditions
    former_items: Sequence[BatchItem] = ()
    preflight: Callable[[], None] | None = None
    name_suffix: str = ""
    adopt: Mapping[str, str] = field(default_factory=dict)
    claims: ClaimFolder | None = None
    skipped: Sequence[SkippedRow] = ()

    def __post_init__(self) -> None:
        self.last_errors: dict[str, ToApisError] = {}
        self.looked_up: set[str] = set()
        self.never_sent: set[str] = set()
        self._to_rebuy: set[str] = set()
        #: Image tasks that are paid and in no metric yet, by item key: they count when their image lands, or is lost.
        self._uncounted: dict[str, str] = {}
        self._former = {item.key for item in self.former_items}
        self._failures_logged = 0
        records = (entry.record for _, entry in self.ledger.items() if entry.shared)
        self._known_shared = {record.image_task_id for record in records if record}

    # --- where things stand ----------------------------------------------------------------------------------------

    def entry(self, item: BatchItem) -> LedgerEntry:
        """Return what the ledger knows of an item."""
        return self.ledger.get(item.key)

    def prepared_references(self) -> dict[str, str]:
        """Return what was done to the reference images that this task instance sent, in words, by URI without query."""
        own = (item for item in (*self.items, *self.former_items) if self._is_sent_here(item))
        sent = {uri.partition("?")[0] for item in own for uri in item.request.reference_images}
        return {uri: done for uri, done in self.references.prepared.items() if uri in sent}

    def _is_sent_here(self, item: BatchItem) -> bool:
        entry = self.entry(item)
        return not entry.shared and (entry.record is not None or entry.status == "landed")

    def pending(self) -> list[BatchItem]:
        """Return the items that this attempt has no image task for yet, in the order of the requests."""
        return [item for item in self.items if self._stage(item) == "pending"]

    def running(self) -> list[BatchItem]:
        """Return the items with an image task that has not landed yet."""
        return [item for item in self.items if self._stage(item) == "running"]

    def untouched(self, item: BatchItem) -> bool:
        """Whether nothing was sent for an item as far as the ledger knows, and nothing is in place."""
        return taking_up.is_untouched(self.entry(item))

    def image_task_id(self, item: BatchItem) -> str | None:
        """Return the image task of an item, if it has one."""
        record = self.entry(item).record
        return record.image_task_id if record else None

    def last_purchase(self) -> float | None:
        """Return when this task instance bought an image task last, in epoch seconds, as the service says; or None."""
        bought = [self.entry(item) for item in self.items if self.image_task_id(item) is not None]
        return max((entry.submitted_at or 0.0 for entry in bought if not entry.shared), default=None)

    def deadline(self, item: BatchItem) -> float:
        """Return until when an item is waited for, in epoch seconds."""
        most = _FORMER_SECONDS if item.key in self._former else math.inf
        return self.waited_since(item) + min(self.timeout, most)

    def waited_since(self, item: BatchItem) -> float:
        """Return from when an item is waited for, in epoch seconds; one that nobody wants any more from its submit."""
        if item.key in self._former:
            entry = self.entry(item)
            return entry.submitted_at or (entry.record.may_have_left_at if entry.record else 0.0)
        return max(self.entry(item).submitted_at or 0.0, self.attempt.started_at)

    def last_progress(self) -> float:
        """Return when something was submitted last, or the attempt began, in epoch seconds."""
        return max(map(self.waited_since, self.items), default=self.attempt.started_at)

    def progress(self) -> BatchProgress:
        """Return how far the batch has come."""
        counts = Counter(self._stage(item) for item in self.items)
        return BatchProgress(counts["pending"], counts["running"], counts["stored"], counts["failed"])

    def _stage(self, item: BatchItem) -> Stage:
        entry = self.entry(item)
        if entry.status != "open":
            return "failed" if entry.status == "failed" else "stored"
        # One that is taken up again has an image task, but nothing was submitted for it by this attempt.
        return "pending" if entry.submitted_at is None or self.image_task_id(item) is None else "running"

    def needs_lookup(self, item: BatchItem) -> bool:
        """Whether an earlier attempt may have bought what is unsent by this one: it is looked up before any POST."""
        complete, claimed = self.ledger.complete, self.claims is not None
        return taking_up.needs_lookup(self.entry(item), self.attempt, complete=complete, claimed=claimed)

    def is_in_doubt(self, item: BatchItem) -> bool:
        """Whether an earlier attempt may have bought what is unsent, and that was not looked up by now."""
        record = self.entry(item).record
        own = record is not None and record.try_number == self.attempt.try_number
        return item.key not in self.looked_up and not own and self.needs_lookup(item)

    def will_be_bought(self, item: BatchItem) -> bool:
        """Whether an unsent item will be bought, as far as anyone can tell."""
        return item.key in self._to_rebuy or not self.needs_lookup(item) or self.will_be_rebought(item)

    def will_be_rebought(self, item: BatchItem) -> bool:
        """Whether what was sent for an item is certainly lost by now, and is bought again without asking."""
        return self._rebuy_when_lost(item) and self._link_age(item) > LINK_LIFETIME_SECONDS + LINK_MARGIN_SECONDS

    def may_be_bought(self, item: BatchItem) -> bool:
        """Whether an item that is looked up first may be bought after all, without anything failing meanwhile."""
        if self.image_task_id(item) is None:
            return True
        return self._rebuy_when_lost(item) and self._link_age(item) > LINK_LIFETIME_SECONDS - LINK_MARGIN_SECONDS

    def _rebuy_when_lost(self, item: BatchItem) -> bool:
        record = self.entry(item).record
        cleared = record is not None and self.attempt.seems_cleared_since(record)
        return record is not None and (cleared or self.policy.rebuys_expired)

    def _link_age(self, item: BatchItem) -> float:
        """Return the seconds since the last moment at which the image task of an item can have been submitted."""
        entry = self.entry(item)
        return self.session.clock() - max(
            entry.record.may_have_left_at if entry.record else 0.0, entry.submitted_at or 0.0
        )

    def can_pay(self) -> bool:
        """Whether the account can pay for what is to be bought, where that was to be asked; if not, nothing is."""
        check = self.preflight
        self.preflight = None
        try:
            if check is not None:
                check()
        except InsufficientCredits as too_little:
            self.stop_buying(too_little)
        return self.stops.account_error is None

    def stop_buying(self, too_little: InsufficientCredits) -> None:
        """Buy nothing in this attempt; what is paid already is landed first, then it fails."""
        log.warning("%s What is paid already is looked up and landed.", too_little.message)
        self.stops.account_error = too_little
        self.checkpoints.update(stop_reason=too_little.message)

    @property
    def client_ids_resolve(self) -> bool | None:
        """Whether what was bought can be found again by its client id; None before the service was asked.

        Once it was seen not to, that stands for the task instance: nobody can tell what was bought by then.
        """
        known = self.checkpoints.current.client_ids_resolve
        seen = known_to_resolve(self.session.settings.base_url)
        if not self.policy.client_ids or known is False or seen is False:
            return False
        return True if known or seen else None

    def identity(self, item: BatchItem, clear_number: int) -> SubmissionIdentity:
        """Return what makes the submission of an item this one."""
        return SubmissionIdentity(self.scope, item.fingerprint, item.key, clear_number)

    @property
    def clear_number(self) -> int:
        """Rises when the user wants the same requests made again."""
        return 0 if self.policy.reuse_existing else self.attempt.tries_before_clear

    # --- what becomes of an item ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Let other attempts see how far this one has come.

        :raises TransientFailure: It is not known to be kept, or another attempt is at work.
        """
        self.ledger.save()
        self.checkpoints.update(client_ids_resolve=self.client_ids_resolve, storage_blocked=self.stops.storage_blocked)

    def mark_submitted(self, item: BatchItem, image_task: ImageTask, *, shared: bool = False) -> None:
        """Note the image task of an item.

        :param shared: Whether somebody else bought it, and pays. What was shared once stays so, whatever is said.
        """
        self.costs.observe(item, image_task.id, image_task, "shared" if shared else "ours")
        self.costs.release(item)
        former = self._uncounted.pop(item.key, image_task.id)
        if former != image_task.id:
            _count_paid(self, item, self.costs.ledger_fields(item, former)["cost"])
        if shared and image_task.id not in self._known_shared:
            self._known_shared.add(image_task.id)
            metrics.count("shared", **_tags(self, item))
        now = self.session.clock()
        # A service whose clock is ahead must not make us wait longer.
        submitted_at = self.entry(item).submitted_at or min(image_task.created_at or now, now)
        self.ledger.update(item.key, submitted_at=submitted_at, **self.costs.ledger_fields(item, image_task.id))

    def mark_reused(
        self, item: BatchItem, image: StoredImage, extras: Sequence[StoredImage] = (), *, paid: Cost | None = None
    ) -> None:
        """Note that the image of an item was in place, and further ones beside it.

        :param paid: What an earlier attempt of this task instance paid for it, of which nothing else is known (before
            Airflow 3.3): it counts as landed by this task instance then.
        """
        self.costs.reuse(item, paid)
        if paid is None:
            metrics.count("reused", **_tags(self, item))
        self._put_in_place(item, image, extras, status="reused" if paid is None else "landed")

    def mark_accepted(self, item: BatchItem, image: StoredImage, *, paid: Cost | None = None) -> None:
        """Note that a suspect picture of an item was in quarantine and is in place now, as it is accepted by now.

        :param paid: As for :meth:`mark_reused`.
        """
        if self.image_task_id(item) is None:
            self.mark_reused(item, image, paid=paid)
        else:
            self._put_in_place(item, image, (), status="landed")

    def mark_quarantined(self, item: BatchItem, picture: StoredImage, *, paid: Cost | None = None) -> None:
        """Note that a suspect picture of an item is in quarantine since an earlier attempt or run.

        :param picture: As it is there.
        :param paid: As for :meth:`mark_reused`.
        """
        ours = self.image_task_id(item) is not None or paid is not None
        if not ours or paid is not None:
            self.costs.reuse(item, paid)
        error = suspect_error(picture.record(), in_words(picture.suspect))
        self.mark_failed(FailedItem.from_error(item, error if ours else error.reworded(error.message, charged="no")))

    def mark_lost_race(
        self,
        item: BatchItem,
        ours: str,
        image: StoredImage,
        extras: Sequence[StoredImage] = (),
        *,
        in_place_of: str,
    ) -> None:
        """Note that the image in place of an item is of another's purchase, though this task instance paid for one too.

        :param ours: The image task that was paid.
        :param image: What is in place, as ``extras`` beside it.
        :param in_place_of: Whose purchase that is, as far as it is known: a client id, or words.
        """
        cost = self.costs.lose_race(item, ours)
        if cost is not None and cost.usd != 0:
            tags = _tags(self, item)
            _count_micros("paid_micro_usd", cost.usd, tags)
            _count_micros("lost_race_micro_usd", cost.usd, tags)
            log.warning(
                "Paid twice: image task %s of %s cost this task %s, and the image in place, %s, is of another "
                "purchase (%s). It is left as it is; the money is counted as lost_race.",
                *(ours, item.label, "an unknown sum" if cost.usd is None else format_usd(cost.usd)),
                *(image.uri, in_place_of),
            )
        self._put_in_place(item, image, extras, status="reused")

    def _put_in_place(
        self, item: BatchItem, image: StoredImage, extras: Sequence[StoredImage], *, status: Literal["reused", "landed"]
    ) -> None:
        """Note an image that this attempt found in place, and further ones beside it."""
        record = self.entry(item).record
        self.last_errors.pop(item.key, None)
        self.ledger.update(
            item.key,
            record=record.with_state(RecordState.DONE) if record and record.image_task_id else record,
            status=status,
            stored=_file(image),
            error=None,
            extras=tuple(map(_file, extras)),
            lost=(),
            **self.costs.ledger_fields(item, self.image_task_id(item)),
        )

    def mark_verified(self, item: BatchItem, image: StoredImage) -> None:
        """Note what is stored under the name of an item's image; a person may have put another image there."""
        landed = self.entry(item).stored
        if landed is not None and landed.sha256 != image.sha256:
            log.warning("%s is another image than was landed there; it is left as it is", image.uri)
            self.ledger.update(item.key, stored=_file(image))

    def mark_stored(
        self, item: BatchItem, image: StoredImage, extras: Sequence[StoredImage] = (), lost: Sequence[FailedItem] = ()
    ) -> None:
        """Note that the image of an item is in place.

        :param extras: Further images of its image task that are in place.
        :param lost: Those that are not.
        """
        record = self.entry(item).record
        self.last_errors.pop(item.key, None)
        self.stops.storage_works()
        self.ledger.update(
            item.key,
            record=record.with_state(RecordState.DONE) if record else None,
            status="landed",
            stored=_file(image),
            error=None,
            extras=tuple(map(_file, extras)),
            lost=tuple(map(_lost, lost)),
            **self.costs.ledger_fields(item, self.image_task_id(item)),
        )
        _count_ended(self, item)
        _count_suspect(self, item, image.suspect)

    def mark_extras_stored(self, item: BatchItem, extras: Sequence[StoredImage], lost: Sequence[FailedItem]) -> None:
        """Note what became of images beside the first one that were not in place before."""
        entry = self.entry(item)
        tried = {image.index for image in extras} | {failure.index for failure in lost}
        self.ledger.update(
            item.key,
            extras=entry.extras + tuple(map(_file, extras)),
            lost=(*(one for one in entry.lost if one.index not in tried), *map(_lost, lost)),
        )

    def landing_failed(self, item: BatchItem, error: ToApisError) -> None:
        """Note that the image of an item is there and could not be landed for now."""
        self.last_errors[item.key] = error
        self.stops.landing_failed(item.key, error)

    def mark_failed(self, failure: FailedItem) -> None:
        """Note that an item ended without an image."""
        failure = replace(failure, shared=self.entry(failure.item).shared)
        if failure.charged != "no" and not failure.shared:
            self.costs.stop_waiting_for_bill(failure.item)
        self._failures_logged += 1
        level = logging.WARNING if self._failures_logged <= _MOST_FAILURES_LOGGED else logging.DEBUG
        label = failure.item.label + (" of the list before the clear" if failure.item.key in self._former else "")
        log.log(level, "%s failed: %s (%s): %s", label, failure.code, failure.charged_text, failure.message)
        self.last_errors.pop(failure.item.key, None)
        self.ledger.update(
            failure.item.key,
            status="failed",
            error=_item_error(failure),
            **self.costs.ledger_fields(failure.item, self.image_task_id(failure.item)),
        )
        _count_ended(self, failure.item)
        if failure.code == SUSPECT.code:
            _count_suspect(self, failure.item, (failure.code,))

    def reopen(self, item: BatchItem, *, rebuy: bool = False) -> None:
        """Open an item that had ended; its submission looks up what was bought before it buys.

        :param rebuy: Whether another image task will have to be bought.
        """
        if rebuy:
            self._to_rebuy.add(item.key)
        entry, image_task_id = self.entry(item), self.image_task_id(item)
        if image_task_id is not None and entry.stored is None and not entry.shared and not _is_counted(entry.error):
            self._uncounted[item.key] = image_task_id
        self.ledger.update(item.key, status="open", stored=None, error=None, submitted_at=None)

    def kill(self) -> list[str]:
        """Let nothing more be bought, and return the ids of the image tasks that go on and stay paid; never waits."""
        self.stops.killed = Killed("Airflow ends this attempt; nothing was sent for this request.", charged="no")
        return [image_task_id for item in self.running() if (image_task_id := self.image_task_id(item))]

    def outcomes(self, items: Iterable[BatchItem] | None = None) -> list[Outcome]:
        """Return how each item ended; those that were never submitted ended with what kept them from it.

        :param items: Some of them; None for all.
        """
        wanted = self.items if items is None else items
        return _with_same_bytes([outcome for item in wanted for outcome in _outcomes_of(self, item)])


def name_ids(ids: Iterable[str]) -> str:
    """Return ids in words, the first 50 of them."""
    every = list(ids)
    more = f" and {len(every) - _MOST_NAMED:,} more" if len(every) > _MOST_NAMED else ""
    return f"{', '.join(every[:_MOST_NAMED])}{more}"


def _file(image: StoredImage) -> StoredFile:
    name = PurePosixPath(image.uri).name
    return StoredFile(
        name, image.sha256, image.bytes, image.format, image.width, image.height, image.index, image.suspect
    )


def _item_error(failure: FailedItem) -> ItemError:
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
    return Lost(failure.index, _item_error(failure))


def _outcomes_of(state: BatchState, item: BatchItem) -> list[Outcome]:
    """Return how an item ended, and behind it each further image of its image task.

    One that has not ended did so with what holds it up.
    """
    entry, spent = state.entry(item), state.costs.spent(item)
    if entry.stored is not None and entry.status in ("landed", "reused"):
        first = StoredItem(
            item,
            _image(state, item, entry.stored),
            spent,
            reused=entry.status == "reused",
            shared=entry.shared and entry.status == "landed",
            times={"submitted_at": entry.submitted_at},
        )
        extras = (replace(first, image=_image(state, item, file), spent=Spent(), extra=True) for file in entry.extras)
        return [first, *extras, *(_failed(state, item, lost.error, Spent(), lost.index) for lost in entry.lost)]
    if entry.error is not None and entry.status == "failed":
        return [_failed(state, item, entry.error, spent)]
    return [_held_up(state, item, spent)]


def _image(state: BatchState, item: BatchItem, file: StoredFile) -> dict[str, Any]:
    return {
        "uri": state.downloader.store.uri(file.name),
        "id": state.entry(item).picture_id,
        "index": file.index,
        "sha256": file.sha256,
        "bytes": file.bytes,
        "format": file.format,
        "width": file.width,
        "height": file.height,
        "suspect": list(in_order((*file.suspect, *(("other_size",) if _has_other_size(item, file) else ())))),
    }


def _has_other_size(item: BatchItem, file: StoredFile) -> bool:
    """Whether a picture has other pixels than were asked for; of further images nothing was asked for."""
    return file.index == 0 and is_other_size(file.width, file.height, item.request.expected_pixels())


def _with_same_bytes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return how the items ended, where pictures that are the same for different prompts are marked so."""
    shared = same_for_other_prompts((_sha256(outcome), outcome.item.request.prompt) for outcome in outcomes)
    return [
        replace(outcome, image={**outcome.image, "suspect": list(in_order((*outcome.image["suspect"], "same_bytes")))})
        if isinstance(outcome, StoredItem) and _sha256(outcome) in shared
        else outcome
        for outcome in outcomes
    ]


def _sha256(outcome: Outcome) -> str | None:
    """Return the hash of the bytes that an item has brought, in place or kept apart."""
    return (outcome.image if isinstance(outcome, StoredItem) else outcome.kept or {}).get("sha256")


def _failed(state: BatchState, item: BatchItem, error: ItemError, spent: Spent, index: int = 0) -> FailedItem:
    """Return the failure that an error of the ledger stands for.

    :param index: Not 0 for an image beside the one that was asked for.
    """
    return FailedItem(
        item,
        state.image_task_id(item),
        error.code,
        error.message,
        error.charged,
        error.retryable,
        spent,
        shared=state.entry(item).shared,
        billed=(state.entry(item).cost or 0.0) if error.billed else 0.0,
        kept=error.kept,
        answer=error.answer,
        index=index,
        extra=index > 0,
    )


def _held_up(state: BatchState, item: BatchItem, spent: Spent) -> FailedItem:
    """Return the outcome of an item that is neither landed nor failed."""
    error, stops = state.last_errors.get(item.key), state.stops
    error = error or stops.model_errors.get(item.request.model)
    limit = state.budget.max_cost_usd
    money: dict[str, Any] = {
        "charged": _charged(state, item),
        "spent": spent,
        "shared": state.entry(item).shared,
    }
    if error is None and stops.account_error is None and stops.budget_exhausted and limit is not None:
        return replace(FailedItem.over_budget(item, limit), id=state.image_task_id(item), **money)
    why = error or stops.account_error or _error_of_others(state)
    own = error.image_task_id if error else None
    return replace(FailedItem.from_error(item, why), id=state.image_task_id(item) or own, **money)


def _error_of_others(state: BatchState) -> ToApisError:
    """Return what kept an attempt from an item that met nothing itself."""
    met = next(iter(state.last_errors.values()), None)
    if met is None:
        return TransientFailure("not submitted by this attempt")
    cause = "the destination took no image" if state.stops.storage_blocked else "others met"
    return met.reworded(f"not submitted by this attempt: {cause}: {met.message}")


def _charged(state: BatchState, item: BatchItem) -> Charged:
    if state.image_task_id(item) is not None:
        return "yes"
    record = state.entry(item).record
    sent = record is not None and record.state is RecordState.INTENT
    return "unknown" if sent or state.needs_lookup(item) else "no"


def _count_ended(state: BatchState, item: BatchItem) -> None:
    """Count an item that has just ended; what merely takes longer is counted again when it lands."""
    entry, tags = state.entry(item), _tags(state, item)
    if entry.error is None:
        metrics.count("completed", **tags)
    elif entry.error.code in NOT_READY_CODES:
        metrics.count("timed_out", **tags)
        return
    else:
        metrics.count("failed", **tags, code=metrics.code_tag(entry.error.code))
        if not _is_counted(entry.error):
            return
    if entry.shared:
        _count_micros("cost_micro_usd", entry.cost, tags)
    else:
        _count_paid(state, item, entry.cost)


def _is_counted(error: ItemError | None) -> bool:
    """Whether what an item has cost is counted when it ends so; None stands for one that has not ended."""
    if error is None or error.code in NOT_READY_CODES:
        return False
    return not error.retryable or error.code == EXPIRED.code


def _count_paid(state: BatchState, item: BatchItem, usd: float | None) -> None:
    """Count what this task instance has paid for an image of an item."""
    tags = _tags(state, item)
    _count_micros("cost_micro_usd", usd, tags)
    _count_micros("paid_micro_usd", usd, tags)


def _count_suspect(state: BatchState, item: BatchItem, codes: Iterable[str]) -> None:
    """Count a suspect picture, once for each code."""
    for code in codes:
        metrics.count("suspect", **_tags(state, item), code=code)


def _count_micros(name: metrics.Counter, usd: float | None, tags: Mapping[str, Any]) -> None:
    if amount := metrics.micro_usd(usd):
        metrics.count(name, amount, **tags)


def _tags(state: BatchState, item: BatchItem) -> dict[str, Any]:
    return {"conn_id": state.session.conn_id, "model": item.request.model}
