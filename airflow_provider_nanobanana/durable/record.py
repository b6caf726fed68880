"""The write-ahead record of one submission, and the identity under which it can be found without any record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self


class RecordState(StrEnum):
    """How far a submission has come."""

    QUEUED = "queued"
    """Certainly nothing was sent."""
    INTENT = "intent"
    """A POST may have left."""
    SUBMITTED = "submitted"
    """The service gave an id."""
    DONE = "done"
    """The result was handed on."""


@dataclass(frozen=True)
class SubmissionIdentity:
    """What makes a submission this one: the task instance, or the name, and the request.

    :param scope: As :attr:`TaskAttempt.scope`: the connection's namespace, if any, dag id, run id, task id, map index.
    :param fingerprint: Hash of the request (:meth:`ImageRequest.fingerprint`).
    :param stem: Name of the wanted file without its suffix: tells identical requests of one task instance apart. Empty
        where there is no file, and one request.
    :param clear_number: Rises when the user wants the same request made once more.
    :param name: What the user calls the image; it takes the map index's place, so that another task instance of the
        same mapped task finds what was bought for it. Empty without one.
    :param salt: Tells the task instance from others of the same scope (:func:`~.attempt.salt_of`). A named image has
        no part in it: it is kept per map index, which says nothing of the name.
    """

    scope: tuple[str, ...]
    fingerprint: str
    stem: str = ""
    clear_number: int = 0
    name: str = ""
    salt: str = ""

    def client_business_id(self, generation: int) -> str:
        """Return the id sent with a generation: 43 characters; NUL joins the parts, so that no two read alike."""
        scope = self.scope
        # The words keep a name from reading like a map index, and a salt like either.
        if self.name:
            scope = (*scope[:-1], f"name:{self.name}")
        elif self.salt:
            scope = (*scope, f"salt:{self.salt}")
        parts = (*scope, self.fingerprint, self.stem, str(self.clear_number), str(generation))
        return f"nb-{hashlib.sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


@dataclass(frozen=True)
class SubmissionRecord:
    """What is known of a task instance's submission; no secret in it.

    :param may_have_left_at: Epoch seconds of the last moment at which a POST may have left.
    :param max_tries: Airflow's count when this was written; another one at a later try means that the user cleared
        the task.
    :param writer: The attempt that wrote it.
    :param try_number: The try that wrote it; 0 where there is no task instance.
    :param name: As the identity's, and so is ``salt``; what is on record stands for all later attempts.
    """

    state: RecordState
    fingerprint: str
    clear_number: int
    generation: int
    client_business_id: str | None
    image_task_id: str | None
    may_have_left_at: float
    max_tries: int
    writer: str = ""
    try_number: int = 0
    name: str = ""
    salt: str = ""

    def wants_same(self, identity: SubmissionIdentity) -> bool:
        """Whether this is about the image that ``identity`` wants, perhaps from before a clear.

        A name that was given or left out meanwhile makes no other image of it.
        """
        renamed = self.name and identity.name and self.name != identity.name
        return self.fingerprint == identity.fingerprint and not renamed

    def matches(self, identity: SubmissionIdentity) -> bool:
        """Whether this is about the very submission of ``identity``."""
        return self.wants_same(identity) and self.clear_number == identity.clear_number

    def with_state(self, state: RecordState, **changes: Any) -> Self:
        """Return the record in another state."""
        return replace(self, state=state, **changes)


@dataclass(frozen=True)
class CallerIdentity(SubmissionIdentity):
    """The identity of a submission whose client id the caller chose: the first part of its scope."""

    def client_business_id(self, generation: int) -> str:
        """Return the caller's id, told apart by generation after the first."""
        return f"{self.scope[0]}-{generation}" if generation else self.scope[0]
