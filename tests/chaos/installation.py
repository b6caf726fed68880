"""Installation: the Airflow under attack, with its database, broker and processes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dev.stack.airflow_stack import COMPONENTS, AirflowStack, Say
from dev.stack.processes import Command, Processes, free_ports
from tests.chaos.postgres import PostgresServer
from tests.chaos.redis import RedisServer
from tests.chaos.settings import CELERY, FAST_DETECTION, environment

DAGS = Path(__file__).parent / "dags"


@dataclass(frozen=True)
class InstallationSpec:
    """Which processes an installation consists of.

    :param slots: Tasks that run at once.
    :param celery_workers: 0 is LocalExecutor, whose workers are children of the scheduler.
    """

    postgres: bool = True
    triggerers: int = 2
    slots: int = 14
    celery_workers: int = 0


class Installation:
    """One Airflow installation in a folder; a context manager.

    :param folder: Becomes AIRFLOW_HOME and holds every log.
    :param env: Added to the environment of every process.
    :param dags: Folders of DAGs.
    """

    def __init__(
        self,
        folder: Path,
        spec: InstallationSpec,
        processes: Processes,
        env: Mapping[str, str],
        say: Say,
        dags: Sequence[Path] = (DAGS,),
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.processes = processes
        self._folders = contextlib.ExitStack()
        self._say = say
        self.postgres = self._make_postgres() if spec.postgres else None
        self._redis = self._make_redis() if spec.celery_workers else None
        self.stack = AirflowStack(folder, dags, env={**self._settings(), **env}, say=say, processes=processes)
        self.triggerers = ("triggerer", *(f"triggerer-{number}" for number in range(2, spec.triggerers + 1)))
        self.celery_workers = tuple(f"worker-{number}" for number in range(1, spec.celery_workers + 1))

    def __enter__(self) -> Installation:
        try:
            if self.postgres is not None:
                self.postgres.start()
            if self._redis is not None:
                self._redis.start()
            self.stack.start()
            for name in self.triggerers[1:]:
                self.processes.start(self._triggerer(name))
            for name in self.celery_workers:
                self.processes.start(self.worker(name))
        except BaseException:
            self._folders.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stack.stop()
        self._folders.close()

    @property
    def task_hosts(self) -> tuple[str, ...]:
        """The processes whose descendants are tasks."""
        return self.celery_workers or ("scheduler",)

    @property
    def airflow(self) -> tuple[str, ...]:
        """The processes of Airflow, each of which may be killed and started again."""
        return (*COMPONENTS, *self.triggerers[1:], *self.celery_workers)

    def _temporary_folder(self, name: str) -> Path:
        # Not below the checkout: a service's user may not be allowed in there.
        return Path(self._folders.enter_context(tempfile.TemporaryDirectory(prefix=f"nanobanana-{name}-")))

    def _make_postgres(self) -> PostgresServer:
        return PostgresServer(self.processes, self._temporary_folder("postgres"), self.folder / "logs")

    def _make_redis(self) -> RedisServer:
        return RedisServer(self.processes, self._temporary_folder("redis"), self.folder / "logs")

    def _settings(self) -> dict[str, str]:
        settings = environment(FAST_DETECTION, CORE__PARALLELISM=str(self.spec.slots))
        if self.postgres is not None:
            settings |= environment(DATABASE__SQL_ALCHEMY_CONN=self.postgres.url)
        if self._redis is not None and self.postgres is not None:
            slots = -(-self.spec.slots // self.spec.celery_workers)
            settings |= environment(
                CELERY,
                CELERY__BROKER_URL=self._redis.url,
                CELERY__RESULT_BACKEND=f"db+{self.postgres.url}",
                CELERY__WORKER_CONCURRENCY=str(slots),
            )
        return settings

    def _triggerer(self, name: str) -> Command:
        [port] = free_ports(1)  # its log server is switched off, yet the setting must differ
        env = {**self.stack.env, **environment(LOGGING__TRIGGER_LOG_SERVER_PORT=str(port))}
        return Command(name, ("-m", "airflow", "triggerer", "--skip-serve-logs"), env, self.stack.log(name))

    def worker(self, name: str) -> Command:
        """Give what starts a Celery worker; a subclass may put one into surroundings of its own."""
        options = ("--skip-serve-logs", "--celery-hostname", f"{name}@%h", "--without-mingle", "--without-gossip")
        return Command(name, ("-m", "airflow", "celery", "worker", *options), self.stack.env, self.stack.log(name))
