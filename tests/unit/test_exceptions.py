"""Errors survive pickling and copying, and Airflow does with each what it calls for."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout

from airflow_provider_nanobanana.exceptions import (
    NanoBananaException,
    NanoBananaFailException,
    NanoBananaSensorTimeout,
    airflow_errors,
    airflow_exception,
    sensor_exception,
)
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.text_lines import FIRST_LINE_WIDTH

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.ToApisError)]
EDGE = [NanoBananaException, NanoBananaFailException, NanoBananaSensorTimeout]
ATTRIBUTES: dict[str, Any] = {
    "image_task_id": "tsk_1",
    "http_status": 429,
    "code": "rate_limit_exceeded",
    "retry_after": 7.5,
    "charged": "unknown",
}
COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, 6)),
]


def state(error: errors.ToApisError) -> dict[str, Any]:
    return {"message": error.message, "text": str(error), **{name: getattr(error, name) for name in ATTRIBUTES}}


@pytest.mark.parametrize("again", COPIES)
@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_survives_with_its_attributes(error_class: type[errors.ToApisError], again: Any) -> None:
    for attributes in (ATTRIBUTES, {}):
        error = error_class("what happened", **attributes)
        other = again(error)
        assert type(other) is error_class and state(other) == state(error)
    assert error.charged == error_class.charged


@pytest.mark.parametrize("error_class", CLASSES)
def test_other_words_change_nothing_else(error_class: type[errors.ToApisError]) -> None:
    for attributes in (ATTRIBUTES, {}):
        error = error_class("what happened", **attributes)
        other = error.reworded("what to do")
        assert type(other) is error_class
        assert state(other) == state(error) | {"message": "what to do", "text": "what to do"}
        paid = error.reworded("what to do", charged="yes")
        assert state(paid) == state(other) | {"charged": "yes"}


@pytest.mark.parametrize("again", COPIES)
@pytest.mark.parametrize("edge_class", EDGE)
@pytest.mark.parametrize("error_class", [errors.RateLimited, errors.ContentRefused, errors.ImageTaskTimeout])
def test_every_edge_error_survives_with_its_error(edge_class: Any, error_class: Any, again: Any) -> None:
    edge = edge_class(error_class("what happened", **ATTRIBUTES))
    edge.add_note("seen on a worker")
    other = again(edge)
    assert type(other) is edge_class and str(other) == str(edge) and str(other).endswith("\nwhat happened")
    assert type(other.error) is error_class and state(other.error) == state(edge.error)
    assert (other.retryable, other.charged, other.image_task_id) == (error_class.retryable, "unknown", "tsk_1")


def test_the_tree_has_one_root_and_every_class_knows_its_money() -> None:
    assert len(CLASSES) >= 20
    for error_class in CLASSES:
        assert error_class("x").charged in ("no", "yes", "unknown")
        assert isinstance(error_class.retryable, bool)
        assert error_class.__doc__


def test_a_charge_of_one_error_leaves_its_class_alone() -> None:
    errors.RateLimited("x", charged="yes")
    assert errors.RateLimited("x").charged == "no"


@pytest.mark.parametrize("error_class", [errors.SubmissionUnknown])
def test_an_unknown_submit_is_unknown_money(error_class: type[errors.ToApisError]) -> None:
    assert error_class("x").charged == "unknown"


FINAL = {
    errors.ToApisError,
    errors.ConfigurationError,
    errors.InvalidRequest,
    errors.SubmissionUnfindable,
    errors.AuthenticationFailed,
    errors.PermissionRefused,
    errors.InsufficientCredits,
    errors.ModelNotFound,
    errors.ContentRefused,
    errors.ImageTaskNotFound,
    errors.ImageTaskFailed,
    errors.ResultExpired,
    errors.UnsafeAddress,
    errors.ImageSuspect,
}


@pytest.mark.parametrize("error_class", CLASSES)
def test_airflow_retries_exactly_what_can_succeed_unchanged(error_class: type[errors.ToApisError]) -> None:
    edge = airflow_exception(error_class("x"))
    assert isinstance(edge, AirflowException)
    assert isinstance(edge, AirflowFailException) == (error_class in FINAL)


@pytest.mark.parametrize("error_class", CLASSES)
def test_only_an_image_task_s_timeout_is_a_sensor_timeout(error_class: type[errors.ToApisError]) -> None:
    edge = sensor_exception(error_class("x"))
    assert isinstance(edge, AirflowSensorTimeout) == (error_class is errors.ImageTaskTimeout)
    assert not (isinstance(edge, AirflowSensorTimeout) and isinstance(edge, AirflowFailException))


def test_the_block_turns_the_service_s_errors_and_no_others() -> None:
    with pytest.raises(NanoBananaFailException) as caught, airflow_errors():
        raise errors.AuthenticationFailed("bad key")
    assert isinstance(caught.value.error, errors.AuthenticationFailed)
    with pytest.raises(KeyError), airflow_errors():
        raise KeyError("a bug")
    with pytest.raises(NanoBananaException) as passed, airflow_errors():
        raise NanoBananaException(errors.RateLimited("x"))
    assert type(passed.value) is NanoBananaException


def test_an_exception_begins_with_what_to_do_and_has_no_twin(caplog: pytest.LogCaptureFixture) -> None:
    """Airflow's log pane prints the whole chain of an exception, each with its traceback."""
    caplog.set_level("DEBUG", "airflow_provider_nanobanana.exceptions")
    with pytest.raises(NanoBananaException) as caught, airflow_errors(), airflow_errors():
        raise errors.AuthenticationFailed(" ".join(["The gateway answered 401."] * 9))
    first, *rest = str(caught.value).splitlines()
    assert first == "Correct the API key (the connection's password), then clear this task."
    assert len(rest) > 1 and " ".join(rest) == caught.value.error.message
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("The gateway answered") == 9 and shown.count("Traceback") == 1
    # The inner block's frames, and those that led to it, are at DEBUG.
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 2
    (logged,) = caplog.records
    assert logged.exc_info is not None and logged.exc_info[1] is caught.value.error


@pytest.mark.parametrize("error_class", CLASSES)
def test_each_error_says_what_to_do_first_in_one_line(error_class: type[errors.ToApisError]) -> None:
    assert 0 < len(error_class.first_step) <= FIRST_LINE_WIDTH and error_class.first_step.endswith(".")
    assert ("the retry" in error_class.first_step) == error_class.retryable
