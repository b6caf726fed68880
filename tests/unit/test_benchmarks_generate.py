"""The pure parts of the benchmark of Generate: when a worker has nothing to do, and when the first picture comes."""

from __future__ import annotations

import pytest

from dev.benchmarks.generate import first_picture
from dev.benchmarks.generate_process import idle_seconds


@pytest.mark.parametrize(
    ("spans", "until", "seconds"),
    [
        ([(0, 1), (2, 3)], None, 0),
        ([(0, 1), (11, 12)], None, 10),
        ([(0, 1), (11, 12)], 20.0, 18),
        ([(11, 12), (0, 1), (0, 10)], 13.0, 0),
        ([(0, 30), (5, 6), (33, 34)], None, 3),
        ([], 50.0, 0),
    ],
)
def test_a_worker_is_idle_while_nothing_of_it_is_under_way(
    spans: list[tuple[float, float]], until: float | None, seconds: float
) -> None:
    assert idle_seconds(spans, until) == seconds


def test_the_first_picture_is_the_one_that_was_written_first() -> None:
    charged = [{"id": "a", "created": 100.0, "completed": 120.0}, {"id": "b", "created": 101.0, "completed": 130.0}]
    assert first_picture({"a": 140.0, "b": 133.0}, charged) == {"latency": 29.0, "delay": 3.0}
    assert first_picture({}, charged) is None
