"""``TaskLineage``: what a task instance read, wrote and paid, as lineage tells it; and how it follows from a batch.

Prompts and names are no part of it: they may be private, and the manifest has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_nanobanana.batch.costs import MILLION, micros
from airflow_provider_nanobanana.batch.outcome import FailedItem, StoredItem
from airflow_provider_nanobanana.toapis.failure_codes import failure_code

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.toapis.models import ImageRequest

#: Models that are named.
_MOST_MODELS: Final = 10

Form = Literal["generate", "submit", "wait", "download"]
Origin = Literal["bought", "shared", "reused"]


@dataclass(frozen=True)
class LandedImage:
    """An image in place.

    :param record: ``uri``, ``id``, ``sha256``, ``bytes``, ``format``, ``width`` and ``height``; of a further image some
        may be None.
    :param origin: Who bought it: this task instance, another run meanwhile, or somebody before; None where not known.
    """

    record: Mapping[str, Any]
    origin: Origin | None = None


@dataclass(frozen=True)
class TaskLineage:
    """What a task instance read, wrote and paid by now.

    :param form: Which of the operators it is of.
    :param images: Those in place.
    :param references: SHA-256 by the URI of what was read: reference images, and a file of rows; None where not known.
    :param models: Of what was bought or waited for.
    :param counts: Numbers by the names that the result has for them.
    :param money: USD by the names that the result has for it; None where nobody knows.
    """

    form: Form
    images: Sequence[LandedImage] = ()
    references: Mapping[str, str | None] = field(default_factory=dict)
    models: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    money: Mapping[str, float | None] = field(default_factory=dict)


def of_batch(state: BatchState, row_file: str | None = None) -> TaskLineage:
    """Return the lineage of a batch as it stands.

    :param row_file: URI of the file that the requests were read from.
    """
    outcomes = state.outcomes()
    stored = [outcome for outcome in outcomes if isinstance(outcome, StoredItem)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, FailedItem)]
    wanted = [image for image in stored if not image.extra]
    totals = state.costs.totals()
    references: dict[str, str | None] = {} if row_file is None else {row_file: None}
    for item in state.items:
        for uri in item.request.reference_images:
            references.setdefault(uri, state.references.known_digest(uri))
    return TaskLineage(
        "generate",
        images=[LandedImage(image.image, _origin(image)) for image in stored],
        references=references,
        models=_models(item.request.model for item in state.items),
        counts={
            "count": len(wanted),
            "extra_count": len(stored) - len(wanted),
            "shared": sum(image.shared for image in wanted),
            "reused": sum(image.reused for image in wanted),
            "failed_count": len(failed),
            "quarantined_count": sum(failure.kept is not None for failure in failed),
        },
        money={name: totals[name] for name in ("cost_usd", "paid_usd", "lost_race")},
    )


def of_submit(request: ImageRequest) -> TaskLineage:
    """Return the lineage of a submit: what it will be billed is not known yet."""
    return TaskLineage("submit", references=dict.fromkeys(request.reference_images), models=_models([request.model]))


def of_wait(records: Sequence[Mapping[str, Any]], models: Iterable[str | None]) -> TaskLineage:
    """Return the lineage of a sensor's wait: what it waits for was bought by the submits before it.

    :param records: From ``PollResult.to_record``.
    """
    counts = {status: 0 for status in ("completed", "failed", "timeout")}
    for record in records:
        counts[record["status"]] += 1
    cost = sum(micros(record["cost_usd"] or 0.0) for record in records if _is_paid(record)) / MILLION
    return TaskLineage(
        "wait",
        models=_models(models),
        counts={
            "completed": counts["completed"],
            "failed_count": counts["failed"],
            "timed_out": counts["timeout"],
        },
        money={"cost_usd": cost, "paid_usd": cost},
    )


def of_download(
    landed: Sequence[Mapping[str, Any]],
    *,
    lost: int,
    quarantined: int,
    models: Iterable[str | None],
    cost_usd: float | None,
) -> TaskLineage:
    """Return the lineage of a download; who bought the images is not known.

    :param landed: Records of the images in place.
    :param lost: How many are not.
    """
    further = sum(image["index"] > 0 for image in landed)
    return TaskLineage(
        "download",
        images=[LandedImage(image) for image in landed],
        models=_models(models),
        counts={
            "count": len(landed) - further,
            "extra_count": further,
            "failed_count": lost,
            "quarantined_count": quarantined,
        },
        money={"cost_usd": cost_usd},
    )


def _origin(image: StoredItem) -> Origin:
    if image.reused:
        return "reused"
    return "shared" if image.shared else "bought"


def _is_paid(record: Mapping[str, Any]) -> bool:
    if record["status"] == "failed":
        return failure_code((record.get("error") or {}).get("code", "")).charged == "yes"
    return bool(record["status"] == "completed")


def _models(models: Iterable[str | None]) -> list[str]:
    return [*dict.fromkeys(model for model in models if model)][:_MOST_MODELS]
