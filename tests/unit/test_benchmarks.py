"""The pure parts of ``make bench``: what moments amount to, which goals are met, what is kept and how it is shown."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.benchmarks import __main__ as command
from dev.benchmarks import machine, plot
from dev.benchmarks.bench import Measured
from dev.benchmarks.emulator import Rates
from dev.benchmarks.figures import Spread, Window, curve, per_second, percentile, reached, together, windows
from dev.benchmarks.report import page, table, verdicts
from dev.benchmarks.results import Result, load, merged, store
from dev.benchmarks.scenario import GOALS
from dev.benchmarks.scenarios.fast import slack_age
from dev.benchmarks.triggerer import late
from tests.unit.test_benchmarks_generate import GENERATE

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


# --- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (1 / 3, 2.0), (0.99, 3.97)], ids=str
)
def test_a_percentile_is_interpolated(share: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(expected)


@given(VALUES, st.floats(0, 1), st.floats(0, 1))
def test_percentiles_rise_and_stay_within_the_values(values: list[float], one: float, other: float) -> None:
    low, high = percentile(values, min(one, other)), percentile(values, max(one, other))
    slack = 1e-9 * max(map(abs, values))  # of the interpolation
    assert min(values) - slack <= low <= high + slack <= max(values) + 2 * slack


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.1), ([1.0], -0.1)])
def test_there_is_no_percentile_of_nothing_or_beyond_all(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"no values|0 to 1"):
        percentile(values, share)


def test_a_spread_tells_count_mean_and_tail() -> None:
    spread = Spread.of([float(number) for number in range(101)])
    assert (spread.count, spread.mean, spread.p50, spread.p95, spread.p99, spread.max) == (101, 50, 50, 95, 99, 100)


def test_a_curve_has_as_many_points_as_asked_for_and_none_for_nothing() -> None:
    assert curve([0.0, 10.0], points=5) == [0.0, 2.5, 5.0, 7.5, 10.0]
    assert curve([]) == []


def test_moments_are_counted_up_second_by_second_until_all_have_passed() -> None:
    assert reached([10.5, 12.0, 10.0], start=10.0) == [1, 2, 3]
    assert reached([], start=5.0) == [0]


def test_windows_count_refusals_include_gaps_and_forget_what_was_before() -> None:
    answers = [(99.0, 429), (100.0, 200), (109.9, 429), (110.0, 200), (131.0, 429)]
    found = windows(answers, start=100.0)
    assert found == [Window(0, 2, 1), Window(10, 1, 0), Window(20, 0, 0), Window(30, 1, 1)]
    assert [window.share for window in found] == [0.5, 0.0, 0.0, 1.0]
    assert windows([], start=0.0) == []


def test_windows_add_up() -> None:
    assert together([Window(10, 90, 1), Window(20, 10, 1)]) == Window(10, 100, 2)
    assert together([]).share == 0.0


@given(st.lists(st.tuples(st.floats(0, 500), st.sampled_from([200, 404, 429])), max_size=60))
def test_no_answer_is_lost_in_windows(answers: list[tuple[float, int]]) -> None:
    whole = together(windows(answers, start=0.0))
    assert (whole.answers, whole.limited) == (len(answers), sum(status == 429 for _, status in answers))


def test_a_rate_is_that_of_its_window() -> None:
    assert per_second([0.0, 1.0, 2.0, 3.9, 4.0], start=1.0, end=4.0) == 1.0
    with pytest.raises(ValueError, match="end after"):
        per_second([], 1.0, 1.0)


def test_the_budget_binds_until_the_rate_serves_what_is_left() -> None:
    rates = Rates(queries=500, time_scale=3)
    assert slack_age(rates, 5000, 5.0) == pytest.approx(75), "half is done at the median"
    assert slack_age(replace(rates, sigma=0.8), 10_000, 5.0) > 75
    with pytest.raises(ValueError, match="serves all"):
        slack_age(rates, 2500, 5.0)


def test_ticks_belong_to_a_span_of_time_and_a_line_half_written_is_left_out(tmp_path: Path) -> None:
    notes = tmp_path / "ticks"
    notes.write_text('{"at": 1, "late": 0.5}\n{"at": 2, "late": 0.25}\n{"at": 3, "late": 4}\n{"at": 2.5, "la')
    assert late(notes, 1.5, 3) == [0.25]


# --- goals and page -------------------------------------------------------------------------------------------------

SPREAD = {"mean": 8.0, "p50": 0.0, "p95": 20.0, "p99": 0.001, "max": 0.3}
POLL: dict[str, Any] = {
    "count": 1000,
    "detected": 1000,
    "answers": 3000,
    "limited": 0,
    "polls_per_image": 3.0,
    "delay": {**SPREAD, "mean": 2.8},
    "lag": SPREAD,
    "cpu_seconds": 6.0,
    "scheduled_seconds": 0.5,
    "polls_per_second": 480.0,
}
PART = {"answers": 900, "limited": 0, "share": 0.0, "worst_window": 0.0}
WINDOWS = {kind: [{"start": 0.0, "answers": 9, "limited": 1}] for kind in ("submits", "polls")}
ACCOUNT: dict[str, Any] = {
    **dict.fromkeys(("all", "submits", "polls"), PART),
    "submitted": 300,
    "failed": 0,
    "watched": 1300,
    "detected": 1300,
    "windows": WINDOWS,
}
TIMER: dict[str, Any] = {**dict.fromkeys(("waiting", "restarted", "held"), SPREAD), "succeeded": 300, "waits": 300}
OURS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("poll-1000", "poll-60", "poll-5000"), POLL),
    "memory": {"bytes_per_trigger": 9000.0},
    "account-1": ACCOUNT,
    "account-32": ACCOUNT,
    "triggerer": TIMER,
    **GENERATE,
}


def measured(scenario: str, baseline: bool = True, **changes: Any) -> Measured:
    ours = OURS[scenario]
    if scenario == "generate-vs":
        return Measured({}, {**ours, **changes}, {"blocking": ours["pipelines"]})
    return Measured({}, {**ours, **changes}, {**ours, "cpu_seconds": 12.0} if baseline else None)


def result(scenario: str, made: str = "2026-11-22", baseline: bool = True, **changes: Any) -> Result:
    return Result(made, "python -m dev.benchmarks", 1, "2 cores", measured(scenario, baseline, **changes))


ALL = {name: result(name) for name in command.SCENARIOS}


def test_every_scenario_has_a_goal_and_every_goal_a_scenario() -> None:
    assert {goal.scenario for goal in GOALS} == set(command.SCENARIOS) == set(OURS)


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.figure)
def test_good_figures_meet_every_goal(goal: Any) -> None:
    assert goal.verdict(measured(goal.scenario)) == "met"
    assert goal.verdict(None) == "not run"


@pytest.mark.parametrize(
    ("scenario", "changes", "missed"),
    [
        ("poll-1000", {"limited": 1}, 1),
        ("poll-1000", {"detected": 999}, 1),
        ("poll-1000", {"delay": {**SPREAD, "mean": 9.6}}, 1),
        ("poll-1000", {"delay": None}, 1),
        ("poll-1000", {"lag": {**SPREAD, "p99": 0.02}}, 1),
        ("poll-1000", {"cpu_seconds": 6.1}, 1),
        ("poll-1000", {"scheduled_seconds": None}, 1),
        ("poll-60", {"polls_per_image": 3.6}, 1),
        ("poll-60", {"delay": {**SPREAD, "mean": 3.0}}, 1),
        ("poll-5000", {"polls_per_second": 449.0}, 1),
        ("poll-5000", {"lag": {**SPREAD, "p99": 0.05}}, 1),
        ("memory", {"bytes_per_trigger": 30_000.0}, 1),
        ("account-1", {"all": {**PART, "share": 0.01}}, 1),
        ("account-32", {"failed": 1}, 1),
        ("account-32", {"detected": 1299}, 1),
        ("triggerer", {"succeeded": 299}, 1),
        ("triggerer", {"held": {**SPREAD, "p99": 0.2}}, 1),
    ],
)
def test_each_figure_can_miss_its_goal(scenario: str, changes: dict[str, Any], missed: int) -> None:
    outcomes = [goal.verdict(measured(scenario, **changes)) for goal in GOALS if goal.scenario == scenario]
    assert outcomes.count("missed") == missed


def test_without_a_baseline_half_of_it_is_no_goal_that_is_met() -> None:
    cpu = next(goal for goal in GOALS if "CPU" in goal.figure)
    assert cpu.verdict(measured("poll-1000", baseline=False)) == "missed"


def test_the_page_shows_both_sides_the_verdict_and_where_it_comes_from() -> None:
    text = page({**ALL, "memory": result("memory", bytes_per_trigger=40_000.0)})
    row = next(line for line in text.splitlines() if "resident memory of one more" in line)
    assert row == "| resident memory of one more waiting trigger | < 30 kB | 40.0 kB | 9.0 kB | **missed** |"
    assert "Made on 2026-11-22 by `python -m dev.benchmarks` on 2 cores." in text
    assert "benchmarks.svg" in text
    assert "1 of 9" in text


def test_the_page_says_what_is_missing_and_what_is_older() -> None:
    text = page({"memory": result("memory", made="2026-11-20"), "poll-60": result("poll-60")})
    assert "| not run |" in text
    assert "| memory | 2026-11-20 |" in text
    assert "benchmarks.svg" not in text
    assert "Nothing has been measured yet" in page({})


def test_the_terminal_tells_one_verdict_a_goal() -> None:
    lines = verdicts(ALL, ["poll-1000"])
    assert len([line for line in lines if line.startswith("goal met")]) == 5
    assert not verdicts({}, ["poll-1000"])


def test_a_table_escapes_bars_and_refuses_a_short_row() -> None:
    assert table(["a", "b"], [["x|y", "z"]]).splitlines()[2] == "| x\\|y | z |"
    with pytest.raises(ValueError, match="one cell"):
        table(["a", "b"], [["x"]])


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_what_was_not_measured_now_stays_in_the_order_of_the_scenarios() -> None:
    before = {"memory": result("memory"), "poll-60": result("poll-60"), "gone": result("memory")}
    now = {"memory": result("memory", made="2027-01-01")}
    kept = merged(before, now, command.SCENARIOS)
    assert list(kept) == ["poll-60", "memory"]
    assert (kept["memory"].made, kept["poll-60"].made) == ("2027-01-01", "2026-11-22")


def test_figures_come_back_as_they_were_stored(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "benchmarks.json"
    assert load(path) == {}
    store(path, ALL)
    assert load(path) == ALL
    assert max(map(len, path.read_text().splitlines())) < 2000


def test_stored_figures_are_rounded_to_what_they_can_mean(tmp_path: Path) -> None:
    store(tmp_path / "f.json", {"memory": result("memory", bytes_per_trigger=9000.123456789, curve=[math.pi])})
    ours = load(tmp_path / "f.json")["memory"].measured.ours
    assert ours == {"bytes_per_trigger": 9000.12, "curve": [3.14159]}


def test_the_machine_is_described_without_names_and_paths() -> None:
    text = machine.describe()
    assert re.search(r"\d+ cores? of .+, Python 3\.\d+", text)
    assert "/" not in text.replace("(R)", "")


def test_rendering_measures_nothing_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path / "benchmarks.json", {"memory": ALL["memory"]})
    assert command.main(["--render", "--docs", str(tmp_path)]) == 0
    assert "9.0 kB" in (tmp_path / "benchmarks.md").read_text()
    assert "goal met" in capsys.readouterr().out


def test_an_unknown_scenario_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["poll-999"])
    assert "poll-1000" in capsys.readouterr().err


def test_the_picture_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra bench")
    series = {"delay_curve": [0.0, 5.0, 9.0], "completed_by": [0, 500, 1000], "detected_by": [0, 0, 400, 1000]}
    drawn = result("poll-1000")
    drawn = replace(drawn, measured=replace(drawn.measured, ours=POLL | series, baseline=POLL | series))
    for name in ("one.svg", "other.svg"):
        plot.draw(drawn, tmp_path / name)
    assert plot.drawable(drawn)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_there_is_no_picture_of_images_that_were_never_noticed() -> None:
    assert not plot.drawable(result("poll-1000", delay=None))
    assert not plot.drawable(result("poll-1000", baseline=False))
