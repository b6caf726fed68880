"""ScriptedStatuses and PollerHarness: a poller in virtual time over image tasks whose statuses are scripted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from airflow_provider_nanobanana.polling import poller as poller_module
from airflow_provider_nanobanana.polling.poller import Poller, shared_poller
from airflow_provider_nanobanana.polling.result import WaitWindow
from airflow_provider_nanobanana.polling.status_client import RenewingStatusClient
from airflow_provider_nanobanana.polling.subscription import PollTarget, Subscription
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.protocol import status_call
from airflow_provider_nanobanana.toapis.settings import ToApisSettings
from tests.support.responses import COMPLETED, NOW, RUNNING, response
from tests.support.virtual_time import START, now, run

#: Seconds since the start and the number of the poll of this image task -> the JSON of a status, or an error.
Script = Callable[[float, int], dict[str, Any] | BaseException]
LOG = logging.getLogger("test.watch")
EPSILON = 1e-3


class ScriptedStatuses:
    """The status endpoint in virtual time; records when each image task was polled, and with which key."""

    def __init__(self, scripts: dict[str, Script] | None = None, default: Script | None = None) -> None:
        self.scripts = scripts or {}
        self.default = default or (lambda t, n: COMPLETED)
        self.polls: dict[str, list[float]] = defaultdict(list)
        self.keys: list[str] = []
        self.latency = 0.2
        self.in_flight = self.most_in_flight = 0

    @property
    def moments(self) -> list[float]:
        return sorted(moment for moments in self.polls.values() for moment in moments)

    async def poll(self, image_task_id: str, key: str = "") -> ImageTask:
        at = now() - START
        self.keys.append(key)
        self.polls[image_task_id].append(at)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.in_flight -= 1
        said = self.scripts.get(image_task_id, self.default)(at, len(self.polls[image_task_id]))
        if isinstance(said, BaseException):
            raise said
        return status_call(image_task_id).parse(response(200, {**said, "id": image_task_id}), NOW)


class FakeStatusClient:
    """A status client of the scripted endpoint, with the concurrency of a real one at the default rate."""

    concurrency = 13

    def __init__(self, service: ScriptedStatuses, settings: ToApisSettings) -> None:
        self.settings = settings
        self.closed = False
        self._service = service

    async def poll(self, image_task_id: str) -> ImageTask:
        assert not self.closed
        return await self._service.poll(image_task_id, self.settings.api_key.get_secret_value())

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class PollerHarness:
    """A poller between scripted statuses and a connection whose key and rate a test may change."""

    service: ScriptedStatuses
    rate: float = 50.0
    key: str = "sk-1"
    connection_reads: int = 0
    clients: list[FakeStatusClient] = field(default_factory=list)

    async def read(self, nanobanana_conn_id: str) -> ToApisSettings:
        self.connection_reads += 1
        await asyncio.sleep(0.06)
        key = SecretStr(self.key)
        return ToApisSettings(base_url="https://toapis.com", api_key=key, query_rate=self.rate)

    async def connect(self, settings: ToApisSettings, on_headers: Any) -> Any:
        self.clients.append(FakeStatusClient(self.service, settings))
        return self.clients[-1]

    def poller(self) -> Poller:
        async def read(nanobanana_conn_id: str) -> ToApisSettings:
            return await self.read(nanobanana_conn_id)  # a test may put another one there while the poller runs

        async def connect(settings: ToApisSettings, on_headers: Any) -> Any:
            return await self.connect(settings, on_headers)

        return Poller("nb", read, now=now, make_client=partial(RenewingStatusClient, connect=connect))

    @contextlib.asynccontextmanager
    async def polling(self) -> AsyncIterator[Poller]:
        poller = self.poller()
        try:
            await poller.open()
            yield poller
        finally:
            await poller.aclose()
            assert all(client.closed for client in self.clients)


def subscription(
    ids: list[str] | int = 1,
    *,
    wait: float = 900,
    first: float = 0,
    interval: float = 5.0,
    enough: int | None = None,
) -> Subscription:
    """Return a subscription that begins to poll ``first`` seconds after the start."""
    names = [f"t{n}" for n in range(ids)] if isinstance(ids, int) else ids
    return Subscription(
        [PollTarget(name) for name in names],
        wait=WaitWindow(START, START + wait),
        interval=interval,
        not_before=START + first,
        enough=enough,
        log=LOG,
        now=now,
    )


def run_subscription(
    service: ScriptedStatuses, ids: list[str] | int = 1, *, rate: float = 50.0, **options: Any
) -> Subscription:
    """Poll for one subscription until it is over."""

    async def go() -> Subscription:
        one = subscription(ids, **options)
        async with PollerHarness(service, rate).polling() as poller:
            await wait_on(one, poller)
        return one

    return run(go())


def shared_harness(monkeypatch: pytest.MonkeyPatch, *, completed: float) -> PollerHarness:
    """Let ``shared_poller`` poll image tasks that are completed so many seconds after the start."""
    harness = PollerHarness(ScriptedStatuses(default=until(completed, RUNNING, COMPLETED)))
    monkeypatch.setattr(poller_module, "Poller", lambda conn_id, read: harness.poller())
    return harness


async def wait_on(one: Subscription, poller: Poller) -> None:
    """Wait until a subscription is over, as a trigger does."""
    await poller.wait_until_over(one)


def shared(conn_id: str = "nb") -> contextlib.AbstractAsyncContextManager[Poller]:
    """Return the shared poller; the harness reads the connection (:func:`shared_harness`)."""
    return shared_poller(conn_id, never_read)


async def never_read(nanobanana_conn_id: str) -> ToApisSettings:
    raise AssertionError(f"{nanobanana_conn_id} is read by the harness")


async def wait_for(one: Subscription) -> Subscription:
    """Wait until a subscription is over on the shared poller."""
    async with shared() as poller:
        await wait_on(one, poller)
    return one


def until(moment: float, before: Any, after: Any) -> Script:
    return lambda t, n: before if t < moment else after
