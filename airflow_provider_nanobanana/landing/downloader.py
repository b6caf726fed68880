"""ImageDownloader: from a completed image task to images in storage.

A link that does not serve is tried again with a fresh one from the service, for free, until it expires.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from airflow_provider_nanobanana.landing.address_policy import address_policy_for, system_resolve
from airflow_provider_nanobanana.landing.file_names import stem_for
from airflow_provider_nanobanana.landing.image_file import MAX_BYTES, decode_b64
from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage
from airflow_provider_nanobanana.landing.link_fetcher import LinkFetcher
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.http import LendingPool
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.models import GeneratedImage
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.suspects import OnSuspect, SuspectCode
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = LineLogger(__name__)

#: Seconds before each further try of one image; every try after the first asks the service for a fresh link.
_RETRY_DELAYS: Final = (1.0, 2.0, 4.0)
#: What an entry of a sensor may say; ids of the service have some 30 characters, its results a handful of images.
_MAX_ID: Final = 200
_MAX_INDEX: Final = 9_999


class ImageDownloader:
    """Lands images of one account in one destination; safe to use from several threads.

    :param session: Asks for fresh links; its API key goes to the gateway only.
    :param destination: Any ``ObjectStoragePath`` URI of a folder, or a local path.
    :param on_suspect: What becomes of suspect pictures, as :meth:`ImageStore.land` takes it.
    :param thumbnails: As :class:`ImageStore` takes it.
    """

    def __init__(
        self, session: ToApisSession, destination: str, *, on_suspect: OnSuspect = "warn", thumbnails: bool = False
    ) -> None:
        self._session = session
        self.on_suspect = on_suspect
        #: The destination itself: what is in place there, and the manifest.
        self.store = ImageStore(destination, thumbnails=thumbnails)
        self.store.check_writable()
        policy = address_policy_for(session.settings.base_url, system_resolve)
        self._fetchers = LendingPool(
            partial(LinkFetcher, policy, timeout=session.settings.timeout), lambda fetcher: fetcher.close()
        )

    def __enter__(self) -> ImageDownloader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._fetchers.close()

    def land(
        self,
        image: GeneratedImage | Mapping[str, Any],
        expected_pixels: tuple[int, int] | None = None,
        *,
        stem: str | None = None,
        sent: Collection[str] | None = None,
        on_in_place: Callable[[StoredImage], None] | None = None,
        judge: Callable[[StoredImage], Collection[SuspectCode]] | None = None,
    ) -> StoredImage:
        """Land one image, or find it landed.

        :param expected_pixels: Width and height asked for; another size makes the picture suspect.
        :param stem: Name without suffix; from the image task's id and the index when absent.
        :param sent: ``ImageRequest.sent_links()`` of its request, where that is known; none of them is a result.
        :param on_in_place: As :meth:`ImageStore.land` takes it; so is ``judge``.
        :raises ToApisError: And nothing else, whatever the link, the file or the store does. ``ResultExpired`` when the
            paid image is lost for good; ``ImageInvalid``, with what was ``kept``, when the same bytes came twice,
            or took too much to decode once; ``ImageSuspect``, likewise, when the picture is in quarantine.
        """
        wanted = _parse(image)
        name = stem_for(wanted.id, wanted.index) if stem is None else stem
        seen: set[str] = set()
        for delay in (*_RETRY_DELAYS, None):
            try:
                write = partial(self._write, wanted, sent=sent)
                return self.store.land(
                    *(name, wanted.id, wanted.index, write, expected_pixels),
                    on_in_place=on_in_place,
                    on_suspect=self.on_suspect,
                    judge=judge,
                )
            except errors.RESULT_ERRORS as error:
                # What took too long once would again; beside inline bytes there may be a link.
                too_costly = isinstance(error, errors.ImageTooCostly) and wanted.b64_json is None
                if delay is None or too_costly or _came_before(error, seen):
                    raise
                words = error.message.rstrip(".")
                log.warning("Image %s/%d: %s. Asking for its link again.", wanted.id, wanted.index, words)
                self._session.sleep(delay)
                inline_failed = isinstance(error, errors.ImageInvalid) and wanted.b64_json is not None
            wanted = self._ask_again(wanted, sent)
            if inline_failed and wanted.url is not None:
                wanted = wanted.model_copy(update={"b64_json": None})
        raise AssertionError("the last try returns or raises")

    def _write(self, image: GeneratedImage, sink: BinaryIO, sent: Collection[str] | None = None) -> bool:
        """Write an image's inline bytes, or what its link serves; without either, ask for it first.

        :return: Whether it is known that this was all.
        """
        if image.url is None and image.b64_json is None:
            image = self._ask_again(image, sent)
        if image.b64_json is not None:
            try:
                decode_b64(image.b64_json, sink)
                return True
            except errors.ImageInvalid:
                sink.seek(0)
                sink.truncate()
                if image.url is None:
                    # What was paid came as this text: it is kept as it is.
                    sink.write(image.b64_json.encode("utf-8", "surrogatepass")[:MAX_BYTES])
                    raise
        if image.url is None:
            raise errors.ResultMissing(f"Image task {image.id} names no image {image.index}.", image_task_id=image.id)
        with self._fetchers.lend() as fetcher:
            return fetcher.fetch(image.url, sink)

    def _ask_again(self, image: GeneratedImage, sent: Collection[str] | None) -> GeneratedImage:
        image_task = self._session.get_task(image.id, sent)
        now = self._session.clock()
        past = image_task.status is ImageTaskStatus.COMPLETED and now >= image_task.expires(now)
        if past or image_task.expired_at_service:
            raise errors.ResultExpired(
                f"Image task {image.id} is paid, but its link expired before image {image.index} was landed; it is "
                "lost. Clear the task that submitted it to buy it again.",
                image_task_id=image.id,
            )
        for candidate in image_task.images:
            if candidate.index == image.index:
                return candidate
        return image.model_copy(update={"url": None, "b64_json": None})


def _came_before(error: errors.ToApisError, seen: set[str]) -> bool:
    """Say whether the bytes that failed a check came before; a third download would bring them again."""
    digest = str((error.kept or {}).get("sha256", ""))
    if not digest or digest in seen:
        return bool(digest)
    seen.add(digest)
    return False


def _parse(image: GeneratedImage | Mapping[str, Any]) -> GeneratedImage:
    """Parse an image as it comes through XCom; a link that cannot be sent is left out, to be asked for again."""
    if isinstance(image, GeneratedImage):
        return image
    image_task_id, index, url = image.get("id"), image.get("index", 0), image.get("url")
    if (
        not isinstance(image_task_id, str)
        or not image_task_id.isprintable()
        or not 0 < len(image_task_id) <= _MAX_ID
        or type(index) is not int
        or not 0 <= index <= _MAX_INDEX
        or not isinstance(url, str | None)
    ):
        raise errors.InvalidRequest(
            f"An image to land is a mapping with 'id' (text of up to {_MAX_ID} characters), 'index' (number from 0 to "
            f"{_MAX_INDEX}) and 'url' (text or None)."
        )
    return GeneratedImage(id=image_task_id, index=index, url=url if url and url.isprintable() else None)
