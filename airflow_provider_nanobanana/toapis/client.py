"""Two thin httpx shells over the protocol: they send, wait and read, and decide nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

from airflow_provider_nanobanana.toapis.classify import CallKind, no_response_error
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest, ToApisError
from airflow_provider_nanobanana.toapis.http import (
    ASYNC_TRANSPORT,
    BLOCKING_TRANSPORT,
    USER_AGENT,
    ConnectionDeadline,
    LendingPool,
    httpx,
    in_words,
    open_transport,
    shared_ssl_context,
)
from airflow_provider_nanobanana.toapis.protocol import (
    MAX_POLLED_BYTES,
    MAX_POLLED_VALUES,
    MAX_RESPONSE_BYTES,
    MAX_RESPONSE_VALUES,
    ApiCall,
    checked_key,
)
from airflow_provider_nanobanana.toapis.proxy import find_proxy
from airflow_provider_nanobanana.toapis.response_body import ResponseBody
from airflow_provider_nanobanana.toapis.responses import ApiResponse, NoResponse
from airflow_provider_nanobanana.toapis.retry import RequestRetry

T = TypeVar("T")

#: The request never left: name resolution, refused, connect timeout, TLS and proxy handshakes, no free connection.
_UNREACHED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_NOT_SENT: Final = (*_UNREACHED, httpx.PoolTimeout)
_CONNECT_SECONDS: Final = 10.0
#: Connections of one httpx client (measured: 128 in one pool 34 calls/s, in 16 pools of 8 488 calls/s).
_CONNECTIONS_PER_CLIENT: Final = 8
_KEEP_ALIVE: Final = 60.0
#: Bytes of an answer of which a worker reads one at a time: until it is parsed, each takes three times its length.
_ONE_AT_A_TIME: Final = 1024 * 1024
#: Bytes of an answer that are parsed on the event loop: the worst of that length takes 5 ms (measured).
_PARSED_AT_ONCE: Final = 4096
#: Pieces of an answer after which the event loop is left to others.
_PIECES_AT_ONCE: Final = 32
#: Lines of headers that are read of an answer; a hundred kilobytes may hold 17,000.
_MOST_HEADERS: Final = 100
_LIMITS: Final = httpx.Limits(max_keepalive_connections=_CONNECTIONS_PER_CLIENT)


class _BaseClient:
    """What both clients know: where to send, with which key, how long to wait."""

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 30.0) -> None:
        self._key = checked_key(api_key)
        try:
            url = httpx.URL(base_url)
            url.host.encode("idna")
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError("The host holds a name that cannot be looked up.") from error
        self._base_url = base_url
        self._proxy = find_proxy(url.scheme, url.host, url.port)
        self._timeout = timeout
        self._headers = {
            "Authorization": f"Bearer {self._key}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": USER_AGENT,
        }
        connect = min(timeout / 2, _CONNECT_SECONDS)
        # A connection that is never made must fail as that, before the whole call's time is up.
        self._timeouts = httpx.Timeout(timeout, connect=connect, pool=connect).as_dict()

    def _request(self, call: ApiCall[Any], **extensions: Any) -> httpx.Request:
        """Return the HTTP request of a call, or raise ``InvalidRequest`` for what JSON or a URL cannot hold."""
        content: dict[str, Any] = {"params": dict(call.params)} if call.params else {}
        if call.body is not None:
            content["json"] = dict(call.body)
        if call.upload is not None:
            content["files"] = {"file": (call.upload.filename, call.upload.content, call.upload.mime_type)}
            content["data"] = {"purpose": "generation"}
        try:
            return httpx.Request(
                call.method,
                f"{self._base_url}{call.path}",
                headers=self._headers,
                extensions={"timeout": self._timeouts, **extensions},
                **content,
            )
        except (httpx.InvalidURL, ValueError, TypeError, RecursionError) as error:
            raise InvalidRequest(
                f"A {call.kind} call cannot be written as an HTTP request ({type(error).__name__}); nothing was sent.",
                image_task_id=call.image_task_id,
            ) from error

    def _response(self, status: int, headers: Mapping[str, str], body: ResponseBody) -> ApiResponse:
        return ApiResponse(status, headers, body.content, self._key, self._base_url, body.too_long)

    @staticmethod
    def _failed(error: Exception, call: ApiCall[Any]) -> ToApisError:
        """Return the error of a call on whose way something broke; what is not known to be unsent may have arrived."""
        failure = NoResponse(sent=not isinstance(error, _NOT_SENT), reason=in_words(error))
        return no_response_error(failure, call.kind, call.image_task_id)


def _read_headers(response: httpx.Response) -> dict[str, str]:
    """Return the first headers of an answer by their names in lower case, in one pass.

    Each look into httpx's own headers walks all of them, and a dictionary of them is made of as many looks.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers.raw[:_MOST_HEADERS]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class ToApisClient(_BaseClient):
    """The blocking client, for workers.

    :param base_url: As :func:`~airflow_provider_nanobanana.toapis.protocol.normalise_host` returns it.
    :param api_key: Sent as ``Authorization: Bearer`` to that host and no other.
    :param timeout: Seconds for one HTTP call, body included.
    :param retry: How a call is repeated that names nothing else.
    :param before_send: As :class:`ConnectionDeadline` takes it.
    """

    #: Called with each answer before it is read; whoever wants to see answers as they are puts a function here.
    on_answer: Callable[[ApiResponse], None] | None = None

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float = 30.0,
        retry: RequestRetry | None = None,
        sleep: Callable[[float], None] = time.sleep,
        before_send: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(base_url, api_key, timeout=timeout)
        self._retry = retry or RequestRetry()
        self._sleep = sleep
        self._closed = False
        self._before_send = before_send
        self._long_answer = threading.Lock()
        self._pool = LendingPool(self._open, lambda connections: connections.http.close())
        with self._pool.lend():
            # What keeps connections from being opened at all is known before anything is written ahead.
            pass

    def call(self, call: ApiCall[T], retry: RequestRetry | None = None) -> T:
        """Send a call, repeat it as ``retry`` (by default the client's) allows, and return its result.

        :raises ToApisError: the one error of the last answer.
        """
        repeats = 0
        while True:
            try:
                return call.parse(self._exchange(call), time.time())
            except ToApisError as error:
                delay = (retry or self._retry).delay(call.kind, error, repeats, random.random())
                if delay is None:
                    raise
            self._sleep(delay)
            repeats += 1

    def _exchange(self, call: ApiCall[Any]) -> ApiResponse:
        if self._closed:
            raise RuntimeError("The client is closed.")
        with self._pool.lend() as connections:
            request = self._request(call, trace=connections.deadline.trace)
            try:
                with (
                    connections.deadline.limit(self._timeout),
                    contextlib.closing(connections.http.handle_request(request)) as response,
                    contextlib.ExitStack() as turn,
                ):
                    headers = _read_headers(response)
                    body = ResponseBody(
                        headers.get("content-encoding", ""),
                        most_bytes=MAX_RESPONSE_BYTES,
                        most_values=MAX_RESPONSE_VALUES,
                    )
                    has_turn = False
                    for piece in response.iter_raw():
                        if not body.add(piece):
                            break
                        # The answer to a submit waits for nobody: unread it would be a purchase that is not known.
                        if not has_turn and len(body) > _ONE_AT_A_TIME and call.kind is CallKind.STATUS:
                            has_turn = self._take_turn(turn)
                    answer = self._response(response.status_code, headers, body)
                    if has_turn:
                        _ = answer.json_object  # parsed here and kept, before it is the turn of the next
                    if self.on_answer is not None:
                        self.on_answer(answer)
                    return answer
            except Exception as error:
                # Whatever it is: a submit that may have arrived is never an error that forgets that.
                raise self._failed(error, call) from error

    def _take_turn(self, turn: contextlib.ExitStack) -> bool:
        """Wait until no other thread reads a long answer, and keep them waiting until ``turn`` is left.

        :raises httpx.ReadTimeout: It lasts longer than a call may.
        """
        if not self._long_answer.acquire(timeout=self._timeout):
            raise httpx.ReadTimeout("other long answers took all of its time")
        turn.callback(self._long_answer.release)
        return True

    def _open(self) -> _Connections:
        transport = open_transport(BLOCKING_TRANSPORT, self._proxy, shared_ssl_context(), limits=_LIMITS)
        return _Connections(transport, ConnectionDeadline(before_send=self._before_send))

    def close(self) -> None:
        """Close all connections; no call can be sent afterwards."""
        self._closed = True
        self._pool.close()


class _Connections(NamedTuple):
    """The connections that one call at a time uses, and what ends it in time."""

    http: httpx.HTTPTransport
    deadline: ConnectionDeadline


class AsyncToApisClient(_BaseClient):
    """The asyncio client, for triggers; parameters as :class:`ToApisClient`, and:

    :param concurrency: Calls under way at once for which there are connections.
    :param on_headers: Called with the headers of each response, by their names in lower case.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float = 30.0,
        concurrency: int = _CONNECTIONS_PER_CLIENT,
        on_headers: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout=timeout)
        self._on_headers = on_headers
        # Longer than a poll interval, so that few waits do not open a connection for each poll; a submit that left on
        # a connection just closed would be unknown, so the blocking client keeps httpx's 5 s.
        limits = httpx.Limits(max_keepalive_connections=_CONNECTIONS_PER_CLIENT, keepalive_expiry=_KEEP_ALIVE)
        pools, context = -(-concurrency // _CONNECTIONS_PER_CLIENT), shared_ssl_context()
        self._pools = [
            _PooledClient(open_transport(ASYNC_TRANSPORT, self._proxy, context, limits=limits)) for _ in range(pools)
        ]
        # One thread of its own: those of the event loop are everybody's, and long answers are nobody's hurry.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="nanobanana-answers")
        self._closed = False
        self._reached = False
        # Set unless a call tries to connect for all.
        self._tried = asyncio.Event()
        self._tried.set()
        self._unreached_count = 0
        self._unreached: Exception | None = None

    async def call(self, call: ApiCall[T]) -> T:
        """Send a call once and return its result; a poller repeats it later.

        :raises ToApisError: the one error of the answer.
        """
        answer = await self._exchange(call)
        if len(answer.body) <= _PARSED_AT_ONCE or self._closed:
            return call.parse(answer, time.time())
        return await asyncio.get_running_loop().run_in_executor(self._parser, call.parse, answer, time.time())

    async def _exchange(self, call: ApiCall[Any]) -> ApiResponse:
        """Send a call; until a connection was made, and after one could not be, one call connects for all who wait.

        Names are looked up in the event loop's few threads, which every other trigger needs, too. For its answer nobody
        waits.
        """
        misses = self._unreached_count
        while not self._reached:
            if self._tried.is_set():
                return await self._connect_for_all(call)
            await self._tried.wait()
            if not self._reached and self._unreached is not None and self._unreached_count != misses:
                raise self._failed(self._unreached, call) from self._unreached
        return await self._send(call)

    async def _connect_for_all(self, call: ApiCall[Any]) -> ApiResponse:
        tried = self._tried = asyncio.Event()

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            # What a proxy is asked first is not the call.
            if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
                self._on_reached()

        try:
            return await self._send(call, trace=trace)
        finally:
            tried.set()

    async def _send(self, call: ApiCall[Any], **extensions: Any) -> ApiResponse:
        if self._closed:
            raise RuntimeError("The client is closed.")
        request = self._request(call, **extensions)
        # The first of the least busy: a few connections stay warm and the others close.
        pool = min(self._pools, key=attrgetter("busy"))
        pool.busy += 1
        try:
            async with asyncio.timeout(self._timeout):
                response = await pool.http.handle_async_request(request)
                async with contextlib.aclosing(response):
                    self._on_reached()
                    headers = _read_headers(response)
                    if self._on_headers is not None:
                        self._on_headers(headers)
                    body = ResponseBody(
                        headers.get("content-encoding", ""),
                        most_bytes=MAX_POLLED_BYTES,
                        most_values=MAX_POLLED_VALUES,
                    )
                    pieces = 0
                    async for piece in response.aiter_raw():
                        if not body.add(piece):
                            break
                        pieces += 1
                        if pieces % _PIECES_AT_ONCE == 0:
                            await asyncio.sleep(0)
                    return self._response(response.status_code, headers, body)
        except Exception as error:
            self._on_failure(error)
            raise self._failed(error, call) from error
        finally:
            pool.busy -= 1

    def _on_reached(self) -> None:
        """Let all calls go that wait for one to connect."""
        self._reached = True
        self._tried.set()

    def _on_failure(self, error: Exception) -> None:
        """Keep in mind whether the host could be reached; one that is silent was."""
        self._reached = not isinstance(error, _UNREACHED)
        if not self._reached:
            self._unreached = error
            self._unreached_count += 1

    async def aclose(self) -> None:
        """Close the connections; no call can be sent afterwards."""
        self._closed = True
        self._parser.shutdown(wait=False)
        await asyncio.gather(*(pool.http.aclose() for pool in self._pools))


@dataclass
class _PooledClient:
    """One transport: its pool looks at every connection for every call, so many small ones beat a large one."""

    http: httpx.AsyncHTTPTransport
    busy: int = 0
