"""What is shown of requests is bounded and never what is sent; rows of the grid have names that Airflow can take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG
from jinja2.nativetypes import NativeEnvironment

from airflow_provider_nanobanana.batch.items import build_items
from airflow_provider_nanobanana.decorators.nanobanana import nanobanana_task
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.operators.shown_requests import row_name, row_name_of, shown_items, shown_requests

#: ``[core] max_templated_field_length``: above it Airflow shows one cut text.
AIRFLOW_CUTS: int = 4096
#: ``task_instance.rendered_map_index`` is a String(250).
LONGEST_MAP_INDEX: int = 250
TABLE = pytest.importorskip("pandas").DataFrame({"prompt": ["x" * 1000] * 5000})
MANY: list[Any] = [{"prompt": f"picture {number} " + "word " * 100, "name": f"n{number}"} for number in range(20_000)]


@pytest.mark.parametrize(
    "given",
    [None, "s3://bucket/rows.csv", [], ["a", "b"], [{"prompt": "a", "meta": {"sku": 1}}], {"prompt": "a"}],
)
def test_a_few_requests_are_shown_as_they_were_given(given: Any) -> None:
    assert shown_requests(given) == given


SIGNED = "https://bucket.s3.amazonaws.com/cup.png?X-Amz-Signature=SECRET"


@pytest.mark.parametrize("many", [1, 600])
def test_no_signature_of_a_link_is_shown(many: int) -> None:
    request = {"prompt": "a cup", "reference_images": [SIGNED], "meta": {"photo": SIGNED, "more": [SIGNED]}}
    for given in (request, [request] * many, tuple([request] * many), [SIGNED]):
        shown = str(shown_requests(given))
        assert "SECRET" not in shown and "cup.png" in shown
    assert "SECRET" in str(request), "what is sent is not changed"


@pytest.mark.parametrize(
    "given",
    [
        MANY,
        ["a"] * 20_000,
        [{"prompt": "x" * 100_000}],
        ["x" * 100_000],
        [{f"key{number}": "x" * 1000 for number in range(1000)}],
        {"prompt": "x" * 100_000},
        [object()] * 10_000,
        TABLE,
    ],
    ids=["mappings", "texts", "long mapping", "long text", "wide", "one", "objects", "table"],
)
def test_what_is_shown_is_bounded_whatever_was_given(given: Any) -> None:
    assert len(str(shown_requests(given))) <= AIRFLOW_CUTS


def test_of_many_the_first_are_shown_and_how_many_more_there_are() -> None:
    *first, more = shown_requests(MANY)
    assert first[0]["name"] == "n0" and first[0]["prompt"].startswith("picture 0 ")
    assert more == f"... and {20_000 - len(first):,} more"
    assert len(first) > 5


def test_what_can_be_read_only_once_is_not_touched() -> None:
    given = (text for text in ["a", "b"])
    assert shown_requests(given) is given
    assert list(given) == ["a", "b"]


def items(given: Any) -> Any:
    return build_items(given, defaults={}, default_model="nano_banana_2", digest_of=lambda uri: "0" * 64)


def test_what_was_read_is_shown_without_what_is_secret() -> None:
    link = "https://x/a.png?X-Amz-Signature=abc"
    shown = shown_items(items([{"prompt": "a kite", "name": "kite", "size": "16:9", "reference_images": [link]}]))
    assert shown == [
        {
            "name": "kite",
            "prompt": "a kite",
            "size": "16:9",
            "model": "nano_banana_2",
            "reference_images": "https://x/a.png",
        }
    ]
    assert len(str(shown_items(items([request["prompt"] for request in MANY[:5000]])))) <= AIRFLOW_CUTS


def rendered(operator: Any, **context: Any) -> dict[str, Any]:
    full = {"params": {}, "map_index_template": None, "ti": SimpleNamespace(map_index=0), **context}
    operator.render_template_fields(full)
    return full


def generate(native: bool = False, **options: Any) -> NanoBananaGenerateOperator:
    with DAG("dag", schedule=None, render_template_as_native_obj=native):
        return NanoBananaGenerateOperator(task_id="x", destination="file:///tmp/x", **options)


def test_what_is_sent_is_all_of_it_whatever_is_shown() -> None:
    operator = generate(requests=MANY[:500])
    rendered(operator)
    assert len(operator.requests) < 100
    assert operator._all_requests() == MANY[:500]
    assert operator._plain_requests() == MANY[:500]


def test_what_somebody_sets_afterwards_is_what_is_sent() -> None:
    operator = generate(requests=MANY[:500])
    rendered(operator)
    operator.requests = ["another"]
    assert operator._all_requests() == ["another"]


@pytest.mark.parametrize("native", [True, False], ids=["native", "plain"])
@pytest.mark.parametrize(
    "text",
    ["a kite", "1984", "['a']", "None", "é 😀", "}} {{ x }} {% raw %}", "'\"\\", "two\nlines", "\ud800half", "x" * 900],
)
def test_a_row_is_called_by_its_prompt_whatever_that_is(text: str, native: bool) -> None:
    environment = NativeEnvironment() if native else jinja2.Environment()
    with DAG("dag", schedule=None, render_template_as_native_obj=native):
        submit = NanoBananaSubmitOperator(task_id="x", prompt=text)
    template = rendered(submit, **({"x": "y"} if "{{ x" in text else {}))["map_index_template"]
    called = environment.from_string(template).render({})
    assert isinstance(called, str)
    assert called == row_name(None, submit.prompt)
    assert 0 < len(called) <= LONGEST_MAP_INDEX
    called.encode()


def test_a_template_of_the_dag_stays() -> None:
    submit = NanoBananaSubmitOperator(task_id="x", prompt="a")
    assert rendered(submit, map_index_template="{{ task.size }}")["map_index_template"] == "{{ task.size }}"


def test_a_task_that_is_not_mapped_is_not_called_anything() -> None:
    submit = NanoBananaSubmitOperator(task_id="x", prompt="a")
    assert rendered(submit, ti=SimpleNamespace(map_index=-1))["map_index_template"] is None


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("a", "a"),
        (["a", "b", "c"], "a and 2 more"),
        ([{"prompt": "a", "name": "kite"}], "kite"),
        ([{"prompt": "a", "variant": "2"}], "a, 2"),
        ([None, "a"], None),
        ([], None),
        (5, None),
    ],
)
def test_several_requests_are_called_after_the_first(given: Any, called: str | None) -> None:
    assert row_name_of(given) == called


def test_a_row_is_called_by_name_before_prompt() -> None:
    submit = NanoBananaSubmitOperator(task_id="x", prompt="a", name="kite", variant="2")
    assert "kite, 2" in rendered(submit)["map_index_template"]


def test_a_row_is_called_after_what_is_made() -> None:
    """With a template over columns neither prompt nor requests say it before they are read."""
    operator = generate(prompt="{name}, {colour}", requests=[{"name": "cup", "meta": {"colour": "blue"}}])
    context: Any = rendered(operator)
    operator._show_what_was_read(context, items([{"prompt": "cup, blue", "name": "cup"}, "another"]))
    assert "cup and 1 more" in context["map_index_template"]


def test_a_table_is_shown_when_it_has_been_read_and_stays_what_is_made() -> None:
    operator = generate(requests=TABLE)
    context: Any = rendered(operator)
    assert operator._all_requests() is TABLE
    operator._show_what_was_read(context, items(["a kite", "a boat"]))
    assert [shown["prompt"] for shown in operator.requests] == ["a kite", "a boat"]
    assert operator._all_requests() is TABLE


def test_what_a_function_returned_is_shown_and_never_read_again() -> None:
    task: Any = nanobanana_task(task_id="x", destination="file:///tmp/x")(lambda: "a kite")()
    made = task.operator
    context: Any = rendered(made)
    made._show_what_was_read(context, items("a kite"))
    assert made.requests == [{"prompt": "a kite", "model": "nano_banana_2"}]
    assert made._plain_requests() is None
    assert made._read_requests({}) == "a kite"
    assert "requests" in made.template_fields and made.overwrite_rtif_after_execution
