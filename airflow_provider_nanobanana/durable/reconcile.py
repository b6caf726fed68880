"""Paid once: what an attempt does about one wanted image, decided from the record, the service's answers and the clock.

Pure: no I/O, no clock, no Airflow. :func:`reconcile` is asked again after every look-up, wait or write, until it says
what to use, to submit, or why to fail. The record is written ahead (intent before the POST, id after it) and never
deleted; where there is none, the ids under which a submit can be found are derived again from the task instance and the
request. The table of cases, one test a row: ``docs/durability.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity, SubmissionRecord
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import CONTENT_REFUSED
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

OnUnknownSubmission = Literal["resubmit", "fail"]
OnExpired = Literal["fail", "resubmit"]

#: "Not there" is believed when asked this often, and this long after the last moment at which a submit may have left:
#: an accepted submit may stay invisible for half a minute, and the HTTP call itself may have been under way.
MIN_LOOKUPS: Final = 4
VISIBLE_AFTER_SECONDS: Final = 60.0
#: Clocks of workers differ by less: a moment that is further back was written that long ago, whatever clock it is of.
CLOCKS_DIFFER_SECONDS: Final = 300.0
#: An intent of a group, written ahead, names a moment that is ahead by less (seconds).
_WRITTEN_AHEAD: Final = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE, _DOUBLINGS = 2.0, 16.0, 3
#: Nothing sane fails this often: from here on a clear has to ask for the next ones, and in the end nothing helps.
MAX_GENERATIONS: Final = 25
MOST_GENERATIONS: Final = 10 * MAX_GENERATIONS


@dataclass(frozen=True)
class SubmissionPolicy:
    """What user and connection allow.

    A result that has expired is paid and lost. It is bought again with ``on_expired="resubmit"``, by a clear with
    ``reuse_existing=False``, and by any clear where ``clear_rebuys``; otherwise it ends in an error.

    :param client_ids: Whether submits can be found by a ``client_business_id``.
    :param http_timeout: Seconds that one POST may be under way.
    :param clear_rebuys: For a caller that announces what a clear will buy (generate); a submit has no way to.
    :param claimed: Whether a claim beside the file stands behind every submit: then whoever finds no image task asks
        the claims before it buys, and need not rule out here what earlier attempts may have bought.
    """

    client_ids: bool = True
    on_unknown_submission: OnUnknownSubmission = "resubmit"
    reuse_existing: bool = True
    on_expired: OnExpired = "fail"
    http_timeout: float = 30.0
    clear_rebuys: bool = False
    claimed: bool = False

    @property
    def rebuys_expired(self) -> bool:
        """Whether what is paid and has expired is bought again at any attempt."""
        return self.on_expired == "resubmit"

    @property
    def visibility_delay(self) -> float:
        """Seconds for which what a POST bought may stay out of sight, from the moment at which the POST left."""
        return self.http_timeout + VISIBLE_AFTER_SECONDS


@dataclass(frozen=True)
class Lookup:
    """What the service answered when asked for ``target``: the image task, or ``attempts`` times "not there"."""

    target: str
    image_task: ImageTask | None = None
    attempts: int = 1


@dataclass(frozen=True)
class ReconcileInput:
    """All that :func:`reconcile` goes by.

    :param generation: The generation being looked up while there is no record.
    :param former: The record of another request or round that was settled before: nothing of this one can have left
        later than what it names.
    :param read_at: Epoch seconds of our own clock at which we first read what is decided upon; None where moments in
        the record are of that clock.
    """

    identity: SubmissionIdentity
    attempt: TaskAttempt
    policy: SubmissionPolicy
    record: SubmissionRecord | None = None
    lookup: Lookup | None = None
    generation: int = 0
    former: SubmissionRecord | None = None
    read_at: float | None = None
    shared: bool = False


#: The reason to submit where nothing was done before.
FIRST_ATTEMPT: Final = "this is the first attempt"


class Action(StrEnum):
    """What to do next; the first three end well, the last ends badly."""

    USE = "use"
    REATTACH = "re-attach"
    RECOVER = "recover"
    LOOK_UP = "look up"
    WAIT = "wait"
    NEXT_GENERATION = "go on to the next generation"
    SUBMIT = "submit"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """One step and its reason, in words for the log.

    :param target: The id to look up, or the image task to use.
    :param generation: The generation to submit or to go on to.
    :param seconds: How long to wait before the next look-up.
    """

    action: Action
    reason: str
    target: str = ""
    generation: int = 0
    seconds: float = 0.0
    error: errors.ToApisError | None = None


def reconcile(facts: ReconcileInput, now: float) -> Decision:
    """Return the next step; ``now`` is epoch seconds."""
    record = facts.record
    if facts.policy.claimed and (record is None or record.image_task_id is None):
        return _decide_claimed(facts, record, now)
    if record is None:
        return _decide_unrecorded(facts, now)
    if record.state is RecordState.QUEUED:
        return _decide_unsent(facts, record, now)
    return _decide_sent(facts, record, now)


def _decide_sent(facts: ReconcileInput, record: SubmissionRecord, now: float) -> Decision:
    """The record says that a POST may have left, or what it bought."""
    target = record.image_task_id or record.client_business_id
    if target is None:
        return _decide_untraceable(facts, record)
    if facts.lookup is None or facts.lookup.target != target:
        return Decision(Action.LOOK_UP, f"the record is {record.state}", target=target)
    if facts.lookup.image_task is not None:
        return _decide_found(facts, facts.lookup.image_task, now)
    return _decide_absent(facts, facts.lookup, now, since=_by_our_clock(record.may_have_left_at, facts.read_at))


def _by_our_clock(at: float, read_at: float | None) -> float:
    """Return the last moment, by our own clock, at which a POST of a record may have left.

    :param at: What the record says: epoch seconds of the clock of whoever wrote it.
    """
    if read_at is None or at <= read_at - CLOCKS_DIFFER_SECONDS:
        return at
    return min(max(at, read_at), read_at + _WRITTEN_AHEAD)


def _decide_unsent(facts: ReconcileInput, record: SubmissionRecord, now: float) -> Decision:
    """The record says that nothing was sent; one of an earlier try is not believed without one look.

    After a failover of its database the store may be some seconds behind.
    """
    reason = "the record says that nothing was sent"
    target = record.client_business_id
    if target is not None and _may_be_behind(facts, record):
        if facts.lookup is None or facts.lookup.target != target:
            return Decision(Action.LOOK_UP, f"{reason} by an earlier try", target=target)
        if facts.lookup.image_task is not None:
            return _decide_found(facts, facts.lookup.image_task, now)
        reason = f"{reason}, and {target} is not there"
    if not record.matches(facts.identity):
        return _submit_other(facts, f"{reason}; another request is wanted now")
    return _submitting(record.generation, reason)


def _may_be_behind(facts: ReconcileInput, record: SubmissionRecord) -> bool:
    """Whether more may have been sent than a record says, and can be looked up: it is an earlier try's."""
    return facts.policy.client_ids and record.try_number != facts.attempt.try_number


def _decide_claimed(facts: ReconcileInput, record: SubmissionRecord | None, now: float) -> Decision:
    """A claim stands beside the file for whatever was sent: without an image task on record, claims are asked next."""
    if record is None or record.state is RecordState.QUEUED or record.client_business_id is None:
        return _submitting(facts.generation, "the claims beside the file tell what was bought")
    if facts.lookup is not None and facts.lookup.target == record.client_business_id and not facts.lookup.image_task:
        return _submitting(record.generation, "it is not there; the claims beside the file tell whether it may come")
    return _decide_sent(facts, record, now)


def _decide_untraceable(facts: ReconcileInput, record: SubmissionRecord) -> Decision:
    """A submit may have left without a client id: nothing can be looked up."""
    if _surely_cleared(facts):
        return _submitting(record.generation, "the task was cleared after its outcome could not be found out")
    return _failing(_unfindable(_adopt_key(facts), sent_ids=False), record.generation)


def _decide_unrecorded(facts: ReconcileInput, now: float) -> Decision:
    """Without a record: submit, unless an earlier attempt may have done so."""
    attempt = facts.attempt
    former = facts.former
    first = not (attempt.retry or attempt.cleared or former)
    # What has a name another task instance may have bought.
    named = bool(facts.identity.name) and facts.policy.client_ids and facts.policy.reuse_existing
    if first and not named:
        return _submitting(0, FIRST_ATTEMPT)
    if not facts.policy.client_ids:
        return _decide_blind(facts)
    target = facts.identity.client_business_id(facts.generation)
    if facts.lookup is None or facts.lookup.target != target:
        return Decision(Action.LOOK_UP, "there is no record of earlier attempts", target=target)
    if facts.lookup.image_task is not None:
        return _decide_found(facts, facts.lookup.image_task, now)
    if first or (former is not None and former.matches(facts.identity)):
        # Nothing under way is known of: one look, should the store or another task instance know less than the service.
        return _submitting(facts.generation, f"{target} is not there")
    # An attempt that goes on after a pause may have begun on another machine.
    latest = attempt.started_at if facts.read_at is None else facts.read_at + _WRITTEN_AHEAD
    # What has a name another task instance may have sent since.
    if former is not None and not facts.identity.name:
        latest = min(latest, _by_our_clock(former.may_have_left_at, facts.read_at))
    return _decide_absent(facts, facts.lookup, now, since=min(attempt.started_at, latest))


def _decide_blind(facts: ReconcileInput) -> Decision:
    """There is neither a record of earlier attempts nor an id to look up what they bought."""
    if facts.attempt.retry:
        return _failing(_unfindable(_adopt_key(facts), sent_ids=False))
    return _submitting(0, "the task was cleared, and without client ids nothing can be looked up")


def _decide_absent(facts: ReconcileInput, lookup: Lookup, now: float, since: float) -> Decision:
    """The service does not show it: wait until that can be believed, then as the user wants."""
    record = facts.record
    policy = facts.policy
    # What another record was written over was settled then, and shows by now if it is there at all.
    outcome_unknown = facts.former is None and since > -math.inf
    if (outcome_unknown and lookup.attempts < MIN_LOOKUPS) or now < since + policy.visibility_delay:
        pause = min(_FIRST_PAUSE * 2 ** min(lookup.attempts - 1, _DOUBLINGS), _LONGEST_PAUSE)
        reason = f"{lookup.target} is not there yet (look-up {lookup.attempts})"
        return Decision(Action.WAIT, reason, target=lookup.target, seconds=pause)
    cleared = _surely_cleared(facts)
    if record is not None and record.image_task_id is not None:
        if cleared and not policy.reuse_existing:
            return _next(facts, f"image task {record.image_task_id} is unknown to this account")
        return _failing(_unknown_id(record.image_task_id))
    if policy.on_unknown_submission == "fail" and outcome_unknown and not cleared:
        return _failing(_unfindable(_adopt_key(facts), sent_ids=True), _generation(facts))
    reason = f"{lookup.target} is not there after {lookup.attempts} look-ups: nothing was bought"
    if record is not None and not record.matches(facts.identity):
        return _submit_other(facts, reason)
    return _submitting(_generation(facts), reason)


def _decide_found(facts: ReconcileInput, found: ImageTask, now: float) -> Decision:
    """The service shows an image task: does it serve what is wanted now?"""
    record = facts.record
    cleared = _cleared_since(facts)
    changed = record is not None and not record.wants_same(facts.identity)
    if found.status is ImageTaskStatus.FAILED and not found.expired_at_service:
        return _decide_failed(facts, found, cleared)
    if cleared and changed:
        fate = f"is found again by its name {record.name!r}" if record and record.name else "is abandoned, though paid"
        reason = f"the task was cleared with another request; image task {found.id} {fate}"
        return _next(facts, reason)
    if found.terminal and (found.expired_at_service or now >= found.expires(now)):
        return _decide_expired(facts, found)
    if cleared and not facts.policy.reuse_existing and record is not None and record.state is RecordState.DONE:
        return _next(facts, f"reuse_existing=False, and image task {found.id} was handed on before the clear")
    if record is not None and changed:
        which = f"try {record.try_number}" if record.try_number else "an earlier try"
        reason = (
            f"the request changed between attempts; going on with the request of {which}, which is paid already; "
            "clear the task once more to take the new one"
        )
    else:
        reason = f"it is {found.wire_status or found.status}; nothing is bought"
    return Decision(_action_for(record, found), f"image task {found.id}: {reason}", target=found.id)


def _action_for(record: SubmissionRecord | None, found: ImageTask) -> Action:
    if record is None or record.image_task_id is None:
        return Action.RECOVER
    return Action.USE if found.status is ImageTaskStatus.COMPLETED else Action.REATTACH


def _decide_expired(facts: ReconcileInput, found: ImageTask) -> Decision:
    """The image is paid and lost: whatever replaces it is paid once more, and never without being asked for."""
    policy = facts.policy
    cleared = _cleared_since(facts)
    # Without a record the id that was looked up tells: what a clear without reuse bought has one of its own.
    asked_for_another = cleared and not policy.reuse_existing and facts.record is not None
    if facts.shared or asked_for_another or policy.rebuys_expired or (cleared and policy.clear_rebuys):
        return _next(facts, f"the link of image task {found.id} has expired")
    return _failing(_expired(found, clear_rebuys=policy.clear_rebuys))


def _decide_failed(facts: ReconcileInput, found: ImageTask, cleared: bool) -> Decision:
    error = found.error
    if error and error.code == CONTENT_REFUSED.code and not cleared:
        return _failing(_refused(found))
    return _next(facts, f"image task {found.id} failed at the service and was refunded")


def _cleared_since(facts: ReconcileInput) -> bool:
    """Whether the user cleared the task after what was found had been submitted, as far as it can be told."""
    record = facts.record
    attempt = facts.attempt
    return attempt.cleared if record is None else attempt.seems_cleared_since(record)


def _surely_cleared(facts: ReconcileInput) -> bool:
    """As :func:`_cleared_since`, where a mistake could buy what nobody can see."""
    record = facts.record
    attempt = facts.attempt
    return attempt.cleared and not attempt.retry if record is None else attempt.cleared_since(record)


def _next(facts: ReconcileInput, reason: str) -> Decision:
    """Go on to what comes after a finished generation."""
    record = facts.record
    identity = facts.identity
    if record is None:
        return _bounded(facts, Action.NEXT_GENERATION, facts.generation + 1, reason)
    if record.matches(identity):
        action = Action.NEXT_GENERATION if _may_be_behind(facts, record) else Action.SUBMIT
        return _bounded(facts, action, record.generation + 1, reason)
    return _submit_other(facts, reason)


def _submit_other(facts: ReconcileInput, reason: str) -> Decision:
    """The request is another one than the record's: its own generations begin at 0 and may exist from before."""
    return Decision(Action.NEXT_GENERATION if facts.policy.client_ids else Action.SUBMIT, reason)


def _bounded(facts: ReconcileInput, action: Action, generation: int, reason: str) -> Decision:
    """Go on to a generation; a clear begins the count of failures again."""
    last = generation >= MOST_GENERATIONS
    if last or (generation % MAX_GENERATIONS == 0 and not _cleared_since(facts)):
        return _failing(_too_many_failures(generation, clear_goes_on=not last))
    return Decision(action, reason, generation=generation)


def _submitting(generation: int, reason: str) -> Decision:
    return Decision(Action.SUBMIT, reason, generation=generation)


def _generation(facts: ReconcileInput) -> int:
    return facts.record.generation if facts.record else facts.generation


def _adopt_key(facts: ReconcileInput) -> str:
    """Return the derived id under which a person can say which image task this submission became."""
    return facts.identity.client_business_id(_generation(facts))


def _failing(error: errors.ToApisError, generation: int = 0) -> Decision:
    return Decision(Action.FAIL, error.message, generation=generation, error=error)


def _unfindable(key: str, *, sent_ids: bool) -> errors.ToApisError:
    """An earlier submit can neither be found nor ruled out.

    :param key: The derived id of the submission; the key of a mapping that adopts an image task by hand.
    :param sent_ids: Whether submits carry that id.
    """
    how = (
        f"No image task answers to client_business_id {key}, and on_unknown_submission='fail'."
        if sent_ids
        else "This connection sends no client ids (client_ids: false), so it cannot be asked for."
    )
    return errors.SubmissionUnfindable(
        f"An earlier submit may have bought this image. {how} Nothing was sent now. Look at the account's task list in "
        "the ToAPIs console. If the image is there, clear this task with "
        f"adopt={{{key!r}: '<image task id>'}}; if it is not there, clear this task to submit."
    )


def _unknown_id(image_task_id: str) -> errors.ToApisError:
    """The recorded image task is not this account's."""
    return errors.ImageTaskNotFound(
        f"Image task {image_task_id} was bought by an earlier attempt, but this account does not know it. Nothing was "
        "sent now: check that the connection still leads to the same host and account. To give the image up and buy "
        "again, clear this task with reuse_existing=False.",
        image_task_id=image_task_id,
    )


def _expired(found: ImageTask, *, clear_rebuys: bool) -> errors.ToApisError:
    """The image is paid, and can no longer be fetched.

    :param clear_rebuys: Whether a clear by itself buys it again.
    """
    how = "" if clear_rebuys else " with on_expired='resubmit' (or with reuse_existing=False)"
    return errors.ResultExpired(
        f"Image task {found.id} of this request is paid and its link has expired: the service no longer gives the "
        f"image out. Nothing was sent now. Clear the task{how} to buy it again.",
        image_task_id=found.id,
    )


def _refused(found: ImageTask) -> errors.ToApisError:
    """The prompt was refused, and would be again."""
    code, message = (found.error.code, found.error.message) if found.error else ("", "")
    return errors.ContentRefused(
        f"Image task {found.id} of this request was refused by content policy ({code}: {message}) and refunded; it "
        "would be refused again. Change the prompt and clear the task.",
        image_task_id=found.id,
        code=code,
    )


def _too_many_failures(generations: int, *, clear_goes_on: bool) -> errors.ToApisError:
    """The service fails it every time.

    :param clear_goes_on: Whether a clear submits it again.
    """
    how = "clear this task" if clear_goes_on else "change the prompt or the variant and clear this task"
    return errors.ImageTaskFailed(
        f"{generations} image tasks of this request failed; all were refunded. Nothing was sent now. Look at the "
        f"prompt and at the service, then {how} to submit it again."
    )
