"""ParsedRequests: the requests of a batch as given, parsed one by one, with every fault of every one collected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.request_values import (
    as_text,
    given_fields,
    is_blank,
    listed,
    readable,
    table_fault,
)
from airflow_provider_nanobanana.worker_threads import take_each

MAX_REQUESTS: Final = 20_000
#: What a request given as a mapping may hold.
FIELDS: Final = (*ImageRequest.model_fields, "name")
MAX_NAME: Final = 80
"""With ten digits of the hash and a suffix of at most 8 characters a stem has the 100 characters that landing takes."""

_MOST_LISTED: Final = 10
_LONGEST_FAULT: Final = 300
_ALLOWED: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
#: What :meth:`BatchItem.stem` makes where there is no name.
_GENERATED: Final = re.compile(r"[0-9a-f]{16}-\d+(-.*)?", re.IGNORECASE)
_SUFFIX: Final = re.compile(r"\.(png|jpe?g|webp|gif|avif|json)", re.IGNORECASE)


def name_error(name: Any) -> str | None:
    """Return what is wrong with a name and what is allowed, or None for a good one."""
    if not isinstance(name, str):
        return f"name is {type(name).__name__}, not a text; {_rule()}"
    if not _ALLOWED.fullmatch(name):
        return f"name {name!r:.100} cannot name a file; {_rule()}"
    if _SUFFIX.fullmatch(name[name.rfind(".") :] if "." in name else ""):
        return f"name {name!r} ends like a file; leave the suffix out, it comes from the image"
    if _GENERATED.fullmatch(name):
        return f"name {name!r} looks like the names made for requests without one; choose another"
    return None


def _rule() -> str:
    return f"allowed: 1 to {MAX_NAME} of A-Z a-z 0-9 _ . - beginning with a letter, a digit or _"


def label(index: int, name: str | None) -> str:
    """Return how a request is spoken of: ``#12 'name'`` or ``#12``; counted from 0."""
    return f"#{index}" if name is None else f"#{index} {name!r}"


@dataclass(frozen=True)
class ParsedRequest:
    """A request that could be parsed, before its references are known by content."""

    index: int
    request: ImageRequest
    name: str | None
    meta: Mapping[str, Any] | None = None


@dataclass
class ParsedRequests:
    """What became of a list of requests: the parsed ones, and the first fault of each of the others.

    :param total: How many were given.
    :param faults: By position, from 0.
    """

    total: int
    parsed: list[ParsedRequest] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def add_fault(self, index: int, error: InvalidRequest) -> None:
        """Add the fault of a request; its first one is enough."""
        self.faults.setdefault(index, error.message.rstrip("."))

    def check(self) -> None:
        """Raise one ``InvalidRequest`` for all faults: what was wrong, what is allowed, what was charged."""
        if not self.faults:
            return
        shown = sorted(self.faults)[:_MOST_LISTED]
        listed = "; ".join(f"{label(i, self.names.get(i))}: {self.faults[i]:.{_LONGEST_FAULT}}" for i in shown)
        more = f"; and {len(self.faults) - _MOST_LISTED} more" if len(self.faults) > _MOST_LISTED else ""
        raise InvalidRequest(
            f"{len(self.faults)} of {self.total} requests cannot be accepted as they are (counted from #0): "
            f"{listed}{more}. A request is a prompt, or a mapping of {', '.join(FIELDS)}. Nothing was sent and nothing "
            "was charged. Fix the requests and clear the task; a retry would meet the same."
        )


def parse_requests(
    given: Any, defaults: Mapping[str, Any], default_model: str, models: catalogue.Rows | None = None
) -> ParsedRequests:
    """Parse what a user gave: a prompt, a request, or any iterable of both.

    :raises InvalidRequest: it is nothing of that, a table, or more than :data:`MAX_REQUESTS`; other faults are noted.
    """
    entries = _entries(given)
    requests = ParsedRequests(len(entries))
    common = given_fields(defaults)
    for index, entry in enumerate(entries):
        try:
            with readable("it"):
                fields = {**common, **_own_fields(entry)}
            name = as_text(fields.pop("name", None))
            if name is not None:
                if fault := name_error(name):
                    raise InvalidRequest(fault)
                requests.names[index] = name
            request = ImageRequest.parse(fields, default_model, frame="{faults}", models=models)
            if fault := _count_fault(request.asked_images):
                raise InvalidRequest(fault)
            requests.parsed.append(ParsedRequest(index, request, name))
        except InvalidRequest as error:
            requests.add_fault(index, error)
    _check_unique(requests)
    return requests


def _entries(given: Any) -> list[Any]:
    if isinstance(given, (str, Mapping, ImageRequest)):
        return [given]
    if fault := table_fault(given):
        raise InvalidRequest(
            f"What was given {fault}. Nothing was sent and nothing was charged; a retry would meet the same."
        )
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InvalidRequest(
            f"There is no request in {type(given).__name__}: give a prompt (text), a request (mapping), or a list of "
            "both. Nothing was sent and nothing was charged; a retry would meet the same."
        )
    # One more than allowed tells "too many", also of a list that never ends.
    entries = listed(take_each(given), MAX_REQUESTS + 1, "The list of requests")
    if len(entries) > MAX_REQUESTS:
        raise InvalidRequest(
            f"There are more than {MAX_REQUESTS:,} requests, which is the most for one task; split them, for instance "
            "with .expand(requests=[...]). Nothing was sent and nothing was charged; a retry would meet the same."
        )
    return entries


def _own_fields(entry: Any) -> dict[str, Any]:
    """Return what an entry itself gives; what it leaves blank, as rows of a table do, is not given."""
    if isinstance(entry, str):
        return {"prompt": entry}
    if isinstance(entry, ImageRequest):
        return entry.model_dump(exclude_unset=True)
    if is_blank(entry):
        raise InvalidRequest(
            f"is {entry!r:.40}: a hole, such as a failed or skipped mapped task leaves; filter the list"
        )
    if not isinstance(entry, Mapping):
        kind = f"is {type(entry).__name__}, neither a prompt (text) nor a request (mapping)"
        raise InvalidRequest(f"{kind}: it {fault}" if (fault := table_fault(entry)) else kind)
    if strangers := [key for key in entry if key not in FIELDS]:
        shown = ", ".join(f"{key!r:.40}" for key in strangers[:5])
        raise InvalidRequest(f"{shown} {'is no field' if len(strangers) == 1 else 'are no fields'} of a request")
    return given_fields(entry)


def _count_fault(count: Any) -> str | None:
    """Return what is wrong with the number of images that a request asks for, or None for one."""
    if not isinstance(count, int) or isinstance(count, bool):
        return f"extra_body holds n={count!r:.40}, which is no whole number; a request is one image: leave n out"
    return None if count == 1 else f"extra_body asks for n={count} images; a request is one: give it {count} times"


def _check_unique(requests: ParsedRequests) -> None:
    """Some file systems do not tell names apart by case, so neither do we; a faulty request has its name as well."""
    owners: dict[str, int] = {}
    for index, name in requests.names.items():
        owner = owners.setdefault(name.lower(), index)
        if owner != index:
            requests.add_fault(index, InvalidRequest(f"its name is also that of {label(owner, requests.names[owner])}"))
