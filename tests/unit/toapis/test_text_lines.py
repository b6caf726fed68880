"""Lines short enough for a log pane: nothing is lost, nothing is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.text_lines import LINE_WIDTH, fold

URI = "s3://bucket/" + "n" * 200


def test_a_short_text_stays_as_it_is() -> None:
    assert fold("Two  words.\n\n  A table\tof them.") == "Two  words.\n\n  A table\tof them."


def test_a_sentence_that_does_not_fit_begins_a_line() -> None:
    assert fold("One two three. Four five. Six seven.", width=26) == "One two three. Four five.\nSix seven."


def test_a_sentence_longer_than_a_line_is_broken_between_words() -> None:
    assert fold("One. Two three four five six", width=12, indent="  ") == "One. Two\n  three four\n  five six"
    assert fold("    One two three", width=12, indent="  ") == "    One two\n  three"


def test_a_word_longer_than_a_line_stays_whole() -> None:
    assert fold(f"It is listed in {URI}. Then more.") == f"It is listed in\n{URI}.\nThen more."


def test_the_first_line_may_have_less_room() -> None:
    assert fold("One two three. Four.", width=30, first=15) == "One two three.\nFour."
    assert fold("One two\nthree four five", width=30, first=7) == "One two\nthree four five"


@given(st.lists(st.text("ab. A", min_size=1, max_size=130), min_size=1, max_size=8), st.sampled_from([None, 40]))
def test_no_line_is_too_long_and_no_word_is_lost(parts: list[str], first: int | None) -> None:
    text = "\n".join(parts)
    folded = fold(text, first=first, indent="  ")
    assert folded.split() == text.split()
    for number, line in enumerate(folded.split("\n")):
        room = first if first is not None and number == 0 else LINE_WIDTH
        assert len(line) <= room or " " not in line.strip()
