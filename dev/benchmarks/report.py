"""The page and the lines for the terminal, made of the results. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dev.benchmarks.goal import Goal
from dev.benchmarks.results import Results
from dev.benchmarks.scenario import GOALS

PLOT = "benchmarks.svg"

_HEAD = """# Benchmarks

Thousands of waiting images on one triggerer, measured side by side with the usual way of waiting: a trigger that opens
its own `httpx.AsyncClient` and polls every 5 s (`dev/benchmarks/baseline.py`); and thousands of images from one
Generate task. `make bench` wrote this page and measures it again; nothing here is typed in by hand.
"""

_HOW = """## How it is measured

Every scenario runs in fresh processes: the service in one (the emulator, which enforces the account's limits and keeps
the books), what is under test in others. Latencies are lognormal, median 25 s, sigma 0.4, in real time unless a
setting says otherwise. A delay runs from the moment at which the service's books say *completed* to the moment at
which the trigger yields its event, with one trigger per image task. Lag is what a 50 ms sleep on the same loop takes
longer than 50 ms. Both sides get the same seed. A 429 or an error is slept over by the baseline; the usual provider
would fail the task.

- `poll-1000`: 1,000 image tasks submitted at once, both sides one after the other. CPU is the process time of the
  process under test, from the first trigger's start to the last one's end, opening clients included. The answers are
  those of the status route, 429s included.
- `poll-60`: five rounds with seeds of their own, each in fresh processes that have learnt nothing, pooled.
- `poll-5000`: latencies three times as long, so that the window is long enough. It ends when so few image tasks are
  unfinished that their polls, one every 5 s, fit into the rate. Only 200s count as polls.
- `memory`: nothing completes; resident memory with 20 triggers, and again with 1,000 more (200 for the baseline),
  each polled at least once.
- `account-1`, `account-32`: 1,000 image tasks wait from the start, 500 on each of two triggerer processes, while 32
  worker processes run the submit operator in a loop for 75 s, deferrals included, and the triggerers watch what they
  bought. 5 submits and 50 queries a second for all together. Nobody knows of the others but through the service and,
  where workers are on one machine, through its temporary folder. The baseline's workers start one task a second each
  and send one POST; its tasks fail on a 429. Shares leave out the first 10 s.
- `triggerer`: Airflow's own processes. 300 mapped sensors defer, wait, and are all started anew by a restarted
  triggerer, the extreme case of "at once"; a timer beside them wakes every second and notes how late it is. The
  verdict is on the seconds in which all 300 wait, before and after the restart.
- `generate-2000`, `generate-10000`: one task instance of the Generate operator in real time, latencies included, at
  the limits of the default account (5 submits and 50 queries a second, 1K pictures) and of the largest (33.3 and 500,
  0.5K pictures, since two cores cannot draw and verify 33 of 1K a second). Every stretch of work is a fresh process,
  timed from its start to its end, and its peak is what its kernel counted (`VmHWM`); triggers are rebuilt from JSON in
  another process. The task's state store is a folder and answers faster than Airflow's API. The share is requests
  over submit rate times the whole time, from the first process to the last image in place, waits included. Images lie
  in a file system in memory.
- `generate-kills`: the worker process of such a task is killed (SIGKILL) at five random points between the first
  submit and 90 % of the way, and retried at once. The account is four times as fast as the default one.
- `generate-vs`: Airflow's own processes with 8 worker slots, one account at the default limits, the three ways one
  after another: one Generate task; a mapped task group of submit, wait and download; and a mapped task that submits,
  sleeps 5 s, asks, downloads, and holds its worker meanwhile. Generate makes all 1,000 images. The other two make
  48 and 32, and what 1,000 take is reckoned: slots and CPU in proportion, and no slot ever free, which favours them:
  a run of all 1,000 pipelines, on 2026-11-22, was stopped after 25 minutes, when the scheduler had let 760 submits run
  and no image had landed.
  Worker seconds are those in which a slot holds a task; CPU is that of all of Airflow's processes, less what an idle
  Airflow uses.
"""


def verdicts(results: Results, scenarios: Sequence[str]) -> list[str]:
    """Return one line for each goal of these scenarios: met or missed, with the figures."""
    lines = []
    for goal in GOALS:
        if goal.scenario in scenarios and goal.scenario in results:
            measured = results[goal.scenario].measured
            outcome = f"goal {goal.verdict(measured)}".ljust(11)
            lines.append(f"{outcome}  {goal.figure}: {goal.ours(measured)}; baseline {goal.baseline(measured)}")
            lines.append(f"{'':11}  wanted: {goal.wanted}")
    return lines


def page(results: Results) -> str:
    """Return the page in Markdown."""
    parts = [_HEAD, table(["figure", "goal", "ours", "baseline", ""], [_row(goal, results) for goal in GOALS])]
    parts += _remarks(results)
    if "poll-1000" in results:
        parts.append(f"![How late images are noticed, and how many by when]({PLOT})\n")
    parts += _origin(results)
    parts.append(_HOW)
    if windowed := [name for name in ("account-1", "account-32") if name in results]:
        parts.append("## Share of 429 answers over time\n")
        parts.append(_windows({name: results[name] for name in windowed}))
    return "\n".join(parts)


def _row(goal: Goal, results: Results) -> list[str]:
    result = results.get(goal.scenario)
    measured = result.measured if result else None
    verdict = goal.verdict(measured)
    shown = "**missed**" if verdict == "missed" else verdict
    return [goal.figure, goal.wanted, goal.ours(measured), goal.baseline(measured), shown]


def _remarks(results: Results) -> list[str]:
    notes = [f"- `{name}`, baseline: {note}." for name, result in results.items() for note in result.measured.notes]
    return ["\n".join(notes) + "\n"] if notes else []


def _origin(results: Results) -> list[str]:
    """Say what made the figures; one line where all were made alike."""
    rows = [[name, one.made, f"`{one.command}`", str(one.seed), one.machine] for name, one in results.items()]
    if not rows:
        return ["Nothing has been measured yet.\n"]
    if len({tuple(row[1:]) for row in rows}) == 1:
        _, made, command, _, machine = rows[0]
        return [f"Made on {made} by {command} on {machine}.\n"]
    return [table(["scenario", "made", "command", "seed", "machine"], rows)]


def _windows(results: Results) -> str:
    columns = [
        (name, side, figures["windows"])
        for name, result in results.items()
        for side, figures in (("ours", result.measured.ours), ("baseline", result.measured.baseline))
        if figures
    ]
    heads = [f"{name}, {side}: {kind}" for name, side, _ in columns for kind in ("submits", "polls")]
    series = [windows[kind] for _, _, windows in columns for kind in ("submits", "polls")]
    longest = max((len(one) for one in series), default=0)
    starts = [next(one[number]["start"] for one in series if number < len(one)) for number in range(longest)]
    rows = [
        [f"{start:.0f} s", *(_of(one[number]) if number < len(one) else "" for one in series)]
        for number, start in enumerate(starts)
    ]
    return table(["from", *heads], rows)


def _of(window: dict[str, float]) -> str:
    return f"{window['limited']:.0f} of {window['answers']:.0f}" if window["answers"] else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    :raises ValueError: A row is not as long as the head.
    """
    if any(len(row) != len(heads) for row in rows):
        raise ValueError("every row has one cell for each column")
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
