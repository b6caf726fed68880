from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.batch.harness import GenerateTask
from tests.integration.upgrade.record import world


@pytest.fixture
def batch(tmp_path: Path, slept: list[float]) -> Iterator[GenerateTask]:
    """A generate task of today in a world of its own, with nothing in it."""
    with world(tmp_path / "images", store=True, seed=8) as batch:
        yield batch
