from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from airflow_provider_nanobanana.batch.items import BatchItem, SkippedRow, build_items
from airflow_provider_nanobanana.batch.versions import VersionChoice, redo_keys
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.landing.versions import VersionFolder
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


@pytest.mark.parametrize(
    "form",
    [
        *("{}", "{}.png", "{}-v2.jpg", "{}-v17.webp", "s3://c@b/a b/{}-v3.png", "/x/{}.PNG"),
        *("file:///x/{}.1.png", "{}-v2.12.webp"),
    ],
)
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


VARIANTS = build_items(
    [{"prompt": "a cup", "name": "cup"}, "a kite"],
    defaults={"variant": "2026-11-26"},
    default_model="nano_banana_2",
    digest_of=lambda uri: uri,
    variants=2,
)


@pytest.mark.parametrize("item", VARIANTS)
def test_one_variant_by_what_the_log_calls_it(item: BatchItem) -> None:
    assert redo_keys([item.label], VARIANTS) == {item.key}


def test_what_is_allowed_is_listed_once_and_can_be_taken() -> None:
    with pytest.raises(InvalidRequest) as refused:
        redo_keys(["cup/3"], VARIANTS)
    assert "names such as 'cup/2026-11-26.1', 'cup/2026-11-26.2', a position" in refused.value.message


@pytest.mark.parametrize("entry", ["jug", "7"])
def test_a_row_that_was_skipped_is_said_to_be(entry: str) -> None:
    with pytest.raises(InvalidRequest, match=r"Row #7 'jug' was skipped: the prompt is empty\. Nothing"):
        redo_keys(["cup", entry], ITEMS, [SkippedRow(7, "jug", "the prompt is empty"), SkippedRow(8, None, "no")])


def test_a_race_that_was_lost_is_not_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both saw the number free, and where creates exclude nobody the second one writes over the first."""
    monkeypatch.setattr(LocalStorage, "missing_exclusivity", lambda self: "no hard links")
    store = ImageStore(str(tmp_path))
    item = ITEMS[0]
    (tmp_path / f"{item.base_stem}.png").touch()
    other = VersionFolder(store.reserved)
    taken = VersionFolder.take

    def late(self: VersionFolder, base: str, number: int, run: Sequence[str], now: float) -> bool:
        won = taken(self, base, number, run, now)
        if number == 2:
            other._versions.delete(f"{base}-v2.json")
            taken(other, base, 2, ("dag", "other"), now)
        return won

    monkeypatch.setattr(VersionFolder, "take", late)
    [chosen_item] = VersionChoice(store, ("dag", "ours"), 0.0).choose([item], {item.key})
    assert chosen_item.version == 3
    assert VersionFolder(store.reserved).own(item.base_stem, [2, 3], ("dag", "ours")) == 3
    assert VersionFolder(store.reserved).own(item.base_stem, [2, 3], ("dag", "other")) == 2
