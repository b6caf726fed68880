"""Images are decoded in a process of their own: the same answers, within limits, whatever dies."""

from __future__ import annotations

import errno
import io
import logging
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageFile, features

from airflow_provider_nanobanana.landing import decoder as decoder_module
from airflow_provider_nanobanana.landing.decode_outcome import IMAGE_LIMITS, MIB, DecodeLimits
from airflow_provider_nanobanana.landing.decoder import Decoder, decode_file
from airflow_provider_nanobanana.landing.image_file import MAX_BYTES, ImageFacts, inspect_bytes
from airflow_provider_nanobanana.landing.shrink_picture import SmallPicture
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly, StorageFailed
from tests.support.images import FORMATS, picture

REPO = Path(__file__).resolve().parents[3]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="read in /proc, or a limit that Linux alone keeps")
AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
PNG = picture("png")
#: Of an object, in the words of Pillow.
ADDRESS = re.compile(r"0x[0-9a-f]+")
FACTS = ImageFacts("png", 64, 48)


def child(code: str = "") -> list[str]:
    """Return the command of a child in which ``code`` runs before it takes files."""
    start = f"""
import os, signal, sys, time
sys.path.insert(0, {str(REPO)!r})
from airflow_provider_nanobanana.landing import decoder_child as child
from airflow_provider_nanobanana.landing.decode_outcome import DecodeLimits
{textwrap.dedent(code)}
child.main()
"""
    return [sys.executable, "-c", start]


def inspect(decoder: Decoder, data: bytes) -> ImageFacts:
    return decoder.inspect(io.BytesIO(data), len(data))


def pid(decoder: Decoder) -> int:
    assert decoder._child is not None
    return decoder._child._process.pid


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(what: str, true: object) -> None:
    deadline = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    made = Decoder()
    yield made
    made.close()


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_bytes_decide_not_the_suffix(tmp_path: Path, image_format: str) -> None:
    for name in ("image.png", "image.jpg", "image.txt", "image"):
        (tmp_path / name).write_bytes(picture(image_format, (37, 21)))
        assert decode_file(tmp_path / name) == ImageFacts(image_format, 37, 21)  # type: ignore[arg-type]


def test_a_missing_file_is_not_an_invalid_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode_file(tmp_path / "nothing")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageInvalid, match="at most 67,108,864 are taken"):
        decode_file(tmp_path / "x")


def test_a_file_that_becomes_shorter_spoils_no_other(decoder: Decoder) -> None:
    with pytest.raises(OSError, match="became shorter"):
        decoder.inspect(io.BytesIO(PNG), len(PNG) + 1)
    assert inspect(decoder, PNG) == FACTS


def test_the_child_says_what_this_process_would_say(decoder: Decoder) -> None:
    rng = random.Random(4)
    seeds = [picture(one, (32, 24)) for one in FORMATS] + [b"", b"<html>no</html>", bytes(100)]
    for _ in range(300):
        whole = rng.choice(seeds)
        cut, junk = rng.randrange(len(whole) + 1), rng.randbytes(rng.randrange(60))
        data = rng.choice((whole, whole[:cut], whole[:cut] + junk, whole[:cut] + junk + whole[cut:]))
        try:
            here: object = inspect_bytes(data)
        except ImageInvalid as invalid:
            here = ADDRESS.sub("", invalid.message)
        try:
            there: object = inspect(decoder, data)
        except ImageInvalid as invalid:
            there = ADDRESS.sub("", invalid.message)
        assert there == here


def test_one_child_serves_all_threads(decoder: Decoder) -> None:
    assert inspect(decoder, PNG) == FACTS
    first = pid(decoder)
    sizes = [(n + 1, 40 - n) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda size: inspect(decoder, picture("jpeg", size)), sizes))
    assert [(facts.width, facts.height) for facts in found] == sizes
    assert pid(decoder) == first


def test_what_a_dag_file_told_pillow_is_not_heard(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert inspect(decoder, PNG) == FACTS
    with pytest.raises(ImageInvalid, match="truncated"):
        inspect(decoder, PNG[:-50])


# --- limits ----------------------------------------------------------------------------------------------------------


def test_more_processor_time_than_a_file_may_take() -> None:
    decoder = Decoder(child("child.IMAGE_LIMITS = DecodeLimits(1, 512 << 20, 60)\n" + LOOP))
    try:
        with pytest.raises(ImageTooCostly, match="processor time than one file may: 10 s"):
            inspect(decoder, b"loop")
        assert inspect(decoder, PNG) == FACTS
    finally:
        decoder.close()


#: A decoder that never ends with one file, and is itself with any other.
LOOP = """
real = child.inspect_bytes
def inspect_bytes(data):
    while data == b"loop":
        pass
    return real(data)
child.inspect_bytes = inspect_bytes
"""


def test_the_time_is_each_file_s_own() -> None:
    """Together they take more than one may."""
    decoder = Decoder(
        child("""
        child.IMAGE_LIMITS = DecodeLimits(1, 512 << 20, 60)
        real = child.inspect_bytes
        def inspect_bytes(data):
            end = time.process_time() + 0.5
            while time.process_time() < end:
                pass
            return real(data)
        child.inspect_bytes = inspect_bytes
        """)
    )
    try:
        assert inspect(decoder, PNG) == FACTS
        first = pid(decoder)
        for _ in range(3):
            assert inspect(decoder, PNG) == FACTS
        assert pid(decoder) == first
    finally:
        decoder.close()


@LINUX
def test_more_memory_than_a_file_may_take() -> None:
    decoder = Decoder(child("child.IMAGE_LIMITS = DecodeLimits(10, 30 << 20, 60)"))
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, "png")
    try:
        with pytest.raises(ImageTooCostly, match="more than 30 MiB of memory"):
            inspect(decoder, buffer.getvalue())
        first = pid(decoder)
        assert inspect(decoder, PNG) == FACTS
        assert pid(decoder) == first
    finally:
        decoder.close()


@LINUX
@pytest.mark.parametrize(
    ("image_format", "mebibytes"),
    [("png", 60), ("jpeg", 60), ("jpeg", 100), ("webp", 60), ("gif", 10), pytest.param("avif", 30, marks=AVIF)],
)
def test_a_machine_that_gives_less_memory_is_not_the_image_s_fault(image_format: str, mebibytes: int) -> None:
    """Libraries for some formats call it broken data when they get no memory."""
    code = f"import resource; child._load_decoders(); size = child._address_space() + ({mebibytes} << 20); "
    decoder = Decoder(child(code + "resource.setrlimit(resource.RLIMIT_AS, (size, size))"))
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, image_format, **{"jpeg": {"progressive": True}}.get(image_format, {}))
    try:
        with pytest.raises(StorageFailed, match="too little memory"):
            inspect(decoder, buffer.getvalue())
    finally:
        decoder.close()


def test_where_memory_cannot_be_told_a_broken_image_is_one() -> None:
    """As on macOS."""
    decoder = Decoder(child("child._address_space = lambda: None"))
    try:
        with pytest.raises(ImageInvalid, match="truncated"):
            inspect(decoder, PNG[:-50])
    finally:
        decoder.close()


# --- endings ---------------------------------------------------------------------------------------------------------


def dies(number: int, times: int, marks: Path) -> list[str]:
    """Return the command of children of which the first ones die while they have a file."""
    return child(f"""
    real = child.inspect_bytes
    def inspect_bytes(data):
        mark = {str(marks)!r} + str(os.getpid())
        if sum(name.startswith("died") for name in os.listdir({str(marks.parent)!r})) < {times}:
            open(mark, "w").close()
            os.kill(os.getpid(), {number})
            time.sleep(60)
        return real(data)
    child.inspect_bytes = inspect_bytes
    """)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_dies_once_is_replaced(tmp_path: Path, number: int) -> None:
    decoder = Decoder(dies(number, 1, tmp_path / "died"))
    try:
        assert inspect(decoder, PNG) == FACTS
    finally:
        decoder.close()


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (signal.SIGKILL, StorageFailed, "SIGKILL"),
        (signal.SIGSEGV, ImageTooCostly, "crashed twice .SIGSEGV"),
        (signal.SIGABRT, ImageTooCostly, "crashed twice .SIGABRT"),
    ],
)
def test_children_that_die_twice(tmp_path: Path, number: int, error: type[Exception], words: str) -> None:
    decoder = Decoder(dies(number, 2, tmp_path / "died"))
    try:
        with pytest.raises(error, match=words):
            inspect(decoder, PNG)
        assert inspect(decoder, PNG) == FACTS
    finally:
        decoder.close()


def test_an_error_nobody_foresaw_is_logged_and_keeps_the_image(caplog: pytest.LogCaptureFixture) -> None:
    decoder = Decoder(child("child.inspect_bytes = lambda data: {}[data[:3]]"))
    with caplog.at_level(logging.WARNING), pytest.raises(ImageTooCostly, match=r"crashed twice .exit status 1"):
        inspect(decoder, PNG)
    assert "KeyError" in caplog.text


def test_a_child_killed_between_two_files_is_replaced(decoder: Decoder) -> None:
    assert inspect(decoder, PNG) == FACTS
    first = pid(decoder)
    os.kill(first, signal.SIGKILL)
    wait_until("it dies", lambda: not is_running(first))
    assert inspect(decoder, PNG) == FACTS
    assert pid(decoder) != first


def test_a_child_that_stands_still_is_killed_and_not_the_image_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "IMAGE_LIMITS", DecodeLimits(10, 512 * MIB, 0.3))
    decoder = Decoder(child("child.inspect_bytes = lambda data: time.sleep(600)"))
    with pytest.raises(StorageFailed, match="too little processor time"):
        inspect(decoder, PNG)
    assert decoder._child is None


def test_a_child_that_answers_byte_by_byte_has_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(
        child("""
        def to_json(outcome):
            os.write(0, (60).to_bytes(4, "big"))
            while True:
                time.sleep(0.1)
                os.write(0, b"x")
        child.to_json = to_json
        """)
    )
    monkeypatch.setattr(decoder_module, "IMAGE_LIMITS", DecodeLimits(10, 512 * MIB, 1.0))
    with pytest.raises(StorageFailed, match="too little processor time in 1 s"):
        inspect(decoder, PNG)


def test_the_time_of_a_slow_disk_is_not_the_decoder_s(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    passed, monotonic = 0.0, time.monotonic

    class SlowDisk(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal passed
            passed += 50
            return super().read(size)

    assert inspect(decoder, PNG) == FACTS
    first = pid(decoder)
    monkeypatch.setattr(decoder_module, "time", SimpleNamespace(monotonic=lambda: monotonic() + passed))
    monkeypatch.setattr(decoder_module, "_PIECE", len(PNG) // 4)
    assert decoder.inspect(SlowDisk(PNG), len(PNG)) == FACTS
    assert passed >= 200 > IMAGE_LIMITS.wall_seconds
    assert pid(decoder) == first


@pytest.mark.parametrize("answer", [b"{}", b"nonsense", b'{"format": "png", "width": 0, "height": 9}', b"[" * 9000])
def test_an_answer_that_is_none_is_not_believed(answer: bytes) -> None:
    decoder = Decoder(child(f"child.to_json = lambda outcome: {answer!r}"))
    with pytest.raises(ImageTooCostly, match="answer that is none"):
        inspect(decoder, PNG)
    assert decoder._child is None


def test_who_waits_can_be_interrupted() -> None:
    """As Airflow ends a task whose execution_timeout is over, by an exception in the main thread."""

    class TimeIsOver(BaseException):
        pass

    def ring(*_: object) -> None:
        raise TimeIsOver

    decoder = Decoder(child(LOOP))
    before = signal.signal(signal.SIGALRM, ring)
    try:
        assert inspect(decoder, PNG) == FACTS
        first = pid(decoder)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(TimeIsOver):
            inspect(decoder, b"loop")
        assert not is_running(first)
        assert inspect(decoder, PNG) == FACTS  # not the answer to what was asked before
    finally:
        signal.signal(signal.SIGALRM, before)
        decoder.close()


def test_who_waits_for_another_thread_s_image_can_be_interrupted_too() -> None:
    class TimeIsOver(BaseException):
        pass

    def ring(*_: object) -> None:
        raise TimeIsOver

    decoder = Decoder(child(LOOP))
    assert inspect(decoder, PNG) == FACTS
    failures: list[BaseException] = []

    def other() -> None:
        try:
            inspect(decoder, b"loop")
        except StorageFailed as failure:
            failures.append(failure)

    thread = threading.Thread(target=other)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        thread.start()
        wait_until("it is under way", decoder._lock.locked)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(TimeIsOver):
            inspect(decoder, PNG)
    finally:
        signal.signal(signal.SIGALRM, before)
        while thread.is_alive():
            if decoder._child is not None:
                os.kill(pid(decoder), signal.SIGKILL)
            thread.join(0.2)
        decoder.close()
    assert failures


# --- where no child can be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nowhere/python"], "FileNotFoundError"),
        ([sys.executable, "-c", "raise SystemExit('no seccomp for you')"], "no seccomp for you"),
        ([sys.executable, "-c", "import os; os.write(0, b'HTTP/1.1 200 OK' * 5000)"], "another program"),
    ],
)
def test_without_a_child_images_are_decoded_here_and_the_log_says_so_once(
    command: list[str], words: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "_START_SECONDS", 60.0)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decoder = Decoder(command)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert inspect(decoder, PNG) == FACTS
            with pytest.raises(ImageInvalid, match="truncated"):
                inspect(decoder, picture("jpeg")[:-50])
    (said,) = [record.getMessage() for record in caplog.records]
    assert "worker's own process" in said
    assert words in said
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([sys.executable, "-c", "import time; time.sleep(600)"], "not ready within"),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], "status -9"),
    ],
)
def test_a_machine_that_is_short_for_a_moment_keeps_the_limits(
    command: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "_START_SECONDS", 1.0 if "not ready" in words else 60.0)
    decoder = Decoder(command)
    with pytest.raises(StorageFailed, match=words):
        inspect(decoder, PNG)
    monkeypatch.setattr(decoder_module, "_START_SECONDS", 60.0)
    decoder._command = None
    assert inspect(decoder, PNG) == FACTS
    assert decoder._child is not None
    decoder.close()


def test_no_room_for_a_process_is_not_for_ever(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", full)
        with pytest.raises(StorageFailed, match="temporarily unavailable"):
            inspect(decoder, PNG)
    assert inspect(decoder, PNG) == FACTS


def test_where_a_child_ran_before_nothing_is_decoded_here(decoder: Decoder) -> None:
    """What ended it may be the file."""
    assert inspect(decoder, PNG) == FACTS
    decoder.close()
    decoder._command = ["/nowhere/python"]
    with pytest.raises(StorageFailed, match="Could not start the process that decodes images"):
        inspect(decoder, PNG)


# --- what the child is to the task -----------------------------------------------------------------------------------


def test_signals_of_the_task_do_not_reach_the_child(decoder: Decoder) -> None:
    assert inspect(decoder, PNG) == FACTS
    first = pid(decoder)
    assert os.getsid(first) != os.getsid(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(first, number)
    assert inspect(decoder, PNG) == FACTS
    assert pid(decoder) == first


@LINUX
def test_the_child_has_nothing_of_the_task(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", "a secret")
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        assert inspect(decoder, PNG) == FACTS
    folder = Path(f"/proc/{pid(decoder)}")
    assert b"secret" not in (folder / "environ").read_bytes()
    descriptors = {path.name: os.readlink(path) for path in (folder / "fd").iterdir()}
    assert sorted(descriptors) == ["0", "1", "2"]
    assert descriptors["0"].startswith("socket:")
    assert descriptors["1"] == os.devnull
    assert descriptors["2"].startswith("pipe:")
    loaded = (folder / "maps").read_text()
    assert "_imaging" in loaded
    assert "pydantic" not in loaded


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


#: A process that has decoded an image, and says which child it has.
STARTED = """
import io, os, signal, sys, time
from PIL import Image
from airflow_provider_nanobanana.landing import decoder
buffer = io.BytesIO()
Image.new("RGB", (9, 8)).save(buffer, "png")
def decode():
    return decoder._decoder.inspect(io.BytesIO(buffer.getvalue()), len(buffer.getvalue())).width
def pid():
    return decoder._decoder._child._process.pid
assert decode() == 9
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os._exit(0)",
        # Not even where somebody forked who lives on.
        "os._exit(0) if os.fork() else os.close(1) or os.close(2) or time.sleep(30)",
    ],
)
def test_the_child_ends_with_the_process(end: str) -> None:
    number = int(run(STARTED + "print(pid(), flush=True)\n" + end))
    wait_until("the child ends", lambda: not is_running(number))


@pytest.mark.parametrize("busy", [False, True])
def test_a_process_that_ends_reaps_its_child(busy: bool) -> None:
    """As Airflow ends a task's: it runs the exit functions, and then ends without Python's own end."""
    code = f"""
    import atexit
    number = pid()
    if {busy}:
        decoder._decoder._lock.acquire()  # as a thread holds it that waits for an answer
    atexit._run_exitfuncs()
    try:
        os.waitpid(number, os.WNOHANG)
    except ChildProcessError:
        print("reaped", flush=True)
    os._exit(0)
    """
    assert run(STARTED + textwrap.dedent(code)) == "reaped\n"


def test_a_forked_process_has_a_child_of_its_own_and_leaves_the_other_alone() -> None:
    code = """
    first = pid()
    with decoder._decoder._lock:  # as a thread would hold it at that moment
        forked = os.fork()
    if not forked:
        assert decode() == 9 and pid() != first
        decoder._decoder.close()
        os._exit(0)
    assert os.waitpid(forked, 0)[1] == 0
    assert decode() == 9 and pid() == first
    print("fine")
    """
    assert run(STARTED + textwrap.dedent(code)) == "fine\n"


def test_nothing_that_a_site_loads_at_start_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nopen({str(tmp_path / 'seen')!r}, 'a').write(f'{{os.getpid()}}\\n')"
    )
    run(STARTED, PYTHONPATH=f"{tmp_path}{os.pathsep}{REPO}")
    assert len((tmp_path / "seen").read_text().split()) == 1


# --- thumbnails ------------------------------------------------------------------------------------------------------


def with_thumbnail(decoder: Decoder, data: bytes) -> ImageFacts:
    return decoder.inspect(io.BytesIO(data), len(data), thumbnail=True)


def is_webp(content: bytes) -> bool:
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def test_a_thumbnail_comes_with_the_facts_of_one_decoding(decoder: Decoder) -> None:
    for image_format in FORMATS:
        facts = with_thumbnail(decoder, picture(image_format))
        assert facts == ImageFacts(image_format, 64, 48)  # type: ignore[arg-type]
        assert is_webp(facts.thumbnail)
    assert inspect(decoder, PNG).thumbnail == b""
    assert is_webp(decoder.thumbnail(PNG))


def test_what_is_no_image_has_none_and_the_child_stays(decoder: Decoder) -> None:
    assert inspect(decoder, PNG) == FACTS
    first = pid(decoder)
    for data in (b"<html>", PNG[:-50], picture("jpeg")[:-50], b""):
        with pytest.raises(ImageInvalid):
            with_thumbnail(decoder, data)
    with pytest.raises(ImageInvalid):
        decoder.thumbnail(b"<html>")
    assert with_thumbnail(decoder, PNG) == FACTS
    assert pid(decoder) == first


TROUBLE = {
    "dies while it takes it": "child.SmallPicture.take = lambda self, image, kind: os.kill(os.getpid(), 11)",
    "fails as nobody foresaw": "child.SmallPicture.take = lambda self, image, kind: {}[Exception]()",
    "dies behind the facts": "child.SmallPicture.content = lambda self: os.kill(os.getpid(), 11)",
    "ends behind the facts": "child.SmallPicture.content = lambda self: sys.exit(3)",
    "sends what is none": "child.SmallPicture.content = lambda self: b'<script>' * 9",
    "sends too much": "child.SmallPicture.content = lambda self: b'RIFF\\0\\0\\0\\0WEBP' + bytes(1 << 20)",
    "runs out of memory": "child.SmallPicture.take = lambda self, image, kind: (_ for _ in ()).throw(MemoryError())",
    "stands still": "child.SmallPicture.content = lambda self: time.sleep(600)",
    "takes for ever": "child.SmallPicture.content = lambda self: [None for _ in iter(int, 1)]",
}


@pytest.mark.parametrize("code", TROUBLE.values(), ids=TROUBLE)
def test_trouble_with_a_thumbnail_is_none_of_the_image(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_THUMBNAIL_SECONDS", 1.0)
    decoder = Decoder(child(code))
    try:
        facts = with_thumbnail(decoder, PNG)
        assert (facts, facts.thumbnail) == (FACTS, b"")
        assert inspect(decoder, picture("jpeg")) == ImageFacts("jpeg", 64, 48)
        facts = with_thumbnail(decoder, PNG)
        assert (facts, facts.thumbnail) == (FACTS, b"")
    finally:
        decoder.close()


@LINUX
def test_a_thumbnail_gives_way_where_there_is_too_little_memory_for_both() -> None:
    """The picture fits below the limit, and its copy in another mode does not."""
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, "png", transparency=(1, 2, 3))
    data = buffer.getvalue()
    decoder = Decoder(child("child.IMAGE_LIMITS = DecodeLimits(10, 110 << 20, 60)"))
    try:
        facts = with_thumbnail(decoder, data)
        assert (facts.width, facts.thumbnail) == (4000, b"")
        assert is_webp(with_thumbnail(decoder, PNG).thumbnail)
    finally:
        decoder.close()


def test_a_check_that_has_no_time_for_a_thumbnail_is_made_without() -> None:
    burn = """
    child.IMAGE_LIMITS = DecodeLimits(1, 512 << 20, 60)
    real = child.SmallPicture.take
    def take(self, image, kind):
        end = time.process_time() + 2.5
        while time.process_time() < end:
            pass
        real(self, image, kind)
    child.SmallPicture.take = take
    """
    decoder = Decoder(child(burn))
    try:
        facts = with_thumbnail(decoder, PNG)
        assert (facts, facts.thumbnail) == (FACTS, b"")
    finally:
        decoder.close()


def test_what_goes_wrong_with_a_thumbnail_in_this_process_is_none_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise SystemError("tile cannot extend outside image")

    monkeypatch.setattr(SmallPicture, "take", fails)
    facts = with_thumbnail(Decoder(["/nowhere/python"]), PNG)
    assert (facts, facts.thumbnail) == (FACTS, b"")


def test_a_thumbnail_alone_is_never_made_in_this_process() -> None:
    decoder = Decoder(["/nowhere/python"])
    with pytest.raises(StorageFailed, match="makes thumbnails"):
        decoder.thumbnail(PNG)
    facts = with_thumbnail(decoder, PNG)
    assert facts == FACTS and is_webp(facts.thumbnail)


def test_a_thumbnail_alone_has_the_limits_of_an_image() -> None:
    decoder = Decoder(child("child.IMAGE_LIMITS = DecodeLimits(10, 30 << 20, 60)"))
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, "png")
    try:
        with pytest.raises(ImageTooCostly):
            decoder.thumbnail(buffer.getvalue())
        assert is_webp(decoder.thumbnail(PNG))
    finally:
        decoder.close()
