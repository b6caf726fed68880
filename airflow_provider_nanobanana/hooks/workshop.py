"""What both sides of a batch share, the buying and the collecting: the orders, the ledger, the money and the rules."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_nanobanana.batch.money import Cost, Spent
from airflow_provider_nanobanana.batch.outcome import EXPIRED, Failed, Landed, Outcome
from airflow_provider_nanobanana.batch.waves import Plan
from airflow_provider_nanobanana.durable.entry import Fault, LandedFile
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity
from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.money import Budget
    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.batch.outcome import OnExpired
    from airflow_provider_nanobanana.durable.attempt import Attempt
    from airflow_provider_nanobanana.durable.decision import Rules
    from airflow_provider_nanobanana.durable.entry import Entry
    from airflow_provider_nanobanana.durable.ledger import Ledger
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.hooks.reference import References
    from airflow_provider_nanobanana.hooks.retrieval import Retrieval
    from airflow_provider_nanobanana.landing import StoredImage
    from airflow_provider_nanobanana.toapis.errors import ToApisError
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)


Stage = Literal["unsent", "running", "landed", "failed"]


@dataclass
class Workshop:
    """The state of one task instance's batch, in one process; the ledger is what other attempts see of it.

    :param scope: dag id, run id, task id, map index.
    :param tag: Sets this run's pictures apart from others of the same names; empty where they may be reused.
    :param timeout: Seconds that one attempt waits for an image, from its own submit or, on a retry, from its start.
    :param halt: What keeps any further order from being submitted, and no retry by itself changes.
    :param trouble: What kept orders from being submitted or landed for now.
    """

    hook: NanoBananaHook
    orders: Sequence[Order]
    ledger: Ledger
    retrieval: Retrieval
    references: References
    budget: Budget
    attempt: Attempt
    rules: Rules
    scope: tuple[str, ...]
    timeout: float
    tag: str = ""
    adopt: Mapping[str, str] = field(default_factory=dict)
    halt: ToApisError | None = None
    trouble: ToApisError | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        known = [(key, entry) for key, entry in self.ledger.items() if entry.cost is not None or entry.sunk]
        self._spent = Spent({key: Cost(entry.cost, entry.listed).plus(Cost(entry.sunk)) for key, entry in known})

    # --- where things stand ----------------------------------------------------------------------------------------

    @property
    def on_expired(self) -> OnExpired:
        """What follows when a paid link has died."""
        return self.rules.on_expired

    def entry(self, order: Order) -> Entry:
        """Return what the ledger knows of an order."""
        return self.ledger.get(order.key)

    def unsent(self) -> list[Order]:
        """Return the orders that this attempt has no image task for yet, in the order of the requests."""
        return [order for order in self.orders if self._stage(order) == "unsent"]

    def running(self) -> list[Order]:
        """Return the orders with an image task that has not landed yet."""
        return [order for order in self.orders if self._stage(order) == "running"]

    def image_task_id(self, order: Order) -> str | None:
        """Return the image task of an order, if it has one."""
        record = self.entry(order).record
        return record.image_task_id if record else None

    def submitted_at(self, order: Order) -> float:
        """Return from when an order is waited for, in epoch seconds."""
        return max(self.entry(order).submitted_at or 0.0, self.attempt.started_at)

    def plan(self) -> Plan:
        """Return how far the batch has come."""
        counts = Counter(self._stage(order) for order in self.orders)
        return Plan(counts["unsent"], counts["running"], counts["landed"], counts["failed"])

    def _stage(self, order: Order) -> Stage:
        entry = self.entry(order)
        if entry.status != "open":
            return "failed" if entry.status == "failed" else "landed"
        # One that is taken up again has an image task, but nothing was submitted for it by this attempt.
        submitted = entry.submitted_at is not None and self.image_task_id(order) is not None
        return "running" if submitted else "unsent"

    def identity(self, order: Order, regeneration: int) -> SubmissionIdentity:
        """Return what makes the submission of an order this one."""
        return SubmissionIdentity(self.scope, order.fingerprint, order.occurrence, regeneration)

    @property
    def regeneration(self) -> int:
        """Rises when the user wants the same requests made anew."""
        return 0 if self.rules.reuse_existing else self.attempt.tries_before_clear

    # --- money -----------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Spent:
        """What the batch has cost so far, earlier attempts included."""
        return self._spent

    def may_buy(self, order: Order) -> bool:
        """Whether an order keeps within ``max_cost_usd``; if so its price counts from now on."""
        with self._lock:
            if self.paid(order):
                return True
            if not self.budget.may_buy(order, self._spent):
                return False
            self._spent.put(order.key, Cost(self.budget.price(order), listed=True).plus(self._sunk(order)))
            return True

    def not_bought(self, order: Order) -> None:
        """Take the price of an order back that was not submitted after all."""
        entry = self.entry(order)
        with self._lock:
            self._spent.put(order.key, Cost(entry.cost or 0.0, entry.listed).plus(self._sunk(order)))

    def paid(self, order: Order) -> bool:
        """Whether an image task of this order that may still bring its image is paid."""
        return bool(self.entry(order).cost)

    def cost(self, order: Order, image_task: ImageTask | None) -> Cost:
        """Return what the image task of an order costs as far as the service tells, and count it."""
        cost = Cost.of(image_task, self.budget.price(order))
        self._count(order.key, cost.plus(self._sunk(order)))
        return cost

    def _sunk(self, order: Order) -> Cost:
        """Return what was paid for image tasks of this order that are lost."""
        return Cost(self.entry(order).sunk)

    def _count(self, key: str, cost: Cost) -> None:
        with self._lock:
            self._spent.put(key, cost)

    # --- what becomes of an order ----------------------------------------------------------------------------------

    def bought(self, order: Order, image_task: ImageTask) -> None:
        """Note the image task of an order."""
        cost = self.cost(order, image_task)
        submitted_at = self.entry(order).submitted_at or image_task.created_at or self.hook.clock()
        self.ledger.update(order.key, submitted_at=submitted_at, cost=cost.usd, listed=cost.listed)

    def landed(self, order: Order, image: StoredImage, cost: Cost, *, reused: bool = False) -> None:
        """Note that the image of an order is in place."""
        record = self.entry(order).record
        file = LandedFile(
            PurePosixPath(image.uri).name, image.sha256, image.bytes, image.format, image.width, image.height
        )
        self.ledger.update(
            order.key,
            record=record.moved(RecordState.DONE) if record else None,
            status="reused" if reused else "landed",
            landed=file,
            cost=cost.usd,
            listed=cost.listed,
            error=None,
        )

    def failed(self, failure: Failed) -> None:
        """Note that an order ended without an image."""
        log.warning("Request %s: %s (%s): %s", failure.order.label, failure.code, failure.money, failure.message)
        self._count(failure.order.key, failure.cost.plus(self._sunk(failure.order)))
        self.ledger.update(
            failure.order.key,
            status="failed",
            error=Fault(failure.code, failure.message, failure.charged, failure.again),
            cost=failure.cost.usd,
            listed=failure.cost.listed,
        )

    def reopen(self, order: Order) -> None:
        """Take an order up again; it goes through the decision anew, which looks before it buys."""
        entry = self.entry(order)
        lost = entry.error is not None and entry.error.code == EXPIRED
        sunk = entry.sunk + (entry.cost or 0.0) if lost else entry.sunk
        cost = None if lost else entry.cost
        self.ledger.update(order.key, status="open", landed=None, error=None, submitted_at=None, cost=cost, sunk=sunk)

    def outcomes(self) -> list[Outcome]:
        """Return how each order ended; those that were never submitted ended with what kept them from it."""
        return [self._outcome(order) for order in self.orders]

    def _outcome(self, order: Order) -> Outcome:
        entry = self.entry(order)
        cost = Cost(entry.cost, entry.listed).plus(self._sunk(order))
        if entry.landed is not None and entry.status in ("landed", "reused"):
            return Landed(order, self._image(order, entry), cost, entry.status == "reused", self._times(entry))
        if entry.error is not None and entry.status == "failed":
            code, message, charged, again = entry.error
            return Failed(order, self.image_task_id(order), code, message, charged, again, cost)
        if self.halt is None and self.trouble is None and self.budget.max_cost_usd is not None:
            return Failed.over_budget(order, self.budget.max_cost_usd)
        kept_from = self.halt or self.trouble or TransientFailure("not submitted by this attempt")
        return Failed.raised(order, kept_from, cost=cost)

    def _image(self, order: Order, entry: Entry) -> dict[str, Any]:
        assert entry.landed is not None
        file = entry.landed
        return {
            "uri": self.retrieval.landing.uri(file.name),
            "id": self.image_task_id(order),
            "index": 0,
            "sha256": file.sha256,
            "bytes": file.bytes,
            "format": file.format,
            "width": file.width,
            "height": file.height,
        }

    @staticmethod
    def _times(entry: Entry) -> dict[str, float | None]:
        return {"submitted_at": entry.submitted_at}
