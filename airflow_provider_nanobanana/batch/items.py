"""Items: what a user asks for, parsed and checked in full before anything is sent, each with an identity of its own.

A wanted image is its file. An item's identity is the name of that file without its suffix: the request's name and the
hash of the request or, without a name, that hash and a number that tells identical requests apart. Its position in the
list is no part of it: an upstream may reorder, and what was paid is found all the same.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, Protocol

from airflow_provider_nanobanana.batch.requests import ParsedRequest, ParsedRequests, label, parse_requests
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest
from airflow_provider_nanobanana.toapis.models import ImageRequest, is_link

#: Hexadecimal digits of the hash in the name of a file whose request has no name.
_HEAD_DIGITS: Final = 16
#: The stem of such a file.
_NUMBERED: Final = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,5})")
_SUFFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,8}")

#: What asking for a content came to: its digest, or why it is no reference image.
Content = str | InvalidRequest
#: How contents are asked for: one after another as the built-in ``map``, or side by side as an executor's ``map``.
Each = Callable[[Callable[[str], Content], Iterable[str]], Iterable[Content]]


class ReferenceFormats(Protocol):
    """What is known of the formats of storage references: a ``ReferenceUploader``."""

    def expect(self, requests: Iterable[ImageRequest]) -> None:
        """Take note of what the models of these requests take."""

    def check(self, request: ImageRequest) -> None:
        """Raise ``InvalidRequest`` where the model does not take what was read."""


class EmptyBatch(InvalidRequest):
    """The list of requests is empty: no mistake, and nothing to do."""


@dataclass(frozen=True)
class BatchItem:
    """One wanted image of a batch.

    :param index: Position in the list as given this time, from 0; for people, never part of the identity.
    :param request: Parsed, with its model filled in; storage references are still URIs.
    :param name: What the user calls it, unique in the batch.
    :param occurrence: Tells identical requests without a name apart, from 0; always 0 for one with a name.
    :param fingerprint: Hash of the request with storage references taken by content; 64 hex digits.
    :param meta: The row's own data, plain JSON; no part of the identity.
    :param version: Which picture of the request, from 1.
    """

    index: int
    request: ImageRequest
    name: str | None
    occurrence: int
    fingerprint: str
    meta: Mapping[str, Any] | None = None
    version: int = 1

    @property
    def key(self) -> str:
        """The item's identity in ledger, manifest and log: its file, whichever round of the task makes it."""
        return self.stem()

    @property
    def head(self) -> str:
        """What the stems of requests like this have in common where none has a name; a number follows."""
        return self.fingerprint[:_HEAD_DIGITS]

    @property
    def label(self) -> str:
        """The item in words for people: its name, else its position; and its variant, which may be all that differs."""
        name = f"#{self.index}" if self.name is None else self.name
        return f"{name}/{self.request.variant}" if self.request.variant else name

    def stem(self, suffix: str = "") -> str:
        """Return the file's name without its extension, one that landing takes.

        The hash is in it also beside a name: a file of that name says nothing of the request it was made for, and
        after a changed prompt the old picture must neither be reused nor stand in the way of the new one.

        :param suffix: Sets a picture apart from others of the same request: at most 8 of A-Z a-z 0-9 _ . -
        :raises ValueError: another suffix.
        """
        if suffix and not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"{suffix!r} is no suffix of a file name")
        stem = self.base_stem if self.version == 1 else f"{self.base_stem}-v{self.version}"
        return f"{stem}-{suffix}" if suffix else stem

    @property
    def base_stem(self) -> str:
        """The name without its extension of the file of the first version."""
        return f"{self.name}-{self.fingerprint[:10]}" if self.name else f"{self.head}-{self.occurrence}"


@dataclass(frozen=True)
class SkippedRow:
    """A row that was left out for its fault.

    :param index: Its position among the rows as given, from 0.
    :param message: What is wrong, with the cell; at most 300 characters.
    """

    index: int
    name: str | None
    message: str

    @property
    def label(self) -> str:
        """The row in words for people."""
        return label(self.index, self.name)


def build_items(
    given: Any,
    *,
    defaults: Mapping[str, Any],
    default_model: str,
    models: catalogue.Rows | None = None,
    digest_of: Callable[[str], str],
    each: Each = map,
    formats: ReferenceFormats | None = None,
    template: str | None = None,
    variants: int = 1,
    on_skipped: Callable[[SkippedRow], object] | None = None,
    on_note: Callable[[str], object] = lambda note: None,
) -> list[BatchItem]:
    """Return the items of what a user gave: a prompt, a request, any iterable of both, or a table; none for no rows.

    :param given: A request is a mapping of :data:`~.rows.FIELDS` (or an ``ImageRequest``); a blank field
        (None, NaN, white space) is not given.
    :param defaults: The fields of requests that do not give them.
    :param default_model: Model id where neither request nor defaults name one.
    :param models: The connection's own rows of models.
    :param digest_of: Returns the content digest of a storage reference (64 hex digits); asked once for each distinct
        URI. Its ``InvalidRequest`` is one fault among the others; anything else it raises ends the matter.
    :param each: Asks for the digests; an executor's ``map`` reads references side by side.
    :param formats: Is told before what the models take, and asked afterwards whether they take what was read.
    :param template: A prompt over the columns of each row.
    :param variants: How many pictures to make of each row.
    :param on_skipped: Takes each row with a fault, which is left out then; None refuses all for the fault of one.
    :param on_note: Takes what people may not expect of how the rows were understood, in words for the log.
    :raises InvalidRequest: with the faults of all requests, or where none is left; nothing was sent.
    """
    requests = parse_requests(given, defaults, default_model, models=models, template=template, variants=variants)
    for note in requests.notes:
        on_note(note)
    if formats is not None:
        formats.expect(parsed.request for parsed in requests.parsed)
    fingerprints = _fingerprints(requests, digest_of, each)
    if formats is not None:
        for parsed in requests.parsed:
            with requests.noting_faults(parsed.index):
                formats.check(parsed.request)
    if on_skipped is None or len(requests.faults) == requests.total:
        requests.check()
    else:
        for index in sorted(requests.faults):
            on_skipped(SkippedRow(index, requests.names.get(index), requests.fault(index)))
    sound = [
        (request, fingerprint)
        for request, fingerprint in zip(requests.parsed, fingerprints, strict=True)
        if request.index not in requests.faults
    ]
    return [
        BatchItem(request.index, request.request, request.name, occurrence, fingerprint, request.meta)
        for (request, fingerprint), occurrence in zip(sound, _occurrences(sound), strict=True)
    ]


def count_unnamed(items: Iterable[BatchItem]) -> Counter[str]:
    """Return how many items without a name there are of each head."""
    return Counter(item.head for item in items if item.name is None)


def take_numbers(items: Sequence[BatchItem], *preferred: Collection[str]) -> list[BatchItem]:
    """Return the items, those without a name numbered so that files which are there serve before any is bought.

    Equal requests without a name are interchangeable. When a list gets shorter, and files are removed, it is not the
    last number that goes: whatever is left of them is taken first, then the lowest numbers that are free.

    :param preferred: Stems to be taken before others, the best ones first.
    """
    ranks: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for rank, stems in enumerate(preferred):
        for parts in filter(None, map(_NUMBERED.fullmatch, stems)):
            ranks[parts[1]].setdefault(int(parts[2]), rank)
    numbers = {}
    for head, wanted in count_unnamed(items).items():
        known = ranks[head]
        best = sorted({*range(wanted), *known}, key=lambda number: (known.get(number, len(preferred)), number))
        numbers[head] = iter(sorted(best[:wanted]))
    return [replace(item, occurrence=next(numbers[item.head])) if item.name is None else item for item in items]


def _fingerprints(requests: ParsedRequests, digest_of: Callable[[str], str], each: Each) -> list[str]:
    """Return the fingerprint of each parsed request, and add the faults of references that are none."""

    def ask(uri: str) -> Content:
        try:
            return digest_of(uri)
        except InvalidRequest as error:
            return error
        except ConfigurationError as error:
            return InvalidRequest(error.message)

    uris = list(dict.fromkeys(uri for request in requests.parsed for uri in _stored(request)))
    contents = dict(zip(uris, each(ask, uris), strict=True))
    fingerprints = []
    for request in requests.parsed:
        for uri in _stored(request):
            if isinstance(content := contents[uri], InvalidRequest):
                requests.add_fault(request.index, content)
        known = {uri: digest for uri in _stored(request) if isinstance(digest := contents[uri], str)}
        fingerprints.append(request.request.fingerprint(known))
    return fingerprints


def _stored(request: ParsedRequest) -> list[str]:
    return [uri for uri in request.request.reference_images if not is_link(uri)]


def _occurrences(requests: Sequence[tuple[ParsedRequest, str]]) -> list[int]:
    """Number identical requests without a name among themselves; a name tells the others apart.

    :param requests: Each with its fingerprint.
    """
    numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
    return [next(numbers[fingerprint]) if request.name is None else 0 for request, fingerprint in requests]
