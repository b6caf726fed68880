"""``check``: whether the service does what this provider relies on, found out with free calls or by buying one image.

The key is in no line of it, and no image task goes untold: what may be bought is said before a POST leaves, what was
bought as soon as it is known, and both once more at the end, whatever ends it.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from airflow_provider_nanobanana.cli.verdict import AccountSeen, Finding, Verdict
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.submission.trial import TrialSeen
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.responses import ApiResponse, Balance
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

PURPOSE: Final = "See whether the service does what this provider relies on: for free, or by buying one image."
#: Small, harmless, and the same for everybody.
_PROMPT: Final = "A plain red circle in the middle of a white square, flat, no text."

#: Columns of the result; nothing that a person copies is cut.
_WIDTH: Final = 110
_WHOLE_WORDS: Final[dict[str, Any]] = {"break_long_words": False, "break_on_hyphens": False}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    command.add_argument(
        "--conn-id", default="nanobanana_default", metavar="ID", help="the Airflow connection (%(default)s)"
    )
    command.add_argument(
        "--buy-one",
        action="store_true",
        help="buy one image, two where client ids are not deduplicated, and see what the service does with client ids",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object; what happens meanwhile to stderr")
    command.epilog = (
        "Exit status: 0 fine, 1 something that this provider relies on is missing, 2 it could not be tried."
    )


def run(options: argparse.Namespace) -> int:
    """Check the connection that the options name; return the exit status."""
    output = Output(as_json=options.json)
    # What Airflow says of itself while it is loaded must not stand in the result.
    logging.disable(logging.INFO)
    with redirect_stdout(sys.stderr):
        from airflow_provider_nanobanana.cli.connection import CommandLineHook

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with CommandLineHook(options.conn_id) as hook:
            return check(hook, buy_one=options.buy_one, output=output)


@dataclass
class Output:
    """Where a check writes: steps at once, the result at the end; no line holds the key.

    :param as_json: Whether the result is one JSON object on ``out``, with the steps on ``err``.
    """

    as_json: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    secret: str = ""

    def step(self, line: str) -> None:
        """Write a step at once.

        :raises OSError: Nobody reads either stream; what has not been bought yet is not to be.
        """
        self._write(line, *((self.err, self.out) if self.as_json else (self.out, self.err)))

    def result(self, document: str) -> None:
        """Write a part of the result; errors as of :meth:`step`."""
        self._write(document, self.out, self.err)

    def _write(self, text: str, stream: TextIO, other: TextIO) -> None:
        from airflow_provider_nanobanana.toapis.redaction import redact

        shown = redact(text, self.secret)
        try:
            _print(shown, stream)
        except OSError:
            # A pipe whose reader has gone: what was bought is told all the same, as long as anybody listens.
            _print(shown, other)


def _print(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "utf-8"
    # The service's words may be Chinese and the terminal may not.
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def check(hook: NanoBananaHook, *, buy_one: bool, output: Output) -> int:
    """Look at a connection's account, buy an image where asked to, and write what follows from it.

    :param hook: Its ``clock`` and ``sleep`` are used throughout.
    :return: The exit status: 0 fine, 1 something relied on is missing, 2 something could not be tried.
    """
    from airflow_provider_nanobanana.cli.verdict import Finding, Mark, Verdict, cost_words, judge, price_of_one
    from airflow_provider_nanobanana.exceptions import NanoBananaException
    from airflow_provider_nanobanana.submission.trial import TrialSeen

    answers: list[ApiResponse] = []
    try:
        settings = hook.settings
        output.secret = settings.api_key.get_secret_value()
        output.step(f"Connection {hook.nanobanana_conn_id} at {settings.base_url}, model {settings.model}.")
        if buy_one:
            output.step(f"This buys {cost_words(settings)}.")
        hook.client.on_answer = answers.append
    except NanoBananaException as unusable:
        return _end(output, hook, Verdict((Finding("connection", Mark.UNTRIED, unusable.error.message),)), TrialSeen())
    try:
        account = look_at_account(hook)
    except KeyboardInterrupt:
        return _end(output, hook, _interrupted(Verdict(())), TrialSeen())
    if not buy_one:
        return _end(output, hook, judge(settings, account, answers), TrialSeen())
    if not account.works or price_of_one(settings) is None:
        why = "see above" if not account.works else "its price is not known, so that it cannot be said first"
        verdict = judge(settings, account, answers)
        findings = (*verdict.findings[:-1], Finding("trial", Mark.UNTRIED, f"Nothing was bought: {why}."))
        return _end(output, hook, Verdict(findings), TrialSeen())
    return _try(hook, settings, account, answers, output)


def look_at_account(hook: NanoBananaHook) -> AccountSeen:
    """Return what free calls show of an account: those of the connection test, and a look-up of an unused id."""
    from airflow_provider_nanobanana.cli.verdict import AccountSeen
    from airflow_provider_nanobanana.exceptions import NanoBananaException
    from airflow_provider_nanobanana.hooks.connection import check_account, failure_text
    from airflow_provider_nanobanana.toapis import errors

    of_the_key: list[Balance] = []

    def balance(*, of_key: bool = False) -> Balance:
        left = hook.balance(of_key=of_key)
        of_the_key.extend([left] if of_key else [])
        return left

    try:
        models = hook.models()
        works, words = check_account(hook.settings.model, lambda: models, balance, hook.settings.models)
    except NanoBananaException as failure:
        words = failure_text(failure.error, hook.settings)
        return AccountSeen(works=False, words=words, asked=not failure.error.retryable)
    unused = f"nb-check-{uuid.uuid4().hex}"
    unused_id: ImageTask | errors.ToApisError
    try:
        unused_id = hook.session.get_task(unused, by_client_id=True)
    except errors.ToApisError as answer:
        unused_id = answer
    return AccountSeen(works, words, True, tuple(models), next(iter(of_the_key), None), unused_id)


def _try(
    hook: NanoBananaHook, settings: ToApisSettings, account: AccountSeen, answers: list[ApiResponse], output: Output
) -> int:
    """Buy the image, and tell what was bought whatever ends the trial."""
    from airflow_provider_nanobanana.cli.verdict import judge, trial_resolution
    from airflow_provider_nanobanana.submission.trial import TrialPurchase
    from airflow_provider_nanobanana.toapis import errors

    request = hook.parse_request({"prompt": _PROMPT, "resolution": trial_resolution(settings)})
    trial = TrialPurchase(hook.session, request, output.step)
    try:
        trial.run()
    except KeyboardInterrupt:
        verdict = _interrupted(judge(settings, account, answers, trial.seen))
        return _end(output, hook, verdict, trial.seen)
    except errors.ToApisError as error:
        output.step(error.message)
    except BaseException:
        for line in _purchases(hook, trial.seen):
            output.step(line)
        raise
    return _end(output, hook, judge(settings, account, answers, trial.seen), trial.seen)


def _interrupted(verdict: Verdict) -> Verdict:
    from airflow_provider_nanobanana.cli.verdict import Finding, Mark, Verdict

    return Verdict((*verdict.findings, Finding("end", Mark.UNTRIED, "It was interrupted.")))


def _end(output: Output, hook: NanoBananaHook, verdict: Verdict, seen: TrialSeen) -> int:
    """Write the result; return the exit status."""
    if output.as_json:
        output.result(json.dumps(_document(hook, verdict, seen), indent=2))
        return verdict.exit_status
    for line in (*_finding_lines(verdict.findings), *_setting_lines(verdict), *_purchases(hook, seen)):
        output.result(line)
    return verdict.exit_status


def _finding_lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    for finding in findings:
        head = f"{finding.mark:<8} {finding.about:<11} "
        yield textwrap.fill(head + finding.words, _WIDTH, subsequent_indent=" " * len(head), **_WHOLE_WORDS)


def _setting_lines(verdict: Verdict) -> Iterator[str]:
    if not verdict.extra:
        return
    yield "Set the connection's extra to:"
    yield json.dumps(verdict.extra)
    for name, value in verdict.arguments.items():
        yield f"Give the operators {name}={value!r} (an argument, or in default_args)."
    for words in verdict.advice:
        yield textwrap.fill(words, _WIDTH, **_WHOLE_WORDS)


def _purchases(hook: NanoBananaHook, seen: TrialSeen) -> Iterator[str]:
    """Yield a line for each image task that was bought, and for each POST that may have bought one."""
    look = f"NanoBananaHook({hook.nanobanana_conn_id!r}).get_task"
    for image_task_id in seen.image_task_ids:
        image_task = seen.results.get(image_task_id)
        state = f" ({image_task.wire_status or image_task.status})" if image_task else ""
        yield f"BOUGHT image task {image_task_id}{state}: {look}({image_task_id!r}) shows it, its image for a day."
    for post in seen.posts:
        if post.lost:
            at = datetime.fromtimestamp(post.sent_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            how = f"with {look}({post.client_business_id!r}), or " if post.client_business_id else ""
            yield f"MAY BE BOUGHT: a submit left at {at} and no answer was seen. Look {how}in the ToAPIs console."


def _document(hook: NanoBananaHook, verdict: Verdict, seen: TrialSeen) -> dict[str, Any]:
    from airflow_provider_nanobanana.cli.answer_fields import answer_fields

    shown = [seen.answers[each] for each in seen.image_task_ids if each in seen.answers]
    return {
        "connection": hook.nanobanana_conn_id,
        "exit_status": verdict.exit_status,
        "findings": [asdict(finding) for finding in verdict.findings],
        "set": {"extra": verdict.extra, "arguments": verdict.arguments, "advice": verdict.advice},
        "bought": [_bought(seen, image_task_id) for image_task_id in seen.image_task_ids],
        "may_be_bought": [
            {"client_business_id": post.client_business_id, "sent_at": post.sent_at} for post in seen.posts if post.lost
        ],
        "fields": [asdict(each) for each in answer_fields(shown[0])] if shown else [],
    }


def _bought(seen: TrialSeen, image_task_id: str) -> dict[str, Any]:
    image_task = seen.results.get(image_task_id)
    return {
        "image_task_id": image_task_id,
        "status": str(image_task.status) if image_task else None,
        "cost_usd": image_task.cost_usd if image_task else None,
    }
