"""The poller's line to one account: the client made from the connection, and made anew when that changes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.toapis.protocol import status_call
from airflow_provider_nanobanana.toapis.session import open_async_client

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.client import AsyncToApisClient
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

log = logging.getLogger(__name__)

OnHeaders = Callable[[Mapping[str, str]], None]
#: Reads a connection by its id without blocking the event loop.
ReadSettings = Callable[[str], Awaitable["ToApisSettings"]]

#: How old a connection may be, and how soon a refused key may make us read it again; seconds.
_OLDEST: Final = 300.0
_OLDEST_REFUSED: Final = 10.0
#: Calls under way at once: the account's rate times a slow answer (seconds), within these bounds.
_SLOW_ANSWER: Final = 1.0
_FEWEST, _MOST = 8, 128
#: What a look-up raises: "not defined" also while Airflow's database is away, a secrets backend that denies access
#: (a PermissionError), a supervisor that does not answer, a connection of another shape.
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
        concurrency = min(max(_FEWEST, math.ceil(settings.query_rate * _SLOW_ANSWER)), _MOST)
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
    """The line in use; replaced when the connection holds something else.

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
        self._lines: list[StatusClient] = []
        self._lock = asyncio.Lock()
        self._read_at = -math.inf
        self._refused_at = -math.inf

    @property
    def current(self) -> StatusClient:
        """The line in use; :meth:`open` came before."""
        return self._lines[-1]

    @property
    def stale(self) -> bool:
        """Whether the connection should be read again."""
        return self._clock() - self._read_at > _OLDEST

    async def open(self) -> bool:
        """Connect; say whether this call did it.

        :raises NanoBananaException: the connection cannot be used; what is wrong with it.
        """
        async with self._lock:
            return not self._lines and await self._follow()

    async def renew_refused(self, refused: StatusClient) -> bool:
        """Say whether another key has taken the place of a refused one; it is read at most every 10 s."""
        async with self._lock:
            if self.current is not refused:
                return True
            if self._clock() - self._refused_at < _OLDEST_REFUSED:
                return False
            self._refused_at = self._clock()
            return await self._follow_if_readable()

    async def refresh(self) -> bool:
        """Read the connection again; say whether it holds something else now."""
        async with self._lock:
            return self.stale and await self._follow_if_readable()

    async def aclose(self) -> None:
        """Close the connections of every line."""
        # What has been seen by now must not be lost to a connection that ends badly.
        await asyncio.gather(*(line.aclose() for line in self._lines), return_exceptions=True)

    async def _follow_if_readable(self) -> bool:
        try:
            return await self._follow()
        except _UNREADABLE as error:
            # Its text may quote what it read.
            said = error if isinstance(error, AirflowException) else type(error).__name__
            log.warning("Connection %r cannot be read anew; going on as before. %s", self._conn_id, said)
            return False

    async def _follow(self) -> bool:
        self._read_at = self._clock()
        settings = await self._read_settings(self._conn_id)
        if self._lines and settings == self.current.settings:
            return False
        # The former line stays open for the calls under way on it; those on the one before have ended.
        self._lines.append(await self._connect(settings, self._on_headers))
        for line in self._lines[:-2]:
            self._lines.remove(line)
            await line.aclose()
        return True
