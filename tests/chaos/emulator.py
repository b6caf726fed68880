"""The hostile bank: the emulator as a process of its own, slow to accept, slow to show what it accepted."""

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

#: Seconds; well above what the bank takes to accept.
_HTTP_TIMEOUT = 10


@dataclass(frozen=True)
class Temper:
    """How hostile the bank is; times in seconds.

    :param lookup_spread: What was accepted is found by its client id only after 0 to this many seconds.
    :param commit_delay: A submit is accepted 0 to this many seconds after it arrived.
    :param orphan_share: Share of the submits accepted although the client died or lost its connection before.
    :param ignore_client_ids: Client ids are swallowed.
    """

    lookup_spread: float = 30.0
    commit_delay: float = 3.0
    orphan_share: float = 0.7
    ignore_client_ids: bool = False


class Bank:
    """One emulator and what was done to its connections."""

    def __init__(self, processes: Processes, log: Path, temper: Temper, *, latency: float, seed: int) -> None:
        self._service = start_emulator(processes, log, latency=latency, sigma=0.4, seed=seed)
        assert self._service.control_url is not None
        self._http = httpx.Client(base_url=f"{self._service.control_url}/emulator", trust_env=False, timeout=15)
        self._temper = temper
        self._rules: list[dict[str, Any]] = []
        self._struck: Counter[str] = Counter()
        self._http.post("/settings", json=asdict(temper)).raise_for_status()

    @property
    def environment(self) -> dict[str, str]:
        """What the processes of Airflow need to know."""
        # A submit whose answer was lost is believed unknown only long after the HTTP timeout (30 s by default).
        connection = json.loads(self._service.connection) | {"extra": {"timeout": _HTTP_TIMEOUT}}
        return {"AIRFLOW_CONN_NANOBANANA_DEFAULT": json.dumps(connection)}

    def arm(self, rng: random.Random) -> str:
        """Let one of the next requests lose its connection; say which kind of request."""
        point = rng.choice(("submit", "submit", "submit", "status", "status", "result"))
        rule: dict[str, Any] = {"on": point, "kind": "drop", "reset": rng.random() < 0.5, "times": 1}
        if point == "submit":
            rule["committed"] = rng.random() < self._temper.orphan_share
        self._collect()
        self._rules.append(rule)
        self._http.post("/faults", json=self._rules).raise_for_status()
        return point

    def struck(self) -> dict[str, int]:
        """Count the connections that were cut, by what they were for."""
        self._collect()
        self._http.post("/faults", json=self._rules).raise_for_status()
        return dict(self._struck)

    def _collect(self) -> None:
        """Count and drop the rules that have struck; the control API replaces the whole list at a time."""
        left = []
        for rule in self._http.get("/faults").raise_for_status().json()["faults"]:
            self._struck[rule["on"]] += rule["hits"]
            if rule["times"]:
                left.append({name: value for name, value in rule.items() if name != "hits"})
        self._rules = left

    def image_tasks(self) -> list[dict[str, Any]]:
        """Give everything that was ever accepted, in the order of acceptance."""
        return list(self._http.get("/ledger").raise_for_status().json()["image_tasks"])

    def pending(self) -> list[str]:
        """Give the prompts that are being accepted right now."""
        return list(self._http.get("/stats").raise_for_status().json()["pending"])

    def __enter__(self) -> Bank:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()
