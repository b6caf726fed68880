"""The whole state of the emulated service, shared by both ports and the control API."""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_nanobanana.emulator import errors
from airflow_provider_nanobanana.emulator.catalogue import usd
from airflow_provider_nanobanana.emulator.faults.rules import FaultRules, Shapes, parameter, without_words
from airflow_provider_nanobanana.emulator.images import ImageCache, ImageSpec
from airflow_provider_nanobanana.emulator.ledger import Failure, ImageTask, TaskLedger
from airflow_provider_nanobanana.emulator.rate_limit import Limiter, limiter
from airflow_provider_nanobanana.emulator.request_log import RequestLog
from airflow_provider_nanobanana.emulator.requests import RequestRejected, Submission
from airflow_provider_nanobanana.emulator.settings import Settings

MAX_UPLOAD_BYTES = 128 * 1024 * 1024
MAX_UPLOADS = 10_000


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded reference image."""

    mime_type: str
    content: bytes


class EmulatedService:
    """Settings, ledger, faults, allowances, request log and files of one emulator.

    All methods run on the event loop's thread; nothing here is locked.

    :param clock: Epoch seconds; a test may pass its own.
    :param echo: Receives one short line per submit and completion.
    """

    #: How the time passes that accepting a submit takes; a test passes its own.
    sleep: Callable[[float], Awaitable[None]] = staticmethod(asyncio.sleep)

    def __init__(self, settings: Settings, clock: Callable[[], float], echo: Callable[[str], None]) -> None:
        self.initial = settings
        self.clock = clock
        self.echo = echo
        self.files_url = ""
        self.images = ImageCache()
        self.reset()

    def reset(self) -> None:
        """Forget everything and go back to the settings of the start."""
        self.faults = FaultRules()
        self.request_log = RequestLog()
        self.uploads: OrderedDict[str, Upload] = OrderedDict()
        self.pending: list[str] = []  # prompts of the submits that are being accepted
        self.rng = random.Random(self.initial.seed)
        self.ledger = TaskLedger(self.rng)
        self.settings = self.initial
        self.submit_limiter = self._limiter(self.settings.submit_rate)
        self.query_limiter = self._limiter(self.settings.query_rate)

    def configure(self, **changes: object) -> None:
        """Change settings; an allowance that is changed starts unused, running image tasks keep their latency.

        :raises ValueError: A name or value is wrong.
        """
        before = self.settings
        self.settings = after = before.changed(**changes)
        other_kind = (after.limiter, after.burst_seconds) != (before.limiter, before.burst_seconds)
        if other_kind or after.submit_rate != before.submit_rate:
            self.submit_limiter = self._limiter(after.submit_rate)
        if other_kind or after.query_rate != before.query_rate:
            self.query_limiter = self._limiter(after.query_rate)

    def _limiter(self, rate: float) -> Limiter:
        return limiter(self.settings.limiter, rate, self.clock(), self.settings.burst_seconds)

    def limit_headers(self, refusing: Limiter, category: str) -> dict[str, str]:
        """Return the headers of an answer that a limiter refused with."""
        return refusing.headers(category) if self.settings.limit_headers else {}

    def accept(self, submission: Submission, shapes: Shapes, account: int = 1) -> ImageTask:
        """Create and charge an image task, in the shapes that apply to it; where ids are deduplicated, only a new one.

        :param account: Whose it is; the credits are those of both.
        :raises RequestRejected: The credits do not suffice, or the client id was used before and may not be again.
        """
        now = self.clock()
        settings = self.settings
        earlier = self.ledger.first(submission.client_business_id, account)
        if earlier is not None and settings.repeated_client_ids != "buy" and not settings.ignore_client_ids:
            if settings.repeated_client_ids == "refuse":
                raise RequestRejected(errors.repeated_client_id())
            return earlier
        price = submission.credits
        if settings.credits is not None and settings.credits - self.ledger.spent(now) < price:
            raise RequestRejected(errors.no_credits())
        task = self.ledger.accept(submission, now, self._latency(shapes), account)
        task.lookup_spread = self._upto(settings.lookup_spread)
        if "late_404" in shapes:
            rule = shapes["late_404"]
            task.hidden_until = now + rule["seconds"]
            task.hidden_polls = rule["polls"]
            task.hidden_spelling = rule["spelling"]
        if "failed" in shapes:
            task.failure = Failure(**shapes["failed"].params)
        own_format = submission.image_format or settings.result_format
        task.image_format = parameter(shapes, "picture_format", "format", own_format)
        self.echo(f"submit {task.id} {submission.model} {submission.size} {submission.resolution} ${usd(task.credits)}")
        return task

    def ledger_dict(self) -> dict[str, Any]:
        """Return the ledger as of now."""
        return self.ledger.as_dict(self.clock())

    def stats(self) -> dict[str, Any]:
        """Return counts of requests and of image tasks by status, and the prompts that are being accepted."""
        ledger = self.ledger_dict()
        tasks = {name: ledger[name] for name in ("count", "by_status", "charged_usd", "refunded_usd", "net_usd")}
        return self.request_log.stats() | {"image_tasks": tasks, "pending": list(self.pending)}

    def complete_all(self) -> int:
        """Let everything that runs be done now; return how many that were."""
        return self.ledger.complete_all(self.clock())

    def commit_delay(self) -> float:
        """Return the seconds that this submit takes to be accepted."""
        return self._upto(self.settings.commit_delay)

    def _upto(self, limit: float) -> float:
        # Nothing is drawn where nothing is asked for: ids and latencies of a seed stay what they were.
        return self.rng.uniform(0, limit) if limit else 0.0

    def _latency(self, shapes: Shapes) -> float:
        settings = self.settings
        if "already_completed" in shapes:
            return 0.0
        if "latency" in shapes:
            return float(shapes["latency"]["seconds"]) * settings.time_scale
        if not settings.latency:
            return 0.0
        return self.rng.lognormvariate(math.log(settings.latency), settings.sigma) * settings.time_scale

    def find(self, key: str, account: int = 1) -> ImageTask | None:
        """Return the image task of an account that a status path names, by id or by client id."""
        settings = self.settings
        return self.ledger.find(key, self.clock(), settings.lookup_delay, not settings.ignore_client_ids, account)

    def announce(self, task: ImageTask) -> None:
        """Echo the end of an image task once, when it is first asked for."""
        state = task.state(self.clock())
        if state == "running" or task.announced:
            return
        task.announced = True
        outcome = "refunded" if state == "failed" else "settled"
        self.echo(f"{state} {task.id} after {task.done - task.created:.1f} s, ${usd(task.credits)} {outcome}")

    def image_spec(self, task: ImageTask, index: int) -> ImageSpec:
        """Return what a result file shows."""
        width, height = task.pixels
        asked = task.submission
        facts = (asked.model, asked.size, asked.resolution, f"{width} x {height}")
        caption = "  \u00b7  ".join(facts) + f"\n{task.id}" + (f" #{index}" if index else "")
        return ImageSpec(without_words(asked.prompt), caption, width, height, task.image_format, index)

    def link(self, task: ImageTask, index: int, suffix: str = "") -> str:
        """Return the address of a result file; ``suffix`` instead of the right one where given."""
        right = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}[task.image_format]
        ending = suffix or self.settings.result_suffix or right
        return f"{self.files_url}/generated/{int(task.done)}_{task.id}_{index}{ending}"

    def keep_upload(self, path: str, upload: Upload) -> None:
        """Keep an upload, letting the oldest go when there are more than 10,000 or all together pass 128 MiB."""
        self.uploads[path] = upload
        while (
            len(self.uploads) > MAX_UPLOADS
            or sum(len(kept.content) for kept in self.uploads.values()) > MAX_UPLOAD_BYTES
        ):
            self.uploads.popitem(last=False)
