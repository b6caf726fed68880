"""Where rows are: a text that names a file of them buys no picture of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_nanobanana.batch import row_files
from airflow_provider_nanobanana.batch.row_locations import ROW_SUFFIXES, check_prompt, names_path, names_row_file
from airflow_provider_nanobanana.toapis.errors import InvalidRequest


def test_what_is_named_is_what_can_be_read() -> None:
    assert tuple(row_files._READERS) == ROW_SUFFIXES


@pytest.mark.parametrize("text", ["s3://bucket/rows.csv", "rows.csv", "/data/rows.jsonl", "data/rows.xlsx"])
def test_where_rows_are_is_no_prompt(text: str) -> None:
    with pytest.raises(InvalidRequest, match="file of rows"):
        check_prompt(text)
    check_prompt(f"the word {text} on a sign")


@pytest.mark.parametrize(
    ("text", "names", "bare"),
    [
        ("a kite", False, False),
        ("s3://conn@bucket/rows.csv", True, True),
        ("s3://bucket/rows.CSV?versionId=1", True, True),
        ("/data/my rows.parquet", True, True),
        (" /data/rows.jsonl\n", True, True),
        ("rows.csv", True, True),
        ("data/rows.parquet", True, True),
        ("my rows.csv", False, True),
        ("\u6807\u724c\u4e0a\u5199\u7740data.csv", False, True),
        ("draw s3://bucket/rows.csv", False, True),
        ("s3://bucket/rows.csv\nas a picture", False, False),
        ("s3://bucket/picture.png", False, False),
        ("", False, False),
    ],
)
def test_a_location_is_told_from_a_prompt(text: str, names: bool, bare: bool) -> None:
    assert (names_row_file(text), names_row_file(text, bare=True)) == (names, bare)


@pytest.mark.parametrize("suffix", ["xlsx", "csv.gz", "tsv", "json", "feather"])
def test_a_table_in_another_format_is_no_prompt(suffix: str) -> None:
    with pytest.raises(InvalidRequest, match="no file of rows that can be read"):
        names_row_file(f"s3://bucket/rows.{suffix}")


def test_a_path_object_is_told_from_a_text(tmp_path: Path) -> None:
    assert names_path(tmp_path) and not names_path(str(tmp_path)) and not names_path(b"/tmp") and not names_path(["a"])
