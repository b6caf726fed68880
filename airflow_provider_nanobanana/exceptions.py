"""NanoBananaException and its kin: the service's errors as Airflow's, which Airflow retries or not by ``retryable``.

Hooks, operators, sensors and what opens a poller raise these; everything else below them raises :class:`ToApisError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout

from airflow_provider_nanobanana.toapis.errors import Charged, ImageTaskTimeout, ToApisError


class NanoBananaException(AirflowException):
    """An error that Airflow may retry; a retry is free of charge for what is already paid.

    :param error: What happened, with ``image_task_id``, ``charged``, ``code`` and ``retry_after``.
    """

    def __init__(self, error: ToApisError | str) -> None:
        # Airflow rebuilds a serialised exception from its text alone.
        self.error = error if isinstance(error, ToApisError) else ToApisError(error)
        super().__init__(self.error.message)

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


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn the service's errors into Airflow's within the block."""
    try:
        yield
    except ToApisError as error:
        raise airflow_exception(error) from error
