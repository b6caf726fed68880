"""A sweep beside buyers: whatever it has removed, or is removing, one of them buys."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claims import BookEntry, Buyer, ClaimHeld, Sighting
from airflow_provider_nanobanana.durable.old_claims import SWEEP_OVER
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.submission.claim_sweep import sweep_claims
from airflow_provider_nanobanana.submission.claims import ClaimFolder, HeldClaim, ImageClaims, MachineClock
from airflow_provider_nanobanana.toapis.errors import StorageFailed
from tests.support.claims import BUYER, claim, write, write_book, write_claim
from tests.support.session import make_session

DAY = 86400.0
STEM = "hero-5f0c6e9a1b"


def age(path: Path, seconds: float) -> Path:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))
    return path


def chain(folder: Path, *ages: float, stem: str = STEM) -> None:
    for n, seconds in enumerate(ages):
        prev = f"{n - 1:032x}" if n else None
        age(write_claim(folder, claim(stem, n, prev=prev, because="void" if n else "first")), seconds)


def left(folder: Path, kind: str = "claims") -> set[str]:
    return {path.name for path in (folder / ".nanobanana" / kind).glob("*")}


def over(folder: Path) -> None:
    """Let the time of a sweep pass."""
    for path in (folder / ".nanobanana" / "clock").glob("swept-*"):
        age(path, SWEEP_OVER + 5)


def sweep(folder: Path, clock: Callable[[], float] = time.time) -> int:
    store = ImageStore(str(folder))
    return sweep_claims(ClaimFolder(store, BUYER, MachineClock(clock)), store)


class Memory:
    def __init__(self) -> None:
        self.seen: Sighting | None = None

    def sighting(self) -> Sighting | None:
        return self.seen

    def remember(self, sighting: Sighting | None) -> None:
        self.seen = sighting


class Taker:
    """A buyer of one file; :meth:`take` says whether it may POST."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.memory = Memory()
        session = make_session(object())
        store = ImageStore(str(folder))
        buyer = Buyer(dag_id="dag", run_id=run_id, task_id="images", try_number=1)
        self.folder = ClaimFolder(store, buyer, MachineClock(time.time))
        self.claims = ImageClaims(
            folder=self.folder,
            session=session,
            stem=STEM,
            digest="a" * 64,
            book=self.folder.open_book(),
            attempt=TaskAttempt(time.time(), max_tries=0, retry=False, tries_before_clear=0),
            policy=SubmissionPolicy(),
            find=lambda: None,
            sightings=self.memory,
            wait_until=time.time() + 3600,
            ids_resolve=lambda: True,
            adopt={},
        )

    def take(self) -> bool:
        self.claims.proposed = self.claims.propose()
        try:
            return isinstance(self.claims.acquire(lambda target, by_client_id: None), HeldClaim)
        except ClaimHeld:
            return False


def test_what_is_older_than_a_week_goes(tmp_path: Path) -> None:
    chain(tmp_path, 8 * DAY)
    chain(tmp_path, 9 * DAY, 8 * DAY, stem="two-0")
    chain(tmp_path, 9 * DAY, 6 * DAY, stem="half-0")
    chain(tmp_path, 6 * DAY, stem="young-0")
    age(write_book(tmp_path, {}, name="1" * 32), 8 * DAY)
    age(write_book(tmp_path, {}, name="2" * 32), 6 * DAY)
    kept = tmp_path / ".nanobanana" / "quarantine" / "x.png"
    kept.parent.mkdir()
    kept.write_bytes(b"paid")
    age(kept, 30 * DAY)
    assert sweep(tmp_path) == 4
    assert left(tmp_path) == {"half-0.g0.json", "half-0.g1.json", "young-0.g0.json"}
    assert left(tmp_path, "books") == {"2" * 32 + ".json"}
    assert kept.exists()
    # Once a day.
    chain(tmp_path, 8 * DAY)
    assert sweep(tmp_path) == 0
    age(tmp_path / ".nanobanana" / "clock" / "swept-0", DAY + 1)
    assert sweep(tmp_path) == 1
    assert left(tmp_path, "clock") == {"now", "swept-1"}


@pytest.mark.parametrize("offset", [-3700.0, 3700.0])
def test_nothing_goes_where_the_clocks_differ(tmp_path: Path, offset: float) -> None:
    chain(tmp_path, 8 * DAY)
    assert sweep(tmp_path, lambda: time.time() + offset) == 0
    assert left(tmp_path) == {f"{STEM}.g0.json"}
    assert left(tmp_path, "clock") == {"now"}, "whoever knows the time may do it today"


def test_one_of_many_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has seen that it is time, and the first has created its marker by then."""
    chain(tmp_path, 8 * DAY)
    create, swept = LocalStorage.create, []

    def create_late(self: LocalStorage, name: str, content: bytes) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "create", create)
            swept.append(sweep(tmp_path))
        # Of a buyer after the first: old, so that whoever swept once more would remove it.
        chain(tmp_path, 8 * DAY)
        return create(self, name, content)

    monkeypatch.setattr(LocalStorage, "create", create_late)
    assert sweep(tmp_path) == 0
    assert swept == [1]
    assert left(tmp_path) == {f"{STEM}.g0.json"}


def test_who_may_not_delete_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(self: LocalStorage, name: str) -> None:
        tried.append(name)
        raise StorageFailed("Permission denied")

    for n in range(100):
        chain(tmp_path, 9 * DAY, 8 * DAY, stem=f"x-{n}")
    before = left(tmp_path)
    monkeypatch.setattr(LocalStorage, "delete", refuse)
    assert sweep(tmp_path) == 0
    assert left(tmp_path) == before
    assert not [name for name in tried if ".g0." in name], "the rest of a chain stays with its upper end"
    assert len(tried) < 100, "it is given up"


def test_a_store_that_is_down_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise StorageFailed("503")

    monkeypatch.setattr(LocalStorage, "entries", fail)
    assert sweep(tmp_path) == 0


def test_the_time_is_looked_at_before_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that stood still goes on when others count on it to be over."""
    for n in range(10):
        chain(tmp_path, 8 * DAY, stem=f"x-{n}")
    late = iter([0.0, 1.0, 2.0, 6.5, 60.5])
    monkeypatch.setattr(MachineClock, "passed", lambda *_: next(late, 61.0))
    assert sweep(tmp_path) == 2, "5 seconds from when it was known what goes"


@pytest.mark.parametrize("ages", [(8 * DAY,), (30 * DAY, 20 * DAY, 10 * DAY)])
def test_wherever_a_sweep_is_killed_one_buys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ages: Sequence[float]
) -> None:
    delete = LocalStorage.delete
    for most in range(len(ages) + 1):
        folder = tmp_path / str(most)
        chain(folder, *ages)
        done: list[str] = []

        def die(self: LocalStorage, name: str, most: int = most, done: list[str] = done) -> None:
            if len(done) == most:
                raise KeyboardInterrupt
            delete(self, name)
            done.append(name)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "delete", die)
            if most < len(ages):
                with pytest.raises(KeyboardInterrupt):
                    sweep(folder)
            else:
                sweep(folder)
        takers = [Taker(folder, str(n)) for n in range(3)]
        first = [taker.take() for taker in takers]
        # What is left of a chain is left alone until the sweep is over.
        assert sum(first) == (most == len(ages))
        assert len(left(folder)) == max(1, len(ages) - most)
        over(folder)
        assert sum(first) + sum(taker.take() for taker in takers) == 1


class Hook:
    """Acts once, before or after the n-th call of a method that touches the disk."""

    METHODS = ("create", "read", "write", "modified", "names", "entries", "delete")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], Any]) -> None:
        self.calls = 0
        self.acted = False
        self._number = number
        self._act = act
        for name in self.METHODS:
            monkeypatch.setattr(LocalStorage, name, self._hooked(getattr(LocalStorage, name)))

    def _hooked(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(storage: LocalStorage, *args: Any, **options: Any) -> Any:
            self._count()
            result = method(storage, *args, **options)
            # A listing is what was there at one moment.
            result = iter(list(result)) if method.__name__ in ("names", "entries") else result
            self._count()
            return result

        return call

    def _count(self) -> None:
        if self.acted:
            return
        self.calls += 1
        if self.calls > self._number:
            self.acted = True
            self._act()


def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Path], Any], act: Any) -> int:
    """Let ``act`` happen at every single moment of ``begin``; return how many moments there are."""
    number = 0
    while True:
        folder = tmp_path / str(number)
        chain(folder, *AGES)
        bought: list[bool] = []
        with monkeypatch.context() as patch:
            hook = Hook(patch, number, lambda folder=folder, bought=bought: bought.append(bool(act(folder))))  # type: ignore[misc]
            bought.append(bool(begin(folder)))
        if not hook.acted:
            return number
        again = [Taker(folder, f"again {n}") for n in range(2)]
        bought += [taker.take() for taker in again]
        assert sum(bought) <= 1, (number, left(folder))
        over(folder)
        bought += [taker.take() for taker in again]
        assert sum(bought) == 1, (number, left(folder))
        number += 1


AGES: tuple[float, ...] = (8 * DAY,)


@pytest.mark.parametrize("ages", [(8 * DAY,), (9 * DAY, 8 * DAY)])
def test_a_buyer_at_every_moment_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ages: tuple[float, ...]
) -> None:
    monkeypatch.setitem(globals(), "AGES", ages)
    moments = search(
        tmp_path,
        monkeypatch,
        begin=lambda folder: sweep(folder) < 0,
        act=lambda folder: Taker(folder, "first").take(),
    )
    assert moments > 10


@pytest.mark.parametrize("passed", [False, True])
@pytest.mark.parametrize("ages", [(8 * DAY,), (9 * DAY, 8 * DAY)])
def test_a_sweep_at_every_moment_of_a_buyer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ages: tuple[float, ...], passed: bool
) -> None:
    """It may even be long over when the buyer goes on."""
    monkeypatch.setitem(globals(), "AGES", ages)

    def whole_sweep(folder: Path) -> None:
        sweep(folder)
        if passed:
            over(folder)

    moments = search(tmp_path, monkeypatch, begin=lambda folder: Taker(folder, "first").take(), act=whole_sweep)
    assert moments > 10


def test_nothing_is_created_on_top_while_a_sweep_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to be withdrawn: a buyer that is killed in between would leave it there."""
    chain(tmp_path, 8 * DAY)
    write(tmp_path, "clock", "swept-3", b"")
    monkeypatch.setattr(LocalStorage, "put_new", lambda *_: pytest.fail("created"))
    assert not Taker(tmp_path, "first").take()


def test_a_buyer_between_the_listing_of_a_sweep_and_its_removing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep begins when the buyer has seen none under way, and removes when the buyer has looked again."""
    chain(tmp_path, 8 * DAY)
    create, delete = LocalStorage.create, LocalStorage.delete
    buyer, listed, go_on = threading.current_thread(), threading.Event(), threading.Event()
    sweeping = threading.Thread(target=sweep, args=(tmp_path,))

    def create_late(self: LocalStorage, name: str, content: bytes) -> bool:
        if name == f"{STEM}.g1.json":
            sweeping.start()
            assert listed.wait(20)
        return create(self, name, content)

    def delete_late(self: LocalStorage, name: str) -> None:
        if threading.current_thread() is not buyer:
            listed.set()
            assert go_on.wait(20)
        delete(self, name)

    monkeypatch.setattr(LocalStorage, "create", create_late)
    monkeypatch.setattr(LocalStorage, "delete", delete_late)
    bought = Taker(tmp_path, "first").take()
    go_on.set()
    sweeping.join(20)
    assert (bought, left(tmp_path)) == (False, set())


def test_a_claim_given_up_for_a_sweep_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not released: others would build on it, beside the first one that is free again."""
    chain(tmp_path, 8 * DAY)
    taker = Taker(tmp_path, "first")
    create = LocalStorage.create

    def create_late(self: LocalStorage, name: str, content: bytes) -> bool:
        if name == f"{STEM}.g1.json":
            with monkeypatch.context() as patch:
                patch.setattr(LocalStorage, "create", create)
                sweep(tmp_path)
        return create(self, name, content)

    monkeypatch.setattr(LocalStorage, "create", create_late)
    assert not taker.take()
    assert left(tmp_path) == set()
    taker.folder.close_books()
    assert left(tmp_path, "books") == set()


def test_what_was_released_weeks_ago_is_taken_over_all_the_same(tmp_path: Path) -> None:
    chain(tmp_path, 8 * DAY)
    write_book(tmp_path, {f"{STEM}.g0": BookEntry("released")})
    assert Taker(tmp_path, "first").take()
    assert left(tmp_path) == {f"{STEM}.g0.json", f"{STEM}.g1.json"}
