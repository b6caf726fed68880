"""An environment that keeps calls from being sent: said before anything is written ahead, and fixed at no cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.toapis.http import shared_ssl_context
from tests.integration.test_trigger import trigger
from tests.support.task_runner import TaskInstance, attempt, fire
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat

BROKEN = {"HTTP_PROXY": "socks://user:PASSWORD@proxy:1080", "SSL_CERT_FILE": "/nonexistent/ca.pem"}


@pytest.fixture(autouse=True)
def _fresh_context(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    shared_ssl_context.cache_clear()
    yield
    shared_ssl_context.cache_clear()


def operator(kind: str, folder: Path) -> Any:
    if kind == "submit":
        return NanoBananaSubmitOperator(task_id="make", prompt="a red kite", retries=3)
    return NanoBananaGenerateOperator(task_id="make", prompt="a red kite", destination=f"file://{folder}", retries=3)


@pytest.mark.parametrize("again", [{"try_number": 2}, {"try_number": 2, "max_tries": 4}], ids=["retry", "clear"])
@pytest.mark.parametrize("variable", BROKEN)
@pytest.mark.parametrize("kind", ["submit", "generate"])
def test_in_a_fixed_environment_nothing_is_waited_for(
    kind: str,
    variable: str,
    again: dict[str, Any],
    emulator: Emulator,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ti = TaskInstance(task_id="make", max_tries=3, store=MemoryTaskStateStore())
    with monkeypatch.context() as patch:
        patch.setenv(variable, BROKEN[variable])
        failed = attempt(operator(kind, folder), ti)
    assert isinstance(failed.error, NanoBananaFailException)
    assert variable in flat(failed.error) and "PASSWORD" not in flat(failed.error)
    assert (failed.error.charged, emulator.requests()) == ("no", [])
    fixed = attempt(operator(kind, folder), dataclasses.replace(ti, **again))
    calls = [request["method"] for request in emulator.requests() if request["kind"] == "api"]
    # A submit takes one look before the POST of a retry; the claims of generate tell without.
    before = ["GET", "POST"] if kind == "submit" else ["POST"]
    assert (fixed.error, calls[: len(before)], emulator.ledger()["count"]) == (None, before, 1)


@pytest.mark.parametrize("variable", BROKEN)
def test_the_connection_form_names_it(variable: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, BROKEN[variable])
    works, said = NanoBananaHook().test_connection()
    assert not works and variable in said and "PASSWORD" not in said


@pytest.mark.parametrize("variable", BROKEN)
async def test_the_trigger_names_it(variable: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, BROKEN[variable])
    with pytest.raises(NanoBananaFailException, match=variable):
        await fire(trigger("tsk_1"))
    with pytest.raises(NanoBananaFailException, match=variable):
        await NanoBananaHook().aget_task("tsk_1")
