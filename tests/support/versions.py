"""Which Airflow runs the tests, and what it lacks of a newer one: a test that needs that is skipped, with its reason.

Every skip that depends on the version comes from here; ``make matrix`` counts them by reason, for each version, and
compares the numbers with ``tests/support/version_skips.json``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final, NamedTuple

import pytest

#: Major and minor version of the Airflow that runs.
AIRFLOW: Final = tuple(int(part) for part in version("apache-airflow").split(".")[:2])


class Feature(NamedTuple):
    """What came with an Airflow, in the words of the reason."""

    since: tuple[int, int]
    name: str


REVIEWS: Final = Feature((3, 1), "tasks that ask a person")
PAGES: Final = Feature((3, 1), "pages of plugins")
SDK_CONNECTION: Final = Feature((3, 1), "connections of the SDK from a URI and JSON")
STORED_LINKS: Final = Feature((3, 2), "links of plugins in stored DAGs")
HASHABLE_ASSETS: Final = Feature((3, 2), "assets as keys")
STATE_STORE: Final = Feature((3, 3), "a task state store")
TEAMS: Final = Feature((3, 3), "triggerers of a team")
OUTLETS_IN_DAG_TEST: Final = Feature((3, 1), "assets as outlets in dag.test()")
EXCEPTION_IN_DAG_TEST: Final = Feature((3, 3), "the exception for callbacks in dag.test()")
REVIEWS_IN_DAG_TEST: Final = Feature((3, 3), "tasks that ask a person in dag.test()")
RETRY_POLICIES: Final = Feature((3, 3), "retry policies")


def gives(feature: Feature) -> bool:
    """Whether this Airflow has the feature."""
    return feature.since <= AIRFLOW


def needs(feature: Feature) -> pytest.MarkDecorator:
    """Mark a test, or with ``pytestmark`` a module, that is skipped where Airflow lacks the feature."""
    return pytest.mark.skipif(not gives(feature), reason=reason(feature))


def reason(feature: Feature) -> str:
    """Say why a test is skipped: what it needs, and since when there is that."""
    return f"Airflow {feature.since[0]}.{feature.since[1]} and newer: {feature.name}"
