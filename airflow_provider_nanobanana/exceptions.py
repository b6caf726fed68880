"""NanoBananaException and its kin: the service's errors as Airflow's, which Airflow retries or not by ``retryable``.

Hooks, operators, sensors and what opens a poller raise these; everything else below them raises :class:`ToApisError`.
"""

from __future__ import annotations

from types import TracebackType

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout

from airflow_provider_nanobanana.toapis.errors import Charged, ImageTaskTimeout, ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.text_lines import FIRST_LINE_WIDTH, fold

log = LineLogger(__name__)


class NanoBananaException(AirflowException):
    """An error that Airflow may retry; a retry is free of charge for what is already paid.

    Its text is for the log pane: what to do first, then what happened, in short lines.

    :param error: What happened, with ``image_task_id``, ``charged``, ``code`` and ``retry_after``.
    """

    def __init__(self, error: ToApisError | str) -> None:
        # Airflow rebuilds a serialised exception from its text alone.
        if isinstance(error, ToApisError):
            self.error = error
            super().__init__(fold(f"{error.first_step}\n{error.message}", first=FIRST_LINE_WIDTH))
        else:
            self.error = ToApisError(error)
            super().__init__(error)

    def __reduce__(self) -> tuple[type[NanoBananaException], tuple[ToApisError]]:
        return type(self), (self.error,)

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later, unchanged."""
        return self.error.retryable

    @property
    def charged(self) -> Charged:
        """What became of the money: ``no``, ``yes`` or ``unknown``."""
        return self.error.charged

    @property
    def image_task_id(self) -> str | None:
        """The image task concerned, where there is one."""
        return self.error.image_task_id


class NanoBananaFailException(NanoBananaException, AirflowFailException):
    """An error that no retry can help: Airflow fails the task at once."""


class NanoBananaSensorTimeout(NanoBananaException, AirflowSensorTimeout):
    """A sensor's wait ended; as every sensor timeout, Airflow does not retry it."""


def airflow_exception(error: ToApisError) -> NanoBananaException:
    """Return the exception that makes Airflow do what the error calls for."""
    return NanoBananaException(error) if error.retryable else NanoBananaFailException(error)


def sensor_exception(error: ToApisError) -> NanoBananaException:
    """Return what a sensor raises: as :func:`airflow_exception`, but a timeout is a sensor timeout."""
    return NanoBananaSensorTimeout(error) if isinstance(error, ImageTaskTimeout) else airflow_exception(error)


class airflow_errors:
    """Turn the service's errors into Airflow's within the block.

    The log pane of Airflow prints each exception of a chain with its traceback. The cause, which says the same, is in
    :attr:`NanoBananaException.error`; its traceback, and what leads to the outermost block, is logged at DEBUG alone.
    """

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise Airflow's error in place of ours."""
        if isinstance(error, ToApisError):
            raise without_twin(airflow_exception(error)) from None
        if isinstance(error, NanoBananaException):
            raise error.with_traceback(None) from None


def without_twin(exception: NanoBananaException) -> NanoBananaException:
    """Return an exception that is to be raised ``from None``, its cause with the traceback in the log at DEBUG."""
    log.debug("%s", type(exception.error).__name__, exc_info=exception.error)
    return exception
