"""What a submit says of its request, and how a download finds it again: by id, in one call a submit task."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task_group

from airflow_provider_nanobanana.batch import upstream_requests
from airflow_provider_nanobanana.batch.upstream_requests import (
    REQUEST_KEY,
    pixels_of,
    pull_requests,
    push_request,
    spoken_of,
    stem_of,
)
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from airflow_provider_nanobanana.toapis.errors import ToApisError, TransientFailure
from airflow_provider_nanobanana.toapis.models import ImageRequest
from tests.support.task_runner import TaskInstance

IMAGE = {"id": "tsk_1", "index": 0, "url": "https://x/a.png"}


class Upstream:
    """A task instance whose upstream has left XComs, as Airflow hands them out.

    :param left: Values by task id; a task that is not mapped has one.
    """

    map_index = -1

    def __init__(self, map_index: int = -1, **left: Any) -> None:
        self.map_index = map_index
        self.left = left
        self.calls: list[dict[str, Any]] = []

    def xcom_pull(self, task_ids: str, key: str, **options: Any) -> Any:
        self.calls.append({"task_ids": task_ids, "key": key, **options})
        values = self.left.get(task_ids, [])
        if isinstance(values, Exception):
            raise values
        if "map_indexes" in options:
            return values[options["map_indexes"]]
        return values[0] if len(values) == 1 else values


def pulled(operator: Any, ti: Upstream) -> dict[str, Any]:
    context: Any = {"ti": ti}
    return dict(pull_requests(operator, context))


def download(**options: Any) -> NanoBananaDownloadOperator:
    given = {"task_id": "download", "images": None, **options}
    return NanoBananaDownloadOperator(destination="file:///tmp/x", **given)


def request(id_: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "name": None, "prompt": f"picture of {id_}", **more}


def test_several_submits_mapped_or_not_are_asked_once_each_through_a_sensor() -> None:
    with DAG("dag", schedule=None):
        many = NanoBananaSubmitOperator.partial(task_id="many").expand(prompt=["a", "b", "c"])
        one = NanoBananaSubmitOperator(task_id="one", prompt="d")
        elsewhere = NanoBananaSubmitOperator(task_id="elsewhere", prompt="e")
        wait = NanoBananaSensor(task_id="wait", image_task_ids=many.output)
        land = download(images=wait.output)
        one >> wait
        land >> elsewhere
    # The second of the three was refused and left nothing.
    ti = Upstream(many=[request("t0"), None, request("t2")], one=[request("t9")])
    assert set(pulled(land, ti)) == {"t0", "t2", "t9"}
    assert ti.calls == [{"task_ids": name, "key": REQUEST_KEY} for name in ("many", "one")]


@task_group
def each(prompt: Any) -> None:
    submit = NanoBananaSubmitOperator(task_id="submit", prompt=prompt)
    download(images=submit.output)


def test_a_download_in_a_mapped_group_asks_for_its_own_row_and_one_behind_it_for_all() -> None:
    with DAG("dag", schedule=None) as dag:
        download(task_id="behind") << each.expand(prompt=["a", "b"])
    left: dict[str, Any] = {"each.submit": [request("t0"), request("t1")]}
    ti = Upstream(1, **left)
    assert set(pulled(dag.task_dict["each.download"], ti)) == {"t1"}
    assert ti.calls == [{"task_ids": "each.submit", "key": REQUEST_KEY, "map_indexes": 1}]
    assert set(pulled(dag.task_dict["behind"], Upstream(**left))) == {"t0", "t1"}


def test_images_from_elsewhere_ask_for_nothing() -> None:
    with DAG("dag", schedule=None):
        land = download(images=[{"id": "t"}])
    ti = Upstream()
    assert (pulled(land, ti), pulled(download(), ti), ti.calls) == ({}, {}, [])


@pytest.mark.parametrize("left", [None, "text", 5, {"id": 5}, {}, [None], {"prompt": "no id"}])
def test_what_is_no_request_is_left_out(left: Any) -> None:
    with DAG("dag", schedule=None):
        land = download(images=NanoBananaSubmitOperator(task_id="submit", prompt="a").output)
    assert pulled(land, Upstream(submit=[left, left])) == {}


def test_an_xcom_that_cannot_be_read_is_no_reason_to_name_the_files_otherwise() -> None:
    with DAG("dag", schedule=None):
        land = download(images=NanoBananaSubmitOperator(task_id="submit", prompt="a").output)
    with pytest.raises(ToApisError, match="What submit asked for could not be read") as failed:
        pulled(land, Upstream(submit=ConnectionError("away")))
    assert failed.value.retryable


def pushed(prompt: str = "a red kite", *, name: str | None = "kite", meta: Any = None, **fields: Any) -> dict[str, Any]:
    ti = TaskInstance(map_index=3)
    operator = NanoBananaSubmitOperator(task_id="submit", prompt=prompt)
    asked = ImageRequest.parse({"prompt": prompt, **fields})
    context: Any = {"ti": ti}
    push_request(context, operator, "tsk_1", asked, name=name, meta=meta)
    value: dict[str, Any] = ti.xcoms[REQUEST_KEY]
    return value


def test_all_that_a_download_needs_is_handed_on_and_nothing_secret() -> None:
    links = ["https://user:pw@x/a.png?X-Amz-Signature=abc#part", "s3://conn@bucket/a?b.png"]
    signed = {**(meta := {"sku": "SKU-1", "price": 3.5}), "photo": "https://x/a.png?v=2&X-Amz-Signature=abc"}
    meta = {**meta, "photo": "https://x/a.png?v=2"}
    assert pushed(size="16:9", variant="2", reference_images=links, meta=signed) == {
        "version": 1,
        "id": "tsk_1",
        "map_index": 3,
        "name": "kite",
        "meta": meta,
        "variant": "2",
        "prompt": "a red kite",
        "model": "nano_banana_2",
        "size": "16:9",
        "resolution": "1K",
        "reference_images": ["https://x/a.png", "s3://conn@bucket/a?b.png"],
        "pixels": [1376, 768],
    }


def test_what_a_newer_submit_says_is_refused_before_its_files_get_other_names() -> None:
    with DAG("dag", schedule=None):
        submit = NanoBananaSubmitOperator(task_id="submit", prompt="a")
        land = download(images=submit.output)
    assert set(pulled(land, Upstream(submit=[request("t0", version=1, mood="new")]))) == {"t0"}
    with pytest.raises(TransientFailure, match="newer version"):
        pulled(land, Upstream(submit=[{"version": 2, "image_task": "t0"}]))


def test_a_prompt_of_any_length_is_bounded() -> None:
    assert len(json.dumps(pushed("x" * 100_000))) < 5_000


def test_what_was_bought_for_another_request_is_not_said_to_show_this_one() -> None:
    ti = TaskInstance()
    context: Any = {"ti": ti}
    operator = NanoBananaSubmitOperator(task_id="submit", prompt="a")
    push_request(context, operator, "tsk_1", None, name="kite", meta={"a": 1})
    assert ti.xcoms[REQUEST_KEY] == {"version": 1, "id": "tsk_1", "map_index": -1, "name": "kite", "meta": {"a": 1}}


def test_a_store_that_takes_no_request_loses_no_image(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(**value: Any) -> None:
        raise ValueError("too large")

    context: Any = {"ti": SimpleNamespace(map_index=-1, xcom_push=refuse)}
    operator = NanoBananaSubmitOperator(task_id="submit", prompt="a")
    push_request(context, operator, "tsk_1", ImageRequest(prompt="a"), name=None, meta=None)
    assert "Its image is bought" in caplog.text


def test_nothing_is_handed_on_where_nothing_goes_through_xcom() -> None:
    operator = NanoBananaSubmitOperator(task_id="submit", prompt="a", do_xcom_push=False)
    ti = TaskInstance()
    context: Any = {"ti": ti}
    push_request(context, operator, "tsk_1", ImageRequest(prompt="a"), name=None, meta=None)
    assert ti.xcoms == {}


def test_two_image_tasks_of_one_name_get_two_files_and_each_the_same_again() -> None:
    requests = {"tsk_1": request("tsk_1", name="kite"), "tsk_2": request("tsk_2", name="kite")}
    first, second = ({"id": id_, "index": 0} for id_ in requests)
    assert stem_of(first, requests) == stem_of(first, requests) == "kite-5a70d4bd"
    assert stem_of(second, requests) != stem_of(first, requests)
    assert stem_of({**first, "index": 2}, requests) == "kite-5a70d4bd.2"


@pytest.mark.parametrize("name", [None, "", "../../etc/passwd", "a/b", 5, "x" * 200, "kite.png"])
def test_what_cannot_name_a_file_names_none(name: Any) -> None:
    assert stem_of(IMAGE, {"tsk_1": request("tsk_1", name=name)}) is None
    assert stem_of(IMAGE, {}) is None


def test_an_image_is_spoken_of_by_name_and_prompt() -> None:
    assert spoken_of(IMAGE, {"tsk_1": request("tsk_1", name="kite")}) == "kite (picture of tsk_1)"
    assert spoken_of({**IMAGE, "index": 1}, {"tsk_1": request("tsk_1")}) == "tsk_1/1 (picture of tsk_1)"
    assert spoken_of(IMAGE, {}) == "tsk_1"
    long = spoken_of(IMAGE, {"tsk_1": request("tsk_1", prompt="word " * 1000)})
    assert len(long) < 80


@pytest.mark.parametrize("pixels", [None, "1x1", [1], [1, 2, 3], ["1", "2"], [1.5, 2]])
def test_a_size_that_is_none_is_not_expected(pixels: Any) -> None:
    assert pixels_of(IMAGE, {"tsk_1": request("tsk_1", pixels=pixels)}) is None


def test_the_size_that_was_asked_for_is_expected() -> None:
    assert pixels_of(IMAGE, {"tsk_1": request("tsk_1", pixels=[1376, 768])}) == (1376, 768)


def test_a_submit_is_known_by_what_its_class_says() -> None:
    class Mine(NanoBananaSubmitOperator):
        pass

    with DAG("dag", schedule=None):
        land = download(images=Mine(task_id="mine", prompt="a").output)
    assert [task.task_id for task in upstream_requests._submits_before(land)] == ["mine"]
