"""Which image tasks were accepted, what they cost and what was refunded (:class:`TaskLedger`). Time is passed in."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_provider_nanobanana.emulator.catalogue import ImageFormat, model_of, usd
from airflow_provider_nanobanana.emulator.requests import Submission

#: What is kept: the newest image tasks, as long as their prompts have no more characters than that together.
MAX_IMAGE_TASKS = 100_000
MAX_PROMPT_CHARACTERS = 200_000_000

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image task fails and how the status answer says it.

    :param shape: ``object`` (code and message), ``string`` (the error is plain text) or ``fail_reason``.
    """

    code: str
    text: str
    shape: str


@dataclass(slots=True)
class ImageTask:
    """One accepted, paid image task; times are epoch seconds.

    :param served: Images that its answer names, as many as were asked for unless a fault says otherwise.
    :param account: Whose key paid for it, 1 or 2.
    """

    id: str
    submission: Submission
    created: float
    done: float
    credits: float
    image_format: ImageFormat = "PNG"
    failure: Failure | None = None
    announced: bool = False
    hidden_until: float = 0.0
    hidden_polls: int = 0
    hidden_spelling: str = "404"
    lookup_spread: float = 0.0
    served: int = 0
    account: int = 1

    def __post_init__(self) -> None:
        self.served = self.served or self.submission.files

    @property
    def prompt(self) -> str:
        """The prompt, word for word."""
        return self.submission.prompt

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of each image."""
        return model_of(self.submission.model).pixel_size(self.submission.size, self.submission.resolution)

    def state(self, now: float) -> Literal["running", "completed", "failed"]:
        """Return where the image task stands at ``now``."""
        if now < self.done:
            return "running"
        return "failed" if self.failure else "completed"

    def progress(self, now: float) -> int:
        """Return 0 to 99 while it runs, by elapsed time."""
        span = self.done - self.created
        if not span or math.isinf(span):
            return 0
        return max(0, min(99, int(100 * (now - self.created) / span)))

    def record(self, now: float) -> dict[str, Any]:
        """Return the image task as the ledger shows it, plain JSON."""
        asked = self.submission
        state = self.state(now)
        return {
            "id": self.id,
            "client_business_id": asked.client_business_id,
            "prompt": asked.prompt,
            "model": asked.model,
            "size": asked.size,
            "resolution": asked.resolution,
            "count": asked.count,
            "account": self.account,
            "references": list(asked.references),
            "status": state,
            "charged_usd": float(usd(self.credits)),
            "refunded": state == "failed",
            "created": self.created,
            "completed": None if state == "running" else self.done,
        }


@dataclass
class Forgotten:
    """What remains of the image tasks that were forgotten: how many of each status, and their credits."""

    by_status: Counter[str] = field(default_factory=Counter)
    charged: float = 0
    spent: float = 0


@dataclass
class TaskLedger:
    """The image tasks of one emulator, by id and by client id.

    An emulator may run for weeks: when there are more than 100,000, or 200 million characters of prompts, the oldest is
    forgotten, whatever its status, and only counted.

    :param rng: Source of ids and latencies.
    """

    rng: random.Random
    image_tasks: dict[str, ImageTask] = field(default_factory=dict)
    by_client_id: dict[str, list[ImageTask]] = field(default_factory=dict)
    forgotten: Forgotten = field(default_factory=Forgotten)
    prompt_characters: int = 0

    def accept(self, submission: Submission, now: float, latency: float, account: int = 1) -> ImageTask:
        """Create and charge an image task, whatever its client id is."""
        task = ImageTask(
            id=self._new_id(now),
            submission=submission,
            created=now,
            done=now + latency,
            credits=submission.credits,
            account=account,
        )
        self.image_tasks[task.id] = task
        if submission.client_business_id:
            self.by_client_id.setdefault(submission.client_business_id, []).append(task)
        self.prompt_characters += len(task.prompt)
        while len(self.image_tasks) > MAX_IMAGE_TASKS or (
            self.prompt_characters > MAX_PROMPT_CHARACTERS and len(self.image_tasks) > 1
        ):
            self._forget(next(iter(self.image_tasks.values())), now)
        return task

    def _forget(self, task: ImageTask, now: float) -> None:
        """Forget an image task but for what it adds to the totals."""
        del self.image_tasks[task.id]
        self.prompt_characters -= len(task.prompt)
        client_id = task.submission.client_business_id
        if client_id:
            self.by_client_id[client_id].remove(task)
            if not self.by_client_id[client_id]:
                del self.by_client_id[client_id]
        state = task.state(now)
        self.forgotten.by_status[state] += 1
        self.forgotten.charged += task.credits
        self.forgotten.spent += task.credits if state != "failed" else 0

    def first(self, client_id: str | None, account: int = 1) -> ImageTask | None:
        """Return what an account's first submit with a client id bought, visible or not."""
        return next((task for task in self.by_client_id.get(client_id or "", ()) if task.account == account), None)

    def find(
        self, key: str, now: float, lookup_delay: float, use_client_ids: bool = True, account: int = 1
    ) -> ImageTask | None:
        """Return an account's image task by id, or its newest one by client id once that has become visible."""
        task = self.image_tasks.get(key)
        if task is not None or not use_client_ids:
            return task if task is None or task.account == account else None
        accepted = [task for task in self.by_client_id.get(key, ()) if task.account == account]
        visible = [task for task in accepted if now >= task.created + lookup_delay + task.lookup_spread]
        return visible[-1] if visible else None

    def fail(self, task: ImageTask, failure: Failure, now: float) -> None:
        """Fail an image task at once and refund it."""
        task.failure = failure
        task.done = min(task.done, now)

    def complete_all(self, now: float) -> int:
        """Let everything that runs be done now; return how many that were."""
        running = [task for task in self.image_tasks.values() if task.state(now) == "running"]
        for task in running:
            task.done = now
        return len(running)

    def spent(self, now: float) -> float:
        """Return the credits charged and not refunded."""
        kept = sum(task.credits for task in self.image_tasks.values() if task.state(now) != "failed")
        return kept + self.forgotten.spent

    def as_dict(self, now: float) -> dict[str, Any]:
        """Return every image task that is kept, the totals of all in USD, and the client ids of those that are kept
        that were charged more than once."""
        tasks = self.image_tasks.values()
        charged = sum(task.credits for task in tasks) + self.forgotten.charged
        spent = self.spent(now)
        return {
            "image_tasks": [task.record(now) for task in tasks],
            "count": len(tasks) + self.forgotten.by_status.total(),
            "by_status": dict(Counter(task.state(now) for task in tasks) + self.forgotten.by_status),
            "charged_usd": float(usd(charged)),
            "refunded_usd": float(usd(charged - spent)),
            "net_usd": float(usd(spent)),
            "duplicates": {key: len(found) for key, found in self.by_client_id.items() if len(found) > 1},
        }

    def _new_id(self, now: float) -> str:
        stamp = int(now * 1000)
        text = ""
        for _ in range(10):
            stamp, digit = divmod(stamp, 32)
            text = _ALPHABET[digit] + text
        return f"tsk_img_{text}{''.join(self.rng.choices(_ALPHABET, k=16))}"
