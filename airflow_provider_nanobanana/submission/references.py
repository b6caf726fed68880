"""ReferenceUploader: reference images in storage, read and checked before anything is sent, then uploaded."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from airflow_provider_nanobanana.landing.fit_reference import FORMATS
from airflow_provider_nanobanana.landing.image_file import MAX_BYTES
from airflow_provider_nanobanana.landing.reference_image import (
    MAX_REFERENCE_BYTES,
    changes_in_words,
    check_reference,
    fit_reference,
    reference_name,
)
from airflow_provider_nanobanana.landing.storage.base import LASTING_ERRORS, storage_failures
from airflow_provider_nanobanana.landing.storage.local import local_path
from airflow_provider_nanobanana.landing.storage.object_store import file_system, object_path, require_connection
from airflow_provider_nanobanana.toapis.errors import InvalidRequest, StorageFailed, TransientFailure
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.models import is_link
from airflow_provider_nanobanana.toapis.protocol import Upload
from airflow_provider_nanobanana.toapis.request_values import as_reference

if TYPE_CHECKING:
    import os

    from airflow_provider_nanobanana.toapis.models import ImageRequest
    from airflow_provider_nanobanana.toapis.session import ToApisSession

V = TypeVar("V")

log = LineLogger(__name__)

_KEPT_BYTES: Final = 24 * 1024 * 1024
#: One reference image that is too large to be sent is in memory at a time, whoever reads how many others.
_LARGE_ONE: Final = threading.Lock()


class SingleFlight(Generic[V]):
    """Values by key, each made by the first who asks for it; the others wait for that one.

    A failure goes to everyone who waits and is forgotten: who asks later makes the value again.

    :param made: Values that are there already.
    """

    def __init__(self, made: Mapping[str, V] | None = None) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, V] = dict(made or {})
        self._futures: dict[str, Future[V]] = {}

    def get(self, key: str, make: Callable[[], V]) -> V:
        """Return the value of a key, made by ``make`` where nobody made it yet."""
        with self._lock:
            if key in self._values:
                return self._values[key]
            future = self._futures.get(key)
            if future is None:
                ours = self._futures[key] = Future()
        return self._made(key, make, ours) if future is None else future.result()

    def values(self) -> dict[str, V]:
        """Return a copy of what was made so far."""
        with self._lock:
            return dict(self._values)

    def _made(self, key: str, make: Callable[[], V], future: Future[V]) -> V:
        try:
            value = make()
        except BaseException as failure:
            with self._lock:
                del self._futures[key]
            future.set_exception(failure)
            raise
        with self._lock:
            self._values[key] = value
            del self._futures[key]
        future.set_result(value)
        return value


@dataclass(frozen=True)
class Reference:
    """A reference image, checked.

    :param upload: What is sent.
    :param digest: SHA-256 of the content as it was read, in hex: what is done to it makes no other request of it.
    :param prepared: What was done to it, in words behind its name; empty where it is sent as it is.
    """

    upload: Upload
    digest: str
    prepared: str = ""

    @property
    def format(self) -> str:
        """What is sent: ``jpeg``, ``png`` or ``webp``."""
        return _format_of(self.upload)


def read_reference(path_or_uri: str | os.PathLike[str]) -> Upload:
    """Return a reference image as it is; errors as of :func:`load_reference`."""
    return load_reference(path_or_uri, prepare=False).upload


def load_reference(
    path_or_uri: str | os.PathLike[str], *, prepare: bool, formats: Collection[str] = FORMATS
) -> Reference:
    """Return a reference image, read from a local path or any ``ObjectStoragePath`` (URI or object) and checked.

    :param prepare: Whether it is made fit where it is not: turned upright, converted to RGB, made smaller than 10 MB,
        converted to one of the formats.
    :param formats: Those that its model takes.
    :raises InvalidRequest: not there, not readable, no whole JPEG, PNG or WebP, or above 10 MiB (64 MiB where it is
        made smaller); nothing was sent.
    :raises ConfigurationError: no file system serves the scheme, or its connection is missing; nothing was sent.
    :raises TransientFailure: the storage could not be asked; nothing was sent.
    """
    uri = as_reference(path_or_uri)
    if not isinstance(uri, str):
        raise InvalidRequest(
            f"A reference image is a path or a URI, not {type(uri).__name__}. Nothing was sent and nothing charged."
        )
    shown = uri.partition("?")[0]
    try:
        with storage_failures(f"read reference image {shown!r}", Exception):
            content = _read(uri, shown, MAX_REFERENCE_BYTES)
            if not prepare:
                return _checked(content, uri)
            if len(content) <= MAX_REFERENCE_BYTES:
                return _fitted(content, uri, formats)
            del content
            with _LARGE_ONE:
                return _fitted(_read(uri, shown, MAX_BYTES), uri, formats)
    except StorageFailed as failure:
        raise TransientFailure(
            f"{failure.message}. Nothing was sent and nothing charged for it; a retry reads it again."
        ) from failure


def _checked(content: bytes, uri: str) -> Reference:
    mime_type = check_reference(content, name=_spoken(uri))
    upload = Upload(reference_name(uri, mime_type), content, mime_type)
    return Reference(upload, hashlib.sha256(content).hexdigest())


def _fitted(content: bytes, uri: str, formats: Collection[str]) -> Reference:
    digest = hashlib.sha256(content).hexdigest()
    fitted = fit_reference(content, name=_spoken(uri), formats=formats)
    mime_type = f"image/{fitted.facts.format}"
    sent = fitted.content if fitted.changes else content
    said = changes_in_words(fitted, len(content)) if fitted.changes else ""
    return Reference(Upload(reference_name(uri, mime_type), sent, mime_type), digest, said)


def _spoken(uri: str) -> str:
    return f"Reference image {uri.partition('?')[0]!r}"


def _format_of(upload: Upload) -> str:
    return upload.mime_type.removeprefix("image/")


def _read(uri: str, shown: str, most: int) -> bytes:
    try:
        with _opened(uri) as file:
            # One byte more than allowed tells "too large" without reading a whole film.
            content: bytes = file.read(most + 1)
            return content
    except LASTING_ERRORS as error:
        raise InvalidRequest(
            f"Reference image {shown!r} cannot be read ({type(error).__name__}: {error}). Give an http(s) URL, a local "
            "path or a storage URI that this worker can read; nothing was sent and nothing charged."
        ) from error


def _opened(uri: str) -> Any:
    """Return the open file, a context manager."""
    if (local := local_path(uri)) is not None:
        return local.open("rb")
    path = object_path(uri)
    shown = uri.partition("?")[0]
    require_connection(path, shown)
    # Not by the path itself, which tells hook-level lineage its URI with the connection id, out of any thread.
    return file_system(path, shown).open(str(path.path), "rb")


class ReferenceUploader:
    """The reference images of one run: each storage URI is read once, and each content uploaded once.

    Safe to use from several threads. Of the bytes, the last 24 MiB are kept; what was dropped is read again for its
    upload. ``digests`` is plain JSON that a later process of the same run can be given. Uploads are free, and nobody
    says how long one lives: each process uploads for itself.

    :param send: Uploads one image and returns its public URL.
    :param digests: Digests known from before, as in the property.
    :param bound: Whether retries go on with these digests, too.
    :param prepare: Whether images are made fit for the service, as :func:`load_reference` does.
    :ivar prepared: What was done to images that this object read, in words, by URI without query.
    """

    def __init__(
        self,
        send: Callable[[Upload], str],
        *,
        digests: Mapping[str, str] | None = None,
        bound: bool = False,
        prepare: bool = False,
    ) -> None:
        self._send = send
        self._prepare = prepare
        self.prepared: dict[str, str] = {}
        self._bound = bound
        self._digests: SingleFlight[str] = SingleFlight(digests)
        self._urls: SingleFlight[str] = SingleFlight()
        #: What was read, and what the models take that it is for, by the key of its URI.
        self._formats: dict[str, str] = {}
        self._taken: dict[str, tuple[str, ...]] = {}
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._kept_lock = threading.Lock()

    @classmethod
    def of(cls, session: ToApisSession, **known: Any) -> ReferenceUploader:
        """Return references that upload through a session; ``known`` as for the class."""
        return cls(session.upload, **known)

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 (64 hex digits) of every content read, by the first 16 hex digits of its URI's own."""
        return self._digests.values()

    def digest(self, uri: str) -> str:
        """Return the SHA-256 of a storage reference's content, in hex; errors as of :func:`read_reference`."""
        if is_link(uri):
            raise ValueError("an http(s) reference is fetched by the service only")
        uri = as_reference(uri)
        return self._digests.get(_uri_key(uri), lambda: self._keep(self._load(uri)))

    def known_digest(self, uri: str) -> str | None:
        """Return the SHA-256 of a storage reference's content where it was read, by this process or one before."""
        return None if is_link(uri) else self.digests.get(_uri_key(as_reference(uri)))

    def expect(self, requests: Iterable[ImageRequest]) -> None:
        """Take note of what the models of these requests take: what is prepared becomes one of that.

        Told before any of them is read, one upload serves all.
        """
        with self._kept_lock:
            for request in requests:
                for uri in _stored(request):
                    key = _uri_key(as_reference(uri))
                    taken = tuple(one for one in self._taken.get(key, FORMATS) if one in _taken_by(request))
                    self._taken[key] = taken or _taken_by(request)

    def check(self, request: ImageRequest) -> None:
        """Make sure that its model takes what was read and is sent as it is.

        Of links only the service knows what they are, and what is prepared is of a format that is taken.

        :raises InvalidRequest: It does not. Uploads are free, and nothing else was sent.
        """
        for uri in () if self._prepare else _stored(request):
            found = self._formats.get(_uri_key(as_reference(uri)), "")
            if found and found not in _taken_by(request):
                raise InvalidRequest(
                    f"{_spoken(uri)} is {found.upper()}, and {request.model} takes "
                    f"{' or '.join(one.upper() for one in _taken_by(request))}. Convert it, or have it "
                    "converted: prepare_references=True. Nothing was bought and nothing charged."
                )

    def fingerprint(self, request: ImageRequest) -> str:
        """Return the hash of a request with storage references taken by content; errors as of :meth:`digest`."""
        self.expect([request])
        return request.fingerprint({uri: self.digest(uri) for uri in request.reference_images if not is_link(uri)})

    def url(self, uri: str) -> str:
        """Return where the service finds a reference: an http(s) URL as it is, a storage reference's upload.

        :raises TransientFailure: The content is not the one that ``digest`` saw; a retry takes the new one.
        :raises InvalidRequest: The same, and a retry does not.
        """
        if is_link(uri):
            return uri
        uri = as_reference(uri)
        digest = self.digest(uri)
        key = " ".join((digest, *self._formats_for(uri)))
        return self._urls.get(key, lambda: self._send(self._content(uri, digest)))

    def uploaded(self, request: ImageRequest) -> ImageRequest:
        """Return the request with public URLs only; all references are checked before the first is uploaded."""
        _warn_of_many(request)
        self.expect([request])
        for uri in _stored(request):
            self.digest(uri)
        self.check(request)
        sent = request.model_copy(update={"reference_images": tuple(map(self.url, request.reference_images))})
        # Where a process before this one knew the digests, they were read just now.
        self.check(request)
        return sent

    def _content(self, uri: str, digest: str) -> Upload:
        with self._kept_lock:
            kept = self._kept.get(digest)
        if kept is not None and (not self._prepare or _format_of(kept) in self._formats_for(uri)):
            return kept
        reference = self._load(uri)
        if self._keep(reference) != digest:
            changed = f"Reference image {uri.partition('?')[0]!r} changed since it was read first"
            free = "Nothing was sent and nothing charged for it"
            if self._bound:
                raise InvalidRequest(f"{changed}. {free}; clear the task to take the new content.")
            raise TransientFailure(f"{changed}. {free}; a retry takes the new content.")
        return reference.upload

    def _formats_for(self, uri: str) -> tuple[str, ...]:
        return self._taken.get(_uri_key(uri), FORMATS)

    def _load(self, uri: str) -> Reference:
        reference = load_reference(uri, prepare=self._prepare, formats=self._formats_for(uri))
        self._formats[_uri_key(uri)] = reference.format
        if reference.prepared:
            self.prepared[uri.partition("?")[0]] = reference.prepared
        return reference

    def _keep(self, reference: Reference) -> str:
        """Keep the bytes for a while and return the digest of those that were read."""
        digest = reference.digest
        with self._kept_lock:
            self._kept[digest] = reference.upload
            self._kept.move_to_end(digest)
            while sum(len(kept.content) for kept in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return digest


def _stored(request: ImageRequest) -> list[str]:
    return [uri for uri in request.reference_images if not is_link(uri)]


def _taken_by(request: ImageRequest) -> tuple[str, ...]:
    return FORMATS if request.row is None else request.row.reference_formats


def _warn_of_many(request: ImageRequest) -> None:
    documented = None if request.row is None else request.row.warn_references
    if documented is not None and request.sent_references > documented:
        said = "%d reference images; newer docs speak of at most %d for this model."
        log.warning(said, request.sent_references, documented)


def _uri_key(uri: str) -> str:
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:16]
