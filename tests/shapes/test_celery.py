"""Celery with two workers, each with a /tmp and an AIRFLOW_HOME of its own, like pods: they share the destination."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import USER
from dev.stack.processes import REPO, Command
from tests.chaos import programs
from tests.chaos.installation import Installation, InstallationSpec
from tests.chaos.postgres import PostgresServer
from tests.shapes import buying
from tests.shapes.gallery_pages import pictures_seen, visitor
from tests.shapes.own_surroundings import temporary_folder, why_not
from tests.shapes.stacks import EXAMPLES, Started


class ApartInstallation(Installation):
    """An installation whose Celery workers share no /tmp and no AIRFLOW_HOME, with each other or with anybody.

    :ivar mounts: Whether each worker has a /tmp of its own, which takes root; else only another ``TMPDIR``.
    """

    mounts = True

    def worker(self, name: str) -> Command:
        """Give what starts a Celery worker."""
        command = super().worker(name)
        home = self.folder.parent / name
        env = {**command.env, "AIRFLOW_HOME": str(home)}
        if self.mounts:
            program = (sys.executable, *command.arguments)
            return Command(name, ("-m", "tests.shapes.own_surroundings", *program), env, command.log)
        (home / "tmp").mkdir(parents=True)
        return Command(name, command.arguments, {**env, "TMPDIR": str(home / "tmp")}, command.log)

    def temporary_folder_of(self, name: str) -> Path:
        """Return the folder for temporary files of a running worker, as it is seen from here."""
        if not self.mounts:
            return self.folder.parent / name / "tmp"
        seen = Path(f"/proc/{self.processes.pid(name)}/root")
        return seen / temporary_folder().relative_to("/")


def _missing() -> str | None:
    if find_spec("celery") is None or find_spec("redis") is None or not PostgresServer.possible():
        return "PostgreSQL or the extra chaos is not installed (make shapes as root, or apt-get install postgresql)"
    return None if programs.find("redis-server") else "redis-server is not installed (apt-get install redis-server)"


def test_workers_that_share_the_destination_alone_buy_once(
    tmp_path: Path, emulator: Emulator, started: Started
) -> None:
    if missing := _missing():
        pytest.skip(missing)
    # One task at a time each, so that both must take some.
    spec = InstallationSpec(triggerers=1, slots=2, celery_workers=2)
    env = {
        "AIRFLOW_CONN_NANOBANANA_DEFAULT": emulator.connection_json(),
        "AIRFLOW__NANOBANANA__GALLERY_ROOTS": tmp_path.as_uri(),
    }
    apart = ApartInstallation(tmp_path / "airflow", spec, started.processes, env, lambda line: None, dags=(EXAMPLES,))
    reason = why_not((REPO, Path(sys.prefix), tmp_path))
    apart.mounts = reason is None
    print(reason or f"each worker has a {temporary_folder()} of its own")
    place = buying.local_place(tmp_path / "images")
    with apart:
        api = apart.stack.api
        runs = buying.buy(api, emulator, place)
        with visitor(apart.stack.url, USER, apart.stack.password) as client:
            for run in runs:
                assert pictures_seen(client, run) == 3
        buying.clear(runs, emulator, place)
        folders = [apart.temporary_folder_of(name) for name in apart.celery_workers]
        assert len({(found := os.stat(folder)).st_dev ^ found.st_ino for folder in (*folders, temporary_folder())}) == 3
        for name, folder in zip(apart.celery_workers, folders, strict=True):
            # What is ours there is the pace of submits: each worker keeps it for itself.
            assert [path.name for path in folder.glob("nanobanana-*")] == [f"nanobanana-{os.geteuid()}"], name
            assert [*(tmp_path / name / "logs").rglob("*.log")], f"{name} has run nothing"
