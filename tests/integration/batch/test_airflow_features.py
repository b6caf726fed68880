"""Generate as Airflow sees it: references, mapping, asset events, metrics, the decorator, and no secret anywhere."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_overloads

import pytest
from airflow.sdk import Asset

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.decorators.nanobanana import nanobanana_task
from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.get_provider_info import get_provider_info
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from tests.integration.batch.harness import GenerateTask
from tests.support.images import picture
from tests.support.task_runner import Run
from tests.support.text import flat
from tests.support.versions import HASHABLE_ASSETS, needs

PROMPTS = [f"picture {number}" for number in range(4)]


# --- reference images ----------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Three files, two of them with the same content."""
    for name, size in (("a", 20), ("b", 20), ("c", 30)):
        (tmp_path / f"{name}.png").write_bytes(picture("png", (size, size)))
    return [(tmp_path / f"{name}.png").as_uri() for name in "abc"]


def uploads(batch: GenerateTask) -> int:
    return sum(request["path"].endswith("/uploads/images") for request in batch.emulator.requests())


def with_photos(photos: list[str]) -> list[dict[str, Any]]:
    return [{"prompt": f"{prompt}", "reference_images": [photos[n % 3]]} for n, prompt in enumerate(PROMPTS * 2)]


def test_references_are_uploaded_once_for_each_content(with_store: GenerateTask, photos: list[str]) -> None:
    batch = with_store
    run = batch.attempt(requests=with_photos(photos))
    assert run.error is None and run.result["count"] == 8
    assert uploads(batch) == 2
    batch.next_run("second")
    batch.attempt(requests=with_photos(photos))
    assert uploads(batch) == 2 and batch.posts == 8


def test_each_process_uploads_what_it_still_submits(with_store: GenerateTask, photos: list[str]) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="failed", times=1)
    batch.attempt(requests=with_photos(photos))
    assert uploads(batch) == 2 and batch.charges == 7
    assert batch.attempt(requests=with_photos(photos)).error is None
    assert uploads(batch) == 2 + 1 and batch.charges == 8


def test_another_content_is_another_request(with_store: GenerateTask, photos: list[str]) -> None:
    batch = with_store
    batch.attempt(requests=with_photos(photos))
    Path(photos[2].removeprefix("file://")).write_bytes(picture("png", (40, 40)))
    batch.next_run("second")
    run = batch.attempt(requests=with_photos(photos))
    assert run.error is None and batch.posts == 8 + 2


def test_a_reference_that_changed_asks_for_a_clear(with_store: GenerateTask, tmp_path: Path) -> None:
    batch, photo = with_store, tmp_path / "photo.png"
    photo.write_bytes(picture("png", (20, 20)))
    requests = [{"prompt": "with photo", "reference_images": [photo.as_uri()]}]
    batch.emulator.fault(on="upload", kind="server_error")
    batch.attempt(requests=requests, timeout=10)
    batch.emulator.clear_faults()
    photo.write_bytes(picture("png", (40, 40)))
    run = batch.attempt(requests=requests, timeout=10)
    assert isinstance(run.error, NanoBananaFailException) and "changed" in flat(run.error)
    batch.clear()
    assert batch.attempt(requests=requests).error is None and batch.charges == 1


# --- mapping, results, assets --------------------------------------------------------------------------------------


def test_mapped_instances_do_not_share_a_manifest(with_store: GenerateTask) -> None:
    batch = with_store
    for index in range(2):
        batch.map_index, batch.tries = index, 0
        assert batch.attempt(prompt=PROMPTS[index]).error is None
        batch.next_run("run")
    assert len(list(batch.folder.glob("manifest-*.json"))) == 2


@pytest.mark.parametrize("by", [{"prompt": PROMPTS}, {"requests": [PROMPTS[:2], PROMPTS[2:]]}])
def test_it_can_be_mapped(by: dict[str, Any]) -> None:
    from airflow.sdk import DAG

    with DAG("mapped", schedule=None) as dag:
        NanoBananaGenerateOperator.partial(task_id="a", destination="file:///tmp/x").expand(**by)
        NanoBananaGenerateOperator.partial(task_id="b", destination="file:///tmp/x").expand_kwargs(
            [{"prompt": "x", "size": "16:9"}, {"prompt": "y", "variant": "z"}]
        )
        task = nanobanana_task(destination="file:///tmp/x")(lambda product: f"a {product}")
        task.expand(product=["kite", "boat"])
    assert set(dag.task_ids) >= {"a", "b"}


@needs(HASHABLE_ASSETS)
def test_asset_events_say_what_was_made(with_store: GenerateTask) -> None:
    batch = with_store
    asset, event = Asset("pictures"), type("Event", (), {})()
    event.extra = {}
    batch.outlets = {asset: event}
    run = batch.attempt(requests=PROMPTS, outlets=[asset])
    assert event.extra == {
        "count": 4,
        "cost_usd": pytest.approx(0.1),
        "paid_usd": pytest.approx(0.1),
        "shared": 0,
        "reused": 0,
        "lost_race": 0,
        "manifest": run.result["manifest"],
    }


def test_each_item_is_counted_once(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, counted = with_store, Counter[str]()
    monkeypatch.setattr(metrics, "count", lambda name, amount=1, **tags: counted.update({name: amount}))
    batch.emulator.fault(on="submit", kind="failed", times=1)
    batch.attempt(requests=PROMPTS)
    assert counted.pop("suspect") > 0, "all of them are the same tiny picture"
    counted.pop("submitted", None)
    assert counted == {"completed": 3, "failed": 1, "cost_micro_usd": 75_000, "paid_micro_usd": 75_000}
    batch.attempt(requests=PROMPTS)
    counted.pop("suspect")
    counted.pop("submitted", None)
    assert counted == {"completed": 4, "failed": 1, "cost_micro_usd": 100_000, "paid_micro_usd": 100_000}
    batch.next_run("second")
    batch.attempt(requests=PROMPTS)
    assert counted["completed"] == counted["reused"] == 4
    assert counted["cost_micro_usd"] == counted["paid_micro_usd"] == 100_000, "what is reused costs nothing"


def test_without_deferring_it_does_the_same(batch: GenerateTask) -> None:
    run = batch.attempt(requests=[*PROMPTS, "[[refuse-late]] x"], deferrable=False, allow_partial=True)
    assert run.error is None and run.result["count"] == 4 and not batch.pauses


# --- the decorator -------------------------------------------------------------------------------------------------


class Decorated(GenerateTask):
    """The same task instance, made by ``@task.nanobanana``."""

    function: Callable[..., Any]

    def operator(self, **options: Any) -> Any:
        from airflow.sdk import DAG

        options = {"destination": self.folder.as_uri(), "retries": self.retries, **self.options, **options}
        arguments = options.pop("arguments", {})
        with DAG("dag", schedule=None):
            made: Any = nanobanana_task(task_id="generate", **options)(self.function)(**arguments)
        return made.operator


@pytest.fixture
def decorated(with_store: GenerateTask) -> Decorated:
    return Decorated(with_store.emulator, with_store.clock, with_store.crash_points, with_store.folder)


def test_the_function_is_called_once_for_all_tries_and_again_by_a_clear(decorated: Decorated) -> None:
    batch, calls = decorated, []

    def draw(what: str, ti: Any = None) -> list[str]:
        calls.append(ti.try_number)
        return [f"{what} {number}, call {len(calls)}" for number in range(4)]

    batch.function = draw
    batch.attempt(arguments={"what": "boat"}, crash_on=("submit under way", 3))
    run = batch.attempt(arguments={"what": "boat"})
    assert run.error is None and run.result["count"] == 4
    assert calls == [1] and batch.posts == 4
    batch.clear()
    assert batch.attempt(arguments={"what": "boat"}).result["count"] == 4
    assert len(calls) == 2 and batch.posts == 8


def test_it_takes_a_request_or_a_generator(decorated: Decorated) -> None:
    batch = decorated

    def one() -> dict[str, str]:
        return {"prompt": "a kite", "size": "16:9"}

    def several() -> Any:
        yield "a boat"
        yield {"prompt": "a kite", "name": "kite"}

    for function, count in ((one, 1), (several, 2)):
        batch.function = function
        assert batch.attempt().result["count"] == count
        assert not batch.operator().multiple_outputs, "one XCom, whatever the function's annotation says"
        batch.next_run(function.__name__)


def test_its_arguments_are_templated(decorated: Decorated) -> None:
    batch = decorated
    batch.function = lambda day: f"a kite on {day}"
    operator = batch.operator(arguments={"day": "{{ ds }}"})
    operator.render_template_fields({"ds": "2026-11-22"})
    assert operator.op_kwargs == {"day": "2026-11-22"}
    assert "destination" in operator.template_fields


def test_editors_know_every_parameter() -> None:
    """The typed form of the decorator names what the operator takes, no more and no less."""
    operator = set(inspect.signature(NanoBananaGenerateOperator.__init__).parameters)
    typed = set(inspect.signature(get_overloads(nanobanana_task)[1]).parameters)
    assert typed == operator - {"self", "requests"}


def test_a_run_that_finds_all_in_place_ends_without_a_pause(decorated: Decorated) -> None:
    """Then the result goes through ``execute`` of Airflow's own decorated operator."""
    decorated.function = lambda: ["a kite", "a boat"]
    decorated.attempt()
    decorated.next_run("second")
    run = decorated.attempt()
    assert (run.error, decorated.pauses, run.result["count"]) == (None, [], 2)


def test_airflow_finds_the_decorator() -> None:
    (entry,) = get_provider_info()["task-decorators"]
    module, _, name = entry["class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is nanobanana_task and entry["name"] == "nanobanana"


def test_the_function_alone_says_what_to_make(decorated: Decorated) -> None:
    decorated.function = lambda: "x"
    with pytest.raises(TypeError, match="requests"):
        decorated.operator(requests="y")


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        None,
        {"on": "submit", "kind": "unauthorized"},
        {"on": "submit", "kind": "bad_request", "text": "the key sk-emulator may not do this, Bearer sk-emulator too"},
        {"on": "submit", "kind": "not_json", "text": "echo: Authorization: Bearer sk-emulator"},
        {"on": "status", "kind": "unauthorized"},
        {"on": "status", "kind": "failed", "text": "upstream said: Bearer sk-emulator is wrong"},
    ],
    ids=lambda fault: f"{fault['on']}-{fault['kind']}" if fault else "none",
)
def test_the_key_is_nowhere(
    batch: GenerateTask,
    fault: dict[str, Any] | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    photos: list[str],
) -> None:
    if fault:
        batch.emulator.fault(**fault)
    with caplog.at_level(logging.DEBUG):
        run = batch.attempt(requests=with_photos(photos), timeout=30)
    output = capfd.readouterr()
    rows = json.dumps(batch.store.rows) if batch.store else ""
    manifests = "".join(path.read_text() for path in batch.folder.glob("manifest-*"))
    key = batch.emulator.api_key
    assert key not in spoken(batch, run) + rows + manifests + caplog.text + output.out + output.err


def spoken(batch: GenerateTask, run: Run) -> str:
    parts: list[Any] = [run.result, run.ti.xcoms, batch.xcoms, [pause.trigger.serialize() for pause in batch.pauses]]
    if run.error is not None:
        parts.append("".join(traceback.format_exception(run.error)))
    return json.dumps(parts, default=repr)


def test_a_signed_link_keeps_its_signature_out_of_the_manifest(with_store: GenerateTask) -> None:
    batch = with_store
    link = "https://example.com/photo.png?X-Amz-Signature=s3cret"
    run = batch.attempt(requests=[{"prompt": "x", "reference_images": [link]}])
    assert run.error is None and "s3cret" not in json.dumps([run.result, batch.manifest])
