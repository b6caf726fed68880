"""RequestRetry: whether a call is sent again within one attempt, and when; a submit only where it was not accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.errors import NotAccepted, ToApisError


@dataclass(frozen=True)
class RequestRetry:
    """How often and how late a call is sent again within one attempt.

    :param delays: Seconds before each repeat when the service names none.
    :param cap: Longest obedience to one ``Retry-After``, in seconds.
    """

    delays: tuple[float, ...] = (1.0, 2.0, 4.0)
    cap: float = 60.0

    def delay(self, kind: CallKind, error: ToApisError, repeats: int, jitter: float) -> float | None:
        """Return the seconds until the next repeat, or None to give up.

        A submit is repeated only when it was certainly not accepted; every other call buys nothing.

        :param repeats: How often the call was already repeated.
        :param jitter: A random number in [0, 1); waits grow by up to a quarter, never shrink.
        """
        again = isinstance(error, NotAccepted) if kind is CallKind.SUBMIT else error.retryable
        if not again or repeats >= len(self.delays):
            return None
        asked = self.delays[repeats] if error.retry_after is None else min(error.retry_after, self.cap)
        return asked * (1 + jitter / 4) if asked else jitter


#: For callers with a schedule of their own: a poll that fails is simply polled again later.
NO_RETRY: Final = RequestRetry(delays=())
