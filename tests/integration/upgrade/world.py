"""What one release left behind of one task instance, as text: taken from a running world, and put back into another.

A recording is plain JSON, made once by the release that it is named after and never changed again; only what reads it
may follow the code. It holds all that outlives a process: what Airflow keeps of the task instance (state store, XComs,
deferral), what lies at the destination, and what the service has sold.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from airflow.sdk import DAG

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.emulator.ledger import Failure, ImageTask
from airflow_provider_nanobanana.emulator.requests import Submission
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from tests.support.task_runner import TaskInstance

DATA: Final = Path(__file__).parent / "data"
#: Stands for the destination's folder, which is another one in each test.
PLACE: Final = "{DESTINATION}"


@dataclass
class Recording:
    """What was left behind.

    :param release: The version of the provider that left it.
    :param now: Epoch seconds at which it stopped.
    :param task: What Airflow knows of the task instance: ids, tries, and what the operator was given.
    :param service: The image tasks that were sold, by :func:`sold`.
    :param store: JSON texts of the task state store by key; None before Airflow 3.3.
    :param xcoms: Of the task instance, by key.
    :param files: At the destination, by path: a text, or bytes as base64 in a list of one.
    :param deferral: ``classpath``, ``kwargs`` and ``stored`` of its trigger (as Airflow keeps them), ``method``
        and ``next_kwargs``; None where it was not deferred.
    """

    release: str
    now: float
    task: dict[str, Any]
    service: list[dict[str, Any]]
    store: dict[str, str] | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    deferral: dict[str, Any] | None = None

    @classmethod
    def read(cls, release: str, name: str) -> Recording:
        """Return a recording of a release."""
        return cls(**json.loads((DATA / release / f"{name}.json").read_text()))

    def write(self, folder: Path, name: str) -> None:
        """Write it as ``<name>.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=True)
        (folder / f"{name}.json").write_text(f"{text}\n")

    def restore_service(self, emulator: Emulator) -> None:
        """Let the emulator have sold what was sold."""
        ledger = emulator.service.ledger
        for row in self.service:
            task = _image_task(row)
            ledger.image_tasks[task.id] = task
            if task.submission.client_business_id:
                ledger.by_client_id.setdefault(task.submission.client_business_id, []).append(task)

    def restore_files(self, folder: Path) -> None:
        """Put what lay at the destination into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content.replace(PLACE, str(folder)))
            else:
                path.write_bytes(base64.b64decode(content[0]))

    def restored_xcoms(self, folder: Path) -> dict[str, Any]:
        """Return the XComs, which name a folder as their destination."""
        xcoms: dict[str, Any] = json.loads(json.dumps(self.xcoms).replace(PLACE, str(folder)))
        return xcoms

    def trigger(self, shift: float = 0.0) -> Any:
        """Return the trigger as a triggerer makes it of Airflow's database.

        :param shift: Seconds by which its moments are moved, so that it goes by the wall clock of today.
        """
        assert self.deferral is not None
        module, _, name = self.deferral["classpath"].rpartition(".")
        kwargs = dict(self.deferral["kwargs"])
        for moment in ("started_at", "deadline", "not_before", "moment"):
            if kwargs.get(moment):
                kwargs[moment] += shift
        return getattr(importlib.import_module(module), name)(**kwargs)


def sold(emulator: Emulator) -> list[dict[str, Any]]:
    """Return the image tasks of an emulator as plain JSON."""
    return [asdict(task) for task in emulator.service.ledger.image_tasks.values()]


def _image_task(row: dict[str, Any]) -> ImageTask:
    """Return an image task of a row; what today's emulator does not know of it is left out."""
    names = {one.name for one in fields(ImageTask)}
    given = {name: value for name, value in row.items() if name in names}
    asked = dict(row["submission"], references=tuple(row["submission"]["references"]))
    given["submission"] = Submission(**asked)
    given["failure"] = Failure(**row["failure"]) if row["failure"] else None
    return ImageTask(**given)


def files_of(folder: Path) -> dict[str, Any]:
    """Return what lies below a folder, for :attr:`Recording.files`."""
    return dict(_files_of(folder))


def _files_of(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        try:
            yield name, content.decode().replace(str(folder), PLACE)
        except UnicodeDecodeError:
            yield name, [base64.b64encode(content).decode()]


@dataclass
class Downloading(TaskInstance):
    """A download whose submits have left these requests."""

    left: list[Any] = field(default_factory=list)

    def xcom_pull(self, task_ids: str, key: str, map_indexes: Any = "all") -> Any:
        assert (task_ids, key) == ("submit", "nanobanana_request")
        return self.left


def download(records: Any, folder: Path) -> NanoBananaDownloadOperator:
    """Return a download of what a sensor handed on, behind a mapped submit."""
    with DAG("dag", schedule=None):
        operator = NanoBananaDownloadOperator(task_id="download", images=records, destination=folder.as_uri())
        NanoBananaSubmitOperator.partial(task_id="submit").expand(prompt=["a"]) >> operator
    return operator
