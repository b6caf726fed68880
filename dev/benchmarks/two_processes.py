"""Two triggerer processes that do not know of each other, on one account: is its rate used, and is it shared?

- `two-processes`: more polls are wanted than the account answers: 500 image tasks wait in each process, and none is
  ever completed. The rate is that of the 200s, over the limit; the smaller share is that of the process that got fewer
  of them. Both are taken over 60 s: from the first poll of both where they start together; from 15 s after the second
  one's first poll where it comes 20 s later. The three accounts are measured at the same time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from dev.benchmarks.child import child
from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.scenario import POLL_INTERVAL, Bench, Figures, Goal, Measured, Scenario

_PROCESSES = 2
#: Nothing completes.
_RATES = Rates(limiter="sliding_window", latency=100_000.0, sigma=0.0)
#: Seconds that the image tasks are said to have waited already, so that all their polls are due.
_AGE = 100.0
#: Seconds within which a process that was told to sends its first poll.
_LONGEST_START = 60.0


@dataclass(frozen=True)
class Meeting:
    """How two processes meet on an account.

    :param second_after: Seconds between the starts of both.
    :param settle: Seconds from the first poll of the second process until measuring begins.
    """

    rates: Rates
    second_after: float = 0.0
    settle: float = 0.0


_MEETINGS = {
    "exact sliding window": Meeting(_RATES),
    "the same without headers": Meeting(replace(_RATES, limit_headers=False)),
    "the second 20 s later": Meeting(_RATES, second_after=20.0, settle=15.0),
}


def measure(bench: Bench) -> Measured:
    """Measure all meetings at once, each on an account of its own."""
    waiting, seconds = (60, 5.0) if bench.quick else (500, 60.0)
    with ThreadPoolExecutor(len(_MEETINGS)) as pool:
        running = {name: pool.submit(_meet, bench, name, waiting, seconds) for name in _MEETINGS}
        runs = {name: one.result() for name, one in running.items()}
    meetings = {name: asdict(meeting) for name, meeting in _MEETINGS.items()}
    setting = {"waiting": waiting, "seconds": seconds, "interval": POLL_INTERVAL, "meetings": meetings}
    note = "not run: two of the usual kind ask all the time, whatever they are answered"
    return Measured(setting, {"runs": runs}, None, [note])


def _meet(bench: Bench, name: str, waiting: int, seconds: float) -> Figures:
    meeting = _MEETINGS[name]
    folder = bench.fresh(f"two-processes-{list(_MEETINGS).index(name)}")
    rate = meeting.rates.query_rate
    with ExitStack() as stack:
        service = stack.enter_context(account(folder, meeting.rates, bench.seed))
        connection = service.connection_json(query_rate=rate)
        processes = [
            stack.enter_context(child(folder / f"triggerer-{number}", connection, "trigger_process", "ours"))
            for number in range(_PROCESSES)
        ]
        ids = [image_task_id for image_task_id, _ in service.submit(_PROCESSES * waiting)]
        owners = {image_task_id: number % _PROCESSES for number, image_task_id in enumerate(ids)}
        for number, process in enumerate(processes):
            created = time.time() - _AGE
            process.send(watch=[(image_task_id, created) for image_task_id in ids[number::_PROCESSES]])
            if number == 0:
                time.sleep(meeting.second_after)
        deadline = time.monotonic() + _LONGEST_START
        while (begin := begun(service.answers("status"), owners)) is None and time.monotonic() < deadline:
            time.sleep(0.5)
        if begin is None:
            raise RuntimeError("a process under test has not polled at all")
        begin += meeting.settle
        time.sleep(max(0.0, begin + seconds - time.time()))
        figures = shares(service.answers("status"), owners, begin, begin + seconds)
        reports = [process.ask(end="cancel") for process in processes]
    used = figures["accepted"] / (rate * seconds)
    bench.say(f"two-processes, {name}: {100 * used:.1f} % of the rate, the smaller share {figures['smaller']:.2f}")
    return {**figures, "used": used, "cpu_seconds": [report["cpu_seconds"] for report in reports]}


def begun(answers: Iterable[Figures], owners: Mapping[str, int]) -> float | None:
    """Return from when on every process was answered, in epoch seconds; None while one was not."""
    first: dict[int, float] = {}
    for answer in answers:
        first.setdefault(owners[_image_task_id(answer)], answer["at"])
    return max(first.values()) if len(first) == len(set(owners.values())) else None


def shares(answers: Iterable[Figures], owners: Mapping[str, int], begin: float, end: float) -> Figures:
    """Return what the account answered in a span of time.

    :param owners: The process that polls each image task.
    :return: ``accepted`` (200s), of each process in ``each``, its ``smaller`` share of them (0 to 1), ``limited``
        (429s), and their share of all answers (``refused``).
    """
    span = [answer for answer in answers if begin <= answer["at"] < end]
    accepted = Counter(owners[_image_task_id(answer)] for answer in span if answer["status"] == 200)
    each = [accepted[process] for process in sorted(set(owners.values()))]
    limited = sum(answer["status"] == 429 for answer in span)
    return {
        "accepted": sum(each),
        "each": each,
        "smaller": min(each) / max(1, sum(each)),
        "limited": limited,
        "refused": limited / max(1, len(span)),
    }


def _image_task_id(answer: Figures) -> str:
    return str(answer["path"]).rpartition("/")[2]


def _shown(of: Figures) -> str:
    return f"{100 * of['used']:.1f} %, {100 * of['smaller']:.0f} % ({100 * of['refused']:.2f} % were 429)"


def _goal(meeting: str) -> Goal:
    return Goal(
        f"two processes on one account, 60 s, {meeting}: sum of their rates, the smaller share",
        "≥ 92 % of the limit, ≥ 40 %",
        lambda of: _shown(of["runs"][meeting]),
        lambda ours, _: ours["runs"][meeting]["used"] >= 0.92 and ours["runs"][meeting]["smaller"] >= 0.4,
    )


SCENARIOS = [Scenario("two-processes", measure, [_goal(meeting) for meeting in _MEETINGS])]
