"""``Submission``: one image of one attempt, found or bought once.

It does what :func:`~.durable.reconcile.reconcile` decides: looks up, waits, writes the record (before the POST, and
after it), uploads references and sends. It decides nothing itself. Where the image has a file, nothing is sent without
a claim beside it (:class:`~.claims.ImageClaims`) that this process created.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeGuard

from airflow_provider_nanobanana.durable.claims import BookEntry, Settled, settled_by
from airflow_provider_nanobanana.durable.reconcile import (
    FIRST_ATTEMPT,
    Action,
    Decision,
    Lookup,
    ReconcileInput,
    SubmissionPolicy,
    reconcile,
)
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.record_store import OptimisticRecord
from airflow_provider_nanobanana.metrics import count
from airflow_provider_nanobanana.submission.claims import Shared
from airflow_provider_nanobanana.submission.client_ids import known_to_resolve, mark_supported, verify_support
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.protocol import submit_call
from airflow_provider_nanobanana.toapis.retry import NO_RETRY

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.record import SubmissionIdentity
    from airflow_provider_nanobanana.durable.record_store import RecordStore
    from airflow_provider_nanobanana.submission.claims import HeldClaim, ImageClaims
    from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
    from airflow_provider_nanobanana.submission.references import ReferenceUploader
    from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession


log = LineLogger(__name__)

#: Lost answers of one attempt, each followed by a minute and a half of look-ups; after the next one Airflow retries.
_MOST_LOST: Final = 1


def look_up(session: ToApisSession, target: str, *, by_client_id: bool | None = None) -> ImageTask | None:
    """Ask for an image task by its own or its client id; None when the service does not know it.

    :param by_client_id: As for :meth:`ToApisSession.get_task`: a client id that a user chose looks like any other.
    :raises ToApisError: It could not be asked, which is never "not there"; nothing was sent.
    """
    try:
        return session.get_task(target, by_client_id=by_client_id)
    except errors.ImageTaskNotFound:
        return None
    except errors.ToApisError as unasked:
        # Not as it is: a rate-limited look-up must never pass for a submit that was not accepted.
        permanent = not unasked.retryable
        raise (type(unasked) if permanent else errors.TransientFailure)(
            f"An earlier submit may have bought this image, and it could not be looked up under {target}: "
            f"{unasked.message} Nothing was sent now; "
            f"{'fix this and clear the task' if permanent else 'a retry asks again'}.",
            http_status=unasked.http_status,
            code=unasked.code,
            retry_after=unasked.retry_after,
            charged="unknown",
        ) from unasked


class SubmissionListener:
    """Hears of every step of one submission."""

    def on_decision(self, text: str) -> None:
        """Take note of a decision, in words."""
        # Of most submits there is nothing else to say.
        log.log(logging.DEBUG if text.endswith(FIRST_ATTEMPT) else logging.INFO, "Submission: %s", text)

    def on_found(self, image_task: ImageTask) -> None:
        """Take note of an image task that was looked up, whatever its status."""

    def on_shared(self, shared: Shared) -> None:
        """Take note that somebody else bought the image task that is used."""

    def before_submit(self) -> None:
        """Take note that the POST leaves at once; an error raised here keeps it from leaving."""


class Submission:
    """One wanted image of one attempt: found, or bought once.

    :param request: A parsed request.
    :param policy: What the user and the connection allow.
    :param record_store: Where the record is kept that other attempts read.
    :param rate_limiter: The account's.
    :param wait_for_slot: Whether to wait however long the account's rate asks; otherwise a long wait is raised, for the
        caller to queue.
    :param references: Uploads what is in a storage; shared by many submissions, it uploads each content once.
    :param adopt: Image tasks chosen by a person, by the derived id of the submission they belong to.
    :param listener: Hears of every step.
    :param written_ahead: The intent that the caller has put into the record store just now, nothing having been sent
        for it: it is POSTed as it is until its moment is over. Where an error keeps it from leaving, the record says
        ``queued`` again.
    :param claims: The claims beside the image's file; None where there is no file, or nothing can be claimed.
    :param shared: Whether somebody else paid for the recorded image task.
    :param read_at: Epoch seconds of this machine's clock at which the record was first read as it stands now; None is
        now.
    """

    def __init__(
        self,
        session: ToApisSession,
        request: ImageRequest,
        *,
        identity: SubmissionIdentity,
        attempt: TaskAttempt,
        policy: SubmissionPolicy,
        record_store: RecordStore,
        rate_limiter: SubmitRateLimiter,
        wait_for_slot: bool = False,
        references: ReferenceUploader | None = None,
        adopt: Mapping[str, str] | None = None,
        listener: SubmissionListener | None = None,
        written_ahead: SubmissionRecord | None = None,
        claims: ImageClaims | None = None,
        shared: bool = False,
        read_at: float | None = None,
    ) -> None:
        self._session = session
        self._request = request
        self._record = OptimisticRecord(record_store)
        self._rate_limiter = rate_limiter
        self._wait_for_slot = wait_for_slot
        self._adopt = adopt or {}
        self._references = references
        self._lost = 0
        self._listener = listener or SubmissionListener()
        self._written_ahead = written_ahead
        self._claims = claims
        self._read_at = read_at
        #: Client ids of claims that are known to stand beside the file, and the one that this process POSTed under.
        self._claimed: set[str] = set()
        self._posted: str | None = None
        #: What was known of the claim of the generation before.
        self._last_settled: Settled | None = None
        #: When the answer to that POST was lost, and when the last look-up began, by the machine's clock.
        self._lost_at: float | None = None
        self._looked_up_at: float | None = None
        self._initial_facts = ReconcileInput(identity, attempt, policy, shared=shared)

    def run(self) -> ImageTask:
        """Return the image task that was found or bought; what is recorded by then is ``submitted``.

        :raises ToApisError: ``RateLimited`` and ``ServiceUnavailable`` only where nothing is under way.
        :raises InPlace: The image's file was found; only with claims.
        """
        steps = self.steps()
        while True:
            try:
                seconds = next(steps)
            except StopIteration as end:
                image_task: ImageTask = end.value
                return image_task
            self._session.sleep(seconds)

    def steps(self, *, may_submit: bool = True) -> Generator[float, None, ImageTask | None]:
        """Do as :meth:`run`, for callers with many submissions: yield the seconds to wait before each further look-up.

        :param may_submit: Whether to buy what was not found; otherwise its record says ``queued`` in the end, and None
            is returned.
        """
        record = self._record.read()
        if self._written_ahead is not None:
            record = self._written_ahead.with_state(RecordState.QUEUED)
        facts = self._facts(record, self._read_at)
        self._check_client(facts)
        while True:
            facts = self._without_blind_resubmit(facts)
            decision = reconcile(facts, self._session.clock())
            self._listener.on_decision(f"{decision.action}: {decision.reason}")
            if decision.action is Action.SUBMIT and not may_submit and not self._adopted_id(facts, decision.generation):
                if (shared := self._find_shared(facts)) is not None:
                    return self._use_shared(facts, shared)
                self._record.save(self._new_record(facts, RecordState.QUEUED, decision.generation))
                return None
            if decision.action is Action.WAIT:
                yield decision.seconds
            if decision.action in (Action.LOOK_UP, Action.WAIT, Action.NEXT_GENERATION):
                facts = self._step(facts, decision)
                continue
            before = self._record.current
            try:
                if image_task := self._conclude(facts, decision):
                    return image_task
            except BaseException as error:
                # Also for a kill or a bug: an intent that was written ahead and not POSTed must not stay on record as
                # one that may have left.
                self._withdraw_intent()
                must_raise = not isinstance(error, errors.ToApisError) or error.charged != "no"
                if must_raise or not self._record.overtaken(before):
                    raise
            facts = self._facts(self._record.current)

    def _facts(self, record: SubmissionRecord | None, read_at: float | None = None) -> ReconcileInput:
        """Return what :func:`reconcile` goes by, with a record that was just read or written.

        :param read_at: As for the class, where it was read before.
        """
        identity = self._initial_facts.identity
        read_at = self._session.clock() if read_at is None else read_at
        if record is not None:
            # A clear of a finished run makes another salt of the same task instance.
            identity = replace(identity, salt=record.salt)
        facts = replace(self._initial_facts, identity=identity, record=record, read_at=read_at)
        if self._claims is None:
            return facts
        unanswered = record is not None and record.state is RecordState.INTENT and record.image_task_id is None
        client_id = record.client_business_id if record is not None else None
        # When a POST of this process left is known here better than from its claim.
        claimed = not unanswered or (client_id != self._posted and self._is_claimed(client_id))
        return replace(facts, policy=replace(facts.policy, claimed=claimed))

    def _is_claimed(self, client_business_id: str | None) -> bool:
        """Whether a claim stands beside the file that was made under an id; it may have been wiped."""
        if client_business_id is None or self._claims is None:
            return False
        if client_business_id not in self._claimed and self._claims.knows(client_business_id):
            self._claimed.add(client_business_id)
        return client_business_id in self._claimed

    def _withdraw_intent(self) -> None:
        """Write of an intent that was written ahead that it did not leave."""
        if self._written_ahead is not None:
            unsent = self._written_ahead.with_state(RecordState.QUEUED, may_have_left_at=self._session.clock())
            self._written_ahead = None
            self._record.try_save(unsent)

    def _without_blind_resubmit(self, facts: ReconcileInput) -> ReconcileInput:
        """Buy nothing on the word of look-ups, once the service was seen not to resolve client ids."""
        if known_to_resolve(self._session.settings.base_url) is False:
            return replace(facts, policy=replace(facts.policy, on_unknown_submission="fail"))
        return facts

    def _check_client(self, facts: ReconcileInput) -> None:
        """Say before anything is written ahead what keeps all calls from being made, and what earlier attempts left."""
        try:
            _ = self._session.client
        except errors.ToApisError as refused:
            record = facts.record
            attempt = facts.attempt
            earlier = attempt.retry or attempt.cleared if record is None else record.state is not RecordState.QUEUED
            if not earlier:
                # Met again where it is on record that nothing was sent, so that the next attempt need not look it up.
                return
            words = f"{refused.message} {self.left_behind()}"
            known = record.image_task_id if record else None
            error = refused.reworded(words, charged="yes" if known else "unknown")
            error.image_task_id = known
            raise error from refused

    def left_behind(self) -> str:
        """Return what this attempt leaves behind if it ends here: what may be paid, and what the next attempt does."""
        record = self._record.current
        if record is None or record.state is RecordState.QUEUED:
            return "Nothing was sent for this image by this attempt; the next one looks for what earlier ones sent."
        if record.image_task_id is not None:
            return f"Image task {record.image_task_id} is paid and goes on; the next attempt uses it."
        under = f" under client_business_id {record.client_business_id}" if record.client_business_id else ""
        return f"A submit may have left, and what it buys stays paid; the next attempt looks for it{under}."

    def bought_request(self) -> ImageRequest | None:
        """Return the request that the recorded image task was bought for, None where that was another than this one."""
        record = self._record.current
        identity = self._initial_facts.identity
        return self._request if record is not None and record.fingerprint == identity.fingerprint else None

    def mark_done(self) -> None:
        """Note that the result is being handed on; whoever comes later may reuse or, after a clear, replace it."""
        if self._record.current is not None:
            self._record.try_save(self._record.current.with_state(RecordState.DONE))

    def _conclude(self, facts: ReconcileInput, decision: Decision) -> ImageTask | None:
        """Use, submit or fail; None when another attempt took over or the answer was lost: then decide again."""
        unknown = decision.action is Action.SUBMIT or isinstance(decision.error, errors.SubmissionUnfindable)
        adopted_id = self._adopted_id(facts, decision.generation) if unknown else None
        if adopted_id is not None:
            return self._use_adopted(facts, adopted_id)
        if decision.error is not None:
            raise decision.error
        return self._submit(facts, decision.generation) if unknown else self._use(facts)

    def _step(self, facts: ReconcileInput, decision: Decision) -> ReconcileInput:
        """Look up what a decision names, or go on to the next generation."""
        if decision.action is Action.NEXT_GENERATION:
            former = facts.record or facts.former
            self._last_settled = self._settled(facts)
            return replace(facts, record=None, former=former, lookup=None, generation=decision.generation)
        target = decision.target
        attempts = facts.lookup.attempts + 1 if facts.lookup and facts.lookup.target == target else 1
        by_client_id = facts.record is None or facts.record.image_task_id is None
        self._looked_up_at = self._uptime()
        return replace(facts, lookup=Lookup(target, self._look_up(target, by_client_id), attempts))

    def _look_up(self, target: str, by_client_id: bool | None = None) -> ImageTask | None:
        found = look_up(self._session, target, by_client_id=by_client_id)
        if found is not None:
            self._listener.on_found(found)
        return found

    def _use(self, facts: ReconcileInput) -> ImageTask | None:
        """Record the image task that was looked up, and return it; None when another attempt took over."""
        found = facts.lookup.image_task if facts.lookup else None
        if found is None:
            raise RuntimeError("an image task is used only after it was found")
        if not self._record.is_current():
            return None
        record = facts.record or self._new_record(facts, RecordState.SUBMITTED, facts.generation)
        used = record.with_state(RecordState.SUBMITTED, image_task_id=found.id)
        attempt = self._initial_facts.attempt
        # An attempt from before a clear, still alive, must not undo the clear.
        if (attempt.try_number, attempt.max_tries) > (record.try_number, record.max_tries):
            used = replace(used, max_tries=attempt.max_tries, try_number=attempt.try_number)
        self._record.save(used)
        if record.state is RecordState.INTENT:  # bought, and not counted then: its answer was lost
            count("submitted", conn_id=self._session.conn_id, model=self._request.model)
        return found

    def _adopted_id(self, facts: ReconcileInput, generation: int) -> str | None:
        """Return what a person says this submission became: by its id now, or by that of the recorded intent."""
        identity = facts.identity
        recorded = self._record.current
        keys = [identity.client_business_id(generation)]
        if recorded is not None and recorded.image_task_id is None and recorded.client_business_id is not None:
            keys.append(recorded.client_business_id)
        if recorded is not None and recorded.image_task_id is None and recorded.wants_same(identity):
            keys.append(replace(identity, clear_number=recorded.clear_number).client_business_id(recorded.generation))
        return next((self._adopt[key] for key in keys if key in self._adopt), None)

    def _use_adopted(self, facts: ReconcileInput, image_task_id: str) -> ImageTask | None:
        """Use what a person says this submission became."""
        found = self._look_up(image_task_id)
        if found is None:
            raise errors.ImageTaskNotFound(
                f"The image task {image_task_id} to adopt is unknown to this account; nothing was sent.",
                image_task_id=image_task_id,
            )
        log.warning("Adopting image task %s, as told.", found.id)
        return self._use(replace(facts, lookup=Lookup(image_task_id, found)))

    def _submit(self, facts: ReconcileInput, generation: int) -> ImageTask | None:
        """Buy the image; None when the answer was lost, or when another attempt took over."""
        if self._record.current is None:
            if not self._record.is_current():
                return None
            # From here on a retry knows that nothing was sent, whatever happens to the references.
            self._record.save(self._new_record(facts, RecordState.QUEUED, generation))
        # Built here at the latest: what keeps any call from being sent must not leave an intent behind.
        _ = self._session.client
        self._request.check_model()
        request = self._with_uploads()
        if self._claims is None:
            return self._post(facts, generation, request, None)
        # A claim is made when all that may take long, or say no, is over: its right to POST is short.
        self._rate_limiter.check_near(self._session.clock)
        acquired = self._claims.acquire(self._look_up_claimed, self._settled(facts))
        if isinstance(acquired, Shared):
            return self._use_shared(facts, acquired)
        if acquired is None:
            raise RuntimeError("a claim is made, or something was found")
        self._posted = acquired.claim.client_business_id
        return self._post(facts, acquired.claim.n, request, acquired)

    def _post(
        self, facts: ReconcileInput, generation: int, request: ImageRequest, held: HeldClaim | None
    ) -> ImageTask | None:
        """POST the request once it has a slot; None as of :meth:`_submit`.

        :param held: The claim that gives the right to.
        """
        repeats = 0
        outcome: BookEntry | None = BookEntry("released")
        try:
            intended = self._new_record(facts, RecordState.INTENT, generation, held)
            call = submit_call(request, intended.client_business_id)
            while self._acquire_slot():
                intent = self._written_ahead
                self._written_ahead = None
                if not self._is_valid(intent, intended):
                    intent = replace(intended, may_have_left_at=self._session.clock())
                    self._record.save(intent)
                if held is not None and not held.may_post():
                    self._record.try_save(intent.with_state(RecordState.QUEUED))
                    return None
                sent = self._session.clock()
                try:
                    outcome = None
                    image_task = self._session.client.call(call, NO_RETRY)
                except errors.SubmissionUnknown as lost:
                    self._rate_limiter.on_error(self._session.clock(), lost, sent)
                    self._note_lost(intent, lost)
                    return None
                except errors.ToApisError as refused:
                    outcome = _refusal(refused)
                    delay = self._rate_limiter.delay(self._session.clock(), refused, repeats, sent)
                    still_owner = self._record.try_save(intent.with_state(RecordState.QUEUED))
                    if delay is None:
                        raise
                    if not still_owner:
                        return None
                    self._session.sleep(delay)
                    repeats += 1
                    continue
                outcome = BookEntry("bought", image_task.id)
                self._save_bought(intent, image_task)
                return image_task
            self._written_ahead = None
            return None
        finally:
            if held is not None and outcome is not None:
                held.note(outcome, self._request.billed_as)

    def _note_lost(self, intent: SubmissionRecord, lost: errors.SubmissionUnknown) -> None:
        """Record that an answer was lost; raise where one was lost before."""
        self._lost_at = self._uptime()
        self._record.try_save(intent.with_state(RecordState.INTENT, may_have_left_at=self._session.clock()))
        self._lost += 1
        if self._lost > _MOST_LOST:
            raise lost.reworded(f"{lost.message} {self.left_behind()}") from lost
        log.warning("%s", lost.message)

    def _uptime(self) -> float | None:
        return self._claims.folder.clock.uptime() if self._claims is not None else None

    def _is_valid(self, intent: SubmissionRecord | None, intended: SubmissionRecord) -> TypeGuard[SubmissionRecord]:
        """Whether an intent that was written ahead is of what is POSTed now, and of this moment."""
        if intent is None or self._session.clock() > intent.may_have_left_at:
            return False
        return intent.client_business_id == intended.client_business_id

    def _settled(self, facts: ReconcileInput) -> Settled | None:
        """Return the claim of which is known that it bought nothing, or nothing that can be had any more."""
        record = facts.record
        if record is None or record.client_business_id is None:
            return self._last_settled
        known = settled_by(record, facts.lookup.image_task if facts.lookup else None)
        if known is None and self._is_unseen(facts, record):
            return Settled(record.client_business_id, "unseen")
        return known

    def _is_unseen(self, facts: ReconcileInput, record: SubmissionRecord) -> bool:
        """Whether what this process POSTed would show by now, by a clock that nobody sets."""
        if record.state is not RecordState.INTENT or self._lost_at is None or self._looked_up_at is None:
            return False
        # Until the last look-up began, and not until now: this process may have stood still since.
        passed = self._looked_up_at - self._lost_at
        return record.client_business_id == self._posted and passed >= facts.policy.visibility_delay

    def _find_shared(self, facts: ReconcileInput) -> Shared | None:
        """Return what somebody has bought for the image, as its claims tell."""
        if self._claims is None:
            return None
        found = self._claims.acquire(self._look_up_claimed, self._settled(facts), may_create=False)
        return found if isinstance(found, Shared) else None

    def _use_shared(self, facts: ReconcileInput, shared: Shared) -> ImageTask | None:
        """Record the image task that somebody bought for the image, and return it; None as of :meth:`_use`."""
        if not self._record.is_current():
            return None
        self._written_ahead = None
        image_task = shared.image_task
        record = self._new_record(facts, RecordState.SUBMITTED, shared.claim.n)
        client_id = shared.claim.client_business_id
        # Before the record: who paid for it is saved with it, or an attempt that dies in between would have paid.
        if shared.own:
            self._listener.on_found(image_task)
        else:
            self._listener.on_shared(shared)
        self._record.save(replace(record, image_task_id=image_task.id, client_business_id=client_id))
        return image_task

    def _look_up_claimed(self, target: str, by_client_id: bool) -> ImageTask | None:
        """Ask for the image task of a claim, whoever made it."""
        found = look_up(self._session, target, by_client_id=by_client_id)
        if found is not None and by_client_id:
            mark_supported(self._session)
        return found

    def _save_bought(self, intent: SubmissionRecord, image_task: ImageTask) -> None:
        """Record what was just paid, then see whether the service resolves client ids."""
        self._record.save_submitted(intent.with_state(RecordState.SUBMITTED, image_task_id=image_task.id))
        self._listener.on_decision(f"bought image task {image_task.id} ({intent.client_business_id or 'no client id'})")
        count("submitted", conn_id=self._session.conn_id, model=self._request.model)
        self._rate_limiter.on_success(self._session.clock())
        if intent.client_business_id is not None:
            verify_support(self._session, intent.client_business_id, image_task)

    def _acquire_slot(self) -> bool:
        """Wait for a slot of the account's rate, then say whether the record is still ours.

        Nothing has been sent when it is killed meanwhile.
        """
        self._rate_limiter.acquire(self._session.clock, self._session.sleep, wait_for_slot=self._wait_for_slot)
        self._listener.before_submit()
        return self._record.is_current()

    def _new_record(
        self, facts: ReconcileInput, state: RecordState, generation: int, held: HeldClaim | None = None
    ) -> SubmissionRecord:
        intent = facts.attempt.intent(
            facts.identity,
            generation,
            client_ids=facts.policy.client_ids,
            may_leave_at=self._session.clock(),
            writer=self._record.writer,
        )
        if held is not None and facts.policy.client_ids:
            intent = replace(intent, client_business_id=held.claim.client_business_id)
        return intent.with_state(state)

    def _with_uploads(self) -> ImageRequest:
        """Return the request with every storage reference read, checked and replaced by its public URL."""
        if not self._request.reference_images:
            return self._request
        if self._references is None:
            from airflow_provider_nanobanana.submission.references import ReferenceUploader

            self._references = ReferenceUploader.of(self._session)
        return self._references.uploaded(self._request)


def _refusal(refused: errors.ToApisError) -> BookEntry | None:
    """Return what a book says of a POST that was answered with an error."""
    if refused.charged != "no":
        return None
    if isinstance(refused, errors.ContentRefused):
        return BookEntry("refused", refused.code or "content_refused")
    return BookEntry("released")
