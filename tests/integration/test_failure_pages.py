"""docs/failures/: each page shows what a run really says, and says of money and retries what the code says."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.failure_text import BatchIncomplete
from airflow_provider_nanobanana.batch.stop_conditions import Killed
from airflow_provider_nanobanana.durable.claims import ClaimHeld
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaDownloadOperator,
    NanoBananaGenerateOperator,
    NanoBananaSubmitOperator,
)
from airflow_provider_nanobanana.polling import result
from airflow_provider_nanobanana.submission import client_ids
from airflow_provider_nanobanana.toapis import client, errors
from airflow_provider_nanobanana.toapis.failure_codes import FAILURE_CODES
from airflow_provider_nanobanana.unexpected_errors import Unexpected
from tests.integration.conftest import ServiceClock
from tests.support.images import picture
from tests.support.pages import REPO, anchors, page, quoted, table
from tests.support.task_runner import Run, TaskInstance, attempt, resume, sensor
from tests.support.task_state_store import MemoryTaskStateStore

CUP, KITE, BOAT = "an espresso cup, dark green", "a red kite over dunes", "a paper boat on a lake"
ROWS = [{"prompt": CUP, "name": "CUP-1"}, {"prompt": KITE, "name": "KITE-7"}]
DAY = 86400.0
LINK = os.link


@dataclass
class Lab:
    emulator: Emulator
    folder: Path
    service_clock: ServiceClock
    patch: pytest.MonkeyPatch
    store: MemoryTaskStateStore = field(default_factory=MemoryTaskStateStore)
    mapped: int = -1

    def connection(self, **extra: Any) -> None:
        self.patch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", self.emulator.connection_json(timeout=3, **extra))

    def generate(
        self, requests: Any = ROWS, *, run_id: str = "manual__2026-11-26", tries: int = 1, **options: Any
    ) -> Run:
        return self.run(self.operator(requests, **options), run_id, tries)

    def operator(self, requests: Any = ROWS, **options: Any) -> NanoBananaGenerateOperator:
        options = {"destination": self.folder.as_uri(), "retries": 2, "poke_interval": 0.05, "timeout": 20, **options}
        return NanoBananaGenerateOperator(task_id="pictures", requests=requests, **options)

    def run(self, operator: Any, run_id: str = "manual__2026-11-26", tries: int = 1) -> Run:
        ti = TaskInstance("catalogue", run_id, "pictures", store=self.store, try_number=tries, max_tries=2)
        return attempt(operator, ti)

    def submit(self, prompt: str = KITE, **options: Any) -> Run:
        """Buy one image; each call is another mapped task."""
        self.mapped += 1
        ti = TaskInstance("creatives", "manual__2026-11-26", "submit", self.mapped, store=MemoryTaskStateStore())
        return attempt(NanoBananaSubmitOperator(task_id="submit", prompt=prompt, retries=2, **options), ti)

    def wait(self, ids: Any, **options: Any) -> Run:
        return attempt(sensor(ids, **options))

    def download(self, images: Any, **options: Any) -> Run:
        operator = NanoBananaDownloadOperator(
            task_id="download", images=images, destination=self.folder.as_uri(), **options
        )
        return attempt(operator, TaskInstance("creatives", "manual__2026-11-26", "download"))


Scenario = Callable[[Lab], Run]
SCENARIOS: dict[str, list[Scenario]] = {}


def shows(page: str) -> Callable[[Scenario], Scenario]:
    def register(scenario: Scenario) -> Scenario:
        SCENARIOS.setdefault(page, []).append(scenario)
        return scenario

    return register


@pytest.fixture
def lab(emulator: Emulator, folder: Path, service_clock: ServiceClock, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(client_ids, "_checked", {})
    return Lab(emulator, folder, service_clock, monkeypatch)


# --- codes ---------------------------------------------------------------------------------------------------------


@shows("batch_incomplete")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="content_policy", match="kite")
    lab.emulator.fault(on="submit", kind="failed", match="boat")
    return lab.generate([*ROWS, {"prompt": BOAT, "name": "BOAT-3"}])


@shows("generation_failed")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="failed", match="kite")
    return lab.generate()


@shows("generation_failed")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="failed", match="kite")
    return lab.wait([lab.submit(CUP).result, lab.submit(KITE).result])


@shows("content_policy_violation")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="content_policy", match="kite")
    return lab.generate()


@shows("content_policy_violation")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="content_policy")
    return lab.submit()


@shows("expired")
def _(lab: Lab) -> Run:
    """Bought two days ago; nobody stored it."""
    lab.service_clock.offset = -2 * DAY
    bought = lab.submit().result
    lab.wait([bought])
    lab.service_clock.offset = 0.0
    return lab.download(lab.wait([bought]).result)


@shows("expired")
def _(lab: Lab) -> Run:
    """The first try could not store it, the second comes two days later."""
    lab.service_clock.offset = -2 * DAY
    lab.emulator.fault(on="result", kind="server_error", status=503)
    lab.generate(ROWS[1:])
    lab.service_clock.offset = 0.0
    return lab.generate(ROWS[1:], tries=2)


@shows("result_missing")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="status", kind="no_url")
    return lab.wait([lab.submit().result], timeout=0.5)


@shows("task_not_found")
def _(lab: Lab) -> Run:
    lab.patch.setattr(result, "NOT_FOUND_GRACE_SECONDS", 0.0)
    return lab.wait(["tsk_img_01M8QM0H3Q5V9XPN2Z8W4K7RBT"])


@shows("look_refused")
def _(lab: Lab) -> Run:
    ids = [lab.submit(CUP).result, lab.submit(KITE).result]
    lab.emulator.fault(on="status", kind="forbidden", match="kite")
    return lab.wait(ids)


@shows("timeout")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="status", kind="stuck")
    return lab.wait([lab.submit().result], timeout=0.5)


@shows("timeout")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="status", kind="stuck")
    return lab.generate(ROWS[1:], timeout=3)


@shows("not_seen")
def _(lab: Lab) -> Run:
    ids = [lab.submit().result]
    lab.emulator.fault(on="status", kind="server_error")
    return lab.wait(ids, timeout=0.5)


@shows("suspect_image")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="result", kind="wrong_pixel_size")
    return lab.generate(ROWS[1:], on_suspect="quarantine")


@shows("suspect_image")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="result", kind="wrong_pixel_size")
    return lab.generate(ROWS[1:], on_suspect="fail")


@shows("max_cost_usd")
def _(lab: Lab) -> Run:
    return lab.generate(max_cost_usd=0.03)


@shows("insufficient_credits")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="quota", match="kite")
    return lab.generate()


@shows("insufficient_credits")
def _(lab: Lab) -> Run:
    lab.emulator.configure(credits=3)
    return lab.generate(preflight_balance=True)


# --- errors --------------------------------------------------------------------------------------------------------


@shows("configuration_error")
def _(lab: Lab) -> Run:
    lab.patch.setenv(
        "AIRFLOW_CONN_NANOBANANA_DEFAULT", json.dumps({"conn_type": "nanobanana", "host": "https://toapis.com"})
    )
    return lab.generate()


@shows("configuration_error")
def _(lab: Lab) -> Run:
    lab.connection(submit_rate="fast")
    return lab.generate()


@shows("invalid_request")
def _(lab: Lab) -> Run:
    return lab.generate([{"prompt": CUP, "size": "1024x1024", "name": "CUP-1"}, {"prompt": "", "name": "KITE-7"}])


@shows("invalid_request")
def _(lab: Lab) -> Run:
    return lab.submit(resolution="8K")


@shows("authentication_failed")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="unauthorized")
    return lab.generate()


@shows("permission_refused")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="forbidden")
    return lab.submit()


@shows("model_not_found")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="model_not_found")
    return lab.submit(model="gemini-3-pro-image-preview")


@shows("connection_failed")
def _(lab: Lab) -> Run:
    lab.patch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", "nanobanana://:sk-nobody@127.0.0.1:9/?timeout=3")
    return lab.submit()


@shows("rate_limited")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="rate_limit", retry_after=None)
    return lab.submit(timeout=10)


@shows("service_unavailable")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="unavailable")
    return lab.submit(timeout=10)


@shows("transient_failure")
def _(lab: Lab) -> Run:
    lab.patch.setattr(MemoryTaskStateStore, "get", _broken)
    return lab.submit()


@shows("response_too_long")
def _(lab: Lab) -> Run:
    bought = lab.submit().result
    lab.patch.setattr(client, "MAX_RESPONSE_BYTES", 100)
    lab.patch.setattr(client, "MAX_POLLED_BYTES", 100)
    return lab.wait([bought], timeout=0.5)


@shows("submission_unknown")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="server_error")
    return lab.submit()


@shows("submission_unfindable")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="submit", kind="drop", committed=True)
    lab.emulator.configure(ignore_client_ids=True)
    return lab.submit(on_unknown_submission="fail")


@shows("claim_held")
def _(lab: Lab) -> Run:
    """Another run has claimed the image, and its submit may have left."""
    lab.emulator.fault(on="submit", kind="drop", times=1)
    lab.generate(ROWS[1:], run_id="scheduled__2026-11-26", timeout=1)
    lab.store = MemoryTaskStateStore()
    return lab.generate(ROWS[1:], timeout=30)


@shows("download_failed")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="result", kind="server_error", status=503)
    return lab.generate(ROWS[1:])


@shows("download_failed")
def _(lab: Lab) -> Run:
    images = lab.wait([lab.submit().result]).result
    lab.emulator.fault(on="result", kind="server_error", status=503)
    return lab.download(images)


@shows("unsafe_address")
def _(lab: Lab) -> Run:
    images = lab.wait([lab.submit().result]).result
    lab.emulator.fault(on="result", kind="redirect_to", url="http://169.254.169.254/latest/meta-data")
    return lab.download(images)


@shows("image_invalid")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="result", kind="truncated_image")
    return lab.generate(ROWS[1:])


@shows("image_too_costly")
def _(lab: Lab) -> Run:
    """A PNG of more chunks than any encoder writes."""
    png = picture("png", (8, 8))
    chunk = b"\0\0\0\0teXt" + zlib.crc32(b"teXt").to_bytes(4, "big")
    huge = png[:33] + 100_001 * chunk + png[33:]
    lab.patch.setattr(ImageDownloader, "_write", lambda self, image, sink, **_: sink.write(huge))
    return lab.generate(ROWS[1:])


@shows("storage_failed")
def _(lab: Lab) -> Run:
    lab.patch.setattr(os, "link", _full)
    return lab.generate()


@shows("storage_failed")
def _(lab: Lab) -> Run:
    images = lab.wait([lab.submit().result]).result
    lab.patch.setattr(os, "link", _full)
    return lab.download(images)


@shows("killed")
def _(lab: Lab) -> Run:
    """Airflow sends SIGTERM while the image is being stored."""
    operator = lab.operator(ROWS[1:])

    def ended(*_: Any, **__: Any) -> Any:
        operator.on_kill()
        raise errors.StorageFailed("it was about to be stored")

    lab.patch.setattr(ImageDownloader, "land", ended)
    return lab.run(operator)


@shows("task_deferral_error")
def _(lab: Lab) -> Run:
    return resume(lab.operator(), "__fail__", error="Trigger failure")


@shows("task_deferral_error")
def _(lab: Lab) -> Run:
    lab.emulator.fault(on="status", kind="stuck")
    return resume(sensor([lab.submit().result]), "__fail__", error="Trigger failure")


@shows("unexpected")
def _(lab: Lab) -> Run:
    lab.patch.setattr(ImageDownloader, "land", _surprise)
    return lab.generate()


def _broken(self: Any, *_: Any, **__: Any) -> Any:
    raise RuntimeError("API_SERVER_ERROR")


def _full(source: Path, target: Path) -> None:
    """The disk takes what is small, and no picture."""
    if target.suffix == ".png":
        raise OSError(28, "No space left on device")
    LINK(source, target)


def _surprise(self: Any, *_: Any, **__: Any) -> Any:
    raise KeyError("surprise")


# --- the pages -----------------------------------------------------------------------------------------------------

PAGES = {path.stem: path.read_text() for path in sorted((REPO / "docs" / "failures").glob("*.md"))}
#: What differs from run to run, or is longer on another machine.
CHANGING = re.compile(
    r"(?<=tsk_img_)\w{26}|(?<=nb-)[0-9a-f]{40}|(?<=[./-])[0-9a-f]{10,12}(?=[.-])|(?<=generated/)\d+|\d+ s more"
)
#: Errors that end a task and have no page: they are a family, or never leave this package.
FAMILIES = (errors.ToApisError, errors.NotAccepted)
#: Errors of Airflow that have a page.
OF_AIRFLOW = {"TaskDeferralError"}


def same(text: str) -> str:
    return " ".join(CHANGING.sub("*", text).split())


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_shows_what_a_run_says(lab: Lab, name: str) -> None:
    shown = re.findall(r"^```text\n(.*?)^```$", PAGES[name], re.DOTALL | re.MULTILINE)
    assert len(shown) == len(SCENARIOS[name])
    for text, scenario in zip(shown, SCENARIOS[name], strict=True):
        lab.emulator.reset()
        lab.store = MemoryTaskStateStore()
        lab.connection()
        error = scenario(lab).error
        said = f"{type(error).__name__}: {error}".replace(str(lab.folder), "/data/pictures")
        assert same(text) == same(said)


def test_every_failure_has_one_page_that_says_what_the_code_says() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ToApisError)]
    kinds += [BatchIncomplete, ClaimHeld, Killed, Unexpected]
    said = {f"`{kind.__name__}`": (kind.charged, kind.retryable) for kind in kinds if kind not in FAMILIES}
    said |= {f"code `{row.code}`": (row.charged, row.retryable) for row in FAILURE_CODES}
    shown: dict[str, tuple[str, bool]] = {}
    for name, text in PAGES.items():
        title = text.splitlines()[0]
        for word, charged, retryable in table(f"failures/{name}.md", title):
            assert word not in shown, name
            if quoted(word)[0] not in OF_AIRFLOW:
                shown[word] = (charged, {"yes": True, "no": False}[retryable])
    assert shown == said


def test_a_page_is_called_as_what_it_is_about() -> None:
    """A code is found by its file; what else a page tells of is found by the list."""
    for row in FAILURE_CODES:
        assert row.code in PAGES
    for name, text in PAGES.items():
        assert f"failures/{name}.md" in page("failures.md"), name
        assert {"what-you-see", "the-next-attempt", "what-to-do", "how-to-avoid-it"} <= anchors(text), name
