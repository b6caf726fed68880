"""When polling begins: the prior, and what the answers teach."""

from __future__ import annotations

import random

import pytest

from airflow_provider_nanobanana.polling.latency import LatencyEstimator, LatencyPrior, latency_key


def test_the_prior_is_the_lower_quantile_of_field_notes() -> None:
    age = LatencyEstimator().first_poll_age("nano_banana_2/1K")
    assert age == pytest.approx(LatencyPrior().quantile(0.21), abs=0.3)
    assert LatencyPrior().quantile(0.5) == pytest.approx(25.0)


@pytest.mark.parametrize("median", [8.0, 60.0])
def test_it_learns_what_the_answers_tell(median: float) -> None:
    chance, latencies, truth = random.Random(3), LatencyEstimator(), LatencyPrior(median)
    for _ in range(150):
        latencies.observe("a", chance.lognormvariate(0, 0.4) * median)
    assert latencies.first_poll_age("a") == pytest.approx(truth.quantile(0.21), rel=0.2)
    assert latencies.first_poll_age("b") == LatencyEstimator().first_poll_age("b"), "one kind says nothing of another"


def test_it_follows_a_change() -> None:
    latencies = LatencyEstimator()
    for seconds in [10.0] * 1000 + [50.0] * 200:
        latencies.observe("a", seconds)
    assert latencies.first_poll_age("a") == 50.0


@pytest.mark.parametrize("absurd", [-5.0, 0.0, 1e9, float("nan"), float("inf")])
def test_a_wrong_clock_teaches_nothing(absurd: float) -> None:
    latencies = LatencyEstimator()
    for _ in range(300):
        latencies.observe("a", absurd)
    assert latencies.first_poll_age("a") == LatencyEstimator().first_poll_age("a")


def test_a_kind_is_model_and_resolution_as_far_as_known() -> None:
    assert (latency_key("m", "2K"), latency_key("m"), latency_key(None, "4K")) == ("m/2K", "m", "nano_banana_2/4K")


def test_kinds_are_kept_as_long_as_they_are_among_the_latest() -> None:
    """The service names its models itself: each build may have a name of its own."""
    latencies = LatencyEstimator()
    for number in range(1000):
        latencies.observe(f"model-{number}", 50.0)
        assert latencies.first_poll_age(f"model-{number}") > 0
        latencies.observe("constant", 80.0)
    assert len(latencies._samples) == len(latencies._first) + 1 == 64
    assert latencies.first_poll_age("constant") == pytest.approx(80.0)
    assert latencies.first_poll_age("model-1") == LatencyEstimator().first_poll_age("model-1")
