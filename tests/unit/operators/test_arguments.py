"""Arguments of operators, checked when a task runs."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_nanobanana.operators.arguments import parse_adopt, parse_meta, parse_redo
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

CHOSEN = {"airflow-1": "tsk_img_1"}


@pytest.mark.parametrize("given", [CHOSEN, '{"airflow-1": "tsk_img_1"}', ' {"airflow-1": "tsk_img_1"}\n'])
def test_an_image_task_is_chosen_by_a_mapping_or_by_what_a_template_renders_it_to(given: Any) -> None:
    assert parse_adopt(given) == CHOSEN


@pytest.mark.parametrize("given", [None, {}, "", "  ", "null", "{}"])
def test_a_run_that_names_none_chooses_none(given: Any) -> None:
    assert parse_adopt(given) == {}


@pytest.mark.parametrize(
    "given", ["{'airflow-1': 'tsk_img_1'}", "tsk_img_1", '["tsk_img_1"]', '{"a": 1}', {"a": None}, ["a"], 3, False]
)
def test_anything_else_is_refused_and_the_error_shows_how_a_template_says_it(given: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"\| tojson.*nothing was charged"):
        parse_adopt(given)


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (None, []),
        ("", []),
        (" ", []),
        ([], []),
        (float("nan"), []),
        ("[]", []),
        ("SKU-7", ["SKU-7"]),
        ('["SKU-7", 3]', ["SKU-7", "3"]),
        ("[not json", ["[not json"]),
        (7, ["7"]),
        (0, ["0"]),
        ([7, "SKU-7", 3.0], ["7", "SKU-7", "3"]),
        (("a", "b"), ["a", "b"]),
        ((name for name in "ab"), ["a", "b"]),
        ({"uri": "file:///x/a.png", "name": "a"}, ["file:///x/a.png"]),
        ([{"uri": "file:///x/a.png"}, "b"], ["file:///x/a.png", "b"]),
        ("[{'uri': 'file:///x/a.png', 'meta': None}]", ["file:///x/a.png"]),
        ('{"uri": "file:///x/a.png"}', ["file:///x/a.png"]),
        ("{name}", ["{name}"]),
    ],
)
def test_what_to_make_again(given: Any, parsed: list[str]) -> None:
    assert parse_redo(given) == parsed


@pytest.mark.parametrize(
    "given",
    [
        *({"a": 1}, [None], [["a"]], True, [True], 1.5, b"a", object(), "[null]", "[None]", "[[1]]"),
        *({}, [{}], {"uri": None}, [{"uri": ""}], [{"name": "a", "code": "refused"}], {"uri": ["a"]}, '{"a": 1}'),
    ],
)
def test_what_cannot_be_made_again(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="redo"):
        parse_redo(given)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("redo", "parsed"), [([], []), (None, []), (["SKU-007"], ["SKU-007"]), (["it's", 2], ["it's", "2"]), ("a", ["a"])]
)
def test_what_to_make_again_is_given_by_a_parameter_of_the_run(redo: Any, parsed: list[str], *, native: bool) -> None:
    with DAG("redo", schedule=None, render_template_as_native_obj=native) as dag:
        task = NanoBananaGenerateOperator(
            task_id="pictures", prompt="a kite", destination="file:///tmp/pictures", redo="{{ params.redo }}"
        )
    task.render_template_fields({"params": {"redo": redo}}, jinja_env=dag.get_template_env())
    assert parse_redo(task.redo) == parsed


def test_a_rows_own_data_is_plain_json_when_it_travels() -> None:
    assert parse_meta({"sku": "SKU-1", "day": date(2026, 11, 26)}) == {"sku": "SKU-1", "day": "2026-11-26"}
    assert parse_meta(None) is None


@pytest.mark.parametrize("given", ["text", ["a"], 5, {"a": object()}, {"a": "x" * 3000}, {1: "a"}])
def test_what_is_no_rows_own_data_is_refused_before_anything_is_sent(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="Nothing was sent and nothing was charged"):
        parse_meta(given)
