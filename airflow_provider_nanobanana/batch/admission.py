"""The gate before every purchase of a batch: what account, limit, destination and earlier refusals allow."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal

from airflow_provider_nanobanana.batch.cost_tracker import BudgetExceeded, Unbilled
from airflow_provider_nanobanana.batch.outcome import FailedItem
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState

log = logging.getLogger(__name__)

#: An order's turn has come; it has not come yet; it is left out; no further order is bought.
Admission = Literal["now", "not yet", "never", "end"]

#: So many transient errors in a row are not the order's own: the rest waits for the next stretch.
_MOST_IN_A_ROW: Final = 5


class SubmitDeferred(errors.ToApisError):
    """Nothing is bought within a limit, of cost or of the balance, before it is known what is paid already."""


class AdmissionControl:
    """Lets orders through to be looked for and bought; for the one thread that drives them, but ``check``."""

    def __init__(self, shop: BatchState) -> None:
        self._shop = shop
        self._in_a_row = 0
        self._limited = False
        self._in_doubt: set[str] = set()

    def begin(self, orders: Iterable[BatchItem]) -> None:
        """Take note of the orders that earlier attempts may have bought."""
        if self._shop.budget.max_cost_usd is not None or self._shop.preflight is not None:
            self._in_doubt = {order.key for order in orders if self._shop.needs_lookup(order)}

    @property
    def closed(self) -> bool:
        """Whether nothing more is started in this stretch, not even a look."""
        halt = self._shop.account_error
        refused = halt is not None and not isinstance(halt, errors.InsufficientCredits)
        return refused or self._limited or self._in_a_row >= _MOST_IN_A_ROW

    @property
    def in_doubt(self) -> bool:
        """Whether it is still being found out what earlier attempts have paid, and there is a limit."""
        return bool(self._in_doubt)

    def decide(self, order: BatchItem, *, alone: bool) -> Admission:
        """Say whether an order's turn has come: to be looked for always, to be bought while that is allowed.

        :param alone: Whether no other order is under way.
        """
        shop = self._shop
        if shop.needs_lookup(order):
            return "now"
        if order.request.model in shop.model_errors:
            return "never"
        if shop.account_error is not None or shop.budget_exhausted or shop.storage_blocked:
            return "end"
        if self._in_doubt or not (alone or shop.client_ids_resolve is not None):
            return "not yet"
        return self._pay_for(order)

    def _pay_for(self, order: BatchItem) -> Admission:
        """Count an order's price, if balance and limit let it be bought now."""
        shop = self._shop
        if not shop.funded():
            return "end"
        try:
            shop.costs.reserve(order)
        except BudgetExceeded:
            shop.budget_exhausted = True
            return "end"
        except Unbilled:
            return "not yet"
        return "now"

    def check(self, order: BatchItem) -> None:
        """Make sure right before a POST that it may leave; any thread may ask.

        :raises ToApisError: It may not; nothing was sent.
        """
        shop = self._shop
        if refusal := shop.account_error or shop.model_errors.get(order.request.model):
            raise refusal
        if shop.storage_blocked:
            raise SubmitDeferred("the destination took none of the last images; nothing was sent for it")
        if shop.client_ids_resolve is False and _answer_lost(shop.entry(order).record):
            raise errors.SubmissionUnknown("The service does not resolve client ids: nothing was sent anew.")
        if self._in_doubt - {order.key} or shop.preflight is not None:
            raise SubmitDeferred("it is being found out what earlier attempts have paid; nothing was sent for it")
        try:
            shop.costs.reserve(order)
        except Unbilled as soon:
            raise SubmitDeferred(soon.message) from soon

    def on_known(self, order: BatchItem) -> None:
        """Take note that it is known what an order has cost so far."""
        self._in_doubt.discard(order.key)

    def on_submitted(self, order: BatchItem) -> None:
        """Take note that an order has its image task."""
        self._in_a_row = 0
        self.on_known(order)

    def on_error(self, order: BatchItem, error: errors.ToApisError) -> None:
        """Take note of what an order met instead of an image task."""
        shop = self._shop
        if error.charged == "no":
            shop.costs.release(order)
        of_model = isinstance(error, errors.MODEL_ERRORS) and error.charged == "no"
        if isinstance(error, errors.ACCOUNT_ERRORS) and not of_model:
            shop.last_errors[order.key] = shop.account_error = error
        elif isinstance(error, (*errors.TRANSIENT_ERRORS, errors.SubmissionUnknown)):
            log.warning("Request %s: %s", order.label, error.message)
            shop.last_errors[order.key] = error
            self._in_a_row += 1
            self._limited = self._limited or isinstance(error, errors.SUBMIT_LIMIT_ERRORS)
        else:
            self._in_a_row = 0
            self.on_known(order)
            if of_model:
                shop.model_failed(order, error)
            if isinstance(error, errors.SubmissionUnfindable):
                log.error("Request %s: %s", order.label, error.message)  # whole: it says what to adopt
            cost = shop.costs.cost(order)
            shop.mark_failed(
                FailedItem.from_error(order, error, cost=cost, rebuy_expired=shop.rules.on_expired == "resubmit")
            )


def _answer_lost(record: SubmissionRecord | None) -> bool:
    """Whether a submit left with a client id, and it is not known what became of it."""
    return record is not None and record.state is RecordState.INTENT and record.client_business_id is not None
