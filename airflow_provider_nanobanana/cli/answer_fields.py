"""Which fields of a status answer the parser goes by, found out by leaving each of them out in turn. Pure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.redaction import one_line
from airflow_provider_nanobanana.toapis.responses import ApiResponse, parse_polled

#: Fields that are looked at; documented answers have about 20.
_MOST_FIELDS: Final = 100
#: Bytes of an answer that is taken apart: one with an image as base64 is not parsed a hundred times.
_LONGEST: Final = 200_000

#: Host, path and query of a link, without the name and password that may stand before the host.
_LINK: Final = re.compile(r"https?://(?:[^/?#@]*@)?(?P<host>[\w.:\[\]-]+)(?P<path>[^?#]*)(?P<query>\??)", re.IGNORECASE)

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True)
class AnswerField:
    """One value of an answer.

    :param path: Where it stands, such as ``result.data[0].url``.
    :param value: What it is, in words that hold no link's query and nothing long.
    :param used: Whether the parser reads something else without it.
    """

    path: str
    value: str
    used: bool


def answer_fields(answer: ApiResponse) -> tuple[AnswerField, ...]:
    """Return the fields of the answer to a poll, in its own order; none of an answer that is no JSON object or long.

    A value that the answer holds twice is not missed when one of them is left out: both count as not used.
    """
    body = answer.json_object
    if body is None or len(answer.body) > _LONGEST:
        return ()
    whole = _parsed(answer, body)
    fields: list[AnswerField] = []
    for path, value in _leaves(body):
        if len(fields) == _MOST_FIELDS:
            break
        used = _parsed(answer, _without(body, path)) != whole
        fields.append(AnswerField(_path_text(path), _in_words(value, answer.secret), used))
    return tuple(fields)


def image_fields(answer: ApiResponse, image_task: ImageTask) -> tuple[str, ...]:
    """Return where an answer holds the images that the parser found in it."""
    values = {image.url or image.b64_json for image in image_task.images}
    return tuple(
        _path_text(path)
        for path, value in _leaves(answer.json_object or {})
        if isinstance(value, str) and value in values
    )


def _parsed(answer: ApiResponse, body: dict[str, Any]) -> ImageTask | None:
    # Asked for by no id, which would stand in for one that is left out.
    return parse_polled(replace(answer, body=json.dumps(body).encode()), "")


def _leaves(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Yield every value that holds no other, with where it stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    empty = True
    for key, each in inner:
        empty = False
        yield from _leaves(each, (*path, key))
    if empty and path:
        yield path, value


def _without(body: dict[str, Any], path: FieldPath) -> dict[str, Any]:
    rest = copy.deepcopy(body)
    holder: Any = rest
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return rest


def _path_text(path: FieldPath) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{one_line(key, limit=40)}" for key in path)
    return text.removeprefix(".")


def _in_words(value: Any, secret: str) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if link := _LINK.match(value):
        suffix = PurePosixPath(link["path"]).suffix
        return f"a link at {link['host']}{f', *{suffix}' if suffix else ''}{', signed' if link['query'] else ''}"
    return one_line(value, secret, 60) if len(value) <= 200 else f"a text of {len(value):,} characters"
