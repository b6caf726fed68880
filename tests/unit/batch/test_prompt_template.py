"""Templates: a placeholder is a brace, a column's exact name, a brace, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch.prompt_template import PromptTemplate


def filled(text: str, **cells: str) -> str:
    template = PromptTemplate(text)
    assert template.unknown(cells) == []
    return template.fill(cells, cells)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("{name}, {colour}", "cup, red"),
        ("{name}{name}", "cupcup"),
        ("no placeholder", "no placeholder"),
        ('{"scene": {"a": [1, 2]}, "of": "{name}"}', '{"scene": {"a": [1, 2]}, "of": "cup"}'),
        ("{name:>10} {name!r} {name.x} {name[0]} { name } {}", "{name:>10} {name!r} {name.x} {name[0]} { name } {}"),
        ("{0} {1,2} {a-b} { } {{ }}", "{0} {1,2} {a-b} { } {{ }}"),
        ("${name} %(name)s {name", "$cup %(name)s {name"),
        ("{{name}}", "{cup}"),
        ("{Name", "{Name"),
    ],
)
def test_every_other_brace_is_literal(text: str, prompt: str) -> None:
    assert filled(text, name="cup", colour="red") == prompt


def test_a_column_may_be_called_anything() -> None:
    cells = {
        "a b": "1",
        "{x}": "2",
        "x": "3",
        "x}y": "4",
        "Größe (cm)": "5",
        "a.b": "6",
        "": "7",
        "a|b": "8",
        "\\d": "9",
    }
    text = "{a b}|{{x}}|{x}|{x}y}|{Größe (cm)}|{a.b}|{}|{a|b}|{\\d}"
    assert PromptTemplate(text).fill(cells, cells) == "1|2|3|4|5|6|{}|8|9"
    assert PromptTemplate(text).placeholders(cells) == ["a b", "{x}", "x", "x}y", "Größe (cm)", "a.b", "a|b", "\\d"]


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("{nam} {name} {nam} {colour_}", ["nam", "colour_"]),
        ("{größe} {gro\u0308ße}", ["größe", "gro\u0308ße"]),
        ("{Name}", ["Name"]),
        ("{{price}}", ["price"]),
        ("{a b} {1a} {a-b} {} {name}", []),
    ],
)
def test_an_identifier_that_is_no_column_is_unknown(text: str, unknown: list[str]) -> None:
    assert PromptTemplate(text).unknown(["name"]) == unknown


def test_what_looks_like_a_format_is_doubtful() -> None:
    text = "{price:.2f} {price} { price } {price!r} {other:>3} {price.x} {price and more}"
    assert PromptTemplate(text).doubtful(["price"]) == ["{price:.2f}", "{ price }", "{price!r}", "{price.x}"]
    assert PromptTemplate("{a}").doubtful([]) == []


@given(st.text(), st.text())
def test_values_are_not_expanded_again(one: str, other: str) -> None:
    cells = {"a": f"{{b}}{one}", "b": other}
    assert PromptTemplate("{a}|{b}").fill(cells, cells) == f"{{b}}{one}|{other}"


@given(st.text(), st.lists(st.text(min_size=1), max_size=4))
def test_any_template_over_any_columns_has_an_answer(text: str, columns: list[str]) -> None:
    template = PromptTemplate(text)
    template.doubtful(columns)
    used = template.placeholders(columns)
    assert set(used) <= set(columns)
    if not used:
        assert template.fill({}, columns) == text
