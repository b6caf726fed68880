"""The unit tests mirror the package: whoever looks for the tests of a module finds them under its name."""

from __future__ import annotations

from pathlib import Path

import airflow_provider_nanobanana

HERE = Path(__file__).parent
PACKAGE = Path(airflow_provider_nanobanana.__file__).parent
#: What a second file of one module may hold: tests that search instead of telling cases.
SEARCHES = ("_fuzz", "_stateful")


def test_every_file_of_unit_tests_below_a_folder_names_a_module() -> None:
    files = [path.relative_to(HERE) for path in HERE.glob("*/**/test_*.py")]
    assert files
    lost = []
    for file in files:
        module = file.stem.removeprefix("test_")
        for search in SEARCHES:
            module = module.removesuffix(search)
        if not (PACKAGE / file.parent / f"{module}.py").exists():
            lost.append(str(file))
    assert lost == []
