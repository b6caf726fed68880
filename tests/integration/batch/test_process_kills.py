"""Real processes, really killed, in the middle of a batch: charges equal images."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from tests.support.campaign import of_campaign

REPO = Path(__file__).parents[3]
REQUESTS, KILLS = of_campaign(30, 60), of_campaign(2, 5)
pytestmark = pytest.mark.campaign


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A service with a latency of a second, for an account that may submit 20 a second."""
    with Emulator(latency=1, sigma=0.3, submit_rate=0, query_rate=0, seed=7) as emulator:
        conn = emulator.connection_json(timeout=1, submit_rate=20)
        monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", conn)
        yield emulator


def test_a_batch_killed_at_random_moments(fast: Emulator, tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    images, store = tmp_path / "images", tmp_path / "store"
    store.mkdir()

    command = [
        sys.executable,
        "-m",
        "tests.integration.batch.worker_process",
        images.as_uri(),
        str(store),
        str(REQUESTS),
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    killed = 0
    with subprocess.Popen(command, cwd=REPO, env=environment, stdin=PIPE, stdout=PIPE, text=True) as workers:
        assert workers.stdin is not None and workers.stdout is not None
        for number in range(1, KILLS + 2):
            workers.stdin.write(f"{number}\n")
            workers.stdin.flush()
            pid = int(workers.stdout.readline())
            if number <= KILLS:
                # Somewhere among the submits of this attempt, which come to about ten a kill.
                aim = posts(fast) + dice.randrange(1, 11)
                while posts(fast) < aim:
                    time.sleep(0.005)
                time.sleep(dice.random() * 0.1)
                os.kill(pid, signal.SIGKILL)
            status = int(workers.stdout.readline())
            killed += status == signal.SIGKILL
        assert status == 0, seed
        workers.stdin.close()
    ledger = fast.ledger()["image_tasks"]
    print(f"\nseed {seed}: {killed} kills, {len(ledger)} charges")
    assert killed == KILLS
    assert len(list(images.glob("*.png"))) == REQUESTS, seed
    assert len(ledger) == REQUESTS and not any(task["refunded"] for task in ledger), seed


def posts(emulator: Emulator) -> int:
    return int(emulator.ledger()["count"])
