"""What Airflow 3.3 does after a failure of ours: fail, wait as asked, or as the task says."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_nanobanana.exceptions import airflow_exception
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from airflow_provider_nanobanana.retry_policy import NanoBananaRetryPolicy
from airflow_provider_nanobanana.toapis import errors
from tests.support.versions import RETRY_POLICIES, gives, needs

if gives(RETRY_POLICIES):
    from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction

with_policies = needs(RETRY_POLICIES)


def decide(error: BaseException) -> Any:
    return NanoBananaRetryPolicy().evaluate(error, try_number=1, max_tries=3)


@with_policies
@pytest.mark.parametrize(
    "error_class",
    [errors.AuthenticationFailed, errors.ContentRefused, errors.SubmissionUnfindable, errors.ResultExpired],
)
def test_what_no_retry_can_help_fails_at_once(error_class: type[errors.ToApisError]) -> None:
    decision = decide(airflow_exception(error_class("no")))
    assert decision.action is RetryAction.FAIL
    assert error_class.__name__ in decision.reason


@with_policies
@pytest.mark.parametrize(("asked", "waited"), [(7.0, 7.0), (90.0, 90.0), (1e9, 3600.0)])
def test_a_rate_limit_waits_what_the_service_asked(asked: float, waited: float) -> None:
    decision = decide(airflow_exception(errors.RateLimited("slow", retry_after=asked)))
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=waited))


@with_policies
@pytest.mark.parametrize(
    "error", [airflow_exception(errors.TransientFailure("x")), ValueError("a bug"), KeyboardInterrupt()]
)
def test_the_rest_follows_the_task_s_own_settings(error: BaseException) -> None:
    assert decide(error).action is RetryAction.DEFAULT


@with_policies
def test_it_is_the_default_also_of_mapped_tasks_and_the_user_s_own_wins() -> None:
    assert isinstance(NanoBananaSubmitOperator(task_id="a", prompt="x").retry_policy, NanoBananaRetryPolicy)
    assert isinstance(
        NanoBananaSubmitOperator(task_id="a", prompt="x", retry_policy=None).retry_policy, NanoBananaRetryPolicy
    ), "partial() spells out None"
    own = ExceptionRetryPolicy(rules=[])
    assert NanoBananaSubmitOperator(task_id="a", prompt="x", retry_policy=own).retry_policy is own


def test_below_3_3_it_imports_and_says_what_it_needs() -> None:
    code = """
import sys
sys.modules["airflow.sdk.definitions.retry_policy"] = None
from airflow_provider_nanobanana.retry_policy import NanoBananaRetryPolicy, with_retry_policy
from tests.support.text import flat
assert with_retry_policy({"retries": 1}) == {"retries": 1}
try:
    NanoBananaRetryPolicy()
except RuntimeError as error:
    assert "needs Airflow 3.3" in flat(error)
    print("said")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("said"), done.stderr[-2000:]
