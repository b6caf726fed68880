"""What users and running Airflows rely on: names, signatures, templates, serialised triggers and shapes of data.

``public_surface.json`` is the promise. A test that fails here says that somebody's DAG, dashboard or deferred task
would break: change the file only together with the changelog.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.file_names import image_key
from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaGenerateOperator,
    NanoBananaReviewOperator,
    NanoBananaSubmitOperator,
)
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger
from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger
from tests.support.task_runner import TaskInstance, attempt, land
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.versions import REVIEWS, needs

PACKAGE = Path(__file__).parents[2] / "airflow_provider_nanobanana"
PROMISED: dict[str, Any] = json.loads((Path(__file__).parent / "public_surface.json").read_text())

CLASSES = {
    "hooks.nanobanana": ["NanoBananaHook"],
    "operators.nanobanana": [
        "NanoBananaSubmitOperator",
        "NanoBananaDownloadOperator",
        "NanoBananaGenerateOperator",
        "NanoBananaReviewOperator",
    ],
    "sensors.nanobanana": ["NanoBananaSensor"],
    "triggers.nanobanana": ["NanoBananaTrigger"],
    "triggers.timer": ["NanoBananaTimerTrigger"],
    "retry_policy": ["NanoBananaRetryPolicy"],
    "exceptions": ["NanoBananaException", "NanoBananaFailException", "NanoBananaSensorTimeout"],
}
HOOK_METHODS = (
    "submit",
    "get_task",
    "aget_task",
    "upload",
    "download",
    "balance",
    "models",
    "test_connection",
    "get_conn",
)


def load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"airflow_provider_nanobanana.{module}"), name)


def parameters(function: Any) -> list[str]:
    """Name and default of each parameter; ``*`` where only names are taken from there on."""
    shown, by_name = [], False
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not by_name:
            by_name = True
            shown.append("*")
        empty = parameter.default is parameter.empty
        shown.append(parameter.name if empty else f"{parameter.name}={parameter.default!r}")
    return shown


def shape(value: Any) -> Any:
    """Keys and types of JSON: what a reader may rely on."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_every_public_class_is_where_it_was_with_its_arguments() -> None:
    found = {
        f"{module}.{name}": parameters(load(module, name).__init__)
        for module, names in CLASSES.items()
        for name in names
        if module not in ("exceptions", "retry_policy")
    }
    assert found == PROMISED["arguments"]
    for module in ("exceptions", "retry_policy"):
        assert all(load(module, name) for name in CLASSES[module])


def test_the_hook_has_its_methods() -> None:
    hook = load("hooks.nanobanana", "NanoBananaHook")
    assert {name: parameters(getattr(hook, name)) for name in HOOK_METHODS} == PROMISED["hook"]
    names = ("conn_name_attr", "default_conn_name", "conn_type", "hook_name")
    assert {name: getattr(hook, name) for name in names} == PROMISED["connection"]


def test_the_same_arguments_are_templates() -> None:
    found = {
        name: sorted(load(module, name).template_fields)
        for module, name in (
            ("operators.nanobanana", "NanoBananaSubmitOperator"),
            ("operators.nanobanana", "NanoBananaDownloadOperator"),
            ("operators.nanobanana", "NanoBananaGenerateOperator"),
            ("operators.nanobanana", "NanoBananaReviewOperator"),
            ("sensors.nanobanana", "NanoBananaSensor"),
        )
    }
    assert found == PROMISED["templates"]


def test_a_deferred_task_finds_its_trigger_after_an_upgrade() -> None:
    triggers = (NanoBananaTrigger(image_task_ids=["a"]), NanoBananaTimerTrigger(moment=1.0, deadline=2.0))
    found = {path: sorted(kwargs) for path, kwargs in (trigger.serialize() for trigger in triggers)}
    assert found == PROMISED["triggers"]


def metric_names() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        # Texts and lists have a count of their own.
        calls = r"(?:(?<=metrics\.)|(?<![.\w]))_?(?:count|timing|count_micros)\(\s*\"(\w+)\""
        yield from re.findall(calls, path.read_text())


def test_the_metrics_have_their_names() -> None:
    assert sorted(set(metric_names())) == PROMISED["metrics"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


def test_generate_hands_on_the_same_shapes(emulator: Emulator, folder: Path) -> None:
    operator = NanoBananaGenerateOperator(
        task_id="make",
        requests=["a red kite", "[[refuse-late]] a boat"],
        destination=folder.as_uri(),
        allow_partial=True,
        poke_interval=0.05,
        timeout=20,
    )
    run = attempt(operator, TaskInstance(task_id="make", store=MemoryTaskStateStore()))
    assert run.error is None
    assert shape(run.result) == PROMISED["generate"]
    manifest = json.loads(Path(run.result["manifest"].removeprefix("file://")).read_text())
    assert shape(manifest) == PROMISED["generate_manifest"]


def test_three_tasks_hand_on_the_same_shapes(emulator: Emulator, folder: Path) -> None:
    submit = NanoBananaSubmitOperator(task_id="submit", prompt="a red kite")
    image_task_id = attempt(submit, TaskInstance(task_id="submit", store=MemoryTaskStateStore())).result
    assert shape(image_task_id) == "str"
    waited = attempt(NanoBananaSensor(task_id="wait", image_task_ids=[image_task_id], poke_interval=0.05, timeout=20))
    assert shape(waited.result) == PROMISED["sensor"]
    landed = land(waited.result, folder)
    assert shape(landed.result) == PROMISED["download"]
    (manifest,) = folder.glob("manifest-*.json")
    assert shape(json.loads(manifest.read_text())) == PROMISED["download_manifest"]


@needs(REVIEWS)
def test_a_review_hands_on_the_same_shape() -> None:
    ti = TaskInstance(task_id="review")
    context: Any = {"ti": ti, "task_instance": ti}
    event = {
        "chosen_options": ["Approve all"],
        "params_input": {"approved": [], "comment": "fine"},
        "responded_at": datetime(2026, 11, 26, tzinfo=UTC),
        "responded_by_user": {"id": "7", "name": "uma"},
    }
    image = {"uri": "file:///x/cup.png"}
    ti.xcom_push("nanobanana_review", {"pictures": {image_key(image["uri"]): ""}})
    operator = NanoBananaReviewOperator(task_id="review", images=[image])
    result = operator.execute_complete(context, event)
    assert shape(result) == PROMISED["review"]
    assert {key: ti.xcoms[key] for key in result} == result


def test_a_trigger_wakes_with_the_same_event(emulator: Emulator) -> None:
    submit = NanoBananaSubmitOperator(task_id="submit", prompt="a red kite")
    image_task_id = attempt(submit, TaskInstance(task_id="submit", store=MemoryTaskStateStore())).result
    trigger = NanoBananaTrigger(image_task_ids=[image_task_id], deadline=9e9, poll_interval=0.05)

    async def first() -> Any:
        async for event in trigger.run():
            return event.payload
        return None

    event = asyncio.run(first())
    event["statuses"] = {"id": event["statuses"][image_task_id]}
    event["counts"] = {"status": sum(event["counts"].values())}
    assert shape(event) == PROMISED["event"]
