"""The settings of a throwaway Airflow: everything in one folder, on loopback, quick to notice changes."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
USER = "admin"


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one stack."""

    api: int
    scheduler_logs: int
    triggerer_logs: int


def free_ports(count: int) -> list[int]:
    """Choose ports that nothing listens on; all are held until the last is found, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def inherited() -> dict[str, str]:
    """Give the environment a child may see: neither the user's own Airflow settings nor a key meant for us."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "TOAPIS_"))}
    local = "127.0.0.1,localhost"
    for name in ("NO_PROXY", "no_proxy"):  # the processes talk to each other over HTTP
        env[name] = f"{env[name]},{local}" if env.get(name) else local
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), env.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    return env


def airflow_environment(
    home: Path, dag_folders: Sequence[Path], ports: Ports, password: str, extra: Mapping[str, str]
) -> dict[str, str]:
    """Give the environment of every process of a stack.

    Sources of the settings: Airflow's configuration reference, and for the values the measurements in
    ``reference/airflow-platform.md`` (a new DAG file is otherwise found after 300 s, a finished task seen after 5 s).

    :param dag_folders: Each becomes a bundle of its own.
    :param extra: Added last, for example ``AIRFLOW_CONN_NANOBANANA_DEFAULT``.
    """
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({USER: password}))
    passwords.chmod(0o600)
    url = f"http://127.0.0.1:{ports.api}"
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
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([_bundle(folder) for folder in dag_folders]),
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "2",
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports.triggerer_logs),
        "LOGGING__WORKER_LOG_SERVER_PORT": str(ports.scheduler_logs),
        "SCHEDULER__USE_JOB_SCHEDULE": "False",  # nor when it is unpaused for a run by hand
        "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    settings = {f"AIRFLOW__{name}": value for name, value in options.items()}
    return {**inherited(), "AIRFLOW_HOME": str(home), **settings, **extra}


def _bundle(folder: Path) -> dict[str, object]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no DAG folder {folder}")
    return {
        "name": "-".join(folder.parts[-2:]).strip("/"),
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder), "refresh_interval": 2},
    }
