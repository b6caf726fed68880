"""Templates: one text stays one text, whatever native rendering would read it as."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task

from airflow_provider_nanobanana.decorators.nanobanana import nanobanana_task
from airflow_provider_nanobanana.operators.arguments import one_prompt, parse_usd
from airflow_provider_nanobanana.operators.base import RequestOperator
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

OPERATORS = {
    "submit": lambda **options: NanoBananaSubmitOperator(task_id="x", **{"prompt": "a kite", **options}),
    "generate": lambda **options: NanoBananaGenerateOperator(
        task_id="x", destination="file:///tmp/x", **{"prompt": "a kite", **options}
    ),
}
#: Texts that read as Python: a list, a tuple, numbers, a mapping, a text in quotes, nothing.
READABLE = ("['a', 'b']", "(1, 2)", "1984", "1_000", "007", "1.10", "1e5", "{'a': 1}", "'a kite'", "None", "True", "")


def rendered(operator: Any, **context: Any) -> Any:
    operator.render_template_fields({"params": {}, **context})
    return operator


@pytest.fixture(params=[True, False], ids=["native", "plain"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=OPERATORS)
def make(request: pytest.FixtureRequest, native: bool) -> Any:
    def made(**options: Any) -> Any:
        with DAG("dag", schedule=None, render_template_as_native_obj=native):
            return OPERATORS[request.param](**options)

    return made


@pytest.mark.parametrize("text", READABLE)
@pytest.mark.parametrize("template", ["{{ params.p }}", "{{ params['p'] }}", "{% if true %}{{ params.p }}{% endif %}"])
def test_a_text_out_of_a_template_is_that_text(make: Any, text: str, template: str) -> None:
    assert rendered(make(prompt=template, variant=template), params={"p": text}).prompt == text


@pytest.mark.parametrize("text", READABLE)
def test_a_text_without_a_template_is_that_text(make: Any, text: str) -> None:
    operator = rendered(make(prompt=text, variant=text, model=text, size=text))
    assert [operator.prompt, operator.variant, operator.model, operator.size] == [text] * 4


@pytest.mark.parametrize("number", [0, 12, 20261126])
def test_a_number_is_its_text(make: Any, number: int) -> None:
    """The README's ``variant="{{ ti.map_index }}"``."""
    operator = rendered(make(variant="{{ ti.map_index }}"), ti=SimpleNamespace(map_index=number))
    assert operator.variant == str(number)


def test_text_around_an_expression_is_one_text(make: Any) -> None:
    operator = rendered(make(prompt="{{ params.n }} and {{ params.n }}"), params={"n": 5})
    assert operator.prompt == "5 and 5"


def test_a_list_that_is_really_one_is_refused_as_a_prompt(make: Any, native: bool) -> None:
    operator = rendered(make(prompt="{{ params.p }}"), params={"p": ["a", "b"]})
    if not native:
        assert operator.prompt == "['a', 'b']"
        return
    with pytest.raises(InvalidRequest, match="prompt is one text, not list; for several pictures use requests"):
        one_prompt(operator.prompt)


def test_other_arguments_are_rendered_as_airflow_renders_them(native: bool) -> None:
    with DAG("dag", schedule=None, render_template_as_native_obj=native):
        operator: Any = OPERATORS["generate"](prompt=None, requests="{{ params.p }}", max_cost_usd="{{ params.usd }}")
    rendered(operator, params={"p": ["a", "b"], "usd": 1.5})
    assert operator.requests == (["a", "b"] if native else "['a', 'b']")
    assert parse_usd(operator.max_cost_usd) == 1.5


def test_what_is_not_defined_is_an_error(make: Any) -> None:
    with pytest.raises(jinja2.UndefinedError):
        rendered(make(prompt="{{ nowhere }}"))


def test_what_comes_through_xcom_is_no_template(make: Any) -> None:
    """Airflow names what it resolved by its id, also that of a mapped argument."""
    operator = make(prompt="{{ params.p }} %}")
    environment = operator.get_template_env()
    operator._do_render_template_fields(operator, ["prompt"], {}, environment, {id(operator.prompt)})
    assert operator.prompt == "{{ params.p }} %}"


SECRET = "mug {{ conn.shop.password }} {% raw %} {# x"


@pytest.mark.parametrize("mapped", ["output", "listed output"])
def test_what_expand_kwargs_brings_from_another_task_is_no_template(native: bool, mapped: str) -> None:
    """A supplier's text must neither be run as a template nor read a connection; what the DAG says beside it is one."""
    with DAG("dag", schedule=None, render_template_as_native_obj=native) as dag:

        @task
        def feed() -> list[dict[str, Any]]:
            return []

        given: Any = feed() if mapped == "output" else [feed()]
        NanoBananaSubmitOperator.partial(
            task_id="submit", variant="{{ params.p }}", reference_images=["{{ params.p }}"]
        ).expand_kwargs(given)
    brought = {"prompt": SECRET, "name": "1984", "meta": {"note": SECRET, "list": "['z']"}, "size": "{{ nowhere }}"}
    operator = render_mapped(dag, brought)
    assert (operator.prompt, operator.name, operator.size) == (SECRET, "1984", "{{ nowhere }}")
    assert operator.meta == brought["meta"]
    assert (operator.variant, operator.reference_images) == ("autumn", ["autumn"])
    with pytest.raises(jinja2.TemplateError):
        render_mapped(dag, {"prompt": "a kite"}, variant="{{ nowhere.at.all }}")


def test_what_expand_kwargs_is_given_in_the_dag_is_a_template() -> None:
    with DAG("dag", schedule=None) as dag:
        NanoBananaSubmitOperator.partial(task_id="submit").expand_kwargs([{"prompt": "a {{ params.p }} kite"}])
    assert render_mapped(dag, {"prompt": "a {{ params.p }} kite"}).prompt == "a autumn kite"


def render_mapped(dag: DAG, brought: dict[str, Any], **written: Any) -> Any:
    """Return the operator of the first mapped task instance, rendered as Airflow does it."""
    mapped: Any = dag.task_dict["submit"]
    mapped.partial_kwargs.update(written)
    operator = mapped.unmap(brought)
    context: Any = {"params": {"p": "autumn"}, "ti": SimpleNamespace(map_index=0)}
    environment = operator.get_template_env()
    # With the ids that Airflow gives: it takes what expand_kwargs brings for written in the DAG.
    operator._do_render_template_fields(operator, mapped.template_fields, context, environment, set())
    return operator


def test_the_decorator_renders_alike() -> None:
    with DAG("dag", schedule=None, render_template_as_native_obj=True):
        made: Any = nanobanana_task(task_id="x", destination="file:///tmp/x", variant="{{ params.p }}")(
            lambda: "a kite"
        )()
    assert isinstance(made.operator, RequestOperator)
    assert rendered(made.operator, params={"p": "20261126"}).variant == "20261126"


@pytest.mark.parametrize("value", [["a", "b"], ("a",), {"prompt": "a"}, {"a"}, True, 1.5, b"a", object()])
def test_only_one_text_is_a_prompt(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="prompt is one text") as refused:
        one_prompt(value)
    assert "Nothing was sent" in refused.value.message


@pytest.mark.parametrize(("value", "text"), [("a", "a"), ("", ""), (1984, "1984"), (None, None), (float("nan"), None)])
def test_a_prompt_may_be_a_number_or_missing(value: Any, text: str | None) -> None:
    assert one_prompt(value) == text


@pytest.mark.parametrize("text", ["", " ", "None", "none", "null", "undefined", "$5", "5 USD", "1,5", "[]"])
def test_a_limit_that_renders_to_no_number_is_an_error(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"max_cost_usd rendered to the text .* for no limit leave it out"):
        parse_usd(text)


FEED = [{"prompt": "mug {{ conn.shop.password }}", "variant": "{% raw %} {# x", "size": "16:9"}]


@pytest.mark.parametrize("make_of", [NanoBananaSubmitOperator, NanoBananaGenerateOperator])
@pytest.mark.parametrize("from_a_task", [True, False])
def test_what_expand_kwargs_takes_from_a_task_is_no_template(
    monkeypatch: pytest.MonkeyPatch, native: bool, make_of: Any, from_a_task: bool
) -> None:
    fixed = {"destination": "file:///tmp/{{ 'x' }}"} if make_of is NanoBananaGenerateOperator else {}
    with DAG("dag", schedule=None, render_template_as_native_obj=native) as dag:
        feed = PythonOperator(task_id="feed", python_callable=lambda: FEED)
        rows: Any = feed.output if from_a_task else FEED
        task: Any = make_of.partial(task_id="make", model="{{ 'm' }}", **fixed).expand_kwargs(rows)
    monkeypatch.setattr(type(task.expand_input), "resolve", lambda self, context: (FEED[0], set()))
    context: Any = {
        "ti": SimpleNamespace(map_index=0, task=task),
        "task": task,
        "dag": dag,
        "dag_run": SimpleNamespace(conf={}),
    }
    if not from_a_task:
        with pytest.raises(jinja2.TemplateError):
            task.render_template_fields(context)
        return
    task.render_template_fields(context)
    made = context["task"]
    assert (made.prompt, made.variant, made.model) == (FEED[0]["prompt"], FEED[0]["variant"], "m")
    assert not fixed or made.destination == "file:///tmp/x"
