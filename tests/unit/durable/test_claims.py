"""Who may buy the image of one file: the rows of ``docs/durability.md``, "Claims", and their neighbours."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claims import (
    DEAD_SECONDS,
    MOST_BOOK_BYTES,
    MOST_BYTES,
    POST_WINDOW,
    BookEntry,
    Buyer,
    Claim,
    ClaimAction,
    ClaimDecision,
    ClaimFacts,
    ClaimHeld,
    Damaged,
    Settled,
    Sighting,
    claim_name,
    claimed_client_id,
    decide_claim,
    encode_book,
    entry_of,
    parse_book,
    parse_claim,
    settle_seconds,
)
from airflow_provider_nanobanana.durable.reconcile import MIN_LOOKUPS, Lookup, SubmissionPolicy
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageTask, ImageTaskError
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.claim_world import Instance, Machine, Process, StoreFate, World

WORKFLOW = "airflow_provider_nanobanana.submission.workflow"
NOW = 1_790_000_100.0
STEM = "kite-0123456789"
DIGEST = "0123456789" + "a" * 54
ME = Buyer(dag_id="dag", run_id="today", task_id="images", try_number=2)
OTHER = Buyer(namespace="staging", dag_id="dag", run_id="yesterday", task_id="images", map_index=3, try_number=1)
FIRST = TaskAttempt.of(try_number=1, max_tries=2, retries=2, started_at=NOW)
RETRY = TaskAttempt.of(try_number=2, max_tries=2, retries=2, started_at=NOW)
CLEARED = TaskAttempt.of(try_number=2, max_tries=3, retries=2, started_at=NOW)
CLEARED_RETRY = TaskAttempt.of(try_number=3, max_tries=3, retries=2, started_at=NOW)
POLICY = SubmissionPolicy()
BLIND = SubmissionPolicy(client_ids=False)
CAREFUL = SubmissionPolicy(on_unknown_submission="fail")
BOUGHT = BookEntry("bought", "tsk_1")
OLD = POST_WINDOW + POLICY.visibility_delay


def claim(by: Buyer = OTHER, n: int = 0, **changes: Any) -> Claim:
    """Return a claim as it is stored: made from its text."""
    fields: dict[str, Any] = {
        "v": 1, "stem": STEM, "digest": DIGEST, "nonce": "b" * 32, "n": n, "because": "first", "prev": None, "at": NOW,
        "by": by.model_dump(by_alias=True), "book": "c" * 32, "ids": True, "settles": 0.0,
    }  # fmt: skip
    found = parse_claim(json.dumps({**fields, **changes}).encode(), stem=STEM, digest=DIGEST, n=n)
    assert isinstance(found, Claim), found
    return found


THEIRS = claim()
MINE = claim(ME.model_copy(update={"try_number": 1}))


def found(*, top: Claim = THEIRS, status: Any = ImageTaskStatus.RUNNING, **fields: Any) -> Lookup:
    target = fields.pop("target", top.client_business_id)
    return Lookup(target, ImageTask(id="tsk_1", status=status, **{"created_at": NOW, **fields}))


def absent(top: Claim = THEIRS) -> Lookup:
    return Lookup(top.client_business_id)


def decide(top: Claim | Damaged | None = THEIRS, now: float = NOW, **given_facts: Any) -> ClaimDecision:
    facts: dict[str, Any] = {"buyer": ME, "attempt": FIRST, "policy": POLICY, "written_at": NOW, **given_facts}
    return decide_claim(ClaimFacts(top, **facts), now)


def failure(decision: ClaimDecision, kind: type[errors.ToApisError]) -> errors.ToApisError:
    assert decision.action is ClaimAction.FAIL
    assert type(decision.error) is kind
    assert "Nothing was sent now" in decision.error.message
    return decision.error


#: What a claim is when everything has had its time.
LATE: dict[str, Any] = {"age": OLD, "looks": MIN_LOOKUPS}
REFUSED: dict[str, Any] = {
    "status": ImageTaskStatus.FAILED,
    "error": ImageTaskError(code="content_policy_violation", message="no"),
}
FAILED: dict[str, Any] = {
    "status": ImageTaskStatus.FAILED,
    "error": ImageTaskError(code="generation_failed", message="upstream"),
}
COMPLETED: dict[str, Any] = {"status": ImageTaskStatus.COMPLETED, "completed_at": NOW}
GONE: dict[str, Any] = {"status": ImageTaskStatus.COMPLETED, "completed_at": NOW - 86_400}


# --- the rows ------------------------------------------------------------------------------------------------------


def test_c02_nobody_has_claimed_it_create_the_first_generation() -> None:
    decision = decide(None)
    assert (decision.action, decision.because) == (ClaimAction.CREATE, "first")


def test_c05_own_answer_lost_is_looked_for_and_taken_over_when_old() -> None:
    waiting = decide(MINE, lookup=absent(MINE), age=OLD - 1, looks=MIN_LOOKUPS)
    assert waiting.action is ClaimAction.HOLD
    assert waiting.error is not None
    assert waiting.error.charged == "unknown"
    decision = decide(MINE, lookup=absent(MINE), **LATE)
    assert (decision.action, decision.because) == (ClaimAction.CREATE, "unseen")


def test_c06_released_is_taken_over_at_once_without_asking_the_service() -> None:
    for policy in (POLICY, CAREFUL, BLIND):
        for top in (THEIRS, MINE):
            decision = decide(top, book=BookEntry("released"), policy=policy)
            assert (decision.action, decision.because) == (ClaimAction.CREATE, "released")


def test_c07_running_is_shared() -> None:
    for book in (None, BOUGHT):
        for attempt in (FIRST, RETRY, CLEARED):
            decision = decide(book=book, lookup=found(), attempt=attempt)
            assert decision.action is ClaimAction.SHARE
            assert decision.image_task is not None
            assert decision.image_task.id == "tsk_1"


def test_c08_completed_is_shared_while_its_link_lives() -> None:
    for book in (None, BOUGHT):
        assert decide(book=book, lookup=found(**COMPLETED), now=NOW + 86_399).action is ClaimAction.SHARE


def test_c09_what_cannot_be_landed_is_shared_until_its_link_is_dead() -> None:
    """Whether its bytes are an image is seen when it is landed; here it is bought, and nothing else is."""
    assert decide(lookup=found(**COMPLETED), attempt=CLEARED, **LATE).action is ClaimAction.SHARE
    decision = decide(lookup=found(**GONE))
    assert (decision.action, decision.because) == (ClaimAction.CREATE, "expired")


def test_c10_failed_and_refunded_is_taken_over() -> None:
    for top in (THEIRS, MINE):
        for book in (None, BOUGHT):
            decision = decide(top, book=book, lookup=found(top=top, **FAILED))
            assert (decision.action, decision.because) == (ClaimAction.CREATE, "failed")


def test_c11_a_refusal_binds_everybody_for_a_day() -> None:
    facts: dict[str, Any] = {"book": BookEntry("refused", "content_policy_violation")}
    seen: dict[str, Any] = {"lookup": found(**REFUSED)}
    for given_facts in (facts, seen):
        for attempt in (FIRST, RETRY, CLEARED_RETRY):
            error = failure(decide(attempt=attempt, **given_facts), errors.ContentRefused)
            assert error.charged == "no"
            assert "run yesterday" in error.message
        later = decide(age=DEAD_SECONDS + 1, **given_facts)
        assert (later.action, later.because) == (ClaimAction.CREATE, "refused")
        assert decide(attempt=CLEARED, **given_facts).action is ClaimAction.CREATE


def test_c12_expired_is_taken_over_but_own_only_where_that_is_allowed() -> None:
    dead: list[dict[str, Any]] = [GONE, {"status": ImageTaskStatus.FAILED, "wire_status": "expired"}]
    for fields in dead:
        theirs = decide(lookup=found(**fields))
        assert (theirs.action, theirs.because) == (ClaimAction.CREATE, "expired")
        own: dict[str, Any] = {"top": MINE, "lookup": found(top=MINE, **fields)}
        error = failure(decide(**own), errors.ResultExpired)
        assert (error.charged, error.image_task_id) == ("yes", "tsk_1")
        failure(decide(**own, attempt=CLEARED), errors.ResultExpired)
        resubmit = SubmissionPolicy(on_expired="resubmit")
        assert decide(**own, policy=resubmit).action is ClaimAction.CREATE
        announced = SubmissionPolicy(clear_rebuys=True)
        assert decide(**own, policy=announced, attempt=CLEARED).action is ClaimAction.CREATE
        failure(decide(**own, policy=announced, attempt=RETRY), errors.ResultExpired)


def test_c13_young_is_waited_for_without_a_slot() -> None:
    asked = decide()
    assert (asked.action, asked.target) == (ClaimAction.LOOK_UP, THEIRS.client_business_id)
    assert not asked.by_image_task_id
    young: list[dict[str, Any]] = [{"age": OLD - 1, "looks": 99}, {"age": 1e4, "looks": MIN_LOOKUPS - 1}]
    for facts in young:
        for attempt in (FIRST, RETRY, CLEARED):
            decision = decide(lookup=absent(), attempt=attempt, waited_out=True, **facts)
            assert decision.action is ClaimAction.HOLD
            assert isinstance(decision.error, ClaimHeld)
            assert decision.error.retryable
            assert decision.error.charged == "no"


def test_c14_old_is_taken_over_or_stops_as_the_user_wants() -> None:
    decision = decide(lookup=absent(), **LATE)
    assert (decision.action, decision.because) == (ClaimAction.CREATE, "unseen")
    error = failure(decide(lookup=absent(), policy=CAREFUL, **LATE), errors.SubmissionUnfindable)
    assert error.charged == "no"
    assert f"adopt={{'{THEIRS.client_business_id}': " in error.message
    assert "run yesterday" in error.message
    own = failure(decide(MINE, lookup=absent(MINE), policy=CAREFUL, **LATE), errors.SubmissionUnfindable)
    assert own.charged == "unknown"
    assert own.message.startswith("Try 1 of this task")
    assert decide(lookup=absent(), policy=CAREFUL, attempt=CLEARED, **LATE).because == "unseen"
    dead = decide(**{**LATE, "lookup": absent(), "policy": CAREFUL, "age": DEAD_SECONDS + 1})
    assert (dead.action, dead.because) == (ClaimAction.CREATE, "void")


def test_c15_bought_and_not_there_waits_for_the_file_then_stops() -> None:
    facts: dict[str, Any] = {"book": BOUGHT, "lookup": absent()}
    assert decide(**facts, **LATE).action is ClaimAction.HOLD
    error = failure(decide(**facts, waited_out=True, **LATE), errors.ImageTaskNotFound)
    assert error.charged == "no"
    assert "tsk_1" in error.message
    cleared = decide(**facts, attempt=CLEARED, **LATE)
    assert (cleared.action, cleared.because) == (ClaimAction.CREATE, "void")
    dead = decide(**{**LATE, **facts, "age": DEAD_SECONDS + 1})
    assert (dead.action, dead.because) == (ClaimAction.CREATE, "void")


def test_c15_own_bought_and_not_there_may_be_charged() -> None:
    error = failure(decide(MINE, book=BOUGHT, lookup=absent(MINE), waited_out=True, **LATE), errors.ImageTaskNotFound)
    assert error.charged == "unknown"


@pytest.mark.parametrize("unaskable", [{"policy": BLIND}, {"ids_resolve": False}])
def test_c17_where_ids_do_not_resolve_the_book_names_the_image_task(unaskable: dict[str, Any]) -> None:
    facts: dict[str, Any] = {**unaskable, "book": BOUGHT, "model": "nano_banana_2"}
    asked = decide(**facts)
    assert (asked.action, asked.target, asked.by_image_task_id) == (ClaimAction.LOOK_UP, "tsk_1", True)

    def answer(**fields: Any) -> ClaimAction:
        return decide(**facts, lookup=found(target="tsk_1", **fields)).action

    assert answer() is ClaimAction.SHARE
    assert answer(model="nano_banana_2") is ClaimAction.SHARE
    assert answer(**FAILED) is ClaimAction.CREATE
    assert answer(**REFUSED) is ClaimAction.FAIL
    assert answer(model="other") is ClaimAction.HOLD
    assert answer(created_at=None) is ClaimAction.HOLD
    assert answer(created_at=NOW - 3601) is ClaimAction.HOLD
    assert answer(created_at=NOW + 3601) is ClaimAction.HOLD
    unfit = decide(**facts, lookup=found(target="tsk_1", model="other"), waited_out=True)
    failure(unfit, errors.SubmissionUnfindable)


@pytest.mark.parametrize("unaskable", [{"policy": BLIND}, {"ids_resolve": False}])
def test_c18_where_ids_do_not_resolve_and_nothing_is_booked_it_stops_for_a_day(unaskable: dict[str, Any]) -> None:
    assert decide(**unaskable).action is ClaimAction.HOLD
    assert decide(**unaskable, age=1e4).action is ClaimAction.HOLD
    error = failure(decide(**unaskable, age=1e4, waited_out=True), errors.SubmissionUnfindable)
    assert error.charged == "no"
    assert THEIRS.client_business_id in error.message
    dead = decide(**unaskable, age=DEAD_SECONDS + 1)
    assert (dead.action, dead.because) == (ClaimAction.CREATE, "unseen")
    assert decide(**unaskable, age=OLD, attempt=CLEARED).action is ClaimAction.CREATE


def test_c19_what_is_known_of_one_generation_says_nothing_of_the_next() -> None:
    second = claim(n=1, nonce="d" * 32)
    known = Settled(THEIRS.client_business_id, "failed")
    taken = decide(settled=known)
    assert (taken.action, taken.because) == (ClaimAction.CREATE, "failed")
    anew = decide(second, settled=known, lookup=absent(), **LATE)
    assert (anew.action, anew.target) == (ClaimAction.LOOK_UP, second.client_business_id)


@pytest.mark.parametrize("policy", [POLICY, CAREFUL, BLIND])
def test_c20_damaged_is_never_asked_about_and_stops_for_a_day(policy: SubmissionPolicy) -> None:
    damaged = Damaged(0, "it is no claim")
    facts: dict[str, Any] = {"top": damaged, "policy": policy}
    assert decide(**facts).action is ClaimAction.HOLD
    assert decide(**facts, age=1e4).action is ClaimAction.HOLD
    error = failure(decide(**facts, age=1e4, waited_out=True), errors.SubmissionUnfindable)
    assert "it is no claim" in error.message
    assert "adopt" not in error.message
    dead = decide(**facts, age=DEAD_SECONDS + 1)
    assert (dead.action, dead.because) == (ClaimAction.CREATE, "damaged")
    assert decide(**facts, age=OLD, attempt=CLEARED).because == "damaged"
    seen_long_ago = decide(**{**facts, "written_at": None}, age=DEAD_SECONDS + 1)
    assert seen_long_ago.action is ClaimAction.CREATE


# --- clears, retries, and who is who -------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [THEIRS, MINE, Damaged(0, "it is no claim")])
@pytest.mark.parametrize("policy", [POLICY, CAREFUL, BLIND])
@pytest.mark.parametrize("book", [None, BOUGHT])
@pytest.mark.parametrize("now", [NOW, NOW + 1e6])
def test_neither_a_clear_nor_the_day_ends_what_may_still_show(
    top: Claim | Damaged, policy: SubmissionPolicy, book: BookEntry | None, now: float
) -> None:
    """Several tasks are cleared at once: one of them buys, and the others look a second later.

    Or the clock of the machine is days ahead.
    """
    lookup = absent(top) if isinstance(top, Claim) else None
    if isinstance(top, Claim) and policy is BLIND and book:
        lookup = Lookup("tsk_1")
    facts: dict[str, Any] = {"policy": policy, "attempt": CLEARED, "book": book, "lookup": lookup, "looks": 9}
    for age in (0.0, 1.0, OLD - 0.001):
        for waited_out in (False, True):
            decision = decide(top, now, age=age, waited_out=waited_out, **facts)
            assert decision.action is ClaimAction.HOLD


def test_a_clear_answers_own_claims_of_the_tries_before_it_only() -> None:
    def top(try_number: int) -> Claim:
        return claim(ME.model_copy(update={"try_number": try_number}))

    def action(try_number: int, attempt: TaskAttempt) -> ClaimAction:
        own = top(try_number)
        return decide(own, lookup=absent(own), policy=CAREFUL, attempt=attempt, **LATE).action

    assert action(1, CLEARED) is ClaimAction.CREATE
    assert action(1, CLEARED_RETRY) is ClaimAction.CREATE
    assert action(2, CLEARED_RETRY) is ClaimAction.FAIL
    assert action(2, CLEARED) is ClaimAction.FAIL
    assert action(1, RETRY) is ClaimAction.FAIL
    assert action(0, CLEARED) is ClaimAction.FAIL


def test_a_clear_answers_anothers_claim_in_its_first_try_only() -> None:
    facts: dict[str, Any] = {"lookup": absent(), "policy": CAREFUL, **LATE}
    assert decide(**facts, attempt=CLEARED).action is ClaimAction.CREATE
    assert decide(**facts, attempt=CLEARED_RETRY).action is ClaimAction.FAIL
    assert decide(**facts, attempt=RETRY).action is ClaimAction.FAIL
    assert decide(**facts, attempt=FIRST).action is ClaimAction.FAIL


def test_tries_do_not_tell_task_instances_apart_and_everything_else_does() -> None:
    assert ME.is_same_task_instance(ME.model_copy(update={"try_number": 9}))
    for field, value in [
        ("namespace", "x"), ("dag_id", "x"), ("run_id", "x"), ("task_id", "x"), ("map_index", 0),
    ]:  # fmt: skip
        assert not ME.is_same_task_instance(ME.model_copy(update={field: value}))


@pytest.mark.parametrize("lookup", [None, absent(), found(**FAILED)])
def test_whose_claim_it_is_changes_no_purchase(lookup: Lookup | None) -> None:
    """Safety does not depend on what a claim says of its maker; only what is lost for good is told apart."""
    for facts in ({"age": 0.0, "looks": 0}, LATE):
        for book in (None, BookEntry("released"), BOUGHT, BookEntry("refused", "x")):
            actions = {
                decide(claim(by), lookup=lookup, book=book, **facts).action for by in (OTHER, MINE.by, Buyer())
            }  # fmt: skip
            assert len(actions) == 1


# --- forged and damaged --------------------------------------------------------------------------------------------


def test_the_id_asked_for_is_bound_to_the_file_that_is_wanted() -> None:
    ids = {
        claimed_client_id("b" * 32, DIGEST, STEM, 0),
        claimed_client_id("c" * 32, DIGEST, STEM, 0),
        claimed_client_id("b" * 32, "f" * 64, STEM, 0),
        claimed_client_id("b" * 32, DIGEST, "kite-01234567", 0),
        claimed_client_id("b" * 32, DIGEST, STEM, 1),
        # Whatever stands in one part does not pass for the beginning of the next.
        claimed_client_id("b" * 32, DIGEST, f"{STEM}\x001", 0),
    }
    assert len(ids) == 6
    assert all(len(one) == 43 and one.startswith("nb-") and set(one[3:]) <= set(string.hexdigits) for one in ids)


def test_a_claim_cannot_name_an_image_task() -> None:
    """Not by fields of its own, and not by saying that it sent no client id."""
    forged = claim(client_business_id="nb-victim", image_task_id="tsk_victim", id="tsk_victim")
    assert decide(forged).target == THEIRS.client_business_id
    blind = claim(ids=False)
    for facts in ({}, LATE, {"waited_out": True, **LATE}):
        for attempt in (FIRST, RETRY, CLEARED):
            decision = decide(blind, book=BookEntry("bought", "tsk_victim"), attempt=attempt, **facts)
            assert decision.action is not ClaimAction.LOOK_UP
            assert decision.action is not ClaimAction.SHARE


def test_a_book_cannot_name_an_image_task_where_ids_resolve() -> None:
    victim = found(target="tsk_victim")
    for lookup in (None, victim):
        decision = decide(book=BookEntry("bought", "tsk_victim"), lookup=lookup)
        assert (decision.action, decision.target) == (ClaimAction.LOOK_UP, THEIRS.client_business_id)
        assert not decision.by_image_task_id


def test_where_ids_do_not_resolve_the_time_of_the_store_decides_whether_an_image_task_fits() -> None:
    """A forger chooses what a claim says of its time, and not when the store saw it."""
    forged = claim(at=NOW - 7200)
    victim = found(target="tsk_1", top=forged, created_at=NOW - 7200)
    facts: dict[str, Any] = {"policy": BLIND, "book": BOUGHT, "lookup": victim}
    assert decide(forged, **facts, written_at=NOW).action is ClaimAction.HOLD
    assert decide(forged, **facts, written_at=NOW - 7000).action is ClaimAction.SHARE


@pytest.mark.parametrize("status", [FAILED, REFUSED, GONE])
def test_what_a_look_up_of_another_id_answered_counts_for_nothing(status: dict[str, Any]) -> None:
    decision = decide(lookup=found(target="nb-other", **status), **LATE)
    assert (decision.action, decision.target) == (ClaimAction.LOOK_UP, THEIRS.client_business_id)


GOOD: dict[str, Any] = json.loads(THEIRS.encode())
DAMAGED = {
    "empty": b"",
    "cut": THEIRS.encode()[:-1],
    "list": b"[]",
    "text": b'"released"',
    "newer": json.dumps({**GOOD, "v": 2}).encode(),
    "version as text": json.dumps({**GOOD, "v": "1"}).encode(),
    "no digest": json.dumps({name: value for name, value in GOOD.items() if name != "digest"}).encode(),
    "digest of another request": json.dumps({**GOOD, "digest": "e" * 64}).encode(),
    "digest in capitals": json.dumps({**GOOD, "digest": DIGEST.upper()}).encode(),
    "stem of another file": json.dumps({**GOOD, "stem": "kite-9876543210"}).encode(),
    "another generation": json.dumps({**GOOD, "n": 1}).encode(),
    "generation below the first": json.dumps({**GOOD, "n": -1}).encode(),
    "generation as truth": json.dumps({**GOOD, "n": False}).encode(),
    "short nonce": json.dumps({**GOOD, "nonce": "b" * 31}).encode(),
    "nonce and a line": json.dumps({**GOOD, "nonce": "b" * 32 + "\n"}).encode(),
    "path as book": json.dumps({**GOOD, "book": "../../" + "c" * 26}).encode(),
    "endless time": THEIRS.encode().replace(b'"at":1790000100.0', b'"at":1e999'),
    "no number": THEIRS.encode().replace(b'"at":1790000100.0', b'"at":NaN'),
    "settles in a year": json.dumps({**GOOD, "settles": 3e7}).encode(),
    "maker is a list": json.dumps({**GOOD, "by": []}).encode(),
    "maker with a long name": json.dumps({**GOOD, "by": {"dag": "x" * 251}}).encode(),
    "no text": b"\xff\xfe" + THEIRS.encode(),
    "half a character": THEIRS.encode().replace(b'"first"', b'"\\ud800"'),
    "too long": json.dumps({**GOOD, "more": "x" * MOST_BYTES}).encode(),
    "deep": b'{"by":' * 500 + b"1" + b"}" * 500,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_claim_gives_nobody_the_right_to_buy(content: bytes) -> None:
    top = parse_claim(content, stem=STEM, digest=DIGEST, n=0)
    assert isinstance(top, Damaged)
    assert top.why
    assert decide(top, age=1e4, looks=99).action is ClaimAction.HOLD
    assert decide(top, age=1e4, looks=99, waited_out=True).action is ClaimAction.FAIL


def test_a_claim_of_any_request_is_read_for_people() -> None:
    assert parse_claim(DAMAGED["digest of another request"], stem=STEM, digest=None, n=0) != THEIRS
    assert parse_claim(THEIRS.encode(), stem=STEM, digest=None, n=0) == THEIRS


def test_a_store_that_is_blind_to_case_has_one_chain_for_a_name() -> None:
    shouted = claim(stem=STEM.upper())
    assert decide(shouted).target == claimed_client_id("b" * 32, DIGEST, STEM.upper(), 0)
    other = json.dumps({**GOOD, "stem": STEM.upper(), "digest": "e" * 64}).encode()
    assert isinstance(parse_claim(other, stem=STEM, digest=DIGEST, n=0), Damaged)


BOOK = {"v": 1, "entries": {THEIRS.name: ["released"]}}
DAMAGED_BOOKS = {
    "none": None,
    "empty": b"",
    "cut": json.dumps(BOOK).encode()[:-1],
    "list": b"[]",
    "number": b"7",
    "no version": json.dumps({"entries": BOOK["entries"]}).encode(),
    "no entries": b'{"v":1}',
    "entries are a list": json.dumps({"v": 1, "entries": [[THEIRS.name, ["released"]]]}).encode(),
    "entry is a text": json.dumps({"v": 1, "entries": {THEIRS.name: "released"}}).encode(),
    "entry is empty": json.dumps({"v": 1, "entries": {THEIRS.name: []}}).encode(),
    "entry is nested": json.dumps({"v": 1, "entries": {THEIRS.name: [["released"]]}}).encode(),
    "unknown outcome": json.dumps({"v": 1, "entries": {THEIRS.name: ["forgotten"]}}).encode(),
    "outcome in capitals": json.dumps({"v": 1, "entries": {THEIRS.name: ["RELEASED"]}}).encode(),
    "bought nothing": json.dumps({"v": 1, "entries": {THEIRS.name: ["bought"]}}).encode(),
    "bought a number": json.dumps({"v": 1, "entries": {THEIRS.name: ["bought", 7]}}).encode(),
    "of another claim": json.dumps({"v": 1, "entries": {claim_name(STEM, 1): ["released"]}}).encode(),
    "no text": b"\x80\x81",
    "long number": b'{"v":' + b"1" * 9999 + b"}",
    "deep": b'{"v":1,"entries":' + b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED_BOOKS.values(), ids=DAMAGED_BOOKS.keys())
def test_a_damaged_book_says_nothing(content: bytes | None) -> None:
    assert parse_book(content).get(THEIRS.name) is None


def test_one_damaged_entry_takes_no_other_with_it() -> None:
    entries = {"a.g0": ["bought"], "b.g0": ["bought", "tsk_2"], "c.g0": 7, "d.g0": ["refused"]}
    assert parse_book(json.dumps({"v": 1, "entries": entries}).encode()) == {
        "b.g0": BookEntry("bought", "tsk_2"),
        "d.g0": BookEntry("refused"),
    }


def test_a_book_is_read_as_it_was_written() -> None:
    entries = {
        "a.g0": BookEntry("bought", "tsk_1"),
        "b.g0": BookEntry("released"),
        "c.g12": BookEntry("refused", "content_policy_violation"),
    }
    content = encode_book(entries, buyer=OTHER, models={"a.g0": "nano_banana_2"})
    assert parse_book(content) == entries
    assert json.loads(content)["models"] == {"a.g0": "nano_banana_2"}


def test_a_book_of_the_largest_group_can_be_read_again() -> None:
    """5 seconds of submits at the highest rate, with the longest names."""
    entries = {claim_name("x" * 97 + f"{i:03}", 999_999): BookEntry("bought", "t" * 64) for i in range(1000)}
    models = dict.fromkeys(entries, "gemini-3.1-flash-image-preview")
    assert len(encode_book(entries, buyer=OTHER, models=models)) < MOST_BOOK_BYTES


texts = st.text(max_size=250)


@given(texts, texts, texts, texts, st.integers(-1, 10**6), st.integers(0, 10**6))
def test_whatever_its_maker_is_called_a_claim_is_read_as_it_was_written(
    namespace: str, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int
) -> None:
    by = Buyer(
        namespace=namespace, dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, try_number=try_number
    )
    made = Claim(stem="x" * 100, digest=DIGEST, nonce="b" * 32, n=7, by=by, book="c" * 32)
    read = parse_claim(made.encode(), stem="x" * 100, digest=DIGEST, n=7)
    assert isinstance(read, Claim)
    assert read.client_business_id == made.client_business_id
    assert read.by.is_same_task_instance(by)


def test_the_longest_names_that_airflow_takes_fit_into_a_claim() -> None:
    """What is longer than a claim may be would be damaged for everybody, its maker included."""
    for character in ("x", "é", "漢", "😀", "\x00", '"'):
        long = character * 250
        by = Buyer(namespace=long, dag_id=long, run_id=long, task_id=long, map_index=10**6, try_number=10**6)
        made = Claim(
            stem="x" * 128, digest=DIGEST, nonce="b" * 32, n=999_999, prev="b" * 32, because="first", at=NOW, by=by,
            book="c" * 32, settles=1000.0,
        )  # fmt: skip
        assert isinstance(parse_claim(made.encode(), stem="x" * 128, digest=DIGEST, n=999_999), Claim)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_claim_or_damaged_and_never_an_exception(content: bytes) -> None:
    assert isinstance(parse_claim(content, stem=STEM, digest=DIGEST, n=0), Damaged)
    assert parse_book(content) == {}


@pytest.mark.parametrize(
    "hostile",
    ["\x1b[2J\x1b[31m", "a\r\nERROR forged line", "\u202egnp.exe", "x" * 250, "sk-live-0123456789abcdef", "\x00"],
)
def test_what_a_claim_says_of_its_maker_is_cleaned_before_it_is_shown(hostile: str) -> None:
    by = Buyer(namespace=hostile, dag_id=hostile, run_id=hostile, task_id=hostile)
    top = claim(by)
    book = BookEntry("bought", f"tsk {hostile}")
    said = [
        decide(top, lookup=absent(), **LATE, policy=CAREFUL),
        decide(top, lookup=absent()),
        decide(top, book=BookEntry("refused", hostile)),
        decide(top, book=book, lookup=absent(), **LATE, waited_out=True),
        decide(top, book=book, lookup=absent(), **LATE),
        decide(top, book=book, policy=BLIND, lookup=Lookup(book.detail), waited_out=True),
        decide(top, lookup=found()),
        decide(Damaged(0, "x"), waited_out=True),
    ]
    for decision in said:
        for text in (decision.reason, decision.error.message if decision.error else ""):
            assert text.isprintable(), text
            assert "0123456789abcdef" not in text
            assert len(text) < 1500


# --- time ----------------------------------------------------------------------------------------------------------


def test_the_age_counts_by_one_machines_clock_and_by_no_other() -> None:
    sighting = Sighting("nb-1").at("a", 100.0)
    assert sighting.age("a", 235.0) == 135.0
    assert sighting.age("b", 1e9) == 0.0
    both = sighting.at("b", 5e6)
    assert both.age("b", 5e6 + 30) == 30.0
    assert both.age("a", 235.0) == 135.0
    assert both.at("a", 999.0) == both


def test_a_clock_that_went_back_makes_no_claim_older() -> None:
    assert Sighting("nb-1").at("a", 100.0).age("a", 40.0) == 0.0


def test_what_a_claim_says_of_its_time_makes_it_neither_old_nor_young() -> None:
    for at in (0.0, NOW - 1e7, NOW + 1e7):
        top = claim(at=at)
        assert decide(top, lookup=absent(top), age=1.0, looks=9).action is ClaimAction.HOLD
        assert decide(top, lookup=absent(top), **LATE).action is ClaimAction.CREATE


def test_the_slower_of_two_connections_decides_for_how_long_a_claim_is_young() -> None:
    assert settle_seconds(THEIRS, POLICY) == 45 + 30 + 60
    assert settle_seconds(claim(settles=700.0), POLICY) == 700.0
    assert settle_seconds(THEIRS, SubmissionPolicy(http_timeout=600.0)) == 705.0
    assert settle_seconds(Damaged(0, "x"), POLICY) == OLD
    slow = claim(settles=700.0)
    assert decide(slow, lookup=absent(slow), age=699.0, looks=9).action is ClaimAction.HOLD


def test_a_clock_an_hour_off_the_stores_ends_no_day() -> None:
    for policy in (CAREFUL, BLIND):
        for ahead in (-3600.0, 3600.0):
            decision = decide(
                lookup=absent(), policy=policy, **LATE, waited_out=True, now=NOW + 86_400 + 3500 + ahead
            )  # fmt: skip
            assert decision.action is ClaimAction.FAIL


def test_a_store_that_keeps_no_times_makes_nothing_dead() -> None:
    decision = decide(lookup=absent(), policy=CAREFUL, written_at=None, now=NOW + 1e9, **LATE)
    assert decision.action is ClaimAction.FAIL


# --- a crowd of generations ----------------------------------------------------------------------------------------


def test_c22_so_many_came_to_nothing_that_no_more_is_bought() -> None:
    top = claim(n=24)
    for facts in ({"lookup": found(top=top, **FAILED)}, {"lookup": absent(top), **LATE}):
        error = failure(decide(top, crowded=True, **facts), errors.ImageTaskFailed)
        assert error.charged == "no"
        assert decide(top, crowded=True, attempt=CLEARED, **facts).action is ClaimAction.CREATE


def test_c22_what_the_last_of_a_crowd_bought_is_used() -> None:
    top = claim(n=24)
    assert decide(top, crowded=True).action is ClaimAction.LOOK_UP
    assert decide(top, crowded=True, lookup=found(top=top)).action is ClaimAction.SHARE
    assert decide(top, crowded=True, lookup=absent(top)).action is ClaimAction.HOLD


NEWER = parse_claim(b'{"v": 2, "file": "kite"}', stem=STEM, digest=DIGEST, n=0)
NEWER_BOOK = parse_book(b'{"v": 2, "pages": []}')


@pytest.mark.parametrize("attempt", [FIRST, RETRY, CLEARED, CLEARED_RETRY])
def test_c24_under_a_newer_claim_nothing_is_bought_before_its_day_is_over_whoever_clears(attempt: TaskAttempt) -> None:
    assert isinstance(NEWER, Damaged) and NEWER.is_newer
    late: dict[str, Any] = {"attempt": attempt, "age": DEAD_SECONDS, "looks": 9}
    assert decide(NEWER, attempt=attempt).action is ClaimAction.HOLD
    error = failure(decide(NEWER, **late, waited_out=True), errors.TransientFailure)
    assert "newer version" in error.message and "Install" in error.message and error.charged == "unknown"
    assert decide(NEWER, **{**late, "age": DEAD_SECONDS + 1}).action is ClaimAction.CREATE


@pytest.mark.parametrize("policy", [POLICY, BLIND, CAREFUL])
@pytest.mark.parametrize("attempt", [FIRST, RETRY, CLEARED])
def test_c24_a_newer_book_says_nothing_that_buys(attempt: TaskAttempt, policy: SubmissionPolicy) -> None:
    """It may say that another account bought the image: what the service does not show is not "nobody bought it"."""
    book = entry_of(NEWER_BOOK, THEIRS)
    assert book is not None and book.outcome == "newer"
    known = {"attempt": attempt, "policy": policy, "book": book, "lookup": absent(), **LATE}
    assert decide(THEIRS, **known).action is ClaimAction.HOLD
    assert "newer version" in failure(decide(THEIRS, **known, waited_out=True), errors.TransientFailure).message
    assert decide(THEIRS, **{**known, "age": DEAD_SECONDS + 1}).action is ClaimAction.CREATE


def test_c24_what_the_service_shows_is_used_whatever_a_newer_book_says() -> None:
    shown = decide(THEIRS, book=entry_of(NEWER_BOOK, THEIRS), lookup=found())
    assert shown.action is ClaimAction.SHARE


def test_c24_a_claim_with_a_key_that_only_a_later_release_knows_is_a_claim() -> None:
    stored = {
        **THEIRS.model_dump(by_alias=True),
        "mood": "new",
        "by": {**OTHER.model_dump(by_alias=True), "zone": "eu"},
    }
    assert parse_claim(json.dumps(stored).encode(), stem=STEM, digest=DIGEST, n=0) == THEIRS


def test_c22_the_last_number_is_not_overtaken() -> None:
    for top in (claim(n=999_999), Damaged(999_999, "x")):
        facts: dict[str, Any] = {"lookup": absent(top) if isinstance(top, Claim) else None, "attempt": CLEARED, **LATE}
        error = failure(decide(top, **facts), errors.ImageTaskFailed)
        assert "delete" in error.message
    assert decide(Damaged(999_998, "x"), attempt=CLEARED, **LATE).action is ClaimAction.CREATE


def test_facts_of_one_claim_are_immutable() -> None:
    facts = ClaimFacts(THEIRS, ME, FIRST, POLICY)
    assert replace(facts, age=5.0).age == 5.0
    assert facts.age == 0.0


# --- the rows of the shell: real claims over a store in memory -------------------------------------------------------


@pytest.fixture
def _no_echo() -> Iterator[None]:
    with patch(f"{WORKFLOW}.verify_support"), patch(f"{WORKFLOW}.mark_supported"):
        yield


def _buyer(world: World, number: int = 0, policy: SubmissionPolicy = POLICY) -> Process:
    return Process(world, Instance(number), policy, Machine(f"machine {number}"))


def _until(process: Process, at: str) -> None:
    while process.at != at:
        assert not process.ended
        process.step()


@pytest.mark.usefixtures("_no_echo")
def test_c01_a_file_that_came_meanwhile_is_used_and_nothing_is_bought() -> None:
    world = World()
    owner = _buyer(world)
    _until(owner, "create")
    owner.step()
    owner.kill()
    late = _buyer(world, 1)
    _until(late, "hold")
    world.in_place = "tsk_of_somebody"
    while not late.ended:
        late.step()
    assert (late.error, world.charges, [claim.n for claim in world.claims()]) == (None, [], [0])


@pytest.mark.usefixtures("_no_echo")
def test_c03_who_created_the_claim_posts_once_under_its_id() -> None:
    world = World()
    owner = _buyer(world)
    _until(owner, "post")
    owner.step()
    assert [charge.client_id for charge in world.charges] == [world.claims()[0].client_business_id]


@pytest.mark.usefixtures("_no_echo")
def test_c04_whose_time_is_over_writes_released_and_takes_over_in_its_turn() -> None:
    """Here its own machine stood still for a minute between claim and POST."""
    world = World()
    owner = _buyer(world)
    _until(owner, "create")
    owner.step()
    world.advance(world.now + POST_WINDOW)
    _until(owner, "post")
    first, second = world.claims()
    assert (second.because, second.prev) == ("released", first.nonce)
    owner.step()
    assert [charge.client_id for charge in world.charges] == [second.client_business_id]
    world.charges[0].status = ImageTaskStatus.COMPLETED
    world.charges[0].completed = world.now
    while not owner.ended:
        owner.step()
    books = [parse_book(content) for name, (content, _) in world.objects.items() if name.startswith("books/")]
    assert [{**book} for book in books] == [
        {first.name: BookEntry("released"), second.name: BookEntry("bought", "tsk_0")}
    ]


@pytest.mark.usefixtures("_no_echo")
@pytest.mark.parametrize("fate", ["down", "lost", "late"])
def test_c04_a_create_that_was_not_confirmed_is_never_posted_under(fate: StoreFate) -> None:
    world = World()
    owner = _buyer(world)
    _until(owner, "create")
    owner.store_fates = [fate]
    _until(owner, "hold")
    assert world.charges == []
    _until(owner, "post")
    owner.step()
    assert [charge.client_id for charge in world.charges] == [world.claims()[-1].client_business_id]


@pytest.mark.usefixtures("_no_echo")
@pytest.mark.parametrize("operation", ["list", "read", "modified", "write"])
def test_c16_where_claims_cannot_be_read_nothing_is_sent_and_no_look_counts(operation: str) -> None:
    world = World()
    owner = _buyer(world)
    _until(owner, "create")
    owner.step()
    owner.kill()
    other = _buyer(world, 1)
    _until(other, operation)
    looks = other.memory.seen.looks if other.memory.seen else 0
    other.store_fates = ["down"]
    _until(other, "hold")
    assert world.charges == []
    assert (other.memory.seen.looks if other.memory.seen else 0) in (looks, looks + (operation == "write"))


@pytest.mark.usefixtures("_no_echo")
def test_c16_where_the_service_cannot_be_asked_nothing_is_sent_and_no_look_counts() -> None:
    world = World()
    owner = _buyer(world)
    _until(owner, "create")
    owner.step()
    owner.kill()
    other = _buyer(world, 1)
    _until(other, "look up")
    with patch.object(world, "find", side_effect=errors.RateLimited("slower")):
        _until(other, "hold")
    assert world.charges == []
    assert other.memory.seen is not None
    assert other.memory.seen.looks == 0


def test_every_row_of_the_docs_has_a_test_here_or_where_it_says() -> None:
    doc = (Path(__file__).parents[3] / "docs" / "durability.md").read_text()
    rows = [int(number) for number in re.findall(r"^\| C(\d+) \|", doc, re.MULTILINE)]
    tests = {int(number) for number in re.findall(r"^def test_c(\d+)_", Path(__file__).read_text(), re.MULTILINE)}
    assert rows == list(range(1, 25))
    assert tests == set(rows) - {21, 23}
    assert "C21 is in `tests/unit/batch/test_state.py`, C23 in `tests/integration/batch/test_claims.py`" in doc
