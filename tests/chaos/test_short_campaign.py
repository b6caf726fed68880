"""A short campaign on real processes: a few kills where they hurt most, and every image paid once and landed.

Every submit that arrives is accepted, so that no retry has to look for a minute until "not there" is believed.
PostgreSQL with two triggerers where the machine has it, else SQLite with one. The long campaigns are ``make chaos``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.stack.console import Progress
from tests.chaos.campaigns import Campaign
from tests.chaos.emulator import Hostility
from tests.chaos.installation import InstallationSpec
from tests.chaos.postgres import PostgresServer
from tests.chaos.report import as_text, broken, kills_by_kind
from tests.chaos.runner import run

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def test_kill_9_at_random_moments_buys_nothing_twice(tmp_path: Path) -> None:
    postgres = PostgresServer.possible()
    campaign = Campaign(
        "short",
        "chaos_provider",
        images=6,
        kills=6,
        run_size=6,
        mix={"task": 3, "service-connection": 2, "triggerer": 1},
        pace=1.5,
        ahead=0.5,
        aim=0.7,
        latency=12,
        limit=420,
        hostility=Hostility(lookup_spread=5, commit_delay=1.5, orphan_share=1.0),
        installation=InstallationSpec(postgres=postgres, triggerers=2 if postgres else 1, slots=8),
    )
    outcome = run(campaign, tmp_path, seed=5, say=Progress().say)
    assert broken(outcome) == [], as_text([outcome])
    assert outcome.audit.charges == outcome.audit.landed == 6
    assert sum(kills_by_kind(outcome).values()) >= 2, "the runs ended before anything was killed"
