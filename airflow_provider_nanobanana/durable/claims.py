"""``Claim`` and ``decide_claim``: who may buy the image of one file, decided from what lies beside that file.

A wanted image is its file: destination and stem. Whoever wants to buy it creates a claim there first, exclusively; the
right to POST belongs to the process that created the claim, for :data:`POST_WINDOW` seconds of its own clock, and is
never inherited. A claim is never changed and never deleted: whoever takes over creates the next generation, and of
several takers one succeeds. Nothing is concluded from the clock of another machine: how old a claim is counts from
one's own first sight of it. What a claim says is believed of nothing but itself: its image task is asked for under an
id that is computed again from the file that is wanted.

Pure: no I/O, no clock. The table of cases, one test a row: ``docs/durability.md``, "Claims".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_nanobanana.durable.reconcile import MIN_LOOKUPS, Lookup, SubmissionPolicy
from airflow_provider_nanobanana.stored_forms import BOOK, CLAIM, INSTALL_NEWER
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import CONTENT_REFUSED
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS
from airflow_provider_nanobanana.toapis.redaction import one_line
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.record import SubmissionRecord
    from airflow_provider_nanobanana.toapis.models import ImageTask

#: Where claims and books are, below the provider's own folder at the destination.
CLAIMS_FOLDER: Final = "claims"
BOOKS_FOLDER: Final = "books"
#: Seconds for which a claim carries the right to POST, by the clock of the process that created it.
POST_WINDOW: Final = 45.0
#: Bytes of a claim or a book that are read: what is longer is damaged. A claim holds four names of 250 characters.
MOST_BYTES: Final = 8192
MOST_BOOK_BYTES: Final = 1_048_576
#: So many claims on one file within a day, and nothing is bought any more.
MOST_GENERATIONS: Final = 25
_LAST_GENERATION: Final = 1_000_000
#: Seconds after which nothing that a claim stands for can be had any more; clocks of machine and store differ by less
#: than what is added.
DEAD_SECONDS: Final = LINK_LIFETIME_SECONDS + 2 * 3600.0
#: Seconds by which the service's clock and a claim's may differ: for image tasks asked for by their own id.
_CLOCKS_DIFFER: Final = 3600.0
_LONGEST_TEXT: Final = 250

#: Whether purchases are claimed: where the destination can hold claims, or else fail, or never.
ClaimMode = Literal["auto", "require", "off"]
#: Why a generation was created.
Because = Literal["first", "released", "failed", "refused", "expired", "unseen", "void", "damaged"]


class Buyer(BaseModel):
    """Who made a claim; for people, and for counting what a task instance paid: no right follows from it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)

    namespace: str = Field(default="", max_length=_LONGEST_TEXT)
    dag_id: str = Field(default="", alias="dag", max_length=_LONGEST_TEXT)
    run_id: str = Field(default="", alias="run", max_length=_LONGEST_TEXT)
    task_id: str = Field(default="", alias="task", max_length=_LONGEST_TEXT)
    map_index: int = Field(default=-1, alias="map")
    try_number: int = Field(default=0, alias="try")

    def is_same_task_instance(self, other: Buyer) -> bool:
        """Whether both are attempts of one task instance, as far as names tell."""
        tries = {"try_number": 0}
        return self.model_copy(update=tries) == other.model_copy(update=tries)

    def __str__(self) -> str:
        mapped = f" [{self.map_index}]" if self.map_index >= 0 else ""
        where = f" of {self.namespace}" if self.namespace else ""
        words = f"task {self.task_id}{mapped} of DAG {self.dag_id}, run {self.run_id}, try {self.try_number}{where}"
        return one_line(words)


class Claim(BaseModel):
    """One generation of the claims on a file, as it is stored.

    :param stem: The file's name without suffix.
    :param digest: Hash of the request, 64 hex digits.
    :param nonce: 32 random hex digits: no two claims are alike.
    :param n: The generation, from 0.
    :param because: What became of the generation before, which made this one rightful.
    :param prev: The nonce of the generation before.
    :param at: Epoch seconds of the creator's clock; for people.
    :param book: Name of the book that says what became of it.
    :param sends_id: Whether its POST carries the client id, so that it can be asked for.
    :param settles: Seconds from its creation until what it bought shows, by the settings of its creator.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)

    v: Literal[1] = 1
    stem: str = Field(max_length=128)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")
    n: int = Field(ge=0, lt=_LAST_GENERATION)
    because: str = Field(default="first", max_length=40)
    prev: str | None = Field(default=None, max_length=64)
    at: float = Field(default=0.0, allow_inf_nan=False)
    by: Buyer = Buyer()
    book: str = Field(pattern=r"^[0-9a-f]{32}$")
    sends_id: bool = Field(default=True, alias="ids")
    settles: float = Field(default=0.0, ge=0, le=1000, allow_inf_nan=False)

    @property
    def name(self) -> str:
        """What the claim is called in a book, and its file without suffix."""
        return claim_name(self.stem, self.n)

    @property
    def client_business_id(self) -> str:
        """The id under which its image task is asked for."""
        return claimed_client_id(self.nonce, self.digest, self.stem, self.n)

    def encode(self) -> bytes:
        """Return the stored form: plain JSON."""
        text = json.dumps(self.model_dump(by_alias=True), separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "replace")


@dataclass(frozen=True)
class Damaged:
    """A generation that is there and cannot be understood, or is of another request than the file it stands beside.

    :param why: In words.
    :param is_newer: Whether a later release made it: then somebody may be buying under it, as under any claim.
    """

    n: int
    why: str
    is_newer: bool = False


def claim_name(stem: str, n: int) -> str:
    """Return what a generation of the claims on a file is called, without suffix."""
    return f"{stem}.g{n}"


def claimed_client_id(nonce: str, digest: str, stem: str, n: int) -> str:
    """Return the client id that a claim buys under: 43 characters, bound to the file that is wanted.

    Whoever can write a claim cannot make it name an image task of anybody's choice: the id is a hash of it.
    """
    parts = ("1", nonce, digest, stem, str(n))
    return f"nb-{hashlib.sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


def parse_claim(content: bytes, *, stem: str, digest: str | None, n: int) -> Claim | Damaged:
    """Return the claim that a file holds, or what is wrong with it.

    :param digest: Hash of the request that is wanted; None where any will do.
    """
    if len(content) > MOST_BYTES:
        return Damaged(n, f"it is longer than {MOST_BYTES} bytes")
    try:
        claim = Claim.model_validate_json(content)
    except ValueError as error:
        if CLAIM.is_newer(version := _version(content)):
            return Damaged(n, f"it {CLAIM.said(version)}", is_newer=True)
        return Damaged(n, one_line(f"it is no claim of version {CLAIM.version}: {type(error).__name__}"))
    # A store that does not tell names apart by case has one file, and one chain of claims, for all spellings.
    if (claim.stem.lower(), claim.n) != (stem.lower(), n):
        return Damaged(n, "it is the claim of another file")
    if digest is not None and claim.digest != digest:
        return Damaged(n, "it is the claim of another request")
    return claim


#: ``newer`` is never written: the book is there, and only a later release can read it.
Outcome = Literal["bought", "released", "refused", "newer"]
_WRITTEN: Final = ("bought", "released", "refused")
_NEWER_BOOK: Final = "its book was written by a newer version of this provider"
#: In what is read of a newer book: any claim's name.
_ANY: Final = ""


@dataclass(frozen=True)
class BookEntry:
    """What became of a claim, by the word of the process that created it.

    :param detail: The image task's id where it was bought, the code where it was refused.
    """

    outcome: Outcome
    detail: str = ""


def encode_book(entries: Mapping[str, BookEntry], *, buyer: Buyer, models: Mapping[str, str]) -> bytes:
    """Return the stored form of a book.

    :param entries: By claim name.
    :param models: Model id, resolution and, where they are billed, reference images, such as ``nano_banana_2 4K``, by
        claim name; for people and sums.
    """
    plain = {name: [entry.outcome, *([entry.detail] if entry.detail else [])] for name, entry in entries.items()}
    value = {"v": BOOK.version, "entries": plain, "by": buyer.model_dump(by_alias=True), "models": dict(models)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def parse_book(content: bytes | None) -> dict[str, BookEntry]:
    """Return what a book says, to be asked by :func:`entry_of`; what cannot be understood says nothing."""
    try:
        value = json.loads(content or b"{}")
        if BOOK.is_newer(value["v"]):
            return {_ANY: BookEntry("newer")}
        return _book_entries(value["entries"]) if value["v"] == BOOK.version else {}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return {}


def entry_of(entries: Mapping[str, BookEntry], claim: Claim) -> BookEntry | None:
    """Return what a book says of a claim that names it: of each, where only a later release can read the book."""
    return entries.get(claim.name) or entries.get(_ANY)


@dataclass(frozen=True)
class Book:
    """All that a book says, for people and for sums.

    :param entries: By claim name.
    :param models: As for :func:`encode_book`, as far as it has them.
    """

    entries: Mapping[str, BookEntry]
    by: Buyer
    models: Mapping[str, str]


def read_book(content: bytes) -> Book | None:
    """Return what a file says as a book, or None where it is none."""
    try:
        value = json.loads(content)
        if value["v"] != BOOK.version or not isinstance(value["entries"], dict):
            return None
        models = value.get("models")
        named = models.items() if isinstance(models, dict) else ()
        return Book(
            _book_entries(value["entries"]),
            Buyer.model_validate(value.get("by") or {}),
            {name: model[:_LONGEST_TEXT] for name, model in named if isinstance(model, str)},
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _version(content: bytes) -> Any:
    """Return the version that a claim or a book says, whatever else it holds; None where it says none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value.get("v") if isinstance(value, dict) else None


def _book_entries(rows: Mapping[str, Any]) -> dict[str, BookEntry]:
    return {str(name): entry for name, row in rows.items() if (entry := _book_entry(row))}


def _book_entry(row: Any) -> BookEntry | None:
    match row:
        case [str(outcome), *rest] if outcome in _WRITTEN:
            detail = rest[0] if rest and isinstance(rest[0], str) else ""
            if outcome == "bought" and not detail:
                return None
            return BookEntry(outcome, detail[:_LONGEST_TEXT])  # type: ignore[arg-type]
    return None


@dataclass(frozen=True)
class Sighting:
    """Since when a claim, or a record, is known to a task instance, by the clocks of the machines that it ran on.

    A clock is compared with itself only: what one machine saw does not make the claim older on another.

    :param claim: The claim's client id; what tells the record from any other.
    :param seen: When a machine saw it first, in seconds of that machine's clock, by machine.
    :param looks: How often the service did not show its image task.
    """

    claim: str
    seen: Mapping[str, float] = field(default_factory=dict)
    looks: int = 0

    def at(self, machine: str, now: float) -> Sighting:
        """Return the sighting with this machine's first sight in it; the last few machines are remembered."""
        if machine in self.seen:
            return self
        kept = dict(list(self.seen.items())[-_MOST_MACHINES + 1 :])
        return replace(self, seen={**kept, machine: round(now, 3)})

    def age(self, machine: str, now: float) -> float:
        """Return for how many seconds the claim has been known, by the clock of one machine."""
        return max(0.0, now - self.seen.get(machine, now))


_MOST_MACHINES: Final = 4


@dataclass(frozen=True)
class Settled:
    """A claim whose outcome the caller knows: its image task is lost or refunded.

    :param claim: The claim's client id.
    """

    claim: str
    because: Because


def settled_by(record: SubmissionRecord | None, found: ImageTask | None) -> Settled | None:
    """Return the claim of which a record tells that what it bought is lost or refunded; None where it does not tell.

    :param record: Of an image task that is not used any more.
    :param found: What the service showed of that.
    """
    if record is None or record.client_business_id is None or (found is None and record.image_task_id is None):
        return None
    failed = found is not None and found.status is ImageTaskStatus.FAILED and not found.expired_at_service
    return Settled(record.client_business_id, "failed" if failed else "expired")


@dataclass(frozen=True)
class ClaimFacts:
    """All that :func:`decide_claim` goes by.

    :param top: The highest generation; None where there is none.
    :param buyer: Who asks.
    :param book: What the claim's book says; None where it says nothing.
    :param lookup: What the service answered last.
    :param age: Seconds for which the claim has been there: since this task instance first saw it, by one clock of its
        own, or since it was written, if both moments are of the store's clock.
    :param looks: How often the service did not show its image task.
    :param written_at: Epoch seconds at which the claim was written, by the store's clock; None where that is unknown.
        Never compared with a clock of this machine.
    :param model: Model id of the wanted image; None where any will do.
    :param settled: What the caller knows of a claim.
    :param crowded: Whether so many generations came within a day that something must be wrong.
    :param waited_out: Whether the time is over for which this attempt waits for others.
    :param ids_resolve: Whether the service finds image tasks by client id; None where that is not known yet.
    """

    top: Claim | Damaged | None
    buyer: Buyer
    attempt: TaskAttempt
    policy: SubmissionPolicy
    book: BookEntry | None = None
    lookup: Lookup | None = None
    age: float = 0.0
    looks: int = 0
    written_at: float | None = None
    model: str | None = None
    settled: Settled | None = None
    crowded: bool = False
    waited_out: bool = False
    ids_resolve: bool | None = None

    @property
    def own(self) -> bool:
        """Whether the claim is this task instance's: what it bought counts as paid by it."""
        return isinstance(self.top, Claim) and self.top.by.is_same_task_instance(self.buyer)


class ClaimAction(StrEnum):
    """What to do next."""

    CREATE = "create a claim"
    SHARE = "share"
    LOOK_UP = "look up"
    HOLD = "wait"
    FAIL = "fail"


@dataclass(frozen=True)
class ClaimDecision:
    """One step and its reason, in words for the log.

    :param because: Why the next generation is rightful.
    :param target: The id to look up; a client id unless ``by_image_task_id``.
    :param image_task: What is shared.
    """

    action: ClaimAction
    reason: str
    because: Because = "first"
    target: str = ""
    by_image_task_id: bool = False
    image_task: ImageTask | None = None
    error: errors.ToApisError | None = None


class ClaimHeld(errors.TransientFailure):
    """Somebody else may be buying the image, or an attempt before this one has: that is waited for without a slot."""


def settle_seconds(top: Claim | Damaged, policy: SubmissionPolicy) -> float:
    """Return for how long a claim must be known before "not there" means that nothing was bought."""
    usual = POST_WINDOW + policy.visibility_delay
    return max(usual, top.settles) if isinstance(top, Claim) else usual


def decide_claim(facts: ClaimFacts, now: float) -> ClaimDecision:
    """Return the next step towards a file that is not in place; ``now`` is epoch seconds."""
    decision = _decide(facts, now)
    if decision.action is ClaimAction.CREATE and facts.top is not None:
        # Not before: what the last claim bought is used, however many came to nothing.
        full = facts.top.n + 1 >= _LAST_GENERATION
        if full or (facts.crowded and not _cleared(facts)):
            return _fail(_too_many(clear_helps=not full))
    return decision


def _decide(facts: ClaimFacts, now: float) -> ClaimDecision:
    top = facts.top
    if top is None:
        return _create("first", "nobody has claimed it")
    if isinstance(top, Damaged) and top.is_newer:
        return _decide_newer(facts, top.why)
    if isinstance(top, Damaged):
        return _decide_unaskable(facts, "damaged", f"the claim is damaged ({top.why})")
    settled = facts.settled
    if settled is not None and settled.claim == top.client_business_id:
        return _create(settled.because, f"what generation {top.n} bought is gone ({settled.because})")
    return _decide_booked(facts, top) or _decide_by_service(facts, top, now)


def _decide_booked(facts: ClaimFacts, top: Claim) -> ClaimDecision | None:
    """The claim's creator may have written that nothing is bought under it; None where that has to be asked."""
    book = facts.book
    if book is not None and book.outcome == "released":
        return _create("released", f"generation {top.n} was given up before its POST")
    if book is not None and book.outcome == "refused":
        return _decide_refused(facts, book.detail)
    return None


def _decide_by_service(facts: ClaimFacts, top: Claim, now: float) -> ClaimDecision:
    """The service is asked what the claim bought."""
    if not facts.policy.client_ids or facts.ids_resolve is False:
        return _decide_by_image_task_id(facts, top, now)
    if not top.sends_id:
        # Not asked by the book's image task id: then whoever can write here could have any image task of the account
        # landed here, only by saying that this claim sent no client id.
        return _decide_unaskable(facts, "unseen", "its purchase was sent without a client id to ask for")
    lookup = facts.lookup
    if lookup is None or lookup.target != top.client_business_id:
        return ClaimDecision(ClaimAction.LOOK_UP, f"{_who(facts)} claimed it", target=top.client_business_id)
    if lookup.image_task is not None:
        return _decide_found(facts, lookup.image_task, now)
    if facts.book is not None:
        return _decide_bought_unseen(facts, top, facts.book)
    return _decide_unseen(facts, top)


def _decide_found(facts: ClaimFacts, found: ImageTask, now: float) -> ClaimDecision:
    """The service shows the image task that the claim bought."""
    if found.status is ImageTaskStatus.FAILED and not found.expired_at_service:
        if found.error and found.error.code == CONTENT_REFUSED.code:
            return _decide_refused(facts, found.error.message, image_task_id=found.id)
        return _create("failed", f"image task {found.id} failed at the service and was refunded")
    if found.terminal and (found.expired_at_service or now >= found.expires(now)):
        if not facts.own or facts.policy.rebuys_expired or (facts.policy.clear_rebuys and _cleared(facts)):
            return _create("expired", f"the link of image task {found.id} has expired")
        return _fail(_expired(found))
    return ClaimDecision(
        ClaimAction.SHARE,
        f"image task {found.id} of {_who(facts)} is {found.wire_status or found.status}; nothing is bought",
        image_task=found,
    )


def _decide_refused(facts: ClaimFacts, why: str, image_task_id: str | None = None) -> ClaimDecision:
    """The service refuses the prompt; that stands for everybody for a day, unless a person clears the task."""
    if _cleared(facts) or _is_dead(facts):
        return _create("refused", "it was refused, more than a day ago or before this task was cleared")
    return _fail(
        errors.ContentRefused(
            f"The service refused the content of this request when {_who(facts)} asked for it ({one_line(why)}), and "
            "would again. Nothing was sent now and nothing was charged. Change the prompt and clear the task; a clear "
            "alone asks once more.",
            image_task_id=image_task_id,
            charged="no",
        )
    )


def _decide_unseen(facts: ClaimFacts, top: Claim) -> ClaimDecision:
    """The service shows no image task of the claim, and nobody says that there is one."""
    if not _is_settled(facts, top):
        wait = max(0.0, settle_seconds(top, facts.policy) - facts.age)
        return _hold(facts, f"what it buys may take {wait:.0f} s more to show")
    if _is_dead(facts):
        return _create("void", "whatever it bought a day ago can be had no more")
    if facts.policy.on_unknown_submission == "resubmit" or _cleared(facts):
        return _create("unseen", f"generation {top.n} bought nothing that shows after {facts.age:.0f} s")
    return _fail(_unfindable(facts, top, f"no image task answers to client_business_id {top.client_business_id}"))


def _decide_bought_unseen(facts: ClaimFacts, top: Claim, book: BookEntry) -> ClaimDecision:
    """The claim's book says that it was bought, and the service does not show it: it may be another account's."""
    if book.outcome == "newer":
        return _decide_newer(facts, _NEWER_BOOK)
    image_task_id = book.detail
    given_up = _cleared(facts) or _is_dead(facts)
    if given_up and _is_settled(facts, top):
        return _create("void", f"image task {one_line(image_task_id)} cannot be had from this account")
    if given_up or not facts.waited_out:
        return _hold(facts, f"this account does not show image task {one_line(image_task_id)}; its file may come")
    return _fail(
        errors.ImageTaskNotFound(
            f"{_who(facts)} bought this image (image task {one_line(image_task_id)}), and this account does not know "
            "it: is the connection of another account, or another host? Nothing was sent now and nothing charged. Its "
            "file is used as soon as it is in place; clear this task to buy the image with this account.",
            charged="unknown" if facts.own else "no",
        )
    )


def _decide_by_image_task_id(facts: ClaimFacts, top: Claim, now: float) -> ClaimDecision:
    """Nothing can be asked for by client id: the book's word, held against the image task, or the file."""
    book = facts.book
    if book is None:
        return _decide_unaskable(facts, "unseen", "what it bought cannot be asked by client id")
    if book.outcome == "newer":
        return _decide_newer(facts, _NEWER_BOOK)
    lookup = facts.lookup
    if lookup is None or lookup.target != book.detail:
        reason = f"{_who(facts)} bought it"
        return ClaimDecision(ClaimAction.LOOK_UP, reason, target=book.detail, by_image_task_id=True)
    found = lookup.image_task
    if found is None or not _fits(facts, top, found):
        return _decide_unaskable(facts, "void", f"image task {one_line(book.detail)} is not what it bought")
    return _decide_found(facts, found, now)


def _fits(facts: ClaimFacts, top: Claim, found: ImageTask) -> bool:
    """Whether an image task that a book names can be what the claim bought.

    Weaker than an id that is bound to the claim: somebody who can write here could name another image task of the
    account, of the same model and submitted in the same hour.
    """
    claimed_at = top.at if facts.written_at is None else facts.written_at
    if found.created_at is None or abs(found.created_at - claimed_at) > _CLOCKS_DIFFER:
        return False
    return facts.model is None or found.model in (None, facts.model)


def _decide_unaskable(facts: ClaimFacts, because: Because, reason: str) -> ClaimDecision:
    """Nothing tells what became of a claim but its file, and the day after which all of it is dead."""
    given_up = _is_dead(facts) or _cleared(facts)
    if given_up and facts.top is not None and facts.age >= settle_seconds(facts.top, facts.policy):
        return _create(because, f"{reason}; its day is over, or the task was cleared")
    # What this task instance bought itself, nobody else lands.
    if given_up or not (facts.waited_out or facts.own):
        return _hold(facts, f"{reason}; its file may come")
    return _fail(_unfindable(facts, facts.top, reason))


def _decide_newer(facts: ClaimFacts, why: str) -> ClaimDecision:
    """A later release wrote what tells of a purchase: only its file ends that, or its day; no clear does."""
    if _is_dead(facts):
        return _create("void", f"{why}; its day is over")
    if not facts.waited_out:
        return _hold(facts, f"{why}; its file may come")
    return _fail(
        errors.TransientFailure(
            f"{_who(facts)} has claimed this image and may have bought it: {why}. Nothing was sent now. Its file is "
            "used as soon as it is in place. Install the newer version wherever tasks run, then retry or clear this "
            "task; without it the image can be bought a day after it was claimed.",
            charged="unknown",
            first_step=INSTALL_NEWER,
        )
    )


def _is_settled(facts: ClaimFacts, top: Claim) -> bool:
    """Whether what the claim bought, if it bought anything, shows by now."""
    return _is_dead(facts) or (facts.age >= settle_seconds(top, facts.policy) and facts.looks >= MIN_LOOKUPS)


def _is_dead(facts: ClaimFacts) -> bool:
    """Whether nothing that the claim stands for can be had any more."""
    return facts.age > DEAD_SECONDS


def _cleared(facts: ClaimFacts) -> bool:
    """Whether a person cleared the task, which answers what the claim left open.

    Of another's claim it is not known which came first: where several tasks are cleared at once, one of them buys
    while the others look. So a clear answers nothing that may still be under way.
    """
    attempt = facts.attempt
    if isinstance(facts.top, Claim) and facts.own:
        return 0 < facts.top.by.try_number <= attempt.tries_before_clear
    return attempt.cleared and not attempt.retry


def _create(because: Because, reason: str) -> ClaimDecision:
    return ClaimDecision(ClaimAction.CREATE, reason, because=because)


def _hold(facts: ClaimFacts, reason: str) -> ClaimDecision:
    error = ClaimHeld(
        f"{_who(facts)} has claimed this image, and {reason}. Nothing is sent until that is settled.",
        charged="unknown" if facts.own else "no",
    )
    return ClaimDecision(ClaimAction.HOLD, error.message, error=error)


def _fail(error: errors.ToApisError) -> ClaimDecision:
    return ClaimDecision(ClaimAction.FAIL, error.message, error=error)


def _who(facts: ClaimFacts) -> str:
    top = facts.top
    if not isinstance(top, Claim):
        return "Somebody"
    if facts.own:
        return f"Try {top.by.try_number} of this task"
    return str(top.by)[:1].upper() + str(top.by)[1:]


def _unfindable(facts: ClaimFacts, top: Claim | Damaged | None, what: str) -> errors.ToApisError:
    adopt = ""
    if isinstance(top, Claim):
        adopt = (
            f"If the image is there, clear this task with adopt={{{top.client_business_id!r}: '<image task id>'}}; if"
            " it is not there, clear this task to buy it."
        )
    return errors.SubmissionUnfindable(
        f"{_who(facts)} claimed this image and may have bought it: {what}. Nothing was sent now. Look at the account's "
        f"task list in the ToAPIs console. {adopt or 'If the image is not there, clear this task to buy it.'}",
        charged="unknown" if facts.own else "no",
    )


def _expired(found: ImageTask) -> errors.ToApisError:
    return errors.ResultExpired(
        f"Image task {found.id} of this request is paid and its link has expired: the service no longer gives the "
        "image out. Nothing was sent now. Clear the task to buy it again.",
        image_task_id=found.id,
    )


def _too_many(*, clear_helps: bool) -> errors.ToApisError:
    how = "clear this task to try once more" if clear_helps else "delete the claims on it"
    return errors.ImageTaskFailed(
        f"{MOST_GENERATIONS} purchases of this image were begun within a day; none brought it. Nothing was sent now. "
        f"Look at the prompt and at the service, then {how}.",
        charged="no",
    )
