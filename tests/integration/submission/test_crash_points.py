"""An attempt may die before and after every side effect, and the next one too: the image is paid once and found."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.toapis.protocol import submit_call
from tests.integration.submission.crash_points import HTTP_TIMEOUT, CrashHarness
from tests.support.campaign import of_campaign

#: Seconds until a client id resolves, and seconds that a POST whose sender died takes to be accepted.
BANKS = [(0, 0), (1, 0), (15, 0), (30, 0), (0, HTTP_TIMEOUT), (30, HTTP_TIMEOUT)]
pytestmark = pytest.mark.campaign


class NaiveSubmitOperator(BaseOperator):
    """What most teams write first: POST, id into XCom, and let Airflow retry."""

    def execute(self, context: Any) -> str:
        with NanoBananaHook() as hook:
            return hook.client.call(submit_call(hook.parse_request({"prompt": "a red kite"}))).id


@pytest.fixture
def ours() -> Callable[[], Any]:
    return lambda: NanoBananaSubmitOperator(task_id="submit", prompt="a red kite", retries=9)


@pytest.fixture
def with_upload(tmp_path: Path) -> Callable[[], Any]:
    """The same with a reference image, whose upload is a side effect too."""
    reference = tmp_path / "reference.png"
    reference.write_bytes(PNG)
    return lambda: NanoBananaSubmitOperator(
        task_id="submit", prompt="a red kite", reference_images=[str(reference)], retries=9
    )


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)


def storms(
    harness: CrashHarness, operator: Callable[[], Any], crashes: int, every: int, *, store: bool
) -> Iterator[tuple[int, ...]]:
    """Yield the ways in which so many attempts in a row can crash.

    :param every: The last of them crashes at every so many-th point only, each time at others.
    """

    def after(before: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(before) == crashes:
            yield before
            return
        step = every if len(before) == crashes - 1 else 1
        for point in range(random.randrange(step), harness.count_points(operator, before, store=store), step):
            yield from after((*before, point))

    return after(())


def duplicates(
    harness: CrashHarness, operator: Callable[[], Any], crashes: int, every: int = 1, *, store: bool
) -> tuple[int, int]:
    """Return how many storms there were, and the charges beyond the first in all of them."""
    count = beyond = 0
    for storm in storms(harness, operator, crashes, every, store=store):
        run, came = harness.run(operator, storm, store=store)
        assert run.error is None, (storm, run.error)
        assert came == crashes
        charged = harness.emulator.service.ledger.image_tasks
        assert run.result in charged, storm
        count, beyond = count + 1, beyond + len(charged) - 1
        harness.clock.sleep(3600.0)
    return count, beyond


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(("shown_after", "accepted_after"), BANKS)
def test_one_crash_at_every_point(
    harness: CrashHarness, with_upload: Callable[[], Any], store: bool, shown_after: int, accepted_after: int
) -> None:
    harness.emulator.configure(lookup_delay=shown_after)
    harness.crash_points.late = accepted_after
    count, beyond = duplicates(harness, with_upload, 1, store=store)
    print(f"\n{count} crash points: {beyond} duplicates")
    assert count > 15
    assert beyond == 0


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(("shown_after", "accepted_after"), [BANKS[0], BANKS[-1]])
def test_one_crash_at_every_point_while_the_account_makes_submits_wait(
    harness: CrashHarness,
    ours: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    store: bool,
    shown_after: int,
    accepted_after: int,
) -> None:
    """Every attempt stands in the line first, behind those of other processes, and may die there."""
    slow = harness.emulator.connection_json(timeout=HTTP_TIMEOUT, submit_rate=0.3)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", slow)

    def behind_another() -> Any:
        with NanoBananaHook() as hook:
            SubmitRateLimiter.of(hook.settings).reserve(harness.clock.now)
        return ours()

    harness.emulator.configure(lookup_delay=shown_after)
    harness.crash_points.late = accepted_after
    count, beyond = duplicates(harness, behind_another, 1, store=store)
    print(f"\n{count} crash points: {beyond} duplicates")
    harness.count_points(behind_another, (), store=store)
    assert "before wait" in harness.crash_points.passed
    assert beyond == 0


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(("shown_after", "accepted_after"), [BANKS[0], BANKS[-1]])
def test_two_crashes_in_a_row(
    quick_harness: CrashHarness, ours: Callable[[], Any], store: bool, shown_after: int, accepted_after: int
) -> None:
    """The first at every point, the second at every ninth one that follows; in the campaign all pairs."""
    harness = quick_harness
    harness.emulator.configure(lookup_delay=shown_after)
    harness.crash_points.late = accepted_after
    count, beyond = duplicates(harness, ours, 2, every=of_campaign(9, 1), store=store)
    print(f"\n{count} pairs of crash points: {beyond} duplicates")
    assert count > 70
    assert beyond == 0


def test_the_naive_operator_pays_again(harness: CrashHarness) -> None:
    def naive() -> Any:
        return NaiveSubmitOperator(task_id="submit", retries=9)

    measured = {crashes: duplicates(harness, naive, crashes, store=False) for crashes in (1, 2)}
    print(f"\nnaive operator: crashes in a row -> (storms, duplicates): {measured}")
    assert all(beyond > 0 for _, beyond in measured.values())
    assert all(count for count, _ in itertools.islice(measured.values(), 1))
