"""What a retry and a clear would do about one image: the table of states, in the words that people read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.course import Course
from airflow_provider_nanobanana.durable.image_outlook import TryCounts, WantedImage, essence, image_outlook
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, LedgerEntry, StoredFile
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity, SubmissionRecord
from tests.support.responses import NOW

IDENTITY = SubmissionIdentity((), "f" * 64, "kite-0")
COUNTS = TryCounts(try_number=1, max_tries=2, retries=2)
DAY = 86_400.0
USES = "uses it and buys nothing"
ASKS = "asks the service:"
THERE = f"{ASKS} if it is there, {USES}"
REFUSED = "fails: the service has refused the content"
EXPIRED = 'fails: it is paid, and its link has expired (with on_expired="resubmit" it buys it again)'
FEW = "looks a few times more, then"
UNKNOWN = f"{FEW} fails: this account does not know what was bought"
LEFT = "leaves it as it failed and buys nothing"
FILE = StoredFile("kite-0.png", None, None, "png", None, None)


def record(state: RecordState, image_task_id: str | None = None, age: float = 600.0) -> SubmissionRecord:
    return SubmissionRecord(state, "f" * 64, 0, 0, "nb-1", image_task_id, NOW - age, max_tries=2, try_number=1)


def failed(code: str, charged: Any, *, retryable: bool) -> LedgerEntry:
    return LedgerEntry(record(RecordState.SUBMITTED, "tsk_1"), "failed", error=ItemError(code, "", charged, retryable))


def of(entry: LedgerEntry, counts: TryCounts = COUNTS, **facts: Any) -> tuple[Course, Course]:
    facts = {"complete": True, "claimed": True, "in_place": False, **facts}
    courses = image_outlook(WantedImage(IDENTITY, entry, **facts), counts, NOW)
    return courses.retry, courses.clear


CASES: dict[str, tuple[LedgerEntry, dict[str, Any], str, str]] = {
    "not submitted": (LedgerEntry(), {}, "buys it", "buys it"),
    "not submitted, and in place": (LedgerEntry(), {"in_place": True}, USES, USES),
    "queued": (LedgerEntry(record(RecordState.QUEUED)), {}, "buys it", "buys it"),
    "in place": (LedgerEntry(record(RecordState.DONE, "tsk_1"), "landed", FILE), {"in_place": True}, USES, USES),
    "in place, or unknown": (
        LedgerEntry(record(RecordState.DONE, "tsk_1"), "landed", FILE),
        {"in_place": None},
        USES,
        USES,
    ),
    "gone": (
        LedgerEntry(record(RecordState.DONE, "tsk_1"), "landed", FILE),
        {},
        f"{THERE}; if it is not there, {UNKNOWN}",
        f"{THERE}; if it is not there, {UNKNOWN}",
    ),
    "reused, and gone": (LedgerEntry(None, "reused", FILE), {}, "buys it", "buys it"),
    "under way": (
        LedgerEntry(record(RecordState.SUBMITTED, "tsk_1")),
        {},
        f"{THERE}; if it failed, buys it again; if it was refused, {REFUSED}; if it is not there, {UNKNOWN}",
        f"{THERE}; if it failed or was refused, buys it again; if it is not there, {UNKNOWN}",
    ),
    "under way for more than a day": (
        LedgerEntry(record(RecordState.SUBMITTED, "tsk_1", age=DAY + 60)),
        {},
        f"{ASKS} if it has expired, {EXPIRED}; if it is there, {USES}; "
        f"if it failed, buys it again; if it was refused, {REFUSED}; if it is not there, {UNKNOWN}",
        f"{ASKS} if it has expired or failed or was refused, buys it again; "
        f"if it is there, {USES}; if it is not there, {UNKNOWN}",
    ),
    "refused": (
        failed("content_policy_violation", "no", retryable=False),
        {},
        LEFT,
        f"asks the service: if it was refused, buys it again; if it is not there, {UNKNOWN}",
    ),
    "failed and refunded": (
        failed("generation_failed", "no", retryable=True),
        {},
        f"asks the service: if it failed, buys it again; if it is not there, {UNKNOWN}",
        f"asks the service: if it failed, buys it again; if it is not there, {UNKNOWN}",
    ),
    "expired": (
        failed("expired", "yes", retryable=False),
        {},
        LEFT,
        f"asks the service: if it has expired, buys it again; if it is not there, {UNKNOWN}",
    ),
    "written ahead, without a claim": (
        LedgerEntry(record(RecordState.INTENT)),
        {},
        f"{THERE}; if it failed, buys it again; if it was refused, {REFUSED}; if it is not there, {FEW} buys it"
        ' (with on_unknown_submission="fail" it fails)',
        f"{THERE}; if it failed or was refused, buys it again; if it is not there, {FEW} buys it",
    ),
}


@pytest.mark.parametrize(("entry", "facts", "retry", "clear"), CASES.values(), ids=CASES)
def test_each_state_has_its_words(entry: LedgerEntry, facts: dict[str, Any], retry: str, clear: str) -> None:
    courses = of(entry, **facts)
    assert (courses[0].words, courses[1].words) == (retry, clear)


def test_what_is_bought_is_told_apart_from_what_may_be() -> None:
    assert [course.buys for course in of(LedgerEntry())] == ["yes", "yes"]
    assert [course.buys for course in of(LedgerEntry(record(RecordState.SUBMITTED, "tsk_1")))] == ["perhaps"] * 2
    assert [course.buys for course in of(failed("expired", "yes", retryable=False))] == ["no", "perhaps"]
    assert [course.fails for course in of(failed("expired", "yes", retryable=False))] == ["yes", "perhaps"]


def test_quarantine_is_neither_left_nor_bought() -> None:
    for course in of(failed("suspect_image", "yes", retryable=False), in_quarantine=True):
        assert course.words.startswith("leaves it in quarantine and buys nothing") and course.buys == "no"


def test_a_task_that_was_cleared_and_has_not_run_since_is_told_as_the_clear() -> None:
    entry = failed("expired", "yes", retryable=False)
    retry, clear = of(entry, TryCounts(try_number=1, max_tries=3, retries=2))
    assert retry == clear and "if it has expired, buys it again" in retry.words


def test_a_submit_says_that_only_its_arguments_buy_what_has_expired() -> None:
    entry = LedgerEntry(record(RecordState.DONE, "tsk_1", age=DAY + 60))
    image = WantedImage(SubmissionIdentity((), "f" * 64), entry, single=True)
    courses = image_outlook(image, COUNTS, NOW, SubmissionPolicy())
    assert f"if it has expired, {EXPIRED}" in courses.clear.words


def test_where_client_ids_do_not_resolve_nothing_is_bought_on_their_word() -> None:
    retry, clear = of(LedgerEntry(record(RecordState.INTENT)), ids_resolve=False)
    assert "then fails: whether it was bought cannot be found out" in retry.words
    assert clear.words.endswith("then buys it")


@pytest.mark.parametrize("age", [10.0, 600.0, 5_000.0, DAY - 10, DAY + 10, 3 * DAY])
@pytest.mark.parametrize(("entry", "facts"), [case[:2] for case in CASES.values()], ids=CASES)
def test_images_that_are_alike_have_one_outlook(entry: LedgerEntry, facts: dict[str, Any], age: float) -> None:
    """So that ten thousand of them are told in a second."""
    entry = replace(entry, record=entry.record and replace(entry.record, may_have_left_at=NOW - age))
    image = WantedImage(IDENTITY, entry, **{"complete": True, "claimed": True, "in_place": False, **facts})
    alike = essence(image, NOW)
    assert (alike is None) == (entry.record is not None and age not in (5_000.0, 3 * DAY))
    if alike is not None:
        assert hash(alike) is not None and image_outlook(alike, COUNTS, NOW) == image_outlook(image, COUNTS, NOW)
