"""The one poller of an account in a process: it paces, polls and tells; what is due is decided in ``toapis``."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from airflow_provider_nanobanana.polling.result import PollResult
from airflow_provider_nanobanana.polling.schedule import PollQueue
from airflow_provider_nanobanana.polling.status_client import RenewingStatusClient
from airflow_provider_nanobanana.toapis.errors import AuthenticationFailed, RateLimited, ToApisError
from airflow_provider_nanobanana.toapis.rate_limit import LONGEST_WAIT, RateLimitHeaders, RatePacer

if TYPE_CHECKING:
    from airflow_provider_nanobanana.polling.status_client import ReadSettings, StatusClient
    from airflow_provider_nanobanana.polling.subscription import Subscription
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)

PERIOD: Final = 60.0


class PollerStats:
    """Counts between two summaries; ``clock`` is in seconds of a clock that nobody sets."""

    def __init__(self, nanobanana_conn_id: str, clock: float) -> None:
        self._conn_id = nanobanana_conn_id
        self._begin(clock)

    def _begin(self, clock: float) -> None:
        self._since = clock
        self._polls = self._refused = 0
        self._late = self._latest = 0.0

    def polled(self, late: float) -> None:
        """A poll begins, so many seconds after it was due."""
        self._polls += 1
        self._late += late
        self._latest = max(self._latest, late)

    def rate_limited(self) -> None:
        """A poll was answered with 429."""
        self._refused += 1

    def noticed(self, image_task: ImageTask, now: float) -> None:
        """An image task was seen to have ended; ``now`` is epoch seconds, as its moments are."""
        if image_task.completed_at is not None:
            metrics.timing("detection_delay", now - image_task.completed_at, conn_id=self._conn_id)

    def close(self, clock: float, watched: int, rate: float) -> None:
        """Log and send the counts, and begin anew; silent when nothing was polled."""
        seconds = max(clock - self._since, 1e-3)
        if self._polls:
            log.info(
                "Connection %r, last %.0f s: %d image tasks watched, %.1f polls/s of %.1f allowed, %d answered 429, "
                "polls %.1f s late on average and %.1f s at most",
                self._conn_id,
                seconds,
                watched,
                self._polls / seconds,
                rate,
                self._refused,
                self._late / self._polls,
                self._latest,
            )
            metrics.count("polls", self._polls, conn_id=self._conn_id)
        if self._refused:
            metrics.count("rate_limited", self._refused, conn_id=self._conn_id)
        self._begin(clock)

    def due(self, clock: float) -> bool:
        """Whether it is time for a summary."""
        return clock - self._since >= PERIOD


#: A rest is no longer, so that summaries come and the connection is kept fresh; seconds.
_LONGEST_REST: Final = 10.0
#: A pause is sat out in pieces no longer than this; seconds.
_LONGEST_NAP: Final = 1.0

_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()
_latencies: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, LatencyEstimator]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def shared_poller(nanobanana_conn_id: str, read_settings: ReadSettings) -> AsyncIterator[Poller]:
    """Give the poller of a connection in the running event loop; the last to leave closes it.

    :param read_settings: Reads a connection by its id without blocking the event loop.
    :raises NanoBananaException: the connection cannot be used; what is wrong with it.
    """
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    poller = pollers.get(nanobanana_conn_id)
    if poller is None or poller.bug is not None:
        poller = pollers[nanobanana_conn_id] = Poller(nanobanana_conn_id, read_settings)
    poller.users += 1
    try:
        await poller.open()
        yield poller
    finally:
        poller.users -= 1
        if not poller.users:
            # From here on a newcomer makes a poller of its own.
            if pollers.get(nanobanana_conn_id) is poller:
                del pollers[nanobanana_conn_id]
            await poller.aclose()


class Poller:
    """Polls the image tasks of all watches of one connection, each once, within the account's rate.

    :ivar users: How many share it.
    :ivar bug: What ended it; nobody new may rely on it.
    :param now: The wall clock, in epoch seconds.
    :param lines: Makes the connections; a test puts its own here.
    """

    def __init__(
        self,
        nanobanana_conn_id: str,
        read_settings: ReadSettings,
        *,
        now: Callable[[], float] = time.time,
        lines: Callable[..., RenewingStatusClient] = RenewingStatusClient,
    ) -> None:
        self.users = 0
        self.bug: Exception | None = None
        self._now = now
        # Pacing goes by the loop's clock: the wall clock may be set at any time.
        self._clock = (loop := asyncio.get_running_loop()).time
        self._lines = lines(nanobanana_conn_id, read_settings, self._heed, self._clock)
        self._adopted: StatusClient | None = None
        self._bucket = RatePacer(1.0)  # until the connection tells
        self._queue = PollQueue()
        # Kept when the last watch leaves: with one wait at a time, nothing would ever be learnt.
        self._latencies = _latencies.setdefault(loop, {}).setdefault(nanobanana_conn_id, LatencyEstimator())
        self._watches: dict[str, list[Subscription]] = {}
        self._kinds: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tally = PollerStats(nanobanana_conn_id, self._clock())

    def __len__(self) -> int:
        """Return how many image tasks are polled."""
        return len(self._queue)

    async def open(self) -> None:
        """Connect and begin, unless somebody did; raises as :func:`shared_poller`."""
        if await self._lines.open():
            self._switch_client()
            self._start(self._dispatch())

    async def aclose(self) -> None:
        """Stop and close the connections."""
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:  # also when the trigger that leaves last is cancelled meanwhile
            await self._lines.aclose()
        self._tally.close(self._clock(), len(self), self._bucket.rate)

    @contextlib.contextmanager
    def watching(self, watch: Subscription) -> Iterator[None]:
        """Poll for a watch, as long as this lasts."""
        if self.bug is not None:  # it came while this watch waited to be let in
            watch.fail(self.bug)
        ahead = self._clock() - self._now()
        try:
            for target in watch.targets:
                self._watches.setdefault(target.id, []).append(watch)
                self._kinds.setdefault(target.id, target.kind)
                moment = watch.first_poll(target, self._latencies.first_poll_age(target.kind))
                self._queue.add(target.id, moment + ahead, watch.wait.deadline + ahead)
            self._changed.set()
            yield
        finally:
            for target in watch.targets:
                self._leave(target.id, watch)

    def _leave(self, image_task_id: str, watch: Subscription) -> None:
        watches = self._watches.get(image_task_id, [])
        if watch in watches:
            watches.remove(watch)
            if not watches:
                del self._watches[image_task_id], self._kinds[image_task_id]
                self._queue.discard(image_task_id)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: what is logged here belongs to no single trigger.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _ = task.cancelled() or task.exception()  # the watches have it

    async def _dispatch(self) -> None:
        """Hand out what is due, one after another, as fast as the account allows."""
        with self._propagate_bugs():
            while True:
                await self._until_due()
                await (free := self._free).acquire()
                await self._turn()
                due = self._queue.pop_due(self._clock(), self._bucket.rate)
                if due is None:  # whoever waited for it has left
                    free.release()
                    continue
                image_task_id, late = due
                self._tally.polled(late)
                self._start(self._poll(image_task_id, free))

    async def _turn(self) -> None:
        """Wait for the account's next free moment and take it; a long pause may be called off meanwhile."""
        while True:
            rest = self._bucket.wait(self._clock())
            if rest <= _LONGEST_NAP:
                break
            await asyncio.sleep(_LONGEST_NAP)
        await asyncio.sleep(self._bucket.reserve(self._clock()))

    async def _until_due(self) -> None:
        while True:
            self._changed.clear()
            self._keep_up()
            moment = self._queue.next_moment(self._bucket.rate)
            rest = _LONGEST_REST if moment is None else min(moment - self._clock(), _LONGEST_REST)
            if rest <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._changed.wait()

    def _keep_up(self) -> None:
        if self._tally.due(self._clock()):
            self._tally.close(self._clock(), len(self), self._bucket.rate)
        if self._lines.stale:
            self._start(self._refresh())

    async def _refresh(self) -> None:
        with self._propagate_bugs():
            if await self._lines.refresh():
                self._switch_client()

    def _switch_client(self) -> None:
        """Go by what the connection says now; a rest that the service asked for goes on."""
        if self._adopted is not (line := self._lines.current):
            self._adopted, self._free = line, asyncio.Semaphore(line.concurrency)
            self._bucket = RatePacer.resumed(line.settings.query_rate, self._bucket.state())

    async def _poll(self, image_task_id: str, free: asyncio.Semaphore) -> None:
        try:
            with self._propagate_bugs(image_task_id):
                self._publish(await self._poll_once(image_task_id))
        finally:
            free.release()

    def _publish(self, sighting: PollResult) -> None:
        """Pass a look on to everybody who waits for that image task, and plan the next."""
        self._learn(sighting)
        watches = list(self._watches.get(sighting.id, ()))
        if not watches:
            return
        asked = min((sighting.error.retry_after if sighting.error else None) or 0.0, LONGEST_WAIT)
        # Varied by a tenth either way, so that polls drift apart.
        interval = min(watch.interval for watch in watches) * random.uniform(0.9, 1.1)
        self._queue.requeue(sighting.id, self._clock() + max(interval, asked))
        for watch in watches:
            if watch.notify(sighting):
                self._leave(sighting.id, watch)
        self._changed.set()

    async def _poll_once(self, image_task_id: str) -> PollResult:
        """Look; when the key is refused, again with the one that the connection holds by now."""
        while True:
            line, sent = self._lines.current, self._clock()
            try:
                image_task = await line.poll(image_task_id)
            except AuthenticationFailed as error:
                if not await self._lines.renew_refused(line):
                    return PollResult(image_task_id, error=error)
                self._switch_client()
            except ToApisError as error:
                if isinstance(error, RateLimited):
                    self._tally.rate_limited()
                    self._bucket.on_rate_limited(self._clock(), error.retry_after or 1.0, sent)
                return PollResult(image_task_id, error=error)
            else:
                self._bucket.on_success(self._clock())
                return PollResult(image_task_id, image_task=image_task)

    def _learn(self, sighting: PollResult) -> None:
        image_task = sighting.image_task
        if image_task is None or not image_task.terminal or image_task.completed_at is None:
            return
        self._tally.noticed(image_task, self._now())
        if image_task.images and image_task.created_at is not None:
            self._latencies.observe(self._kinds.get(sighting.id, ""), image_task.completed_at - image_task.created_at)

    def _heed(self, headers: Mapping[str, str]) -> None:
        self._bucket.apply_headers(RateLimitHeaders.read(headers, "async_query"), self._clock())

    @contextlib.contextmanager
    def _propagate_bugs(self, image_task_id: str | None = None) -> Iterator[None]:
        """Let a bug end the watches of an image task, or all of them, with itself instead of leaving them waiting."""
        try:
            yield
        except Exception as bug:
            if image_task_id is None:
                self.bug = bug
            concerned = list(self._watches) if image_task_id is None else [image_task_id]
            for concern in concerned:
                self._queue.discard(concern)  # nobody will ask for it again; whoever joins now begins anew
                for watch in self._watches.get(concern, ()):
                    watch.fail(bug)
            raise
