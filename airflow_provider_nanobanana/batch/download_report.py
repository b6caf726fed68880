"""DownloadReport: what a download amounts to, as records in XCom and as manifest, in the shape of generate's.

What the submit tasks have handed on of their requests is put beside each image by the id of its image task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_nanobanana.batch.manifest import (
    failed_entry,
    image_entry,
    manifest_content,
    under_way_entry,
    utc_text,
)
from airflow_provider_nanobanana.batch.outcome import words_of
from airflow_provider_nanobanana.batch.request_facts import RequestFacts
from airflow_provider_nanobanana.batch.xcom_record import fit_record
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import failure_code
from airflow_provider_nanobanana.toapis.response_values import parse_number, storable

Record = dict[str, Any]
#: What the manifest says of each image task beside status, cost and error; from the service.
_FACTS: Final = ("model", "created_at", "completed_at", "client_business_id")


class DownloadReport:
    """What became of the image tasks that a download was given.

    :param entries: As ``NanoBananaSensor`` returns them.
    :param landed: Records of the images in place, as ``StoredImage.record`` returns them.
    :param lost: Images that are not in place: ``id`` and ``index``, and why.
    :param facts: ``model``, ``created_at``, ``completed_at`` and ``client_business_id`` by id, as far as the service
        says; moments in epoch seconds.
    :param requests: What submit tasks have handed on under the XCom key ``nanobanana_request``, by id.
    :param under_way: Images that are still to be landed: ``id`` and ``index``.
    """

    def __init__(
        self,
        entries: Sequence[Record],
        landed: Sequence[Record],
        lost: Sequence[tuple[Record, errors.ToApisError]],
        *,
        facts: Mapping[str, Record],
        requests: Mapping[str, Any] | None = None,
        under_way: Sequence[Record] = (),
    ) -> None:
        self._entries = list(entries)
        self._landed = list(landed)
        self._lost = list(lost)
        self._under_way = list(under_way)
        self._facts = facts
        self._requests = requests or {}
        self._costs = {_id(entry): parse_number(entry.get("cost_usd")) for entry in entries}

    @property
    def cost_usd(self) -> float | None:
        """What the service says that the image tasks cost; None where it says nothing."""
        costs = [cost for cost in self._costs.values() if cost is not None]
        return round(sum(costs), 6) if costs else None

    def request(self, image_task_id: Any) -> RequestFacts:
        """Return what is known of the request of an image task."""
        model = self._facts.get(str(image_task_id), {}).get("model")
        return RequestFacts.of_submit(self._requests.get(str(image_task_id)), model)

    def result(self) -> list[Record]:
        """Return what goes through XCom: a record of at most 600 bytes of JSON for each image in place."""
        return [
            fit_record(
                storable(
                    {
                        **image,
                        **self.request(image.get("id")).brief(),
                        "suspect": list(image.get("suspect") or ()),
                    }
                )
            )
            for image in self._landed
        ]

    def manifest(
        self, *, run: Mapping[str, Any], destination: str, now: float, finished: bool = True
    ) -> dict[str, Any]:
        """Return the manifest as plain JSON; links are left out: they are secrets and expire.

        Whether the images were bought for this run is not known, so what was paid, reused and shared is null.

        :param run: ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and whatever else names the task instance.
        :param destination: URI of the folder that the images are in.
        :param now: Epoch seconds.
        :param finished: Whether all was landed that can be landed.
        """
        further = sum(image["index"] > 0 for image in self._landed)
        return manifest_content(
            "download",
            run,
            now=now,
            destination=destination,
            totals={
                "cost_usd": self.cost_usd,
                "of_which_listed_usd": 0.0,
                "unpriced": sum(cost is None for cost in self._costs.values()),
            },
            counts={
                "count": len(self._landed) - further,
                "extra_count": further,
                "unfinished": sum(entry.get("status") == "timeout" for entry in self._entries),
            },
            images=[self._image(image) for image in self._landed],
            failed=[
                *(self._failed(entry) for entry in self._entries if entry.get("status") in ("failed", "timeout")),
                *(self._not_landed(image, error) for image, error in self._lost),
            ],
            under_way=[self._still_to_land(image) for image in self._under_way],
            finished=finished,
            quarantined=[error.kept for _, error in self._lost if error.kept is not None],
            more={
                "image_tasks": [self._image_task(entry) for entry in self._entries],
                "not_landed": [
                    {"id": _text(image["id"]), "index": image["index"], "error": error.message}
                    for image, error in self._lost
                ],
            },
        )

    def _image(self, image: Record) -> Record:
        facts = self._facts.get(str(image["id"]), {})
        times = {"submitted_at": facts.get("created_at"), "completed_at": facts.get("completed_at")}
        return image_entry(image, self.request(image["id"]), self._money(image["id"], image["index"]), times=times)

    def _still_to_land(self, image: Record) -> Record:
        return under_way_entry(
            {"id": _text(image["id"]), "index": image["index"]},
            self.request(image["id"]),
            self._money(image["id"], image["index"]),
            submitted_at=self._facts.get(str(image["id"]), {}).get("created_at"),
        )

    def _failed(self, entry: Record) -> Record:
        """Return what the manifest says of an image task that brought nothing, by what the sensor says of it."""
        error = _error(entry) or {}
        meaning = failure_code(error.get("code", ""), pending=entry.get("status") == "timeout")
        billed = self._costs.get(_id(entry))
        failure = {
            "id": _text(entry.get("id")),
            "index": 0,
            "code": error.get("code", meaning.code),
            "message": error.get("message", ""),
            "charged": "yes" if billed and meaning.charged == "no" else meaning.charged,
            "retry_may_help": meaning.pending,
        }
        return failed_entry(failure, self.request(entry.get("id")), self._money(entry.get("id"), 0))

    def _not_landed(self, image: Record, error: errors.ToApisError) -> Record:
        code, message = words_of(error)
        failure = {
            "id": _text(image["id"]),
            "index": image["index"],
            "code": code,
            "message": message,
            "charged": "yes",
            "retry_may_help": error.retryable,
        }
        return failed_entry(failure, self.request(image["id"]), self._money(image["id"], image["index"]))

    def _money(self, image_task_id: Any, index: int) -> Record:
        """Return what an image cost; of further images nothing, so that a sum counts each image task once."""
        return {"cost_usd": 0.0 if index else self._costs.get(str(image_task_id)), "cost_is_listed": False}

    def _image_task(self, entry: Record) -> Record:
        facts = self._facts.get(_id(entry), {})
        told = {key: facts.get(key) for key in _FACTS}
        return {
            "id": _text(entry.get("id")),
            "status": _text(entry.get("status")),
            "cost_usd": self._costs.get(_id(entry)),
            "error": _error(entry),
            **told,
            "expires_at": utc_text(parse_number(entry.get("expires_at"))),
            "created_at": utc_text(told["created_at"]),
            "completed_at": utc_text(told["completed_at"]),
        }


def _id(entry: Record) -> str:
    return str(entry.get("id"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _error(entry: Record) -> dict[str, str] | None:
    """Return what an entry says of a failure, as far as it is text: ``code``, ``message``, ``answer``."""
    error = entry.get("error")
    if not isinstance(error, Mapping):
        return None
    return {key: error[key] for key in ("code", "message", "answer") if isinstance(error.get(key), str)}
