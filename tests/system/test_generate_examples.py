"""The one-task examples on real Airflow processes and by ``dag.test()``, all at once: most of their time is waiting."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

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
CATALOGUE = "nanobanana_catalogue"
BACKFILL = "nanobanana_backfill"
NAMES = ["desk-lamp", "espresso-cup", "wool-scarf"]
#: Seconds for which the service keeps the answer to itself; the task is killed meanwhile.
FOREVER = 3600.0
#: All of it is played before the first test.
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Played:
    """The examples, all of them at their end; a destination is ``images`` and the id of the DAG."""

    system: System
    runs: dict[str, Run]
    days: list[Run]
    redone: Redone
    tested: Tested

    def folder(self, dag_id: str) -> Path:
        return self.system.images / dag_id

    def bought(self, *words: str) -> list[dict[str, Any]]:
        """Give what the emulator sold whose prompt holds one of the words."""
        return bought(self.system, *words)


@dataclass(frozen=True)
class Redone:
    """A run of the catalogue that made one picture again, killed and cleared, and the run after it.

    :param results: What ``pictures`` returned at first, in the run with ``redo``, after its clear and in the next run.
    :param charges: How many pictures the service sold until the end of each.
    :param tries: How many attempts the run with ``redo`` needed.
    :param untouched: Whether the files of the first run are what they were.
    :param pages: What the task behind ``pictures`` made of them and their rows, in the first run.
    """

    results: tuple[Any, Any, Any, Any]
    charges: tuple[int, int, int, int]
    tries: int
    untouched: bool
    pages: list[str]


@pytest.fixture(scope="module")
def played(
    stack: AirflowStack, emulator: Emulator, dag_tester: DagTester, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    stack.processes.check()
    try:
        yield _play(System(stack, emulator, tmp_path_factory.mktemp("examples")), dag_tester)
    finally:
        emulator.reset()


def _play(system: System, dag_tester: DagTester) -> Played:
    api = system.stack.api
    for dag_id in (REFRESH, NEWS):
        api.wait_for_dag(dag_id)
        api.unpause(dag_id)
    catalogue = _start(system, CATALOGUE)
    runs = {
        PARTIAL: _start(system, PARTIAL, prompts=["a red kite", "refused at once [[refuse]]", "failed later [[fail]]"]),
        REFRESH: _start(system, REFRESH),
        "mapped_generate": _start(system, "mapped_generate"),
        "nanobanana_products": system.start("nanobanana_products"),
        "nanobanana_best_of_three": _start(system, "nanobanana_best_of_three", prompts=["a chess knight", "a rook"]),
        "nanobanana_channels": _start(system, "nanobanana_channels", copies=(system.images / "copies").as_uri()),
    }
    api.wait_for_dag(BACKFILL)
    conf = {"destination": (system.images / BACKFILL).as_uri()}
    days = [Run(api, BACKFILL, day) for day in api.backfill(BACKFILL, "2026-01-01", "2026-01-02", conf)]
    tested = dag_tester(EXAMPLES / f"{PARTIAL}.py", PARTIAL, destination=(system.images / "tested").as_uri())
    redone = _redo(system, catalogue)
    for run in (*runs.values(), *days):
        assert run.wait() == "success", run.states()
    return Played(system, runs, days, redone, tested)


def _redo(system: System, first: Run) -> Redone:
    """Make one picture of the catalogue again: in a run that is killed and cleared, before a run without ``redo``."""
    results, charges, prompt = [], [], "A catalogue picture"

    def note(run: Run) -> None:
        assert run.wait() == "success", run.log("pictures")
        results.append(run.xcom("pictures"))
        charges.append(len(bought(system, prompt)))

    note(first)
    folder = system.images / CATALOGUE
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    # Accepted and charged, and the answer never arrives.
    system.emulator.fault(on="submit", kind="slow", seconds=FOREVER, match=f"{prompt} of a wool scarf")
    again = _start(system, CATALOGUE, redo=["wool-scarf"])
    system.stack.api.wait_until(lambda: True if system.emulator.faults()[0]["hits"] else None, "the submit", 90)
    os.kill(again.wait_for("pictures", "running")["pid"], signal.SIGKILL)
    system.emulator.clear_faults()
    note(again)
    tries = again.instances("pictures")[0]["try_number"]
    again.clear("pictures")
    note(again)
    note(_start(system, CATALOGUE))
    untouched = {path: path.stat().st_mtime_ns for path in written} == written
    first_result, redo, cleared, following = results
    return Redone((first_result, redo, cleared, following), tuple(charges), tries, untouched, first.xcom("pages"))  # type: ignore[arg-type]


def bought(system: System, *words: str) -> list[dict[str, Any]]:
    sold = system.emulator.ledger()["image_tasks"]
    return [task for task in sold if any(word in task["prompt"] for word in words)]


def _start(system: System, dag_id: str, **conf: Any) -> Run:
    return system.start(dag_id, destination=(system.images / dag_id).as_uri(), **conf)


def _pictures(folder: Path) -> list[str]:
    """Give what the pictures are called, without the hash."""
    return sorted(path.stem.rpartition("-")[0] for path in folder.glob("*.png"))


def _path(uri: str) -> Path:
    return Path(urlsplit(uri).path)


def _uris(result: Any) -> dict[str, str]:
    return {image["name"]: image["uri"] for image in result["images"]}


def test_a_catalogue_is_made_of_a_table_and_each_picture_has_its_row(played: Played) -> None:
    result = played.redone.results[0]
    assert (result["count"], result["failed"], result["cost_usd"]) == (3, [], pytest.approx(0.075))
    images = json.loads(_path(result["manifest"]).read_text())["images"]
    assert {image["name"]: image["meta"]["price"] for image in images} == {
        "espresso-cup": "14.90", "wool-scarf": "49.00", "desk-lamp": "129.00"
    }  # fmt: skip
    for image in images:
        assert pixels(_path(image["uri"])) == (1200, 896)
        assert (
            image["prompt"]
            == f"A catalogue picture of {image['meta']['title']}, {image['meta']['scene']}, soft daylight"
        )
    uris = _uris(result)
    assert played.redone.pages == [
        f"a ceramic espresso cup, 14.90: {uris['espresso-cup']}",
        f"a wool scarf in moss green, 49.00: {uris['wool-scarf']}",
        f"a brass desk lamp, 129.00: {uris['desk-lamp']}",
    ]


def test_a_picture_made_again_is_paid_once_by_retry_clear_and_next_run(played: Played) -> None:
    redone = played.redone
    first, redo, cleared, following = redone.results
    assert redone.tries >= 2, "the first attempt was killed after its picture was charged"
    assert redone.charges == (3, 4, 4, 4)
    assert (redo["paid_usd"], following["cost_usd"]) == (pytest.approx(0.025), 0)
    assert _uris(redo) == _uris(cleared) == _uris(following)
    changed = {name for name, uri in _uris(first).items() if _uris(redo)[name] != uri}
    assert changed == {"wool-scarf"} and _uris(redo)["wool-scarf"].endswith("-v2.png")
    assert all(image["reused"] for image in following["images"])
    assert redone.untouched
    assert len(list(played.folder(CATALOGUE).glob("*.png"))) == 4


def test_of_three_pictures_of_each_prompt_one_is_kept(played: Played) -> None:
    run = played.runs["nanobanana_best_of_three"]
    images = run.xcom("pictures")["images"]
    assert sorted(image["variant"] for image in images) == ["1", "1", "2", "2", "3", "3"]
    assert len(played.bought("a chess knight", "a rook")) == len({image["uri"] for image in images}) == 6
    of = {image["uri"]: image["prompt"] for image in images}
    assert [of[uri] for uri in run.xcom("best")] == ["a chess knight", "a rook"]


def test_a_backfill_pays_once_for_what_is_the_same_every_day(played: Played) -> None:
    assert len(played.days) == 2
    logos, moods = ([day.xcom(task_id) for day in played.days] for task_id in ("logos", "moods"))
    assert len(played.bought("a banana as a logo")) == 1
    assert len(played.bought("a fruit market")) == 2
    assert len({result["images"][0]["uri"] for result in logos}) == 1
    assert len({result["images"][0]["uri"] for result in moods}) == 2
    assert sum(result["paid_usd"] for result in [*logos, *moods]) == pytest.approx(3 * 0.025)


def test_channels_have_exact_pixels_beside_the_untouched_original(played: Played) -> None:
    run = played.runs["nanobanana_channels"]
    [original] = run.xcom("pictures")["images"]
    sizes = {}
    for uri in run.xcom("channels"):
        with Image.open(_path(uri)) as copy:
            sizes[_path(uri).parent.name] = (copy.format, *copy.size)
    assert sizes == {"feed": ("WEBP", 1080, 1350), "story": ("WEBP", 1080, 1920), "banner": ("WEBP", 1200, 628)}
    assert hashlib.sha256(_path(original["uri"]).read_bytes()).hexdigest() == original["sha256"]


def test_what_was_made_is_published_and_what_was_not_is_reviewed(played: Played) -> None:
    run = played.runs[PARTIAL]
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
    api, run = played.system.stack.api, played.runs[REFRESH]
    assert _pictures(played.folder(REFRESH)) == NAMES
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


def test_a_refresh_is_drawn_from_the_photos_in_the_storage(played: Played) -> None:
    for task in played.bought("product of the photo"):
        [name] = [name for name in NAMES if name.partition("-")[2] in task["prompt"]]
        [reference] = task["references"]
        assert httpx.get(reference, trust_env=False).content == (EXAMPLES / "photos" / f"{name}.jpg").read_bytes()
    manifest = json.loads(_path(played.runs[REFRESH].xcom("pictures")["manifest"]).read_text())
    references = {image["name"]: image["fields"]["reference_images"] for image in manifest["images"]}
    assert references == {name: [(EXAMPLES / "photos" / f"{name}.jpg").as_uri()] for name in NAMES}


def test_it_is_mapped_in_every_way_airflow_knows(played: Played) -> None:
    run, made = (
        played.runs["mapped_generate"],
        {"by_prompt": [1, 1], "by_kwargs": [1, 1], "by_output": [2, 1], "by_decorator": [1, 1]},
    )
    for task_id, counts in made.items():
        assert [run.xcom(task_id, map_index)["count"] for map_index in range(2)] == counts
    assert len(played.bought("mapped")) == len(list(played.folder(run.dag_id).glob("*.png"))) == 9
    assert len(list(played.folder(run.dag_id).glob("manifest-*.json"))) == 8
    labels = {task_id: [one["rendered_map_index"] for one in run.instances(task_id)] for task_id in made}
    assert sorted(labels["by_kwargs"]) == ["16:9", "9:16"] and len(set(labels["by_prompt"])) == 2
    sizes = [pixels(urlsplit(run.xcom("by_kwargs", n)["images"][0]["uri"]).path) for n in range(2)]
    assert sizes[0][0] > sizes[0][1] and sizes[1][0] < sizes[1][1]
