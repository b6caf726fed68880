"""The web application of the gallery: every route, who may ask it, and what is said about its answers.

All routes are GET: whatever a person changes, the browser asks Airflow's own API for. A route with a DAG in its path
belongs to ``of_dag``, which asks Airflow whether the user may read the XComs of that DAG; no request names a URI, a
path, a connection or a size. Whatever blocks runs in a thread, and few at once: Airflow's own calls do not wait for
pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

import anyio.to_thread
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse

from airflow_provider_nanobanana.batch.gallery_paths import PREFIX
from airflow_provider_nanobanana.ui.image_bytes import NotShown, gone
from airflow_provider_nanobanana.ui.ledger import ledger_json
from airflow_provider_nanobanana.ui.manifests import gallery_pointers
from airflow_provider_nanobanana.ui.page import PAGE_HEADERS, login_page, page
from airflow_provider_nanobanana.ui.run_gallery import NamedPicture, picture_of, record_of, window_of_run
from airflow_provider_nanobanana.ui.spend import spend_csv, spend_json
from airflow_provider_nanobanana.ui.task_records import TaskRecord, read_tasks, run_state

T = TypeVar("T")

#: Cards of one answer.
MOST_CARDS: Final = 2_000
_STATIC: Final = Path(__file__).parent / "static"
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "nanobanana.js": "text/javascript",
    "nanobanana.css": "text/css",
    "icon.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
}
#: How many threads work at once for each kind of request.
_THREADS: Final[Mapping[str, int]] = {"data": 2, "pictures": 2, "spend": 1}
_JSON_HEADERS: Final = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
_PICTURE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Pictures are compressed: older Starlettes would do it again, and in vain.
    "Content-Encoding": "identity",
}


def _refuse_wildcard(dag_id: str) -> None:
    """Refuse what Airflow's own check takes for "any DAG"."""
    if dag_id == "~":
        raise HTTPException(404, "There is no such DAG.")


def _map_index(map_index: str = "-1") -> int:
    """Read a map index; Airflow leaves ``{MAP_INDEX}`` in the links of what is not mapped."""
    try:
        return max(int(map_index), -1)
    except ValueError:
        return -1


class _Asked(NamedTuple):
    """The task instance that a request is about."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


MapIndex = Annotated[int, Depends(_map_index)]


def _asked(dag_id: str, run_id: str, task_id: str, map_index: MapIndex) -> _Asked:
    return _Asked(dag_id, run_id, task_id, map_index)


Asked = Annotated[_Asked, Depends(_asked)]
Version = Annotated[int | None, Query(ge=1, le=999)]
Key = Annotated[str, Query(pattern="^[0-9a-f]{24}$")]

app = FastAPI(title="Nano Banana", docs_url=None, redoc_url=None, openapi_url=None)
of_dag = APIRouter(dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.XCOM)), Depends(_refuse_wildcard)])


@of_dag.get("/api/gallery/{dag_id}")
async def gallery(
    *,
    dag_id: str,
    run_id: str,
    map_index: MapIndex,
    task_id: str | None = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1)] = MOST_CARDS,
) -> Response:
    """Answer with the pictures of a run, or of one of its tasks; of a task without pictures, as a review, the run's."""

    def read() -> dict[str, Any]:
        with create_session(scoped=False) as session:
            state = run_state(session, dag_id, run_id)
            # Of a mapped task without an index all of them.
            own = read_tasks(session, dag_id, run_id, task_id, None if map_index < 0 else map_index)
            tasks = own or read_tasks(session, dag_id, run_id)
        return window_of_run(tasks, offset, min(limit, MOST_CARDS)) | {
            "dag_id": dag_id,
            "run_id": run_id,
            "run_state": state,
            "active": state in ("queued", "running") and not all(task.has_ended for task in tasks),
        }

    return _json(await _in_thread("data", read))


@of_dag.get("/api/thumb/{dag_id}")
async def thumbnail(asked: Asked, key: Key, version: Version = None, v: str | None = None) -> Response:
    """Answer with a small picture of an image."""
    found = await _in_thread("pictures", lambda: picture_of(_task(asked), key, version, thumbnail=True))
    return _picture(found, for_long=v is not None)


@of_dag.get("/api/image/{dag_id}")
async def image(
    asked: Asked, key: Key, version: Version = None, v: str | None = None, download: bool = False
) -> Response:
    """Answer with the file of an image, as it is."""
    found = await _in_thread("pictures", lambda: picture_of(_task(asked), key, version, thumbnail=False))
    return _picture(found, for_long=v is not None, download=download)


@of_dag.get("/api/record/{dag_id}")
async def record(asked: Asked, key: Key) -> Response:
    """Answer with all that the manifest says of an image, and which versions of it there are."""
    return _json(await _in_thread("data", lambda: record_of(_task(asked), key)))


@of_dag.get("/api/ledger/{dag_id}")
async def ledger(asked: Asked) -> Response:
    """Answer with the ledger of a task instance in words."""

    def read() -> Any:
        with create_session(scoped=False) as session:
            return ledger_json(session, *asked)

    return _json(await _in_thread("data", read))


@app.get("/api/spend")
async def spend(request: Request, user: GetUserDep) -> Response:
    """Answer with what was paid, for those DAGs that the user may read."""
    readable = _readable_by(request, user)
    return _json(await _in_thread("spend", lambda: spend_json(gallery_pointers, readable, time.time())))


@app.get("/api/spend.csv")
async def spend_table(request: Request, user: GetUserDep) -> Response:
    """Answer with the same as a table."""
    readable = _readable_by(request, user)
    lines = await _in_thread("spend", lambda: "".join(spend_csv(gallery_pointers, readable, time.time())))
    headers = {**_JSON_HEADERS, "Content-Disposition": 'attachment; filename="image-spend.csv"'}
    return Response(lines.encode("utf-8", "replace"), media_type="text/csv; charset=utf-8", headers=headers)


def _task(asked: _Asked) -> TaskRecord:
    """Return what Airflow knows of a task instance of ours.

    :raises NotShown: It is none.
    """
    with create_session(scoped=False) as session:
        found = read_tasks(session, *asked)
    if not found:
        raise gone()
    return found[0]


def _readable_by(request: Request, user: Any) -> Callable[[Iterable[str]], set[str]]:
    """Return what picks the DAGs whose XComs a user may read, by Airflow's own check of each."""

    def is_readable(dag_id: str) -> bool:
        # Airflow takes these for "any DAG".
        if dag_id in ("", "~"):
            return False
        try:
            requires_access_dag("GET", DagAccessEntity.XCOM, dag_id)(request, user)
        except HTTPException:
            return False
        return True

    return lambda dag_ids: {dag_id for dag_id in set(dag_ids) if is_readable(dag_id)}


@of_dag.get("/view/{dag_id}/{run_id:path}")
async def gallery_page(
    request: Request, dag_id: str, run_id: str, map_index: MapIndex, task_id: str | None = None
) -> Response:
    """Answer with the page of a run, or of one task instance of it."""
    names = {"dag-id": dag_id, "run-id": run_id}
    if task_id is not None:
        names.update({"task-id": task_id, "map-index": str(map_index)})
    return _page(page("gallery", f"Images of {dag_id}", _base_path(request), names))


@app.get("/spend")
async def spend_page(request: Request, user: GetUserDep) -> Response:
    """Answer with the page of what was paid."""
    return _page(page("spend", "Image spend", _base_path(request), {}))


@app.get("/static/{name}")
async def static(name: str) -> Response:
    """Answer with one of the files of the pages; anybody may read them."""
    if name not in _MEDIA_TYPES:
        raise HTTPException(404, "There is no such file.")
    headers = {"Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff"}
    return Response((_STATIC / name).read_bytes(), media_type=_MEDIA_TYPES[name], headers=headers)


app.include_router(of_dag)


@app.exception_handler(401)
async def log_in(request: Request, error: HTTPException) -> Response:
    """Say that nobody is logged in; on a page, which a mail may link to, with the way there."""
    base_path = _base_path(request)
    if request.url.path.startswith(f"{base_path}{PREFIX}/api/"):
        return JSONResponse({"detail": error.detail}, 401, _JSON_HEADERS)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return _page(login_page(f"{base_path}/api/v2/auth/login?{urlencode({'next': here})}"), 401)


@cache
def _limiter(kind: str) -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(_THREADS[kind])


async def _in_thread(kind: str, function: Callable[[], T]) -> T:
    try:
        return await anyio.to_thread.run_sync(function, limiter=_limiter(kind))
    except NotShown as error:
        raise HTTPException(error.status, error.words) from None


def _base_path(request: Request) -> str:
    """Return Airflow's own path, which the application is mounted below."""
    return str(request.scope.get("root_path", "")).rstrip("/").removesuffix(PREFIX)


def _picture(found: NamedPicture, *, for_long: bool, download: bool = False) -> Response:
    """Answer with a picture; with its hash in the address it is the same for ever."""
    headers = {
        **_PICTURE_HEADERS,
        "Cache-Control": "private, max-age=86400, immutable" if for_long else "private, max-age=60",
        # The name has letters, digits, dots and dashes alone.
        "Content-Disposition": f'{"attachment" if download else "inline"}; filename="{found.name}"',
    }
    return Response(found.picture.content, media_type=found.picture.media_type, headers=headers)


def _page(content: str, status: int = 200) -> Response:
    return Response(content, status, media_type="text/html; charset=utf-8", headers=dict(PAGE_HEADERS))


def _json(content: Any) -> Response:
    """Answer with JSON; half a character, which a file may hold, becomes a question mark."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), media_type="application/json", headers=_JSON_HEADERS)
