"""The status client behind a poller, with a connection whose key or rate changes, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from pydantic import SecretStr

from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.polling.status_client import RenewingStatusClient
from airflow_provider_nanobanana.polling.subscription import Subscription
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.settings import ToApisSettings
from airflow_provider_nanobanana.triggers.nanobanana import read_settings
from tests.support.polled_service import PollerHarness, shared, shared_harness, subscription, until, wait_for, wait_on
from tests.support.responses import COMPLETED, RUNNING
from tests.support.virtual_time import START, run

REFUSED = errors.AuthenticationFailed("401", code="unauthorized")
NEVER = START + 1e9


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> PollerHarness:
    return shared_harness(monkeypatch, completed=400)


def settings(key: str = "sk-1", base_url: str = "https://toapis.com") -> ToApisSettings:
    return ToApisSettings(base_url=base_url, api_key=SecretStr(key))


@pytest.mark.parametrize(
    "error",
    [
        AirflowNotFoundException("The conn_id `nb` isn't defined"),  # deleted, or Airflow's database did not answer
        PermissionError("a secrets backend says no"),
        RuntimeError("Response read out of order!"),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_a_connection_that_cannot_be_read_again_is_nobodys_end(
    harness: PollerHarness, error: Exception, refused: bool
) -> None:
    async def unreadable(nanobanana_conn_id: str) -> Any:
        raise error

    async def go() -> list[Subscription]:
        waiting = [asyncio.create_task(wait_for(subscription([name]))) for name in ("a", "b")]
        await asyncio.sleep(10)
        harness.read = unreadable  # type: ignore[method-assign]
        if refused:
            harness.service.scripts["a"] = lambda t, n: REFUSED
        return await asyncio.gather(*waiting)

    first, second = run(go())
    assert (first.outcome, second.outcome) == ("refused" if refused else "finished", "finished")


def test_what_a_secrets_backend_says_of_its_failure_is_not_logged(
    harness: PollerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    async def unreadable(nanobanana_conn_id: str) -> Any:
        raise RuntimeError("vault token s.1234567890")

    async def go() -> None:
        waiting = asyncio.create_task(wait_for(subscription(1)))
        await asyncio.sleep(10)
        harness.read = unreadable  # type: ignore[method-assign]
        await waiting

    caplog.set_level(logging.DEBUG)
    run(go())
    assert "cannot be read again" in caplog.text and "s.1234567890" not in caplog.text


@pytest.mark.parametrize("changed", [settings("sk-ключ"), settings(base_url="https://" + "a" * 70 + ".com")])
def test_a_key_or_host_that_no_request_can_be_made_with_is_not_followed(changed: ToApisSettings) -> None:
    """A slip while a key is rotated must not end every wait: the former key may be good for a while."""
    held = [settings()]

    async def read(nanobanana_conn_id: str) -> ToApisSettings:
        return held[-1]

    async def go() -> tuple[bool, ToApisSettings]:
        clock = itertools.count(0.0, 301.0)
        clients = RenewingStatusClient("nb", read, lambda headers: None, lambda: next(clock))
        assert await clients.open()
        held.append(changed)
        try:
            return await clients.refresh(), clients.current.settings
        finally:
            await clients.aclose()

    assert asyncio.run(go()) == (False, settings())


def test_a_look_up_is_ended_also_when_nobody_waits_for_it_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.0's triggerer dies of an answer to a question that was cancelled."""
    ended: list[str] = []

    async def asettings(hook: NanoBananaHook) -> ToApisSettings:
        await asyncio.sleep(0.1)
        ended.append(hook.nanobanana_conn_id)
        return settings()

    async def go() -> None:
        look_up = asyncio.create_task(read_settings("nb"))
        await asyncio.sleep(0.05)
        look_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look_up
        await asyncio.sleep(1)

    monkeypatch.setattr(NanoBananaHook, "asettings", asettings)
    run(go())
    assert ended == ["nb"]


def test_a_triggerer_that_does_not_see_the_connection_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for each connection of a team, and for one that only workers have in their environment."""

    async def asettings(hook: NanoBananaHook) -> ToApisSettings:
        raise AirflowNotFoundException("The conn_id `nb` isn't defined")

    monkeypatch.setattr(NanoBananaHook, "asettings", asettings)
    with pytest.raises(AirflowNotFoundException, match=r"`nb` isn't defined, for the triggerer.*deferrable=False"):
        run(read_settings("nb"))


def test_such_a_key_is_airflows_error_from_the_start() -> None:
    async def read(nanobanana_conn_id: str) -> ToApisSettings:
        return settings("sk-ключ")

    clients = partial(RenewingStatusClient, "nb", read, lambda headers: None, lambda: 0.0)
    with pytest.raises(NanoBananaFailException, match="key"):
        asyncio.run(clients().open())


def test_a_connection_that_changes_with_every_reading_piles_up_no_lines(harness: PollerHarness) -> None:
    """Secrets backends may lease a new key for every read."""
    harness.service.default = until(5000, RUNNING, COMPLETED)
    keys = itertools.count()

    async def read(nanobanana_conn_id: str) -> ToApisSettings:
        return settings(f"sk-{next(keys)}")

    async def go() -> int:
        harness.read = read  # type: ignore[method-assign]
        async with shared("nb") as poller:
            waiting = asyncio.create_task(wait_on(subscription(3, wait=4000), poller))
            await asyncio.sleep(3900)
            waiting.cancel()
            return sum(not client.closed for client in harness.clients)

    assert run(go()) <= 2 and len(harness.clients) > 10


def test_the_rate_is_followed_when_a_refused_key_made_us_look(harness: PollerHarness) -> None:
    def script(t: float, n: int) -> Any:
        return REFUSED if t > 20 and harness.service.keys[-1] == "sk-1" else RUNNING if t < 280 else COMPLETED

    async def go() -> None:
        harness.service.default, harness.service.latency = script, 0.0
        waiting = asyncio.create_task(wait_for(subscription(200)))
        await asyncio.sleep(19)
        harness.key, harness.rate = "sk-2", 2.0
        await waiting

    run(go())
    assert sum(100 <= moment < 200 for moment in harness.service.moments) <= 210


def test_a_higher_rate_brings_more_calls_at_once(harness: PollerHarness) -> None:
    harness.service.latency = 0.5
    harness.rate = 5.0

    async def connect(settings: ToApisSettings, on_headers: Any) -> Any:
        client = await PollerHarness.connect(harness, settings, on_headers)
        client.concurrency = 2 if settings.query_rate == 5 else 13
        return client

    async def go() -> None:
        harness.connect = connect  # type: ignore[method-assign]
        waiting = asyncio.create_task(wait_for(subscription(200, wait=500)))
        await asyncio.sleep(100)
        harness.rate = 50.0
        await waiting

    run(go())
    assert sum(310 <= moment < 390 for moment in harness.service.moments) >= 80 * 20
