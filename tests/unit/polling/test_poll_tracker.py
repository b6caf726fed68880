"""poll_once: what it tells of its polls to the pacer that they share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_nanobanana.polling import poll_tracker
from airflow_provider_nanobanana.polling.poll_tracker import poll_once
from airflow_provider_nanobanana.toapis.errors import RateLimited
from airflow_provider_nanobanana.toapis.rate_pacer import RatePacer
from tests.support.session import make_session


def test_a_429_is_one_of_when_its_poll_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    told: list[tuple[float, float | None]] = []

    class Client:
        def call(self, call: Any, policy: Any = None) -> Any:
            nonlocal now
            now += 3.0
            raise RateLimited("slower", http_status=429)

    class Pacer(RatePacer):
        def on_rate_limited(self, now: float, named: float | None, sent: float | None = None) -> float:
            told.append((now, sent))
            return super().on_rate_limited(now, named, sent)

    monkeypatch.setattr(poll_tracker, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(poll_tracker, "RatePacer", Pacer)
    poll_once(make_session(Client(), sleep=lambda _: None), ["tsk_1"])
    assert told == [(103.0, 100.0)]
