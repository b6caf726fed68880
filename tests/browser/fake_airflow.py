"""An Airflow as far as the script asks it: our routes from made-up cards, and the HITL API of reviews."""

from __future__ import annotations

import colorsys
import functools
import io
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
from PIL import Image, ImageDraw, ImageFilter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

STATIC: Final = Path(__file__).parents[2] / "airflow_provider_nanobanana" / "ui" / "static"
DAG: Final = "spring_banners"
RUN: Final = "manual__2026-11-26T09:00:00+00:00"
PROMPTS: Final = (
    "A ripe banana on a marble pedestal, museum light, product photo",
    "Cold brew in a tall glass, condensation, golden hour on a terrace, shallow depth of field, 85 mm, no people",
    "夏の海辺に立つ白い灯台、淡い水彩、余白を広く",
    "حذاء رياضي أحمر يطفو فوق إسفلت مبلل مع انعكاسات نيون",
    "<script>alert(1)</script> a paper lighthouse in a paper storm",
    "Linen summer dress on a rail, morning light, soft shadows",
    "Flat lay of a picnic: bread, figs, a checked cloth, seen from above. " * 12,
)
_CSP: Final = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Images</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{base}/nanobanana/static/nanobanana.css">
<script type="module" src="{base}/nanobanana/static/nanobanana.js"></script></head>
<body><main data-nanobanana="{view}" data-base="{base}" data-dag-id="{dag}" data-run-id="{run}"{more}></main>
</body></html>"""


def card(number: int, *, width: int = 1024, height: int = 1024, **changes: Any) -> dict[str, Any]:
    """Make the card of one picture in place; ``changes`` replace what it says."""
    made = {
        "key": f"key{number:05d}",
        "kind": "image",
        "label": f"SKU-{number:03d}",
        "name": f"SKU-{number:03d}",
        "request": number,
        "variant": None,
        "version": 1,
        "group": f"group{number}",
        "rejected": False,
        "prompt": PROMPTS[number % len(PROMPTS)],
        "model": "nano_banana_2",
        "size": "1:1",
        "resolution": "1K",
        "width": width,
        "height": height,
        "bytes": 1_630_000,
        "format": "PNG",
        "cost_usd": 0.025,
        "paid_usd": 0.025,
        "cost_is_listed": False,
        "reused": False,
        "shared": False,
        "suspect": [],
        "id": f"tsk_img_{number:06d}",
        "file": f"SKU-{number:03d}-3ced518596193397.png",
        "meta": {"sku": f"SKU-{number:03d}", "season": "spring", "channel": ["web", "print"]},
        "sha": f"{number:08x}",
    }
    return made | changes


def failed(number: int, **changes: Any) -> dict[str, Any]:
    """Make the card of a request that failed."""
    about = {
        "key": None,
        "kind": "failed",
        "width": None,
        "height": None,
        "cost_usd": None,
        "paid_usd": None,
        "file": None,
        "code": "content_policy",
        "message": "The service refused the prompt: it may show a person who exists.",
        "charged": "no",
        "retry_may_help": False,
        "advice": "Change the prompt of this row and clear the task.",
    }
    return card(number) | about | changes


def under_way(number: int, **changes: Any) -> dict[str, Any]:
    """Make the card of an image task that is paid and not in place yet."""
    about = {"key": None, "kind": "under_way", "width": None, "height": None, "cost_usd": None, "paid_usd": None}
    return card(number) | about | changes


def task(task_id: str, cards: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Make one task instance with its cards and what they come to."""
    kinds = [one["kind"] for one in cards]
    totals = {
        "images": kinds.count("image"),
        "paid_usd": round(sum(one.get("paid_usd") or 0 for one in cards), 6),
        "cost_usd": round(sum(one.get("cost_usd") or 0 for one in cards), 6),
        "shared": sum(bool(one.get("shared")) for one in cards),
        "reused": sum(bool(one.get("reused")) for one in cards),
        "failed": kinds.count("failed"),
        "quarantined": kinds.count("quarantined"),
        "under_way": kinds.count("under_way"),
        "waiting": 0,
        "suspect": sum(bool(one.get("suspect")) for one in cards),
    }
    made = {
        "task_id": task_id,
        "map_index": -1,
        "operator": "NanoBananaGenerateOperator",
        "state": "success",
        "try_number": 1,
        "form": "generate",
        "finished": "under_way" not in kinds,
        "written_at": "2026-11-26T09:01:00+00:00",
        "destination": "banners",
        "problem": None,
        "totals": totals,
        "cards": cards,
    }
    return made | changes


def review(
    keys: list[str], *, task_id: str = "review", map_index: int = -1, state: str = "deferred", **changes: Any
) -> dict[str, Any]:
    """Make the required action of a review, as ``GET .../hitlDetails`` lists it."""
    examples = {"type": ["array", "null"], "examples": keys, "values_display": {}}
    made = {
        "task_instance": {
            "dag_id": DAG,
            "dag_run_id": RUN,
            "task_id": task_id,
            "map_index": map_index,
            "state": state,
            "operator": "NanoBananaReviewOperator",
        },
        "options": ["Approve selected", "Approve all", "Reject all"],
        "subject": "Spring banners: which may go out?",
        "params": {
            "approved": {"value": None, "description": None, "schema": examples},
            "comment": {"value": None, "description": None, "schema": {"type": ["string", "null"]}},
        },
        "assigned_users": [],
        "created_at": "2026-11-26T09:02:00+00:00",
        "responded_by_user": None,
        "responded_at": None,
        "chosen_options": None,
        "params_input": {},
        "response_received": False,
    }
    return made | changes


@dataclass
class FakeAirflow:
    """What the fake answers; a test changes it while the page is open. ``answers`` are the reviews sent so far."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    reviews: list[dict[str, Any]] = field(default_factory=list)
    run_state: str = "success"
    forbidden: bool = False
    refuses_answers: bool = False
    wants_login: bool = False
    unread_tasks: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=lambda: [{"version": 1, "rejected": None, "there": True}])
    spend: dict[str, Any] | None = None
    ledger: dict[str, Any] | None = None
    base: str = ""
    url: str = ""

    @property
    def page(self) -> str:
        """The address of the run's gallery."""
        return f"{self.url}/nanobanana/view/{DAG}/{RUN}"

    def gallery(self, request: Request) -> dict[str, Any]:
        """Answer as section 2.5 of the gallery's interface says."""
        asked = request.query_params
        offset, limit = int(asked.get("offset", 0)), int(asked.get("limit", 2000))
        chosen = [one for one in self.tasks if asked.get("task_id") in (None, one["task_id"])]
        totals: dict[str, Any] = {}
        shown = []
        at = 0
        for one in chosen:
            for name, number in one["totals"].items():
                totals[name] = round(totals.get(name, 0) + number, 6)
            cards = [made for place, made in enumerate(one["cards"], at) if offset <= place < offset + limit]
            at += len(one["cards"])
            shown.append(one | {"cards": cards})
        return {
            "dag_id": DAG,
            "run_id": RUN,
            "run_state": self.run_state,
            "active": any(not one["finished"] for one in chosen),
            "totals": totals,
            "offset": offset,
            "limit": limit,
            "card_count": at,
            "unread_tasks": self.unread_tasks,
            "tasks": shown,
        }


@functools.lru_cache(maxsize=4000)
def picture(seed: str, width: int, height: int, kind: str) -> bytes:
    """Draw something that looks like a photograph from afar."""
    chance = random.Random(seed)
    hue = chance.random()

    def colour(shift: float, light: float, strength: float = 0.5) -> tuple[int, ...]:
        return tuple(int(255 * part) for part in colorsys.hls_to_rgb((hue + shift) % 1, light, strength))

    small = Image.new("RGB", (max(8, width // 4), max(8, height // 4)), colour(0, 0.82, 0.35))
    draw = ImageDraw.Draw(small)
    w, h = small.size
    draw.rectangle((0, h * 0.66, w, h), fill=colour(0.03, 0.7, 0.3))
    for _ in range(3):
        x, y, r = chance.uniform(0.2, 0.8) * w, chance.uniform(0.35, 0.75) * h, chance.uniform(0.08, 0.26) * min(w, h)
        draw.ellipse((x - r, y + r * 0.7, x + r, y + r * 1.3), fill=colour(0, 0.55, 0.25))
        draw.ellipse(
            (x - r, y - r, x + r, y + r), fill=colour(chance.uniform(0.3, 0.6), chance.uniform(0.35, 0.65), 0.6)
        )
    whole = small.filter(ImageFilter.GaussianBlur(min(w, h) / 60)).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    whole.save(out, kind, quality=80)
    return out.getvalue()


def _refused(status: int, words: str) -> JSONResponse:
    return JSONResponse({"detail": words}, status)


@dataclass(frozen=True)
class _Routes:
    """The endpoints over one :class:`FakeAirflow`."""

    site: FakeAirflow

    def page(self, request: Request) -> Response:
        """Answer with the shell of a page, as strict about scripts as the real one."""
        more = "".join(f' data-{name.replace("_", "-")}="{value}"' for name, value in request.query_params.items())
        view = "gallery" if "dag_id" in request.path_params else "spend"
        dag, run = (request.path_params.get(name, "") for name in ("dag_id", "run_id"))
        shell = _PAGE.format(base=self.site.base, view=view, dag=dag, run=run, more=more)
        return HTMLResponse(shell, headers={"Content-Security-Policy": _CSP})

    def static(self, request: Request) -> Response:
        """Answer with the script or the stylesheet as they are in the package."""
        name = request.path_params["name"]
        kinds = {"nanobanana.js": "text/javascript", "nanobanana.css": "text/css"}
        return Response((STATIC / name).read_bytes(), media_type=kinds[name])

    def data(self, request: Request) -> Response:
        """Answer the routes of one DAG."""
        site, kind = self.site, request.path_params["kind"]
        site.asked.append(f"{kind}?{request.query_params}")
        if site.wants_login or site.forbidden:
            return HTMLResponse("<html>Log in</html>") if site.wants_login else _refused(403, "Forbidden")
        if kind == "gallery":
            return JSONResponse(site.gallery(request))
        if kind == "ledger":
            return JSONResponse(site.ledger) if site.ledger else _refused(404, "No ledger.")
        cards = {one["key"]: one for each in site.tasks for one in each["cards"]}
        found = cards.get(request.query_params.get("key"))
        if found is None:
            return _refused(404, "No such image.")
        if kind == "record":
            return JSONResponse({"entry": found, "manifest": "s3://bucket/manifest.json", "versions": site.versions})
        width, height = found["width"] or 1024, found["height"] or 1024
        if kind == "thumb":
            width, height = (int(side * 320 / max(width, height)) for side in (width, height))
        seed = f"{found['key']}{request.query_params.get('version', '')}"
        headers = {"Cache-Control": "private, max-age=86400"}
        return Response(picture(seed, width, height, "WEBP"), media_type="image/webp", headers=headers)

    def spend(self, request: Request) -> Response:
        """Answer with what the test says was paid."""
        return JSONResponse(self.site.spend) if self.site.spend else _refused(502, "No destination can be read.")

    def reviews(self, request: Request) -> Response:
        """List the required actions of the run, as Airflow does."""
        first, limit = (int(request.query_params.get(name, usual)) for name, usual in (("offset", 0), ("limit", 50)))
        reviews = self.site.reviews[first : first + min(limit, 100)]
        return JSONResponse({"hitl_details": reviews, "total_entries": len(self.site.reviews)})

    async def answer(self, request: Request) -> Response:
        """Take the answer to a required action, once, as Airflow does."""
        body = await request.json()
        place = (request.path_params["task_id"], int(request.path_params["map_index"]))
        instances = [(one["task_instance"]["task_id"], one["task_instance"]["map_index"]) for one in self.site.reviews]
        asked = self.site.reviews[instances.index(place)]
        if self.site.refuses_answers:
            return _refused(403, "User is not a respondent of this task.")
        if asked["response_received"]:
            return _refused(409, "Human-in-the-loop detail has already been updated for Task Instance with id 1")
        self.site.answers.append(body)
        asked.update(body, response_received=True, responded_at="2026-11-26T10:00:00+00:00")
        asked["responded_by_user"] = {"id": "anna", "name": "anna"}
        return JSONResponse(body)


def make_app(site: FakeAirflow) -> Starlette:
    """Build the application; all of it lies below ``site.base``."""
    ends = _Routes(site)
    run = "/api/v2/dags/{dag_id}/dagRuns/{run_id:path}"
    routes = [
        Route("/nanobanana/view/{dag_id}/{run_id:path}", ends.page),
        Route("/nanobanana/spend", ends.page),
        Route("/nanobanana/static/{name}", ends.static),
        Route("/nanobanana/api/spend", ends.spend),
        Route("/nanobanana/api/{kind}/{dag_id}", ends.data),
        # The more particular one first: `{run_id:path}` takes slashes, too.
        Route(f"{run}/taskInstances/{{task_id}}/{{map_index}}/hitlDetails", ends.answer, methods=["PATCH"]),
        Route(f"{run}/hitlDetails", ends.reviews),
    ]
    return Starlette(routes=[Mount(site.base, routes=routes)] if site.base else routes)


@contextmanager
def serving(site: FakeAirflow, port: int = 0) -> Iterator[FakeAirflow]:
    """Serve it on a free port of the loopback until the block ends; ``site.url`` is where, with the base path."""
    server = uvicorn.Server(uvicorn.Config(make_app(site), host="127.0.0.1", port=port, log_level="warning"))
    started = threading.Event()

    async def startup(sockets: Any = None) -> None:
        await original(sockets=sockets)
        started.set()

    original = server.startup
    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    if not started.wait(30):
        raise RuntimeError("the fake site did not start")
    port = server.servers[0].sockets[0].getsockname()[1]
    site.url = f"http://127.0.0.1:{port}{site.base}"
    try:
        yield site
    finally:
        server.should_exit = True
        thread.join(10)
