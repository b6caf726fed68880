"""The service behind the demo: a local emulator, or the real one when a key is given."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from airflow_provider_nanobanana.toapis import catalogue
from dev.stack.processes import Command, Processes, child_environment, free_ports


@dataclass(frozen=True)
class Service:
    """Where images come from.

    :param connection: The Airflow connection as JSON; it holds the key and is never printed.
    :param control_url: Control address of the emulator; ``None`` for the real service.
    """

    connection: str = field(repr=False)
    control_url: str | None

    @property
    def environment(self) -> dict[str, str]:
        """Give what the processes of Airflow need to know."""
        return {"AIRFLOW_CONN_NANOBANANA_DEFAULT": self.connection}

    def ledger(self) -> dict[str, Any] | None:
        """Give what the emulator's bank says, ``None`` for the real service."""
        if self.control_url is None:
            return None
        with httpx.Client(trust_env=False, timeout=10) as http:
            return dict(http.get(f"{self.control_url}/emulator/ledger").raise_for_status().json())


def real_service(env: Mapping[str, str]) -> Service | None:
    """Give the real service if ``TOAPIS_API_KEY`` is set; ``TOAPIS_BASE_URL`` overrides its address."""
    key = env.get("TOAPIS_API_KEY", "").strip()
    if not key:
        return None
    connection = {"conn_type": "nanobanana", "password": key}
    if base_url := env.get("TOAPIS_BASE_URL", "").strip():
        connection["host"] = base_url
    return Service(json.dumps(connection), None)


def list_price(images: int) -> float:
    """Give the list price of this many 1K images in USD."""
    return images * catalogue.LIST_PRICES["1K"]


def start_emulator(
    processes: Processes, log: Path, *, latency: float = 8, sigma: float = 0.25, **options: Any
) -> Service:
    """Start a local ToAPIs under the name ``emulator``.

    :param latency: Median seconds an image takes.
    :param options: Further options of its command line, such as ``query_rate``; True and False are flags.
    :raises ProcessDied: It ended at once; the message holds the end of its log.
    """
    port, files_port = free_ports(2)
    key = f"sk-emulator-{secrets.token_hex(12)}"
    values = {"port": port, "files-port": files_port, "api-key": key, "latency": latency, "sigma": sigma, "seed": 7}
    values |= {name.replace("_", "-"): value for name, value in options.items()}
    arguments = [part for name, value in values.items() for part in _argument(name, value)]
    module = "airflow_provider_nanobanana.emulator"
    processes.start(Command("emulator", ("-m", module, *arguments), child_environment(), log))
    url = f"http://127.0.0.1:{port}"
    _wait_until_up(url, processes)
    connection = {"conn_type": "nanobanana", "host": url, "password": key}
    return Service(json.dumps(connection), url)


def _argument(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return (f"--{name}" if value else f"--no-{name}",)
    return f"--{name}", str(value)


def _wait_until_up(url: str, processes: Processes, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    with httpx.Client(trust_env=False, timeout=5) as http:
        while True:
            processes.check()
            try:
                http.get(f"{url}/emulator/stats").raise_for_status()
            except httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"The emulator is not up.\n{processes.tail('emulator')}") from error
                time.sleep(0.1)
            else:
                return
