"""A real Airflow for a demo or a test run: four processes on SQLite, started in about half a minute."""

from __future__ import annotations

import base64
import json
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dev.stack.airflow_api import AirflowApi, ApiError
from dev.stack.processes import Command, Processes, child_environment, free_ports

USER = "admin"
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
_HEALTH_NAMES = {"scheduler": "scheduler", "dag_processor": "dag-processor", "triggerer": "triggerer"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one stack."""

    api: int
    scheduler_logs: int
    triggerer_logs: int


class AirflowStack:
    """Api-server, scheduler, dag-processor and triggerer as separate processes, everything below one folder.

    :param home: Becomes AIRFLOW_HOME; the logs of the processes are in ``home/logs``.
    :param dag_folders: Each becomes a DAG bundle.
    :param env: Added to the environment of every process, for example ``AIRFLOW_CONN_NANOBANANA_DEFAULT``.
    :param users: Further users by name with their role, ``viewer``, ``user`` or ``op``; the password is one for all.
    :param path: Path below which all of it is served, for example ``/airflow``.
    :param say: Called with one line of progress at a time.
    """

    def __init__(
        self,
        home: Path,
        dag_folders: Sequence[Path],
        *,
        env: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        path: str = "",
        say: Say = lambda line: None,
        processes: Processes | None = None,
    ) -> None:
        self.home = home.resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        self.password = secrets.token_urlsafe(9)
        ports = Ports(*free_ports(3))
        self.url = f"http://127.0.0.1:{ports.api}{path}"
        folders = [folder.resolve() for folder in dag_folders]
        self.env = airflow_environment(self.home, folders, ports, self.password, env or {}, users=users, path=path)
        self.processes = processes or Processes()
        self.api = AirflowApi(self.url, USER, self.password)
        self._say = say

    def __enter__(self) -> AirflowStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 180) -> None:
        """Create the database, start the four processes and wait until all are healthy.

        :param timeout: Seconds for all of it.
        :raises ProcessDied: One ended; the message holds the end of its log.
        :raises TimeoutError: Not healthy in time; the message holds the ends of the logs of those that are not.
        """
        deadline = time.monotonic() + timeout
        try:
            self._say("starting the api-server and creating the database")
            self.processes.start(self._component("api-server"))  # the slowest to import
            self.run("migrate", "db", "migrate", timeout=deadline - time.monotonic())
            self._say("starting scheduler, dag-processor and triggerer")
            for component in COMPONENTS[1:]:
                self.processes.start(self._component(component))
            self.wait_healthy(deadline - time.monotonic())
            self._say("all are healthy; the api-server prepares for its first task")
            self.api.warm_up()
        except BaseException:
            self.stop()
            raise

    def start_api_server(
        self, name: str, *, path: str = "", env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> str:
        """Start one more api-server on the same database and wait until it answers.

        :param name: Its name among the processes.
        :param path: Path below which it is served, for example ``/af``.
        :param env: Added to its environment, for example another auth manager.
        :return: Its base URL.
        """
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}{path}"
        own = {"AIRFLOW__API__BASE_URL": url, "AIRFLOW__API__PORT": str(port), **(env or {})}
        self.processes.start(self._command(name, "api-server", env=own))
        api = AirflowApi(url, USER, self.password)
        try:
            api.wait_until(lambda: self._answers(api), f"{name} at {url}", timeout)
        finally:
            api.close()
        return url

    def run(self, name: str, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120) -> None:
        """Run one of Airflow's commands to its end, for example ``run("migrate", "db", "migrate")``.

        :raises ProcessDied: It failed.
        """
        self.processes.run(self._command(name, *arguments, env=env), timeout)

    def stop(self) -> None:
        """End everything that was started here; safe to call twice."""
        self.api.close()
        self.processes.stop()

    def log(self, name: str) -> Path:
        """Give the log file of a process."""
        return self.home / "logs" / f"{name}.log"

    def kill(self, component: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one component and wait until it is gone (see :meth:`Processes.kill`)."""
        self.processes.kill(component, number)

    def restart(self, component: str) -> None:
        """Start a component again after :meth:`kill`, without waiting for its health."""
        self.processes.restart(component)

    def wait_healthy(self, timeout: float = 60) -> None:
        """Wait until every component reports itself healthy.

        After a kill the old heartbeat counts as healthy for up to 30 s, so this says nothing about a fresh restart.
        """
        deadline = time.monotonic() + timeout
        told: set[str] = set()
        while True:
            self.processes.check()
            ready = self._healthy()
            for component in sorted(ready - told):
                self._say(f"{component} is healthy")
            told |= ready
            missing = [component for component in COMPONENTS if component not in ready]
            if not missing:
                return
            if time.monotonic() > deadline:
                tails = "\n".join(self.processes.tail(component) for component in missing)
                raise TimeoutError(f"Not healthy after {timeout:.0f} s: {', '.join(missing)}\n{tails}")
            time.sleep(0.5)

    def _healthy(self) -> set[str]:
        try:
            states = self.api.health()
        except ApiError:
            return set()
        ready = {name for key, name in _HEALTH_NAMES.items() if (states.get(key) or {}).get("status") == "healthy"}
        return ready | {"api-server"}

    def _answers(self, api: AirflowApi) -> bool | None:
        self.processes.check()
        try:
            api.health()
        except ApiError:
            return None
        return True

    def _component(self, name: str) -> Command:
        # The log servers would listen on every interface; all logs are on this machine anyway.
        options = ("--skip-serve-logs",) if name in ("scheduler", "triggerer") else ()
        # The api-server starts beside the migration, which its check would find unfinished.
        env = {"AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False"} if name == "api-server" else {}
        return self._command(name, name, *options, env=env)

    def _command(self, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Command:
        return Command(name, ("-m", "airflow", *arguments), {**self.env, **(env or {})}, self.log(name))


def airflow_environment(
    home: Path,
    dag_folders: Sequence[Path],
    ports: Ports,
    password: str,
    extra: Mapping[str, str],
    *,
    users: Mapping[str, str] | None = None,
    path: str = "",
) -> dict[str, str]:
    """Give the environment of every process of a stack.

    The values shorten what makes tests wait (Airflow's configuration reference): by default a new DAG file is found
    after up to 300 s, and a finished task is seen after up to 5 s.

    :param dag_folders: Each becomes a bundle of its own.
    :param extra: Added last, for example ``AIRFLOW_CONN_NANOBANANA_DEFAULT``.
    :param users: Further users by name with their role.
    :param path: Path below which the api-server is served.
    """
    roles = {USER: "admin", **(users or {})}
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(roles, password)))
    passwords.chmod(0o600)
    url = f"http://127.0.0.1:{ports.api}{path}"
    options = {
        "API__BASE_URL": url,
        "API__EXPOSE_CONFIG": "False",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(ports.api),
        "API__SECRET_KEY": secrets.token_hex(32),
        "API__WORKERS": "1",
        "API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",  # a scheduled DAG must not buy images unasked
        "CORE__DAGS_FOLDER": str(dag_folders[0]),
        "CORE__DEFAULT_TASK_RETRY_DELAY": "5",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": "6",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in roles.items()),
        # On a busy machine SQLite is locked for longer than the 5 s of its driver.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([_bundle(folder) for folder in dag_folders]),
        # A file that changed is parsed at once; the others would keep a core busy.
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "2",
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports.triggerer_logs),
        "LOGGING__WORKER_LOG_SERVER_PORT": str(ports.scheduler_logs),
        "SCHEDULER__USE_JOB_SCHEDULE": "False",  # nor when it is unpaused for a run by hand
        "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # There the api-server answers no worker within 5 s, and the supervisor ends what has worked well.
        "WORKERS__EXECUTION_API_TIMEOUT": "60",
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    settings = {f"AIRFLOW__{name}": value for name, value in options.items()}
    return {**child_environment(), "AIRFLOW_HOME": str(home), **settings, **extra}


def _bundle(folder: Path) -> dict[str, object]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no DAG folder {folder}")
    return {
        "name": "-".join(folder.parts[-2:]).strip("/"),
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder), "refresh_interval": 2},
    }
