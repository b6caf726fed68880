"""CrashPoints: kill -9 without processes, before and after every side effect of an operator, in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator, errors, responses
from airflow_provider_nanobanana.emulator.requests import parse
from airflow_provider_nanobanana.emulator.service import EmulatedService
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.submission import client_ids
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.client import ToApisClient
from airflow_provider_nanobanana.toapis.protocol import ApiCall
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore

#: A POST whose sender was killed may be accepted up to one HTTP timeout later.
HTTP_TIMEOUT = 30


class Crash(BaseException):
    """kill -9."""


@dataclass
class Clock:
    """Epoch seconds for hook and service; a POST in flight is accepted when its moment has come."""

    now: float = 1_790_000_000.0
    in_flight: list[tuple[float, Callable[[], Any]]] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        for due, arrive in sorted(self.in_flight, key=lambda entry: entry[0]):
            if due <= until:
                self.now = max(self.now, due)
                arrive()
        self.in_flight = [entry for entry in self.in_flight if entry[0] > until]
        self.now = until


@dataclass
class CrashPoints:
    """Record the points that an attempt reaches, and crash at the chosen one.

    :param late: Seconds after the crash of its sender at which a POST in flight is accepted.
    :param crash_at: The point to crash at, by its number in the attempt.
    :param crash_on: The point to crash at, by name and occurrence.
    """

    clock: Clock
    late: float = 0.0
    crash_at: int | None = None
    crash_on: tuple[str, int] | None = None
    passed: list[str] = field(default_factory=list)

    def reach(self, name: str, in_flight: Callable[[], Any] | None = None) -> None:
        self.passed.append(name)
        if len(self.passed) - 1 == self.crash_at or (name, self.passed.count(name)) == self.crash_on:
            if in_flight is not None:
                self.clock.in_flight.append((self.clock.now + self.late, in_flight))
                self.clock.sleep(0.0)
            raise Crash(name)

    def around(self, name: str, effect: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {name}")
            result = effect(*args, **kwargs)
            self.reach(f"after {name}")
            return result

        return watched

    def install(self, monkeypatch: pytest.MonkeyPatch, send: Callable[[ToApisClient, Any], Any]) -> None:
        """Make crash points of the client's calls and the hook's waits; both go by the clock."""

        def watched(client: ToApisClient, call: Any) -> Any:
            self.reach(f"before {call.kind}")
            if call.kind is CallKind.SUBMIT:
                self.reach("submit under way", lambda: send(client, call))
            answer = send(client, call)
            self.reach(f"after {call.kind}")
            return answer

        monkeypatch.setattr(ToApisClient, "_exchange", watched)
        monkeypatch.setattr(NanoBananaHook, "clock", staticmethod(self.clock))
        monkeypatch.setattr(NanoBananaHook, "sleep", staticmethod(self.around("wait", self.clock.sleep)))


@dataclass
class CrashHarness:
    """The emulator, the clock and the crash points of one submit task."""

    emulator: Emulator
    clock: Clock
    crash_points: CrashPoints
    client: ToApisClient | None = None

    def run(self, operator: Callable[[], Any], crashes: tuple[int, ...], *, store: bool) -> tuple[Run, int]:
        """Run attempts, each crashing at its point, until one ends by itself.

        :returns: The last attempt, and how many of the crashes happened.
        """
        self.emulator.service.ledger.image_tasks.clear()
        self.emulator.service.ledger.by_client_id.clear()
        self.clock.in_flight.clear()
        row = MemoryTaskStateStore() if store else None
        for number, crash_at in enumerate((*crashes, None)):
            client_ids._checked.clear()  # every attempt is a process of its own
            self.crash_points.crash_at = crash_at
            self.crash_points.passed = []
            ti = TaskInstance(task_id="submit", try_number=number + 1, max_tries=9, store=row)
            try:
                run = attempt(operator(), ti)
                self.crash_points.reach("returned")
            except Crash:
                continue
            return run, number
        raise AssertionError("the attempt without a crash crashed")

    def count_points(self, operator: Callable[[], Any], before: tuple[int, ...], *, store: bool) -> int:
        """Return how many points the attempt after these crashes reaches."""
        self.run(operator, before, store=store)
        return len(self.crash_points.passed)


def short_circuit(service: EmulatedService, call: ApiCall[Any]) -> ApiResponse:
    """Answer a call as the emulator does, without a socket: thousands of attempts in seconds."""
    if call.kind is CallKind.SUBMIT:
        body = responses.submitted(service.accept(parse(call.body, service.settings), {}), service.settings, {})
        return ApiResponse(200, body=json.dumps(body).encode())
    assert call.image_task_id is not None
    found = service.find(call.image_task_id)
    if found is None:
        missing = errors.not_found()
        return ApiResponse(missing.status_code, body=bytes(missing.body))
    body = responses.status(found, service.clock(), service.settings, [{"url": "https://example.com/a.png"}], {})
    return ApiResponse(200, body=json.dumps(body).encode())


def install_crash_points(
    monkeypatch: pytest.MonkeyPatch, emulator: Emulator, clock: Clock, *, sockets: bool
) -> CrashHarness:
    """Make a crash point of every side effect of a submit: store, calls, waits."""
    crash_points = CrashPoints(clock)
    harness = CrashHarness(emulator, clock, crash_points)
    exchange = ToApisClient._exchange if sockets else (lambda _, call: short_circuit(emulator.service, call))

    crash_points.install(monkeypatch, exchange)
    # One client for all attempts: building one costs more than an attempt, and a POST in flight outlives its hook.
    client = ToApisClient(
        emulator.api_url, emulator.api_key, timeout=HTTP_TIMEOUT, sleep=crash_points.around("wait", clock.sleep)
    )
    monkeypatch.setattr(NanoBananaHook, "_connect", lambda hook: client)
    harness.client = client
    for owner, read, write in ((MemoryTaskStateStore, "get", "set"), (TaskInstance, "xcom_pull", "xcom_push")):
        monkeypatch.setattr(owner, read, crash_points.around("read", getattr(owner, read)))
        monkeypatch.setattr(owner, write, crash_points.around("write", getattr(owner, write)))
    return harness
