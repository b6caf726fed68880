"""What a retry and a clear would do, in words: the words are those of the decision, whatever it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claim_outlook import outlook
from airflow_provider_nanobanana.durable.claims import BookEntry, ClaimAction, ClaimFacts, Damaged, decide_claim
from airflow_provider_nanobanana.durable.course import DEFAULT_POLICY
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from tests.support.claims import claim
from tests.support.responses import NOW

#: Seconds: within the first minutes; after a link's life; after everything that a claim stands for.
YOUNG, SETTLED, YESTERDAY, OLD = 100.0, 3_600.0, 90_000.0, 100_000.0
BOUGHT = BookEntry("bought", "tsk_1")
USES = "if it is there, uses it and buys nothing"
REFUSED = "fails: the service has refused the content"
SHARES = f"{USES}; if it failed, buys it again; if it was refused, {REFUSED}"
CLEAR_SHARES = f"{USES}; if it failed or was refused, buys it again"
ASKS = "asks the service: "
STRICT = ' (with on_unknown_submission="fail" it fails)'
EXPIRED = "fails: it is paid, and its link has expired"
UNKNOWN = "fails: whether it was bought cannot be found out"


def of(made: Any, book: BookEntry | None = None, age: float | None = YOUNG, **choices: Any) -> tuple[str, str]:
    policy = SubmissionPolicy(clear_rebuys=True, **choices)
    words = outlook(made, book, age=age, now=NOW, policy=policy)
    return words.retry.words, words.clear.words


@pytest.mark.parametrize(
    ("age", "waits"),
    [(None, "waits for up to 135 s"), (YOUNG, "waits for up to 35 s"), (SETTLED, "looks a few times more")],
)
def test_a_claim_of_unknown_outcome_is_looked_for_and_then_bought(age: float | None, waits: str) -> None:
    retry, clear = of(claim(), age=age)
    assert retry == f"{ASKS}{SHARES}; if it is not there, {waits}, then buys it{STRICT}"
    assert clear == f"{ASKS}{CLEAR_SHARES}; if it is not there, {waits}, then buys it"


def test_with_fail_only_a_clear_buys_what_is_not_there() -> None:
    retry, clear = of(claim(), on_unknown_submission="fail")
    assert retry.endswith(f"waits for up to 35 s, then {UNKNOWN}")
    assert clear.endswith("waits for up to 35 s, then buys it")


def test_what_was_given_up_is_bought() -> None:
    assert of(claim(), BookEntry("released")) == ("buys it", "buys it")


def test_what_was_refused_is_bought_by_a_clear_alone() -> None:
    retry, clear = of(claim(), BookEntry("refused", "content_policy"))
    assert (retry, clear) == (REFUSED, "buys it")


def test_what_is_paid_and_expired_is_bought_by_a_clear_or_where_that_is_allowed() -> None:
    retry, clear = of(claim(), BOUGHT, YESTERDAY)
    assert f'if it has expired, {EXPIRED} (with on_expired="resubmit" it buys it again)' in retry
    assert "if it has expired or failed or was refused, buys it again; if it is there, uses it" in clear
    assert "if it has expired or failed, buys it again" in of(claim(), BOUGHT, YESTERDAY, on_expired="resubmit")[0]


def test_what_another_account_bought_is_waited_for_and_bought_by_a_clear() -> None:
    retry, clear = of(claim(), BOUGHT)
    assert retry.endswith("then fails: this account does not know what was bought")
    assert clear.endswith("if it is not there, waits for up to 35 s, then buys it")


def test_what_cannot_be_asked_for_ends_with_a_clear_or_its_day() -> None:
    assert of(claim(sends_id=False)) == (UNKNOWN, "waits for up to 35 s, then buys it")
    assert of(claim(sends_id=False), age=OLD) == ("buys it", "buys it")


def test_a_damaged_claim_is_everybodys_and_waited_for() -> None:
    retry, clear = of(Damaged(0, "it is no JSON"))
    assert retry == f"waits for the file until its timeout, then {UNKNOWN}"
    assert clear == "waits for up to 35 s, then buys it"
    assert of(Damaged(0, "it is no JSON"), age=OLD) == ("buys it", "buys it")


@pytest.mark.parametrize("made", [claim(), claim(sends_id=False), Damaged(0, "x"), claim(settles=400.0)])
@pytest.mark.parametrize("book", [None, BOUGHT, BookEntry("released"), BookEntry("refused", "x")])
@pytest.mark.parametrize("age", [None, YOUNG, YESTERDAY, OLD])
def test_the_words_agree_with_what_the_task_decides_first(made: Any, book: BookEntry | None, age: float | None) -> None:
    words = outlook(made, book, age=age, now=NOW)
    retry = TaskAttempt.of(try_number=2, max_tries=2, retries=2, started_at=NOW)
    clear = TaskAttempt.of(try_number=2, max_tries=3, retries=2, started_at=NOW)
    for said, attempt in ((words.retry, retry), (words.clear, clear)):
        buyer = getattr(made, "by", claim().by)
        facts = ClaimFacts(made, buyer, attempt, DEFAULT_POLICY, book=book, age=age or 0.0)
        begins = {
            ClaimAction.LOOK_UP: "asks",
            ClaimAction.CREATE: "buys",
            ClaimAction.FAIL: "fails",
            ClaimAction.HOLD: "waits",
            ClaimAction.SHARE: "uses",
        }[decide_claim(facts, NOW).action]
        assert said.words.startswith(begins)


def test_what_another_process_shows_later_is_waited_for_as_long_as_its_claim_says() -> None:
    assert "waits for up to 300 s" in of(claim(settles=400.0))[0]
