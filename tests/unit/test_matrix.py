"""``make matrix``: which rows there are, what each runs, and what its table says of skips that nobody wrote down."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dev.constraints import known_versions
from dev.matrix import results
from dev.matrix.__main__ import main
from dev.matrix.environments import ENVIRONMENTS, LOWEST, Environment, chosen, find_python
from dev.matrix.parts import EVERYTHING, FAST, SYSTEM, TESTS, WITHOUT_AIRFLOW, parts_of
from dev.matrix.results import Result, read_junit, table, unknown_skips, write_skips

REPO = Path(__file__).resolve().parents[2]
REASON = "Airflow 3.3 and newer: a task state store"
JUNIT = f"""<testsuites><testsuite>
<testcase name="a"/>
<testcase name="b"><failure message="no"/></testcase>
<testcase name="c"><error message="no"/></testcase>
<testcase name="d"><skipped message="{REASON}"/></testcase>
<testcase name="e"><skipped message="collection skipped">('/x/test_e.py', 3, 'Skipped: {REASON}')</skipped></testcase>
<testcase name="f"><skipped message="root may list everything"/></testcase>
</testsuite></testsuites>"""


def test_each_version_with_pins_has_one_main_row() -> None:
    assert sorted(row.airflow for row in ENVIRONMENTS if row.is_main) == sorted([*known_versions(), LOWEST])


def test_the_pythons_are_those_the_project_declares() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    named = {name.rpartition(" ")[2] for name in project["classifiers"] if "Python :: 3." in name}
    assert {row.python for row in ENVIRONMENTS} == named


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (Environment("3.0.6", "3.11"), (TESTS, SYSTEM)),
        (Environment("3.0.6", "3.12", is_main=False), (FAST,)),
        (Environment("3.3.2", "3.13", is_main=False), (FAST, WITHOUT_AIRFLOW)),
        (Environment(LOWEST, "3.11"), (FAST, WITHOUT_AIRFLOW)),
    ],
)
def test_a_further_python_and_the_lower_bounds_run_less(row: Environment, parts: tuple[Any, ...]) -> None:
    assert parts_of(row) == parts
    assert parts_of(row, fast=True) == (FAST,)
    assert parts_of(row, full=True) == EVERYTHING


def test_an_interpreter_that_is_missing_skips_its_row() -> None:
    assert find_python("no-such-python", "2.7") is None
    assert [found for _, found in chosen("3.1.8", "no-such-python")] == [None]


def test_an_interpreter_that_is_named_must_be_there() -> None:
    """As in CI: a job whose only row is skipped would be green."""
    with pytest.raises(SystemExit) as ended:
        main(["--airflow", "3.1.8", "--python", "no-such-python"])
    assert ended.value.code == 2


def test_skips_are_counted_by_reason_also_of_a_module_that_is_skipped_whole(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    file.write_text(JUNIT)
    assert read_junit(file) == (1, 2, 3, {REASON: 2})


def test_skips_that_nobody_wrote_down_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KNOWN_SKIPS", tmp_path / "skips.json")
    one = Result("3.0.6", "3.11", "unit", passed=5, skipped=2, version_skips={REASON: 2})
    assert unknown_skips(one) == "", "nothing is written down yet"
    write_skips([one])
    assert unknown_skips(one) == ""
    assert REASON in unknown_skips(dataclasses.replace(one, version_skips={REASON: 3}))
    assert REASON in unknown_skips(dataclasses.replace(one, version_skips={}))


def test_a_part_is_a_line_of_the_table() -> None:
    shown = table([Result("3.0.6", "3.11", "unit", passed=5, failed=1, skipped=2, seconds=90, verdict="RED")])
    assert shown.splitlines()[2] == "| 3.0.6 | 3.11 | unit | 5 | 1 | 2 | 1.5 | RED |"
