"""Former items: what a clear removed from the list, as far as it is ours to land."""

from __future__ import annotations

import pytest

from airflow_provider_nanobanana.batch.removed_items import abandoned_records, left_over
from tests.support.batch import bought_by, items, make_state, note_image_task
from tests.support.responses import NOW

WANTED, REMOVED = items(["wanted", "removed"])


@pytest.mark.parametrize("shared", [False, True])
def test_what_somebody_else_bought_is_theirs_to_land(shared: bool) -> None:
    """Its own task lands it; here it is neither landed nor called paid."""
    state = make_state([WANTED])
    note_image_task(state, REMOVED, bought_by("task"), shared=shared)
    assert left_over([WANTED, REMOVED], [], [WANTED], state.ledger, NOW) == ([] if shared else [REMOVED])
    records = abandoned_records(state)
    assert [record["paid_usd"] for record in records] == ([] if shared else [0.025])
