"""A batch that began under an earlier version of this provider goes on under this one."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.batch import preparation
from airflow_provider_nanobanana.batch.input_content import pack
from tests.integration.batch.harness import GenerateTask


def test_what_is_under_way_goes_on_and_nothing_is_bought_again(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As commit 33a6c5a stored its list: rows of four without data of their own, and no rows that were left out."""
    batch = with_store
    requests = ["a kite", {"prompt": "a hat", "name": "hat"}, "a kite"]

    def packed(*args: Any) -> dict[str, Any]:
        content = pack(*args)
        rows = {name: [row[1:5] for row in content[name]] for name in ("items", "former")}
        return {**rows, "digests": content["digests"]}

    monkeypatch.setattr(preparation, "pack", packed)
    batch.attempt(requests=requests, crash_on=("land", 2))
    assert batch.charges == 3
    monkeypatch.setattr(preparation, "pack", pack)
    run = batch.attempt(requests=requests)
    assert run.error is None and batch.charges == 3
    assert [(image["request"], image["name"]) for image in run.result["images"]] == [(0, None), (1, "hat"), (2, None)]
    batch.clear()
    assert batch.attempt(requests=requests).error is None and batch.charges == 3
