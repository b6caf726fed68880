"""From what was seen of an account to what is said of it, and to what its connection is to say: :func:`judge`. Pure.

What this provider relies on, and what it does where that is missing: ``docs/toapis.md``, "Client ids", and
``docs/durability.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.costs import format_usd
from airflow_provider_nanobanana.cli.answer_fields import answer_fields, image_fields
from airflow_provider_nanobanana.submission.trial import LOOK_UPS, Attempt, Post, TrialSeen
from airflow_provider_nanobanana.toapis import catalogue, errors
from airflow_provider_nanobanana.toapis.error_body import parse_retry_after
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.rate_pacer import LEAST_BELIEVED, RateLimitHeaders
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.responses import ApiResponse, Balance
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

#: What is bought: the smallest resolution that every price list has.
RESOLUTION: Final = "1K"
#: An accepted submit is found within half a minute (docs/toapis.md, "Client ids"), and the look itself takes time.
_RELIED_ON_SECONDS: Final = 35.0
#: Calls a second that a connection may say.
_HIGHEST_RATE: Final = 10_000.0
#: A clock that differs by more, in seconds, is worth a word.
_CLOCK_SLACK: Final = 30.0


class Mark(StrEnum):
    """What a finding means for the exit status."""

    FINE = "fine"
    NOTE = "note"
    MISSING = "missing"
    UNTRIED = "untried"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what was seen of it, in words."""

    about: str
    mark: Mark
    words: str


class Resolution(StrEnum):
    """What the service does with a client id in the status path."""

    PROMPT = "resolved in time"
    LATE = "resolved too late"
    NEVER = "not resolved"
    REJECTED = "rejected"
    UNKNOWN = "not tried"


class Repetition(StrEnum):
    """What a second submit under the same client id came to."""

    SAME = "the first image task came back"
    REFUSED = "refused"
    ANOTHER = "another image was bought"
    UNKNOWN = "not tried"


@dataclass(frozen=True)
class AccountSeen:
    """What free calls showed of an account.

    :param works: Whether an image could be bought, and in ``words`` why or why not.
    :param asked: Whether the gateway could be asked at all.
    :param models: The image models that the key sees.
    :param key_balance: What the key may still spend of the account; None where that was not told.
    :param unused_id: What a look-up of a client id that nobody used came to; None where it was not made.
    """

    works: bool
    words: str
    asked: bool = True
    models: tuple[str, ...] = ()
    key_balance: Balance | None = None
    unused_id: ImageTask | errors.ToApisError | None = None


@dataclass(frozen=True)
class Verdict:
    """What to say and what to set.

    :param extra: The connection's extra, whole: what it says today included.
    :param arguments: Arguments of the operators.
    :param advice: The rest, in words.
    """

    findings: tuple[Finding, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    advice: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """0 where all is as this provider needs it, 1 where something is missing, 2 where something was not tried."""
        marks = {finding.mark for finding in self.findings}
        return 1 if Mark.MISSING in marks else 2 if Mark.UNTRIED in marks else 0


def trial_resolution(settings: ToApisSettings) -> str:
    """Return the resolution of the trial's image: 1K, or the first that the model takes where that is none."""
    row = catalogue.row_for(settings.model, settings.models)
    taken = (row and row.resolutions) or (RESOLUTION,)
    return RESOLUTION if RESOLUTION in taken else taken[0]


def price_of_one(settings: ToApisSettings) -> float | None:
    """Return the USD that the trial's image costs as far as it is known."""
    return catalogue.list_price(settings.model, trial_resolution(settings), settings.prices, own=settings.models)


def cost_words(settings: ToApisSettings) -> str:
    """Return what a trial costs at most, in words."""
    price = price_of_one(settings)
    resolution = trial_resolution(settings)
    what = f"one image of {settings.model} ({resolution}, 1:1)"
    if price is None:
        return (
            f"{what} for a price that is not known: no price list has it. Put it into the connection's extra, "
            f'{{"prices": {{"{settings.model}": {{"{resolution}": 0.03}}}}}}, so that it can be said first'
        )
    return f"{what} for {format_usd(price)}, two for {format_usd(2 * price)} where client ids are not deduplicated"


def judge(
    settings: ToApisSettings, account: AccountSeen, answers: Sequence[ApiResponse] = (), trial: TrialSeen | None = None
) -> Verdict:
    """Return what follows from what was seen.

    :param answers: Every answer there was, for what their headers say of limits.
    :param trial: What a purchase showed, where one was made.
    """
    findings = [*_judge_account(account), *_judge_limits(settings, answers)]
    if trial is None:
        return Verdict((*findings, Finding("trial", Mark.NOTE, f"--buy-one would buy {cost_words(settings)}.")))
    findings += _judge_client_id(trial)
    findings += _judge_repetition(trial)
    findings += _judge_results(settings, trial)
    resolution = Resolution.REJECTED if isinstance(account.unused_id, ImageTask) else resolution_of(trial)
    client_ids, on_unknown = _submission_settings(resolution, settings.client_ids)
    extra = _extra(settings) | {"client_ids": client_ids, "submit_rate": _submit_rate(settings, answers)}
    if prices := _prices(settings, trial):
        extra["prices"] = prices
    return Verdict(tuple(findings), extra, {"on_unknown_submission": on_unknown}, (_namespace_words(settings),))


# --- the account -------------------------------------------------------------------------------------------------


def _judge_account(account: AccountSeen) -> list[Finding]:
    trouble = Mark.MISSING if account.asked else Mark.UNTRIED
    findings = [Finding("account", Mark.FINE if account.works else trouble, account.words)]
    if account.models:
        shown = ", ".join(sorted(account.models)[:12])
        more = f" and {len(account.models) - 12} more" if len(account.models) > 12 else ""
        findings.append(Finding("models", Mark.NOTE, f"The key sees {shown}{more}."))
    if (key := account.key_balance) is not None:
        usd = "" if key.remain_usd is None else f" (about {format_usd(round(key.remain_usd, 2))})"
        left = (
            "has no limit of its own" if key.unlimited else f"may spend {key.remain_credits or 0:g} credits more{usd}"
        )
        findings.append(Finding("key", Mark.NOTE, f"The key {left}."))
    if account.unused_id is not None:
        findings.append(_judge_unused_id(account.unused_id))
    return findings


def _judge_unused_id(seen: ImageTask | errors.ToApisError) -> Finding:
    about = "unknown id"
    if isinstance(seen, ImageTask):
        words = f"An id that nobody used leads to image task {seen.id}: client ids cannot be gone by here."
        return Finding(about, Mark.MISSING, words)
    if isinstance(seen, errors.ImageTaskNotFound):
        said = f"HTTP {seen.http_status}" + (f" {seen.code}" if seen.code else "")
        return Finding(about, Mark.FINE, f'An id that nobody used is answered "not there" ({said}).')
    if seen.retryable and not isinstance(seen, errors.TransientFailure):
        return Finding(about, Mark.UNTRIED, f"It could not be asked for an id that nobody used: {seen.message}")
    words = f'An id that nobody used is not answered in words that are known for "not there": {seen.message}'
    return Finding(about, Mark.MISSING, f"{words} What a lost answer bought can then never be ruled out.")


def _judge_limits(settings: ToApisSettings, answers: Sequence[ApiResponse]) -> list[Finding]:
    findings = []
    for category, mine in (("async_submit", settings.submit_rate), ("async_query", settings.query_rate)):
        rate = _named_rate(answers, category, mine)
        if rate is not None:
            verb = "more than" if mine > rate else "no more than"
            words = (
                f"The account allows {rate:g} calls a second ({category}); the connection makes {verb} that ({mine:g})."
            )
            findings.append(Finding("limits", Mark.NOTE, words))
    if not findings:
        words = (
            f"No answer named a limit. The connection makes {settings.submit_rate:g} submits and "
            f"{settings.query_rate:g} polls a second; the documented default group allows 5 and 50."
        )
        findings.append(Finding("limits", Mark.NOTE, words))
    limited = [answer for answer in answers if answer.status == 429]
    if limited:
        waits = {parse_retry_after(answer.headers, 0.0) for answer in limited} - {None}
        asked = f", asking for a pause of up to {max(filter(None, waits), default=0):g} s" if waits else ""
        words = f"{len(limited)} of the calls were answered 429{asked}: somebody else uses up this account's allowance."
        findings.append(Finding("limits", Mark.NOTE, words))
    return findings


def _named_rate(answers: Sequence[ApiResponse], category: str, mine: float) -> float | None:
    """Return the calls a second that the last answer of a category names, as far as it can be believed.

    :param mine: What the connection says: a limit far below counts in a unit that nobody documents.
    """
    named = (answer.headers for answer in answers if answer.headers.get("x-ratelimit-category") == category)
    rates = [RateLimitHeaders.read(headers, category).rate for headers in named]
    return next((rate for rate in reversed(rates) if rate and mine * LEAST_BELIEVED <= rate <= _HIGHEST_RATE), None)


# --- client ids --------------------------------------------------------------------------------------------------


def resolution_of(trial: TrialSeen) -> Resolution:
    """Return what the service does with a client id in the status path."""
    first = trial.post(Attempt.FIRST)
    without_id = trial.post(Attempt.WITHOUT_ID)
    looks = trial.look_ups
    if without_id is not None and without_id.image_task is not None:
        return Resolution.REJECTED
    if looks is None or first is None or first.image_task is None:
        return Resolution.UNKNOWN
    if looks.found_after is None:
        return Resolution.UNKNOWN if looks.error is not None else Resolution.NEVER
    # An answer to a client id may name that instead of the image task's own id.
    if looks.found is not None and looks.found.id not in (first.image_task.id, first.client_business_id):
        return Resolution.NEVER
    return Resolution.PROMPT if looks.found_after <= _RELIED_ON_SECONDS else Resolution.LATE


def repetition_of(trial: TrialSeen) -> Repetition:
    """Return what the second submit under the same client id came to; never better than the account's bill."""
    first = trial.post(Attempt.FIRST)
    repeated = trial.post(Attempt.REPEATED)
    if first is None or first.image_task is None or repeated is None:
        return Repetition.UNKNOWN
    known = (first.image_task.id, first.client_business_id)
    if trial.leads_to is not None and trial.leads_to not in known:
        return Repetition.ANOTHER
    if repeated.image_task is not None and repeated.image_task.id != first.image_task.id:
        return Repetition.ANOTHER
    if _charged_again(trial):
        return Repetition.UNKNOWN
    if repeated.image_task is not None:
        return Repetition.SAME
    refused = repeated.refused_as_repeated or isinstance(repeated.error, errors.InvalidRequest)
    return Repetition.REFUSED if refused else Repetition.UNKNOWN


def _charged_again(trial: TrialSeen) -> bool:
    """Whether the account had used more credits after the second submit than before it."""
    before, after = ([None, None, *trial.used_credits])[-2:]
    return before is not None and after is not None and after > before


def _judge_client_id(trial: TrialSeen) -> list[Finding]:
    about = "client id"
    first = trial.post(Attempt.FIRST)
    if first is None:
        return [Finding(about, Mark.UNTRIED, "No submit was sent.")]
    if first.image_task is None:
        return [_judge_no_purchase(about, first, trial.post(Attempt.WITHOUT_ID))]
    looks = trial.look_ups
    echoed = first.image_task.client_business_id == first.client_business_id
    echo = "The answer to the submit repeated it." if echoed else "The answer to the submit did not repeat it."
    resolution = resolution_of(trial)
    if looks is None or resolution is Resolution.UNKNOWN:
        why = looks.error.message if looks and looks.error else "it was given up."
        return [Finding(about, Mark.UNTRIED, f"Whether it is resolved could not be seen: {why} {echo}")]
    after = looks.found_after
    when = "at once" if after == 0 else f"after {after:g} s" if after is not None else ""
    if resolution is Resolution.PROMPT:
        return [Finding(about, Mark.FINE, f"A client_business_id leads to its image task {when}. {echo}")]
    if resolution is Resolution.LATE:
        words = (
            f"A client_business_id leads to its image task only {when}; this provider relies on half a minute. {echo}"
        )
        return [Finding(about, Mark.MISSING, words)]
    led = f"leads to another image task, {looks.found.id}," if looks.found else f"led nowhere in {looks.at[-1]:g} s"
    words = f"A client_business_id {led}: a submit whose answer is lost cannot be found again. {echo}"
    return [Finding(about, Mark.MISSING, words)]


def _judge_no_purchase(about: str, first: Post, without_id: Post | None) -> Finding:
    """Judge a trial whose first submit is not known to have bought anything."""
    said = first.error.message if first.error else "it was given up before an answer came."
    if first.lost:
        words = (
            f"The answer to the submit was lost ({said}) It may be paid, and its client_business_id "
            f"{first.client_business_id} led nowhere in {LOOK_UPS[-1]:g} s: look for it in the ToAPIs console."
        )
        return Finding(about, Mark.UNTRIED, words)
    if without_id is not None and without_id.image_task is not None:
        words = f"A submit with a client_business_id is refused, one without is not: {said}"
        return Finding(about, Mark.MISSING, words)
    lasting = first.error is not None and not first.error.retryable
    return Finding(about, Mark.MISSING if lasting else Mark.UNTRIED, f"Nothing could be bought: {said}")


def _judge_repetition(trial: TrialSeen) -> list[Finding]:
    about = "repetition"
    repeated = trial.post(Attempt.REPEATED)
    if repeated is None:
        return []
    said = f" ({repeated.error.message})" if repeated.error else ""
    leads = f" The client id leads to {trial.leads_to} now." if trial.leads_to else ""
    words = {
        Repetition.SAME: "A second submit under the same client_business_id brought the first image task back: nothing "
        "was bought by it.",
        Repetition.REFUSED: f"A second submit under the same client_business_id is refused{said}",
        Repetition.ANOTHER: "A second submit under the same client_business_id bought a second image, as this provider "
        f"assumes: it never sends one again before it has looked.{leads}",
    }
    repetition = repetition_of(trial)
    if repetition in words:
        mark = Mark.NOTE if repetition is Repetition.ANOTHER else Mark.FINE
        return [Finding(about, mark, words[repetition])]
    if _charged_again(trial):
        before, after = trial.used_credits[-2:]
        why = f"the account's used credits went from {before:g} to {after:g} meanwhile: by it, or by somebody else."
    else:
        why = repeated.error.message if repeated.error else "it was given up before an answer came."
    return [
        Finding(about, Mark.UNTRIED, f"What a second submit under the same client_business_id does is not sure: {why}")
    ]


# --- results -----------------------------------------------------------------------------------------------------


def _judge_results(settings: ToApisSettings, trial: TrialSeen) -> list[Finding]:
    """Judge the shape of the first result; every image task that was bought is in what the trial has told."""
    ids = trial.image_task_ids
    if not ids:
        return []
    image_task = trial.results.get(ids[0])
    answer = trial.answers.get(ids[0])
    if image_task is None or answer is None:
        return [Finding("result", Mark.UNTRIED, f"Image task {ids[0]} was not seen again; it is paid.")]
    findings = [_judge_outcome(image_task, answer), _judge_bill(settings, image_task)]
    fields = answer_fields(answer)
    if fields:
        used = ", ".join(each.path for each in fields if each.used)
        ignored = ", ".join(each.path for each in fields if not each.used) or "nothing"
        findings.append(Finding("fields", Mark.NOTE, f"Gone by: {used}. Not needed: {ignored}."))
    first = trial.post(Attempt.FIRST)
    if first is not None and image_task.created_at is not None:
        ahead = image_task.created_at - first.sent_at
        if abs(ahead) > _CLOCK_SLACK:
            words = f"The service's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's."
            findings.append(Finding("clock", Mark.NOTE, words))
    return findings


def _judge_outcome(image_task: ImageTask, answer: ApiResponse) -> Finding:
    about = "result"
    if image_task.status is ImageTaskStatus.RUNNING:
        words = f"Image task {image_task.id} is {image_task.wire_status or 'running'} still; it goes on and stays paid."
        return Finding(about, Mark.UNTRIED, words)
    if image_task.status is ImageTaskStatus.FAILED:
        why = f"{image_task.error.code}: {image_task.error.message}" if image_task.error else "no reason given"
        return Finding(about, Mark.UNTRIED, f"Image task {image_task.id} failed at the service ({why}).")
    if not image_task.images:
        words = f"Image task {image_task.id} is completed, and no image is found in its answer: {image_task.answer}"
        return Finding(about, Mark.MISSING, words)
    at = image_fields(answer, image_task)
    values = {each.path: each.value for each in answer_fields(answer)}
    kind = "link" if image_task.images[0].url else "base64"
    where = (
        ", ".join(f"{path} ({values.get(path, kind)})" for path in at) or f"a {kind} that the answer spells otherwise"
    )
    expiry = "without an expiry, so that a day is assumed"
    if image_task.expires_at is not None and image_task.completed_at is not None:
        expiry = f"expiring {(image_task.expires_at - image_task.completed_at) / 3600:.1f} h after completion"
    words = f"{image_task.wire_status}, {len(image_task.images)} image(s) at {where}, {expiry}."
    return Finding(about, Mark.FINE, words)


def _judge_bill(settings: ToApisSettings, image_task: ImageTask) -> Finding:
    about = "bill"
    known = price_of_one(settings)
    expected = "no price is known" if known is None else f"{format_usd(known)} was expected"
    if image_task.billing is None:
        words = f"The answer names no bill; {expected}, and that stands in for it."
        return Finding(about, Mark.NOTE, words)
    cost = image_task.cost_usd
    if cost is None:
        return Finding(about, Mark.NOTE, f"The bill is {image_task.billing.status} and names no USD; {expected}.")
    credits = "" if image_task.billing.credits is None else f", {image_task.billing.credits:g} credits"
    return Finding(
        about, Mark.NOTE, f"The bill is {image_task.billing.status}: {format_usd(cost)}{credits}; {expected}."
    )


# --- what to set -------------------------------------------------------------------------------------------------


def _submission_settings(resolution: Resolution, today: bool) -> tuple[bool, str]:
    """Return ``client_ids`` of the connection and ``on_unknown_submission`` of the operators.

    That a repeated id buys nothing changes neither: what generate buys in place of an image that does not show has
    another id.

    :param today: What ``client_ids`` says today.
    """
    if resolution is Resolution.PROMPT:
        return True, "resubmit"
    if resolution in (Resolution.REJECTED, Resolution.NEVER):
        return False, "fail"
    return today if resolution is Resolution.UNKNOWN else True, "fail"


def _extra(settings: ToApisSettings) -> dict[str, Any]:
    """Return what the connection's extra says today, as far as it is read and not at its default."""
    extra = settings.model_dump(mode="json", exclude={"base_url", "api_key"}, exclude_defaults=True)
    return extra | ({"allow_http": True} if settings.allow_http else {})


def _submit_rate(settings: ToApisSettings, answers: Sequence[ApiResponse]) -> float:
    return _named_rate(answers, "async_submit", settings.submit_rate) or settings.submit_rate


def _prices(settings: ToApisSettings, trial: TrialSeen) -> dict[str, Any]:
    """Return the connection's prices with what was billed, where that is another price than the known one."""
    billed = [
        task.cost_usd for task in trial.results.values() if task.status is ImageTaskStatus.COMPLETED and task.cost_usd
    ]
    if not billed or billed[0] == price_of_one(settings):
        return {}
    of_model = settings.prices.get(settings.model)
    own = of_model if isinstance(of_model, dict) else {}
    return {**settings.prices, settings.model: {**own, trial_resolution(settings): billed[0]}}


def _namespace_words(settings: ToApisSettings) -> str:
    if settings.namespace:
        return (
            f"namespace stays {settings.namespace!r}, as long as no other Airflow installation on this account has it."
        )
    return (
        "namespace: where several Airflow installations use this account, add one that no other has, such as "
        '{"namespace": "prod"}. The same DAG in two of them derives the same client ids, and a submit of the one would '
        "get the other's image. One installation alone needs none."
    )
