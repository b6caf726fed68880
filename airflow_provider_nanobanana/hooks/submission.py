"""The shell around the decision: it looks, waits, writes the record, uploads and sends, and decides nothing."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.durable.decision import Decision, Rules, Seen, Situation, Verb, decide
from airflow_provider_nanobanana.durable.record import Record, RecordState
from airflow_provider_nanobanana.hooks.echo import ids_resolve
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.protocol import NO_REPEATS, RetryPolicy, status_call, submit_call, upload_call

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import Attempt
    from airflow_provider_nanobanana.durable.journal import Journal
    from airflow_provider_nanobanana.durable.record import SubmissionIdentity
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask

log = logging.getLogger(__name__)

#: A wait longer than this is not sat out in a worker: the caller queues without a slot.
_LONGEST_SIT: Final = 10.0
#: Lost answers of one attempt, each followed by a minute and a half of look-ups; after the next one Airflow retries.
_MOST_LOST: Final = 1
#: The newer docs' limit of reference images (2026-10); the older ones say 14. The service decides.
_DOCUMENTED_REFERENCES: Final = 6


class Submission:
    """One wanted image of one attempt: found, or bought once.

    :param request: A parsed request.
    :param adopt: Image tasks chosen by a person, by the derived id of the submission they belong to.
    :param vouched: Whether the caller vouches that no earlier attempt is under way.
    """

    def __init__(
        self,
        hook: NanoBananaHook,
        request: ImageRequest,
        *,
        identity: SubmissionIdentity,
        attempt: Attempt,
        rules: Rules,
        journal: Journal,
        adopt: Mapping[str, str] | None = None,
        vouched: bool = False,
    ) -> None:
        self._hook = hook
        self._request = request
        self._journal = journal
        self._adopt = adopt or {}
        self._writer = uuid.uuid4().hex
        self._kept: Record | None = None
        self._uploads: dict[str, str] = {}
        self._lost = 0
        self._start = Situation(identity, attempt, rules, vouched=vouched)

    def settle(self) -> ImageTask:
        """Return the image task of the wish; what is recorded by then is ``submitted``.

        :raises ToApisError: ``RateLimited`` and ``ServiceUnavailable`` only where nothing is under way.
        """
        self._kept = self._journal.read()
        situation = replace(self._start, record=self._kept)
        while True:
            decision = decide(situation, self._hook.clock())
            log.info("Submission: %s: %s", decision.verb, decision.reason)
            if decision.verb in (Verb.USE, Verb.REATTACH, Verb.ADOPT):
                return self._use(situation, decision)
            if decision.verb is Verb.FAIL:
                return self._adopted(situation, decision)
            if decision.verb is Verb.SUBMIT:
                image_task = self._submit(situation, decision.generation)
                if image_task is not None:
                    return image_task
                # What we just sent may be under way: no vouching for that.
                situation = replace(self._start, record=self._kept, vouched=False)
            else:
                situation = self._step(situation, decision)

    def hand_on(self) -> None:
        """Note that the result is being handed on; whoever comes later may reuse or, after a clear, replace it."""
        if self._kept is not None:
            self._keep(self._kept.moved(RecordState.DONE))

    def _step(self, situation: Situation, decision: Decision) -> Situation:
        """Look, wait and look, or walk."""
        if decision.verb is Verb.WALK:
            vouched = situation.vouched or situation.record is not None
            return replace(situation, record=None, seen=None, generation=decision.generation, vouched=vouched)
        if decision.verb is Verb.WAIT:
            self._hook.sleep(decision.seconds)
        looks = situation.seen.looks + 1 if situation.seen and situation.seen.target == decision.target else 1
        return replace(situation, seen=Seen(decision.target, self._look(decision.target), looks))

    def _look(self, target: str) -> ImageTask | None:
        """Ask for an image task by its own or its client id; "could not ask" is never "not there"."""
        try:
            return self._hook.client.call(status_call(target))
        except errors.ImageTaskNotFound:
            return None
        except errors.ToApisError as unasked:
            # Not as it is: a rate-limited look-up must never pass for a submit that was not accepted.
            permanent = not unasked.retryable
            raise (type(unasked) if permanent else errors.TransientFailure)(
                f"An earlier submit may have bought this image, and it could not be looked up under {target}: "
                f"{unasked.message} Nothing was sent now; "
                f"{'mend this and clear the task' if permanent else 'a retry asks again'}.",
                http_status=unasked.http_status,
                code=unasked.code,
                retry_after=unasked.retry_after,
                charged="unknown",
            ) from unasked

    def _use(self, situation: Situation, decision: Decision) -> ImageTask:
        found = situation.seen.image_task if situation.seen else None
        assert found is not None
        record = situation.record or self._record(situation, RecordState.SUBMITTED, situation.generation)
        max_tries = self._start.attempt.max_tries
        self._keep(record.moved(RecordState.SUBMITTED, image_task_id=found.id, max_tries=max_tries))
        return found

    def _adopted(self, situation: Situation, decision: Decision) -> ImageTask:
        """Use what a person says this submission became, or fail."""
        error = decision.error
        assert error is not None
        generation = situation.record.generation if situation.record else situation.generation
        chosen = self._adopt.get(situation.identity.client_business_id(generation))
        if not isinstance(error, errors.SubmissionUnfindable) or chosen is None:
            raise error
        found = self._look(chosen)
        if found is None:
            raise errors.ImageTaskNotFound(
                f"The image task {chosen} to adopt is unknown to this account; nothing was sent.", image_task_id=chosen
            )
        log.warning("Adopting image task %s, as told.", found.id)
        return self._use(replace(situation, seen=Seen(chosen, found)), decision)

    def _submit(self, situation: Situation, generation: int) -> ImageTask | None:
        """Buy the image; None when the answer was lost, or when another attempt took over: then decide anew."""
        request = self._with_uploads(situation, generation)
        identity, client_ids = situation.identity, situation.rules.client_ids
        client_id = identity.client_business_id(generation) if client_ids else None
        call = submit_call(request, client_id)
        policy, repeats = RetryPolicy(), 0
        while self._still_ours():
            intent = self._record(situation, RecordState.INTENT, generation)
            self._keep(intent)
            try:
                image_task = self._hook.client.call(call, NO_REPEATS)
            except errors.SubmissionUnknown as lost:
                self._keep(intent.moved(RecordState.INTENT, at=self._hook.clock()))
                self._lost += 1
                if self._lost > _MOST_LOST:
                    raise
                log.warning("%s", lost.message)
                return None
            except errors.ToApisError as refused:
                self._keep(intent.moved(RecordState.QUEUED))
                delay = policy.delay(CallKind.SUBMIT, refused, repeats, random.random())
                if delay is None or delay > _LONGEST_SIT:
                    raise
                self._hook.sleep(delay)
                repeats += 1
                continue
            self._keep_bought(intent.moved(RecordState.SUBMITTED, image_task_id=image_task.id))
            if client_id is not None:
                ids_resolve(self._hook, client_id, image_task)
            return image_task
        return None

    def _still_ours(self) -> bool:
        """Whether no other attempt wrote since we last read; the window that remains is a few milliseconds."""
        current = self._journal.read()
        if current == self._kept:
            return True
        log.warning("Another attempt wrote the record meanwhile; deciding anew.")
        self._kept = current
        return False

    def _record(self, situation: Situation, state: RecordState, generation: int) -> Record:
        identity, rules = situation.identity, situation.rules
        return Record(
            state=state,
            fingerprint=identity.fingerprint,
            regeneration=identity.regeneration,
            generation=generation,
            client_business_id=identity.client_business_id(generation) if rules.client_ids else None,
            image_task_id=None,
            at=self._hook.clock(),
            max_tries=situation.attempt.max_tries,
            writer=self._writer,
        )

    def _keep(self, record: Record) -> None:
        record = replace(record, writer=self._writer)
        self._journal.write(record)
        self._kept = record

    def _keep_bought(self, record: Record) -> None:
        """Keep the id of what was just paid; failing to is loud but not fatal, the intent leads to it as well."""
        try:
            self._keep(record)
        except errors.TransientFailure as error:
            log.error("Image task %s is bought, but: %s", record.image_task_id, error.message)
            self._kept = record

    def _with_uploads(self, situation: Situation, generation: int) -> ImageRequest:
        """Return the request with every storage reference read, checked and replaced by its public URL."""
        from airflow_provider_nanobanana.hooks.reference import is_remote, read_reference

        references = self._request.reference_images
        if len(references) > _DOCUMENTED_REFERENCES:
            log.warning("%d reference images; newer docs speak of at most 6 for this model.", len(references))
        if self._kept is None:
            # From here on a retry knows that nothing was sent, whatever happens to the references.
            self._keep(self._record(situation, RecordState.QUEUED, generation))
        # All are checked before the first is sent: one bad reference costs nothing, not even an upload.
        local = {uri: read_reference(uri) for uri in references if not is_remote(uri) and uri not in self._uploads}
        self._uploads |= {uri: self._hook.client.call(upload_call(upload)) for uri, upload in local.items()}
        return self._request.model_copy(
            update={"reference_images": tuple(self._uploads.get(uri, uri) for uri in references)}
        )
