"""Generate, from prompts to files, against the emulator over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat


def generate(folder: Path, ti: TaskInstance | None = None, **options: Any) -> Run:
    options = {"poke_interval": 0.05, "timeout": 20, **options}
    operator = NanoBananaGenerateOperator(task_id="generate", destination=folder.as_uri(), **options)
    return attempt(operator, ti or instance())


def instance(**fields: Any) -> TaskInstance:
    return TaskInstance(**{"task_id": "generate", "store": MemoryTaskStateStore(), **fields})


def charges(emulator: Emulator) -> int:
    return sum(not task["refunded"] for task in emulator.ledger()["image_tasks"])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".png")


def test_one_prompt(emulator: Emulator, tmp_path: Path) -> None:
    run = generate(tmp_path, prompt="a red kite")
    assert run.error is None
    (image,) = run.result["images"]
    assert (run.result["count"], run.result["failed"], run.result["truncated"]) == (1, [], False)
    assert run.result["cost_usd"] == pytest.approx(0.025)
    assert Path(image["uri"].removeprefix("file://")).is_file() and image["request"] == 0
    manifest = json.loads(Path(run.result["manifest"].removeprefix("file://")).read_text())
    assert manifest["images"][0]["fields"]["prompt"] == "a red kite"


def test_many_with_failures(emulator: Emulator, tmp_path: Path) -> None:
    requests = [f"picture {number}" for number in range(18)] + ["[[refuse-late]] one", {"prompt": "[[stuck]] two"}]
    ti = instance(max_tries=2)
    run = generate(tmp_path, ti, requests=requests, timeout=2)
    assert len(files(tmp_path)) == 18
    assert "18 of 20" in flat(run.error)
    value = ti.xcoms["return_value"]
    assert value["count"] == 18 and [failed["request"] for failed in value["failed"]] == [18, 19]
    before = charges(emulator)
    ti.try_number = 2
    again = generate(tmp_path, ti, requests=requests, timeout=2, allow_partial=True)
    assert again.error is None and again.result["count"] == 18
    assert charges(emulator) == before, "a refused prompt is never sent again, a running one is waited for"


def test_a_rerun_costs_nothing_and_a_changed_prompt_one(emulator: Emulator, tmp_path: Path) -> None:
    prompts = [f"picture {number}" for number in range(10)]
    generate(tmp_path, requests=prompts)
    assert charges(emulator) == 10
    again = generate(tmp_path, instance(run_id="next"), requests=prompts[::-1])
    assert charges(emulator) == 10 and again.result["cost_usd"] == 0 and again.result["count"] == 10
    changed = generate(tmp_path, instance(run_id="third"), requests=["another", *prompts[1:]])
    assert charges(emulator) == 11 and changed.result["count"] == 10


def test_a_store_in_memory_does_as_well(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.io.store import ObjectStore
    from fsspec.implementations.memory import MemoryFileSystem

    store = MemoryFileSystem(skip_instance_cache=True)
    monkeypatch.setattr(store, "store", {})
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {"memory": ObjectStore("memory", None, store)})
    options: dict[str, Any] = {"destination": "memory://pictures", "poke_interval": 0.05, "timeout": 20}
    for run_id, requests in (("first", ["a", "b"]), ("second", ["b", "c"])):
        operator = NanoBananaGenerateOperator(task_id="generate", requests=requests, **options)
        run = attempt(operator, instance(run_id=run_id))
        assert run.error is None and run.result["count"] == 2
    assert charges(emulator) == 3, "the second run pays for what is new"
    assert sum(name.endswith(".png") for name in store.store) == 3
