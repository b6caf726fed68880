"""Requests of rows: templates, variants, data of the user's own, and rows that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from airflow_provider_nanobanana.batch.items import BatchItem, SkippedRow, build_items
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from tests.support.batch import MODEL, items, no_storage


def take(given: Any, template: str | None = None, **how: Any) -> list[BatchItem]:
    return build_items(given, defaults={}, default_model=MODEL, digest_of=no_storage, **{"template": template, **how})


def prompts(given: Any, template: str | None = None, **how: Any) -> list[str]:
    return [item.request.prompt for item in take(given, template, **how)]


def refusal(given: Any, template: str | None = None, **how: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        take(given, template, **how)
    assert "othing was sent and nothing was charged" in caught.value.message
    return caught.value.message


# --- data of the user's own -----------------------------------------------------------------------------------------


def test_a_list_of_mappings_takes_meta_and_refuses_a_typo() -> None:
    (item,) = items([{"prompt": "a", "meta": {"price": 3}}])
    assert item.meta == {"price": 3} and item.key == items("a")[0].key
    assert "#0: 'price' is no field of a request; data of your own goes into 'meta'" in refusal(
        [{"prompt": "a", "price": 3}]
    )
    assert "is list, no mapping" in refusal([{"prompt": "a", "meta": [1]}])
    assert items([{"prompt": "a", "meta": float("nan")}])[0].meta is None


def test_a_table_refuses_what_is_there_twice() -> None:
    frame = pd.DataFrame({"prompt": ["a"], "sku": [1], "meta": ['{"sku": 2}']})
    assert "#0: cell 'meta' holds 'sku', which is a column, too" in refusal(frame)


def test_too_much_meta_is_a_fault_of_row_and_cell() -> None:
    message = refusal([{"prompt": "a", "name": "K", "meta": {"x": 1, "text": "y" * 3000}}])
    assert "#0 'K'" in message and "largest cell is 'text'" in message


def test_a_table_s_long_descriptions_are_left_out_of_meta_and_can_be_in_the_prompt() -> None:
    frame = pd.DataFrame({"name": ["K", "B"], "text": ["x " * 1300, "short"], "photo": [b"1", b"2"], "price": [1, 2]})
    notes: list[str] = []
    taken = take(frame, "{text}, studio", on_note=notes.append)
    assert [item.meta for item in taken] == [{"price": 1}, {"text": "short", "price": 2}]
    assert len(taken[0].request.prompt) == 2608
    (note,) = notes
    assert note.endswith("at most 2,048 bytes a row: photo (of 2 rows), text (of 1 rows)")


# --- templates ------------------------------------------------------------------------------------------------------


def test_a_template_is_filled_from_each_row() -> None:
    frame = pd.DataFrame({"name": ["K", "B"], "a b": ["red", "{name}"], "n": [5.0, None]})
    assert prompts(frame, '{name}, {a b}, {"k": {}}') == ['K, red, {"k": {}}', 'B, {name}, {"k": {}}']
    assert [item.meta for item in take(frame, "{name}")] == [{"a b": "red", "n": 5.0}, {"a b": "{name}"}]


def test_a_prompt_of_its_own_replaces_the_template_unless_it_is_in_it() -> None:
    rows = [{"prompt": "own", "name": "K"}, {"name": "B"}, {"prompt": " ", "name": "C"}]
    assert prompts(rows, "a {name}") == ["own", "a B", "a C"]
    assert prompts(["mug", "lamp"], "{prompt}, on a table") == ["mug, on a table", "lamp, on a table"]
    assert prompts([{"size": "16:9"}, {"size": "1:1"}], "one for all") == ["one for all", "one for all"]


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"name": ["K"], "colour": ["red"]}),
        [{"name": "K"}, {"meta": {"colour": "red"}}],
        ["a kite"],
    ],
)
def test_an_identifier_that_is_no_column_of_any_row_refuses_all(given: Any) -> None:
    message = refusal(given, "{price} of {nam}", on_skipped=lambda row: None)
    assert message.startswith("prompt is a template over the columns of the requests, and {price}, {nam} are none")


def test_a_column_that_some_rows_lack_is_a_fault_of_those() -> None:
    rows = [{"name": "K"}, {"name": "B", "meta": {"colour": "red"}}]
    message = refusal(rows, "{name} {colour}")
    assert message.startswith("1 of 2") and "#0 'K': has no 'colour', which the template of the prompt needs" in message
    skipped: list[SkippedRow] = []
    assert prompts(rows, "{name} {colour}", on_skipped=skipped.append) == ["B red"] and skipped[0].name == "K"


def test_a_blank_cell_that_the_template_needs_is_a_fault_of_row_and_cell() -> None:
    frame = pd.DataFrame({"name": ["K", "B"], "colour": ["red", None]})
    assert "#1 'B': cell 'colour' is blank" in refusal(frame, "{name} {colour}")


def test_a_name_that_stands_for_two_values_is_not_guessed() -> None:
    rows = [{"name": "SKU-7", "meta": {"name": "Espresso cup"}}]
    assert "'name', which the template of the prompt needs, is a field and something else in meta" in refusal(
        rows, "{name} on a table"
    )
    assert prompts(rows, "a cup") == ["a cup"]


@pytest.mark.parametrize(
    "given",
    [
        ["a kite", "a boat"],
        [{"prompt": "a kite"}],
        pd.DataFrame({"prompt": ["a kite", "a boat"]}),
        "a kite",
    ],
)
def test_a_template_that_no_row_would_use_is_refused(given: Any) -> None:
    """Whoever wrote it would pay for pictures without it."""
    message = refusal(given, "studio light", on_skipped=lambda row: None)
    assert "nothing of it would be used" in message and '"{prompt}, studio light"' in message
    assert prompts(given, "{prompt}, studio light")[0] == "a kite, studio light"
    # A blank one is none.
    assert prompts(given, " ")[0] == "a kite"


@pytest.mark.parametrize("text", ["rows.csv", "s3://bucket/rows.parquet", "https://host/rows.jsonl"])
def test_a_file_among_prompts_is_the_fault_of_its_entry(text: str) -> None:
    assert "is a file of rows and no prompt" in refusal(["a kite", text]) and "#1" in refusal(["a kite", text])


def test_rows_that_replace_the_template_are_counted_for_the_log() -> None:
    notes: list[str] = []
    rows = [{"prompt": "own"}, {"name": "B"}, {"name": "C"}]
    assert prompts(rows, "a {name}", on_skipped=lambda row: None, on_note=notes.append) == ["own", "a B", "a C"]
    (note,) = notes
    assert "replaces the template: 1 of 3" in note
    notes.clear()
    take(["a"], "{prompt}!", on_note=notes.append)
    take(rows, None, on_skipped=lambda row: None, on_note=notes.append)
    assert notes == []


# --- columns of a shop ----------------------------------------------------------------------------------------------


def test_the_name_of_a_product_becomes_the_name_of_a_file() -> None:
    frame = pd.DataFrame({"name": ["Espresso cup", "Café crème", "MUG-1"], "colour": ["red", "blue", "green"]})
    notes: list[str] = []
    taken = take(frame, "{name}, {colour}", on_note=notes.append)
    assert [item.name for item in taken] == ["Espresso-cup", "Cafe-creme", "MUG-1"]
    assert [item.request.prompt for item in taken] == ["Espresso cup, red", "Café crème, blue", "MUG-1, green"]
    assert [item.meta for item in taken] == [
        {"name": "Espresso cup", "colour": "red"},
        {"name": "Café crème", "colour": "blue"},
        {"colour": "green"},
    ]
    assert notes == ["Rows whose name cannot name a file: 2; it was made one, and 'name' of their meta is what it was"]
    # A list of mappings stays strict.
    assert "cannot name a file" in refusal([{"name": "Espresso cup", "prompt": "a"}])


def test_a_name_of_which_nothing_is_left_says_the_way_out() -> None:
    message = refusal(pd.DataFrame({"name": ["茶杯"], "sku": ["7"]}), "{name}")
    assert "name '茶杯' cannot name a file" in message and "make another column 'name', such as the SKU" in message


def test_two_names_that_become_the_same_are_one_too_many() -> None:
    message = refusal(pd.DataFrame({"name": ["Espresso cup", "espresso, cup"]}), "{name}")
    assert "#1 'espresso-cup': its name is also that of #0 'Espresso-cup'" in message and "such as the SKU" in message


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"size": "XL"}, "column 'size' is a field of a request; rename it"),
        ({"model": "Air Max 90"}, "column 'model' is a field of a request; rename it"),
        ({"model": "Air Max 90", "size": 42}, "columns 'model' and 'size' are fields of a request; rename them"),
        ({"resolution": "300 dpi"}, "'product_resolution': resolution '300 dpi' is not offered"),
        ({"size": ["a", "b"]}, "column 'size' is a field"),
    ],
)
def test_a_column_that_is_a_field_by_chance_is_told_how_to_be_data(columns: dict[str, Any], words: str) -> None:
    assert words in refusal(pd.DataFrame([{"name": "K", **columns}]), "{name}")
    strict = refusal([{"prompt": "a", **columns}])
    assert "rename" not in strict


def test_the_fault_of_another_is_not_put_on_a_column() -> None:
    frame = pd.DataFrame([{"name": "K", "model": MODEL, "resolution": "2K"}])
    with pytest.raises(InvalidRequest) as caught:
        build_items(frame, defaults={"size": "7:3"}, default_model=MODEL, digest_of=no_storage, template="{name}")
    assert "size '7:3' is no ratio" in caught.value.message and "rename" not in caught.value.message
    for fields in ({"model": "gpt-image-2", "size": "3:2"}, {"model": "doubao-seedream-4-5", "resolution": "2K"}):
        assert "rename" not in refusal(pd.DataFrame([{"name": "K", "prompt": " ", **fields}]))


def test_fields_that_are_meant_are_not_told_to_be_data() -> None:
    message = refusal(pd.DataFrame([{"prompt": " ", "size": "16:9", "model": MODEL}]))
    assert "rename" not in message and "prompt is blank" in message


# --- variants -------------------------------------------------------------------------------------------------------


def test_each_row_becomes_so_many_variants() -> None:
    taken = take([{"prompt": "a", "name": "K", "variant": "day", "meta": {"p": 1}}, "b", "b"], variants=3)
    assert [(item.index, item.name, item.request.variant, item.meta) for item in taken] == [
        *((0, "K", f"day.{number}", {"p": 1}) for number in (1, 2, 3)),
        *((index, None, str(number), None) for index in (1, 2) for number in (1, 2, 3)),
    ]
    assert len({item.key for item in taken}) == 9
    assert [item.request.variant for item in take(["a"], variants=1)] == [""]


def test_variants_count_against_the_most_images_of_a_task() -> None:
    assert len(take(["a kite"] * 200, variants=100)) == 20_000
    assert "201 requests with variants=100 are more than 20,000 images" in refusal(["a kite"] * 201, variants=100)


# --- rows that are left out -----------------------------------------------------------------------------------------


def test_rows_with_faults_are_left_out_and_told() -> None:
    rows: list[Mapping[str, Any] | str | None] = [
        "fine",
        {"prompt": "", "name": "K"},
        {"prompt": "b", "size": "7:3"},
        None,
        {"prompt": "c", "name": "C"},
        {"prompt": "d", "name": "c"},
    ]
    skipped: list[SkippedRow] = []
    taken = take(rows, on_skipped=skipped.append, variants=2)
    assert [item.index for item in taken] == [0, 0, 4, 4]
    assert [(row.index, row.name) for row in skipped] == [(1, "K"), (2, None), (3, None), (5, "c")]
    assert "size '7:3' is no ratio" in skipped[1].message and "its name is also that of #4 'C'" in skipped[3].message
    assert all(len(row.message) <= 300 for row in skipped)


def test_a_reference_that_cannot_be_read_skips_all_variants_of_its_row() -> None:
    def unreadable(uri: str) -> str:
        raise InvalidRequest(f"{uri} cannot be read")

    skipped: list[SkippedRow] = []
    taken = build_items(
        [{"prompt": "a", "reference_images": ["s3://b/gone.png"]}, "b"],
        defaults={},
        default_model=MODEL,
        digest_of=unreadable,
        variants=2,
        on_skipped=skipped.append,
    )
    assert [item.index for item in taken] == [1, 1] and [row.index for row in skipped] == [0]


def test_where_no_row_is_left_all_are_refused() -> None:
    assert refusal(["", None], on_skipped=lambda row: None).startswith("2 of 2 requests")
