"""Poller: polls the image tasks of all triggers of one connection in this process, within the account's rate.

:func:`shared_poller` gives every trigger of an event loop the same one. ``polling.schedule`` decides when each image
task is polled, ``toapis.rate_pacer`` how fast the account may be asked; a bug ends the waits with itself instead of
leaving them waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from airflow_provider_nanobanana.polling.result import PollResult
from airflow_provider_nanobanana.polling.schedule import PollQueue, first_poll_at, next_poll_at
from airflow_provider_nanobanana.polling.status_client import RenewingStatusClient
from airflow_provider_nanobanana.toapis.errors import AuthenticationFailed, RateLimited, ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.rate_pacer import RateLimitHeaders, RatePacer

if TYPE_CHECKING:
    from airflow_provider_nanobanana.polling.status_client import ReadSettings, StatusClient
    from airflow_provider_nanobanana.polling.subscription import Subscription
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = LineLogger(__name__)

#: Of the account's ``query_rate``: the rest is for what workers ask about, and for the jitter of the way. A 429 costs
#: all waits the second that it names.
_SHARE: Final = 0.98
#: Seconds between two summaries in the log.
SUMMARY_SECONDS: Final = 60.0
#: The poller wakes at least so often, for summaries and to keep its client fresh; seconds.
_LONGEST_IDLE: Final = 10.0
#: A pause that the service asks for is slept in pieces no longer than this, as it may be called off; seconds.
_LONGEST_SLEEP: Final = 1.0
#: A sleep may end so much too early; seconds.
_SLEEP_SLACK: Final = 0.001
#: A call that takes longer leaves its place to another one, as long as no more than that many have; seconds.
_SLOW_ANSWER: Final = 1.0

_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()
_latencies: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, LatencyEstimator]] = WeakKeyDictionary()


class shared_poller:
    """Give the poller of a connection in the running event loop; the last to leave closes it.

    A class and not a generator, of which thousands would stay alive, a few objects each.

    :param read_settings: Reads a connection by its id without blocking the event loop.
    :raises NanoBananaException: the connection cannot be used; what is wrong with it.
    """

    __slots__ = ("_conn_id", "_poller", "_read_settings")

    def __init__(self, nanobanana_conn_id: str, read_settings: ReadSettings) -> None:
        self._conn_id = nanobanana_conn_id
        self._read_settings = read_settings

    async def __aenter__(self) -> Poller:
        pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
        poller = pollers.get(self._conn_id)
        if poller is None or poller.bug is not None:
            poller = pollers[self._conn_id] = Poller(self._conn_id, self._read_settings)
        self._poller = poller
        poller.users += 1
        try:
            await poller.open()
        except BaseException:
            await self._leave()
            raise
        return poller

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def _leave(self) -> None:
        poller = self._poller
        poller.users -= 1
        if not poller.users:
            # From here on a new trigger makes a poller of its own.
            pollers = _pollers.get(asyncio.get_running_loop(), {})
            if pollers.get(self._conn_id) is poller:
                del pollers[self._conn_id]
            await poller.aclose()


class Poller:
    """Polls the image tasks of all subscriptions of one connection, each once, within the account's rate.

    :param read_settings: Reads a connection by its id without blocking the event loop.
    :param now: The wall clock, in epoch seconds.
    :param make_client: Makes what calls the service; a test puts its own here.
    :ivar users: How many triggers share it.
    :ivar bug: What ended it; a new trigger gets a new poller.
    """

    def __init__(
        self,
        nanobanana_conn_id: str,
        read_settings: ReadSettings,
        *,
        now: Callable[[], float] = time.time,
        make_client: Callable[..., RenewingStatusClient] = RenewingStatusClient,
    ) -> None:
        self.users = 0
        self.bug: Exception | None = None
        self._now = now
        # Pacing goes by the loop's clock: the wall clock may be set at any time.
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._client = make_client(nanobanana_conn_id, read_settings, self._apply_headers, self._clock)
        self._client_in_use: StatusClient | None = None
        # Until the connection is read.
        self._pacer = RatePacer(1.0)
        self._free_calls = asyncio.Semaphore(1)
        self._slow_calls = 0
        self._queue = PollQueue()
        self._conn_id = nanobanana_conn_id
        # Kept when the last subscription ends: with one wait at a time, nothing would ever be learnt.
        self._latencies = _latencies.setdefault(loop, {}).setdefault(nanobanana_conn_id, LatencyEstimator())
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._latency_keys: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stats = PollerStats(nanobanana_conn_id, self._clock())

    def __len__(self) -> int:
        """Return how many image tasks are polled."""
        return len(self._queue)

    async def open(self) -> None:
        """Connect and start polling, unless that was done; raises as :func:`shared_poller`."""
        if await self._client.open():
            self._switch_client()
            self._start(self._dispatch())

    async def aclose(self) -> None:
        """Stop polling and close the connections."""
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:  # also when the trigger that leaves last is cancelled meanwhile
            await self._client.aclose()
            if not self._latencies.learnt:  # a connection that was never of use leaves nothing behind
                _latencies.get(asyncio.get_running_loop(), {}).pop(self._conn_id, None)
        self._stats.flush(self._clock(), len(self), self._rate())

    async def wait_until_over(self, subscription: Subscription) -> None:
        """Poll for a subscription until it is over; raises as :meth:`Subscription.wait_until_over`."""
        if self.bug is not None:  # it came while this subscription waited to be let in
            subscription.fail(self.bug)
        try:
            self._subscribe(subscription)
            await subscription.wait_until_over()
        finally:
            for target in subscription.targets:
                self._unsubscribe(target.id, subscription)

    def _subscribe(self, subscription: Subscription) -> None:
        now = self._now()
        ahead = self._clock() - now
        for target in subscription.targets:
            self._subscriptions.setdefault(target.id, []).append(subscription)
            self._latency_keys.setdefault(target.id, target.latency_key)
            age = self._latencies.first_poll_age(target.latency_key)
            moment = first_poll_at(target.created_at, age, now=now, not_before=subscription.not_before)
            self._queue.add(target.id, moment + ahead, subscription.wait.deadline + ahead)
        self._changed.set()

    def _unsubscribe(self, image_task_id: str, subscription: Subscription) -> None:
        subscriptions = self._subscriptions.get(image_task_id, [])
        if subscription in subscriptions:
            subscriptions.remove(subscription)
            if not subscriptions:
                del self._subscriptions[image_task_id], self._latency_keys[image_task_id]
                self._queue.discard(image_task_id)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: what is logged here belongs to no single trigger.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _ = task.cancelled() or task.exception()  # the subscriptions have it

    async def _dispatch(self) -> None:
        """Start the polls that are due, one after another, as fast as the account allows."""
        with self._propagate_bugs():
            while True:
                await self._wait_until_due()
                free = self._free_calls
                await free.acquire()
                await self._wait_for_slot()
                due = self._queue.pop_due(self._clock(), self._rate())
                if due is None:  # its last subscription has ended
                    free.release()
                    continue
                image_task_id, late = due
                self._stats.on_poll(late)
                self._start(self._poll(image_task_id, free))

    def _rate(self) -> float:
        return self._pacer.rate_at(self._clock())

    async def _wait_for_slot(self) -> None:
        """Wait for the account's next free slot and take it; a long pause may be called off meanwhile."""
        while True:
            rest = self._pacer.wait(self._clock())
            if rest <= _SLEEP_SLACK:
                break
            await asyncio.sleep(min(rest, _LONGEST_SLEEP))
        self._pacer.reserve(self._clock())

    async def _wait_until_due(self) -> None:
        while True:
            self._changed.clear()
            self._maintain()
            next_moment = self._queue.next_moment(self._rate())
            rest = _LONGEST_IDLE if next_moment is None else min(next_moment - self._clock(), _LONGEST_IDLE)
            if rest <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._changed.wait()

    def _maintain(self) -> None:
        if self._stats.due(self._clock()):
            self._stats.flush(self._clock(), len(self), self._rate())
        if self._client.stale:
            self._start(self._refresh())

    async def _refresh(self) -> None:
        with self._propagate_bugs():
            if await self._client.refresh():
                self._switch_client()

    def _switch_client(self) -> None:
        """Use the client and the rate of the connection as it is now; a pause that the service asked for goes on."""
        client = self._client.current
        if self._client_in_use is not client:
            self._client_in_use = client
            self._free_calls = asyncio.Semaphore(client.concurrency)
            self._pacer = RatePacer.resumed(_SHARE * client.settings.query_rate, self._pacer.state())

    async def _poll(self, image_task_id: str, free: asyncio.Semaphore) -> None:
        gave_way = False

        def give_way() -> None:
            nonlocal gave_way
            if self._slow_calls < self._client.current.concurrency:
                gave_way = True
                self._slow_calls += 1
                free.release()

        timer = asyncio.get_running_loop().call_later(_SLOW_ANSWER, give_way)
        try:
            with self._propagate_bugs(image_task_id):
                self._publish(await self._poll_once(image_task_id))
        finally:
            timer.cancel()
            if gave_way:
                self._slow_calls -= 1
            else:
                free.release()

    def _publish(self, result: PollResult) -> None:
        """Notify every subscription of an image task of its poll, and plan the next one."""
        self._learn(result)
        subscriptions = list(self._subscriptions.get(result.id, ()))
        if not subscriptions:
            return
        intervals = [subscription.interval for subscription in subscriptions]
        retry_after = result.error.retry_after if result.error else None
        jitter = random.uniform(-1.0, 1.0)
        self._queue.requeue(result.id, next_poll_at(intervals, retry_after, now=self._clock(), jitter=jitter))
        for subscription in subscriptions:
            if subscription.notify(result):
                self._unsubscribe(result.id, subscription)
        self._changed.set()

    async def _poll_once(self, image_task_id: str) -> PollResult:
        """Poll; when the key is refused, once more with the one that the connection holds by now."""
        while True:
            client = self._client.current
            sent_at = self._clock()
            try:
                image_task = await client.poll(image_task_id)
            except AuthenticationFailed as error:
                if not await self._client.renew_refused(client):
                    return PollResult(image_task_id, error=error)
                self._switch_client()
            except ToApisError as error:
                if isinstance(error, RateLimited):
                    self._stats.on_rate_limited()
                self._pacer.on_error(self._clock(), error, sent_at)
                return PollResult(image_task_id, error=error)
            else:
                self._pacer.on_passed(self._clock())
                return PollResult(image_task_id, image_task=image_task)

    def _learn(self, result: PollResult) -> None:
        image_task = result.image_task
        if image_task is None or not image_task.terminal or image_task.completed_at is None:
            return
        self._stats.on_final(image_task, self._now())
        if image_task.images and image_task.created_at is not None:
            self._latencies.observe(
                self._latency_keys.get(result.id, ""), image_task.completed_at - image_task.created_at
            )

    def _apply_headers(self, headers: Mapping[str, str]) -> None:
        self._pacer.apply_headers(RateLimitHeaders.read(headers, "async_query"), self._clock())

    @contextlib.contextmanager
    def _propagate_bugs(self, image_task_id: str | None = None) -> Iterator[None]:
        """Let a bug end the subscriptions of an image task, or all of them, instead of leaving them waiting."""
        try:
            yield
        except Exception as bug:
            if image_task_id is None:
                self.bug = bug
            ids = list(self._subscriptions) if image_task_id is None else [image_task_id]
            for each in ids:
                self._queue.discard(each)  # it is not polled again; a new subscription puts it back
                for subscription in self._subscriptions.get(each, ()):
                    subscription.fail(bug)
            raise


class PollerStats:
    """What a poller counts between two summaries.

    :param clock: Now, in seconds of a monotonic clock; so in every method.
    """

    def __init__(self, nanobanana_conn_id: str, clock: float) -> None:
        self._conn_id = nanobanana_conn_id
        self._begin(clock)

    def _begin(self, clock: float) -> None:
        self._since = clock
        self._polls = 0
        self._rate_limited = 0
        self._late_seconds = 0.0
        self._latest_seconds = 0.0

    def on_poll(self, late: float) -> None:
        """Count a poll that begins ``late`` seconds after it was due."""
        self._polls += 1
        self._late_seconds += late
        self._latest_seconds = max(self._latest_seconds, late)

    def on_rate_limited(self) -> None:
        """Count a poll that was answered with 429."""
        self._rate_limited += 1

    def on_final(self, image_task: ImageTask, now: float) -> None:
        """Measure how late the end of an image task is noticed; ``now`` is epoch seconds, as its moments are."""
        if image_task.completed_at is not None:
            metrics.timing("detection_delay", now - image_task.completed_at, conn_id=self._conn_id)

    def flush(self, clock: float, queued: int, rate: float) -> None:
        """Log and send the counts, and set them to zero; silent when nothing was polled."""
        seconds = max(clock - self._since, 1e-3)
        if self._polls:
            log.info(
                "Connection %r, last %.0f s: %d image tasks polled, %.1f polls/s of %.1f allowed, %d answered 429, "
                "polls %.1f s late on average and %.1f s at most",
                self._conn_id,
                seconds,
                queued,
                self._polls / seconds,
                rate,
                self._rate_limited,
                self._late_seconds / self._polls,
                self._latest_seconds,
            )
            metrics.count("polls", self._polls, conn_id=self._conn_id)
        if self._rate_limited:
            metrics.count("rate_limited", self._rate_limited, conn_id=self._conn_id)
        self._begin(clock)

    def due(self, clock: float) -> bool:
        """Whether it is time for a summary."""
        return clock - self._since >= SUMMARY_SECONDS
