"""From a completed image task to images in storage: links are tried, asked for again while they live, then given up."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from airflow_provider_nanobanana.landing import Landing, StoredImage, decode_b64, stem_for
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.address import policy_for
from airflow_provider_nanobanana.toapis.download import LinkFetcher
from airflow_provider_nanobanana.toapis.http import shared_ssl_context
from airflow_provider_nanobanana.toapis.models import GeneratedImage, ImageTaskStatus
from airflow_provider_nanobanana.toapis.protocol import status_call
from airflow_provider_nanobanana.toapis.route import system_resolve

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook

log = logging.getLogger(__name__)

#: Seconds before each further try of one image; every try after the first asks the service for the link anew.
_RETRY_DELAYS: Final = (1.0, 2.0, 4.0)
_LOST: Final = (errors.DownloadFailed, errors.ImageInvalid, errors.UnsafeAddress, errors.ResultMissing)


class Retrieval:
    """Lands images of one account in one destination; safe to use from several threads.

    :param hook: Asks for fresh links; its API key goes to the gateway only.
    :param destination: Any ``ObjectStoragePath`` URI of a folder, or a local path.
    """

    def __init__(self, hook: NanoBananaHook, destination: str) -> None:
        self._hook = hook
        #: The destination itself: what is in place there, and the manifest.
        self.landing = Landing(destination)
        self.landing.check_writable()
        self._policy = policy_for(hook.settings.base_url, system_resolve)
        self._timeout = hook.settings.timeout
        self._idle: deque[LinkFetcher] = deque()
        self._sleep = hook.sleep

    def __enter__(self) -> Retrieval:
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._idle:
            self._idle.pop().close()

    def land(
        self,
        image: GeneratedImage | Mapping[str, Any],
        expected_pixels: tuple[int, int] | None = None,
        *,
        stem: str | None = None,
    ) -> StoredImage:
        """Land one image, or find it landed.

        :param expected_pixels: Width and height asked for; another size is landed with a warning.
        :param stem: Name without suffix; from the image task's id and the index when absent.
        :raises ToApisError: ``ResultExpired`` when the paid image is lost for good.
        """
        wanted = _parse(image)
        name = stem_for(wanted.id, wanted.index) if stem is None else stem
        for delay in (*_RETRY_DELAYS, None):
            try:
                write = partial(self._write, wanted)
                return self.landing.land(name, wanted.id, wanted.index, write, expected_pixels)
            except _LOST as error:
                if delay is None:
                    raise
                log.warning("Image %s/%d: %s Asking for its link again.", wanted.id, wanted.index, error.message)
                self._sleep(delay)
            wanted = self._ask_again(wanted)
        raise AssertionError("the last try returns or raises")

    def write_manifest(self, name: str, data: Mapping[str, Any]) -> str:
        """Write the manifest beside the images and return its URI."""
        return self.landing.write_manifest(name, data)

    def _write(self, image: GeneratedImage, sink: BinaryIO) -> None:
        """Write an image's inline bytes, or what its link serves; without either, ask for it first."""
        if image.url is None and image.b64_json is None:
            image = self._ask_again(image)
        if image.b64_json is not None:
            try:
                decode_b64(image.b64_json, sink)
                return
            except errors.ImageInvalid:
                if image.url is None:
                    raise
                sink.seek(0)
                sink.truncate()
        if image.url is None:
            raise errors.ResultMissing(f"Image task {image.id} names no image {image.index}.", image_task_id=image.id)
        with self._fetcher() as fetcher:
            fetcher.fetch(image.url, sink)

    @contextmanager
    def _fetcher(self) -> Iterator[LinkFetcher]:
        """Lend a fetcher that nobody else uses meanwhile: its connections are not shared between threads."""
        try:
            fetcher = self._idle.pop()
        except IndexError:
            fetcher = LinkFetcher(self._policy, ssl_context=shared_ssl_context(), timeout=self._timeout)
        try:
            yield fetcher
        finally:
            self._idle.append(fetcher)

    def _ask_again(self, image: GeneratedImage) -> GeneratedImage:
        image_task = self._hook.client.call(status_call(image.id))
        now = time.time()
        past = image_task.status is ImageTaskStatus.COMPLETED and now >= image_task.expires(now)
        if past or image_task.expired_at_service:
            raise errors.ResultExpired(
                f"Image task {image.id} is paid, but its link expired before image {image.index} was landed; it is "
                "lost. Clear the task that submitted it to buy it anew.",
                image_task_id=image.id,
            )
        for candidate in image_task.images:
            if candidate.index == image.index:
                return candidate
        return image.model_copy(update={"url": None, "b64_json": None})


def _parse(image: GeneratedImage | Mapping[str, Any]) -> GeneratedImage:
    if isinstance(image, GeneratedImage):
        return image
    image_task_id, index, url = image.get("id"), image.get("index", 0), image.get("url")
    if (
        not isinstance(image_task_id, str)
        or not image_task_id
        or not isinstance(index, int)
        or not isinstance(url, str | None)
    ):
        raise errors.InvalidRequest(
            "An image to land is a mapping with 'id' (text), 'index' (number) and 'url' (text or None)."
        )
    return GeneratedImage(id=image_task_id, index=index, url=url)
