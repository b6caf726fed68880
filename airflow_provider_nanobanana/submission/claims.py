"""``ClaimFolder`` and ``ImageClaims``: the claims beside the files of one destination, read and made.

It does what :func:`~.durable.claims.decide_claim` decides, and keeps the two times that the protocol rests on, both by
this machine's own clocks: how long the right to POST of a claim of ours lasts, and since when a claim is known.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from airflow_provider_nanobanana.durable.claims import (
    BOOKS_FOLDER,
    CLAIMS_FOLDER,
    DEAD_SECONDS,
    MOST_BOOK_BYTES,
    MOST_BYTES,
    MOST_GENERATIONS,
    POST_WINDOW,
    Because,
    BookEntry,
    Buyer,
    Claim,
    ClaimAction,
    ClaimDecision,
    ClaimFacts,
    ClaimHeld,
    Damaged,
    Settled,
    Sighting,
    claim_name,
    decide_claim,
    encode_book,
    entry_of,
    parse_book,
    parse_claim,
)
from airflow_provider_nanobanana.durable.old_claims import is_sweep_under_way, may_be_swept
from airflow_provider_nanobanana.durable.reconcile import Lookup
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.toapis.errors import StorageFailed, ToApisError, TransientFailure
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
    from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = LineLogger(__name__)

#: Claims of one image that others created first, one after another, before a slice leaves it for later.
_MOST_LOST_CREATES: Final = 5
#: Generations that are read to see whether there are too many.
_MOST_COUNTED: Final = 100
#: Where a file is written to learn the time by the store's clock, beside the markers of sweeps.
CLOCK_FOLDER: Final = "clock"
_NOW: Final = "now"
#: Of Linux: changes with every start of the machine, and is the same in all of its containers.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


#: Counts on while the machine sleeps; other systems than Linux have none.
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()[:36]
    except OSError:
        # Of another system: what this process sees is compared with nothing that another one saw.
        return uuid.uuid4().hex


class MachineClock:
    """The clocks of this machine, which are compared with themselves only.

    :param clock: The session's; where a test put one of its own there, that one stands for all of them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._real = clock is time.time
        #: Tells the clock that :meth:`uptime` reads from those of other machines.
        self.machine = _boot_id()

    def uptime(self) -> float:
        """Return seconds that pass also while the machine sleeps, and that nobody sets."""
        return time.clock_gettime(_BOOTTIME) if self._real else self._clock()

    def now(self) -> float:
        """Return epoch seconds by the wall clock."""
        return self._clock()

    def passed(self, began: tuple[float, ...]) -> float:
        """Return the seconds since earlier readings, by whichever clock has gone furthest."""
        return max(now - then for now, then in zip(self.readings(), began, strict=True))

    def readings(self) -> tuple[float, ...]:
        """Return what each clock says now: the largest difference to an earlier reading is the time that has passed."""
        return (self._clock(), time.monotonic(), self.uptime()) if self._real else (self._clock(),)


class PurchaseBook:
    """What became of the claims of one group of items; written once, when all of them are settled.

    A book that is never written costs others a wait, and no image: the service is asked for what the claims bought.

    """

    def __init__(self, folder: ClaimFolder) -> None:
        self.id = uuid.uuid4().hex
        self._folder = folder
        self._entries: dict[str, BookEntry] = {}
        self._models: dict[str, str] = {}
        self._closed = False
        self._lock = threading.Lock()

    def entry(self, name: str) -> BookEntry | None:
        """Return what is known of a claim of this book, written or not."""
        with self._lock:
            return self._entries.get(name)

    def note(self, claim: Claim, entry: BookEntry, model: str | None) -> None:
        """Take note of what became of a claim."""
        with self._lock:
            self._entries[claim.name] = entry
            if model is not None:
                self._models[claim.name] = model

    def close(self) -> None:
        """Write the book, if there is anything in it and it was not written before."""
        with self._lock:
            if self._closed or not self._entries:
                return
            self._closed = True
            content = encode_book(self._entries, buyer=self._folder.buyer, models=self._models)
        self._folder.write_book(self.id, content)


class ClaimFolder:
    """The claims and books of one destination, as one task instance uses them; any thread may.

    :param store: The destination, whose create is exclusive.
    """

    def __init__(self, store: ImageStore, buyer: Buyer, clock: MachineClock) -> None:
        self.buyer = buyer
        self.clock = clock
        self._clock_folder = store.reserved(CLOCK_FOLDER)
        self._store_clock: tuple[float | None, float] | None = None
        self._claims = store.reserved(CLAIMS_FOLDER)
        self._books = store.reserved(BOOKS_FOLDER)
        self._own: dict[str, PurchaseBook] = {}
        self._read: dict[str, Mapping[str, BookEntry]] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def open_book(self) -> PurchaseBook:
        """Return a new book for a group of claims."""
        book = PurchaseBook(self)
        with self._lock:
            self._own[book.id] = book
        return book

    def close_books(self) -> None:
        """Write the books of this process that were not written."""
        with self._lock:
            books = list(self._own.values())
        for book in books:
            book.close()

    @contextmanager
    def no_book_written(self) -> Iterator[None]:
        """Let books that are to be written wait: so a manifest that is newer than a book sums up all that is in it."""
        with self._writing:
            yield

    def write_book(self, name: str, content: bytes) -> None:
        """Write a book; a failure costs others a wait only."""
        try:
            with self._writing:
                self._books.write(f"{name}.json", content)
        except StorageFailed as failure:
            log.warning("What became of claims could not be written beside them (others wait longer): %s", failure)

    def create(self, claim: Claim) -> bool:
        """Create a claim, and say whether it is ours.

        :raises StorageFailed: That could not be found out; nothing may be sent.
        """
        return self._claims.create(f"{claim.name}.json", claim.encode())

    def read(self, stem: str, n: int, digest: str | None = None) -> Claim | Damaged | None:
        """Return one generation, or None where there certainly is none.

        :raises StorageFailed: It could not be read.
        """
        content = self._claims.read(f"{claim_name(stem, n)}.json", MOST_BYTES)
        return None if content is None else parse_claim(content, stem=stem, digest=digest, n=n)

    def highest(self, stem: str, digest: str | None) -> Claim | Damaged | None:
        """Return the highest generation; None where there is none.

        :raises StorageFailed: It could not be read.
        """
        if self._claims.lists_by_prefix:
            numbers = (_number(name, stem) for name in self._claims.names(f"{stem}.g"))
            highest = max((number for number in numbers if number is not None), default=None)
            return None if highest is None else self.read(stem, highest, digest)
        found = None
        for n in count():
            claim = self.read(stem, n, digest)
            if claim is None:
                break
            found = claim
        return found

    def written_at(self, stem: str, n: int) -> float | None:
        """Return when a generation was written, in epoch seconds by the store's clock; None where that is not known.

        :raises StorageFailed: It could not be found out.
        """
        return self._claims.modified(f"{claim_name(stem, n)}.json")

    def age(self, written_at: float | None) -> float:
        """Return how many seconds ago something was written, by the store's clock; 0 where that is not known.

        :raises StorageFailed: It could not be found out.
        """
        now = None if written_at is None else self.store_now()
        age = 0.0 if written_at is None or now is None else max(0.0, now - written_at)
        # The times of a local disk are of this machine's wall clock, which may be set: it tells a day, and no minutes.
        return age if age > DEAD_SECONDS or not isinstance(self._claims, LocalStorage) else 0.0

    def store_now(self) -> float | None:
        """Return the time by the store's clock: that of what was just written there, and what has passed since.

        :return: Never later than it is; None where the store keeps no times.
        :raises StorageFailed: It could not be found out.
        """
        with self._lock:
            if self._store_clock is None:
                moment = self._write_clock()
                # Read last: where this process stands still meanwhile, the store's time is taken for too early.
                self._store_clock = moment, self.clock.uptime()
            moment, since = self._store_clock
        return None if moment is None else moment + self.clock.uptime() - since

    def _write_clock(self) -> float | None:
        """Return the time of what was just written, by the store's clock; None where it is not known.

        Not every account may write over a file (in Google's store that takes the right to delete): then a claim is as
        old as it has been known here.
        """
        try:
            self._clock_folder.write(_NOW, uuid.uuid4().hex.encode())
            return self._clock_folder.modified(_NOW)
        except StorageFailed as failure:
            log.debug("The time by the store's clock is not known: %s", failure.message)
            return None

    def is_being_swept(self) -> bool:
        """Whether claims of more than a week ago may be being removed at this moment.

        :raises StorageFailed: It could not be found out.
        """
        now = self.store_now()
        return now is not None and is_sweep_under_way(self._clock_folder.entries(), now)

    def withdraw(self, claim: Claim) -> None:
        """Remove a claim that this process has created just now and will not use, before anybody may build on it.

        :raises StorageFailed: It may still be there.
        """
        self._claims.delete(f"{claim.name}.json")

    def bought_by_us(self, stem: str, digest: str) -> int:
        """Return how many image tasks of a file in place this task instance paid, as far as its claims tell.

        :raises StorageFailed: They could not be read.
        """
        top = self.highest(stem, digest)
        paid, because = 0, None
        while isinstance(top, Claim):
            # The last one brought the image; one before it was paid where its link had expired.
            ours = top.by.is_same_task_instance(self.buyer)
            paid += ours and because in (None, "expired")
            because = top.because
            top = self.read(stem, top.n - 1, digest) if top.n else None
        return paid

    def book_entry(self, claim: Claim) -> BookEntry | None:
        """Return what is said of a claim, or None where nothing is.

        :raises StorageFailed: It could not be read.
        """
        with self._lock:
            own = self._own.get(claim.book)
            known = self._read.get(claim.book)
        if own is not None:
            return own.entry(claim.name)
        if known is None:
            content = self._books.read(f"{claim.book}.json", MOST_BOOK_BYTES)
            if content is None:
                return None
            # Written once, and never changed: need not be read again.
            known = parse_book(content if len(content) <= MOST_BOOK_BYTES else None)
            with self._lock:
                self._read[claim.book] = known
        return entry_of(known, claim)


def _number(name: str, stem: str) -> int | None:
    text = name.removeprefix(f"{stem}.g").removesuffix(".json")
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else -1
    return number if name == f"{claim_name(stem, number)}.json" else None


@dataclass(frozen=True)
class HeldClaim:
    """A claim that this process created: the right to POST once, for a while.

    :param began: What the clocks said before it was created.
    """

    claim: Claim
    book: PurchaseBook
    clock: MachineClock
    began: tuple[float, ...]

    def may_post(self) -> bool:
        """Whether the right to POST still holds, by whichever clock of this machine has gone furthest."""
        return self.clock.passed(self.began) < POST_WINDOW

    def note(self, entry: BookEntry, model: str | None = None) -> None:
        """Take note of what became of it."""
        self.book.note(self.claim, entry, model)

    def release(self) -> None:
        """Take note that certainly nothing was sent under it: others need not wait."""
        if self.book.entry(self.claim.name) is None:
            self.note(BookEntry("released"))


class SightingStore(Protocol):
    """Remembers since when the claim on one image is known."""

    def sighting(self) -> Sighting | None:
        """Return what was remembered."""
        ...

    def remember(self, sighting: Sighting | None) -> None:
        """Replace it."""
        ...


@dataclass(frozen=True)
class Shared:
    """The image task that somebody bought for the image.

    :param claim: Under which it was bought.
    :param own: Whether an attempt of this very task instance bought it.
    """

    image_task: ImageTask
    claim: Claim
    own: bool


#: What came of asking for an image: the right to buy it, an image task that is bought, or the image itself.
Acquired = HeldClaim | Shared


class InPlace(Exception):
    """The image is in place: nothing is bought."""

    def __init__(self, image: StoredImage) -> None:
        super().__init__(image.uri)
        self.image = image


@contextmanager
def unreadable_claims() -> Iterator[None]:
    """Turn what keeps claims from being read or made into an error that says what became of the money: nothing."""
    try:
        yield
    except StorageFailed as failure:
        raise TransientFailure(
            f"Who may buy an image could not be found out beside its file: {failure.message} Nothing was sent now; a "
            "retry goes on from here.",
            charged="no",
        ) from failure


#: Asks the service for an id, which is a client id if so told; None when it is not shown.
LookUp = Callable[[str, bool], "ImageTask | None"]


@dataclass
class ImageClaims:
    """The claims on one wanted image, as one process sees and makes them.

    :param stem: Of its file.
    :param digest: Hash of the request, 64 hex digits.
    :param book: Of the group that the item is bought with; None where nothing is to be bought yet.
    :param find: Returns the image if it is in place, verified.
    :param sightings: Where this task instance remembers since when a claim is known.
    :param wait_until: Epoch seconds until which this attempt waits for others.
    :param ids_resolve: Whether the service finds image tasks by client id; None where that is not known yet.
    :param model: Model id of the wanted image.
    :param proposed: The first generation, not created yet: its intent was written ahead.
    """

    folder: ClaimFolder
    session: ToApisSession
    stem: str
    digest: str
    book: PurchaseBook | None
    attempt: TaskAttempt
    policy: SubmissionPolicy
    find: Callable[[], StoredImage | None]
    sightings: SightingStore
    wait_until: float
    ids_resolve: Callable[[], bool | None]
    adopt: Mapping[str, str]
    model: str | None = None
    proposed: Claim | None = None

    def propose(self, n: int = 0, because: Because = "first", prev: str | None = None) -> Claim:
        """Return a claim that is not created yet."""
        settings = self.session.settings
        return Claim(
            stem=self.stem,
            digest=self.digest,
            nonce=secrets.token_hex(16),
            n=n,
            because=because,
            prev=prev,
            at=round(self.session.clock(), 3),
            by=self.folder.buyer,
            book=self._open_book().id,
            sends_id=settings.client_ids,
            settles=POST_WINDOW + self.policy.visibility_delay,
        )

    def knows(self, client_business_id: str | None) -> bool:
        """Whether one of the claims on the image was made under a client id.

        :raises TransientFailure: They could not be read.
        """
        with unreadable_claims():
            top = self.folder.highest(self.stem, self.digest)
            while isinstance(top, Claim) and top.client_business_id != client_business_id and top.n > 0:
                below = self.folder.read(self.stem, top.n - 1, self.digest)
                top = below if isinstance(below, Claim) else None
        return isinstance(top, Claim) and top.client_business_id == client_business_id

    def acquire(
        self,
        look_up: LookUp,
        settled: Settled | None = None,
        *,
        may_create: bool = True,
    ) -> Acquired | None:
        """Create a claim, or find what others have bought; None where one could be created and ``may_create`` is false.

        :param look_up: Asks the service for an id, which is a client id if so told; None when it is not shown.
        :param settled: What is known of an earlier claim.
        :raises InPlace: The image is in place.
        :raises ClaimHeld: It is not settled yet what became of another claim.
        :raises TransientFailure: Claims could not be read or made; nothing was sent.
        :raises ToApisError: What keeps the image from being bought; nothing was sent.
        """
        with unreadable_claims():
            return self._acquire(look_up, settled, may_create=may_create)

    def _acquire(self, look_up: LookUp, settled: Settled | None, *, may_create: bool) -> Acquired | None:
        fresh = self.proposed if may_create and self.sightings.sighting() is None and settled is None else None
        self.proposed = None
        if fresh is not None and (held := self._create(fresh)):
            return held
        for _ in range(_MOST_LOST_CREATES):
            facts, decision = self._decide(look_up, settled)
            if found := self._found(facts, decision, look_up):
                return found
            if decision.error is not None:
                raise decision.error
            if not may_create:
                return None
            if held := self._take_over(facts, decision):
                return held
        raise TransientFailure(
            f"Others create claims on {self.stem} all the time, or the destination does not list what it holds. Nothing"
            " was sent now; a retry goes on from here.",
            charged="no",
        )

    def _decide(self, look_up: LookUp, settled: Settled | None) -> tuple[ClaimFacts, ClaimDecision]:
        """Return what is to be done about the claims as they stand now; what has to be looked up for that, is."""
        facts = self._facts(settled)
        while True:
            decision = decide_claim(facts, self.session.clock())
            asks = decision.action is ClaimAction.LOOK_UP and not decision.by_image_task_id
            # Two calls more to the store: the age of most claims need not be known.
            if facts.top is not None and facts.written_at is None and not asks and decision.image_task is None:
                dated = self._dated(facts)
                if decision.by_image_task_id:
                    facts = dated
                elif decide_claim(dated, self.session.clock()).action is not decision.action:
                    # The age ends the waiting: what it is held against is read once more, so that it is not older.
                    facts = replace(dated, book=self._book_of(dated.top), lookup=None)
                    continue
            log.debug("Claims on %s: %s: %s", self.stem, decision.action, decision.reason)
            if decision.action is not ClaimAction.LOOK_UP:
                return facts, decision
            found = self._ask(look_up, decision, own=facts.own)
            facts = self._looked_up(facts, Lookup(decision.target, found))

    def _found(self, facts: ClaimFacts, decision: ClaimDecision, look_up: LookUp) -> Shared | None:
        """Return what is bought under the highest claim, if it can be used.

        :raises InPlace: The image is in place, whatever became of the claim.
        """
        top = facts.top
        if isinstance(top, Claim) and decision.image_task is not None:
            return Shared(decision.image_task, top, own=facts.own)
        if isinstance(top, Claim) and decision.error is not None:
            adopted = self._adopted(top, look_up)
            if adopted is not None:
                return Shared(adopted, top, own=True)
        if top is not None and decision.action is not ClaimAction.HOLD and (image := self.find()) is not None:
            raise InPlace(image)
        return None

    def _next(self, facts: ClaimFacts, decision: ClaimDecision) -> Claim:
        """Return the generation after the highest one, not created yet."""
        top = facts.top
        if top is None:
            return self.propose()
        log.log(_level(facts), "Claims on %s: generation %d: %s", self.stem, top.n + 1, decision.reason)
        return self.propose(top.n + 1, decision.because, top.nonce if isinstance(top, Claim) else None)

    def _take_over(self, facts: ClaimFacts, decision: ClaimDecision) -> HeldClaim | None:
        """Create the next generation, but none on top of claims that are being removed for their age.

        It would be left alone without the first one, whose name the next buyer finds free.
        """
        top, claim = facts.top, self._next(facts, decision)
        if top is None or not self._may_be_swept(top.n):
            return self._create(claim)
        if self.folder.is_being_swept():
            raise _swept_now(self.stem)
        held = self._create(claim)
        if held is None:
            return None
        # Looked at after the create: a sweep that begins later finds the new claim, and leaves all of them.
        if self.folder.read(self.stem, top.n, self.digest) != top or self.folder.is_being_swept():
            self.folder.withdraw(held.claim)
            raise _swept_now(self.stem)
        return held

    def _may_be_swept(self, n: int) -> bool:
        written_at = self.folder.written_at(self.stem, n)
        return may_be_swept(self.folder.age(written_at), written_at)

    def _create(self, claim: Claim) -> HeldClaim | None:
        held = HeldClaim(claim, self._open_book(), self.folder.clock, self.folder.clock.readings())
        try:
            created = self.folder.create(claim)
        except StorageFailed:
            # It may be there all the same; nothing is ever sent under it.
            held.release()
            raise
        if not created:
            return None
        self.sightings.remember(None)
        return held

    def _open_book(self) -> PurchaseBook:
        if self.book is None:
            self.book = self.folder.open_book()
        return self.book

    def _facts(self, settled: Settled | None) -> ClaimFacts:
        """Return what is beside the file now."""
        folder = self.folder
        top = folder.highest(self.stem, self.digest)
        facts = ClaimFacts(
            top,
            folder.buyer,
            self.attempt,
            self.policy,
            settled=settled,
            waited_out=self.session.clock() >= self.wait_until,
            ids_resolve=self.ids_resolve(),
        )
        if top is None:
            return facts
        sighting = self._sighted(top)
        # First: what is read below must not be older than the age that it is held against.
        age = sighting.age(folder.clock.machine, folder.clock.uptime())
        return replace(
            facts,
            book=self._book_of(top),
            age=age,
            looks=sighting.looks,
            crowded=top.n + 1 >= MOST_GENERATIONS and self._is_crowded(top.n),
            model=self.model,
        )

    def _sighted(self, top: Claim | Damaged) -> Sighting:
        """Return since when the highest generation is known, and remember it."""
        name = top.client_business_id if isinstance(top, Claim) else claim_name(self.stem, top.n)
        known = self.sightings.sighting()
        clock = self.folder.clock
        sighting = (known if known and known.claim == name else Sighting(name)).at(clock.machine, clock.uptime())
        if sighting != known:
            self.sightings.remember(sighting)
        return sighting

    def _looked_up(self, facts: ClaimFacts, lookup: Lookup) -> ClaimFacts:
        sighting = self.sightings.sighting()
        if lookup.image_task is not None or sighting is None:
            return replace(facts, lookup=lookup)
        sighting = replace(sighting, looks=sighting.looks + 1)
        self.sightings.remember(sighting)
        return replace(facts, lookup=lookup, looks=sighting.looks)

    def _dated(self, facts: ClaimFacts) -> ClaimFacts:
        """Return the facts with the age of the highest generation by the store's clock, where that is known."""
        written_at = None if facts.top is None else self.folder.written_at(self.stem, facts.top.n)
        return replace(facts, written_at=written_at, age=max(facts.age, self.folder.age(written_at)))

    def _book_of(self, top: Claim | Damaged | None) -> BookEntry | None:
        return self.folder.book_entry(top) if isinstance(top, Claim) else None

    def _ask(self, look_up: LookUp, decision: ClaimDecision, *, own: bool) -> ImageTask | None:
        """Look up what a decision names; an error of it is about our money only where the claim is ours."""
        try:
            return look_up(decision.target, not decision.by_image_task_id)
        except ToApisError as error:
            if own or error.charged == "no":
                raise
            words = f"Somebody else may have bought this image, and that could not be asked: {error.message}"
            raise error.reworded(words, charged="no") from error

    def _is_crowded(self, n: int) -> bool:
        """Whether 25 purchases were begun within a day; what was given up before its POST does not count."""
        begun = 0
        last = n - _MOST_COUNTED
        while n > last and begun < MOST_GENERATIONS:
            claim = self.folder.read(self.stem, n, self.digest)
            if claim is None or self.folder.age(self.folder.written_at(self.stem, n)) > DEAD_SECONDS:
                return False
            begun += isinstance(claim, Damaged) or claim.because != "released"
            n -= 1
        return begun >= MOST_GENERATIONS

    def _adopted(self, top: Claim, look_up: LookUp) -> ImageTask | None:
        """Return the image task that a person says the claim became."""
        chosen = self.adopt.get(top.client_business_id)
        return look_up(chosen, False) if chosen is not None else None


def _swept_now(stem: str) -> ClaimHeld:
    words = f"The claims on {stem} are more than a week old, and are being removed. Nothing is sent until that is over."
    return ClaimHeld(words, charged="no")


def _level(facts: ClaimFacts) -> int:
    """Return how loud a take-over is: loud where it cannot be known that nothing was bought."""
    blind = facts.ids_resolve is False or not facts.policy.client_ids
    return logging.WARNING if blind and facts.book is None else logging.INFO
