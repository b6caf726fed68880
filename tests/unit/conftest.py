"""Settings of the property tests: no time limits (machines differ), nothing written into the checkout. No proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.campaign import WHOLE, of_campaign

if TYPE_CHECKING:
    from airflow.sdk import DAG

settings.register_profile(
    "unit",
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    # The same examples in each `make test`, so that a change that broke nothing is not red; others in the campaign.
    derandomize=not WHOLE,
    max_examples=of_campaign(100, 2_000),
)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the proxies of the developer's machine out of the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def declared_dags(monkeypatch: pytest.MonkeyPatch) -> list[DAG]:
    """The DAGs that the test declares."""
    from airflow.sdk import DAG

    dags: list[DAG] = []
    enter = DAG.__enter__

    def declare(self: DAG) -> DAG:
        dags.append(self)
        return enter(self)

    monkeypatch.setattr(DAG, "__enter__", declare)
    return dags
