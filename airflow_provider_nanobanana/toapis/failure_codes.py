"""FailureCode: what each code of a missing image means, and what a person is told about it.

A code travels as text through XCom, ledger, manifest and metrics; :func:`failure_code` returns its meaning. A code that
is not in the table is the service's own word for an image task that it failed and refunded (:data:`SERVICE_FAILURE`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_nanobanana.toapis.errors import Charged


@dataclass(frozen=True)
class FailureCode:
    """One way for an image to be missing.

    :param code: The text that stands for it, the same in XCom, ledger, manifest and metrics.
    :param charged: What became of the money.
    :param retryable: Whether a retry of the Airflow task may bring the image.
    :param pending: Whether the wait ended first: the image may still come, and its record has the status ``timeout``.
    :param heading: Begins the list of such image tasks in the error of a wait.
    :param advice: Says in the error of a wait which Airflow tasks to clear.
    :param remedy: Says in the error of a batch what a person can do where no retry helps.
    """

    code: str
    charged: Charged
    retryable: bool
    pending: bool = False
    heading: str = "Failed at the service and refunded"
    advice: str = (
        "To make new ones, clear the submit tasks concerned (a refused prompt must be changed first), then wait and "
        "download."
    )
    remedy: str = "fix what the table names"


SERVICE_FAILURE: Final = FailureCode("generation_failed", "no", retryable=True)
CONTENT_REFUSED: Final = FailureCode(
    "content_policy_violation", "no", retryable=False, remedy="change the refused prompts"
)
EXPIRED: Final = FailureCode(
    "expired",
    "yes",
    retryable=False,
    heading="Paid, and lost: expired at the service",
    advice="To buy them again, clear the submit tasks concerned, then wait and download.",
)
RESULT_MISSING: Final = FailureCode(
    "result_missing",
    "yes",
    retryable=True,
    heading="Completed without an image, and paid",
    advice="Clear this task to ask again for free; do not clear their submit tasks.",
)
TASK_NOT_FOUND: Final = FailureCode(
    "task_not_found",
    "unknown",
    retryable=False,
    heading="Unknown to the service, so nothing is known of the money",
    advice="Check that connection, host and account are those of the submit, then clear this task; do not clear their "
    "submit tasks.",
)
ACCESS_DENIED: Final = FailureCode(
    # Stays as it is: the code is public (docs/failures.md).
    "look_refused",
    "unknown",
    retryable=False,
    heading="Not shown to this key while others are, so nothing is known of the money",
    advice="Check key and account, then clear this task; do not clear their submit tasks.",
)
TIMEOUT: Final = FailureCode(
    "timeout",
    "yes",
    retryable=True,
    pending=True,
    heading="Not ready in time, paid and going on",
    advice="Clear this task to wait again for free; do not clear their submit tasks.",
)
#: As :data:`RESULT_MISSING`, but the service may still deliver the image.
RESULT_PENDING: Final = replace(RESULT_MISSING, pending=True, heading="Completed without an image so far, and paid")
NOT_SEEN: Final = FailureCode(
    "not_seen",
    "unknown",
    retryable=True,
    pending=True,
    heading="Not seen in time, so nothing is known of the money",
    advice="Clear this task to look again for free; do not clear their submit tasks.",
)
SUSPECT: Final = FailureCode(
    "suspect_image",
    "yes",
    retryable=False,
    heading="Paid, and in quarantine: suspect pictures",
    advice='Look at them; to accept them set on_suspect="warn" and clear the task, which puts them in place for free.',
    remedy='look at the suspect pictures, then redo them in another run, or accept them with on_suspect="warn"',
)
OVER_BUDGET: Final = FailureCode("max_cost_usd", "no", retryable=False, remedy="raise max_cost_usd")
NO_CREDITS: Final = FailureCode("insufficient_credits", "no", retryable=False, remedy="top up the account")

#: In the order in which an error tells them.
FAILURE_CODES: Final = (
    SERVICE_FAILURE,
    CONTENT_REFUSED,
    EXPIRED,
    RESULT_MISSING,
    TASK_NOT_FOUND,
    ACCESS_DENIED,
    TIMEOUT,
    RESULT_PENDING,
    NOT_SEEN,
    SUSPECT,
    OVER_BUDGET,
    NO_CREDITS,
)
#: Codes of an image that was merely not ready in time.
NOT_READY_CODES: Final = frozenset({TIMEOUT.code, NOT_SEEN.code})
#: Codes that say more of the money than that it was given back: the service's own word must not pass for one of them.
RESERVED_CODES: Final = frozenset(row.code for row in FAILURE_CODES if row.charged != "no")
_BY_CODE: Final = {(row.code, row.pending): row for row in FAILURE_CODES}


@dataclass(frozen=True)
class ImageTaskFailure:
    """Why an image task has brought no image, as a poll showed it.

    :param image_task_id: The image task.
    :param meaning: What became of the money, and whether the image may still come.
    :param code: ``meaning.code``, or the service's own word for what it failed; at most 60 bytes of JSON.
    :param message: One line, at most 160 bytes of JSON.
    :param answer: The service's answer in which no image was found, where that is the failure.
    """

    image_task_id: str
    meaning: FailureCode
    code: str
    message: str
    answer: str | None = None


def failure_code(code: str, *, pending: bool = False) -> FailureCode:
    """Return what a code means.

    :param pending: Whether it stands in a record with the status ``timeout``.
    """
    return _BY_CODE.get((code, pending), TIMEOUT if pending else SERVICE_FAILURE)
