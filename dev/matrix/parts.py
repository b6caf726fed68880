"""Which tests a row of the matrix runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dev.matrix.environments import LOWEST, NEWEST_RELEASED, Environment

_QUICK: Final = "not campaign and not system and not browser"


@dataclass(frozen=True)
class Part:
    """One run of pytest.

    :param arguments: What pytest is given.
    """

    name: str
    arguments: tuple[str, ...]


TESTS: Final = Part("unit, integration", ("-m", f"airflow and {_QUICK}", "tests"))
#: Only what names something of Airflow itself.
FAST: Final = Part("unit, integration (fast)", ("-m", f"airflow_api and {_QUICK}", "tests"))
#: What depends on Python, httpx, pydantic and Pillow alone; run as if there were no Airflow.
WITHOUT_AIRFLOW: Final = Part(
    "without Airflow", ("-p", "tests.support.no_airflow", "-m", f"not airflow and {_QUICK}", "tests/unit")
)
#: The pipeline with Airflow's real processes, one of which is killed, and by ``dag.test()``; what the pages show.
SYSTEM: Final = Part(
    "processes, dag.test()",
    ("tests/system/test_stack.py", "tests/system/test_pipeline.py", "tests/system/test_snippets.py"),
)
EVERYTHING: Final = (
    Part("unit, integration", ("-m", "not system and not browser", "tests")),
    Part("system", ("-m", "system and not browser", "tests/system")),
)


def parts_of(environment: Environment, *, fast: bool = False, full: bool = False) -> tuple[Part, ...]:
    """Return what is run on a row, in this order."""
    if full:
        return EVERYTHING
    if fast:
        return (FAST,)
    pure = (WITHOUT_AIRFLOW,) if environment.airflow in (NEWEST_RELEASED, LOWEST) else ()
    if not environment.is_main or environment.airflow == LOWEST:
        return (FAST, *pure)
    return (TESTS, *pure, SYSTEM)
