"""``make test``: three runs of pytest, and one exit code."""

from __future__ import annotations

import pytest

from dev.run_tests import exit_code


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
