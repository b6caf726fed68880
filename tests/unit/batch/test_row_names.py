"""Names of rows: what a shop calls its products becomes a name that any file system takes, or is refused with why."""

from __future__ import annotations

import pytest

from airflow_provider_nanobanana.batch.row_names import MAX_NAME, name_error, name_of_cell


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("Espresso cup", "Espresso-cup"),
        ("Café crème, 2 × 30 ml", "Cafe-creme-2-30-ml"),
        ("Große Schüssel (weiß)", "Grosse-Schussel-weiss"),
        ("Smørrebrød Łódź", "Smorrebrod-Lodz"),
        ("../../etc/passwd", "etc-passwd"),
        (" -St. Tropez- ", "St.-Tropez"),
        ("cup\nred\tand \x00 blue", "cup-red-and-blue"),
        ("茶杯 large", "large"),
        ("茶杯", ""),
        ("!!!", ""),
        ("\ud800", ""),
        ("a " * 100, "-".join("a" * 40)),
        ("é" * 100, "e" * MAX_NAME),
    ],
)
def test_a_cell_becomes_a_name(cell: str, name: str) -> None:
    assert name_of_cell(cell) == name
    assert name == "" or name_error(name) is None


@pytest.mark.parametrize("name", ["SKU-007", "a.b_c", "_", "x" * MAX_NAME, "A-", "7"])
def test_a_name_that_is_one_stays(name: str) -> None:
    assert name_of_cell(name) == name and name_error(name) is None


@pytest.mark.parametrize("name", ["Café.png", "0123456789abcdef-3"])
def test_a_cell_is_no_name_where_its_name_would_be_refused(name: str) -> None:
    assert name_error(name_of_cell(name)) is not None
