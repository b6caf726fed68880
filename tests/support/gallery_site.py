"""A task instance with real pictures and a real manifest, as its worker leaves them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airflow_provider_nanobanana.batch.manifest import (
    failed_entry,
    image_entry,
    manifest_content,
    manifest_name,
    under_way_entry,
)
from airflow_provider_nanobanana.batch.request_facts import RequestFacts
from airflow_provider_nanobanana.landing.file_names import safe_name
from airflow_provider_nanobanana.landing.storage.base import Storage
from tests.support.airflow_database import GENERATE, add_run, add_task
from tests.support.images import picture

MONEY: Final = {"cost_usd": 0.05, "paid_usd": 0.05, "lost_race": 0.0, "cost_is_listed": False}
TOTALS: Final = {"cost_usd": 0.1, "paid_usd": 0.05, "lost_race": 0.0, "of_which_listed_usd": 0.0, "unpriced": 0}


@dataclass
class Batch:
    """One task instance of a run; what it made is written into its storage with :meth:`write`."""

    storage: Storage
    run_id: str
    dag_id: str = "shop"
    task_id: str = "pictures"
    map_index: int = -1
    images: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, Any]:
        """What tells the task instance from others."""
        return {name: getattr(self, name) for name in ("dag_id", "run_id", "task_id", "map_index")}

    @property
    def destination(self) -> str:
        """URI of the folder."""
        return self.storage.uri("").rstrip("/")

    @property
    def manifest(self) -> str:
        """Name of the manifest."""
        return f"{safe_name(manifest_name(**self.names))}.json"

    def add_image(self, name: str, content: bytes | None = None, suffix: str = ".png", **entry: Any) -> dict[str, Any]:
        """Put a picture in place."""
        content = picture() if content is None else content
        file = f"{entry.get('key', name)}{suffix}"
        self.storage.write(file, content, "image/png")
        facts = request_facts(len(self.images), name)
        image = {
            **{"uri": self.storage.uri(file), "id": f"task-{name}", "index": 0, "bytes": len(content)},
            **{"sha256": hashlib.sha256(content).hexdigest(), "format": "png", "width": 64, "height": 48},
        }
        made = image_entry(image, facts, MONEY, times={}, reused=False, shared=False) | entry
        self.images.append(made)
        return made

    def add_failure(self, name: str, **entry: Any) -> None:
        """Let an image be missing."""
        failure = {"id": f"task-{name}", "index": 0, "code": "generation_failed", "message": "The model failed."}
        rest = {"charged": "no", "retry_may_help": True, "shared": False}
        self.failed.append(failed_entry(failure | rest | entry, request_facts(len(self.failed) + 50, name), MONEY))

    def content(self, **changes: Any) -> dict[str, Any]:
        """Return the manifest."""
        counts = {"count": len(self.images), "extra_count": 0, "shared": 1, "reused": 0, "unfinished": 0}
        return (
            manifest_content(
                *("generate", self.names),
                now=1_795_680_000.0,
                destination=self.destination,
                totals=TOTALS,
                counts=counts,
                images=self.images,
                failed=self.failed,
                quarantined=self.quarantined,
                more={"prepared_references": [], **self.more},
            )
            | changes
        )

    def write(self, **changes: Any) -> None:
        """Write the manifest."""
        import json

        self.storage.write(self.manifest, json.dumps(self.content(**changes)).encode())

    def add_to_airflow(self, *, manifest: str | None = None, run_state: str = "success", **task: Any) -> None:
        """Write the task instance into Airflow's database, as the worker leaves it."""
        with contextlib.suppress(Exception):
            add_run(self.dag_id, self.run_id, run_state)
        uri = manifest or self.storage.uri(self.manifest)
        pointer = {"version": 1, "manifest": uri, "destination": self.destination}
        given: dict[str, Any] = {
            "rendered": {"destination": self.destination},
            "xcoms": {"nanobanana_gallery": pointer},
            "operator": GENERATE,
        }
        add_task(self.dag_id, self.run_id, self.task_id, map_index=self.map_index, **(given | task))


def request_facts(index: int, name: str) -> RequestFacts:
    """Return what is known of a request."""
    prompt = f"a picture of {name}"
    fields = {"prompt": prompt, "size": "1:1", "resolution": "1K", "model": "nano_banana_2"}
    return RequestFacts(
        index=index,
        name=name,
        variant="",
        version=1,
        meta={"sku": name},
        prompt=prompt,
        model="nano_banana_2",
        key=name,
        digest="a" * 64,
        fields=fields,
    )


def under_way(index: int, name: str) -> dict[str, Any]:
    """Return the entry of an image that is bought and not in place yet."""
    image = {"id": f"task-{name}", "index": 0, "shared": False}
    return under_way_entry(image, request_facts(index, name), MONEY, submitted_at=1_795_680_000.0)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def gallery_roots(roots: Sequence[Path | str]) -> contextlib.AbstractContextManager[None]:
    """Set ``[nanobanana] gallery_roots``."""
    uris = [f"file://{root}" if isinstance(root, Path) else root for root in roots]
    return environment({"AIRFLOW__NANOBANANA__GALLERY_ROOTS": ",".join(uris)})
