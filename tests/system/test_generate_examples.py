"""The one-task examples on real Airflow processes and by ``dag.test()``, all at once: most of their time is waiting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import AirflowStack
from tests.support.images import pixels
from tests.system.conftest import EXAMPLES
from tests.system.harness import DagTester, Run, System

if TYPE_CHECKING:
    from tests.system.harness import Tested

NEWS = "nanobanana_asset_news"
REFRESH = "nanobanana_asset_refresh"
PARTIAL = "nanobanana_partial_failure"
SKUS = ["desk-lamp", "espresso-cup", "wool-scarf"]


@dataclass(frozen=True)
class Played:
    """The examples, all of them at their end; a destination is ``images`` and the id of the DAG."""

    system: System
    catalogue: Run
    partial: Run
    refresh: Run
    mapped: Run
    tested: Tested

    def folder(self, run: Run) -> Path:
        return self.system.images / run.dag_id

    def bought(self, *words: str) -> list[dict[str, Any]]:
        """Give what the emulator sold whose prompt holds one of the words."""
        sold = self.system.emulator.ledger()["image_tasks"]
        return [task for task in sold if any(word in task["prompt"] for word in words)]


@pytest.fixture(scope="module")
def played(
    stack: AirflowStack, emulator: Emulator, dag_tester: DagTester, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    stack.processes.check()
    system = System(stack, emulator, tmp_path_factory.mktemp("examples"))
    for dag_id in (REFRESH, NEWS):
        stack.api.wait_for_dag(dag_id)
        stack.api.unpause(dag_id)
    products = system.start("nanobanana_products")
    catalogue = _start(system, "nanobanana_catalogue")
    partial = _start(system, PARTIAL, prompts=["a red kite", "refused at once [[refuse]]", "failed later [[fail]]"])
    refresh = _start(system, REFRESH)
    mapped = _start(system, "mapped_generate")
    tested = dag_tester(EXAMPLES / f"{PARTIAL}.py", PARTIAL, destination=(system.images / "tested").as_uri())
    for run in (products, catalogue, partial, refresh, mapped):
        assert run.wait() == "success", run.states()
    yield Played(system, catalogue, partial, refresh, mapped, tested)
    emulator.reset()


def _start(system: System, dag_id: str, **conf: Any) -> Run:
    return system.start(dag_id, destination=(system.images / dag_id).as_uri(), **conf)


def _pictures(folder: Path) -> list[str]:
    """Give what the pictures are called, without the hash."""
    return sorted(path.stem.rpartition("-")[0] for path in folder.glob("*.png"))


def test_a_catalogue_is_drawn_from_the_photos_in_the_storage(played: Played) -> None:
    folder, result = played.folder(played.catalogue), played.catalogue.xcom("pictures")
    assert _pictures(folder) == SKUS
    assert {pixels(path) for path in folder.glob("*.png")} == {(1200, 896)}
    assert (result["count"], result["failed"], result["cost_usd"]) == (3, [], pytest.approx(0.075))

    for task in played.bought("product of the photo"):
        [sku] = [sku for sku in SKUS if sku.partition("-")[2] in task["prompt"]]
        [reference] = task["references"]
        assert httpx.get(reference, trust_env=False).content == (EXAMPLES / "photos" / f"{sku}.jpg").read_bytes()
    manifest = json.loads(Path(urlsplit(result["manifest"]).path).read_text())
    references = {image["name"]: image["fields"]["reference_images"] for image in manifest["images"]}
    assert references == {sku: [(EXAMPLES / "photos" / f"{sku}.jpg").as_uri()] for sku in SKUS}


def test_the_same_catalogue_again_costs_nothing(played: Played) -> None:
    written = {path: path.stat().st_mtime_ns for path in played.folder(played.catalogue).glob("*.png")}
    again = _start(played.system, "nanobanana_catalogue")
    assert again.wait() == "success", again.log("pictures")
    result = again.xcom("pictures")
    assert (result["count"], result["cost_usd"]) == (3, 0)
    assert all(image["reused"] for image in result["images"])
    assert len(played.bought("product of the photo")) == 3
    assert {path: path.stat().st_mtime_ns for path in played.folder(again).glob("*.png")} == written


def test_what_was_made_is_published_and_what_was_not_is_reviewed(played: Played) -> None:
    run = played.partial
    assert {state for states in run.states().values() for state in states} == {"success"}
    [uri] = run.xcom("publish")
    assert Path(urlsplit(uri).path).is_file()
    refused, failed = run.xcom("review")
    assert refused.startswith("refused at once") and "content policy" in refused
    assert failed.startswith("failed later")
    assert [task["refunded"] for task in played.bought("a red kite", "failed later")].count(True) == 1
    assert len(run.instances("pictures")) == 1 and run.instances("pictures")[0]["try_number"] == 1


def test_where_nothing_failed_nobody_reviews(played: Played) -> None:
    assert played.tested.state == "success", played.tested.output
    assert played.tested.tasks["review"] == "skipped"
    assert len(played.tested.xcoms["publish"]) == len(list((played.system.images / "tested").glob("*.png"))) == 2


def test_new_products_make_new_pictures_and_their_event_says_count_cost_and_manifest(played: Played) -> None:
    api, run = played.system.stack.api, played.refresh
    assert _pictures(played.folder(run)) == SKUS
    result = run.xcom("pictures")
    [event] = api.get("/assets/events", source_dag_id=REFRESH)["asset_events"]
    paid = {"cost_usd": pytest.approx(0.075), "paid_usd": pytest.approx(0.075), "lost_race": 0}
    assert event["extra"] == {"count": 3, "shared": 0, "reused": 0, **paid, "manifest": result["manifest"]}
    assert Path(urlsplit(result["manifest"]).path).is_file()
    # This stack's scheduler starts nothing by itself (``use_job_schedule``); what it would start is in the queue.
    for dag_id in (REFRESH, NEWS):
        assert [queued["dag_id"] for queued in api.get(f"/dags/{dag_id}/assets/queuedEvents")["queued_events"]] == [
            dag_id
        ]
    news = played.system.start(NEWS)
    assert news.wait() == "success", news.log("announce")
    assert news.xcom("announce") == f"3 pictures for $0.075: {result['manifest']}"


def test_it_is_mapped_in_every_way_airflow_knows(played: Played) -> None:
    run, made = played.mapped, {"by_prompt": [1, 1], "by_kwargs": [1, 1], "by_output": [2, 1], "by_decorator": [1, 1]}
    for task_id, counts in made.items():
        assert [run.xcom(task_id, map_index)["count"] for map_index in range(2)] == counts
    assert len(played.bought("mapped")) == len(list(played.folder(run).glob("*.png"))) == 9
    assert len(list(played.folder(run).glob("manifest-*.json"))) == 8
    labels = {task_id: [one["rendered_map_index"] for one in run.instances(task_id)] for task_id in made}
    assert sorted(labels["by_kwargs"]) == ["16:9", "9:16"] and len(set(labels["by_prompt"])) == 2
    sizes = [pixels(urlsplit(run.xcom("by_kwargs", n)["images"][0]["uri"]).path) for n in range(2)]
    assert sizes[0][0] > sizes[0][1] and sizes[1][0] < sizes[1][1]
