"""How an order ended: its image is in place, or it is not, and then what became of the money and what a retry does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from airflow_provider_nanobanana.batch.costs import Cost, format_usd
from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.polling.result import truncate_json
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.text import one_line

OnExpired = Literal["fail", "resubmit"]

REFUSED: Final = "content_policy_violation"
EXPIRED: Final = "expired"
OVER_BUDGET: Final = "max_cost_usd"
NO_CREDITS: Final = "insufficient_credits"
#: What a final record of a look means, by its code: what became of the money, and whether a retry can change it. Any
#: other code of a failed record is the service's own word for what it refunds, and a retry submits anew.
_SEEN: Final[Mapping[str, tuple[errors.Charged, bool]]] = {
    REFUSED: ("no", False),
    EXPIRED: ("yes", False),
    "result_missing": ("yes", True),
    "task_not_found": ("unknown", False),
    "look_refused": ("unknown", False),
    "timeout": ("yes", True),
    "not_seen": ("unknown", True),
}


@dataclass(frozen=True)
class StoredItem:
    """An image in place: the one an order asked for, or a further one of its image task.

    :param image: What landing says of it: ``uri``, ``id``, ``index``, ``sha256``, ``bytes``, ``format``, ``width``,
        ``height``.
    :param cost: What the order cost; of a further image nothing, so that a sum counts each image task once.
    :param reused: Whether an earlier run had bought it.
    :param times: Epoch seconds by name, for the manifest.
    :param extra: Whether it came beside the image that was asked for.
    """

    item: BatchItem
    image: Mapping[str, Any]
    cost: Cost = field(default_factory=Cost)
    reused: bool = False
    times: Mapping[str, float | None] = field(default_factory=dict)
    extra: bool = False

    def record(self) -> dict[str, Any]:
        """Return the plain JSON for XCom."""
        return {**self.image, "request": self.item.index, "cost_usd": self.cost.usd, "reused": self.reused}


@dataclass(frozen=True)
class FailedItem:
    """An order without an image, or a further image of its image task that is not in place.

    :param id: Its image task, where there is one.
    :param code: The service's code, or our own word; at most 60 bytes of JSON.
    :param message: At most 160 bytes of JSON.
    :param again: Whether a retry of the task may bring the image.
    :param cost: What was paid for it all the same.
    :param billed: US dollars that the service charged though it failed the image task: a retry pays again.
    :param kept: What was kept of bytes that failed a check, as ``ToApisError.kept``.
    :param answer: The service's answer to a paid image task in which no image was found.
    :param index: Which image of its image task.
    :param extra: Whether it came beside the image that was asked for, which is in place.
    """

    item: BatchItem
    id: str | None
    code: str
    message: str
    charged: errors.Charged
    retryable: bool
    cost: Cost = field(default_factory=Cost)
    billed: float = 0.0
    kept: Mapping[str, Any] | None = None
    answer: str | None = None
    index: int = 0
    extra: bool = False

    @classmethod
    def from_poll(
        cls,
        order: BatchItem,
        record: Mapping[str, Any],
        *,
        cost: Cost,
        bill: Cost | None = None,
        on_expired: OnExpired = "fail",
    ) -> Self:
        """Return what the final record of a look amounts to (``Sighting.record``, status ``failed`` or ``timeout``).

        :param cost: What the order has cost in all.
        :param bill: What the service says of this very image task.
        """
        error = record["error"]
        code, message, answer = str(error["code"]), str(error["message"]), error.get("answer")
        charged, again = _SEEN.get(code, ("no", True))
        if code == EXPIRED:
            again = on_expired == "resubmit"
        billed = bill.usd or 0.0 if charged == "no" and bill is not None and not bill.listed else 0.0
        return cls(
            order,
            str(record["id"]),
            code,
            message,
            "yes" if billed else charged,
            again,
            cost,
            billed=billed,
            answer=str(answer) if answer else None,
        )

    @classmethod
    def from_error(
        cls, order: BatchItem, error: errors.ToApisError, *, cost: Cost | None = None, on_expired: OnExpired = "fail"
    ) -> Self:
        """Return what an error that concerns this order alone amounts to."""
        code, again = error.code or _words(type(error).__name__), error.retryable
        if isinstance(error, errors.ContentRefused):
            code = REFUSED
        elif isinstance(error, errors.InsufficientCredits):
            code = NO_CREDITS
        elif isinstance(error, errors.ResultExpired):
            code, again = EXPIRED, on_expired == "resubmit"
        message = truncate_json(one_line(error.message))
        return cls(
            order,
            error.image_task_id,
            truncate_json(one_line(code), 60),
            message,
            error.charged,
            again,
            cost or Cost(),
            kept=error.kept,
        )

    @classmethod
    def over_budget(cls, order: BatchItem, max_cost_usd: float) -> Self:
        """Return what becomes of an order that was not submitted because the limit is reached."""
        message = f"not submitted: it would pass max_cost_usd={format_usd(max_cost_usd)}"
        return cls(order, None, OVER_BUDGET, message, "no", retryable=False)

    @property
    def charged_text(self) -> str:
        """What became of the money, in words."""
        if self.billed:
            return f"charged {format_usd(self.billed)} although failed"
        if self.charged == "no":
            return "refunded" if self.id else "not charged"
        return "paid" if self.charged == "yes" else "unknown"

    def record(self) -> dict[str, Any]:
        """Return the plain JSON for XCom."""
        return {
            "request": self.item.index,
            "name": self.item.name,
            "id": self.id,
            "code": self.code,
            "message": self.message,
            "charged": self.charged,
        }

    def quarantined(self) -> dict[str, Any] | None:
        """Return the record of its bytes in quarantine with the request's position, or None where nothing was kept."""
        return None if self.kept is None else {**self.kept, "request": self.item.index}


Outcome = StoredItem | FailedItem


def in_order(outcomes: Iterable[Outcome]) -> tuple[list[StoredItem], list[FailedItem]]:
    """Return the images and the failures, each in the order of the requests, further images behind the first."""
    ordered = sorted(outcomes, key=lambda outcome: (outcome.item.index, outcome.extra))
    landed = [outcome for outcome in ordered if isinstance(outcome, StoredItem)]
    return landed, [outcome for outcome in ordered if isinstance(outcome, FailedItem)]


def _words(class_name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", class_name).lower()
