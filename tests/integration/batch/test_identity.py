"""A wanted image is its file: every picture stays with its name, whatever becomes of the list around it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from tests.integration.batch.harness import GenerateTask
from tests.support.batch import items
from tests.support.campaign import of_campaign
from tests.support.images import chunk, picture
from tests.support.task_runner import Run

#: Seconds after which no link lives.
LATE = 100_000.0


def take(name: str) -> dict[str, str]:
    return {"prompt": "a mug", "name": name}


def takes(count: int) -> list[Any]:
    return [take(f"v{number}") for number in range(1, count + 1)]


@pytest.fixture(autouse=True)
def _signed_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let each image task have a picture of its own, which says whose it is."""
    request.getfixturevalue(next(name for name in ("quick", "batch", "with_store") if name in request.fixturenames))
    png = picture("png", (8, 8))
    at = png.index(b"IDAT") - 4

    def write(self: ImageDownloader, image: Any, sink: BinaryIO, **_: Any) -> None:
        sink.write(png[:at] + chunk(b"tEXt", b"id\0" + image.id.encode()) + png[at:])

    monkeypatch.setattr(ImageDownloader, "_write", write)


def owners(batch: GenerateTask) -> dict[str, str]:
    """Return the image task that each file at the destination is from, by the file's name."""
    contents = {path.name: path.read_bytes() for path in batch.folder.glob("*.png")}
    return {name: content.partition(b"id\0")[2][:30].decode() for name, content in contents.items()}


def paid(batch: GenerateTask) -> set[str]:
    return {task["id"][:30] for task in batch.emulator.ledger()["image_tasks"] if not task["refunded"]}


def names_of(run: Run) -> list[str]:
    """Return the names of a run's files, in the order of the requests."""
    assert run.error is None, run.error
    return [Path(image["uri"]).name for image in sorted(run.result["images"], key=lambda image: image["request"])]


def check_names(run: Run, requests: list[Any]) -> None:
    """Check that each request has a file of its own, and its own name."""
    files = names_of(run)
    assert len(files) == len(set(files)) == len(requests)
    for file, wanted in zip(files, requests, strict=True):
        name = wanted["name"] if isinstance(wanted, dict) else None
        assert file.startswith(f"{name}-") if name else file[16] == "-", (file, wanted)


# --- lists that change, one case each --------------------------------------------------------------------------------


def test_a_tenth_take_that_sorts_before_the_second(batch: GenerateTask) -> None:
    batch.attempt(requests=takes(9))
    before = owners(batch)
    batch.clear()
    run = batch.attempt(requests=takes(10))
    check_names(run, takes(10))
    after = owners(batch)
    assert batch.posts == len(after) == 10 and before.items() < after.items()
    ids = {image["request"]: image["id"] for image in run.result["images"]}
    assert ids[9] and after[names_of(run)[9]] == ids[9][:30]


def test_a_tenth_take_in_a_retry_that_remembers_nothing(batch: GenerateTask) -> None:
    """Before Airflow 3.3 a retry reads the list anew."""
    batch.store = None
    batch.emulator.fault(on="submit", kind="failed", times=1, match="refused")
    batch.attempt(requests=[*takes(9), "refused"], reuse_existing=False)
    before = owners(batch)
    run = batch.attempt(requests=takes(10), reuse_existing=False)
    check_names(run, takes(10))
    assert before.items() < owners(batch).items() and set(owners(batch).values()) == paid(batch)


def test_a_take_that_was_removed_from_list_and_folder(batch: GenerateTask) -> None:
    batch.attempt(requests=[take("b"), take("c")])
    next(batch.folder.glob("b-*.png")).unlink()
    before = owners(batch)
    batch.clock.sleep(LATE)
    batch.clear()
    run = batch.attempt(requests=[take("c")])
    check_names(run, [take("c")])
    assert batch.posts == 2 and owners(batch) == before


@pytest.mark.parametrize("later", ["clear", "run"])
@pytest.mark.parametrize("left", [0, 1, 2])
@pytest.mark.parametrize("others", [0, 20])
def test_whichever_equal_picture_is_left_serves_a_shorter_list(
    batch: GenerateTask, later: str, left: int, others: int
) -> None:
    """Three takes without a name, the best is kept, the others are deleted, and one is asked for."""
    more = [f"picture {number}" for number in range(others)]
    batch.attempt(requests=["a mug", *more, "a mug", "a mug"])
    twins = sorted(batch.folder.glob(f"{batch.manifest['images'][0]['digest'][:16]}-*.png"))
    assert len(twins) == 3
    for number, path in enumerate(twins):
        if number != left:
            path.unlink()
    before = owners(batch)
    batch.clock.sleep(LATE)
    if later == "clear":
        batch.clear()
    else:
        batch.next_run("another")
    run = batch.attempt(requests=["a mug", *more])
    assert names_of(run)[0] == twins[left].name
    assert batch.posts == 3 + others and owners(batch) == before


def test_an_equal_picture_under_way_serves_a_shorter_list(with_store: GenerateTask) -> None:
    """The second of two is paid, the first failed; then one is asked for."""
    batch = with_store
    batch.emulator.fault(on="submit", kind="failed", times=1)
    batch.emulator.fault(on="submit", kind="latency", seconds=500, times=1, skip=1)
    batch.attempt(requests=["a mug", "a mug"], timeout=60)
    assert batch.charges == 1 and not batch.files
    batch.clock.sleep(600.0)
    batch.clear()
    run = batch.attempt(requests=["a mug"])
    assert batch.posts == 2 and names_of(run) == batch.files


def test_a_name_for_one_of_two_equal_requests_leaves_the_other_alone(batch: GenerateTask) -> None:
    batch.attempt(requests=["a mug", "a mug"])
    before = owners(batch)
    batch.clear()
    run = batch.attempt(requests=[take("hero"), "a mug"])
    check_names(run, [take("hero"), "a mug"])
    assert batch.posts == 3 and before.items() < owners(batch).items()


def test_what_was_renamed_while_under_way_is_landed_under_the_name_it_had(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=[take("old"), "else"], crash_on=("before land", 1))
    batch.clear()
    run = batch.attempt(requests=[take("new"), "else"])
    check_names(run, [take("new"), "else"])
    assert batch.posts == 3 and set(owners(batch).values()) == paid(batch)
    assert {name.partition("-")[0] for name in batch.files} >= {"old", "new"}


# --- any lists, one after another ------------------------------------------------------------------------------------

_LISTS = st.tuples(
    st.sets(st.integers(1, 12), max_size=4),  # names: v1, v10 and v2 sort between each other
    st.integers(0, 4),  # equal ones without a name
    st.booleans(),  # another request
    st.randoms(use_true_random=False),
).filter(lambda drawn: bool(drawn[0] or drawn[1]))
_ROUNDS = st.tuples(
    _LISTS,
    st.sampled_from(["clear", "run"]),
    st.one_of(st.none(), st.integers(0, 150)),  # a crash there, and a retry
    st.sets(st.integers(0, 7), max_size=3),  # files that somebody deletes before
)


_FOLDERS = itertools.count()
_often = settings(
    max_examples=of_campaign(8, 250),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def requests_of(names: set[int], unnamed: int, other: bool, order: random.Random) -> list[Any]:
    requests: list[Any] = [*(take(f"v{number}") for number in names), *["a mug"] * unnamed, *["else"] * other]
    order.shuffle(requests)
    return requests


def stem_of(request: Any) -> str:
    return items(request)[0].stem()


def missing(batch: GenerateTask, requests: list[Any]) -> int:
    """Return how many of the wanted images are not in place: of equal ones without a name any file serves."""
    there = [Path(name).stem for name in batch.files]
    single = [request for request in requests if request != "a mug"]
    equal = sum(stem.startswith(items("a mug")[0].head) for stem in there)
    return sum(stem_of(request) not in there for request in single) + max(0, requests.count("a mug") - equal)


def begin(batch: GenerateTask) -> None:
    """Begin again: an empty service and folder, and a task instance that never ran."""
    batch.emulator.reset()
    batch.clock.in_flight.clear()
    batch.folder = batch.folder.parent / f"images-{next(_FOLDERS)}"
    batch.next_run("run 0")


def go_on(batch: GenerateTask, number: int, how: str) -> None:
    if number and how == "clear":
        batch.clear()
    elif number:
        batch.next_run(f"run {number}")


@_often
@given(rounds=st.lists(_ROUNDS, min_size=2, max_size=5))
def test_every_picture_stays_with_its_name_and_none_is_paid_twice(quick: GenerateTask, rounds: list[Any]) -> None:
    batch = quick
    begin(batch)
    landed: dict[str, str] = {}
    posts = 0
    for number, (drawn, later, crash_at, deleted) in enumerate(rounds):
        requests = requests_of(*drawn)
        go_on(batch, number, later)
        for name in [name for place, name in enumerate(batch.files) if place in deleted]:
            (batch.folder / name).unlink()
            landed.pop(name)
        batch.clock.sleep(LATE)
        posts += missing(batch, requests)
        run = batch.attempt(requests=requests, crash_at=crash_at)
        batch.clock.sleep(600.0)
        if run.result is None:
            run = batch.attempt(requests=requests)
        check_names(run, requests)
        now = owners(batch)
        assert landed.items() <= now.items(), "nothing in place was replaced"
        assert len(set(now.values())) == len(now), "no picture has two names"
        assert batch.posts == posts, "what is in place is not bought, and what is bought is bought once"
        landed = now


@_often
@given(rounds=st.lists(_ROUNDS, min_size=2, max_size=5))
def test_lists_that_change_while_images_are_under_way_lose_none(quick: GenerateTask, rounds: list[Any]) -> None:
    """Each crash is followed by a clear with another list; what is paid of the list before is landed all the same."""
    batch = quick
    if batch.store is None:
        pytest.skip("before Airflow 3.3 nothing remembers the list before")
    begin(batch)
    landed: dict[str, str] = {}
    for number, (drawn, _, crash_at, _) in enumerate([*rounds, rounds[-1]]):
        go_on(batch, number, "clear")
        requests = requests_of(*drawn)
        run = batch.attempt(requests=requests, crash_at=None if number == len(rounds) else crash_at)
        batch.clock.sleep(600.0)
        now = owners(batch)
        assert landed.items() <= now.items() and len(set(now.values())) == len(now)
        landed = now
    check_names(run, requests)
    assert set(landed.values()) == paid(batch) and batch.posts == len(landed)


@_often
@given(rounds=st.lists(_ROUNDS, min_size=2, max_size=4))
def test_without_reuse_each_clear_adds_a_picture_of_each_and_replaces_none(
    quick: GenerateTask, rounds: list[Any]
) -> None:
    batch = quick
    begin(batch)
    landed: dict[str, str] = {}
    for number, (drawn, later, crash_at, _) in enumerate(rounds):
        requests = requests_of(*drawn)
        go_on(batch, number, later)
        run = batch.attempt(requests=requests, crash_at=crash_at, reuse_existing=False)
        batch.clock.sleep(600.0)
        if run.result is None:
            run = batch.attempt(requests=requests, reuse_existing=False)
        check_names(run, requests)
        now = owners(batch)
        assert landed.items() <= now.items() and len(set(now.values())) == len(now) == len(landed) + len(requests)
        assert set(now.values()) == paid(batch) and batch.posts == len(now)
        landed = now
