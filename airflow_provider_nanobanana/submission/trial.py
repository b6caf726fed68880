"""``TrialPurchase``: one image bought for a person who wants to know what the service does with client ids.

It finds out whether a client id is resolved and how soon, whether a repeated one buys again, and what a result looks
like. Its invariant: a client id is told before the POST that carries it leaves, an image task as soon as it is known,
and after an answer was lost nothing is bought any more.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import refuses_repetition
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.protocol import submit_call
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from airflow_provider_nanobanana.toapis.retry import NO_RETRY
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageRequest
    from airflow_provider_nanobanana.toapis.session import ToApisSession

#: Seconds after the submit was answered at which it is looked up by its client id.
LOOK_UPS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 45.0, 60.0, 90.0)
#: Seconds between polls, and for which an image, one that is late at a completed image task, and a bill are awaited.
_POLL_INTERVAL: Final = 5.0
LONGEST_WAIT: Final = 300.0
_LONGEST_DELIVERY: Final = 120.0
_LONGEST_BILLING: Final = 20.0
#: Bodies the service would not take: of them a field it does not know may be the cause.
_BAD_REQUEST: Final = (400, 422)


class Attempt(StrEnum):
    """What a POST of the trial is for."""

    FIRST = "first"
    REPEATED = "repeated"
    WITHOUT_ID = "without id"


@dataclass(frozen=True)
class Post:
    """One POST and what it came to; moments are epoch seconds.

    :param image_task: What it bought, or what the service says it bought before.
    :param error: Why there is none; with neither, the POST left and was given up before an answer came.
    :param refused_as_repeated: Whether it was refused because its client id was used before.
    """

    attempt: Attempt
    client_business_id: str | None
    sent_at: float
    image_task: ImageTask | None = None
    error: errors.ToApisError | None = None
    refused_as_repeated: bool = False

    @property
    def lost(self) -> bool:
        """Whether it may have bought an image that nobody has seen."""
        if self.image_task is not None or self.refused_as_repeated:
            return False
        return self.error is None or self.error.charged == "unknown"


@dataclass(frozen=True)
class LookUps:
    """The look-ups by client id; seconds are those since the submit was answered.

    :param at: When each was made.
    :param found: The image task it led to.
    :param error: Why the last one that failed could not be made; "not there" is no failure.
    """

    at: tuple[float, ...] = ()
    found: ImageTask | None = None
    error: errors.ToApisError | None = None

    @property
    def found_after(self) -> float | None:
        """Seconds until the client id was resolved; None where it was not."""
        return self.at[-1] if self.found else None


@dataclass(frozen=True)
class TrialSeen:
    """What a trial has seen so far.

    :param look_ups: None where no submit was answered.
    :param leads_to: The image task that the client id led to after a repeated submit.
    :param used_credits: What the account had used before the first POST and after each; None where it was not told.
    :param results: The last state of each image task, by its id.
    :param answers: The answer that showed it.
    """

    posts: tuple[Post, ...] = ()
    look_ups: LookUps | None = None
    leads_to: str | None = None
    used_credits: tuple[float | None, ...] = ()
    results: Mapping[str, ImageTask] = field(default_factory=dict)
    answers: Mapping[str, ApiResponse] = field(default_factory=dict)

    def post(self, attempt: Attempt) -> Post | None:
        """Return the POST of an attempt, or None where it did not come to it."""
        return next((post for post in self.posts if post.attempt is attempt), None)

    @property
    def image_task_ids(self) -> tuple[str, ...]:
        """The image tasks that were bought, in order."""
        bought = [post.image_task.id for post in self.posts if post.image_task]
        if self.leads_to is not None:
            bought.append(self.leads_to)
        return tuple(dict.fromkeys(bought))


class TrialPurchase:
    """Buys one image, two where client ids are not deduplicated, and keeps what it sees in :attr:`seen`.

    :param request: A parsed request.
    :param tell: Called at once with a sentence for each step.
    """

    def __init__(self, session: ToApisSession, request: ImageRequest, tell: Callable[[str], None]) -> None:
        self._session = session
        self._request = request
        self._tell = tell
        self._last: ApiResponse | None = None
        self._client_id = f"nb-check-{uuid.uuid4().hex}"
        self.seen = TrialSeen()

    def run(self) -> None:
        """Buy, look up, repeat, wait; whatever ends it, :attr:`seen` holds what was seen until then.

        :raises ConfigurationError: No call can be made; nothing was sent.
        """
        client = self._session.client
        former = client.on_answer
        client.on_answer = self._note(former)
        try:
            self._read_credits()
            self._buy()
            for image_task_id in self.seen.image_task_ids:
                self._wait_for(image_task_id)
        finally:
            client.on_answer = former

    def _note(self, former: Callable[[ApiResponse], None] | None) -> Callable[[ApiResponse], None]:
        def note(answer: ApiResponse) -> None:
            self._last = answer
            if former is not None:
                former(answer)

        return note

    def _buy(self) -> None:
        first = self._post(Attempt.FIRST, self._client_id)
        if first.image_task is None and not first.lost:
            if isinstance(first.error, errors.InvalidRequest) and first.error.http_status in _BAD_REQUEST:
                self._tell("It may be the client id that was refused: the same submit leaves without one.")
                self._post(Attempt.WITHOUT_ID, None)
            return
        self._look_up_client_id()
        found = self.seen.look_ups.found if self.seen.look_ups else None
        if first.image_task is None and found is not None:
            self._keep(replace(first, image_task=found))
        if first.image_task is None and found is None:
            return
        repeated = self._post(Attempt.REPEATED, self._client_id)
        if found is not None and (repeated.lost or repeated.image_task is not None):
            self._see_where_the_id_leads()

    def _post(self, attempt: Attempt, client_id: str | None) -> Post:
        """Send one POST, again only where it was certainly not accepted."""
        limiter = SubmitRateLimiter.of(self._session.settings)
        call = submit_call(self._request, client_id)
        repeats = 0
        while True:
            limiter.acquire(self._session.clock, self._session.sleep, wait_for_slot=True)
            post = Post(attempt, client_id, self._session.clock())
            self._tell(f"A submit leaves now ({attempt}), {_under(client_id)}.")
            self._keep(post)
            self._last = None
            try:
                post = replace(post, image_task=self._session.client.call(call, NO_RETRY))
            except errors.ToApisError as error:
                # The first one repeats nothing of ours: whatever says so may have bought it.
                repetition = attempt is Attempt.REPEATED and self._refused_as_repeated()
                post = replace(post, error=error, refused_as_repeated=repetition)
            self._keep(post)
            self._tell(_outcome(post, self.seen.post(Attempt.FIRST)))
            now = self._session.clock()
            delay = limiter.delay(now, post.error, repeats, post.sent_at) if post.error else None
            if delay is None:
                break
            self._session.sleep(delay)
            repeats += 1
        self._read_credits()
        return post

    def _refused_as_repeated(self) -> bool:
        return self._last is not None and refuses_repetition(self._last)

    def _keep(self, post: Post) -> None:
        others = tuple(kept for kept in self.seen.posts if kept.attempt is not post.attempt)
        self.seen = replace(self.seen, posts=(*others, post))

    def _read_credits(self) -> None:
        try:
            used = self._session.balance().used_credits
        except errors.ToApisError:
            used = None
        self.seen = replace(self.seen, used_credits=(*self.seen.used_credits, used))

    def _look_up_client_id(self) -> None:
        answered_at = self._session.clock()
        looks = LookUps()
        for moment in LOOK_UPS:
            self._session.sleep(max(0.0, answered_at + moment - self._session.clock()))
            looks = replace(looks, at=(*looks.at, round(self._session.clock() - answered_at, 1)))
            try:
                looks = replace(looks, found=self._ask(self._client_id, by_client_id=True))
            except errors.ToApisError as error:
                looks = replace(looks, error=error)
            self.seen = replace(self.seen, look_ups=looks)
            if looks.found is not None:
                self._tell(
                    f"The client id leads to image task {looks.found.id}, {looks.found_after:g} s after the answer."
                )
                return
        self._tell(f"The client id led nowhere in {looks.at[-1]:g} s.")

    def _ask(self, image_task_id: str, *, by_client_id: bool = False) -> ImageTask | None:
        """Return an image task as it is now, or None where the service says that it is not there."""
        sent = self._request.sent_links()
        try:
            return self._session.get_task(image_task_id, sent, by_client_id=by_client_id, retry=NO_RETRY)
        except errors.ImageTaskNotFound:
            return None

    def _see_where_the_id_leads(self) -> None:
        try:
            found = self._ask(self._client_id, by_client_id=True)
        except errors.ToApisError:
            return
        if found is not None:
            self.seen = replace(self.seen, leads_to=found.id)
            self._tell(f"The client id leads to image task {found.id} now.")

    def _wait_for(self, image_task_id: str) -> None:
        """Poll an image task until it has ended and its bill is settled, as long as that can be expected."""
        began = self._session.clock()
        ended_at: float | None = None
        while True:
            try:
                image_task = self._ask(image_task_id)
            except errors.ToApisError as error:
                if isinstance(error, errors.ACCESS_ERRORS):
                    self._tell(f"Image task {image_task_id} cannot be asked for any more: {error.message}")
                    return
                image_task = None
            now = self._session.clock()
            if image_task is not None:
                self._show(image_task_id, image_task)
                ended_at = (ended_at or now) if image_task.terminal else None
                if ended_at is not None and _nothing_to_come(image_task, now - ended_at):
                    return
            if now - began >= LONGEST_WAIT:
                self._tell(
                    f"Image task {image_task_id} has not ended in {LONGEST_WAIT:g} s; it goes on and stays paid."
                )
                return
            self._session.sleep(_POLL_INTERVAL)

    def _show(self, image_task_id: str, image_task: ImageTask) -> None:
        before = self.seen.results.get(image_task_id)
        if before is None or before.wire_status != image_task.wire_status:
            self._tell(f"Image task {image_task_id} is {image_task.wire_status or image_task.status}.")
        answers = dict(self.seen.answers)
        if self._last is not None:
            answers[image_task_id] = self._last
        results = {**self.seen.results, image_task_id: image_task}
        self.seen = replace(self.seen, results=results, answers=answers)


def _under(client_id: str | None) -> str:
    return f"under client_business_id {client_id}" if client_id else "without a client_business_id"


def _outcome(post: Post, first: Post | None) -> str:
    """Return what a POST came to, in words."""
    if post.image_task is not None:
        bought = first.image_task if first and first.attempt is not post.attempt else None
        again = bought is not None and bought.id == post.image_task.id
        what = "Nothing new was bought, the answer is" if again else "Bought:"
        return f"{what} image task {post.image_task.id}, {_under(post.client_business_id)}."
    said = post.error.message if post.error else "no answer"
    if post.refused_as_repeated:
        return f"Refused as a repetition: {said}"
    if post.lost:
        return f"MAY BE BOUGHT, {_under(post.client_business_id)}: {said}"
    return f"Not bought: {said}"


def _nothing_to_come(image_task: ImageTask, ended_for: float) -> bool:
    """Whether no later answer can tell more of an image task that ended so many seconds ago."""
    billed = image_task.billing is not None and image_task.billing.status != "pending"
    if image_task.status is ImageTaskStatus.COMPLETED and not image_task.images:
        return ended_for >= _LONGEST_DELIVERY
    return billed or ended_for >= _LONGEST_BILLING
