"""The key is in the connection and in one header to one host, nowhere else."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from tests.support.task_runner import Run, attempt

FAULTS: list[dict[str, Any]] = [
    {"on": "submit", "kind": "unauthorized"},
    {"on": "submit", "kind": "bad_request", "text": "the key sk-emulator may not do this, Bearer sk-emulator neither"},
    {"on": "submit", "kind": "html", "status": 502},
    {"on": "submit", "kind": "not_json", "text": "echo: Authorization: Bearer sk-emulator"},
    {"on": "status", "kind": "unauthorized"},
    {"on": "status", "kind": "failed", "text": "upstream said: Bearer sk-emulator is wrong"},
    {"on": "result", "kind": "html", "status": 403},
]


def pipeline(folder: Path) -> list[Run]:
    submit = attempt(NanoBananaSubmitOperator(task_id="submit", prompt="a red kite"))
    wait = attempt(
        NanoBananaSensor(task_id="wait", image_task_ids=submit.result or "none", poke_interval=0.05, timeout=2)
    )
    entries = wait.result or wait.ti.xcoms.get("return_value")
    return [
        submit,
        wait,
        attempt(NanoBananaDownloadOperator(task_id="download", images=entries, destination=f"file://{folder}")),
    ]


def spoken(runs: list[Run]) -> str:
    """Everything that leaves the operators: results, XComs, trigger arguments, events, exceptions with their causes."""
    parts: list[Any] = []
    for run in runs:
        parts += [run.result, run.ti.xcoms, run.events, [deferral.trigger.serialize() for deferral in run.deferrals]]
        if run.error is not None:
            parts.append("".join(traceback.format_exception(run.error)))
    return json.dumps(parts, default=repr)


@pytest.mark.parametrize(
    "fault", [None, *FAULTS], ids=lambda fault: f"{fault['on']}-{fault['kind']}" if fault else "none"
)
def test_the_key_is_in_no_log_xcom_event_argument_or_exception(
    emulator: Emulator,
    folder: Path,
    fault: dict[str, Any] | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    emulator.configure(latency=0.1)
    if fault:
        emulator.fault(**fault)
    with caplog.at_level(logging.DEBUG):
        text = spoken(pipeline(folder))
    manifests = "".join(path.read_text() for path in folder.glob("manifest-*")) if folder.exists() else ""
    output = capfd.readouterr()
    assert emulator.api_key not in text + caplog.text + output.out + output.err + manifests


def test_no_host_but_the_api_ever_gets_the_key(emulator: Emulator, folder: Path, tmp_path: Path) -> None:
    emulator.fault(on="result", kind="redirect", hops=2)
    assert pipeline(folder)[-1].error is None
    requests = emulator.requests()
    assert {request["kind"] for request in requests} == {"api", "files"}
    assert all(request["authorization"] == (request["kind"] == "api") for request in requests)
