"""``make test``: several runs of pytest, one exit code and one sum."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dev.run_tests import OTHERS, PAGES, SYSTEM, Ended, Part, exit_code, main, summary

REPO = Path(__file__).parents[2]
BATCH = "tests/integration/batch"


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([1, 0], 1),
        ([0, 1], 1),
        ([0, 2], 2),
        ([5, 0], 0),
        ([0, 5], 0),
        ([5, 1], 1),
        ([5, 5], 5),
        ([-9, 0], -9),
        ([0, 0, 1], 1),
        ([0, 5, 0], 0),
    ],
)
def test_one_part_that_is_not_green_is_enough_and_one_without_tests_is_no_fault(codes: list[int], code: int) -> None:
    assert exit_code(codes) == code


def ended(last: str, code: int = 0, *, counts: bool = True) -> Ended:
    return Ended(Part("a part", (), counts=counts), code, f"....\nof 7 passed here\n{last}\n", 1.0, 1.0)


def test_the_sum_is_of_what_the_parts_say_last() -> None:
    parts = [
        ended("3 failed, 1792 passed, 2 skipped, 1 warning in 8.20s (0:00:08)", 1),
        ended("==== 45 passed, 12 deselected in 60.00s ===="),
        ended("wheel: 9 passed in 3s", counts=False),
        ended("12 deselected in 0.50s", 5),
    ]
    assert summary(parts) == "1837 passed, 24 deselected, 3 failed, 2 skipped, 1 warning; not green: a part"


def test_without_a_test_that_is_said() -> None:
    assert summary([ended("no tests ran in 0.01s", 5)]) == "no test"


def test_each_folder_of_tests_is_in_one_part() -> None:
    ignored = {
        word.removeprefix("--ignore=") for part in OTHERS for word in part.command if word.startswith("--ignore=")
    }
    chosen = [word for part in OTHERS for word in part.command if word.startswith("tests")]
    files = [word for word in chosen if word.endswith(".py")]
    assert sorted(files) == sorted(str(path.relative_to(REPO)) for path in (REPO / BATCH).glob("test_*.py"))
    folders = [*(word for word in chosen if word not in files), BATCH]
    assert sorted({*ignored, "tests"}) == sorted(folders), "what the last part leaves out is in another one"
    assert all((REPO / path).is_dir() for path in folders)


def test_what_has_a_browser_and_no_airflow_runs_beside_them() -> None:
    files = [word for word in PAGES.command if word.startswith("tests")]
    assert [word.removeprefix("--ignore=") for word in SYSTEM[1].command if word.startswith("--ignore=")] == files
    started = re.compile(r"def test_\w+\([^)]*\b(?:stack|system|site|below_af|fab)\b")
    started_by = {
        str(path.relative_to(REPO))
        for path in (REPO / "tests" / "browser").glob("test_*.py")
        if started.search(path.read_text())
    }
    assert started_by and not started_by & set(files)


@pytest.mark.parametrize("failing", [False, True])
def test_all_parts_run_and_what_they_print_is_shown(
    failing: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def part(name: str, code: int, *, urgent: bool) -> Part:
        said = "os.environ['AIRFLOW_HOME'], sys.argv[1:], '1 passed in 1s', sep='\\n'"
        program = f"import sys, os; print({said}); exit({code})"
        return Part(name, (sys.executable, "-c", program), urgent)

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("dev.run_tests.PAGES", part("pages", 0, urgent=False))
    monkeypatch.setattr("dev.run_tests.SYSTEM", tuple(part(f"s{n}", 0, urgent=True) for n in range(2)))
    monkeypatch.setattr(
        "dev.run_tests.OTHERS", tuple(part(f"o {n}", 3 * (failing and n == 1), urgent=False) for n in range(3))
    )
    assert main(["-k", "word"]) == (3 if failing else 0)
    output = capfd.readouterr().out
    assert output.count("['-k', 'word']") == 6
    assert output.count(f"{tmp_path / 'home'}-") == 6
    assert f"6 passed{'; not green: o 1' if failing else ''} in 0." in output.splitlines()[-1]


def test_a_part_that_is_urgent_keeps_its_priority() -> None:
    assert all(part.urgent for part in SYSTEM)
    assert not any(part.urgent for part in (PAGES, *OTHERS))
