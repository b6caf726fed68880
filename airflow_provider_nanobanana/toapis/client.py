"""Two thin httpx shells over the protocol: they send, wait and read, and decide nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, TypeVar

from airflow_provider_nanobanana.toapis.answers import Answer, NoAnswer
from airflow_provider_nanobanana.toapis.cutoff import Cutoff
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, ToApisError
from airflow_provider_nanobanana.toapis.http import httpx, shared_ssl_context
from airflow_provider_nanobanana.toapis.protocol import MAX_ANSWER_BYTES, ApiCall, RetryPolicy

T = TypeVar("T")

#: The request never left: name resolution, refused, connect timeout, TLS and proxy handshakes, no free connection.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_CONNECT_SECONDS: Final = 10.0
#: Connections of one httpx client (measured: 128 in one pool 34 calls/s, in 16 pools of 8 488 calls/s).
_LANE_WIDTH: Final = 8
_KEEP_ALIVE: Final = 60.0


class _Base:
    """What both clients know: where to send, with which key, how long to wait."""

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float = 30.0, policy: RetryPolicy | None = None
    ) -> None:
        if not api_key.isascii() or not api_key.isprintable() or not api_key.strip():
            raise ConfigurationError("The API key (the connection's password) is empty or holds characters no key has.")
        try:
            httpx.URL(base_url).host.encode("idna")
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ConfigurationError("The host holds a name that cannot be looked up.") from error
        self._base_url = base_url
        self._key = api_key.strip()
        self._timeout = timeout
        self._policy = policy or RetryPolicy()

    def _options(self) -> dict[str, Any]:
        connect = min(self._timeout / 2, _CONNECT_SECONDS)
        return {
            "base_url": self._base_url,
            "headers": {"Authorization": f"Bearer {self._key}", "Accept": "application/json"},
            # A connection that is never made must fail as that, before the whole call's time is up.
            "timeout": httpx.Timeout(self._timeout, connect=connect, pool=connect),
            "verify": shared_ssl_context(),
            # A followed redirect could repeat a paid POST, or carry the key elsewhere.
            "follow_redirects": False,
        }

    @staticmethod
    def _content(call: ApiCall[Any]) -> dict[str, Any]:
        content: dict[str, Any] = {"params": dict(call.params)} if call.params else {}
        if call.body is not None:
            content["json"] = dict(call.body)
        if call.upload is not None:
            content["files"] = {"file": (call.upload.filename, call.upload.content, call.upload.mime_type)}
            content["data"] = {"purpose": "generation"}
        return content

    def _answer(self, response: httpx.Response, body: bytes) -> Answer:
        return Answer(response.status_code, dict(response.headers), body, self._key, self._base_url)

    @staticmethod
    def _failure(error: Exception) -> NoAnswer:
        reason = str(error).strip() or "no details"
        return NoAnswer(sent=not isinstance(error, _NOT_SENT), reason=f"{type(error).__name__}: {reason}"[:300])


class ToApisClient(_Base):
    """The blocking client, for workers.

    :param base_url: As :func:`~airflow_provider_nanobanana.toapis.protocol.normalise_host` returns it.
    :param api_key: Sent as ``Authorization: Bearer`` to that host and no other.
    :param timeout: Seconds for one HTTP call, body included.
    :param policy: Repeats within one call.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float = 30.0,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(base_url, api_key, timeout=timeout, policy=policy)
        self._sleep = sleep
        self._own = threading.local()
        self._lines: list[tuple[httpx.Client, Cutoff]] = []

    def call(self, call: ApiCall[T], policy: RetryPolicy | None = None) -> T:
        """Send a call, repeat it as the policy allows, and return its result.

        :raises ToApisError: the one error of the last answer.
        """
        repeats = 0
        while True:
            try:
                return call.conclude(self._exchange(call), time.time())
            except ToApisError as error:
                delay = (policy or self._policy).delay(call.kind, error, repeats, random.random())
                if delay is None:
                    raise
            self._sleep(delay)
            repeats += 1

    def _exchange(self, call: ApiCall[Any]) -> Answer | NoAnswer:
        http, cutoff = self._line()
        request = http.build_request(call.method, call.path, **self._content(call))
        request.extensions["trace"] = cutoff.notice
        try:
            with cutoff.after(self._timeout), contextlib.closing(http.send(request, stream=True)) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return NoAnswer(sent=True, reason="the answer was too long")
                return self._answer(response, bytes(body))
        except (httpx.HTTPError, OSError) as error:
            return self._failure(error)

    def _line(self) -> tuple[httpx.Client, Cutoff]:
        """Return this thread's connections: a call that is cut off must not take the calls of others with it."""
        if not hasattr(self._own, "line"):
            self._own.line = (httpx.Client(**self._options()), Cutoff())
            self._lines.append(self._own.line)
        line: tuple[httpx.Client, Cutoff] = self._own.line
        return line

    def close(self) -> None:
        """Close the connections of every thread."""
        for http, cutoff in self._lines:
            http.close()
            cutoff.forget()


class AsyncToApisClient(_Base):
    """The asyncio client, for triggers; parameters as :class:`ToApisClient`, and:

    :param concurrency: Calls under way at once for which there are connections.
    :param heed: Called with the headers of each answer.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float = 30.0,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        concurrency: int = _LANE_WIDTH,
        heed: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout=timeout, policy=policy)
        self._sleep = sleep
        self._heed = heed
        # Longer than a poll interval, so that few waits do not open a connection for each poll; a submit that left on
        # a connection just closed would be unknown, so the blocking client keeps httpx's 5 s.
        limits = httpx.Limits(max_keepalive_connections=_LANE_WIDTH, keepalive_expiry=_KEEP_ALIVE)
        lanes = -(-concurrency // _LANE_WIDTH)
        self._lanes = [_Lane(httpx.AsyncClient(**self._options(), limits=limits)) for _ in range(lanes)]

    async def call(self, call: ApiCall[T], policy: RetryPolicy | None = None) -> T:
        """Send a call, repeat it as the policy allows, and return its result.

        :raises ToApisError: the one error of the last answer.
        """
        repeats = 0
        while True:
            try:
                return call.conclude(await self._exchange(call), time.time())
            except ToApisError as error:
                delay = (policy or self._policy).delay(call.kind, error, repeats, random.random())
                if delay is None:
                    raise
            await self._sleep(delay)
            repeats += 1

    async def _exchange(self, call: ApiCall[Any]) -> Answer | NoAnswer:
        # The first of the least busy: a few connections stay warm and the others close.
        lane = min(self._lanes, key=attrgetter("busy"))
        lane.busy += 1
        try:
            async with asyncio.timeout(self._timeout):
                async with lane.http.stream(call.method, call.path, **self._content(call)) as response:
                    if self._heed is not None:
                        self._heed(response.headers)
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > MAX_ANSWER_BYTES:
                            return NoAnswer(sent=True, reason="the answer was too long")
                    return self._answer(response, bytes(body))
        except (httpx.HTTPError, OSError) as error:
            return self._failure(error)
        finally:
            lane.busy -= 1

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(lane.http.aclose() for lane in self._lanes))


@dataclass
class _Lane:
    """One httpx client: its pool looks at every connection for every call, so many small ones beat a large one."""

    http: httpx.AsyncClient
    busy: int = 0
