"""The routes: who may ask them, what they answer with, and the headers that go along."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from PIL import Image

from airflow_provider_nanobanana.landing.file_names import image_key
from tests.support.airflow_database import add_run, add_task
from tests.support.gallery_site import Batch, gallery_roots, under_way
from tests.support.images import picture
from tests.unit.ui.conftest import Site

NEVER_ANONYMOUS = [
    "/api/gallery/shop?run_id=r",
    "/api/thumb/shop?run_id=r&task_id=t&key=" + "0" * 24,
    "/api/image/shop?run_id=r&task_id=t&key=" + "0" * 24,
    "/api/record/shop?run_id=r&task_id=t&key=" + "0" * 24,
    "/api/ledger/shop?run_id=r&task_id=t",
    "/api/spend",
    "/api/spend.csv",
    "/spend",
    "/view/shop/r",
]


def get(site: Site, path: str, role: str | None = "admin", base: str = "", **query: Any) -> Any:
    return site.client(role).get(f"{base}/nanobanana{path}", params=query or None)


def of(batch: Batch, **more: Any) -> dict[str, Any]:
    names = {name: value for name, value in batch.names.items() if name != "dag_id"}
    return names | more


def key_of(batch: Batch, position: int = 0) -> str:
    return image_key(batch.images[position]["uri"])


# --- what is answered -------------------------------------------------------------------------------------------


def test_a_run_with_all_kinds_of_cards(site: Site, batch: Batch) -> None:
    batch.add_image("SKU-2", suspect=["flat"], shared=True)
    batch.add_failure("SKU-3", message="Kept as file:///data/media/x.png, and paid", charged="yes")
    batch.more = {"skipped": [{"request": 60, "name": "SKU-9", "message": "column price: no number"}]}
    batch.write(finished=False, waiting=3, under_way=[under_way(2, "SKU-5")])
    batch.add_to_airflow(run_state="running", state="deferred")
    answer = get(site, "/api/gallery/shop", run_id=batch.run_id)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"
    found = answer.json()
    assert {name: found[name] for name in ("dag_id", "run_id", "run_state", "active", "offset", "card_count")} == {
        "dag_id": "shop",
        "run_id": batch.run_id,
        "run_state": "running",
        "active": True,
        "offset": 0,
        "card_count": 5,
    }
    totals = {"images": 2, "paid_usd": 0.05, "cost_usd": 0.1, "shared": 1, "reused": 0, "failed": 1}
    assert found["totals"] == totals | {"quarantined": 0, "under_way": 1, "waiting": 3, "suspect": 1}
    (task,) = found["tasks"]
    assert (task["task_id"], task["map_index"], task["state"], task["form"], task["finished"], task["problem"]) == (
        *("pictures", -1, "deferred", "generate", False, None),
    )
    assert task["destination"] == "media"
    assert [(card["kind"], card["label"]) for card in task["cards"]] == [
        ("image", "SKU-1"),
        ("image", "SKU-2"),
        ("under_way", "SKU-5"),
        ("failed", "SKU-3"),
        ("skipped", "SKU-9"),
    ]
    first = task["cards"][0]
    assert first["key"] == key_of(batch)
    assert (first["file"], first["prompt"], first["size"], first["resolution"]) == (
        *("SKU-1.png", "a picture of SKU-1", "1:1", "1K"),
    )
    assert (first["width"], first["height"], first["cost_usd"], first["meta"], first["group"]) == (
        *(64, 48, 0.05, {"sku": "SKU-1"}, "SKU-1"),
    )
    assert task["cards"][3]["message"] == "Kept as x.png, and paid"
    assert "file://" not in answer.text


def test_nothing_of_a_uri_in_the_gallery(site: Site, batch: Batch, tmp_path: Path) -> None:
    batch.write()
    batch.add_to_airflow()
    answer = get(site, "/api/gallery/shop", run_id=batch.run_id)
    assert str(tmp_path) not in answer.text
    assert "://" not in answer.text


def test_a_picture_and_its_thumbnail(site: Site, batch: Batch) -> None:
    content = picture(size=(1000, 600))
    batch.add_image("large", content)
    batch.write()
    batch.add_to_airflow()
    whole = get(site, "/api/image/shop", **of(batch, key=key_of(batch, 1), v="1"))
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["content-disposition"] == 'inline; filename="large.png"'
    assert whole.headers["cache-control"] == "private, max-age=86400, immutable"
    small = get(site, "/api/thumb/shop", **of(batch, key=key_of(batch, 1)))
    assert (small.status_code, small.headers["content-type"]) == (200, "image/webp")
    assert small.headers["cache-control"] == "private, max-age=60"
    with Image.open(io.BytesIO(small.content)) as image:
        assert (image.format, image.size) == ("WEBP", (320, 192))
    for answer in (whole, small):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["content-encoding"] == "identity"
    saved = get(site, "/api/image/shop", **of(batch, key=key_of(batch), download=1))
    assert saved.headers["content-disposition"] == 'attachment; filename="SKU-1.png"'


def test_the_picture_in_quarantine(site: Site, batch: Batch) -> None:
    content = picture("jpeg")
    place = batch.storage.below(".nanobanana/quarantine")
    place.write("SKU-7.jpg", content, "image/jpeg")
    kept = {"uri": place.uri("SKU-7.jpg"), "id": "task-SKU-7", "index": 0, "sha256": None, "bytes": len(content)}
    batch.quarantined.append(kept | {"reason": "it looks empty", "request": 50})
    batch.add_failure("SKU-7", code="suspect_image", message="The picture is suspect", charged="yes")
    batch.write()
    batch.add_to_airflow()
    (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
    card = task["cards"][1]
    assert (card["kind"], card["message"], card["code"]) == ("quarantined", "it looks empty", "suspect_image")
    assert (task["totals"]["failed"], task["totals"]["quarantined"]) == (0, 1)
    assert get(site, "/api/image/shop", **of(batch, key=card["key"])).content == content
    record = get(site, "/api/record/shop", **of(batch, key=card["key"])).json()
    assert (record["entry"]["reason"], record["entry"]["prompt"]) == ("it looks empty", "a picture of SKU-7")


def test_versions_and_rejections(site: Site, batch: Batch) -> None:
    second = picture(size=(32, 32))
    batch.storage.write("SKU-1-v2.png", second, "image/png")
    below = batch.storage.below(".nanobanana/versions")
    below.write("SKU-1-v2.json", b"{}")
    below.write("SKU-1-v3.json", b"{}")
    below.write("SKU-11-v9.json", b"{}")
    rejected = {"version": 1, "stem": "SKU-1", "by": "vera", "comment": "too dark", "rejected_at": "2026-11-26"}
    batch.storage.below(".nanobanana/rejections").write("SKU-1.json", json.dumps(rejected).encode())
    batch.write()
    batch.add_to_airflow()
    (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
    assert task["cards"][0]["rejected"] is True
    answer = get(site, "/api/record/shop", **of(batch, key=key_of(batch)))
    found = answer.json()
    assert found["entry"] == batch.images[0]
    assert found["manifest"] == batch.storage.uri(batch.manifest)
    told = {"by": "vera", "comment": "too dark", "rejected_at": "2026-11-26"}
    assert found["versions"] == [
        {"version": 1, "rejected": told, "there": True},
        {"version": 2, "rejected": None, "there": True},
        {"version": 3, "rejected": None, "there": False},
    ]
    assert get(site, "/api/image/shop", **of(batch, key=key_of(batch), version=2)).content == second
    assert get(site, "/api/thumb/shop", **of(batch, key=key_of(batch), version=2)).status_code == 200
    assert get(site, "/api/image/shop", **of(batch, key=key_of(batch), version=3)).status_code == 404
    assert get(site, "/api/image/shop", **of(batch, key=key_of(batch), version=1000)).status_code == 422


def test_links_beside_the_pictures_lead_nowhere(site: Site, batch: Batch, tmp_path: Path) -> None:
    """Whoever may write a destination learns nothing of what else lies on the api-server."""
    vault = tmp_path.parent / "vault"
    for name in ("rejections/SKU-1.json", "versions/SKU-1-v7.json", "SKU-1-v2.png"):
        path = vault / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())
    folder = Path(batch.destination.removeprefix("file://"))
    (folder / ".nanobanana").mkdir(exist_ok=True)
    for name in ("rejections", "versions"):
        (folder / ".nanobanana" / name).symlink_to(vault / name)
    (folder / "SKU-1-v2.png").symlink_to(vault / "SKU-1-v2.png")
    batch.write()
    batch.add_to_airflow()
    (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
    assert "rejected" not in task["cards"][0]
    found = get(site, "/api/record/shop", **of(batch, key=key_of(batch))).json()
    assert found["versions"] == [{"version": 1, "rejected": None, "there": True}]
    assert get(site, "/api/image/shop", **of(batch, key=key_of(batch), version=2)).status_code == 404


def test_numbers_that_json_has_none_for(site: Site, batch: Batch) -> None:
    batch.images[0]["meta"] = {"latency": "INFINITE"}
    content = json.dumps(batch.content()).replace('"INFINITE"', "1e999").encode()
    batch.storage.write(batch.manifest, content)
    batch.add_to_airflow()
    answer = get(site, "/api/record/shop", **of(batch, key=key_of(batch)))
    assert (answer.status_code, answer.json()["entry"]["meta"]) == (200, {"latency": None})


@pytest.mark.parametrize("much", [" " * (1 << 25), [[]] * 300_000], ids=["bytes", "parts"])
def test_a_manifest_that_is_too_much_to_parse_is_said(site: Site, batch: Batch, much: Any) -> None:
    batch.images[0]["meta"] = {"much": much}
    batch.write()
    batch.add_to_airflow()
    (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
    assert (task["problem"], task["cards"]) == ("The manifest is too large to be shown.", [])


def test_a_manifest_of_twenty_thousand_images_is_shown(site: Site, batch: Batch) -> None:
    batch.write(images=[batch.images[0] | {"request": number, "meta": {"a": "x" * 500}} for number in range(20_000)])
    batch.add_to_airflow()
    found = get(site, "/api/gallery/shop", run_id=batch.run_id, limit=1).json()
    assert (found["card_count"], found["totals"]["images"]) == (20_000, 20_000)


def test_mapped_task_instances_and_windows(site: Site, batch: Batch) -> None:
    add_run("shop", batch.run_id)
    for index in range(5):
        one = Batch(batch.storage, batch.run_id, task_id="rows", map_index=index)
        for number in range(3):
            one.add_image(f"row-{index}-{number}")
        one.write()
        one.add_to_airflow()
    whole = get(site, "/api/gallery/shop", run_id=batch.run_id).json()
    names = [card["name"] for task in whole["tasks"] for card in task["cards"]]
    assert names == [f"row-{index}-{number}" for index in range(5) for number in range(3)]
    part = get(site, "/api/gallery/shop", run_id=batch.run_id, offset=4, limit=6).json()
    assert [card["name"] for task in part["tasks"] for card in task["cards"]] == names[4:10]
    assert (part["card_count"], part["totals"]["images"], part["limit"]) == (15, 15, 6)
    one = get(site, "/api/gallery/shop", run_id=batch.run_id, task_id="rows", map_index=3).json()
    assert [card["name"] for task in one["tasks"] for card in task["cards"]] == names[9:12]
    every = get(site, "/api/gallery/shop", run_id=batch.run_id, task_id="rows", map_index="{MAP_INDEX}").json()
    assert every["card_count"] == 15
    review = get(site, "/api/gallery/shop", run_id=batch.run_id, task_id="review", map_index=2, limit=7).json()
    assert [card["name"] for task in review["tasks"] for card in task["cards"]] == names[:7], "it has none of its own"


def test_a_task_that_has_made_nothing_yet(site: Site, batch: Batch) -> None:
    batch.add_to_airflow(state="running", run_state="running")
    found = get(site, "/api/gallery/shop", run_id=batch.run_id).json()
    assert (found["active"], found["tasks"][0]["problem"], found["tasks"][0]["cards"]) == (True, None, [])


def test_without_a_pointer_the_manifest_is_found_by_its_name(site: Site, batch: Batch) -> None:
    batch.write()
    batch.add_to_airflow(xcoms={})
    (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
    assert [card["name"] for card in task["cards"]] == ["SKU-1"]


def test_a_task_that_left_no_manifest(site: Site, batch: Batch) -> None:
    batch.add_to_airflow(state="failed")
    (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
    assert task["problem"] == "There is no manifest of this task instance at its destination."


@pytest.mark.parametrize("base", ["", "/af"])
def test_the_pages(site: Site, batch: Batch, base: str) -> None:
    run_id = '"><script>alert(1)</script>&+/x'
    answer = get(site, f"/view/shop/{run_id.replace('/', '%2F')}", base=base)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script>alert" not in answer.text
    assert 'data-run-id="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;+/x"' in answer.text
    assert f'data-base="{base}"' in answer.text
    assert f'src="{base}/nanobanana/static/nanobanana.js?v=' in answer.text
    assert "data-task-id" not in answer.text
    one = get(site, "/view/shop/r", base=base, task_id="t", map_index="3").text
    assert 'data-task-id="t" data-map-index="3"' in one
    spend = get(site, "/spend", base=base)
    assert f'data-nanobanana="spend" data-base="{base}"' in spend.text
    for page in (answer, spend):
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'self'; base-uri 'none'; form-action 'none'" in policy
        assert page.headers["cache-control"] == "private, no-store"


def test_static_files(site: Site) -> None:
    kinds = {"nanobanana.js": "text/javascript", "nanobanana.css": "text/css", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        answer = get(site, f"/static/{name}", role=None)
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, kind)
    for name in ("app.py", "..%2Fapp.py", "%2e%2e/app.py", "icon.svg/", "", "ICON.svg", "nanobanana.js%00"):
        assert get(site, f"/static/{name}", role=None).status_code in (404, 405, 307), name


# --- who may ask (docs: gallery.md, "Security checklist", by its numbers) ----------------------------------------


def test_1_every_route_but_static_files_refuses_nobody(site: Site) -> None:
    from airflow_provider_nanobanana.ui.app import app

    asked = {
        path.split("?")[0].replace("/shop", "/{dag_id}").replace("}/r", "}/{run_id:path}") for path in NEVER_ANONYMOUS
    }
    assert {route.path for route in app.routes} == {*asked, "/static/{name}"}  # type: ignore[attr-defined]
    assert {method for route in app.routes for method in route.methods} == {"GET"}  # type: ignore[attr-defined]
    for path in NEVER_ANONYMOUS:
        for base in ("", "/af"):
            assert get(site, path, role=None, base=base).status_code == 401, path
        assert site.client(None).head(f"/nanobanana{path}").status_code in (401, 405)
        for odd in (
            f"/{path}",
            path.replace("?", "/?"),
            path.replace("/shop", "/%73hop"),
            path.replace("/api", "/./api"),
        ):
            assert get(site, odd, role=None).status_code in (401, 404, 307), odd
        for cookie in ("", "x", "a.b.c"):
            client = site.client(None)
            client.cookies.set("_token", cookie)
            assert client.get(f"/nanobanana{path}").status_code in (401, 403), path


@pytest.mark.parametrize("base", ["", "/af"])
def test_1_a_page_says_where_to_log_in_and_nothing_else(site: Site, base: str) -> None:
    answer = get(site, "/view/shop/a%2Fb?task_id=t&x=%3Cscript%3E", role=None, base=base)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    next_page = f"{base}/nanobanana/view/shop/a%2Fb?task_id=t&x=%3Cscript%3E".replace("%2F", "/")
    assert f'href="{base}/api/v2/auth/login?next={quote_plus(next_page)}"' in answer.text.replace("%252F", "%2F")
    assert "<script" not in answer.text
    assert "shop" not in get(site, "/api/gallery/shop?run_id=r", role=None).text


def test_1_a_user_without_the_dag_is_refused(site: Site, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.app import get_auth_manager

    batch.write()
    batch.add_to_airflow()
    asked = []

    def is_authorized(*, method: str, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        asked.append((method, access_entity.value, details.id))
        return bool(details.id == "mine")

    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", is_authorized)
    for path in NEVER_ANONYMOUS:
        expected = 403 if "/shop" in path else 200
        for spelled in (path, path.replace("/shop", "/%73hop"), path + ("&" if "?" in path else "?") + "dag_id=mine"):
            assert get(site, spelled).status_code == expected, spelled
    assert get(site, "/api/image/shop", **of(batch, key=key_of(batch))).status_code == 403
    assert {ask for ask in asked if ask[2] == "shop"} == {("GET", "XCOM", "shop")}


def test_2_the_schema_is_nobodys(site: Site) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/"):
        assert get(site, path).status_code == 404


def test_3_no_wildcard(site: Site) -> None:
    for path in NEVER_ANONYMOUS:
        if "/shop" in path:
            assert get(site, path.replace("/shop", "/~")).status_code == 404
            assert get(site, path.replace("/shop", "/%7E")).status_code == 404


def test_4_no_dependency_became_a_parameter() -> None:
    from airflow_provider_nanobanana.ui.app import app

    allowed = {"run_id", "task_id", "map_index", "key", "version", "v", "download", "offset", "limit"}

    def queries(dependant: Any) -> set[str]:
        own = {parameter.alias for parameter in dependant.query_params}
        return own.union(*(queries(inner) for inner in dependant.dependencies))

    for route in app.routes:
        assert queries(route.dependant) <= allowed, route.path  # type: ignore[attr-defined]


def test_5_a_key_opens_nothing_but_what_the_own_manifest_names(site: Site, batch: Batch) -> None:
    batch.write()
    batch.add_to_airflow()
    other = Batch(batch.storage, batch.run_id, task_id="other")
    other.add_image("theirs")
    other.write()
    other.add_to_airflow()
    theirs = key_of(other)
    assert get(site, "/api/image/shop", **of(other, key=theirs)).status_code == 200
    assert get(site, "/api/image/shop", **of(batch, key=theirs)).status_code == 404
    assert get(site, "/api/image/elsewhere", **of(other, key=theirs)).status_code == 404
    for key in ("", "x", theirs.upper(), f"{theirs}0", "../../etc/passwd", batch.images[0]["uri"]):
        assert get(site, "/api/image/shop", **of(batch, key=key)).status_code in (404, 422)


def test_6_only_pictures_are_served(site: Site, batch: Batch) -> None:
    for name, content in {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "html": b"<!doctype html><script>alert(1)</script>",
        "empty": b"",
        "half": b"\x89PNG",
    }.items():
        batch.add_image(name, content)
    batch.write()
    batch.add_to_airflow()
    for position in range(1, 5):
        for route in ("image", "thumb"):
            answer = get(site, f"/api/{route}/shop", **of(batch, key=key_of(batch, position)))
            assert answer.status_code == 415, (route, position)
            assert answer.json()["detail"]


def test_8_what_is_secret_in_a_message_is_left_out(site: Site, batch: Batch) -> None:
    batch.add_failure("x", message="Could not write s3://team_conn@secret-bucket/a/b.png: denied")
    batch.write()
    batch.add_to_airflow()
    text = get(site, "/api/gallery/shop", run_id=batch.run_id).text
    assert "Could not write b.png: denied" in text
    assert "team_conn" not in text
    assert "secret-bucket" not in text


def test_9_the_link_to_a_picture_tells_nothing(batch: Batch) -> None:
    key = key_of(batch)
    assert len(key) == 24
    assert set(key) <= set("0123456789abcdef")


def test_11_an_error_of_a_storage_is_one_fixed_text(
    site: Site, batch: Batch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_provider_nanobanana.toapis.errors import StorageFailed
    from airflow_provider_nanobanana.ui import image_bytes, manifests

    def fail(*args: Any) -> bytes:
        raise StorageFailed("https://key:secret@store.example refuses")

    batch.write()
    batch.add_to_airflow()
    monkeypatch.setattr(manifests, "read_confined", fail)
    (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
    assert task["problem"] == "The api-server cannot read this store."
    monkeypatch.undo()
    with gallery_roots([batch.destination]):
        manifests._galleries.clear()
        monkeypatch.setattr(image_bytes, "read_confined", fail)
        answer = get(site, "/api/image/shop", **of(batch, key=key_of(batch)))
    assert (answer.status_code, answer.json()) == (502, {"detail": "The api-server cannot read this store."})


def test_the_spend_of_dags_that_may_be_read(site: Site, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_nanobanana.ui import app

    seen: list[set[str]] = []

    def answered(pointers: Any, readable: Any, now: float) -> dict[str, Any]:
        seen.append(readable(["shop", "", "~", "other"]))
        return {}

    monkeypatch.setattr(app, "spend_json", answered)
    assert get(site, "/api/spend", role="viewer").json() == {}
    assert seen == [{"shop", "other"}]


def test_roots_that_are_none_allow_nothing(site: Site, batch: Batch) -> None:
    batch.write()
    batch.add_to_airflow()
    for roots in ("", "media", "https://x/y", '["file:///", 7'):
        with gallery_roots([roots]):
            (task,) = get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"]
            assert task["problem"] == (
                "The pictures are in a local folder: they are shown only if [nanobanana] gallery_roots names it "
                "(docs/gallery.md)."
            )
            assert get(site, "/api/image/shop", **of(batch, key=key_of(batch))).status_code == 404


@pytest.fixture
def s3_batch(site: Site, run_id: str, tmp_path: Path) -> Iterator[Batch]:
    import boto3
    from moto.server import ThreadedMotoServer

    from airflow_provider_nanobanana.landing.image_store import open_storage
    from tests.support.gallery_site import environment

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    extra = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "x", "password": "y", "extra": extra}
    try:
        names = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        boto3.client("s3", **extra, **names).create_bucket(Bucket="bucket")
        with environment({"AIRFLOW_CONN_GALLERY_S3": json.dumps(connection)}):
            yield Batch(open_storage("s3://gallery_s3@bucket/pictures"), run_id)
    finally:
        server.stop()


def test_on_s3_without_any_setting(site: Site, s3_batch: Batch) -> None:
    content = picture()
    s3_batch.add_image("SKU-1", content)
    s3_batch.write()
    s3_batch.add_to_airflow()
    found = get(site, "/api/gallery/shop", run_id=s3_batch.run_id)
    (card,) = found.json()["tasks"][0]["cards"]
    assert "bucket" not in found.text
    assert get(site, "/api/image/shop", **of(s3_batch, key=card["key"])).content == content
    assert get(site, "/api/thumb/shop", **of(s3_batch, key=card["key"])).status_code == 200
    assert get(site, "/api/record/shop", **of(s3_batch, key=card["key"])).json()["versions"][0]["there"]


def test_a_task_instance_of_another_operator_has_no_gallery(site: Site, batch: Batch) -> None:
    batch.write()
    add_run("shop", batch.run_id)
    add_task("shop", batch.run_id, "pictures", operator="BashOperator", rendered={"destination": batch.destination})
    assert get(site, "/api/gallery/shop", run_id=batch.run_id).json()["tasks"] == []
    assert get(site, "/api/image/shop", **of(batch, key=key_of(batch))).status_code == 404


def test_the_ledger_in_words(site: Site, batch: Batch) -> None:
    batch.write()
    batch.add_to_airflow()
    found = get(site, "/api/ledger/shop", **of(batch)).json()
    assert {"summary", "source", "rows", "skipped"} <= set(found)
    assert "://" not in json.dumps(found)


def test_behind_fab_one_sees_what_ones_role_may(tmp_path: Path) -> None:
    """In a process of its own, below ``/af``: FAB's tables and caches are no other test's."""
    if importlib.util.find_spec("airflow.providers.fab") is None:
        pytest.skip("FAB is not installed (the extra fab)")
    settings = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__NANOBANANA__GALLERY_ROOTS": f"file://{tmp_path / 'media'}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of the tests alone; " * 4,
    }
    command = [sys.executable, "-m", "tests.support.fab_site", str(tmp_path)]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command, cwd=root, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    statuses = found["statuses"]
    of_shop = [f"{kind}/shop" for kind in ("gallery", "image", "thumb", "view")]
    of_mine = [f"{kind}/mine" for kind in ("gallery", "image", "thumb", "view")]
    for role in ("Admin", "Op", "User", "Viewer"):
        assert {statuses[role][name] for name in (*of_shop, *of_mine, "spend")} == {200}, role
        assert statuses[role]["wildcard"] == 404
    assert {statuses["OneDag"][name] for name in of_mine} == {200}
    assert {statuses["OneDag"][name] for name in (*of_shop, "unknown")} == {403}
    # Airflow's own check takes it for any DAG.
    assert statuses["OneDag"]["wildcard"] == 404
    assert {status for name, status in statuses["Public"].items() if name != "spend"} == {403}
    assert set(statuses["anonymous"].values()) == {401}
    every = ["mine", "shop"]
    assert found["spend"] == {
        **{"Admin": every, "Op": every, "User": every, "Viewer": every},
        **{"OneDag": ["mine"], "Public": [], "anonymous": []},
    }
