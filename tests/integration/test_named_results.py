"""The three tasks know what each image was asked for: file names, records and manifest, whatever is tried again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_nanobanana.batch.upstream_requests import REQUEST_KEY
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from tests.support.task_runner import Run, TaskInstance, attempt, entries_of
from tests.support.text import flat

ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "a red kite", "name": "kite", "meta": {"sku": "SKU-1", "price": 3.5}},
    {"prompt": "[[refuse]] a portrait", "name": "portrait"},
    {"prompt": "a boat " + "word " * 100, "variant": "2", "size": "16:9"},
    {"prompt": "a red kite at night", "name": "kite"},
)


@dataclass
class Downloading(TaskInstance):
    """A download whose submits have left these requests."""

    left: list[Any] = field(default_factory=list)

    def xcom_pull(self, task_ids: str, key: str, map_indexes: Any = "all") -> Any:
        assert (task_ids, key, map_indexes) == ("submit", REQUEST_KEY, "all")
        return self.left


def submit(map_index: int, **row: Any) -> Run:
    ti = TaskInstance(task_id="submit", map_index=map_index)
    return attempt(NanoBananaSubmitOperator(task_id="submit", **row), ti)


def land(images: Any, folder: Path, left: list[Any]) -> Run:
    with DAG("dag", schedule=None):
        operator = NanoBananaDownloadOperator(task_id="download", images=images, destination=f"file://{folder}")
        NanoBananaSubmitOperator.partial(task_id="submit").expand(prompt=["a"]) >> operator
    return attempt(operator, Downloading(task_id="download", left=left))


@pytest.fixture
def bought(emulator: Emulator) -> list[Run]:
    return [submit(index, **row) for index, row in enumerate(ROWS)]


def left_by(runs: list[Run]) -> list[Any]:
    return [run.ti.xcoms[REQUEST_KEY] for run in runs if REQUEST_KEY in run.ti.xcoms]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_records_and_manifest_say_what_was_asked_for_and_a_retry_lands_under_the_same_names(
    bought: list[Run], folder: Path
) -> None:
    kite, refused, boat, night = bought
    assert refused.error is not None
    ids = [run.result for run in (kite, boat, night)]
    entries = entries_of(*ids)
    left = left_by(bought)
    assert len(left) == 3
    run = land(entries, folder, left)
    assert run.error is None
    first, second, third = run.result
    assert (first["id"], first["name"], first["meta"], first["prompt"]) == (
        ids[0],
        "kite",
        ROWS[0]["meta"],
        "a red kite",
    )
    assert (second["name"], second["variant"], second["meta"]) == (None, "2", None)
    assert second["prompt"] == ROWS[2]["prompt"][:80]
    assert (second["width"], second["height"]) == (1376, 768)
    assert third["name"] == "kite"
    assert max(len(json.dumps(record)) for record in run.result) <= 600
    names = [Path(record["uri"]).name for record in run.result]
    assert names[0].startswith("kite-") and names[2].startswith("kite-") and names[0] != names[2]
    assert names[1].startswith(ids[1][:8])
    [manifest] = folder.glob("manifest-*.json")
    images = {image["id"]: image for image in json.loads(manifest.read_text())["images"]}
    assert images[ids[1]]["prompt"] == ROWS[2]["prompt"]
    assert [images[id_]["request"] for id_ in ids] == [0, 2, 3]

    before = files(folder)
    again = land(entries, folder, list(reversed(left)))
    assert again.result == run.result
    assert files(folder) == before


def test_images_of_a_submit_that_left_nothing_are_landed_by_their_ids(bought: list[Run], folder: Path) -> None:
    """As a run that began under an earlier version of this provider leaves them."""
    entries = entries_of(bought[0].result)
    [record] = land(entries, folder, []).result
    assert (record["name"], record["prompt"]) == (None, None)
    assert record["id"] == bought[0].result


@pytest.mark.parametrize("is_link_dead", [False, True])
def test_what_was_landed_by_its_id_stays_there_when_its_request_gets_a_name(
    bought: list[Run], folder: Path, monkeypatch: pytest.MonkeyPatch, is_link_dead: bool
) -> None:
    """As of a run from before names, or one whose submit could not hand its request on at first."""
    entries = entries_of(bought[0].result, bought[3].result)
    first = land(entries, folder, []).result
    before = files(folder)
    if is_link_dead:
        monkeypatch.setattr(ImageDownloader, "_write", refuse_to_download)
    run = land(entries, folder, left_by(bought))
    assert run.error is None and [record["name"] for record in run.result] == ["kite", "kite"]
    assert [record["uri"] for record in run.result] == [record["uri"] for record in first]
    assert files(folder) == before


def test_what_is_in_place_under_both_names_keeps_the_one_of_its_request(bought: list[Run], folder: Path) -> None:
    entries, left = entries_of(bought[0].result), left_by(bought)
    [named] = land(entries, folder, left).result
    [by_id] = land(entries, folder, []).result
    assert named["uri"] != by_id["uri"]
    assert land(entries, folder, left).result[0]["uri"] == named["uri"]


def refuse_to_download(*_: Any, **__: Any) -> bool:
    raise AssertionError("downloaded again")


def test_a_retry_of_submit_says_the_same_and_buys_nothing(emulator: Emulator) -> None:
    row = {"prompt": "a red kite", "name": "kite", "meta": {"sku": "SKU-1"}}
    first = submit(0, **row)
    second = submit(0, **row)
    assert second.result == first.result
    assert second.ti.xcoms[REQUEST_KEY] == first.ti.xcoms[REQUEST_KEY]
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize("meta", [{"a": "x" * 3000}, ["a"], {"a": object()}])
def test_a_faulty_meta_is_refused_before_anything_is_bought(emulator: Emulator, meta: Any) -> None:
    run = submit(0, prompt="a", meta=meta)
    assert "nothing was charged" in " ".join(str(run.error).split())
    assert emulator.ledger()["count"] == 0


def test_a_wait_that_fails_names_the_images_and_the_rows_to_clear(emulator: Emulator) -> None:
    emulator.configure(latency=0.1)
    rows = ({"prompt": "a red kite", "name": "kite"}, {"prompt": "[[fail]] a hat of felt", "name": "hat"})
    runs = [submit(index, **row) for index, row in enumerate(rows)]
    with DAG("dag", schedule=None):
        operator = NanoBananaSensor(
            task_id="wait", image_task_ids=[run.result for run in runs], poke_interval=0.05, timeout=10
        )
        NanoBananaSubmitOperator.partial(task_id="submit").expand(prompt=["a"]) >> operator
    run = attempt(operator, Downloading(task_id="wait", left=left_by(runs)))
    assert f"[1] hat ([[fail]] a hat of felt): {runs[1].result} (" in flat(run.error)
    assert "kite" not in flat(run.error)


def test_a_wait_whose_submits_cannot_be_asked_names_the_ids(emulator: Emulator) -> None:
    emulator.configure(latency=0.1)
    bad = submit(0, prompt="[[fail]] a hat", name="hat")
    with DAG("dag", schedule=None):
        operator = NanoBananaSensor(task_id="wait", image_task_ids=[bad.result], poke_interval=0.05, timeout=10)
        NanoBananaSubmitOperator.partial(task_id="submit").expand(prompt=["a"]) >> operator

    class Refusing(TaskInstance):
        def xcom_pull(self, task_ids: str, key: str, map_indexes: Any = "all") -> Any:
            raise RuntimeError("no XCom")

    run = attempt(operator, Refusing(task_id="wait"))
    assert bad.result in flat(run.error) and "RuntimeError" not in flat(run.error)
