from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.landing.image_store import safe_name, stem_for

ids = st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9_.-]{1,60}", fullmatch=True)


@given(ids, st.integers(0, 9999))
def test_a_stem_is_safe_everywhere(image_task_id: str, index: int) -> None:
    stem = stem_for(image_task_id, index)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", stem)
    assert ".." not in stem
    assert len(stem) <= 72
    assert stem == stem_for(image_task_id, index)


@given(st.lists(st.tuples(ids, st.integers(0, 12)), min_size=2, max_size=20, unique=True))
def test_different_images_differ_even_where_case_is_ignored(images: list[tuple[str, int]]) -> None:
    names = [unicodedata.normalize("NFC", stem_for(*image)).casefold() for image in images]
    assert len(set(names)) == len(names)


@given(st.from_regex(r"[a-zA-Z0-9]{1,30}", fullmatch=True))
def test_case_alone_is_enough_to_differ(text: str) -> None:
    variants = {text, text.lower(), text.upper(), text.swapcase()}
    assert len({stem_for(one, 0).lower() for one in variants}) == len(variants)


def test_short_ids_stay_readable() -> None:
    assert stem_for("task_img_abc-1", 2) == "task_img_abc-1-2"
    assert re.fullmatch(r"tsk_img_01KXYZ\.[0-9a-f]{12}-0", stem_for("tsk_img_01KXYZ", 0))
    assert safe_name("scheduled__2026-01-01T00:00:00+00:00").startswith("scheduled__2026-01-01T00-00-00-00-00.")


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../../etc/passwd", "/", "a/b", "a\\b", "-rf", "\x00", "é", "\ud800", "a" * 500]
)
def test_hostile_ids(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.[0-9a-f]{12}-0", stem_for(text, 0))


def test_an_unchanged_id_never_meets_a_changed_one() -> None:
    changed = safe_name("A")
    assert safe_name(changed) != changed
