"""Teams (``[core] multi_team``): no trigger sees a team's connection; the wait says so, its retry has the image."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import AirflowStack
from dev.stack.processes import Command, free_ports
from tests.shapes import buying
from tests.shapes.stacks import Started
from tests.support.versions import TEAMS, needs

TEAM = "art"
#: Longer than the first poll of the worker, which sees the connection, comes after the submit.
PROMPT = "of a team [[slow=40]]"


@needs(TEAMS)
def test_a_connection_of_a_team_is_missed_in_words_and_the_image_is_bought_once(
    tmp_path: Path, emulator: Emulator, started: Started
) -> None:
    stack = started.stack(tmp_path / "airflow", emulator, {"AIRFLOW__CORE__MULTI_TEAM": "True"})
    del stack.env["AIRFLOW_CONN_NANOBANANA_DEFAULT"]
    stack.env[f"AIRFLOW_CONN__{TEAM.upper()}___NANOBANANA_DEFAULT"] = emulator.connection_json()
    stack.run("migrate-first", "db", "migrate", timeout=240)
    stack.run("team", "teams", "create", TEAM, timeout=120)
    bundles = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
    stack.env[bundles] = json.dumps([{**one, "team_name": TEAM} for one in json.loads(stack.env[bundles])])
    stack.start(timeout=400)
    stack.processes.start(_triggerer_of_the_team(stack))
    place = buying.local_place(tmp_path / "images")
    run = buying.start(stack.api, buying.PIPELINE, prompts=[PROMPT], destination=place.uri("team"))
    # Each retry defers again, until the image is there.
    run.wait_for("wait", "failed", "success", timeout=240)
    said = run.log("wait")
    assert "for the triggerer" in said, said[-3000:]
    assert "belongs to a team" in said
    assert "deferrable=False" in said
    if run.wait(300) == "failed":
        stack.api.wait_until(lambda: emulator.ledger()["by_status"].get("completed"), "the picture", 120)
        run.clear("wait", "download")
    assert run.wait(300) == "success", run.states()
    assert buying.charges(emulator) == {PROMPT: 1}
    assert len(place.pictures("team")) == 1


def _triggerer_of_the_team(stack: AirflowStack) -> Command:
    [port] = free_ports(1)
    env = {**stack.env, "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(port)}
    words = ("-m", "airflow", "triggerer", "--skip-serve-logs", "--team-name", TEAM)
    return Command("triggerer-art", words, env, stack.log("triggerer-art"))
