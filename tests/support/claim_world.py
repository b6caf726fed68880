"""World: buyers of one wanted image over one destination, one side effect at a time; real submissions and claims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claims import POST_WINDOW, Buyer, Claim, ClaimHeld, Sighting, parse_claim
from airflow_provider_nanobanana.durable.reconcile import VISIBLE_AFTER_SECONDS, SubmissionPolicy
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity, SubmissionRecord
from airflow_provider_nanobanana.submission.claims import ClaimFolder, ImageClaims, InPlace, MachineClock
from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.submission.shared_state import ProcessState
from airflow_provider_nanobanana.submission.workflow import Submission
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.durable import HTTP_TIMEOUT, Charge, Killed, PostOutcome
from tests.support.session import make_session

REQUEST: Final = ImageRequest.parse({"prompt": "a kite"})
DIGEST: Final = REQUEST.fingerprint()
STEM: Final = f"{DIGEST[:16]}-0"
#: A POST that was decided on is accepted and shown within so many seconds, or the process stood still for too long.
IN_TIME: Final = HTTP_TIMEOUT + VISIBLE_AFTER_SECONDS
#: Between two slices of a batch that waits for others.
SLICE: Final = 20.0
ATTEMPT_SECONDS: Final = 3600.0

#: What becomes of a call to the store: it is answered; nothing is done; it is done, or will be, and the answer is lost.
StoreFate = Literal["ok", "down", "lost", "late"]


@dataclass
class Machine:
    """The clocks of one machine.

    :param ahead: Seconds by which its wall clock is ahead.
    """

    name: str
    ahead: float = 0.0


@dataclass
class Memory:
    """What a task instance remembers of the image: its ledger."""

    row: SubmissionRecord | None = None
    seen: Sighting | None = None

    def sighting(self) -> Sighting | None:
        return self.seen

    def remember(self, sighting: Sighting | None) -> None:
        self.seen = sighting


@dataclass
class Instance:
    """One task instance that wants the image.

    :param stored: Whether what it remembers outlives a try.
    """

    number: int
    stored: bool = True
    memory: Memory = field(default_factory=Memory)
    tries: int = 0
    retries: int = 3
    max_tries: int = 3

    def buyer(self) -> Buyer:
        return Buyer(dag_id="dag", run_id=f"run {self.number}", task_id="images", try_number=self.tries)


class World:
    """The clock, the service's charges, the store below the destination, and the image in place.

    :param now: Epoch seconds of the true clock.
    :param in_place: The image task whose image is in place.
    :param lost_races: Image tasks that were landed behind another's.
    """

    def __init__(self, *, resolves: bool = True, lists_by_prefix: bool = True, window_1: bool = False) -> None:
        self.now = 1_790_000_000.0
        self.resolves = resolves
        self.lists_by_prefix = lists_by_prefix
        self.window_1 = window_1
        self.keeps_times = True
        self.charges: list[Charge] = []
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.late: list[tuple[float, str, bytes]] = []
        self.in_place: str | None = None
        self.lost_races: list[str] = []
        self.processes: list[Process] = []
        #: The process that created each claim, and when it began to.
        self.creators: dict[str, tuple[Process, float]] = {}

    def find(self, key: str, *, by_client_id: bool) -> Charge | None:
        if by_client_id:
            shown = [c for c in self.charges if self.resolves and c.client_id == key and self.now >= c.shown]
        else:
            shown = [c for c in self.charges if c.id == key and self.now >= c.accepted]
        return shown[-1] if shown else None

    def alive(self) -> list[Charge]:
        """Return the charges that can still become the image."""
        return [c for c in self.charges if c.is_worth_an_image(self.now) and not c.written_off]

    def claims(self) -> list[Claim]:
        """Return the claims that can be understood, by generation."""
        found = []
        for name, (content, _) in self.objects.items():
            folder, _, file = name.partition("/")
            if folder == "claims":
                n = int(file.removesuffix(".json").rpartition(".g")[2])
                claim = parse_claim(content, stem=STEM, digest=DIGEST, n=n)
                if isinstance(claim, Claim):
                    found.append(claim)
        return sorted(found, key=lambda claim: claim.n)

    def advance(self, to: float) -> None:
        """Let time pass; nobody stands still before the socket for longer than the protocol allows."""
        for process in self.processes:
            while not self.window_1 and process.at == "post" and to > process.since + IN_TIME:
                process.step(to=self.now)
        for due, name, content in [late for late in self.late if late[0] <= to]:
            self.late.remove((due, name, content))
            self.objects.setdefault(name, (content, due))
        self.now = max(self.now, to)


class _Clock(MachineClock):
    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._of = machine
        self.machine = machine.name

    def uptime(self) -> float:
        return self._world.now - 1e9

    def readings(self) -> tuple[float, ...]:
        return (self._world.now + self._of.ahead, self.uptime())


class _Folder:
    """What :meth:`ImageStore.reserved` returns: one folder of the store, as one process uses it."""

    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._world = process.world
        self._name = name
        self.lists_by_prefix = process.world.lists_by_prefix

    def _call(self, operation: str) -> StoreFate:
        self._process.pause(operation)
        fate = self._process.store_fate()
        if fate == "down":
            raise errors.StorageFailed(f"{operation}: 503")
        return fate

    def create(self, name: str, content: bytes) -> bool:
        world = self._world
        path = f"{self._name}/{name}"
        claim = parse_claim(content, stem=STEM, digest=DIGEST, n=int(name.removesuffix(".json").rpartition(".g")[2]))
        assert isinstance(claim, Claim)
        world.creators[claim.client_business_id] = (self._process, world.now)
        fate = self._call("create")
        if fate == "late":
            world.late.append((world.now + 40.0, path, content))
            raise errors.StorageFailed("create: timed out")
        created = path not in world.objects
        if created:
            self._check_rightful(claim)
            world.objects[path] = (content, world.now)
        if fate == "lost":
            raise errors.StorageFailed("create: answer lost, and it could not be read back")
        return created

    def _check_rightful(self, claim: Claim) -> None:
        """A generation is made only for a reason that is true (I3)."""
        world = self._world
        if claim.n == 0:
            return
        below = {one.n: one for one in world.claims()}.get(claim.n - 1)
        if below is None:
            return  # damaged, maybe since it was read
        under = [charge for charge in world.charges if charge.client_id == below.client_business_id]
        world_now = world.now
        match claim.because:
            case "released":
                assert not under, f"released, and it bought {under}"
            case "unseen" | "failed" | "refused":
                assert all(charge.status is ImageTaskStatus.FAILED for charge in under)
            case "expired":
                assert all(not charge.is_worth_an_image(world_now + 3600) for charge in under)
            case _:
                written = world.objects[f"{self._name}/{below.name}.json"][1]
                assert claim.because == "void"
                assert self._process.cleared or world_now > written + 86_400

    def read(self, name: str, most: int) -> bytes | None:
        if self._call("read") != "ok":
            raise errors.StorageFailed("read: timed out")
        found = self._world.objects.get(f"{self._name}/{name}")
        return found[0][: most + 1] if found else None

    def write(self, name: str, content: bytes) -> None:
        fate = self._call("write")
        path = f"{self._name}/{name}"
        assert self._name != "claims", "claims are never written over (I4)"
        assert self._name != "books" or path not in self._world.objects, "a book is written once (I4)"
        self._world.objects[path] = (content, self._world.now)
        if fate != "ok":
            raise errors.StorageFailed("write: answer lost")

    def modified(self, name: str) -> float | None:
        if self._call("modified") != "ok":
            raise errors.StorageFailed("modified: timed out")
        found = self._world.objects.get(f"{self._name}/{name}")
        return found[1] if found and self._world.keeps_times else None

    def names(self, prefix: str = "") -> Iterator[str]:
        if self._call("list") != "ok":
            raise errors.StorageFailed("list: timed out")
        folder = f"{self._name}/"
        names = [name.removeprefix(folder) for name in self._world.objects if name.startswith(folder + prefix)]
        yield from names

    def entries(self) -> Iterator[tuple[str, float | None]]:
        for name in self.names():
            yield name, self._world.objects[f"{self._name}/{name}"][1]


class Process:
    """One process of an attempt: it buys, shares and lands; :meth:`step` runs it to its next side effect.

    :param machine: Where it runs; its next slice runs where ``next_machine`` says.
    """

    def __init__(
        self, world: World, instance: Instance, policy: SubmissionPolicy, machine: Machine, *, ahead: bool = True
    ) -> None:
        instance.tries += 1
        self.world = world
        self.instance = instance
        self.policy = policy
        self.machine = self.next_machine = machine
        self.writes_ahead = ahead
        self.memory = instance.memory if instance.stored else Memory()
        self.buyer = instance.buyer()
        self.attempt = TaskAttempt.of(
            try_number=instance.tries,
            max_tries=instance.max_tries,
            retries=instance.retries,
            started_at=world.now + machine.ahead,
        )
        self.started = world.now
        self.at = "start"
        self.since = self.wake = world.now
        self.steps = 0
        self.killed = False
        self.error: errors.ToApisError | None = None
        self.post_outcomes: list[PostOutcome] = []
        self.store_fates: list[StoreFate] = []
        self._greenlet = greenlet(self._run)
        world.processes.append(self)

    @property
    def cleared(self) -> bool:
        return self.attempt.cleared

    @property
    def ended(self) -> bool:
        return bool(self._greenlet.dead)

    def step(self, *, to: float | None = None) -> None:
        """Run to the next side effect; time passes until it is ready, unless ``to`` says when it is."""
        self.steps += 1
        if to is None:
            self.world.advance(max(self.world.now, self.wake))
        if not self.ended:
            self._greenlet.switch()

    def kill(self) -> None:
        self.killed = True
        self.at = "killed"
        if self._greenlet:
            self._greenlet.throw(Killed)
        else:
            self._greenlet = greenlet(lambda: None)
            self._greenlet.switch()

    def pause(self, at: str, seconds: float = 0.0) -> None:
        """Stop before a side effect; whoever was killed has none any more."""
        if self.killed:
            raise Killed
        self.at, self.since, self.wake = at, self.world.now, self.world.now + seconds
        parent = getcurrent().parent
        assert parent is not None
        parent.switch()
        if self.killed:
            raise Killed
        self.at = "running"

    def store_fate(self) -> StoreFate:
        return self.store_fates.pop(0) if self.store_fates else "ok"

    def clock(self) -> float:
        return self.world.now + self.machine.ahead

    def _sleep(self, seconds: float) -> None:
        self.pause("sleep", seconds)

    def _run(self) -> None:
        try:
            while self._slice():
                pass
        except errors.ToApisError as error:
            self.error = error
        except Killed:
            pass
        self.at = "ended"

    def _slice(self) -> bool:
        """Buy, or share, and land; return whether there is more to do."""
        self.machine = self.next_machine
        self.pause("look for the file")
        if self.world.in_place:
            return False
        try:
            image_task = self._submit()
        except InPlace:
            return False
        except errors.ToApisError as error:
            if not isinstance(error, (ClaimHeld, *errors.TRANSIENT_ERRORS, errors.SubmissionUnknown)):
                raise
            if self.clock() >= self.attempt.started_at + ATTEMPT_SECONDS:
                raise
            self.pause("hold", SLICE)
            return True
        return self._land(image_task)

    def _submit(self) -> ImageTask:
        client_ids = self.policy.client_ids
        session = make_session(self, clock=self.clock, sleep=self._sleep, client_ids=client_ids)
        folder = ClaimFolder(self, self.buyer, _Clock(self.world, self.machine))  # type: ignore[arg-type]
        claims = ImageClaims(
            folder=folder,
            session=session,
            stem=STEM,
            digest=DIGEST,
            book=folder.open_book(),
            attempt=self.attempt,
            policy=self.policy,
            find=self._find,
            sightings=self.memory,
            wait_until=self.attempt.started_at + ATTEMPT_SECONDS,
            ids_resolve=lambda: self.policy.client_ids,
            adopt={},
        )
        identity = SubmissionIdentity(("dag", self.buyer.run_id, "images", "-1"), DIGEST, STEM)
        submission = Submission(
            session,
            REQUEST,
            identity=identity,
            attempt=self.attempt,
            policy=self.policy,
            record_store=_Row(self),
            rate_limiter=SubmitRateLimiter(1000.0, ProcessState()),
            written_ahead=self._write_ahead(claims, identity),
            claims=claims,
        )
        try:
            image_task = submission.run()
        except Exception:
            folder.close_books()
            raise
        folder.close_books()
        return image_task

    def _write_ahead(self, claims: ImageClaims, identity: SubmissionIdentity) -> SubmissionRecord | None:
        """Write an intent and propose a claim, as a batch does for a group of items."""
        row = self.memory.row
        if not self.writes_ahead or self.memory.seen is not None or (row and row.state is not RecordState.QUEUED):
            return None
        claims.proposed = claims.propose()
        if not self.policy.client_ids:
            return None
        intent = self.attempt.intent(identity, 0, client_ids=True, may_leave_at=self.clock() + POST_WINDOW)
        self.pause("write ahead")
        intent = self.memory.row = SubmissionRecord(
            **{**vars(intent), "client_business_id": claims.proposed.client_business_id}
        )
        return intent

    def reserved(self, folder: str) -> Any:
        """Stand in for the image store."""
        return _Folder(self, folder)

    def _find(self) -> Any:
        self.pause("look for the file")
        return _InPlace("memory://kite.png") if self.world.in_place else None

    def _land(self, image_task: ImageTask) -> bool:
        """Wait for the image task and land it; return whether another one is needed."""
        world = self.world
        while True:
            self.pause("poll", 10.0)
            if world.in_place:
                return False
            found = world.find(image_task.id, by_client_id=False)
            assert found is not None
            if found.status is ImageTaskStatus.FAILED or found.expired(world.now):
                return True
            if found.status is ImageTaskStatus.COMPLETED:
                break
        self.pause("land")
        if world.in_place is None:
            world.in_place = image_task.id
        elif world.in_place != image_task.id:
            world.lost_races.append(image_task.id)
        return False

    def call(self, call: Any, policy: Any = None) -> ImageTask:
        """Answer a call in place of the client."""
        if call.kind is CallKind.SUBMIT:
            return self._post(call.body.get("client_business_id"))
        self.pause("look up")
        found = self.world.find(call.image_task_id, by_client_id=call.image_task_id.startswith("nb-"))
        if found is None:
            raise errors.ImageTaskNotFound("not there")
        return _with_created(found)

    def _post(self, client_id: str | None) -> ImageTask:
        world = self.world
        began = world.now
        if client_id is not None:
            creator, created = world.creators[client_id]
            assert creator is self, "the right to POST is never inherited (I2)"
            assert began < created + POST_WINDOW, "the right to POST ends (I2)"
        self.pause("post")
        outcome = self.post_outcomes.pop(0) if self.post_outcomes else PostOutcome()
        if outcome.kind == "limited":
            self.pause("answer", 0.2)
            raise errors.RateLimited("slower", retry_after=1.0)
        if outcome.kind == "lost_before":
            self.pause("answer", HTTP_TIMEOUT)
            raise errors.SubmissionUnknown("lost")
        if client_id is not None:
            made = [claim for claim in world.claims() if claim.client_business_id == client_id]
            newer = [claim for claim in world.claims() if made and claim.n > made[0].n]
            assert world.window_1 or not newer, "nobody buys under a claim that was taken over"
        left = max(0.0, IN_TIME - (world.now - began))
        commits_in = min(outcome.commits_in, left)
        accepted = world.now + commits_in
        shown = accepted + min(outcome.shown_in, left - commits_in)
        charge = Charge(f"tsk_{len(world.charges)}", client_id, 0, accepted, shown)
        world.charges.append(charge)
        self.pause("answer", HTTP_TIMEOUT if outcome.kind == "lost" else commits_in)
        if outcome.kind == "lost":
            raise errors.SubmissionUnknown("lost")
        return _with_created(charge)


@dataclass(frozen=True)
class _InPlace:
    uri: str


def _with_created(charge: Charge) -> ImageTask:
    return charge.model().model_copy(update={"created_at": charge.accepted})


class _Row:
    """The record store of one process; it does not pause between a read and the write that follows."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._just_read = False

    def read(self) -> SubmissionRecord | None:
        self._process.pause("ledger")
        self._just_read = True
        return self._process.memory.row

    def write(self, record: SubmissionRecord) -> None:
        if not self._just_read:
            self._process.pause("ledger")
        self._just_read = False
        self._process.memory.row = record
