"""``image_outlook``: what a retry and what a clear of a task would do about one wanted image, in words.

The way is the task's own: what it takes up again (:mod:`~.taking_up`), what the record makes of each answer that the
service might give (:func:`~.reconcile.reconcile`), and what the claims beside the file make of it
(:func:`~.claim_outlook.claim_course`). Nothing is decided here, and nothing sent. Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.durable import taking_up
from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claim_outlook import Outlook, claim_course
from airflow_provider_nanobanana.durable.claims import (
    BookEntry,
    Buyer,
    Claim,
    ClaimFacts,
    Damaged,
    Settled,
    settled_by,
)
from airflow_provider_nanobanana.durable.course import (
    BUYS,
    BUYS_AGAIN,
    DEFAULT_POLICY,
    USES,
    Course,
    Ended,
    after,
    answers,
    asks,
    fails_with,
    with_choices,
)
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, LedgerEntry, StoredFile
from airflow_provider_nanobanana.durable.reconcile import (
    Action,
    Lookup,
    ReconcileInput,
    SubmissionPolicy,
    reconcile,
)
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity
from airflow_provider_nanobanana.toapis.failure_codes import CONTENT_REFUSED, EXPIRED
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageTask

_QUARANTINED: Final = Course(
    'leaves it in quarantine and buys nothing (with on_suspect="warn" it puts it in place)', fails="yes"
)
#: Seconds after which no wait for a submit depends on when it left.
_SETTLED: Final = 1_200.0
_A_FILE: Final = StoredFile("-.png", None, None, "png", None, None)
#: Seconds that are no wait worth a word.
_A_FEW_LOOKS: Final = 30.0
_LEFT: Final = Course("leaves it as it failed and buys nothing", fails="yes")


@dataclass(frozen=True)
class TryCounts:
    """How often a task instance was tried, as Airflow counts.

    :param try_number: Of the try that is at work, or was last; 0 before the first.
    :param max_tries: Airflow's; a clear sets it.
    :param retries: The task's own.
    """

    try_number: int
    max_tries: int
    retries: int

    def retry(self, now: float) -> TaskAttempt:
        """Return the attempt that comes next, if nobody clears the task."""
        return self._next(self.max_tries, now)

    def clear(self, now: float) -> TaskAttempt:
        """Return the attempt that comes next, if somebody clears the task now."""
        return self._next(self.try_number + self.retries, now)

    def _next(self, max_tries: int, now: float) -> TaskAttempt:
        return TaskAttempt.of(try_number=self.try_number + 1, max_tries=max_tries, retries=self.retries, started_at=now)


@dataclass(frozen=True)
class ClaimSeen:
    """The newest claim on a file, as it was found beside it.

    :param age: Seconds for which a task takes it to have been there.
    :param whose: Who made it, in words; empty where that is the task instance itself.
    """

    claim: Claim | Damaged
    book: BookEntry | None = None
    age: float = 0.0
    whose: str = ""


@dataclass(frozen=True)
class WantedImage:
    """What the next attempt will find of one image.

    :param identity: What makes its submission this one.
    :param entry: As the next attempt reads it: blank where the records end with a try (Airflow before 3.3).
    :param complete: Whether every submit of the task instance is in the ledger.
    :param claimed: Whether purchases are claimed beside their files.
    :param claim: The newest claim beside its file; None where there is none, or where the file is in place.
    :param in_place: Whether its file is at the destination; None where that is not known.
    :param in_quarantine: Whether a suspect picture of it is kept apart.
    :param single: Whether it is the one image of a submit, which knows of no files.
    :param ids_resolve: Whether the service was seen to find image tasks by client id.
    :param buyer: The task instance, as it claims.
    :param redone: Whether a new version is bought instead where the task's ``redo`` names it.
    """

    identity: SubmissionIdentity
    entry: LedgerEntry = field(default_factory=LedgerEntry)
    complete: bool = False
    claimed: bool = False
    claim: ClaimSeen | None = None
    in_place: bool | None = None
    in_quarantine: bool = False
    single: bool = False
    ids_resolve: bool | None = None
    buyer: Buyer = field(default_factory=Buyer)
    redone: bool = False


def image_outlook(
    image: WantedImage, counts: TryCounts, now: float, policy: SubmissionPolicy = DEFAULT_POLICY
) -> Outlook:
    """Return what a retry and what a clear of the task would do about an image, if it still asks for it.

    :param now: Epoch seconds.
    """
    if image.ids_resolve is False:
        policy = replace(policy, on_unknown_submission="fail")
    retry, clear = (_Way(image, attempt, policy, now).course() for attempt in (counts.retry(now), counts.clear(now)))
    return Outlook(retry=retry, clear=clear)


def essence(image: WantedImage, now: float) -> WantedImage | None:
    """Return what an outlook goes by, the same for all images that are alike; None of one that is to be asked itself.

    Ten thousand images stand in a few ways. Ids, files and messages change no outlook, nor do moments that are well
    past all waits and well within the life of a link, or well beyond it.
    """
    entry, record = image.entry, image.entry.record
    moments = [record.may_have_left_at] if record is not None else []
    moments += [entry.submitted_at] if entry.submitted_at is not None else []
    ages = [now - moment for moment in moments]
    settled = all(_SETTLED < age < LINK_LIFETIME_SECONDS - _SETTLED for age in ages)
    dead = all(age > LINK_LIFETIME_SECONDS + _SETTLED for age in ages)
    if image.claim is not None or not (settled or dead):
        return None
    then = now - (2 * _SETTLED if settled else 2 * LINK_LIFETIME_SECONDS)
    same = record is not None and record.fingerprint == image.identity.fingerprint
    plain = record and replace(
        record,
        fingerprint="-" if same else "",
        client_business_id=record.client_business_id and "-",
        image_task_id=record.image_task_id and "-",
        may_have_left_at=then,
        writer="",
    )
    error = entry.error and ItemError(
        entry.error.code, "", entry.error.charged, entry.error.retryable, entry.error.billed
    )
    return replace(
        image,
        identity=replace(image.identity, fingerprint="-", stem=""),
        entry=LedgerEntry(
            plain,
            entry.status,
            entry.stored and _A_FILE,
            error=error,
            submitted_at=entry.submitted_at and then,
            sunk_cost=entry.sunk_cost,
            shared=entry.shared,
        ),
    )


@dataclass(frozen=True)
class _Way:
    """What one attempt does about an image, step by step."""

    image: WantedImage
    attempt: TaskAttempt
    policy: SubmissionPolicy
    now: float

    def course(self) -> Course:
        """Return what is done in the end, and on what it hangs."""
        course = self._of_version()
        if not self.image.redone or course.buys == "yes":
            return course
        return replace(course, words=f"{course.words} (with redo it buys a new version)", buys="perhaps")

    def _of_version(self) -> Course:
        """Return what is done about the picture that is chosen without ``redo``."""
        image, entry = self.image, replace(self.image.entry, status="open")
        if image.single:
            return self._follow(self._facts(claimed=False), None)
        if (kept := self._kept()) is not None:
            return kept
        looks = taking_up.needs_lookup(entry, self.attempt, complete=image.complete, claimed=image.claimed)
        # Of what was certainly not sent the look-up finds nothing.
        if looks and not (entry.record is not None and entry.record.state is RecordState.QUEUED):
            return self._follow(self._facts(claimed=image.claimed and not self._may_be_unclaimed()), None)
        return self._bought(self._facts(claimed=image.claimed), None)

    def _kept(self) -> Course | None:
        """Return what becomes of an image that is not taken up again; None of one that is."""
        image, entry = self.image, self.image.entry
        if image.in_quarantine and entry.stored is None and entry.status in ("open", "failed"):
            return _QUARANTINED
        if entry.status == "failed" and not taking_up.is_worth_another_attempt(entry, self.attempt):
            return _LEFT
        wanted_again = taking_up.is_wanted_again(entry, self.attempt, self.policy)
        stays = entry.stored is not None and image.in_place is not False and not wanted_again
        found = image.in_place and taking_up.is_untouched(replace(entry, status="open"))
        return USES if stays or found else None

    def _facts(self, *, claimed: bool) -> ReconcileInput:
        return ReconcileInput(
            self.image.identity,
            self.attempt,
            replace(self.policy, claimed=claimed),
            record=self.image.entry.record,
            read_at=self.now,
            shared=self.image.entry.shared,
        )

    def _may_be_unclaimed(self) -> bool:
        """Whether a submit may have left for which no claim stands beside the file."""
        record = self.image.entry.record
        if record is None or record.state is not RecordState.INTENT or record.image_task_id is not None:
            return False
        top = self.image.claim.claim if self.image.claim is not None else None
        # Below a later generation its own is taken to stand.
        return not isinstance(top, Claim) or (top.n == 0 and top.client_business_id != record.client_business_id)

    def _follow(self, facts: ReconcileInput, settled: Settled | None) -> Course:
        """Go by the decisions until the image is used, bought or given up."""
        decision = reconcile(facts, self.now)
        if decision.action is Action.NEXT_GENERATION:
            return self._follow(
                replace(
                    facts,
                    record=None,
                    former=facts.record or facts.former,
                    lookup=None,
                    generation=decision.generation,
                    policy=replace(facts.policy, claimed=self.image.claimed),
                ),
                settled_by(facts.record, _found(facts)) or settled,
            )
        if decision.action is Action.LOOK_UP:
            return self._asked(facts, decision.target, settled)
        if decision.action is Action.WAIT:
            return self._waited(facts, settled)
        return with_choices(facts.policy, lambda policy: self._ends(replace(facts, policy=policy), settled))

    def _ends(self, facts: ReconcileInput, settled: Settled | None) -> Course:
        """Return what a decision comes to that nothing has to be asked or waited for."""
        decision = reconcile(facts, self.now)
        match decision.action:
            case Action.FAIL:
                return fails_with(decision.error)
            case Action.USE | Action.REATTACH | Action.RECOVER:
                return USES
            case Action.SUBMIT:
                return self._bought(facts, settled or settled_by(facts.record, _found(facts)))
        return self._follow(facts, settled)

    def _asked(self, facts: ReconcileInput, target: str, settled: Settled | None) -> Course:
        """Return what follows from each answer about an id; of what comes after another one nothing was sent."""
        if facts.generation or facts.former is not None:
            return self._follow(replace(facts, lookup=Lookup(target)), settled)
        entry = self.image.entry
        left_at = entry.record.may_have_left_at if entry.record else self.now
        submitted_at = min(self.now, entry.submitted_at or left_at)
        ended = _how_it_ended(entry)
        return asks(
            {
                condition: self._follow(replace(facts, lookup=lookup), settled)
                for condition, lookup in answers(target, submitted_at, self.now, ended).items()
            }
        )

    def _waited(self, facts: ReconcileInput, settled: Settled | None) -> Course:
        """Return for how long it is looked for, as the decisions say, and what follows if it does not show."""
        passed = 0.0
        decision = reconcile(facts, self.now)
        while decision.action is Action.WAIT:
            passed += decision.seconds
            looked = facts.lookup.attempts + 1 if facts.lookup else 1
            facts = replace(facts, lookup=Lookup(decision.target, attempts=looked))
            decision = reconcile(facts, self.now + passed)
        looks = f"looks for it for up to {passed:.0f} s" if passed > _A_FEW_LOOKS else "looks a few times more"
        return after(looks, replace(self, now=self.now + passed)._follow(facts, settled))

    def _bought(self, facts: ReconcileInput, settled: Settled | None) -> Course:
        """Return what becomes of a purchase that the record leaves open: the claims beside the file decide."""
        image = self.image
        if image.in_place and not image.single:
            return USES
        if not image.claimed or image.claim is None:
            return BUYS if settled is None and _found(facts) is None and not image.entry.sunk_cost else BUYS_AGAIN
        seen = image.claim
        looked_up = facts.lookup
        claim = ClaimFacts(
            seen.claim,
            image.buyer,
            self.attempt,
            self.policy,
            book=seen.book,
            age=seen.age,
            settled=settled,
            lookup=looked_up if looked_up is not None and looked_up.image_task is None else None,
            ids_resolve=image.ids_resolve,
        )
        return claim_course(claim, self.now, seen.whose)


def _found(facts: ReconcileInput) -> ImageTask | None:
    return facts.lookup.image_task if facts.lookup else None


def _surely_unsent(entry: LedgerEntry) -> bool:
    """Whether the record says that certainly nothing was sent."""
    return entry.record is not None and entry.record.state is RecordState.QUEUED


def _how_it_ended(entry: LedgerEntry) -> Ended | None:
    """Return how the image task of an entry ended, where the ledger knows."""
    if entry.status in ("landed", "reused"):
        return "completed"
    if entry.status != "failed" or entry.error is None:
        return None
    if entry.error.code == EXPIRED.code:
        return "expired"
    if not entry.refunded:
        return None
    return "refused" if entry.error.code == CONTENT_REFUSED.code else "failed"
