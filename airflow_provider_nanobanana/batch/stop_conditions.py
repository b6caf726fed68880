"""``StopConditions``: why no further item of a batch is submitted."""

from __future__ import annotations

from typing import Final

from airflow_provider_nanobanana.toapis.errors import InsufficientCredits, StorageFailed, ToApisError, TransientFailure

#: So many images in a row that the destination does not take, and nothing more is bought.
_MOST_UNSTORED: Final = 8


class Killed(TransientFailure):
    """Airflow ends this attempt: nothing more is bought."""


class StopConditions:
    """What was met that keeps further items from being submitted; any thread may ask.

    :ivar killed: That Airflow ends the attempt, if it does.
    :ivar model_errors: What any other submit with a model would meet, by the model.
    :ivar budget_exhausted: Whether the next item would pass ``max_cost_usd``.
    :ivar storage_blocked: Whether the destination took none of the last images.
    """

    def __init__(self, account_error: ToApisError | None = None, *, storage_blocked: bool = False) -> None:
        self.killed: Killed | None = None
        self._account_error = account_error
        self.model_errors: dict[str | None, ToApisError] = {}
        self.budget_exhausted = False
        self.storage_blocked = storage_blocked
        self._unstored: set[str] = set()

    @property
    def stops_all(self) -> bool:
        """Whether no item at all is submitted."""
        return self.account_error is not None or self.budget_exhausted or self.storage_blocked

    @property
    def account_error(self) -> ToApisError | None:
        """What any other submit of the account would meet; that Airflow ends the attempt before all else."""
        return self.killed or self._account_error

    @account_error.setter
    def account_error(self, error: ToApisError) -> None:
        self._account_error = error

    @property
    def stops_lookups(self) -> bool:
        """Whether look-ups would meet the same; those of an account without credits are free and go on."""
        return self.account_error is not None and not isinstance(self.account_error, InsufficientCredits)

    def error_for(self, model: str | None) -> ToApisError | None:
        """Return what a submit with a model would meet, or None."""
        return self.account_error or self.model_errors.get(model)

    def model_failed(self, model: str | None, error: ToApisError) -> None:
        """Stop the submits with a model."""
        words = f"Not sent, as another request with model {model} was refused: {error.message}"
        self.model_errors.setdefault(model, error.reworded(words))

    def landing_failed(self, key: str, error: ToApisError) -> None:
        """Count the item of a key among those whose image the destination did not take, if that is why."""
        if isinstance(error, StorageFailed):
            self._unstored.add(key)
            self.storage_blocked = self.storage_blocked or len(self._unstored) >= _MOST_UNSTORED

    def storage_works(self) -> None:
        """Go on buying: the destination took an image, or none is left that it did not take."""
        self._unstored = set()
        self.storage_blocked = False
