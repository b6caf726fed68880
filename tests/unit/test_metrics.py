"""What is sent, under which name and tags; and that a backend that breaks breaks nothing else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow
from airflow_provider_nanobanana.toapis.catalogue import MODELS
from airflow_provider_nanobanana.toapis.failure_codes import FAILURE_CODES
from airflow_provider_nanobanana.toapis.models import ImageTaskError
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from airflow_provider_nanobanana.worker_threads import WorkerPool
from tests.support.responses import NOW, image_task

STATS = "airflow.providers.common.compat.sdk.Stats"
MODEL = image_task().model or ""


class Stats:
    """Airflow's stats, as far as we call them: it keeps what it is told."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, dict[str, str]]] = []

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: dict[str, str] | None = None) -> None:
        assert type(count) is int, "a StatsD server may cut a fraction off"
        self.sent.append((stat, count, tags or {}))

    def timing(self, stat: str, dt: timedelta, *, tags: dict[str, str] | None = None) -> None:
        self.sent.append((stat, dt, tags or {}))

    def timer(self) -> object:
        return object()


class BrokenStats(Stats):
    """A backend that raises at every call, and counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __getattribute__(self, name: str) -> Any:
        if name in ("incr", "timing", "timer"):
            self.calls += 1
            raise OSError("the agent is gone")
        return super().__getattribute__(name)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    for cached in (metrics._stats, metrics._note_once):
        cached.cache_clear()
    yield
    for cached in (metrics._stats, metrics._note_once):
        cached.cache_clear()


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Stats:
    stats = Stats()
    monkeypatch.setattr(STATS, stats, raising=False)
    return stats


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> BrokenStats:
    stats = BrokenStats()
    monkeypatch.setattr(STATS, stats, raising=False)
    return stats


def record(image_task_id: str, **changes: Any) -> dict[str, Any]:
    """The record of an image task that has ended, or of one that runs on where there is no ``status``."""
    seen = image_task().model_copy(update={"id": image_task_id, **changes})
    return PollResult(image_task_id, image_task=seen).to_record(WaitWindow(NOW - 900, NOW), NOW)


def failed(image_task_id: str, code: str) -> dict[str, Any]:
    error = ImageTaskError(code=code, message="no reason given")
    return record(image_task_id, status=ImageTaskStatus.FAILED, images=(), error=error)


class TestWhatIsSent:
    def test_a_counter(self, stats: Stats) -> None:
        metrics.count("submitted", conn_id="nanobanana_default", model="nano_banana_2")
        metrics.count("polls", 17, conn_id="other")
        assert stats.sent == [
            ("nanobanana.submitted", 1, {"conn_id": "nanobanana_default", "model": "nano_banana_2"}),
            ("nanobanana.polls", 17, {"conn_id": "other"}),
        ]

    def test_a_duration(self, stats: Stats) -> None:
        metrics.timing("detection_delay", 2.5, conn_id="c")
        assert stats.sent == [("nanobanana.detection_delay", timedelta(seconds=2.5), {"conn_id": "c"})]

    def test_clocks_that_differ_give_no_negative_duration(self, stats: Stats) -> None:
        metrics.timing("detection_delay", -3.0)
        assert stats.sent == [("nanobanana.detection_delay", timedelta(0), {})]

    def test_a_tag_without_value_is_left_out(self, stats: Stats) -> None:
        metrics.count("submitted", conn_id="c", model=None)
        assert stats.sent == [("nanobanana.submitted", 1, {"conn_id": "c"})]

    @pytest.mark.parametrize(
        ("text", "tag"),
        [
            ("team/a (EU), x=1", "team_a__EU___x_1"),
            ("küche", "k_che"),
            ("a.b-c_D9", "a.b-c_D9"),
            ("x" * 34, "x" * 34),
            ("x" * 400, "x" * 27 + "_7b0bd7"),
        ],
    )
    def test_a_tag_that_a_backend_would_stumble_over(self, stats: Stats, text: str, tag: str) -> None:
        metrics.count("submitted", conn_id=text)
        assert stats.sent == [("nanobanana.submitted", 1, {"conn_id": tag})]


class TestTaskInstance:
    """What belongs to a task instance says so; nobody has to pass it on."""

    @pytest.fixture(autouse=True)
    def _running(self) -> Iterator[None]:
        from airflow.sdk.execution_time.context import set_current_context

        ti = SimpleNamespace(dag_id="kites", task_id="make.pictures", run_id="a run", map_index=7)
        with set_current_context(cast("Any", {"ti": ti})):
            yield

    def test_its_ids_are_tags(self, stats: Stats) -> None:
        metrics.count("submitted", conn_id="c", model=None)
        metrics.timing("detection_delay", 1.0)
        ids = {"dag_id": "kites", "task_id": "make.pictures"}
        assert [tags for _, _, tags in stats.sent] == [{"conn_id": "c", **ids}, ids]

    def test_also_of_what_its_threads_send(self, stats: Stats) -> None:
        with WorkerPool(1) as pool:
            list(pool.map(lambda name: metrics.count("reused", conn_id=name), ["c"]))
        assert stats.sent == [("nanobanana.reused", 1, {"conn_id": "c", "dag_id": "kites", "task_id": "make.pictures"})]


def test_a_name_with_all_its_tags_is_short_enough_for_airflow(stats: Stats) -> None:
    """Its StatsD logger drops a name of more than 250 characters, the tags in it."""
    longest = max((f"nanobanana.{name}" for name in get_args(metrics.Counter)), key=len)
    sizes = metrics._LONGEST
    assert len(longest) + sum(len(f",{key}=") + size for key, size in sizes.items()) <= 250
    assert max(len(row.code) for row in FAILURE_CODES) <= sizes["code"]
    assert max(map(len, MODELS)) <= sizes["model"]


class TestResults:
    """Each image task once, summed up: a wait for thousands sends a handful of metrics."""

    def test_each_outcome_is_counted_once(self, stats: Stats) -> None:
        records = [
            record("a"),
            record("b"),
            failed("c", "content_policy_violation"),
            record("d", status=ImageTaskStatus.RUNNING, images=()),
        ]
        metrics.count_results("c", records, dict.fromkeys("abcd", MODEL))
        tags = {"conn_id": "c", "model": MODEL}
        assert sorted(stats.sent, key=str) == [
            ("nanobanana.completed", 2, tags),
            ("nanobanana.cost_micro_usd", 50_000, tags),
            ("nanobanana.failed", 1, {**tags, "code": "content_policy_violation"}),
            ("nanobanana.paid_micro_usd", 50_000, tags),
            ("nanobanana.timed_out", 1, tags),
        ]

    def test_models_are_told_apart_and_an_unknown_one_has_no_tag(self, stats: Stats) -> None:
        metrics.count_results("c", [record("a"), record("b"), record("x")], {"a": "one", "b": "two"})
        completed = [tags for name, _, tags in stats.sent if name == "nanobanana.completed"]
        assert completed == [{"conn_id": "c", "model": "one"}, {"conn_id": "c", "model": "two"}, {"conn_id": "c"}]

    def test_whatever_the_service_calls_a_failure_makes_few_time_series(self, stats: Stats) -> None:
        metrics.count_results("c", [failed(str(n), f"upstream_{n}") for n in range(50)], {})
        assert stats.sent == [("nanobanana.failed", 50, {"conn_id": "c", "code": "other"})]

    def test_what_is_refunded_costs_nothing(self, stats: Stats) -> None:
        metrics.count_results("c", [{**failed("a", "generation_failed"), "cost_usd": 0.025}], {})
        assert [name for name, _, _ in stats.sent] == ["nanobanana.failed"]

    @pytest.mark.parametrize("code", ["expired", "result_missing"])
    def test_what_is_lost_is_paid(self, stats: Stats, code: str) -> None:
        ours = {**failed("a", "any"), "error": {"code": code, "message": "no reason given"}}
        metrics.count_results("c", [{**ours, "cost_usd": 0.04}], {})
        assert ("nanobanana.cost_micro_usd", 40_000, {"conn_id": "c"}) in stats.sent

    def test_a_cost_that_is_not_told_is_not_counted(self, stats: Stats) -> None:
        metrics.count_results("c", [{**record("a"), "cost_usd": None}], {})
        assert [name for name, _, _ in stats.sent] == ["nanobanana.completed"]

    @pytest.mark.parametrize("cost", [1e308, float("inf"), float("nan"), -1.0, 1e7])
    def test_a_cost_that_no_image_has_is_not_counted(self, stats: Stats, cost: float) -> None:
        metrics.count_results("c", [{**record("a"), "cost_usd": cost}, {**record("b"), "cost_usd": 0.02}], {})
        assert [amount for name, amount, _ in stats.sent if "cost" in name] == [20_000]

    @pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300])
    def test_a_duration_that_is_none_breaks_nothing(self, stats: Stats, seconds: float) -> None:
        metrics.timing("detection_delay", seconds)
        metrics.timing("detection_delay", 1.0)
        assert stats.sent[-1][1] == timedelta(seconds=1)

    def test_cents_add_up_exactly(self, stats: Stats) -> None:
        metrics.count_results("c", [{**record(str(n)), "cost_usd": 0.029} for n in range(1000)], {})
        assert ("nanobanana.cost_micro_usd", 29_000_000, {"conn_id": "c"}) in stats.sent

    def test_no_image_task_no_metric(self, stats: Stats) -> None:
        metrics.count_results("c", [], {})
        assert stats.sent == []


class TestBrokenBackend:
    def test_nothing_is_raised(self, broken: BrokenStats) -> None:
        metrics.prepare()
        metrics.count("submitted", conn_id="c")
        metrics.timing("detection_delay", 1.0)
        metrics.count_results("c", [record("a"), failed("b", "x")], {})
        assert broken.calls == 7, "a backend that fails once may be back at the next call"

    def test_it_is_said_once_and_quietly(self, broken: BrokenStats, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger=metrics.__name__)
        for _ in range(3):
            metrics.count("polls")
        (said,) = (each for each in caplog.records if each.name == metrics.__name__)
        assert said.levelno == logging.DEBUG
        assert said.exc_info is not None
        assert isinstance(said.exc_info[1], OSError)

    def test_an_airflow_without_stats_is_no_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "airflow.providers.common.compat.sdk", None)
        metrics.count("submitted", conn_id="c")
