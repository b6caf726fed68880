"""ChaosEmulator: the emulator as a process of its own, slow to accept a submit and slow to show an accepted one.

Its ledger is the one witness of what was paid: the audit of a campaign compares it with the stored files.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from dev.stack.emulator_process import start_emulator
from dev.stack.processes import Processes

#: Seconds; well above the longest ``commit_delay``.
_HTTP_TIMEOUT = 10


@dataclass(frozen=True)
class Hostility:
    """How hostile the emulator is; times in seconds.

    :param lookup_spread: An accepted image task is found by its client id only after 0 to this many seconds.
    :param commit_delay: A submit is accepted 0 to this many seconds after it arrived.
    :param orphan_share: Share of the submits that are accepted although the client was killed or cut off before.
    :param ignore_client_ids: Client ids are dropped, so that no image task is ever found by one.
    :param failures: Image tasks that fail at the service and are refunded, every fifth one until there are so many.
    """

    lookup_spread: float = 30.0
    commit_delay: float = 3.0
    orphan_share: float = 0.7
    ignore_client_ids: bool = False
    failures: int = 0


class ChaosEmulator:
    """One emulator process and the count of its connections that were cut; a context manager."""

    def __init__(self, processes: Processes, log: Path, hostility: Hostility, *, latency: float, seed: int) -> None:
        self._service = start_emulator(processes, log, latency=latency, sigma=0.4, seed=seed)
        assert self._service.control_url is not None
        self._http = httpx.Client(base_url=f"{self._service.control_url}/emulator", trust_env=False, timeout=15)
        self._hostility = hostility
        self._rules: list[dict[str, Any]] = [
            {"on": "submit", "kind": "failed", "skip": 5 * number + 2, "times": 1}
            for number in range(hostility.failures)
        ]
        self._dropped: Counter[str] = Counter()
        settings = asdict(hostility)
        del settings["failures"]
        self._http.post("/settings", json=settings).raise_for_status()
        self._http.post("/faults", json=self._rules).raise_for_status()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that give the processes of Airflow their connection."""
        # A submit whose response was lost stays unknown until long after the HTTP timeout (30 s by default).
        connection = json.loads(self._service.connection) | {"extra": {"timeout": _HTTP_TIMEOUT}}
        return {"AIRFLOW_CONN_NANOBANANA_DEFAULT": json.dumps(connection)}

    def drop_a_connection(self, rng: random.Random) -> str:
        """Let one of the next requests lose its connection; return the kind of that request."""
        point = rng.choice(("submit", "submit", "submit", "status", "status", "result"))
        rule: dict[str, Any] = {"on": point, "kind": "drop", "reset": rng.random() < 0.5, "times": 1}
        if point == "submit":
            rule["committed"] = rng.random() < self._hostility.orphan_share
        self._collect()
        self._rules.append(rule)
        self._http.post("/faults", json=self._rules).raise_for_status()
        return point

    def dropped_connections(self) -> dict[str, int]:
        """Return how many connections were cut, by kind of request."""
        self._collect()
        self._http.post("/faults", json=self._rules).raise_for_status()
        return dict(self._dropped)

    def _collect(self) -> None:
        """Count and remove the rules that have applied; the control API replaces the whole list at a time."""
        left = []
        for rule in self._http.get("/faults").raise_for_status().json()["faults"]:
            self._dropped[rule["on"]] += rule["hits"] * (rule["kind"] == "drop")
            if rule["times"]:
                left.append({name: value for name, value in rule.items() if name != "hits"})
        self._rules = left

    def image_tasks(self) -> list[dict[str, Any]]:
        """Return every image task that was ever accepted, in the order of acceptance."""
        return list(self._http.get("/ledger").raise_for_status().json()["image_tasks"])

    def pending(self) -> list[str]:
        """Return the prompts of the submits that are being accepted right now."""
        return list(self._http.get("/stats").raise_for_status().json()["pending"])

    def __enter__(self) -> ChaosEmulator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()
