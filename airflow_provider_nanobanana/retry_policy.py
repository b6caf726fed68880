"""NanoBananaRetryPolicy: on Airflow 3.3 and later what the service said decides about a retry, not a count alone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.exceptions import NanoBananaException

if TYPE_CHECKING:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
else:
    try:
        from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
    except ImportError:  # Airflow before 3.3
        RetryDecision, RetryPolicy = None, object

#: The longest wait for one ``Retry-After`` between attempts, in seconds; no slot is held meanwhile.
_LONGEST_WAIT: Final = 3600.0


class NanoBananaRetryPolicy(RetryPolicy):
    """Fail at once what no retry can help, wait what the service asked for, leave the rest to the task's own settings.

    :raises RuntimeError: When made on an Airflow before 3.3, which has no retry policies.
    """

    def __init__(self) -> None:
        if RetryDecision is None:
            raise RuntimeError("NanoBananaRetryPolicy needs Airflow 3.3; below it retries and retry_delay decide.")

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Decide whether and when a failed attempt is retried; runs in the worker."""
        if not isinstance(exception, NanoBananaException):
            return RetryDecision.default()
        error = exception.error
        if not error.retryable:
            return RetryDecision.fail(reason=f"{type(error).__name__} (charged: {error.charged}): no retry can help")
        if error.retry_after is None:
            return RetryDecision.default()
        wait = timedelta(seconds=min(error.retry_after, _LONGEST_WAIT))
        return RetryDecision.retry(delay=wait, reason=f"the service asked to wait {wait.total_seconds():.0f} s")


def with_retry_policy(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments with our policy where the user chose none; unchanged before Airflow 3.3."""
    if RetryDecision is None or arguments.get("retry_policy") is not None:
        return arguments
    return {**arguments, "retry_policy": NanoBananaRetryPolicy()}
