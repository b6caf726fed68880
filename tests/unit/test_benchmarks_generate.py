"""The pure parts of the Generate benchmarks: state on disk, points of death, what is lost, what is reckoned, goals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.benchmarks.bench import Measured
from dev.benchmarks.generate import kill_points, lost
from dev.benchmarks.generate_process import peak_bytes
from dev.benchmarks.report import page
from dev.benchmarks.results import Result
from dev.benchmarks.scenario import GOALS
from dev.benchmarks.scenarios.generate_store import FileStore, Sizes
from dev.benchmarks.scenarios.generate_task import Played, Stretch
from dev.benchmarks.scenarios.generate_ways import Way, occupied

BATCH: dict[str, Any] = {
    "count": 2000,
    "landed": 2000,
    "charges": 2000,
    "duplicates": 0,
    "lost": 0,
    "share": 0.8,
    "wall_seconds": 500.0,
    "peak_bytes": 200_000_000,
    "longest_stretch": 110.0,
    "stretches": [{}, {}],
    "kills": [100, 200, 300, 400, 500],
    "event_bytes": 3000,
    "result_bytes": 200,
    "ledger": {"values": 12, "total": 400_000, "largest": 48_000, "writes": 900, "written": 9_000_000},
}


def way(worker_seconds: float, **fields: Any) -> dict[str, Any]:
    seconds = {"wall_seconds": worker_seconds / 8, "worker_seconds": worker_seconds, "cpu_seconds": worker_seconds / 2}
    return Way(**{"images": 1000, "measured": 1000, "failed": 0, **seconds, **fields}).as_dict()


WAYS = {"generate": way(300.0), "pipelines": way(4000.0)}
GENERATE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("generate-2000", "generate-10000", "generate-kills"), BATCH),
    "generate-vs": WAYS,
}


def verdicts(scenario: str, ours: dict[str, Any], baseline: dict[str, Any] | None = None) -> list[str]:
    return [goal.verdict(Measured({}, ours, baseline)) for goal in GOALS if goal.scenario == scenario]


@pytest.mark.parametrize(
    "changes",
    [
        {"share": 0.59},
        {"landed": 1999},
        {"charges": 2001},
        {"duplicates": 1},
        {"lost": 1},
        {"peak_bytes": 400_000_000},
        {"longest_stretch": 130.0},
        {"event_bytes": 4000},
        {"result_bytes": 4000},
        {"ledger": {**BATCH["ledger"], "largest": 65_536}},
    ],
    ids=str,
)
@pytest.mark.parametrize("scenario", ["generate-2000", "generate-10000"])
def test_each_figure_of_a_batch_can_miss_its_goal(scenario: str, changes: dict[str, Any]) -> None:
    assert verdicts(scenario, BATCH | changes).count("missed") == 1
    assert verdicts(scenario, BATCH).count("missed") == 0


@pytest.mark.parametrize("changes", [{"kills": [1, 2, 3, 4]}, {"charges": 2001}, {"lost": 1}], ids=str)
def test_kills_that_did_not_happen_or_cost_something_are_a_miss(changes: dict[str, Any]) -> None:
    assert verdicts("generate-kills", BATCH | changes) == ["missed"]


def test_generate_has_to_take_the_least_of_all_ways() -> None:
    assert verdicts("generate-vs", WAYS, {"blocking": way(33_000.0)}) == ["met"] * 3
    assert verdicts("generate-vs", WAYS, {"blocking": way(299.0)}) == ["missed"] * 3
    assert verdicts("generate-vs", {**WAYS, "generate": way(300.0, failed=1)}, {}) == ["missed"] * 3
    assert verdicts("generate-vs", WAYS, {"blocking": way(33_000.0, cpu_seconds=1.0)}).count("missed") == 1


def test_the_page_names_every_way() -> None:
    measured = Measured({}, WAYS, {"blocking": way(33_000.0)})
    text = page({"generate-vs": Result("2026-11-22", "make bench", 1, "2 cores", measured)})
    row = next(line for line in text.splitlines() if "worker seconds |" in line)
    assert "| generate 300 s, pipelines 4,000 s | blocking 33,000 s | met |" in row


def test_a_value_of_the_store_is_there_for_the_next_process_and_every_write_is_counted(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state")
    assert store.get("ledger") is None
    store.set("ledger", 'a "long" text' * 10)
    store.set("ledger", "short", retention=None)
    store.set("other", "é")
    again = FileStore(tmp_path / "state")
    assert (again.get("ledger"), again.get("other"), again.get("none", 1)) == ("short", "é", 1)
    sizes = Sizes.of(tmp_path / "state")
    longest = len('a "long" text') * 10 + 2 + 20
    assert sizes == Sizes(2, 7 + 8, longest, 3, longest + 7 + 8), "quotes and accents as JSON spells them"
    assert Sizes.of(tmp_path / "nothing") == Sizes(0, 0, 0, 0, 0)


@given(st.integers(20, 5000), st.integers(1, 10), st.integers())
def test_kills_are_spread_over_the_way_and_the_same_for_the_same_seed(count: int, number: int, seed: int) -> None:
    points = kill_points(count, number, seed)
    assert points == kill_points(count, number, seed) == sorted(set(points))
    assert len(points) == number and points[0] >= 0 and points[-1] < 1.8 * count


def test_what_was_paid_and_has_no_image_is_lost_and_what_was_refunded_is_not() -> None:
    charged = [{"id": name, "refunded": name == "c"} for name in "abc"]
    assert lost(charged, [{"id": "a"}]) == ["b"]


def test_the_peak_is_that_of_this_program_and_not_guessed() -> None:
    assert peak_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS: 1 kB\n") == 2048 * 1024
    with pytest.raises(ValueError, match="VmHWM"):
        peak_bytes("Name:\tx\n")


def test_stretches_add_up_and_one_that_was_killed_counts_with_its_time() -> None:
    played = Played(stretches=[Stretch("deferred", 1, 100.0, 30.0, 5), Stretch("killed", 1, 50.0)])
    figures = played.stretch_figures()
    assert (figures["longest_stretch"], figures["worker_seconds"], figures["cpu_seconds"]) == (100, 150, 30)
    assert figures["peak_bytes"] == 5


def test_more_images_take_more_slots_and_cpu_in_proportion_and_the_wall_clock_of_full_slots() -> None:
    measured = Way(10, 10, wall_seconds=60.0, worker_seconds=80.0, cpu_seconds=20.0, failed=0)
    assert measured.scaled(1000, slots=8) == Way(1000, 10, 60.0 + 80.0 * 99 / 8, 8000.0, 2000.0, 0)
    assert measured.scaled(10, slots=8) == measured
    with pytest.raises(ValueError, match="cannot stand for 9"):
        measured.scaled(9, slots=8)


def test_a_worker_slot_is_occupied_when_its_title_names_a_task() -> None:
    prefix = "airflow worker -- LocalExecutor:"
    assert occupied([f"{prefix} <idle>", f"{prefix} 0193-task", "airflow triggerer", f"{prefix} other"]) == 2
