"""10,000 XComs, manifests and requests that somebody tampered with: none reads a byte outside, none is a 500.

Around the one folder that may be read lie pictures and manifests that may not: beside it, above it, in a folder below
it, in another task's folder, behind links of the file system. Each is whole and would be shown if it were asked for.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from airflow_provider_nanobanana.landing.file_names import image_key
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.landing.storage.confined_local import ConfinedLocalStorage
from tests.support.gallery_site import Batch, gallery_roots
from tests.support.images import picture
from tests.unit.ui.conftest import Site

CASES: Final = 10_000
#: How often of these the whole way is gone, through HTTP and the database.
REQUESTS: Final = 1_000
SECRET: Final = "CANARY"

_PIECES: Final = (
    *(
        "..",
        ".",
        "/",
        "//",
        "\\",
        "%2e%2e",
        "%2E%2E%2F",
        "%2f",
        "%5c",
        "%00",
        "\x00",
        "\n",
        "\t",
        " ",
        "?",
        "#",
        "::",
        "@",
        ":",
    ),
    *(
        "．．／",
        "․․/",
        "\u2028",
        "\ud800",
        "~",
        "*",
        "file://",
        "s3://",
        "outside",
        "link",
        "canary.png",
        ".nanobanana",
        "quarantine",
    ),
    *("media", "media-2", "secret", "%252e", "..;/", "....//", "localhost", "x@", "x" * 300),
)
_ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 10**40, -1e308, float("nan"), float("inf"), "", "\ud800", "x" * 5_000, [], {}, [[[]]]),
    *({"uri": 1}, ["../../etc/passwd"], "file:///etc/passwd", "NaN", 1.5, "-1"),
)


class World:
    """The folders, and what may be seen of them."""

    def __init__(self, tmp_path: Path, run_id: str) -> None:
        self.top = tmp_path
        self.folder = tmp_path / "media"
        self.batch = Batch(open_storage(self.folder / "own"), run_id)
        self.batch.add_image("SKU-1", picture())
        self.batch.add_image("SKU-2", picture("png", (40, 40)))
        place = self.batch.storage.below(".nanobanana/quarantine")
        place.write("SKU-3.png", picture("png", (41, 41)), "image/png")
        kept = {"uri": place.uri("SKU-3.png"), "id": "task-SKU-3", "index": 0, "sha256": None, "bytes": 9}
        self.batch.quarantined.append(kept | {"reason": "flat", "request": 50})
        self.batch.add_failure("SKU-3", charged="yes")
        self.good = self.batch.content()
        self.seen = {hashlib.sha256(picture("png", size)).hexdigest() for size in ((64, 48), (40, 40), (41, 41))}
        self.canaries = [
            self._canary(tmp_path / "media" / "own" / "below"),
            self._canary(tmp_path / "media" / "own" / ".nanobanana" / "claims"),
            self._canary(tmp_path / "media" / "other"),
            self._canary(tmp_path / "media-2"),
            self._canary(tmp_path / "secret"),
            self._canary(tmp_path),
        ]
        links = {
            "link": "secret",
            "link.png": "secret/canary.png",
            "manifest-link.json": f"secret/{self.batch.manifest}",
        }
        for name, target in links.items():
            (self.folder / "own" / name).symlink_to(tmp_path / target)
        (self.folder / "linked").symlink_to(tmp_path / "secret")

    def _canary(self, folder: Path) -> Path:
        """Put a picture and a manifest of the very same task instance where neither may be read from."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "canary.png").write_bytes(picture("png", (9, 9)))
        image = self.batch.images[0] | {"uri": f"file://{folder}/canary.png", "name": SECRET, "prompt": SECRET}
        (folder / self.batch.manifest).write_text(json.dumps(self.batch.content(images=[image])))
        return folder

    def odd_uri(self, dice: random.Random, uri: str) -> str:
        """Return a URI that leads somewhere else, or seems to."""
        uri = dice.choice(
            [uri, uri, f"file://{dice.choice(self.canaries)}/canary.png", f"file://{self.folder}/own/link.png"]
        )
        for _ in range(dice.choice([0, 1, 1, 2, 3])):
            at = dice.choice([0, len(uri), uri.rfind("/"), uri.rfind("/") + 1, dice.randrange(len(uri) + 1)])
            uri = uri[:at] + dice.choice(_PIECES) + dice.choice(["", "/"]) + uri[at:]
        if dice.random() < 0.2:
            uri = uri.replace(
                "file://", dice.choice(["", "FILE://", "local://", "s3://", "http://", "file:", "file:////"])
            )
        return uri

    def odd_manifest_uri(self, dice: random.Random) -> str:
        """Return what somebody may write into the XCom."""
        name = dice.choice([self.batch.manifest, self.batch.manifest, "manifest-link.json", "canary.png"])
        places = [
            *self.canaries,
            self.folder / "own",
            self.folder / "own" / "link",
            self.folder / "linked",
            self.folder,
        ]
        return self.odd_uri(dice, f"file://{dice.choice(places)}/{name}")

    def odd_manifest(self, dice: random.Random) -> bytes:
        """Return a manifest that somebody changed, as a file."""
        content = copy.deepcopy(self.good)
        for _ in range(dice.randrange(1, 5)):
            _change(content, dice, self)
        data = json.dumps(content, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        if dice.random() < 0.05:
            at = dice.randrange(len(data))
            data = data[:at] + dice.randbytes(dice.randrange(4)) + data[at + dice.randrange(3) :]
        if dice.random() < 0.01:
            data = b"[" * 100_000
        return data


def _change(content: Any, dice: random.Random, world: World) -> None:
    """Change something somewhere in JSON."""
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and dice.random() < 0.8:
            node = node[key]
            continue
        if isinstance(node[key], str) and "://" in node[key] and dice.random() < 0.8:
            node[key] = world.odd_uri(dice, node[key])
        elif isinstance(node, dict) and dice.random() < 0.1:
            del node[key]
        else:
            node[key] = copy.deepcopy(dice.choice(_ODD))
        return


def _is_harmless(world: World, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() in world.seen


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were opened."""
    from airflow_provider_nanobanana.ui import manifests

    found: list[str] = []

    def noted(place: str) -> Any:
        found.append(place)
        return open_storage(place)

    def read(path: Path) -> Any:
        found.append(str(path))
        return ConfinedLocalStorage(path)

    manifests._open_store.cache_clear()
    monkeypatch.setattr(manifests, "open_storage", noted)
    monkeypatch.setattr(manifests, "ConfinedLocalStorage", read)
    return found


@pytest.mark.timeout(1_200)
def test_whatever_stands_in_xcom_and_manifest(site: Site, run_id: str, tmp_path: Path, opened: list[str]) -> None:
    from airflow_provider_nanobanana.ui.app import _json
    from airflow_provider_nanobanana.ui.image_bytes import NotShown
    from airflow_provider_nanobanana.ui.run_gallery import picture_of, record_of, window_of_run
    from airflow_provider_nanobanana.ui.task_records import TaskRecord

    dice = random.Random(14)
    world = World(tmp_path, run_id)
    known = {**world.batch.names, "operator": "NanoBananaGenerateOperator", "state": "success"}
    own, manifest = world.folder / "own", world.batch.storage.uri(world.batch.manifest)
    counts = Counter[str]()

    def look_at(task: TaskRecord, key: str, version: int | None) -> None:
        for thumbnail in (False, True):
            try:
                found = picture_of(task, key, version, thumbnail=thumbnail)
            except NotShown:
                counts["refused"] += 1
            else:
                counts["shown"] += 1
                assert thumbnail or _is_harmless(world, found.picture.content), task
        with contextlib.suppress(NotShown):
            assert SECRET not in json.dumps(record_of(task, key), default=str)

    # The own folder is what the settings allow; of the canaries one lies below it, and what says that it is this task
    # instance's may be read there.
    with gallery_roots([own]):
        for number in range(CASES - REQUESTS):
            # Each try is read anew.
            pointer: dict[str, Any] = {"manifest": manifest, "destination": world.batch.destination}
            task = TaskRecord(**known, **pointer, try_number=number)
            if dice.random() < 0.5:
                task = replace(task, manifest=world.odd_manifest_uri(dice))
            else:
                (own / world.batch.manifest).write_bytes(world.odd_manifest(dice))
            if dice.random() < 0.2:
                task = replace(task, destination=world.odd_uri(dice, world.batch.destination))
            answer = window_of_run([task], 0, 100)
            text = bytes(_json(answer).body).decode()
            cards = answer["tasks"][0]["cards"]
            counts["answered"] += bool(cards)
            if "own/below/" in str(task.manifest):
                continue
            assert SECRET not in text, task
            keys = [card["key"] for card in cards if "key" in card]
            for key in [*keys[:4], image_key(world.odd_uri(dice, world.batch.images[0]["uri"]))]:
                look_at(task, key, dice.choice([None, None, 1, 2, 999]))
    # Below what the settings name, everything may be read that says that it is this task instance's, and links nowhere.
    world.batch.write()
    allowed = os.path.realpath(world.folder / "own")
    assert all(f"{place}/".startswith(f"{allowed}/") for place in map(os.path.realpath, opened))
    assert min(counts[name] for name in ("answered", "shown", "refused")) > 1_000


@pytest.mark.timeout(1_200)
def test_whatever_is_asked_for(site: Site, run_id: str, tmp_path: Path, opened: list[str]) -> None:
    dice = random.Random(14)
    world = World(tmp_path, run_id)
    world.batch.write()
    world.batch.add_to_airflow()
    keys = [image_key(entry["uri"]) for entry in (*world.batch.images, *world.batch.quarantined)]
    client = site.client("viewer")
    statuses: set[int] = set()
    good = 0

    def odd(text: str) -> str:
        if dice.random() < 0.6:
            return text
        at = dice.randrange(len(text) + 1)
        return dice.choice(
            [text[:at] + dice.choice(_PIECES) + text[at:], world.odd_uri(dice, text), dice.choice(_PIECES)]
        )

    with gallery_roots([world.folder / "own"]):
        for _ in range(REQUESTS):
            route = dice.choice(["gallery", "image", "thumb", "record"])
            dag_id = odd("shop").encode("utf-8", "replace").decode().replace("/", dice.choice(["/", "%2F"])) or "shop"
            query = {
                **{"run_id": odd(run_id), "task_id": odd("pictures"), "map_index": odd("-1")},
                **{"key": odd(dice.choice(keys)), "version": odd("1"), "limit": odd("9"), "offset": odd("0")},
                **{
                    dice.choice(["uri", "path", "width", "destination", "conn_id", "dag_id"]): odd(
                        world.batch.destination
                    )
                },
            }
            if dice.random() < 0.5:
                del query["version"]
            clean = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
            path = f"/nanobanana/api/{route}/{dag_id}"
            if any(ord(letter) < 33 for letter in path) or "?" in path or "#" in path:
                path = f"/nanobanana/api/{route}/shop"
            answer = client.get(path, params=clean)
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (path, clean, answer.text)
            assert SECRET.encode() not in answer.content
            if route == "image" and answer.status_code == 200:
                good += 1
                assert _is_harmless(world, answer.content), clean
    assert {200, 404, 422} <= statuses
    assert good > 10
    assert {os.path.realpath(place) for place in opened} <= {os.path.realpath(world.folder / "own")}
