"""``ResultImages``: the images that tasks handed on, out of whatever they returned, and the manifests of these.

A result of generate, the list of a download, what mapped ones returned, single records, lists of all that. A result
without its lists, as there are above 500 images, is looked up in its manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_nanobanana.batch.request_facts import PROMPT_BEGINNING
from airflow_provider_nanobanana.batch.xcom_record import fit_record
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.stored_forms import MANIFEST
from airflow_provider_nanobanana.toapis.errors import InvalidRequest, StorageFailed
from airflow_provider_nanobanana.worker_threads import take_each

#: One image: ``uri``, and what else its task said of it; plain JSON.
Record = dict[str, Any]

#: Bytes of a manifest that are read: one of 20,000 images has 30 MB.
_MOST_BYTES: Final = 1 << 29
#: Of a manifest's entry, what a result says too.
_OF_RECORD: Final = (
    *("uri", "id", "index", "sha256", "bytes", "format", "width", "height", "request", "name", "variant", "meta"),
    *("prompt", "version", "cost_usd", "paid_usd", "reused", "shared", "suspect"),
)


@dataclass(frozen=True)
class ResultImages:
    """What was handed on.

    :param images: In the order in which they came, each file once.
    :param manifests: URIs of the manifests of the results, as far as these say so.
    """

    images: list[Record]
    manifests: list[str]


def result_images(given: Any) -> ResultImages:
    """Return the images of what tasks returned; None, as of a task that was skipped, is none.

    :raises InvalidRequest: Something in it is no result, and no record of an image in place.
    :raises StorageFailed: The manifest of a result without lists could not be read.
    """
    images: dict[str, Record] = {}
    manifests: dict[str, None] = {}
    for each in _walk(given):
        if isinstance(each, str):
            manifests[each] = None
        else:
            images.setdefault(each["uri"], each)
    return ResultImages([*images.values()], [*manifests])


def read_manifest(uri: str) -> Mapping[str, Any]:
    """Return a manifest as it is now.

    :raises StorageFailed: It is not there, or could not be read, or is none.
    :raises ToApisError: Its URI names no place that can be read.
    """
    folder, _, name = uri.rpartition("/")
    content = open_storage(folder).read(name, _MOST_BYTES)
    try:
        manifest = json.loads(content or b"null")
    except (ValueError, RecursionError):
        manifest = None
    if isinstance(manifest, dict) and MANIFEST.is_newer(version := manifest.get("version")):
        raise StorageFailed(f"The manifest {uri} {MANIFEST.said(version)}. A retry reads it again.", charged="no")
    if isinstance(manifest, dict) and isinstance(manifest.get("images"), list):
        return manifest
    what = "is not there" if content is None else "cannot be understood"
    raise StorageFailed(f"The manifest {uri} {what}.", charged="no")


def _walk(given: Any) -> Iterator[Record | str]:
    """Yield records of images, and URIs of manifests."""
    if isinstance(given, Mapping):
        yield from _of_mapping(given)
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        for each in take_each(given):
            yield from _walk(each)
    elif given is not None:
        raise _no_images(given)


def _of_mapping(given: Mapping[str, Any]) -> Iterator[Record | str]:
    if given.get("dry_run") is True:
        return
    if isinstance(given.get("uri"), str) and given["uri"]:
        yield dict(given)
        return
    manifest = given.get("manifest")
    if not isinstance(given.get("images"), list):
        raise _no_images(given)
    if isinstance(manifest, str):
        yield manifest
    if not given.get("truncated"):
        yield from _walk(given["images"])
    elif isinstance(manifest, str):
        yield from map(_record, read_manifest(manifest)["images"])
    else:
        raise InvalidRequest(
            f"A result of {given.get('count')} images holds no list of them, and its manifest could not be written. "
            "Clear the task that made them: it writes the manifest and buys nothing again.",
            first_step="Clear the task that made the images, then this one.",
        )


def _record(entry: Mapping[str, Any]) -> Record:
    """Return an entry of a manifest as a result says it."""
    record = {key: entry[key] for key in _OF_RECORD if key in entry}
    prompt = record.get("prompt")
    if isinstance(prompt, str):
        record["prompt"] = prompt[:PROMPT_BEGINNING]
    return fit_record(record)


def _no_images(given: Any) -> InvalidRequest:
    # Not even the text of a number of 5,000 digits can be had.
    if isinstance(given, (str, bytes)):
        shown = f"{given!r:.80}"
    elif isinstance(given, Mapping):
        shown = f"a mapping with {', '.join(sorted(map(str, given))[:10]) or 'nothing in it'}"
    else:
        shown = f"a value of type {type(given).__name__}"
    rendered = " A template renders to text unless the DAG sets render_template_as_native_obj."
    return InvalidRequest(
        f"images holds {shown}; give what a generate or a download operator returned (its .output), or records out of "
        f"it.{rendered if isinstance(given, str) else ''} Nothing was asked, and nothing was charged."
    )
