"""The ground the other system tests stand on: real processes, a deferral, a triggerer that dies in the middle."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.versions import REVIEWS, gives
from tests.system.harness import System

EXAMPLES = {
    "nanobanana_asset_news",
    "nanobanana_asset_refresh",
    "nanobanana_backfill",
    "nanobanana_best_of_three",
    "nanobanana_catalogue",
    "nanobanana_channels",
    "nanobanana_creative_refresh",
    "nanobanana_generate",
    "nanobanana_partial_failure",
    "nanobanana_pipeline",
    "nanobanana_products",
    "nanobanana_review",
}


def test_the_examples_are_found_and_none_runs_unasked(system: System) -> None:
    lacking = set() if gives(REVIEWS) else {"nanobanana_review"}
    for dag_id in EXAMPLES - lacking:
        system.stack.api.wait_for_dag(dag_id)
    api = system.stack.api
    if lacking:
        api.wait_until(lambda: api.import_errors() or None, "an import error", 90)
    errors = {Path(file).stem: said for file, said in api.import_errors().items()}
    assert errors.keys() == lacking
    assert all("NanoBananaReviewOperator needs Airflow 3.1" in said for said in errors.values())
    assert system.emulator.ledger()["count"] == 0, "a scheduled example bought images without being asked"


def test_a_deferral_outlives_its_triggerer(system: System) -> None:
    run = system.start("stack_smoke", word="moo")
    run.wait_for("pause", "deferred")
    system.stack.kill("triggerer", signal.SIGTERM)
    assert "triggerer" not in system.stack.processes.names()
    system.stack.restart("triggerer")
    assert run.wait() == "success", run.states()
    assert run.xcom("repeat") == "moo moo"
    assert "moo" in run.log("repeat")
