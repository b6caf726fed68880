"""Airflow with its OpenLineage provider: what real processes tell of one task and of three, and what the page shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

import pytest
from PIL import Image

from airflow_provider_nanobanana.emulator import Emulator
from tests.shapes import buying
from tests.shapes.stacks import EXAMPLES, Started
from tests.support.openlineage import facet_faults, shape, shown, shown_example
from tests.system.harness import Run

REFRESH = "nanobanana_asset_refresh"
ENDS = ("COMPLETE", "FAIL", "ABORT")


class Events:
    """The events of a file, as OpenLineage's transport wrote them."""

    def __init__(self, file: Path) -> None:
        self.all: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]

    def of(self, run: Run, task_id: str) -> list[dict[str, Any]]:
        """Return those of a task's instances."""
        return [event for event in self.all if event["job"]["name"] == f"{run.dag_id}.{task_id}"]

    def ends(self, run: Run, task_id: str) -> list[dict[str, Any]]:
        """Return the last of each instance, of which there is one."""
        ends = [event for event in self.of(run, task_id) if event["eventType"] in ENDS]
        assert len({event["run"]["runId"] for event in ends}) == len(ends) == len(run.instances(task_id))
        return ends


def _ended(file: Path) -> int:
    text = file.read_text()
    return sum(text.count(f'"eventType": "{end}"') for end in ENDS)


def _facet(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event["run"]["facets"]["nanobanana_images"].items() if key[0] != "_"}


def _told(dataset: dict[str, Any]) -> Path:
    """Return the file of a dataset, of which everything that is told is true."""
    path, facets = Path(dataset["name"]), dataset["facets"]
    assert dataset["namespace"] == "file"
    content = path.read_bytes()
    assert facets["version"]["datasetVersion"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    if "outputFacets" in dataset:
        image, statistics = facets["nanobanana_image"], dataset["outputFacets"]["outputStatistics"]
        assert statistics["size"] == image["bytes"] == len(content)
        with Image.open(path) as opened:
            assert (image["width"], image["height"], image["format"].upper()) == (*opened.size, opened.format)
    return path


def test_what_is_told_of_a_run_is_true_and_told_once(tmp_path: Path, emulator: Emulator, started: Started) -> None:
    pytest.importorskip("airflow.providers.openlineage")
    told = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(told), "append": True}
    env = {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    stack = started.stack(tmp_path / "airflow", emulator, env)
    stack.start(timeout=400)
    images = tmp_path / "images"
    refresh = buying.start(stack.api, REFRESH, destination=(images / "refresh").as_uri())
    prompts = ["a kite", "a boat [[fail]]"]
    pipeline = buying.start(stack.api, buying.PIPELINE, prompts=prompts, destination=(images / "pipeline").as_uri())
    assert (refresh.wait(400), pipeline.wait(400)) == ("success", "failed")
    # A task tells its end after Airflow knows of it: six task instances, and two runs.
    stack.api.wait_until(lambda: _ended(told) == 8 or None, "the last events", 60)
    events = Events(told)
    assert [fault for event in events.all for fault in facet_faults(event)] == []
    assert emulator.api_key not in told.read_text()

    (generate,) = events.ends(refresh, "pictures")
    # Airflow starts a task instance again that was deferred: the same run of OpenLineage's.
    starts = [event for event in events.of(refresh, "pictures") if event["eventType"] == "START"]
    assert len(starts) > 1 and {event["run"]["runId"] for event in starts} == {generate["run"]["runId"]}
    result, facet = refresh.xcom("pictures"), _facet(generate)
    assert facet == {name: result[name] for name in facet.keys() & result.keys()} | {
        "form": "generate", "models": ["nano_banana_2"], "quarantined_count": 0,
    }  # fmt: skip
    assert {_told(dataset) for dataset in generate["inputs"]} == {*(EXAMPLES / "photos").glob("*.jpg")}
    assert {_told(dataset) for dataset in generate["outputs"]} == {*(images / "refresh").glob("*.png")}
    example = shown_example()
    assert shape(shown(generate)) == shape(example)
    assert shown(generate)["run"] == example["run"]
    for kind in ("inputs", "outputs"):
        assert PurePath(example[kind][0]["name"]).name in {PurePath(one["name"]).name for one in generate[kind]}

    submits = events.ends(pipeline, "submit")
    assert [_facet(event) for event in submits] == 2 * [{"form": "submit", "models": ["nano_banana_2"]}]
    (wait,) = events.ends(pipeline, "wait")
    numbers = {"completed": 1, "failed_count": 1, "timed_out": 0, "cost_usd": 0.025, "paid_usd": 0.025}
    assert wait["eventType"] == "FAIL"
    assert _facet(wait) == {"form": "wait", "models": ["nano_banana_2"], **numbers}
    (download,) = events.ends(pipeline, "download")
    assert {_told(dataset) for dataset in download["outputs"]} == {*(images / "pipeline").glob("*.png")}
    assert (_facet(download)["count"], _facet(download)["failed_count"]) == (1, 0)
