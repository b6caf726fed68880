"""``ledger_words``: the ledger of one task instance in words: each image task with its state, its id and its money, and
what a retry and a clear of the task would do about it.

One function behind the command ``ledger`` and the gallery. What it says of attempts to come is what the task itself
would decide (:mod:`~.durable.image_outlook`). Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from airflow_provider_nanobanana.batch.cost_tracker import charges_of
from airflow_provider_nanobanana.batch.costs import Cost, Spent, format_images, format_usd, totals
from airflow_provider_nanobanana.durable.claim_outlook import Outlook, outlook
from airflow_provider_nanobanana.durable.claims import Claim, Damaged
from airflow_provider_nanobanana.durable.course import DEFAULT_POLICY, Course
from airflow_provider_nanobanana.durable.image_outlook import ClaimSeen, TryCounts, WantedImage, essence, image_outlook
from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED, SUSPECT
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS
from airflow_provider_nanobanana.toapis.redaction import one_line

#: Of whose money the sums are, and what stands behind an attempt to come.
Form = Literal["generate", "submit"]

_NOT_WANTED: Final = Course("does not ask for it and buys nothing")
_LONGEST: Final = 300
_SUBMIT_POLICY: Final = SubmissionPolicy()


@dataclass(frozen=True)
class LedgerRow:
    """One image as the ledger shows it.

    :param label: In words for people.
    :param entry: As the last attempt left it.
    :param image: What is found of it; None where it is not asked for any more.
    :param retried: What a retry finds of the version that it chooses, where that is another one.
    :param cleared: What an attempt after a clear finds of the one that it chooses, likewise.
    :param rejected: Whether a person has rejected its picture.
    """

    label: str
    entry: LedgerEntry
    image: WantedImage | None
    retried: WantedImage | None = None
    cleared: WantedImage | None = None
    rejected: bool = False


@dataclass(frozen=True)
class LooseClaim:
    """An open claim of the task instance on a file that its ledger does not know.

    :param stem: Of the file.
    :param image_task_id: As its book says; None where that says nothing.
    """

    stem: str
    seen: ClaimSeen
    image_task_id: str | None = None


@dataclass(frozen=True)
class TaskLedger:
    """All that is known of a task instance's image tasks.

    :param source: What it was read from, in words.
    :param state: Airflow's word for where the task instance stands; None for none.
    :param survives: Whether the records outlive a try (Airflow 3.3 and later).
    :param survives_clear: Whether they outlive a clear, too (Airflow 3.3).
    :param stop_reason: Why the last attempt bought nothing more; empty where it did.
    :param unreadable: Whether there are records that cannot be understood: then nothing is known.
    :param skipped: What could not be read, in words.
    """

    source: str
    form: Form
    counts: TryCounts
    rows: Sequence[LedgerRow] = ()
    claims: Sequence[LooseClaim] = ()
    state: str | None = None
    survives: bool = True
    survives_clear: bool = True
    stop_reason: str = ""
    unreadable: bool = False
    skipped: Sequence[str] = field(default_factory=tuple)


def ledger_words(ledger: TaskLedger, now: float) -> dict[str, Any]:
    """Return the ledger in words, as plain JSON: ``summary``, ``source``, ``rows`` and ``skipped``.

    A row is ``{"label", "state", "image_task_id", "paid_usd", "money", "why", "retry", "clear", "retry_buys",
    "clear_buys"}``: ``paid_usd`` in USD, None while unknown; ``why`` is the failure's message or None; ``retry`` and
    ``clear`` are predicates, such as ``uses it and buys nothing``; ``..._buys`` is ``no``, ``perhaps`` or ``yes``.

    :param now: Epoch seconds.
    """
    policy = DEFAULT_POLICY if ledger.form == "generate" else _SUBMIT_POLICY
    known: dict[WantedImage, Outlook] = {}

    def foretold(image: WantedImage | None) -> Outlook:
        if image is None:
            return Outlook(_NOT_WANTED, _NOT_WANTED)
        alike = essence(image, now)
        if alike is None:
            return image_outlook(image, ledger.counts, now, policy)
        if alike not in known:
            known[alike] = image_outlook(alike, ledger.counts, now, policy)
        return known[alike]

    told = [
        _row(row, Outlook(foretold(row.retried or row.image).retry, foretold(row.cleared or row.image).clear), now)
        for row in ledger.rows
    ]
    told += [_claim_row(claim, now) for claim in ledger.claims]
    return {
        "summary": [*_summary(ledger, told)],
        "source": ledger.source,
        "rows": [row.plain for row in told],
        "skipped": [one_line(words, limit=_LONGEST) for words in ledger.skipped],
    }


@dataclass(frozen=True)
class _Told:
    """A row in words, and what its attempts to come amount to."""

    plain: Mapping[str, Any]
    kind: str
    outlook: Outlook


def _row(row: LedgerRow, courses: Outlook, now: float) -> _Told:
    entry = row.entry
    spent = Spent.on(charges_of(entry).values())
    kind, state = _state(row, now)
    record = entry.record
    plain = _plain(row.label, state, entry.picture_id or (record.image_task_id if record else None), courses)
    why = entry.error.message if entry.error is not None and entry.status == "failed" else ""
    return _Told(
        {
            **plain,
            "paid_usd": spent.paid.usd,
            "money": _money(entry, spent),
            "why": one_line(why, limit=_LONGEST) or None,
        },
        kind,
        courses,
    )


def _claim_row(claim: LooseClaim, now: float) -> _Told:
    seen = claim.seen
    courses = outlook(seen.claim, seen.book, age=seen.age, now=now)
    outcome = seen.book.outcome if seen.book is not None and seen.book.outcome != "newer" else None
    plain = _plain(
        claim.stem, f"open claim, {outcome} by its own word" if outcome else "open claim", claim.image_task_id, courses
    )
    damaged = f"The claim is damaged: {seen.claim.why}" if isinstance(seen.claim, Damaged) else None
    bought = outcome == "bought"
    money = {"paid_usd": None, "money": "paid, at a price that is not on record" if bought else "not known"}
    if outcome is not None and not bought:
        money = {"paid_usd": 0.0, "money": "nothing"}  # type: ignore[dict-item]
    return _Told({**plain, **money, "why": damaged}, "open claim", courses)


def _plain(label: str, state: str, image_task_id: str | None, courses: Outlook) -> dict[str, Any]:
    return {
        "label": one_line(label, limit=_LONGEST),
        "state": state,
        "image_task_id": image_task_id,
        "paid_usd": None,
        "money": "",
        "why": None,
        "retry": courses.retry.words,
        "clear": courses.clear.words,
        "retry_buys": courses.retry.buys,
        "clear_buys": courses.clear.buys,
    }


def _state(row: LedgerRow, now: float) -> tuple[str, str]:
    """Return where an image stands: as it is counted, and in words."""
    entry, image = row.entry, row.image
    if entry.status in ("landed", "reused"):
        if image is not None and image.in_place is False:
            return "gone", "gone from the destination"
        return ("rejected", f"{_in_place(entry)}, rejected") if row.rejected else ("in place", _in_place(entry))
    if image is not None and image.in_quarantine:
        return "in quarantine", "in quarantine: a suspect picture, kept apart"
    if entry.status == "failed" and entry.error is not None:
        words = {EXPIRED.code: "its link has expired", SUSPECT.code: "suspect picture"}.get(entry.error.code)
        return "failed", f"failed: {words or one_line(entry.error.code, limit=_LONGEST)}"
    if image is not None and image.in_place:
        return "in place", f"in place, and not noted yet{', rejected' if row.rejected else ''}"
    return _open_state(row, now)


def _in_place(entry: LedgerEntry) -> str:
    if entry.lost_races:
        return "in place, of another purchase that was first"
    if entry.status == "reused":
        return "in place since before this task"
    return "in place, shared with whoever bought it" if entry.shared else "in place"


def _open_state(row: LedgerRow, now: float) -> tuple[str, str]:
    """Return where an image stands that neither landed nor failed."""
    record = row.entry.record
    if record is not None and record.image_task_id is not None:
        if row.image is not None and row.image.single:
            return "bought", "bought; the tasks behind this one wait for it and land it"
        by = ", bought by somebody else" if row.entry.shared else ""
        old = now - (row.entry.submitted_at or record.may_have_left_at) > LINK_LIFETIME_SECONDS
        return "under way", f"under way{by}{'; its link may have expired' if old else ''}"
    if record is not None and record.state is RecordState.INTENT:
        return "may be bought", "may be bought: a submit may have left, and no answer to it is on record"
    seen = row.image.claim if row.image is not None else None
    if seen is not None and isinstance(seen.claim, Claim):
        return "claimed", f"not submitted as far as is known; claimed by {seen.whose or 'this task'}"
    return "not submitted", "not submitted"


def _money(entry: LedgerEntry, spent: Spent) -> str:
    """Return what became of the money, in words."""
    error = entry.error if entry.status == "failed" else None
    parts = []
    if entry.shared:
        parts.append(f"nothing; somebody else paid {_usd(spent.cost)}")
    elif spent.paid.usd is None:
        parts.append("paid, at a price that is not known")
    elif spent.paid.usd:
        parts.append(f"{format_usd(spent.paid.usd)} paid{', at list price' if spent.paid.listed else ''}")
    elif error is not None and error.charged != "no":
        parts.append("paid, or perhaps paid" if error.charged == "unknown" else "paid")
    elif entry.record is not None and entry.record.image_task_id is not None and error is not None:
        parts.append("nothing: refunded")
    elif entry.record is not None and entry.record.state is RecordState.INTENT and entry.status == "open":
        parts.append("perhaps paid: that is looked up")
    else:
        parts.append("nothing")
    if spent.lost_race.usd:
        parts.append(f"{_usd(spent.lost_race)} of it for an image task whose picture is not the one in place")
    if entry.sunk_cost and not entry.shared:
        parts.append(f"{format_usd(entry.sunk_cost)} of it for earlier image tasks of it that were lost")
    return "; ".join(parts)


def _usd(cost: Cost) -> str:
    if cost.usd is None:
        return "an unknown sum"
    return f"{format_usd(cost.usd)}{', at list price' if cost.listed and cost.usd else ''}"


def _summary(ledger: TaskLedger, told: Sequence[_Told]) -> Iterator[str]:
    """Yield what all of it comes to, in sentences."""
    counts = ledger.counts
    state = f" It is {ledger.state}." if ledger.state else ""
    tries = f"Try {counts.try_number:,} was the last one; Airflow retries up to try {counts.max_tries + 1:,}."
    yield f"{'It has not run yet.' if not counts.try_number else tries}{state}"
    if ledger.unreadable:
        yield (
            "Its records are there and cannot be understood, so nothing is known of what was bought. A retry, or a "
            "clear, fails before it buys anything."
        )
        return
    if not told:
        yield "Nothing is on record: no image task was bought, as far as is known."
        return
    kinds = Counter(one.kind for one in told)
    yield f"{format_images(len(told))}: {', '.join(f'{number:,} {kind}' for kind, number in kinds.items())}."
    yield from _sums(ledger)
    wanted = [one for one in told if one.outlook.retry is not _NOT_WANTED]
    left = "" if counts.try_number <= counts.max_tries else " (none is left; if there were one)"
    yield f"A retry{left} {_amounts_to(one.outlook.retry for one in wanted)}."
    anew = "; it reads the requests anew, and verifies the files" if ledger.form == "generate" else ""
    yield f"A clear {_amounts_to(one.outlook.clear for one in wanted)}{anew}."
    yield (
        "That is by default: the task's arguments (redo, on_expired, on_unknown_submission, on_suspect, max_cost_usd) "
        "may change it, and with reuse_existing=False a clear buys all of it again."
    )
    if ledger.stop_reason:
        yield f"The last attempt bought nothing more: {one_line(ledger.stop_reason, limit=_LONGEST)}"
    if not ledger.survives:
        yield (
            "On this Airflow the records end with a try: the next one finds what was bought by the claims beside the "
            "files, or asks the service."
        )
    elif not ledger.survives_clear:
        yield (
            "On this Airflow a clear discards the records, unless it is asked to keep the task's state: what was "
            "bought is found by the claims beside the files, or the service is asked."
        )


def _sums(ledger: TaskLedger) -> Iterator[str]:
    sums = totals(Spent.on(charges_of(row.entry).values()) for row in ledger.rows)
    listed = f", {format_usd(sums['of_which_listed_usd'])} of it at list price" if sums["of_which_listed_usd"] else ""
    unpriced = f" In no sum: {sums['unpriced']:,} whose price nobody knows." if sums["unpriced"] else ""
    yield f"This task instance has paid {format_usd(sums['paid_usd'])}{listed}.{unpriced}"


def _amounts_to(courses: Iterable[Course]) -> str:
    """Return what attempts amount to over all images, as a predicate."""
    every = list(courses)
    buys = Counter(course.buys for course in every)
    uses = sum(course.buys == "no" and course.fails == "no" for course in every)
    fails = sum(course.buys == "no" and course.fails == "yes" for course in every)
    parts = {
        f"buys {buys['yes']:,}": buys["yes"],
        f"may buy {buys['perhaps']:,}": buys["perhaps"],
        f"uses {uses:,}": uses,
        f"leaves {fails:,} without an image": fails,
    }
    nothing = [] if buys["yes"] or buys["perhaps"] else ["buys nothing"]
    return ", ".join([*nothing, *(words for words, number in parts.items() if number)])
