"""A batch that began under an earlier version of this provider goes on under this one."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.batch import preparation
from airflow_provider_nanobanana.batch.input_content import pack
from airflow_provider_nanobanana.toapis import models
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
    batch.attempt(requests=requests, crash_on=("before land", 2))
    assert batch.charges == 3 and len(batch.files) < 3
    monkeypatch.setattr(preparation, "pack", pack)
    run = batch.attempt(requests=requests)
    assert run.error is None and batch.charges == 3
    assert [(image["request"], image["name"]) for image in run.result["images"]] == [(0, None), (1, "hat"), (2, None)]
    batch.clear()
    assert batch.attempt(requests=requests).error is None and batch.charges == 3


@pytest.mark.parametrize("then", ["retry", "clear"])
def test_what_was_bought_for_a_prompt_that_is_refused_by_now_is_landed(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """A rule for new requests must not make a list unreadable of which each picture may be paid."""
    batch = with_store
    requests = ["a kite", "concept://art-deco"]
    with monkeypatch.context() as earlier:
        earlier.setattr(models, "is_object_address", lambda text: False)
        batch.attempt(requests=requests, crash_on=("before land", 1))
    assert (batch.charges, batch.files) == (2, [])
    if then == "clear":
        batch.clear()
        # Of a new list the address is refused; what was paid for the list before is landed all the same.
        assert "is the address" in str(batch.attempt(requests=requests).error)
        batch.clear()
        requests = requests[:1]
    run = batch.attempt(requests=requests)
    assert run.error is None and batch.charges == 2 and len(batch.files) == 2
