"""The link on each task instance of ours: also of mapped ones, and where no worker has run yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_nanobanana.ui.links import OPERATOR_NAMES, REVIEW_NAME, GalleryLink
from tests.support.versions import STORED_LINKS, needs


def link(operator: str, map_index: int = -1) -> str:
    task: Any = SimpleNamespace(task_type=operator)
    key: Any = SimpleNamespace(
        dag_id="shop", run_id="manual__2026-11-26T08:00:00+00:00", task_id="a", map_index=map_index
    )
    return GalleryLink().get_link(task, ti_key=key)


def test_a_task_with_pictures() -> None:
    page = "nanobanana/view/shop/manual__2026-11-26T08%3A00%3A00%2B00%3A00"
    assert link("NanoBananaGenerateOperator") == f"{page}?task_id=a&map_index=-1"
    assert link("_NanoBananaDecoratedOperator", 7) == f"{page}?task_id=a&map_index=7"
    # Its page is about its own question: of several reviews of a run each can be reached.
    assert link("NanoBananaReviewOperator", 7) == f"{page}?task_id=a&map_index=7"
    # Their pictures are those of another task of the run.
    assert link("NanoBananaSensor", 7) == link("NanoBananaSubmitOperator") == page


def test_all_operators_of_ours_have_it() -> None:
    classes = GalleryLink().operators
    assert {operator_class.__name__ for operator_class in classes} == {
        *("NanoBananaGenerateOperator", "NanoBananaDownloadOperator", "_NanoBananaDecoratedOperator"),
        *("NanoBananaSubmitOperator", "NanoBananaSensor", "NanoBananaReviewOperator"),
    }
    shown = {getattr(one, "custom_operator_name", None) or one.__name__ for one in classes}
    assert {*OPERATOR_NAMES, REVIEW_NAME} <= shown


@needs(STORED_LINKS)
@pytest.mark.parametrize("mapped", [False, True])
def test_airflow_offers_it_of_what_it_has_stored(mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import plugins_manager
    from airflow.sdk import DAG
    from airflow.serialization import serialized_objects as stored_form

    from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

    form: Any = vars(stored_form).get("DagSerialization") or vars(stored_form)["SerializedDAG"]
    monkeypatch.setattr(plugins_manager, "get_operator_extra_links", lambda: [GalleryLink()])
    with DAG("shop") as dag:
        if mapped:
            NanoBananaGenerateOperator.partial(task_id="a", destination="/x").expand(prompt=["a", "b"])
        else:
            NanoBananaGenerateOperator(task_id="a", destination="/x", prompt="a")
    stored = form.from_dict(form.to_dict(dag))
    assert "Gallery" in stored.task_dict["a"].operator_extra_link_dict or "Gallery" in stored.task_dict["a"].extra_links
