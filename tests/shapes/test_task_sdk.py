"""A worker with the task SDK alone: Airflow does not install so; and what would be missing is Airflow's, not ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import requires

from dev.stack.processes import REPO


def test_the_task_sdk_requires_the_core() -> None:
    """The day that it does not, this shape can be had, and must be tried."""
    assert [one for one in requires("apache-airflow-task-sdk") or () if one.startswith("apache-airflow-core")]


def test_without_the_core_only_what_airflow_itself_lacks_is_missing() -> None:
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "tests.shapes.without_core"]
    done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    missing = json.loads(done.stdout.splitlines()[-1])
    of_worker = {name: why for name, why in missing.items() if not name.startswith("ui.")}
    # Hooks, operators and sensors come through common.compat, which asks the core for its version.
    assert "operators.generate" in of_worker
    own = {name: why for name, why in of_worker.items() if why.startswith("airflow_provider_nanobanana")}
    # No provider has another base class of a trigger.
    assert own == {
        name: "airflow_provider_nanobanana: No module named 'airflow.triggers'"
        for name in ("triggers.nanobanana", "triggers.timer")
    }
    others = {why for why in of_worker.values() if why not in own.values()}
    assert all(why.startswith("providers.common.compat") for why in others), others
