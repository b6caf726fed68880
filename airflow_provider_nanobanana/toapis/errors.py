"""ToApisError and its subclasses: each says whether a repeat can help, what became of the money, and what to do first.

``retryable`` speaks of repeating the same call unchanged. ``charged`` speaks of the image task: ``no`` (nothing was
bought, or it was refunded), ``yes`` (it is paid and goes on or exists), ``unknown`` (the request left, no answer came).
Messages never hold the API key.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Literal, Self

Charged = Literal["no", "yes", "unknown"]

#: What to do first where a repeat can help.
_WAIT: Final = "Wait for the retry; if none is left, clear this task."


def worst_charge(charges: Iterable[Charged], *, paid: bool = False) -> Charged:
    """Return what became of the money of several image tasks together.

    :param paid: Whether anything else was paid for, too.
    """
    found = set(charges)
    if paid or "yes" in found:
        return "yes"
    return "unknown" if "unknown" in found else "no"


class ToApisError(Exception):
    """Anything that can go wrong with a request, an image task or its image.

    :param message: What happened, what is allowed, and what the next attempt will do.
    :param image_task_id: The image task concerned, where there is one.
    :param http_status: HTTP status of the answer, where there was one.
    :param code: The service's own error code, as text.
    :param retry_after: Seconds the service asked us to wait, where it did.
    :param charged: What became of the money, where this case differs from the class.
    :param first_step: What a person does first, where this case differs from the class.
    """

    retryable: ClassVar[bool] = False
    charged: Charged = "no"
    #: What a person does first, as a sentence of at most 78 characters; it stands above the message in Airflow's log.
    first_step: str = "See what is said below; then clear this task."
    #: What was kept of an image whose bytes failed a check: its record, plain JSON; None where nothing was.
    kept: Mapping[str, Any] | None = None

    def __init__(
        self,
        message: str,
        *,
        image_task_id: str | None = None,
        http_status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        charged: Charged | None = None,
        first_step: str | None = None,
    ) -> None:
        super().__init__(message)
        self.image_task_id = image_task_id
        self.http_status = http_status
        self.code = code
        self.retry_after = retry_after
        if charged is not None:
            self.charged = charged
        if first_step is not None:
            self.first_step = first_step

    @property
    def message(self) -> str:
        """The sentence a person reads."""
        return str(self.args[0])

    def reworded(self, message: str, *, charged: Charged | None = None, first_step: str | None = None) -> Self:
        """Return the same error for another reader; all but the words, and the money where more is known, stays."""
        error = copy.copy(self)
        error.args = (message,)
        if first_step is not None:
            error.first_step = first_step
        if charged is not None:
            error.charged = charged
        return error


class ConfigurationError(ToApisError):
    """The connection is unusable as it stands."""

    first_step = "Correct the connection, then clear this task."


class InvalidRequest(ToApisError):
    """The request can never be accepted as it is: refused by us before sending, or by the service (400, 404, 413)."""

    first_step = "Correct what is named below, then clear this task."


class AuthenticationFailed(ToApisError):
    """The key is missing or wrong (401)."""

    first_step = "Correct the API key (the connection's password), then clear this task."


class PermissionRefused(ToApisError):
    """The key may not do this: model, address or account is not allowed (403)."""

    first_step = "Let the key do this or take another model, then clear this task."


class InsufficientCredits(ToApisError):
    """The account has no credits left (402, or 403 and 429 that say so)."""

    first_step = "Top up the account, then clear this task."


class ModelNotFound(ToApisError):
    """The model id is wrong or not enabled for this key (503 ``model_not_found``, 500 ``pricing_failed``)."""

    first_step = "Correct 'model', then clear this task."


class ContentRefused(ToApisError):
    """Prompt or image was refused by content policy; the same request will be refused again."""

    first_step = "Change the prompt or the reference images, then clear this task."


class NotAccepted(ToApisError):
    """The service certainly did not take the request: sending it again cannot buy a second image."""

    retryable = True
    first_step = _WAIT


class ConnectionFailed(NotAccepted):
    """No connection was made: DNS, refused, connect timeout, TLS."""


class RateLimited(NotAccepted):
    """429 that is not about credits."""


class ServiceUnavailable(NotAccepted):
    """503 ``rate_limit_unavailable``: the submit limiter is down."""


class TransientFailure(ToApisError):
    """A call that buys nothing got no usable answer: network, 408, 5xx, HTML, broken JSON."""

    retryable = True
    first_step = _WAIT


class ResponseTooLong(TransientFailure):
    """An answer is longer than whoever asked reads of one; a worker reads more than a triggerer."""


class SubmissionUnknown(ToApisError):
    """The submit left and no usable answer came: an image task may or may not exist, and may be charged."""

    retryable = True
    charged: Charged = "unknown"
    first_step = _WAIT


class SubmissionUnfindable(ToApisError):
    """Whether an earlier submit bought the image cannot be found out by program; a person has to find out."""

    charged: Charged = "unknown"
    first_step = "Look for the image task in the service's console, then clear this task."


class ImageTaskNotFound(ToApisError):
    """The service does not know this id (404 ``task_not_found``, 400 ``task_not_exist``)."""

    charged: Charged = "unknown"
    first_step = "Check connection, host and account, then clear this task."


class ImageTaskFailed(ToApisError):
    """The service ended the image task without an image; failed image tasks are refunded."""

    first_step = "Clear this task: a new image task is bought."


class ImageTaskTimeout(ToApisError):
    """The wait ended before the image task did; it goes on and stays paid."""

    retryable = True
    charged: Charged = "yes"
    first_step = _WAIT


class ResultMissing(ToApisError):
    """The image task is completed but names no image yet; asking again is free."""

    retryable = True
    charged: Charged = "yes"
    first_step = _WAIT


class ResultExpired(ToApisError):
    """The image task is paid and its link is dead (24 hours); only a new, paid image task can replace it."""

    charged: Charged = "yes"
    first_step = "Set on_expired='resubmit', then clear the task that submits: it buys again."


class DownloadFailed(ToApisError):
    """The link was not served; asking again is free until it expires."""

    retryable = True
    charged: Charged = "yes"
    first_step = _WAIT


class UnsafeAddress(ToApisError):
    """The link, or a redirect of it, points where we never connect to."""

    charged: Charged = "yes"
    first_step = "Ask the service: its link leads to an address that is never connected to."


class ImageInvalid(ToApisError):
    """The bytes are not one complete image within the limits."""

    retryable = True
    charged: Charged = "yes"
    first_step = _WAIT


class ImageTooCostly(ImageInvalid):
    """Decoding the bytes takes more time or memory than one file may, or they have more parts than encoders write."""


class ImageSuspect(ToApisError):
    """The image is whole and paid, and most likely not what was asked for: empty, another's bytes, another size."""

    charged: Charged = "yes"
    first_step = "Look at the pictures: redo in a new run, or set on_suspect='warn' and clear."


class StorageFailed(ToApisError):
    """The destination did not take the image; the paid image waits at the service until its link expires."""

    retryable = True
    charged: Charged = "yes"
    first_step = _WAIT


Family = tuple[type[ToApisError], ...]

#: The key or the connection: any other call would meet the same.
ACCESS_ERRORS: Final[Family] = (AuthenticationFailed, PermissionRefused, ConfigurationError)
#: Any other submit of the account would meet the same.
ACCOUNT_ERRORS: Final[Family] = (*ACCESS_ERRORS, InsufficientCredits)
#: Any other submit with the same model would meet the same, where nothing is charged.
MODEL_ERRORS: Final[Family] = (ModelNotFound, PermissionRefused)
#: The account's submit limit is reached, or the service cannot check it; later the same submit is accepted.
SUBMIT_LIMIT_ERRORS: Final[Family] = (RateLimited, ServiceUnavailable)
#: The call, not what it asks for: the same call may succeed later.
TRANSIENT_ERRORS: Final[Family] = (NotAccepted, TransientFailure)
#: A new link to the same paid image may help.
RESULT_ERRORS: Final[Family] = (DownloadFailed, ImageInvalid, UnsafeAddress, ResultMissing)
#: What became of the image tasks that were waited for.
OUTCOME_ERRORS: Final[Family] = (ImageTaskFailed, ImageTaskTimeout, ResultExpired)
