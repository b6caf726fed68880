"""Simulation: a service, a clock and attempts of the real submission loop, one side effect at a time, without HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.durable.record import SubmissionIdentity, SubmissionRecord
from airflow_provider_nanobanana.durable.record_store import SingleRecordStore
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.submission.shared_state import ProcessState
from airflow_provider_nanobanana.submission.workflow import Submission
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask, ImageTaskError
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.session import make_session

HTTP_TIMEOUT = 30.0
LINK_SECONDS = 86_400.0
#: So low that a second submit has to wait, or to queue.
SUBMIT_RATE = 0.2
SCOPE = ("dag", "run", "task", "-1")

Kind = Literal["ok", "lost", "lost_before", "limited"]


class Killed(BaseException):
    """kill -9."""


@dataclass(frozen=True)
class PostOutcome:
    """What happens to a POST.

    :param commits_in: Seconds from departure to acceptance, at most the HTTP timeout.
    :param shown_in: Seconds from acceptance until its client id resolves.
    """

    kind: Kind = "ok"
    commits_in: float = 0.0
    shown_in: float = 0.0


@dataclass
class Charge:
    """One image task that the service has charged."""

    id: str
    client_id: str | None
    want: int
    accepted: float
    shown: float
    status: ImageTaskStatus = ImageTaskStatus.RUNNING
    completed: float | None = None
    refused: bool = False
    written_off: bool = False

    def expired(self, now: float) -> bool:
        return self.completed is not None and now >= self.completed + LINK_SECONDS

    def is_worth_an_image(self, now: float) -> bool:
        """Whether the charge can still become an image."""
        return self.status is not ImageTaskStatus.FAILED and not self.expired(now)

    def model(self) -> ImageTask:
        failed = self.status is ImageTaskStatus.FAILED
        code = "content_policy_violation" if self.refused else "generation_failed"
        return ImageTask(
            id=self.id,
            status=self.status,
            completed_at=self.completed,
            expires_at=self.completed + LINK_SECONDS if self.completed else None,
            client_business_id=self.client_id,
            error=ImageTaskError(code=code, message="no") if failed else None,
        )


@dataclass
class Simulation:
    """The clock, the charges of the service, the one stored record and the submit rate of all attempts.

    :ivar rows: The record as it was written again and again; a store that is behind shows an earlier one.
    """

    now: float = 1_790_000_000.0
    charges: list[Charge] = field(default_factory=list)
    row: SubmissionRecord | None = None
    rows: list[SubmissionRecord] = field(default_factory=list)
    rate_state: ProcessState = field(default_factory=ProcessState)

    def accept(self, client_id: str | None, want: int, outcome: PostOutcome) -> Charge:
        accepted = self.now + outcome.commits_in
        charge = Charge(f"tsk_{len(self.charges)}", client_id, want, accepted, accepted + outcome.shown_in)
        self.charges.append(charge)
        return charge

    def find(self, key: str) -> Charge | None:
        seen = [b for b in self.charges if self.now >= (b.shown if b.client_id == key else b.accepted)]
        return next((b for b in reversed(seen) if key in (b.id, b.client_id)), None)


class SimulatedAttempt:
    """One running attempt; :meth:`step` runs it to its next side effect.

    :param want: Number of the wanted image that it buys.
    :param shared: Whether there is a task state store.
    :param ahead: Seconds by which the clock of its worker is ahead of the service's.
    """

    def __init__(
        self,
        simulation: Simulation,
        want: int,
        request: ImageRequest,
        attempt: TaskAttempt,
        rules: SubmissionPolicy,
        *,
        shared: bool,
        clear_number: int = 0,
        ahead: float = 0.0,
    ) -> None:
        self.simulation, self.want, self.shared = simulation, want, shared
        self.post_outcome = PostOutcome()
        self.wake = 0.0
        self.at = "start"
        self.steps = 0
        self.bought: ImageTask | None = None
        self.error: errors.ToApisError | None = None
        identity = SubmissionIdentity(SCOPE, request.fingerprint(), clear_number=clear_number)
        session = make_session(self, clock=lambda: simulation.now + ahead, sleep=self._sleep)
        self._submission = Submission(
            session, request, identity=identity, attempt=attempt, policy=rules,
            record_store=_Row(self) if shared else SingleRecordStore(InMemoryStateStore()),
            rate_limiter=SubmitRateLimiter(SUBMIT_RATE, simulation.rate_state),
        )  # fmt: skip
        self._greenlet = greenlet(self._run)

    @property
    def ended(self) -> bool:
        return bool(self._greenlet.dead)

    def step(self) -> None:
        self.steps += 1
        self.simulation.now = max(self.simulation.now, self.wake)
        self._greenlet.switch()

    def kill(self) -> None:
        if self._greenlet:
            self._greenlet.throw(Killed)
        else:
            self._greenlet = greenlet(lambda: None)
            self._greenlet.switch()

    def finish(self, outcome: Callable[[], PostOutcome], most: int) -> None:
        """Run to the end, in so many steps at most."""
        while not self.ended:
            assert self.steps < most, f"no end in sight after {self.steps} steps, at {self.at}"
            if self.at == "post":
                self.post_outcome = outcome()
            self.step()

    def _run(self) -> None:
        try:
            found = self._submission.run()
            self._submission.mark_done()
            self.pause("return")
            self.bought = found
        except errors.ToApisError as error:
            self.error = error
        except Killed:
            pass

    def pause(self, at: str, seconds: float = 0.0) -> None:
        self.at, self.wake = at, self.simulation.now + seconds
        parent = getcurrent().parent
        assert parent is not None
        parent.switch()

    def _sleep(self, seconds: float) -> None:
        self.pause("sleep", seconds)

    def call(self, call: Any, policy: Any = None) -> ImageTask:
        """Answer a call in place of the client."""
        if call.kind is CallKind.SUBMIT:
            return self._post(call.body.get("client_business_id"))
        self.pause("look up")
        found = self.simulation.find(call.image_task_id)
        if found is None:
            raise errors.ImageTaskNotFound("not there")
        return found.model()

    def _post(self, client_id: str | None) -> ImageTask:
        self.pause("post")
        outcome = self.post_outcome
        if outcome.kind == "limited":
            self.pause("answer", 0.2)
            raise errors.RateLimited("slower", retry_after=1.0)
        if outcome.kind == "lost_before":
            self.pause("answer", HTTP_TIMEOUT)
            raise errors.SubmissionUnknown("lost")
        charge = self.simulation.accept(client_id, self.want, outcome)
        self.pause("answer", HTTP_TIMEOUT if outcome.kind == "lost" else outcome.commits_in)
        if outcome.kind == "lost":
            raise errors.SubmissionUnknown("lost")
        return charge.model()


class _Row:
    """The record store of one attempt.

    It does not pause between a read and the write that follows: two attempts within the same milliseconds are a
    documented limit.
    """

    def __init__(self, live: SimulatedAttempt) -> None:
        self._live, self._just_read = live, False

    def read(self) -> SubmissionRecord | None:
        self._live.pause("read")
        self._just_read = True
        return self._live.simulation.row

    def write(self, record: SubmissionRecord) -> None:
        if not self._just_read:
            self._live.pause("write")
        self._just_read = False
        self._live.simulation.row = replace(record)
        self._live.simulation.rows.append(record)
