"""What a retry and a clear would do, in words: the words are those of the decision, whatever it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claim_outlook import DEFAULT_POLICY, outlook
from airflow_provider_nanobanana.durable.claims import BookEntry, ClaimAction, ClaimFacts, Damaged, decide_claim
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from tests.support.claims import claim
from tests.support.responses import NOW

YOUNG, YESTERDAY, OLD = NOW - 100, NOW - 90_000, NOW - 100_000
BOUGHT = BookEntry("bought", "tsk_1")
SHARES = "if it is there, uses it and buys nothing; if it failed, buys it again"
ASKS = "asks the service: "
BUYS_LATER = "if it is not there, waits for up to 135 s, then buys it"
FINDS_NOTHING_OUT = "waits for the file until its timeout, then fails: whether it was bought cannot be found out"


def of(made: Any, book: BookEntry | None = None, at: float | None = YOUNG, **choices: Any) -> tuple[str, str]:
    words = outlook(made, book, written_at=at, now=NOW, policy=SubmissionPolicy(clear_rebuys=True, **choices))
    return words.retry, words.clear


def test_a_claim_of_unknown_outcome_is_looked_for_and_then_bought() -> None:
    for at in (YOUNG, None):
        retry, clear = of(claim(at=YOUNG), at=at)
        assert retry == f'{ASKS}{SHARES}; {BUYS_LATER} (with on_unknown_submission="fail" it fails)'
        assert clear == f"{ASKS}{SHARES}; {BUYS_LATER}"


def test_with_fail_only_a_clear_buys_what_is_not_there() -> None:
    retry, clear = of(claim(at=YOUNG), on_unknown_submission="fail")
    assert retry.endswith("waits for up to 135 s, then fails: whether it was bought cannot be found out")
    assert clear.endswith(BUYS_LATER)


def test_what_was_given_up_is_bought() -> None:
    assert of(claim(), BookEntry("released")) == ("buys it", "buys it")


def test_what_was_refused_is_bought_by_a_clear_alone() -> None:
    retry, clear = of(claim(), BookEntry("refused", "content_policy"))
    assert (retry, clear) == ("fails: the service has refused the content", "buys it")


def test_what_is_paid_and_expired_is_bought_by_a_clear_or_where_that_is_allowed() -> None:
    retry, clear = of(claim(at=YESTERDAY), BOUGHT, YESTERDAY)
    assert "if it is there, fails: it is paid, and its link has expired" in retry
    assert "if it is there, buys it again" in clear
    assert "if it is there, buys it again" in of(claim(at=YESTERDAY), BOUGHT, YESTERDAY, on_expired="resubmit")[0]


def test_what_another_account_bought_is_waited_for_and_bought_by_a_clear() -> None:
    retry, clear = of(claim(at=YOUNG), BOUGHT)
    assert retry.endswith(
        "waits for the file until its timeout, then fails: this account does not know what was bought"
    )
    assert clear.endswith(BUYS_LATER)


@pytest.mark.parametrize("made", [claim(sends_id=False), Damaged(0, "it is no JSON")])
def test_what_cannot_be_asked_for_ends_with_a_clear_or_its_day(made: Any) -> None:
    buys = "waits for up to 135 s, then buys it"
    assert of(made) == (FINDS_NOTHING_OUT, buys)
    assert of(made, at=OLD) == (buys, buys)


@pytest.mark.parametrize("made", [claim(), claim(sends_id=False), Damaged(0, "x"), claim(settles=400.0)])
@pytest.mark.parametrize("book", [None, BOUGHT, BookEntry("released"), BookEntry("refused", "x")])
@pytest.mark.parametrize("at", [None, YOUNG, YESTERDAY, OLD])
def test_the_words_agree_with_what_the_task_decides_first(made: Any, book: BookEntry | None, at: float | None) -> None:
    words = outlook(made, book, written_at=at, now=NOW)
    attempts = {
        words.retry: TaskAttempt.of(try_number=2, max_tries=2, retries=2, started_at=NOW),
        words.clear: TaskAttempt.of(try_number=2, max_tries=3, retries=2, started_at=NOW),
    }
    if words.retry == words.clear:
        del attempts[words.clear]
    for said, attempt in attempts.items():
        buyer = getattr(made, "by", claim().by)
        facts = ClaimFacts(made, buyer, attempt, DEFAULT_POLICY, book=book, written_at=at)
        begins = {
            ClaimAction.LOOK_UP: "asks",
            ClaimAction.CREATE: "buys",
            ClaimAction.FAIL: "fails",
            ClaimAction.HOLD: "waits",
            ClaimAction.SHARE: "uses",
        }[decide_claim(facts, NOW).action]
        assert said.startswith(begins)


def test_what_another_process_shows_later_is_waited_for_as_long_as_its_claim_says() -> None:
    assert "waits for up to 400 s" in of(claim(settles=400.0, at=YOUNG))[0]
