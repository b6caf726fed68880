"""A stand-in for Airflow's collector of hook-level lineage, which somebody reads."""

from __future__ import annotations

from typing import Any, Self

import pytest

from airflow_provider_nanobanana import lineage

COLLECTOR = "airflow.providers.common.compat.sdk.get_hook_lineage_collector"


class Collector:
    """Airflow's, as far as it is called."""

    def __init__(self) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []

    def add_input_asset(self, *, context: Any, uri: str) -> None:
        self.inputs.append(uri)

    def add_output_asset(self, *, context: Any, uri: str) -> None:
        self.outputs.append(uri)

    @classmethod
    def in_place_of_airflows(cls, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Return one that is told of all lineage while the test runs."""
        collector = cls()
        monkeypatch.setattr(lineage, "reads_hook_lineage", lambda: True)
        monkeypatch.setattr(COLLECTOR, lambda: collector, raising=False)
        return collector
