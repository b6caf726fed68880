"""RenewingStatusClient: polls with what the connection holds now, key and host included.

A poller lives for days: the connection is read again every five minutes, and when its key is refused.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.protocol import status_call
from airflow_provider_nanobanana.toapis.session import open_async_client

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.client import AsyncToApisClient
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

log = LineLogger(__name__)

OnHeaders = Callable[[Mapping[str, str]], None]
#: Reads a connection by its id without blocking the event loop.
ReadSettings = Callable[[str], Awaitable["ToApisSettings"]]

#: How old a read connection may be, and how soon after another refused key it is read again; seconds.
_OLDEST: Final = 300.0
_OLDEST_REFUSED: Final = 10.0
#: Calls under way at once: the account's rate times a slow answer (seconds), within these bounds.
_SLOW_ANSWER: Final = 1.0
_FEWEST_CALLS: Final = 8
_MOST_CALLS: Final = 128
#: What reading a connection raises: "not defined" also while Airflow's database is away, a secrets backend that denies
#: access (a PermissionError), a supervisor that does not answer, a connection of another shape.
_UNREADABLE: Final = (AirflowException, OSError, RuntimeError, ValueError)


class StatusClient:
    """Asks for image tasks with one key.

    :param concurrency: Calls under way at once.
    """

    def __init__(self, settings: ToApisSettings, client: AsyncToApisClient, concurrency: int) -> None:
        self.settings = settings
        self.concurrency = concurrency
        self._client = client

    @classmethod
    async def open(cls, settings: ToApisSettings, on_headers: OnHeaders) -> StatusClient:
        """Connect to an account.

        :param on_headers: Called with the headers of each answer.
        :raises NanoBananaException: No request can be made with such a key, host or environment.
        """
        concurrency = min(max(_FEWEST_CALLS, math.ceil(settings.query_rate * _SLOW_ANSWER)), _MOST_CALLS)
        with airflow_errors():
            client = await open_async_client(settings, concurrency=concurrency, on_headers=on_headers)
        return cls(settings, client, concurrency)

    async def poll(self, image_task_id: str) -> ImageTask:
        """Ask for one image task, once.

        :raises ToApisError: the one error of the answer.
        """
        return await self._client.call(status_call(image_task_id))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class RenewingStatusClient:
    """The client in use; replaced when the connection holds something else.

    :param read_settings: Reads the connection; asked again every five minutes, and when its key is refused.
    :param on_headers: Called with the headers of each answer.
    :param clock: Seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        nanobanana_conn_id: str,
        read_settings: ReadSettings,
        on_headers: OnHeaders,
        clock: Callable[[], float],
        *,
        connect: Callable[[ToApisSettings, OnHeaders], Awaitable[StatusClient]] = StatusClient.open,
    ) -> None:
        self._conn_id = nanobanana_conn_id
        self._read_settings = read_settings
        self._on_headers = on_headers
        self._clock = clock
        self._connect = connect
        self._clients: list[StatusClient] = []
        self._lock = asyncio.Lock()
        self._read_at = -math.inf
        self._refused_at = -math.inf

    @property
    def current(self) -> StatusClient:
        """The client in use; :meth:`open` was called before."""
        return self._clients[-1]

    @property
    def stale(self) -> bool:
        """Whether the connection should be read again."""
        return self._clock() - self._read_at > _OLDEST

    async def open(self) -> bool:
        """Connect, and return whether this call did it.

        :raises NanoBananaException: the connection cannot be used; what is wrong with it.
        """
        async with self._lock:
            return not self._clients and await self._connect_if_changed()

    async def renew_refused(self, refused: StatusClient) -> bool:
        """Return whether another key has replaced a refused one; the connection is read at most every 10 s."""
        async with self._lock:
            if self.current is not refused:
                return True
            if self._clock() - self._refused_at < _OLDEST_REFUSED:
                return False
            self._refused_at = self._clock()
            return await self._try_connect_if_changed()

    async def refresh(self) -> bool:
        """Read the connection again if it is stale, and return whether it holds something else now."""
        async with self._lock:
            return self.stale and await self._try_connect_if_changed()

    async def aclose(self) -> None:
        """Close the connections of every client."""
        # What has been seen by now must not be lost to a connection that ends badly.
        await asyncio.gather(*(client.aclose() for client in self._clients), return_exceptions=True)

    async def _try_connect_if_changed(self) -> bool:
        try:
            return await self._connect_if_changed()
        except _UNREADABLE as error:
            # Its text may quote what was read.
            said = error if isinstance(error, AirflowException) else type(error).__name__
            log.warning("Connection %r cannot be read again; going on as before. %s", self._conn_id, said)
            return False

    async def _connect_if_changed(self) -> bool:
        self._read_at = self._clock()
        settings = await self._read_settings(self._conn_id)
        if self._clients and settings == self.current.settings:
            return False
        # The former client stays open for its calls in flight; those of the one before it have ended.
        self._clients.append(await self._connect(settings, self._on_headers))
        for client in self._clients[:-2]:
            self._clients.remove(client)
            await client.aclose()
        return True
