"""Lineage of real runs: told to a stand-in and to Airflow's own collector, and read by OpenLineage's own extractor."""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_nanobanana import lineage
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.get_provider_info import DOCUMENTATION
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaDownloadOperator,
    NanoBananaGenerateOperator,
    NanoBananaSubmitOperator,
)
from tests.support.images import picture
from tests.support.lineage import COLLECTOR, Collector
from tests.support.task_runner import Run, TaskInstance, attempt, sensor

#: A link as a user may have signed one.
SIGNED = "https://user:pw@example.com/photo.png?X-Amz-Signature=secret"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    return Collector.in_place_of_airflows(monkeypatch)


def extracted(operator: Any, state: str = "success") -> Any:
    """Return what the OpenLineage provider makes of an operator that has run."""
    pytest.importorskip("airflow.providers.openlineage")
    from airflow.providers.openlineage.extractors.manager import ExtractorManager
    from airflow.utils.state import TaskInstanceState

    return ExtractorManager().extract_metadata(
        SimpleNamespace(run_id="run"), operator, TaskInstanceState(state), TaskInstance(task_id=operator.task_id)
    )


def generate(folder: Path, **options: Any) -> tuple[NanoBananaGenerateOperator, Run]:
    given = {"requests": ["one", "two"], "poke_interval": 0.05, **options}
    operator = NanoBananaGenerateOperator(task_id="task", destination=folder.as_uri(), **given)
    return operator, attempt(operator)


def airflows_collector(monkeypatch: pytest.MonkeyPatch, readers: list[Any]) -> Callable[[], Any]:
    """Return what returns Airflow's own collector, which is built anew for these readers of plugins."""
    try:
        from airflow.sdk import lineage as own
        from airflow.sdk import plugins_manager
    except ImportError:  # before Airflow 3.2
        hook: Any = importlib.import_module("airflow.lineage.hook")
        monkeypatch.setattr("airflow.plugins_manager.hook_lineage_reader_classes", readers)
        monkeypatch.setattr(hook, "_hook_lineage_collector", None)
        collector: Callable[[], Any] = hook.get_hook_lineage_collector
        return collector
    monkeypatch.setattr(plugins_manager, "get_hook_lineage_readers_plugins", lambda: readers)
    fresh = cache(own.get_hook_lineage_collector.__wrapped__)
    for place in ("airflow.sdk.lineage.get_hook_lineage_collector", COLLECTOR):
        monkeypatch.setattr(place, fresh, raising=False)
    return fresh


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(picture())
    return path


def test_generate_tells_of_its_images_and_references(
    emulator: Emulator, tmp_path: Path, photo: Path, collector: Collector
) -> None:
    """Also where what landed them resumed after a deferral."""
    emulator.configure(latency=2.0)
    _, run = generate(tmp_path / "out", reference_images=[str(photo), SIGNED])
    assert run.error is None and run.deferrals
    assert collector.outputs == [image["uri"] for image in run.result["images"]]
    assert collector.inputs == [f"file://{photo}", "https://example.com/photo.png"]


def test_the_hook_tells_too(emulator: Emulator, tmp_path: Path, photo: Path, collector: Collector) -> None:
    with NanoBananaHook() as hook:
        hook.upload(photo)
        bought = hook.submit({"prompt": "a", "reference_images": [SIGNED]})
        stored = hook.download({"id": bought.id, "index": 0}, f"file://{tmp_path}/out")
    assert collector.inputs == [f"file://{photo}", "https://example.com/photo.png"]
    assert collector.outputs == [stored.uri]


@pytest.mark.parametrize("read", [True, False])
def test_airflows_own_collector_is_told_where_a_plugin_reads_it(
    emulator: Emulator, photo: Path, monkeypatch: pytest.MonkeyPatch, read: bool
) -> None:
    collector = airflows_collector(monkeypatch, readers=[object()] if read else [])
    with NanoBananaHook() as hook:
        hook.upload(photo)
    assert [each.asset.uri for each in collector().collected_assets.inputs] == ([f"file://{photo}"] if read else [])


def test_openlineage_knows_images_and_money(emulator: Emulator, tmp_path: Path, photo: Path) -> None:
    operator, run = generate(
        tmp_path / "out", requests=["one", "two [[fail]]"], reference_images=[str(photo), SIGNED], allow_partial=True
    )
    told = extracted(operator)
    (image,) = run.result["images"]
    (output,) = told.outputs
    assert (output.namespace, output.name) == ("file", image["uri"].removeprefix("file://"))
    assert output.facets["version"].datasetVersion == f"sha256:{image['sha256']}"
    statistics = output.outputFacets["outputStatistics"]
    assert (statistics.size, statistics.fileCount) == (image["bytes"], 1)
    assert [(one.namespace, one.name) for one in told.inputs] == [
        ("file", str(photo)),
        ("https://example.com", "photo.png"),
    ]
    facet = told.run_facets["nanobanana_images"]
    assert (facet.count, facet.failed_count, facet.paid_usd) == (1, 1, run.result["paid_usd"])


def test_a_failure_tells_what_is_paid_and_in_place(emulator: Emulator, tmp_path: Path) -> None:
    operator, run = generate(tmp_path / "out", requests=["one", "two [[fail]]"])
    told = extracted(operator, "failed")
    assert run.error is not None and len(told.outputs) == 1
    assert told.run_facets["nanobanana_images"].paid_usd == run.ti.xcoms["return_value"]["paid_usd"] > 0


def test_of_many_images_openlineage_is_told_the_folder(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("airflow.providers.openlineage")
    from airflow_provider_nanobanana.batch import openlineage

    for module in (lineage, openlineage):
        monkeypatch.setattr(module, "MOST", 1)
    operator, run = generate(tmp_path / "out")
    (output,) = extracted(operator).outputs
    statistics = output.outputFacets["outputStatistics"]
    assert output.name == str(tmp_path / "out")
    assert (statistics.fileCount, statistics.size) == (2, sum(image["bytes"] for image in run.result["images"]))


def test_the_three_tasks_tell_each_its_part(emulator: Emulator, tmp_path: Path, photo: Path) -> None:
    submit = NanoBananaSubmitOperator(task_id="submit", prompt="a", reference_images=[str(photo)])
    ids = [attempt(submit).result]
    waiting = sensor(ids)
    entries = attempt(waiting).result
    download = NanoBananaDownloadOperator(task_id="download", images=entries, destination=f"file://{tmp_path}/out")
    (landed,) = attempt(download).result
    assert [one.name for one in extracted(submit).inputs] == [str(photo)]
    waited = extracted(waiting).run_facets["nanobanana_images"]
    assert (waited.completed, waited.paid_usd) == (1, entries[0]["cost_usd"])
    (output,) = extracted(download).outputs
    assert output.name == landed["uri"].removeprefix("file://")


def event_of(operator: Any) -> dict[str, Any]:
    """Return as much of the event of an operator that has run as is told here, as JSON."""
    told = extracted(operator)
    from openlineage.client.serde import Serde

    def as_json(value: Any) -> Any:
        return json.loads(Serde.to_json(value))

    return {
        "eventType": "COMPLETE",
        "job": {"namespace": "default", "name": f"dag.{operator.task_id}"},
        "run": {"facets": {name: as_json(facet) for name, facet in told.run_facets.items()}},
        "inputs": [as_json(one) for one in told.inputs],
        "outputs": [as_json(one) for one in told.outputs],
    }


def test_a_facet_is_as_its_schema_says(emulator: Emulator, tmp_path: Path, photo: Path) -> None:
    """And nothing secret is in it: no key, no signature, no connection id."""
    operator, _ = generate(tmp_path / "out", reference_images=[str(photo), SIGNED])
    event = event_of(operator)
    assert not any(secret in json.dumps(event) for secret in ("secret", "pw@", "sk-", "nanobanana_default"))
    from tests.support.openlineage import facet_faults, facets_of_ours

    assert facet_faults(event) == []
    names = {name for name, _ in facets_of_ours(event)}
    assert names == {"nanobanana_images", "nanobanana_image", "version", "outputStatistics"}


def test_the_event_that_is_shown_has_the_keys_of_a_real_one(emulator: Emulator, tmp_path: Path, photo: Path) -> None:
    """Its values are those of a run of Airflow's processes: ``tests/shapes/test_openlineage.py``."""
    operator, _ = generate(tmp_path / "out", reference_images=[str(photo)])
    event = event_of(operator)
    from tests.support.openlineage import shape, shown, shown_example

    assert shape(shown(event)) == shape(shown_example())


def test_addresses_in_events_are_those_of_the_project() -> None:
    pytest.importorskip("airflow.providers.openlineage")
    from airflow_provider_nanobanana.batch import openlineage

    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    urls = tomllib.loads(pyproject.read_text())["project"]["urls"]
    assert (urls["Source"], urls["Documentation"]) == (openlineage.SOURCE, DOCUMENTATION)
    assert openlineage.SCHEMAS.startswith(DOCUMENTATION)
