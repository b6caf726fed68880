"""``allow_partial``: what may be missing, and when it is given up."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from tests.integration.batch.harness import GenerateTask
from tests.support.text import flat

PROMPTS = [f"picture {number}" for number in range(6)]


def partial(batch: GenerateTask, prompts: list[str], **options: Any) -> Any:
    return batch.attempt(requests=prompts, allow_partial="after_retries", **options)


def test_what_a_retry_can_help_is_retried_first(batch: GenerateTask) -> None:
    batch.emulator.fault(on="status", kind="failed", match="picture 2", times=1)
    first = partial(batch, PROMPTS)
    assert type(first.error) is NanoBananaException
    assert first.ti.xcoms["return_value"]["failed_count"] == 1
    second = partial(batch, PROMPTS)
    assert second.result["count"] == 6 and second.result["failed_count"] == 0
    assert batch.charges == 6


def test_with_the_last_try_what_there_is_is_the_result(batch: GenerateTask) -> None:
    prompts = [*PROMPTS, "never [[fail]]"]
    batch.retries = batch.max_tries = 2
    assert [partial(batch, prompts).error is None for _ in range(3)] == [False, False, True]
    assert batch.manifest["count"] == 6
    batch.clear()
    assert [partial(batch, prompts).error is None for _ in range(3)] == [False, False, True]
    assert batch.charges == 6


def test_what_no_retry_helps_is_not_waited_for(batch: GenerateTask) -> None:
    run = partial(batch, [*PROMPTS, "bad [[refuse]]"])
    assert run.error is None and (run.result["count"], run.result["failed_count"]) == (6, 1)


def test_without_any_picture_it_fails_after_the_last_try(batch: GenerateTask) -> None:
    batch.retries = batch.max_tries = 1
    runs = [partial(batch, ["bad [[fail]]"]) for _ in range(2)]
    assert all(isinstance(run.error, NanoBananaException) for run in runs)
    assert isinstance(partial(batch, ["bad [[refuse]]"]).error, NanoBananaException)


@pytest.mark.parametrize("value", ["after", "True", 2, None])
def test_another_value_is_refused_before_money(with_store: GenerateTask, value: Any) -> None:
    run = with_store.attempt(requests=PROMPTS, allow_partial=value)
    assert isinstance(run.error, NanoBananaFailException) and "after_retries" in flat(run.error)
    assert with_store.posts == 0
