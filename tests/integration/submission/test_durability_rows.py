"""docs/durability.md and the tests speak of the same rows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
DOC = HERE.parents[2] / "docs" / "durability.md"


def test_every_row_has_one_test_and_every_test_a_row() -> None:
    rows = [int(number) for number in re.findall(r"^\| R(\d+) \|", DOC.read_text(), re.MULTILINE)]
    tests = [
        int(number)
        for path in HERE.glob("test_*.py")
        for number in re.findall(r"^def test_r(\d+)_", path.read_text(), re.MULTILINE)
    ]
    assert rows == sorted(rows)
    assert Counter(rows) == Counter(tests)
    assert max(Counter(rows).values()) == 1
