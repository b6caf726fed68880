"""The runs that the screenshots show: started together, each waited for where its picture needs it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dev.stack.airflow_api import AirflowApi

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
#: How many images were bought on each of the days before today, oldest first; a weekend has none.
_EARLIER = (3, 5, 0, 0, 8, 9, 4, 12, 6, 0, 0, 7, 5, 10, 3, 8, 0, 0, 11, 6, 9, 4, 7, 0, 0, 5, 12, 8, 6, 9, 0, 0, 4, 7)

_CATALOGUE = (
    ("linen-dress", "Linen summer dress on a rail, morning light, soft shadows", "Dresses", "89.00"),
    ("straw-hat", "Straw hat on a white wall, hard noon shadow", "Hats", "39.00"),
    ("canvas-shoes", "Canvas shoes floating over wet sand, seen from the side", "Shoes", "54.90"),
    ("beach-towel", "Striped beach towel, folded, on warm stone", "Home", "29.00"),
    ("picnic-basket", "Flat lay of a picnic: bread, figs, a checked cloth, seen from above", "Home", "64.00"),
    ("cold-brew", "Cold brew in a tall glass, condensation, golden hour on a terrace", "Kitchen", "18.50"),
    ("sun-glasses", "Round sunglasses on a lemon, hard light, yellow backdrop", "Accessories", "79.00"),
    ("silk-scarf", "Silk scarf blowing in front of a blue sky", "Accessories", "45.00"),
    ("swim-shorts", "Swim shorts on a line between two pines", "Swimwear", "35.00"),
    ("paper-lantern", "Paper lanterns over a long table at dusk", "Home", "22.00"),
)
_LATER = (
    ("deck-chair", "Deck chair by a pool, tiles, noon [[wrong-size]]", "Home", "119.00"),
    ("espadrilles", "Espadrilles on a doorstep, late afternoon", "Shoes", "49.00"),
    ("kite", "A ripe kite over dunes, motion blur", "Toys", "27.00"),
    ("logo-shirt", "Shirt with the logo of another company [[refuse]]", "Shirts", "25.00"),
    ("cool-box", "Cool box full of ice and melons [[bad-image]]", "Kitchen", "59.00"),
)
_BANNERS = (
    ("hero", "Autumn leaves in a storm of gold, wide banner, room for text on the left"),
    ("scarves", "A stack of wool scarves on an oak bench by the window, morning"),
    ("boots", "Boots in a puddle that mirrors a red sky"),
    ("tea", "Steam over a tea cup, a rainy street behind glass"),
    ("pumpkins", "Pumpkins on a market stall, shallow depth of field"),
    ("fox", "A paper fox in a paper forest, stop motion"),
)

_CITIES = ("Lisbon", "Oslo", "Kyoto", "Lima", "Dakar")


@dataclass(frozen=True)
class Shown:
    """The ids of the runs, by what they are to show."""

    finished: str
    versions: str
    running: str
    mapped: str
    three_tasks: str
    failed: str
    pending: str
    answered: str


def rows(table: Sequence[tuple[str, str, str, str]]) -> list[dict[str, Any]]:
    """Give rows of a shop as requests with their ``meta``."""
    return [
        {"name": name, "prompt": prompt, "meta": {"category": category, "price": price}}
        for name, prompt, category, price in table
    ]


def play(api: AirflowApi, folder: Path) -> Shown:
    """Start the runs and wait until each shows what it is to show; one goes on for ten minutes.

    :param folder: Each DAG has its destination below it.
    """

    def start(dag_id: str, run_id: str, **conf: Any) -> str:
        api.wait_for_dag(dag_id)
        return api.trigger(dag_id, {"destination": (folder / dag_id).as_uri(), **conf}, f"manual__{run_id}")

    def end(dag_id: str, run_id: str) -> str:
        api.wait_for_run(dag_id, run_id, timeout=300)
        return run_id

    banners = [{"name": name, "prompt": prompt} for name, prompt in _BANNERS]
    failing = [
        *rows(_CATALOGUE[:2]),
        {"name": "never-ready", "prompt": "A ship in a bottle [[stuck]]"},
        {"name": "not-allowed", "prompt": "A famous mouse [[refuse-late]]"},
        {"name": "no-answer", "prompt": "A lighthouse in fog [[lost]]"},
    ]
    # Few at a time: on SQLite they wait for each other.
    first = start("summer_catalogue", "2026-07-01", rows=rows(_CATALOGUE))
    pending = start("autumn_banners", "2026-07-07", rows=banners)
    end("summer_catalogue", first)
    finished = start("summer_catalogue", "2026-07-02", rows=rows(_CATALOGUE[:8] + _LATER))
    failed = start("winter_launch", "2026-07-06", rows=failing)
    end("summer_catalogue", finished)
    answered = start("autumn_banners", "2026-07-08", rows=banners)
    versions = start("summer_catalogue", "2026-07-03", rows=rows(_CATALOGUE), redo=["straw-hat", "silk-scarf"])
    end("summer_catalogue", versions)
    mapped = start("posters", "2026-07-04", prompts=[f"A poster of {city}, three colours" for city in _CITIES])
    end("posters", mapped)
    three = start("nanobanana_pipeline", "2026-07-05", prompts=[prompt for _, prompt in _BANNERS[:4]], size="1:1")
    end("nanobanana_pipeline", three)
    end("winter_launch", failed)
    slow = [{"name": f"slow-{number}", "prompt": f"A long exposure, {number} [[slow=900]]"} for number in range(1, 5)]
    # In a folder of its own: where nothing is in place yet, the first that is ready is stored at once.
    live = folder / "live"
    running = start("summer_catalogue", "2026-07-09", rows=[*rows(_CATALOGUE), *slow], destination=live.as_uri())
    for run_id in (pending, answered):
        api.wait_for_state("autumn_banners", run_id, "review", {"deferred", "awaiting_input"}, timeout=180)
    _answer(api, "autumn_banners", answered)
    end("autumn_banners", answered)
    _repeat_earlier(folder / "summer_catalogue")
    api.wait_until(lambda: len(list(live.glob("*.png"))) == len(_CATALOGUE) or None, "the first images", timeout=240)
    api.wait_for_state("summer_catalogue", running, "pictures", {"deferred"})
    return Shown(finished, versions, running, mapped, three, failed, pending, answered)


def _answer(api: AirflowApi, dag_id: str, run_id: str) -> None:
    """Approve all but two, as the gallery does."""
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/review/-1/hitlDetails"
    keys = api.get(path)["params"]["approved"]["schema"]["examples"]
    answer = {"approved": keys[:-2], "comment": "The last two are too dark."}
    api.patch(path, {"chosen_options": ["Approve selected"], "params_input": answer})


def _repeat_earlier(destination: Path) -> None:
    """Write manifests as if images had been bought on each of the days before today."""
    manifests = sorted(destination.glob("manifest*.json"), key=lambda path: path.stat().st_mtime)
    model = json.loads(manifests[0].read_text())
    for before, count in enumerate(reversed(_EARLIER), start=1):
        images = model["images"][:count]
        sums = {name: round(sum(image[name] for image in images), 6) for name in ("cost_usd", "paid_usd")}
        copy = {**model, **sums, "count": len(images), "images": images, "run_id": f"scheduled__{before}"}
        if count:
            text = _days_earlier(json.dumps(copy), before)
            (destination / f"manifest-earlier-{before}.json").write_text(text)


def _days_earlier(manifest: str, days: int) -> str:
    """Move all moments of a manifest, and give its image tasks other ids."""

    def moved(found: re.Match[str]) -> str:
        return (datetime.fromisoformat(found[0]) - timedelta(days=days)).isoformat()

    return re.sub(r'"(tsk_[^"]*)"', rf'"\1-{days}"', _MOMENT.sub(moved, manifest))
