"""Breadth-first search through all that buyers of one image can come to, deciding with the real ``decide_claim``.

A buyer reads the highest claim and its age, then its book and what the service shows, decides, creates, POSTs and
lands; between any two of these everything else may happen: kills, lost answers, lost creates, failures, clears. What
is found first is a shortest story. Time is one bit a claim: whether all that it may still bring has had its time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from typing import Any, NamedTuple

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claims import (
    POST_WINDOW,
    BookEntry,
    Buyer,
    Claim,
    ClaimAction,
    ClaimFacts,
    decide_claim,
)
from airflow_provider_nanobanana.durable.reconcile import MIN_LOOKUPS, Lookup, SubmissionPolicy
from airflow_provider_nanobanana.toapis.models import ImageTask, ImageTaskError
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

NOW = 1_790_000_000.0
RETRIES = 3


class Made(NamedTuple):
    """A claim: who made it in which try, whether it is old, and what its book says."""

    by: int
    tries: int
    old: bool = False
    book: str = ""


class Buying(NamedTuple):
    """A buyer: what it does next, with which generation, whether that was old when it was read; its try and clears."""

    at: str = "start"
    n: int = 0
    old: bool = False
    tries: int = 1
    before: int = 0


class State(NamedTuple):
    """All there is; ``tasks`` by generation: "" (no image task), hidden, shown, failed, refused, gone."""

    file: bool
    chain: tuple[Made, ...]
    tasks: tuple[str, ...]
    buyers: tuple[Buying, ...]
    left: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Found:
    """How a search ended.

    :param story: The shortest one to two living image tasks, or to buyers who come no further; empty where all is well.
    :param complete: Whether everything was looked at.
    """

    states: int
    story: list[str]
    complete: bool


@cache
def decide(
    policy: SubmissionPolicy, own: bool, made_in: int, tries: int, before: int, n: int, old: bool, book: str, task: str
) -> tuple[ClaimAction, str]:
    """Return what the real decision says, after the look-up that it asks for."""
    me = Buyer(run_id="me", try_number=tries)
    by = Buyer(run_id="me" if own else "other", try_number=made_in)
    top = Claim(stem="kite-0", digest="a" * 64, nonce="b" * 32, n=n, at=NOW, by=by, book="c" * 32)
    attempt = TaskAttempt.of(try_number=tries, max_tries=before + RETRIES, retries=RETRIES, started_at=NOW)
    facts = ClaimFacts(top, me, attempt, policy, written_at=NOW)
    if old:
        facts = replace(facts, age=POST_WINDOW + policy.visibility_delay, looks=MIN_LOOKUPS)
    if book:
        facts = replace(facts, book=BookEntry(book, "tsk_1" if book == "bought" else ""))  # type: ignore[arg-type]
    decision = decide_claim(facts, NOW)
    if decision.action is ClaimAction.LOOK_UP:
        visible = task not in ("", "hidden") or (task == "hidden" and decision.by_image_task_id)
        facts = replace(facts, lookup=Lookup(decision.target, _image_task(task) if visible else None))
        decision = decide_claim(facts, NOW)
    return decision.action, decision.because


def _image_task(task: str) -> ImageTask:
    fields: dict[str, Any] = {
        "failed": {"status": ImageTaskStatus.FAILED, "error": ImageTaskError(code="x", message="x")},
        "refused": {
            "status": ImageTaskStatus.FAILED,
            "error": ImageTaskError(code="content_policy_violation", message="x"),
        },
        "gone": {"status": ImageTaskStatus.COMPLETED, "completed_at": NOW - 90_000},
    }.get(task, {})
    return ImageTask(id="tsk_1", created_at=NOW, **{"status": ImageTaskStatus.RUNNING, **fields})


def search(policy: SubmissionPolicy, buyers: int, most: int = 10**7, **left: int) -> Found:
    """Look at everything that can happen.

    :param left: How often each of ``kill``, ``retry``, ``clear``, ``failed``, ``refused``, ``gone`` (its link is dead),
        ``lose`` (an answer), ``lose_create``, ``release``, ``stall`` (between clock and socket) and ``generation`` may
        happen.
    """
    first = State(False, (), (), (Buying(),) * buyers, tuple(sorted(left.items())))
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        following = list(_following(state, policy))
        bad = sum(task in ("hidden", "shown") for task in state.tasks) > 1
        # Who waits for another's image task goes on when that does.
        if bad or (not following and not state.file and any(b.at not in _ENDED for b in state.buyers)):
            return Found(len(came_from), _story(came_from, state), complete=False)
        for label, after in following:
            plain = _canonical(after)
            if plain not in came_from:
                came_from[plain] = (state, label)
                queue.append(plain)
        if len(came_from) > most:
            return Found(len(came_from), [], complete=False)
    return Found(len(came_from), [], complete=True)


_ENDED = ("done", "dead", "stopped")


def _story(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    story = []
    while (before := came_from[state]) is not None:
        state, label = before
        story.append(label)
    return story[::-1]


def _canonical(state: State) -> State:
    """Return the one of all states that differ in the buyers' numbers only."""
    best: State | None = None
    for order in permutations(range(len(state.buyers))):
        number = {old: new for new, old in enumerate(order)}
        chain = tuple(made._replace(by=number[made.by]) for made in state.chain)
        candidate = state._replace(buyers=tuple(state.buyers[old] for old in order), chain=chain)
        if best is None or candidate < best:
            best = candidate
    assert best is not None
    return best


def _spend(state: State, what: str) -> State | None:
    left = dict(state.left)
    if left.get(what, 0) <= 0:
        return None
    left[what] -= 1
    return state._replace(left=tuple(sorted(left.items())))


def _following(state: State, policy: SubmissionPolicy) -> Steps:
    for i, buyer in enumerate(state.buyers):
        for label, after in _steps(state, i, buyer, policy):
            yield f"P{i} {label}", after
    yield from _service(state)
    yield from _time(state)


def _go(state: State, i: int, buyer: Buying, at: str, n: int = 0, old: bool = False) -> State:
    moved = buyer._replace(at=at, n=n, old=old)
    return state._replace(buyers=(*state.buyers[:i], moved, *state.buyers[i + 1 :]))


def _task(state: State, n: int, task: str) -> State:
    return state._replace(tasks=(*state.tasks[:n], task, *state.tasks[n + 1 :]))


def _claim(state: State, n: int, **changes: object) -> State:
    made = state.chain[n]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(chain=(*state.chain[:n], made, *state.chain[n + 1 :]))


Steps = Iterator[tuple[str, State]]


def _steps(state: State, i: int, buyer: Buying, policy: SubmissionPolicy) -> Steps:
    match buyer.at:
        case "start":
            label, following = ("finds the file", "done") if state.file else ("begins", "read")
            yield label, _go(state, i, buyer, following)
        case "read":
            yield from _read(state, i, buyer)
        case "ask":
            yield _ask(state, i, buyer, policy)
        case "create":
            yield from _create(state, i, buyer)
        case "post" | "socket" | "answer":
            yield from _buy(state, i, buyer)
        case "wait":
            yield from _wait(state, i, buyer)
    yield from _fate(state, i, buyer)


def _read(state: State, i: int, buyer: Buying) -> Steps:
    if not state.chain:
        yield "finds no claim", _go(state, i, buyer, "create")
        return
    top = len(state.chain) - 1
    yield f"reads g{top}", _go(state, i, buyer, "ask", top, state.chain[top].old)


def _ask(state: State, i: int, buyer: Buying, policy: SubmissionPolicy) -> tuple[str, State]:
    n = buyer.n
    made = state.chain[n]
    action, because = decide(
        policy, made.by == i, made.tries, buyer.tries, buyer.before, n, buyer.old, made.book, state.tasks[n]
    )  # fmt: skip
    match action:
        case ClaimAction.CREATE:
            after = _go(state, i, buyer, "done") if state.file else _go(state, i, buyer, "create", n + 1)
            return f"takes over g{n}: {because}", after
        case ClaimAction.SHARE:
            return f"shares what g{n} bought", _go(state, i, buyer, "wait", n)
        case ClaimAction.HOLD:
            return f"waits for g{n}", _go(state, i, buyer, "start")
    return f"stops at g{n}", _go(state, i, buyer, "stopped")


def _buy(state: State, i: int, buyer: Buying) -> Steps:
    n = buyer.n
    if buyer.at == "post":
        given_up = _go(_claim(state, n, book="released"), i, buyer, "start")
        if state.chain[n].old:
            yield f"is too late for its POST of g{n}", given_up
            return
        yield f"may POST g{n}", _go(state, i, buyer, "socket", n)
        if less := _spend(given_up, "release"):
            yield f"releases g{n}", less
    elif buyer.at == "socket":
        yield f"POSTs g{n}", _go(_task(state, n, "hidden"), i, buyer, "answer", n)
    else:
        yield f"books g{n}", _go(_claim(state, n, book="bought"), i, buyer, "wait", n)
        if less := _spend(state, "lose"):
            yield f"loses the answer of g{n}", _go(less, i, buyer, "start")


def _wait(state: State, i: int, buyer: Buying) -> Steps:
    n = buyer.n
    if state.file:
        yield "finds the file", _go(state, i, buyer, "done")
    elif state.tasks[n] == "shown":
        yield f"lands g{n}", _go(state._replace(file=True), i, buyer, "done")
    elif state.tasks[n] != "hidden":
        yield f"sees that g{n} is {state.tasks[n]}", _go(state, i, buyer, "start")


def _create(state: State, i: int, buyer: Buying) -> Steps:
    n = buyer.n
    if len(state.chain) != n:
        yield f"is too late for g{n}", _go(state, i, buyer, "start")
        return
    begun = _spend(state, "generation")
    if begun is None:
        yield "is not looked at any further", _go(state, i, buyer, "stopped")
        return
    made = Made(i, buyer.tries)
    created = begun._replace(chain=(*begun.chain, made), tasks=(*begun.tasks, ""))
    yield f"creates g{n}", _go(created, i, buyer, "post", n)
    if less := _spend(created, "lose_create"):
        yield f"creates g{n} and does not learn it", _go(_claim(less, n, book="released"), i, buyer, "start")


def _fate(state: State, i: int, buyer: Buying) -> Steps:
    """Kills, retries, clears."""
    if buyer.at in _ENDED:
        if buyer.at == "dead" and (less := _spend(state, "retry")):
            yield "is retried", _go(less, i, buyer._replace(tries=buyer.tries + 1), "start")
        if buyer.at != "done" and (less := _spend(state, "clear")):
            yield "is cleared", _go(less, i, buyer._replace(tries=buyer.tries + 1, before=buyer.tries), "start")
        return
    if buyer.at != "start" and (less := _spend(state, "kill")):
        yield f"is killed before it would {buyer.at}", _go(less, i, buyer, "dead")
        if buyer.at == "socket":
            yield (
                f"is killed, its POST of g{buyer.n} is accepted",
                _go(_task(less, buyer.n, "hidden"), i, buyer, "dead"),
            )


def _service(state: State) -> Steps:
    for n, task in enumerate(state.tasks):
        if task == "hidden":
            yield f"the service shows g{n}", _task(state, n, "shown")
        if task == "shown":
            for what in ("failed", "refused", "gone"):
                if (not state.file or what == "gone") and (less := _spend(state, what)):
                    yield f"g{n} is {what}", _task(less, n, what)


def _time(state: State) -> Steps:
    """A claim grows old when all that it may bring shows; nobody stands longer between the clock and the socket."""
    for n, made in enumerate(state.chain):
        if made.old or state.tasks[n] == "hidden":
            continue
        in_time = not any(buyer.at == "socket" and buyer.n == n for buyer in state.buyers)
        aged = _claim(state, n, old=True)
        if in_time:
            yield f"g{n} grows old", aged
        elif less := _spend(aged, "stall"):
            yield f"g{n} grows old while its owner stands still before the socket", less
