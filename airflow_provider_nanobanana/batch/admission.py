"""``AdmissionControl``: whether an item may be submitted now, going by account, limits, destination and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from airflow_provider_nanobanana.batch.cost_tracker import BudgetExceeded, Unbilled
from airflow_provider_nanobanana.batch.outcome import FailedItem
from airflow_provider_nanobanana.durable.claims import ClaimHeld
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState

log = LineLogger(__name__)

#: Submit the item; ask again later; leave the item out; submit no further item.
Admission = Literal["submit", "wait", "skip", "stop"]

#: So many transient errors in a row are not the items' own: the rest waits for the next slice.
_MOST_IN_A_ROW: Final = 5


class AdmissionControl:
    """Decides which items of one slice are submitted; for the one thread that drives the slice."""

    def __init__(self, state: BatchState) -> None:
        self._state = state
        self._stops = state.stops
        self._errors_in_a_row = 0
        self._limited = False

    @property
    def closed(self) -> bool:
        """Whether nothing more is started in this slice, not even a look-up."""
        return self._stops.stops_lookups or self._limited or self._errors_in_a_row >= _MOST_IN_A_ROW

    def decide(self, item: BatchItem) -> Admission:
        """Say whether an item may be submitted now; if so, its price counts from now on."""
        if item.request.model in self._stops.model_errors:
            return "skip"
        if self._stops.stops_all or not self._state.can_pay():
            return "stop"
        try:
            self._state.costs.reserve(item)
        except BudgetExceeded:
            self._stops.budget_exhausted = True
            return "stop"
        except Unbilled:
            return "wait"
        return "submit"

    def stopped(self, item: BatchItem) -> bool:
        """Whether an item that was admitted before must not be submitted any more."""
        return self._stops.error_for(item.request.model) is not None or self._stops.storage_blocked

    def on_found(self) -> None:
        """Take note that an item has its image task."""
        self._errors_in_a_row = 0

    def on_error(self, item: BatchItem, error: errors.ToApisError) -> bool:
        """Take note of what an item met instead of an image task, and say whether the item has ended with that."""
        state = self._state
        if error.charged == "no":
            state.costs.release(item)
        if isinstance(error, ClaimHeld):
            # Others are bought meanwhile; within a limit not before it is known what this task instance paid itself.
            state.last_errors[item.key] = error
            return error.charged == "no"
        if type(error) is type(self._stops.account_error):
            # Met by others before, and mostly raised instead of a POST: it says nothing of this item.
            state.last_errors[item.key] = error
            return False
        of_model = isinstance(error, errors.MODEL_ERRORS) and error.charged == "no"
        if isinstance(error, errors.ACCOUNT_ERRORS) and not of_model:
            state.last_errors[item.key] = self._stops.account_error = error
            return False
        if isinstance(error, (*errors.TRANSIENT_ERRORS, errors.SubmissionUnknown)):
            log.warning("%s: %s", item.label, error.message)
            state.last_errors[item.key] = error
            self._errors_in_a_row += 1
            self._limited = self._limited or isinstance(error, errors.SUBMIT_LIMIT_ERRORS)
            return False
        self._errors_in_a_row = 0
        if of_model:
            self._stops.model_failed(item.request.model, error)
        if isinstance(error, errors.SubmissionUnfindable):
            log.error("%s: %s", item.label, error.message)  # whole: it says what to adopt
        state.mark_failed(FailedItem.from_error(item, error, rebuy_expired=state.policy.rebuys_expired))
        return True
