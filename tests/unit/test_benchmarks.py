"""The pure parts of ``make bench``: what moments amount to, which goals are met, what is kept and how it is shown."""

from __future__ import annotations

import importlib
import math
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.benchmarks import __main__ as command
from dev.benchmarks import account, answers, plot, poll, report, s3_process, ten_thousand, two_processes
from dev.benchmarks.emulator import Rates
from dev.benchmarks.generate import kill_points, lost, state_sizes
from dev.benchmarks.generate_process import peak_bytes
from dev.benchmarks.poll import slack_age
from dev.benchmarks.report import Result
from dev.benchmarks.scenario import Measured, percentiles, spread
from dev.benchmarks.three_ways import extrapolated, occupied
from dev.benchmarks.triggerer import late
from dev.stack.processes import REPO
from tests.support.task_state_store import FileTaskStateStore

# --- figures --------------------------------------------------------------------------------------------------------


def test_a_spread_tells_count_mean_and_tail() -> None:
    expected = {"count": 101, "mean": 50, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert spread([float(number) for number in reversed(range(101))]) == expected
    assert spread([3.0]) == {"count": 1, "mean": 3, "p50": 3, "p95": 3, "p99": 3, "max": 3}


def test_percentiles_are_interpolated_from_the_least_value_to_the_largest() -> None:
    points = percentiles([10.0, 0.0])
    assert len(points) == 101
    assert [points[0], points[25], points[100]] == pytest.approx([0.0, 2.5, 10.0])


def test_windows_count_refusals_include_gaps_and_leave_out_what_was_before() -> None:
    answers = [{"at": at, "status": status} for at, status in ((99, 429), (100, 200), (109.9, 429), (131, 429))]
    found = account.windows(answers, begin=100.0)
    assert [(one["start"], one["answers"], one["limited"]) for one in found] == [
        (0, 2, 1),
        (10, 0, 0),
        (20, 0, 0),
        (30, 1, 1),
    ]
    assert account.windows([], begin=0.0) == []
    assert account.share_of_429([])["share"] == 0.0


@given(st.lists(st.tuples(st.floats(0, 500), st.sampled_from([200, 404, 429])), max_size=60))
def test_no_answer_is_lost_in_windows(answers: list[tuple[float, int]]) -> None:
    whole = account.share_of_429(account.windows([{"at": at, "status": status} for at, status in answers], begin=0.0))
    assert (whole["answers"], whole["limited"]) == (len(answers), sum(status == 429 for _, status in answers))


def test_what_two_processes_were_answered_is_told_apart_by_what_they_asked_for() -> None:
    owners = {"a": 0, "b": 0, "c": 1}
    path = "/v1/images/generations/"
    asked = (
        (9, "a", 200),
        (10, "a", 200),
        (11, "b", 200),
        (12, "c", 200),
        (13, "c", 429),
        (14, "b", 200),
        (20, "c", 200),
    )
    answers = [{"at": at, "path": path + key, "status": status} for at, key, status in asked]
    assert two_processes.begun(answers[:3], owners) is None
    assert two_processes.begun(answers, owners) == 12
    found = two_processes.shares(answers, owners, 10, 20)
    assert found == {"accepted": 4, "each": [3, 1], "smaller": 0.25, "limited": 1, "refused": 0.2}


def test_the_rate_binds_until_it_serves_what_is_left() -> None:
    rates = Rates(query_rate=500, time_scale=3)
    assert slack_age(rates, 5000, 5.0) == pytest.approx(75), "half is done at the median"
    assert slack_age(rates, 10_000, 5.0) > 75
    with pytest.raises(ValueError, match="serves all"):
        slack_age(rates, 2500, 5.0)


def test_ticks_belong_to_a_span_of_time_and_a_line_half_written_is_left_out(tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    ticks.write_text('{"at": 1, "late": 0.5}\n{"at": 2, "late": 0.25}\n{"at": 3, "late": 4}\n{"at": 2.5, "la')
    assert late(ticks, 1.5, 3) == [0.25]


def test_the_poller_still_keeps_what_the_benchmark_counts() -> None:
    name = importlib.import_module("dev.benchmarks.trigger_process")._POLLER
    poller = importlib.import_module(name)
    assert isinstance(poller._pollers, WeakKeyDictionary)
    assert hasattr(poller.Poller, "__len__")


def test_a_value_of_the_store_is_there_for_the_next_process_and_the_largest_ever_is_known(tmp_path: Path) -> None:
    store = FileTaskStateStore(tmp_path / "state")
    assert store.get("ledger") is None
    store.set("ledger", 'a "long" text' * 10)
    store.set("ledger", "short", retention=None)
    store.set("other", "é")
    again = FileTaskStateStore(tmp_path / "state")
    assert (again.get("ledger"), again.get("other"), again.get("none", 1)) == ("short", "é", 1)
    longest = len('a "long" text') * 10 + 2 + 20
    expected = {"values": 2, "total": 7 + 8, "largest": longest}
    assert state_sizes(tmp_path / "state") == expected, "quotes and accents as JSON spells them"
    assert state_sizes(tmp_path / "nothing") == {"values": 0, "total": 0, "largest": 0}


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


def test_more_images_take_more_slots_and_cpu_in_proportion_and_the_wall_clock_of_full_slots() -> None:
    ten = {"images": 10, "measured": 10, "wall_seconds": 60.0, "worker_seconds": 80.0, "cpu_seconds": 20.0, "failed": 0}
    more = {"images": 1000, "wall_seconds": 60.0 + 80.0 * 99 / 8, "worker_seconds": 8000.0, "cpu_seconds": 2000.0}
    assert extrapolated(ten, 1000) == ten | more
    assert extrapolated(ten, 10) == ten


def test_a_worker_slot_is_occupied_when_its_title_names_a_task() -> None:
    prefix = "airflow worker -- LocalExecutor:"
    assert occupied([f"{prefix} <idle>", f"{prefix} 0193-task", "airflow triggerer", f"{prefix} other"]) == 2


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (("GET", "/pictures", "list-type=2&prefix=x"), "LIST"),
        (("PUT", "/pictures/x/.nanobanana/claims/a.g0.json", ""), "PUT claims"),
        (("GET", "/pictures/x/.nanobanana/books/0f.json", ""), "GET books"),
        (("PUT", "/pictures/x/.nanobanana/README.txt", ""), "PUT README.txt"),
        (("PUT", "/pictures/x/manifest-run.json", "x-id=PutObject"), "PUT manifest"),
        (("HEAD", "/pictures/x/claims.png", ""), "HEAD image"),
    ],
)
def test_calls_to_a_store_are_told_apart(call: tuple[str, str, str], kind: str) -> None:
    assert s3_process.kind_of(*call) == kind


# --- goals and page -------------------------------------------------------------------------------------------------

SPREAD = {"mean": 8.0, "p50": 0.0, "p95": 20.0, "p99": 0.001, "max": 0.3}
POLL: dict[str, Any] = {
    "count": 1000,
    "detected": 1000,
    "answers": 3000,
    "limited": 0,
    "polls_per_image": 3.0,
    "delay": {**SPREAD, "mean": 2.7},
    "delay_curve": [0.1 * share for share in range(101)],
    "lag": SPREAD,
    "cpu_seconds": 6.0,
    "scheduled_seconds": 0.5,
    "polls_per_second": 480.0,
}
MEETING = {"used": 0.92, "smaller": 0.4, "refused": 0.001}
PART = {"answers": 900, "limited": 0, "share": 0.0}
ACCOUNT: dict[str, Any] = {
    **dict.fromkeys(("all", "submits", "polls"), PART),
    "failed": 0,
    "watched": 1300,
    "detected": 1300,
    "windows": {kind: [{"start": 0.0, "answers": 9, "limited": 1}] for kind in ("submits", "polls")},
}
TIMER: dict[str, Any] = {**dict.fromkeys(("waiting", "restarted", "held"), SPREAD), "succeeded": 300, "waits": 300}
BATCH: dict[str, Any] = {
    "count": 2000,
    "landed": 2000,
    "charges": 2000,
    "duplicates": 0,
    "lost": 0,
    "share": 0.8,
    "wall_seconds": 500.0,
    "peak_bytes": 200_000_000,
    "submit_share": 0.97,
    "submit_seconds": 412.0,
    "idle_seconds": 0.2,
    "first_picture": {"latency": 12.0, "delay": 4.0},
    "slices": [{"seconds": 410.0}, {"seconds": 12.0}],
    "kills": [100, 200, 300, 400, 500],
    "event_bytes": 3000,
    "result_bytes": 200,
    "ledger": {"values": 12, "total": 400_000, "largest": 48_000},
}


BOUGHT: dict[str, Any] = {
    "count": 2000,
    "runs": {mode: [{"charges": 2000, "load": [1.0, 2.0]}] * 2 for mode in ("off", "auto")},
    "seconds": {"off": 50.0, "auto": 51.0},
    "share": {"off": 1.0, "auto": 0.96},
    "ratio": 1.02,
    "calls_per_image": {"off": {"LIST": 0.02}, "auto": {"LIST": 0.02, "PUT claims": 1.0, "PUT books": 0.01}},
}
CLAIMS: dict[str, Any] = {
    **BOUGHT,
    "overlap": {
        "count": 2000,
        "charges": 2000,
        "state": "deferred",
        "seconds": 30.0,
        "worker_cpu_seconds": 9.0,
        "load": [1.0, 2.0],
        "calls_per_image": {"GET claims": 2.0},
    },
    "rerun": {
        "count": 10_000,
        "reused": 10_000,
        "charges": 0,
        "seconds": 60.0,
        "worker_cpu_seconds": 40.0,
        "load": [1.0, 2.0],
        "calls_per_image": {"LIST": 1.0},
    },
}


def way(seconds: float, **fields: Any) -> dict[str, Any]:
    return dict.fromkeys(("wall_seconds", "worker_seconds", "cpu_seconds"), seconds) | {"failed": 0} | fields


BOMB = {"seconds": 14.0, "added_bytes": 500_000_000, "good": 7, "landed": 7, "quarantined": 1}

TEN_THOUSAND: dict[str, Any] = {
    "count": 10_000,
    "detected_count": 10_000,
    "delay": {**SPREAD, "mean": 8.8},
    "bound": 8.0,
    "errors": [],
    "stall": 0.03,
    "collections": {"count": 3, "longest": 0.3},
    "own_collection": 0.1,
    "bytes_per_wait": 5400.0,
    "peak_bytes_per_wait": 7000.0,
}
ANSWER: dict[str, Any] = {"wire": 100, "stall": 0.02, "memory": 1_000_000, "outcome": "finished"}
TRANSPORT: dict[str, Any] = {"cpu_per_thousand": 1.2, "version": "0.28.1", "ended": 9000, "sent": 9000}
OURS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("poll-1000", "poll-60", "poll-5000"), POLL),
    "poll-limiters": {"runs": dict.fromkeys(poll._LIMITERS, POLL)},
    "two-processes": {"runs": dict.fromkeys(two_processes._MEETINGS, MEETING)},
    "poll-10000": TEN_THOUSAND,
    "answer-stall": {"answers": {"long": ANSWER, "short": ANSWER}},
    "transport": {"transports": {"httpx": TRANSPORT, "httpx2": {"missing": "httpx2"}}},
    "memory": {"bytes_per_trigger": 9000.0},
    **dict.fromkeys(("account-1", "account-32"), ACCOUNT),
    "triggerer": TIMER,
    **dict.fromkeys(("generate-2000", "generate-10000", "generate-kills"), BATCH),
    "generate-first": {"runs": {"1": BATCH, "20": BATCH}},
    "generate-vs": {"generate": way(300.0), "pipelines": way(4000.0)},
    **dict.fromkeys(("claims", "claims-s3"), CLAIMS),
    "decode-4k": {"ratio": 1.05, "seconds": 8.0, "cpu_seconds": 8.0},
    "bombs": {"bombs": {"one": BOMB, "two": BOMB | {"landed": 8, "quarantined": 0}}},
}


def measured(scenario: str, **changes: Any) -> Measured:
    """Return good figures but for the changes; the baseline is twice as bad where that matters."""
    ours = OURS[scenario]
    baseline = {"blocking": way(33_000.0)} if scenario == "generate-vs" else {**ours, "cpu_seconds": 12.0}
    return Measured({}, {**ours, **changes}, baseline)


def result(scenario: str, made: str = "2026-11-22", **changes: Any) -> Result:
    return Result(made, "0123abc", "python -m dev.benchmarks", 1, "2 cores", measured(scenario, **changes), 1.5)


def verdicts(scenario: str, found: Measured | None) -> list[str]:
    return [goal.row(found)[-1] for goal in command.SCENARIOS[scenario].goals]


def page(results: dict[str, Result]) -> str:
    return report.page(list(command.SCENARIOS.values()), results, ["- `poll-60`: how."])


@pytest.mark.parametrize("scenario", command.SCENARIOS)
def test_good_figures_meet_every_goal(scenario: str) -> None:
    assert set(verdicts(scenario, measured(scenario))) == {"met"}
    assert set(verdicts(scenario, None)) == {"not run"}
    assert set(verdicts(scenario, Measured({}, {"kept before": {}}))) == {"not run"}


@pytest.mark.parametrize(
    ("scenario", "changes"),
    [
        ("poll-1000", {"limited": 4}),
        ("poll-1000", {"detected": 999}),
        ("poll-1000", {"delay": {**SPREAD, "mean": 9.3}}),
        ("poll-1000", {"delay": None}),
        ("poll-1000", {"lag": {**SPREAD, "p99": 0.02}}),
        ("poll-1000", {"cpu_seconds": 6.1}),
        ("poll-1000", {"scheduled_seconds": None}),
        *(
            ("poll-limiters", {"runs": OURS["poll-limiters"]["runs"] | {name: {**POLL, "limited": 4}}})
            for name in poll._LIMITERS
        ),
        *(
            ("two-processes", {"runs": OURS["two-processes"]["runs"] | {name: {**MEETING, figure: worse}}})
            for name in two_processes._MEETINGS
            for figure, worse in (("used", 0.91), ("smaller", 0.39))
        ),
        ("poll-60", {"polls_per_image": 3.5}),
        ("poll-60", {"delay": {**SPREAD, "mean": 2.8}}),
        ("poll-5000", {"polls_per_second": 449.0}),
        ("poll-5000", {"lag": {**SPREAD, "p99": 0.05}}),
        ("poll-10000", {"delay": {**SPREAD, "mean": 9.3}}),
        ("poll-10000", {"detected_count": 9_999}),
        ("poll-10000", {"errors": ["KeyError()"]}),
        ("poll-10000", {"stall": 0.05}),
        ("poll-10000", {"bytes_per_wait": 6000.0}),
        ("answer-stall", {"answers": {"long": ANSWER, "short": {**ANSWER, "stall": 0.05}}}),
        ("answer-stall", {"answers": {"long": {**ANSWER, "memory": 10_000_000}, "short": ANSWER}}),
        ("transport", {"transports": {"httpx": TRANSPORT, "httpx2": {**TRANSPORT, "ended": 8999}}}),
        ("transport", {"transports": {"httpx": {**TRANSPORT, "cpu_per_thousand": 1.5}}}),
        ("memory", {"bytes_per_trigger": 30_000.0}),
        ("account-1", {"all": {**PART, "share": 0.01}}),
        ("account-32", {"failed": 1}),
        ("account-32", {"detected": 1299}),
        ("triggerer", {"succeeded": 299}),
        ("triggerer", {"held": {**SPREAD, "p99": 0.2}}),
        ("generate-2000", {"submit_share": 0.949}),
        ("generate-2000", {"share": 0.71}),
        ("generate-2000", {"idle_seconds": 0.6}),
        ("generate-2000", {"first_picture": {"latency": 12.0, "delay": 10.1}}),
        ("generate-2000", {"first_picture": None}),
        ("generate-2000", {"landed": 1999}),
        ("generate-2000", {"charges": 2001}),
        ("generate-2000", {"duplicates": 1}),
        ("generate-10000", {"lost": 1}),
        ("generate-10000", {"peak_bytes": 400_000_000}),
        ("generate-10000", {"event_bytes": 4000}),
        ("generate-10000", {"result_bytes": 4000}),
        ("generate-10000", {"ledger": {**BATCH["ledger"], "largest": 65_536}}),
        ("generate-kills", {"kills": [1, 2, 3, 4]}),
        ("generate-kills", {"charges": 2001}),
        ("generate-kills", {"lost": 1}),
        ("generate-first", {"runs": {"1": BATCH | {"first_picture": {"latency": 12.0, "delay": 10.1}}}}),
        ("generate-first", {"runs": {"20": BATCH | {"landed": 19}}}),
        ("generate-vs", {"pipelines": way(4000.0, cpu_seconds=299.0)}),
        ("claims", {"ratio": 1.06}),
        ("claims", {"runs": {"auto": [{"charges": 2001, "load": [1.0]}]}}),
        ("claims", {"share": {"off": 1.0, "auto": 0.94}}),
        ("claims", {"overlap": {**CLAIMS["overlap"], "charges": 2001}}),
        ("claims", {"overlap": {**CLAIMS["overlap"], "state": "failed"}}),
        ("claims", {"rerun": {**CLAIMS["rerun"], "charges": 1}}),
        ("claims", {"rerun": {**CLAIMS["rerun"], "reused": 9_999}}),
        ("decode-4k", {"ratio": 1.11}),
        ("bombs", {"bombs": {"one": BOMB, "two": BOMB | {"seconds": 15.1}}}),
        ("bombs", {"bombs": {"one": BOMB, "two": BOMB | {"added_bytes": 601_000_000}}}),
        ("bombs", {"bombs": {"one": BOMB, "two": BOMB | {"good": 6, "landed": 7}}}),
        ("bombs", {"bombs": {"one": BOMB, "two": BOMB | {"quarantined": 0}}}),
        ("claims-s3", {"calls_per_image": {"off": {}, "auto": {"PUT claims": 1.0, "GET claims": 1.0}}}),
    ],
)
def test_each_figure_can_miss_its_goal(scenario: str, changes: dict[str, Any]) -> None:
    assert verdicts(scenario, measured(scenario, **changes)).count("missed") == 1


def test_what_one_answer_does_is_a_table_of_both_sides() -> None:
    assert answers.page({}) == ""
    ours = {"answers": {"long": ANSWER, "short": {**ANSWER, "outcome": "timeout"}}}
    rows = answers.page({"answer-stall": Measured({}, ours, {"answers": {"long": ANSWER}})}).splitlines()[-2:]
    assert rows == [
        "| long | 0 kB | 20 ms, 1 MB, finished | 20 ms, 1 MB, finished |",
        "| short | 0 kB | 20 ms, 1 MB, timeout |  |",
    ]


@pytest.mark.parametrize("rate", [20.0, 200.0])
def test_the_bound_of_a_thousand_waits_is_what_a_round_of_them_takes(rate: float) -> None:
    """All end at once: one after another is detected, as fast as the rate allows."""
    moments = [(0.0, 30.0)] * 1000
    found = ten_thousand.simulated_delay(moments, rate=rate, interval=5.0, begin=0.0, seed=1)
    assert found == pytest.approx(max(2.5, 500 / rate), rel=0.15)


def test_without_a_baseline_half_of_it_is_no_goal_that_is_met() -> None:
    assert verdicts("poll-1000", Measured({}, POLL)).count("missed") == 1


def test_generate_with_a_missing_image_takes_the_least_of_nothing() -> None:
    assert verdicts("generate-vs", measured("generate-vs", generate=way(300.0, failed=1))) == ["missed"] * 3


def test_the_page_shows_both_sides_the_verdict_and_where_it_comes_from() -> None:
    text = page({name: result(name) for name in OURS} | {"memory": result("memory", bytes_per_trigger=40_000.0)})
    row = next(line for line in text.splitlines() if "resident memory of one more" in line)
    assert [cell.strip() for cell in row.split("|")[3:7]] == ["< 30 kB", "40.0 kB", "9.0 kB", "**missed**"]
    origin = next(line for line in text.splitlines() if line.startswith("| memory"))
    cells = [cell.strip() for cell in origin.split("|")[2:6]]
    assert cells == ["2026-11-22", "0123abc", "1.5", "`python -m dev.benchmarks`"]
    assert "- `poll-60`: how." in text


def test_the_page_says_what_has_not_been_measured() -> None:
    assert "not run" in page({"memory": result("memory")})
    assert "benchmarks.svg" not in page({"memory": result("memory")})
    assert "Nothing has been measured yet" in page({})


def test_windows_of_both_sides_stand_side_by_side_and_the_shorter_ends_empty() -> None:
    ours = ACCOUNT | {"windows": {"submits": [{"answers": 9, "limited": 1}], "polls": []}}
    baseline = ACCOUNT | {"windows": {"submits": [{"answers": 0, "limited": 0}, {"answers": 5, "limited": 0}]}}
    rows = account.page({"account-1": Measured({}, ours, baseline)}).splitlines()[-2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert cells == [["0 s", "1 of 9", "", ""], ["10 s", "", "", "0 of 5"]]
    assert account.page({}) == ""


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_what_was_not_measured_now_stays_in_the_order_of_the_scenarios(tmp_path: Path) -> None:
    before = {"memory": result("memory"), "poll-60": result("poll-60"), "gone": result("memory")}
    report.store(tmp_path / "benchmarks.json", before)
    kept = command.write(tmp_path, {"memory": result("memory", made="2027-01-01")})
    assert list(kept) == ["poll-60", "memory"]
    assert (kept["memory"].made, kept["poll-60"].made) == ("2027-01-01", "2026-11-22")
    assert report.load(tmp_path / "benchmarks.json") == kept


def test_figures_come_back_rounded_to_what_they_can_mean(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    assert report.load(path) == {}
    report.store(path, {"memory": result("memory", bytes_per_trigger=9000.123456789, curve=[math.pi], count=1234567)})
    ours = report.load(path)["memory"].measured.ours
    assert ours == {"bytes_per_trigger": 9000.12, "curve": [3.14159], "count": 1234567}


def test_the_page_in_the_repository_is_what_its_figures_say() -> None:
    docs = REPO / "docs"
    results = report.load(docs / "benchmarks.json")
    if set(results) != set(command.SCENARIOS):
        pytest.skip("a scenario has not been measured yet")
    assert (docs / "benchmarks.md").read_text() == command.markdown(results)


def test_the_machine_is_described_without_names_and_paths() -> None:
    text = report.machine()
    assert re.search(r"\d+ cores of .+, Python 3\.\d+", text)
    assert "/" not in text.replace("(R)", "")


def test_rendering_measures_nothing_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.store(tmp_path / "benchmarks.json", {"memory": result("memory")})
    assert command.main(["--render", "--docs", str(tmp_path)]) == 0
    assert "9.0 kB" in (tmp_path / "benchmarks.md").read_text()
    assert "not run" in capsys.readouterr().out


def test_a_run_whose_goal_finds_no_figure_fails_and_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures that were kept may be older than a goal; those of a run just made may not lack what it is about."""
    misspelt = Measured({}, {"bytes_per_triger": 9000})
    memory = replace(command.SCENARIOS["memory"], measure=lambda bench: misspelt)
    monkeypatch.setitem(command.SCENARIOS, "memory", memory)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(KeyError):
        command.main(["memory", "--docs", str(tmp_path)])
    assert report.load(tmp_path / "benchmarks.json")["memory"].measured == misspelt
    assert command.main(["--render", "--docs", str(tmp_path)]) == 0


def test_an_unknown_scenario_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["poll-999"])
    assert "poll-1000" in capsys.readouterr().err


def test_the_picture_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra bench")
    for name in ("one.svg", "other.svg"):
        plot.draw(measured("poll-1000"), {"GCRA": POLL, "fixed window": POLL | {"delay": None}}, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_there_is_no_picture_of_images_that_were_never_noticed(tmp_path: Path) -> None:
    plot.draw(measured("poll-1000", delay=None), {}, tmp_path / "none.svg")
    plot.draw(Measured({}, POLL), {}, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
