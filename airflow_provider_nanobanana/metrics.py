"""Our metrics, sent through Airflow's own: to StatsD, Datadog or OpenTelemetry, whatever ``[metrics]`` says.

What is sent while Airflow runs a task instance carries its ``dag_id`` and ``task_id``, also from a hook in a function
of the user's. The poller of a triggerer works for many at once: what it sends has neither.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cache, lru_cache
from typing import Any, Final, Literal

from airflow_provider_nanobanana.toapis.failure_codes import FAILURE_CODES, failure_code
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.response_values import MOST_USD

log = LineLogger(__name__)

#: Whole numbers only: Telegraf, gostatsd and OpenTelemetry's StatsD receiver cut ``0.025`` to 0 by default
#: (influxdata/telegraf#15371, atlassian/gostatsd#722, opentelemetry-collector-contrib#45276). Hence millionths.
Counter = Literal[
    "submitted",
    "shared",
    "reused",
    "completed",
    "failed",
    "timed_out",
    "polls",
    "rate_limited",
    "suspect",
    "cost_micro_usd",
    "paid_micro_usd",
    "lost_race_micro_usd",
]
Timing = Literal["detection_delay"]

#: The codes that become tags; the service may send any text, and each value is a time series of its own.
_TAGGED_CODES: Final = frozenset(row.code for row in FAILURE_CODES)
#: What Airflow's StatsD logger takes in InfluxDB's notation; it drops a metric with any other character in a tag.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")
#: Characters of a tag: with its name and all of them a metric stays below the 250 that it takes.
_LONGEST: Final[Mapping[str, int]] = {"conn_id": 34, "model": 40, "code": 28, "dag_id": 44, "task_id": 34}
#: Of a longer one the beginning is kept, and so much of its hash: two DAGs must not become one.
_HASH_DIGITS: Final = 6
_muted: Final[ContextVar[bool]] = ContextVar("muted", default=False)


def count(name: Counter, amount: int = 1, **tags: str | None) -> None:
    """Add to the counter ``nanobanana.<name>``; a tag of None is left out. Never raises, whatever the backend does."""
    _guarded(lambda stats: stats.incr(f"nanobanana.{name}", count=amount, tags=_all_tags(tags)))


def timing(name: Timing, seconds: float, **tags: str | None) -> None:
    """Record the duration ``nanobanana.<name>``; one below zero, as between two clocks, is zero. Never raises."""
    # A timedelta leaves no doubt about the unit; every backend makes milliseconds of it.
    _guarded(
        lambda stats: stats.timing(f"nanobanana.{name}", timedelta(seconds=max(0.0, seconds)), tags=_all_tags(tags))
    )


@contextmanager
def muted() -> Iterator[None]:
    """Send nothing from within the block, nor from the threads that work for it: nothing happens there."""
    token = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(token)


def prepare() -> None:
    """Make the backend ready, which imports it and looks its host up; in a thread where an event loop runs."""
    _guarded(lambda stats: stats.timer())


def count_results(conn_id: str, records: Sequence[Mapping[str, Any]], models: Mapping[str, str | None]) -> None:
    """Count each image task of a wait and what it cost, which is what was paid; to be called where the wait ends.

    :param records: From ``PollResult.to_record``, of image tasks that were bought for this wait.
    :param models: The model of each image task as the service names it, by id.
    """
    sums: defaultdict[tuple[Counter, str | None, str | None], int] = defaultdict(int)
    for record in records:
        model = models.get(record["id"])
        sums[(*_outcome(record), model)] += 1
        for money in ("cost_micro_usd", "paid_micro_usd"):
            sums[money, None, model] += _micro_usd(record)
    for (name, code, model), amount in sums.items():
        if amount:
            count(name, amount, conn_id=conn_id, model=model, code=code)


def code_tag(code: str) -> str:
    """Return the code that becomes a tag: each value is a time series of its own."""
    return code if code in _TAGGED_CODES else "other"


def _outcome(record: Mapping[str, Any]) -> tuple[Counter, str | None]:
    if record["status"] == "completed":
        return "completed", None
    if record["status"] == "timeout":
        return "timed_out", None
    return "failed", code_tag(record["error"]["code"])


def _micro_usd(record: Mapping[str, Any]) -> int:
    """Return what the service settled; of a failed image task that is what it gives back."""
    paid = record["status"] == "completed" or failure_code(record["error"]["code"]).charged == "yes"
    return micro_usd(record["cost_usd"]) if paid else 0


def micro_usd(cost: float | None) -> int:
    """Return a cost in USD as millionths; one that no image can have had counts as nothing."""
    return round(cost * 1_000_000) if cost is not None and 0 <= cost <= MOST_USD else 0


def _all_tags(tags: Mapping[str, str | None]) -> dict[str, str]:
    """Return the tags that a backend takes, with those of the task instance that this process runs."""
    every = {**tags, **_of_task_instance()}
    return {key: _tag(value, _LONGEST[key]) for key, value in every.items() if value}


def _of_task_instance() -> dict[str, str]:
    try:
        ti = _current_context()()["ti"]
    except RuntimeError:  # Airflow's word for: none, as in a triggerer
        return {}
    return {"dag_id": ti.dag_id, "task_id": ti.task_id}


@lru_cache(maxsize=256)
def _tag(value: str, most: int) -> str:
    plain = _UNSAFE.sub("_", value)
    if len(plain) <= most:
        return plain
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{plain[: most - _HASH_DIGITS - 1]}_{digest[:_HASH_DIGITS]}"


def _guarded(send: Callable[[Any], object]) -> None:
    if _muted.get():
        return
    try:
        send(_stats())
    except Exception as error:  # noqa: BLE001 - a backend is foreign code, and behind this call is a paid image
        _note_once(type(error).__name__)


@cache
def _stats() -> Any:
    """Return Airflow's stats, looked up once: the look-up itself costs more than a metric."""
    from airflow.providers.common.compat.sdk import Stats

    from airflow_provider_nanobanana.compat import give_stats_their_backend

    give_stats_their_backend()
    return Stats


@cache
def _current_context() -> Callable[[], Mapping[str, Any]]:
    """Return Airflow's function for the context of the task instance that this process runs, looked up once."""
    from airflow.providers.common.compat.sdk import get_current_context

    current: Callable[[], Mapping[str, Any]] = get_current_context
    return current


@cache
def _note_once(kind: str) -> None:
    """Log the error that is being handled, once for each kind and process."""
    log.debug("A metric was not sent (%s); this is said once.", kind, exc_info=True)
