from __future__ import annotations

import pytest

from airflow_provider_nanobanana.batch.items import BatchItem, build_items
from airflow_provider_nanobanana.batch.versions import redo_keys
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

ITEMS = build_items(
    [{"prompt": "a cup", "name": "cup"}, "a kite", {"prompt": "a boat", "name": "3"}, "a tree"],
    defaults={},
    default_model="nano_banana_2",
    digest_of=lambda uri: uri,
)


def chosen(*entries: str) -> list[int]:
    keys = redo_keys(entries, ITEMS)
    return [item.index for item in ITEMS if item.key in keys]


@pytest.mark.parametrize(("entry", "index"), [("cup", 0), (" cup ", 0), ("1", 1), ("3", 2), ("0", 0)])
def test_by_name_or_position_and_a_name_comes_first(entry: str, index: int) -> None:
    assert chosen(entry) == [index]


@pytest.mark.parametrize("form", ["{}", "{}.png", "{}-v2.jpg", "{}-v17.webp", "s3://c@b/a b/{}-v3.png", "/x/{}.PNG"])
def test_by_any_version_of_the_file(form: str) -> None:
    for item in ITEMS:
        assert chosen(form.format(item.base_stem)) == [item.index]


@pytest.mark.parametrize("entry", ["4", "-1", "01", "Cup", "cup.png", "cup-v2", "tree", "s3://bucket/", "٣"])
def test_what_is_none_of_them_is_refused_with_what_is_allowed(entry: str) -> None:
    with pytest.raises(InvalidRequest, match="'cup', '3'") as refused:
        chosen("cup", entry)
    assert refused.value.charged == "no" and "from 0 to 3" in refused.value.message


def test_each_variant_of_a_row_is_meant() -> None:
    twins = [BatchItem(0, item.request, "cup", 0, f"{number}" * 64) for number, item in enumerate(ITEMS[:2])]
    assert len(redo_keys(["cup"], twins)) == len(redo_keys(["0"], twins)) == 2
