"""StoredItem and FailedItem: how an item of a batch ended, what became of the money, and what a retry does.

And ``UnderWayItem``: one that is bought and has not ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from airflow_provider_nanobanana.batch.costs import Cost, Spent, format_usd
from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.batch.request_facts import RequestFacts
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import (
    CONTENT_REFUSED,
    EXPIRED,
    NO_CREDITS,
    OVER_BUDGET,
    SUSPECT,
    ImageTaskFailure,
)
from airflow_provider_nanobanana.toapis.redaction import one_line, truncate_json
from airflow_provider_nanobanana.toapis.response_values import plain_word


@dataclass(frozen=True)
class StoredItem:
    """An image in place: the one that an item asked for, or a further one of its image task.

    :param image: ``uri``, ``id``, ``index``, ``sha256``, ``bytes``, ``format``, ``width``, ``height`` and ``suspect``,
        as ``StoredImage.record`` returns them.
    :param spent: What the item cost; of a further image nothing, so that a sum counts each image task once.
    :param reused: Whether it was in place already, or another's purchase was put there first.
    :param shared: Whether its image task was bought by somebody else.
    :param times: Epoch seconds by name, for the manifest.
    :param extra: Whether it came beside the image that was asked for.
    """

    item: BatchItem
    image: Mapping[str, Any]
    spent: Spent = field(default_factory=Spent)
    reused: bool = False
    shared: bool = False
    times: Mapping[str, float | None] = field(default_factory=dict)
    extra: bool = False

    @property
    def request(self) -> RequestFacts:
        """What is known of its request."""
        return RequestFacts.of_item(self.item)

    def record(self) -> dict[str, Any]:
        """Return the plain JSON for XCom."""
        return {
            **self.image,
            "request": self.item.index,
            **self.request.brief(),
            "version": self.item.version,
            "cost_usd": self.spent.cost.usd,
            "paid_usd": self.spent.paid.usd,
            "reused": self.reused,
            "shared": self.shared,
            "suspect": list(self.image.get("suspect") or ()),
        }


@dataclass(frozen=True)
class FailedItem:
    """An item without its image, or a further image of its image task that is not in place.

    :param id: Its image task, where there is one.
    :param code: One of ``toapis.failure_codes``, or the service's own word; at most 60 bytes of JSON.
    :param message: One line, at most 160 bytes of JSON.
    :param charged: What became of the money: ``yes`` also where the service failed the image task and kept the money.
    :param retryable: Whether a retry of the Airflow task may bring the image, whatever it then costs.
    :param spent: What it has cost in all the same.
    :param shared: Whether its image task was bought, and is paid, by somebody else.
    :param billed: US dollars that the service charged though it failed the image task: a retry pays again.
    :param kept: What was kept of bytes that failed a check, as ``ToApisError.kept``.
    :param answer: The service's answer to a paid image task in which no image was found.
    :param index: Which image of its image task.
    :param extra: Whether it came beside the image that was asked for, which is in place.
    :param remedy: What a person can do about it, where that is more than its code tells.
    """

    item: BatchItem
    id: str | None
    code: str
    message: str
    charged: errors.Charged
    retryable: bool
    spent: Spent = field(default_factory=Spent)
    shared: bool = False
    billed: float = 0.0
    kept: Mapping[str, Any] | None = None
    answer: str | None = None
    index: int = 0
    extra: bool = False
    remedy: str | None = None

    @classmethod
    def from_poll(
        cls,
        item: BatchItem,
        failure: ImageTaskFailure,
        *,
        bill: Cost | None = None,
        rebuy_expired: bool = False,
    ) -> Self:
        """Return what the last poll of an item's image task amounts to.

        :param bill: What the service says of this very image task.
        :param rebuy_expired: Whether a retry buys a new image task for one whose result expired.
        """
        meaning = failure.meaning
        billed = 0.0
        if meaning.charged == "no" and bill is not None and not bill.listed:
            billed = bill.usd or 0.0
        return cls(
            item,
            failure.image_task_id,
            failure.code,
            failure.message,
            "yes" if billed else meaning.charged,
            rebuy_expired if meaning is EXPIRED else meaning.retryable,
            billed=billed,
            answer=failure.answer,
        )

    @classmethod
    def from_error(cls, item: BatchItem, error: errors.ToApisError, *, rebuy_expired: bool = False) -> Self:
        """Return what an error that concerns this item alone amounts to.

        :param rebuy_expired: As for :meth:`from_poll`.
        """
        code, message = words_of(error)
        retryable = rebuy_expired if isinstance(error, errors.ResultExpired) else error.retryable
        # The key and the connection: their codes are the service's own.
        remedy = _remedy(error) if isinstance(error, errors.ACCESS_ERRORS) else None
        return cls(
            *(item, error.image_task_id, code, message, error.charged, retryable),
            kept=error.kept,
            remedy=remedy,
        )

    @classmethod
    def over_budget(cls, item: BatchItem, max_cost_usd: float) -> Self:
        """Return what becomes of an item that was not submitted because the limit is reached."""
        message = f"not submitted: it would pass max_cost_usd={format_usd(max_cost_usd)}"
        return cls(item, None, OVER_BUDGET.code, message, "no", retryable=False)

    @property
    def request(self) -> RequestFacts:
        """What is known of its request."""
        return RequestFacts.of_item(self.item)

    @property
    def charged_text(self) -> str:
        """What became of the money, in words."""
        if self.shared and self.charged != "no":
            return "paid by another run"
        if self.billed:
            return f"charged {format_usd(self.billed)} although failed"
        if self.charged == "no":
            return "refunded" if self.id else "not charged"
        return "paid" if self.charged == "yes" else "unknown"

    def record(self) -> dict[str, Any]:
        """Return the plain JSON for XCom."""
        return {
            "request": self.item.index,
            **self.request.brief(),
            "id": self.id,
            "code": self.code,
            "message": self.message,
            "charged": self.charged,
        }

    def quarantined(self) -> dict[str, Any] | None:
        """Return the record of its bytes in quarantine with the request's position, or None where nothing was kept."""
        return None if self.kept is None else {**self.kept, "request": self.item.index}


Outcome = StoredItem | FailedItem


@dataclass(frozen=True)
class UnderWayItem:
    """An item with an image task, whose image is not in place yet.

    :param id: The image task.
    :param spent: What the item has cost by now, its image task at least at the list price.
    :param shared: Whether somebody else bought the image task, and pays.
    :param submitted_at: Epoch seconds; None while it is taken up again.
    """

    item: BatchItem
    id: str
    spent: Spent = field(default_factory=Spent)
    shared: bool = False
    submitted_at: float | None = None

    @property
    def request(self) -> RequestFacts:
        """What is known of its request."""
        return RequestFacts.of_item(self.item)


def words_of(error: errors.ToApisError) -> tuple[str, str]:
    """Return code and message of what an error lets one image lack: at most 60 and 160 bytes of JSON."""
    code = error.code or plain_word(type(error).__name__)
    if isinstance(error, errors.ContentRefused):
        code = CONTENT_REFUSED.code
    elif isinstance(error, errors.InsufficientCredits):
        code = NO_CREDITS.code
    elif isinstance(error, errors.ImageSuspect):
        code = SUSPECT.code
    elif isinstance(error, errors.ResultExpired):
        code = EXPIRED.code
    return truncate_json(one_line(code), 60), truncate_json(one_line(error.message))


def _remedy(error: errors.ToApisError) -> str:
    """Return the first step of an error as a part of a sentence, without the clear that follows."""
    step = error.first_step.partition(", then ")[0]
    return f"{step[0].lower()}{step[1:]}"
