"""What the Generate operator is measured by."""

from __future__ import annotations

from dev.benchmarks.bench import Figures
from dev.benchmarks.goal import Goal

_MB = 1_000_000
#: A value of Airflow's task state store holds so many bytes of JSON (``[state_store] max_value_storage_bytes``).
_STATE_VALUE = 65_535


def _whole(of: Figures) -> bool:
    """Whether every image is in place and every one was paid once."""
    return bool(of["landed"] == of["charges"] == of["count"] and not of["duplicates"] and not of["lost"])


def _bought(of: Figures) -> str:
    return f"{of['landed']:,} images, {of['charges']:,} charges"


def _state(of: Figures) -> str:
    ledger = of["ledger"]
    sizes = (ledger["largest"], of["event_bytes"], of["result_bytes"])
    return f"{', '.join(f'{size:,} B' for size in sizes)} (ledger {ledger['total'] / 1000:.0f} kB)"


def _state_met(ours: Figures, baseline: Figures) -> bool:
    return bool(
        ours["ledger"]["largest"] <= _STATE_VALUE and ours["event_bytes"] < 4000 and ours["result_bytes"] < 4000
    )


def _generate(scenario: str, title: str) -> tuple[Goal, ...]:
    """Return what a Generate task with thousands of requests is measured by."""
    return (
        Goal(
            f"{title}: share of the account's submit rate, first process to last image",
            scenario,
            "≥ 60 %, each image there, paid once",
            lambda of: f"{100 * of['share']:.0f} % ({of['wall_seconds']:.0f} s); {_bought(of)}",
            lambda ours, _: ours["share"] >= 0.6 and _whole(ours),
        ),
        Goal(
            "the same: peak memory of its worker processes",
            scenario,
            "< 400 MB",
            lambda of: f"{of['peak_bytes'] / _MB:.0f} MB",
            lambda ours, _: ours["peak_bytes"] < 400 * _MB,
        ),
        Goal(
            "the same: longest stretch of a worker process",
            scenario,
            "about 2 minutes (< 130 s)",
            lambda of: f"{of['longest_stretch']:.0f} s of {len(of['stretches'])} stretches",
            lambda ours, _: ours["longest_stretch"] < 130,
        ),
        Goal(
            "the same: largest state value, trigger event, XCom",
            scenario,
            f"≤ {_STATE_VALUE:,} B, < 4,000 B, < 4,000 B",
            _state,
            _state_met,
        ),
    )


def _killed(of: Figures) -> str:
    return f"{len(of['kills'])} kills, {_bought(of)}, {of['wall_seconds']:.0f} s"


def _ways(of: Figures, figure: str) -> str:
    return ", ".join(f"{name} {way[figure]:,.0f} s" for name, way in of.items())


def _fewest(figure: str) -> Goal:
    """Return the goal that Generate takes the least of what each way to make 1,000 images takes."""

    def met(ours: Figures, baseline: Figures) -> bool:
        ways = {**ours, **baseline}
        return bool(min(ways, key=lambda name: ways[name][figure]) == "generate" and not ours["generate"]["failed"])

    title = f"1,000 images, 8 worker slots: {figure.replace('_', ' ')}"
    return Goal(title, "generate-vs", "Generate takes the least", lambda of: _ways(of, figure), met)


GENERATE = (
    *_generate("generate-2000", "2,000 requests in one Generate task, 5 submits/s"),
    *_generate("generate-10000", "10,000 requests in one Generate task, 33 submits/s"),
    Goal(
        "1,000 requests in one Generate task, its worker killed 5 times",
        "generate-kills",
        "charges = images, nothing lost",
        _killed,
        lambda ours, _: len(ours["kills"]) == 5 and _whole(ours),
    ),
    *(_fewest(figure) for figure in ("wall_seconds", "worker_seconds", "cpu_seconds")),
)
