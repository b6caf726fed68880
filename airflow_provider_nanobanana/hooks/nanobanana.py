"""``NanoBananaHook``: the connection, and every call to the gateway; its async methods are for a user's own async code.

The provider's triggers take only :meth:`NanoBananaHook.asettings` of it: their polls go through ``polling.poller``.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_nanobanana import lineage, worker_threads
from airflow_provider_nanobanana.exceptions import NanoBananaException, airflow_errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK

if TYPE_CHECKING:
    import os
    from datetime import datetime

    from airflow_provider_nanobanana.landing.image_store import StoredImage
    from airflow_provider_nanobanana.toapis.client import AsyncToApisClient, ToApisClient
    from airflow_provider_nanobanana.toapis.models import GeneratedImage, ImageRequest, ImageTask
    from airflow_provider_nanobanana.toapis.responses import Balance
    from airflow_provider_nanobanana.toapis.session import ToApisSession
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

log = LineLogger(__name__)


class NanoBananaHook(BaseHook):
    """Talk to Nano Banana 2 through the ToAPIs gateway.

    A context manager; HTTP connections are kept open until :meth:`close`. Every method raises
    ``NanoBananaFailException`` for what no retry can help and ``NanoBananaException`` for the rest; both name what
    happened to the money (``charged``: ``no``, ``yes`` or ``unknown``) and the image task, where there is one.

    :param nanobanana_conn_id: Id of a connection of type ``nanobanana``.
    """

    conn_name_attr = "nanobanana_conn_id"
    default_conn_name = "nanobanana_default"
    conn_type = "nanobanana"
    hook_name = "Nano Banana (ToAPIs)"

    #: How this hook waits, in seconds, and tells the time, in epoch seconds; a test puts a clock of its own here.
    sleep: Callable[[float], None] = staticmethod(worker_threads.sleep)
    clock: Callable[[], float] = staticmethod(time.time)

    def __init__(self, nanobanana_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.nanobanana_conn_id = nanobanana_conn_id
        self._settings: ToApisSettings | None = None
        self._client: ToApisClient | None = None
        self._building = threading.Lock()
        self._async_client: AsyncToApisClient | None = None

    # --- connection ------------------------------------------------------------------------------------------------

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how Airflow before 3.2 shows the connection's form; newer ones read it from the provider info."""
        from airflow_provider_nanobanana.get_provider_info import get_provider_info

        (connection,) = get_provider_info()["connection-types"]
        behaviour = connection["ui-field-behaviour"]
        return {key.replace("-", "_"): value for key, value in behaviour.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection's form for Airflow before 3.2; newer ones read the provider info.

        ``prices`` and ``models`` are objects, for which those forms have no field: they stay in the JSON of ``extra``.

        :raises ImportError: There is no WTForms; Airflow then shows these fields as the JSON of ``extra``.
        """
        from wtforms import BooleanField, StringField

        from airflow_provider_nanobanana.get_provider_info import get_provider_info

        (connection,) = get_provider_info()["connection-types"]
        widgets = {}
        for name, field in connection["conn-fields"].items():
            types = field["schema"]["type"]
            if "object" in types:
                continue
            is_switch = "boolean" in types
            # An empty text is a field that is not set. A switch has no such state: its default is what it shows.
            more = {"default": field["schema"]["default"]} if is_switch else {}
            kind = BooleanField if is_switch else StringField
            widgets[name] = kind(field["label"], description=field["description"], **more)
        return widgets

    @property
    def settings(self) -> ToApisSettings:
        """What the connection holds, read once per hook.

        :raises NanoBananaFailException: The connection cannot be used; the message names the field.
        """
        if self._settings is None:
            from airflow_provider_nanobanana.hooks.connection import read_connection

            with SUPERVISOR_LOCK, airflow_errors():
                connection = self.get_connection(self.nanobanana_conn_id)
                self._settings = read_connection(connection, connection.extra_dejson)
        return self._settings

    async def asettings(self) -> ToApisSettings:
        """Return what the connection holds, looked up without blocking the event loop; errors as of ``settings``."""
        if self._settings is None:
            from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

            from airflow_provider_nanobanana.hooks.connection import read_connection

            connection = await get_async_connection(self.nanobanana_conn_id, hook=self)
            extra = await get_async_extra_dejson(connection)
            with airflow_errors():
                self._settings = read_connection(connection, extra)
        return self._settings

    @property
    def session(self) -> ToApisSession:
        """The connection as everything below the hook uses it; its calls raise the gateway's errors, not Airflow's.

        :raises NanoBananaFailException: The connection cannot be used; nothing was sent.
        """
        from airflow_provider_nanobanana.toapis.session import ToApisSession

        # Not kept: a session refers to its hook, and a hook that nobody else refers to closes its connections.
        return ToApisSession(self.settings, self.nanobanana_conn_id, self._connect, self.clock, self.sleep)

    @property
    def client(self) -> ToApisClient:
        """The blocking client; its calls raise the gateway's errors, not Airflow's.

        :raises NanoBananaFailException: The connection or the environment cannot be used; nothing was sent.
        """
        with airflow_errors():
            return self._connect()

    def _connect(self) -> ToApisClient:
        """Return the blocking client, built at the first call.

        :raises ConfigurationError: Key, host, proxy or certificates cannot be used.
        """
        settings = self.settings
        with self._building:
            if self._client is None:
                from airflow_provider_nanobanana.toapis.client import ToApisClient

                self._client = ToApisClient(
                    settings.base_url,
                    settings.api_key.get_secret_value(),
                    timeout=settings.timeout,
                    sleep=self.sleep,
                    before_send=worker_threads.check_not_stopped,
                )
                # Closed at the latest with the hook: in a @task function nobody thinks of close().
                weakref.finalize(self, self._client.close)
            return self._client

    async def aclient(self) -> AsyncToApisClient:
        """Return the asyncio client; its calls raise the gateway's errors, not Airflow's."""
        from airflow_provider_nanobanana.toapis.session import open_async_client

        settings = await self.asettings()
        client = self._async_client
        if client is None:
            with airflow_errors():
                client = await open_async_client(settings)
            if self._async_client is not None:
                # Another call opened one meanwhile.
                await client.aclose()
                return self._async_client
            self._async_client = client
        return client

    def get_conn(self) -> ToApisClient:
        """Return the client, as Airflow's other hooks do."""
        return self.client

    def close(self) -> None:
        """Close the blocking client's connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Close the asyncio client's connections."""
        client = self._async_client
        self._async_client = None
        if client is not None:
            await client.aclose()

    def __enter__(self) -> NanoBananaHook:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> NanoBananaHook:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    # --- image tasks -----------------------------------------------------------------------------------------------

    def parse_request(self, request: ImageRequest | Mapping[str, Any]) -> ImageRequest:
        """Return a request with the connection's model filled in, checked; nothing is sent."""
        from airflow_provider_nanobanana.toapis.models import ImageRequest

        with airflow_errors():
            return ImageRequest.parse(request, self.settings.model, models=self.settings.models)

    def submit(
        self,
        request: ImageRequest | Mapping[str, Any],
        *,
        client_business_id: str | None = None,
        submitted_before: datetime | None = None,
    ) -> ImageTask:
        """Buy one image and return its image task; reference images in storage are checked and uploaded first.

        Waits as long as the account's ``submit_rate`` asks. The image task is seldom completed: poll it with
        :meth:`get_task`, then call :meth:`download`.

        :param request: An :class:`ImageRequest`, or a mapping with its keys (``prompt``, ``size``, ``resolution``,
            ``reference_images``, ``model``, ``response_format``, ``extra_body``).
        :param client_business_id: The id to find this submit by; that of an earlier call finds its image task instead
            of buying another (docs/toapis.md, "Client ids").
        :param submitted_before: When an earlier call with that id left at the latest, with a time zone: what it bought
            may be out of sight for 90 s more. None: there was none, or long ago.
        :raises NanoBananaException: Refused, not accepted, or (``charged == "unknown"``) not known to be.
        """
        from airflow_provider_nanobanana.submission.standalone import submit_standalone

        parsed = self.parse_request(request)
        with airflow_errors():
            image_task = submit_standalone(self.session, parsed, client_business_id, submitted_before)
        lineage.report(self, inputs=lambda: parsed.reference_images)
        return image_task

    def get_task(self, image_task_id: str) -> ImageTask:
        """Return one image task as it is now; free, and repeated on transient failures.

        :param image_task_id: Its id, or the ``client_business_id`` that this package gave it.
        :raises NanoBananaException: The account does not know the id, or not yet (docs/toapis.md, "Status"); or the
            gateway could not be asked.
        """
        with airflow_errors():
            return self.session.get_task(image_task_id)

    async def aget_task(self, image_task_id: str) -> ImageTask:
        """Return one image task as :meth:`get_task`, for asyncio code; not repeated, since the caller polls again."""
        from airflow_provider_nanobanana.toapis.protocol import status_call

        client = await self.aclient()
        with airflow_errors():
            return await client.call(status_call(image_task_id))

    def upload(self, path_or_uri: str | os.PathLike[str]) -> str:
        """Upload a reference image (JPEG, PNG or WebP, at most 10 MB) and return its public URL; free.

        :param path_or_uri: A local path or any ``ObjectStoragePath``, as text or as object.
        :raises NanoBananaFailException: unreadable, too large or of another format; nothing is charged.
        """
        from airflow_provider_nanobanana.submission.references import read_reference
        from airflow_provider_nanobanana.toapis.request_values import as_reference

        with airflow_errors():
            url = self.session.upload(read_reference(path_or_uri))
        lineage.report(self, inputs=lambda: [str(as_reference(path_or_uri))])
        return url

    def download(
        self,
        image: GeneratedImage | Mapping[str, Any],
        destination: str,
        request: ImageRequest | Mapping[str, Any] | None = None,
    ) -> StoredImage:
        """Land one image of a completed image task, verified, and return where it is and what was checked.

        The file's name follows from the id: a second call finds the image in place and downloads nothing.

        :param image: A :class:`GeneratedImage`, or a mapping with ``id``, ``index`` and ``url``; without a usable link
            the service is asked for it again.
        :param destination: Any ``ObjectStoragePath`` URI of a folder, or a local path.
        :param request: What was asked for; an image of another pixel size is landed with a warning, as is one that
            looks empty, and none of its own references is taken for a result.
        :raises NanoBananaFailException: The link has expired for good (24 hours, docs/toapis.md, "Result links"), or
            the bytes are no image.
        :raises NanoBananaException: The image could not be fetched or stored now; a retry is free.
        """
        from airflow_provider_nanobanana.landing.downloader import ImageDownloader

        asked = None if request is None else self.parse_request(request)
        pixels, sent = (None, None) if asked is None else (asked.expected_pixels(), asked.sent_links())
        with airflow_errors(), ImageDownloader(self.session, destination) as downloader:
            stored = downloader.land(image, pixels, sent=sent)
        lineage.report(self, outputs=lambda: [stored.uri])
        if stored.suspect:
            from airflow_provider_nanobanana.landing.suspects import in_words

            size = f"{stored.width}x{stored.height} pixels"
            wanted = f"{size}, asked for {pixels[0]}x{pixels[1]}" if pixels else size
            log.warning("%s is suspect: %s (%s)", stored.uri, in_words(stored.suspect), wanted)
        return stored

    # --- account ---------------------------------------------------------------------------------------------------

    def balance(self, *, of_key: bool = False) -> Balance:
        """Return what the account has left, in credits and USD; free.

        :param of_key: Return what this key may still spend of it instead.
        """
        with airflow_errors():
            return self.session.balance(of_key=of_key)

    def models(self) -> list[str]:
        """Return the ids of the image models that this key sees; free."""
        with airflow_errors():
            return self.session.models()

    def test_connection(self) -> tuple[bool, str]:
        """Check key, host, credits and model with free calls; never buys an image, never shows the key."""
        from airflow_provider_nanobanana.hooks.connection import check_account, failure_text

        try:
            return check_account(self.settings.model, self.models, self.balance, self.settings.models)
        except NanoBananaException as failure:
            return False, failure_text(failure.error, self._settings)
