"""The manifest of one task instance, and the lines of its index: one shape for generate and download.

The shape is ``manifest.schema.json`` in this package, version 2; ``docs/results.md`` describes it. Both forms have the
same keys: what a download cannot know is null. A moment is a text in UTC, ``2026-11-26T08:00:00.000Z``. A manifest
grows while its task works: each one is whole, and true as of when it was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from airflow_provider_nanobanana.batch.request_facts import RequestFacts
from airflow_provider_nanobanana.stored_forms import MANIFEST
from airflow_provider_nanobanana.toapis.response_values import storable

#: How the name of each manifest begins.
MANIFEST_PREFIX: Final = "manifest-"

#: What wrote it: one task for all, or the last of three.
Form = Literal["generate", "download"]
#: One image or failure, plain JSON.
Entry = dict[str, Any]

_MONEY: Final = ("cost_usd", "paid_usd", "lost_race", "cost_is_listed")
_TOTALS: Final = ("cost_usd", "paid_usd", "lost_race", "of_which_listed_usd", "unpriced")
_COUNTS: Final = ("count", "extra_count", "shared", "reused", "unfinished")
_OF_IMAGE: Final = ("uri", "id", "index", "sha256", "bytes", "format", "width", "height")
_TIMES: Final = ("submitted_at", "completed_at")
_OF_FAILURE: Final = ("id", "index", "code", "message", "charged", "retry_may_help", "shared")
_OF_UNDER_WAY: Final = ("id", "index", "shared")
_OF_QUARANTINED: Final = ("uri", "id", "index", "sha256", "bytes", "reason", "request")
_OF_RUN: Final = ("dag_id", "run_id", "task_id", "map_index")
#: Of a line of the index beside what names request and run.
_IN_INDEX: Final = (
    *("width", "height", "bytes", "format", "sha256", "cost_usd", "paid_usd"),
    *("reused", "shared", "suspect", "id", "index", "digest"),
)
#: Some readers end a line here too.
_LINE_ENDS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def manifest_name(dag_id: str, run_id: str, task_id: str, map_index: int | None, namespace: str = "") -> str:
    """Return what the manifest of a task instance is called, without suffix: readable, and no other's.

    :param map_index: None or below 0 for one that is not mapped.
    :param namespace: The connection's: tells installations apart whose DAGs and runs are called the same.
    """
    index = -1 if map_index is None or map_index < 0 else map_index
    parts = [dag_id, run_id, task_id, str(index), *([namespace] if namespace else [])]
    # "-" joins what may hold it: the hash alone tells a mapped "land", 1, from a task "land-1".
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    shown = [dag_id, run_id, task_id, *([str(index)] if index >= 0 else []), *([namespace] if namespace else [])]
    return MANIFEST_PREFIX + "-".join([*shown, digest])


def utc_text(at: float | None) -> str | None:
    """Return a moment as it stands in manifest and index, ``2026-11-26T08:00:00.000Z``; None for none.

    :param at: Epoch seconds.
    """
    if at is None:
        return None
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def image_entry(
    image: Mapping[str, Any],
    request: RequestFacts,
    money: Mapping[str, Any],
    *,
    times: Mapping[str, float | None],
    reused: bool | None = None,
    shared: bool | None = None,
) -> Entry:
    """Return what the manifest says of an image in place.

    :param image: As ``StoredImage.record`` returns it.
    :param money: ``cost_usd``, ``paid_usd``, ``lost_race`` and ``cost_is_listed``; null where it is not known.
    :param times: Epoch seconds by name: ``submitted_at``, ``completed_at``.
    :param reused: Whether it was in place before; None where that is not known.
    :param shared: Whether somebody else bought it; None where that is not known.
    """
    return {
        **{key: image.get(key) for key in _OF_IMAGE},
        **request.whole(),
        **{key: money.get(key) for key in _MONEY},
        "reused": reused,
        "shared": shared,
        "suspect": list(image.get("suspect") or ()),
        "times": {name: utc_text(times.get(name)) for name in _TIMES},
    }


def failed_entry(
    failure: Mapping[str, Any], request: RequestFacts, money: Mapping[str, Any], *, answer: str | None = None
) -> Entry:
    """Return what the manifest says of an image that is not in place.

    :param failure: ``id``, ``index``, ``code``, ``message``, ``charged``, ``retry_may_help`` and ``shared``.
    :param money: As for :func:`image_entry`.
    :param answer: The service's answer in which no image was found.
    """
    return {
        **{key: failure.get(key) for key in _OF_FAILURE},
        **request.whole(),
        **{key: money.get(key) for key in _MONEY},
        **({"answer": answer} if answer else {}),
    }


def under_way_entry(
    image: Mapping[str, Any], request: RequestFacts, money: Mapping[str, Any], *, submitted_at: float | None
) -> Entry:
    """Return what the manifest says of an image that is bought and not in place yet.

    :param image: ``id`` of its image task, ``index`` in it, and ``shared``: whether somebody else bought it.
    :param money: As for :func:`image_entry`.
    :param submitted_at: Epoch seconds.
    """
    return {
        **{key: image.get(key) for key in _OF_UNDER_WAY},
        **request.whole(),
        **{key: money.get(key) for key in _MONEY},
        "submitted_at": utc_text(submitted_at),
    }


def manifest_content(
    form: Form,
    run: Mapping[str, Any],
    *,
    now: float,
    destination: str,
    totals: Mapping[str, Any],
    counts: Mapping[str, Any],
    images: Sequence[Entry],
    failed: Sequence[Entry],
    quarantined: Sequence[Mapping[str, Any]] = (),
    skipped: Sequence[Mapping[str, Any]] = (),
    abandoned: Sequence[Mapping[str, Any]] = (),
    former: Sequence[Mapping[str, Any]] = (),
    under_way: Sequence[Entry] = (),
    waiting: int = 0,
    finished: bool = True,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a manifest as plain JSON.

    :param run: ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and whatever else names the task instance.
    :param now: Epoch seconds.
    :param destination: URI of the folder that the images are in.
    :param totals: ``cost_usd``, ``paid_usd``, ``lost_race``, ``of_which_listed_usd`` and ``unpriced``.
    :param counts: ``count``, ``extra_count``, ``shared``, ``reused`` and ``unfinished``.
    :param images: From :func:`image_entry`.
    :param failed: From :func:`failed_entry`.
    :param quarantined: Records of bytes that were kept aside.
    :param skipped: Rows that were left out: ``request``, ``name``, ``message``.
    :param abandoned: What is paid of an earlier list and not in place; ``expires_at`` in epoch seconds.
    :param former: What was landed of an earlier list, likewise.
    :param under_way: From :func:`under_way_entry`.
    :param waiting: How many requests have no image task yet.
    :param finished: Whether the task's work was over; a retry or clear may begin again.
    :param more: What this form alone has.
    """
    content: dict[str, Any] = storable(
        {
            "version": MANIFEST.version,
            "form": form,
            **run,
            "written_at": utc_text(now),
            "finished": finished,
            "destination": destination,
            **{key: totals.get(key) for key in _TOTALS},
            **{key: counts.get(key) for key in _COUNTS},
            "failed_count": len(failed),
            "skipped_count": len(skipped),
            "waiting": waiting,
            "images": list(images),
            "failed": list(failed),
            "under_way": list(under_way),
            "quarantined": [{key: record.get(key) for key in _OF_QUARANTINED} for record in quarantined],
            "skipped": [dict(row) for row in skipped],
            "abandoned": [_left_over(record) for record in abandoned],
            "former": [_left_over(record) for record in former],
            **(more or {}),
        }
    )
    return content


def index_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line of JSON for each image of a manifest, flat, for people and engines; each ends with a line break.

    :param manifest: From :func:`manifest_content`, of either form.
    """
    for image in manifest["images"]:
        asked = image["fields"] or {}
        line = {
            "uri": image["uri"],
            **{key: image[key] for key in ("name", "variant", "version", "prompt", "meta", "model")},
            **{key: asked.get(key) for key in ("size", "resolution")},
            **{key: image[key] for key in _IN_INDEX},
            "submitted_at": image["times"].get("submitted_at"),
            "written_at": manifest["written_at"],
            **{key: manifest[key] for key in _OF_RUN},
        }
        yield json.dumps(line, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS) + "\n"


def _left_over(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "expires_at": utc_text(record.get("expires_at"))}
