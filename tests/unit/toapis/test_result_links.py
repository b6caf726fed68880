"""Where the images of a finished image task may stand, and which links of its answer are none ("Result links")."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from airflow_provider_nanobanana.toapis.errors import TransientFailure
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask, links_in
from airflow_provider_nanobanana.toapis.protocol import status_call
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.responses import ID, KEY, NOW, URL

BASE = "https://gateway.example/toapis"
OURS = "https://photos.example/mug.png"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()


def looked_up(body: dict[str, Any], sent: Any = None, **fields: Any) -> ImageTask:
    whole = {"id": ID, "status": "completed", **body, **fields}
    return status_call(ID, sent).parse(ApiResponse(200, {}, json.dumps(whole).encode(), KEY, BASE), NOW)


def links(body: dict[str, Any], sent: Any = None, **fields: Any) -> list[str | None]:
    return [image.url for image in looked_up(body, sent, **fields).images]


SHAPES: dict[str, dict[str, Any]] = {
    "images of mappings": {"images": [{"url": URL}]},
    "images of texts": {"images": [URL]},
    "images, one": {"images": {"url": URL}},
    "result.images, url is a list": {"result": {"images": [{"url": [URL]}]}},
    "output.image_urls": {"output": {"image_urls": [URL]}},
    "result.image_urls": {"result": {"image_urls": [URL]}},
    "output, a text": {"output": URL},
    "outputs of texts": {"outputs": [URL]},
    "results": {"results": [{"url": URL}]},
    "data of texts": {"data": [URL]},
    "result.data of texts": {"result": {"data": [URL]}},
    "result, a text": {"result": URL},
    "image_url": {"result": {"data": [{"image_url": URL}]}},
    "image_url, an object": {"choices": [{"message": {"images": [{"image_url": {"url": URL}}]}}]},
    "camel case": {"response": {"resultImageUrl": URL}},
    "JSON in a text": {"result": json.dumps({"data": [{"url": URL}]})},
    "JSON in JSON in a text": {"result": json.dumps(json.dumps({"images": [URL]}))},
    "resultJson": {"resultJson": json.dumps({"resultUrls": [URL]}), "param": json.dumps({"image_urls": [OURS]})},
    "result.sample": {"result": {"sample": URL}},
    "lists in lists": {"output": [[{"uri": URL}]]},
    "by number": {"images": {"0": {"url": URL}}},
    "download beside the same": {"images": [{"image_url": URL, "download_url": f"{URL}?dl=1"}]},
    "padded": {"url": f"  {URL}\n"},
    "only a picture by its suffix": {"answer": {"made": URL}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_result_is_found_in_any_shape(shape: str) -> None:
    assert links(SHAPES[shape]) == [URL]


@pytest.mark.parametrize(
    "body",
    [
        {"result": {"data": [{"b64_json": PNG}]}},
        {"result": {"data": [PNG]}},
        {"result": {"data": [{"url": f"data:image/png;base64,{PNG}"}]}},
        {"output": [f"data:image/png;base64,{PNG}"]},
        {"output": {"image_base64": PNG}},
        {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}}]},
        {"predictions": [{"bytesBase64Encoded": PNG}]},
        {"images": ["\n".join(PNG[at : at + 20] for at in range(0, len(PNG), 20))]},
    ],
)
def test_bytes_are_found_in_any_shape_and_are_never_a_link(body: dict[str, Any]) -> None:
    [image] = looked_up(body).images
    assert image.url is None and image.b64_json is not None
    assert "".join(image.b64_json.split()).endswith(PNG)


@pytest.mark.parametrize(
    ("link", "whole"),
    [
        ("/files/x.png", "https://gateway.example/files/x.png"),
        ("/__files/x", "https://gateway.example/__files/x"),
        ("files/x.png?sig=1", f"{BASE}/files/x.png?sig=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("HTTPS://cdn.example/x", "HTTPS://cdn.example/x"),
        ("https://cdn.example/a b.png", "https://cdn.example/a b.png"),
        ("https://cdn.example/\r\nx.png", "https://cdn.example/x.png"),
    ],
)
@pytest.mark.parametrize("place", ["documented", "searched"])
def test_a_link_is_made_absolute(place: str, link: str, whole: str) -> None:
    body = {"result": {"data": [{"url": link}]}} if place == "documented" else {"output": {"image_urls": [link]}}
    assert links(body) == [whole]


NO_RESULTS: dict[str, dict[str, Any]] = {
    "input": {"input": {"image_urls": [OURS], "url": OURS}},
    "inputs": {"output": {"inputs": [OURS]}},
    "inputImageUrl": {"inputImageUrl": OURS},
    "input_urls": {"data": {"input_urls": [OURS]}},
    "request": {"request": {"url": OURS}, "original_request": {"image": OURS}},
    "params": {"params": {"images": [OURS]}, "parameters": {"image_url": OURS}},
    "prompt": {"prompt_images": [OURS], "prompt": OURS},
    "reference_images": {"reference_images": [OURS], "referenceImages": [{"url": OURS}]},
    "source": {"source_image_url": OURS, "sourceUrl": OURS},
    "metadata": {"metadata": {"image_url": OURS}},
    "an echo of image_urls": {"image_urls": [OURS], "prompt": "a mug"},
    "an echo of image_urls in the envelope": {"data": {"image_urls": [{"url": OURS}]}},
    "an echo in a list of tasks": {"data": [{"task_id": ID, "status": "completed", "image_urls": [OURS]}]},
    "thumbnail": {"thumbnail_url": OURS, "thumbnails": [{"url": OURS}]},
    "preview": {"preview": OURS, "previewUrl": OURS},
    "not an image": {"polling_url": OURS, "callback_url": OURS, "webhook": OURS, "avatar": {"url": OURS}},
    "other schemes": {"output": ["s3://bucket/x.png", "ftp://host/x.png", "javascript:alert(1)//x.png"]},
    "prose": {"result": {"data": [{"text": "here is your image", "url": "soon", "b64": "here is your image, soon"}]}},
    "prose that begins with a link": {"output": f"{OURS} is where it was"},
    "an error": {"error": {"url": "https://docs.example/errors.png"}},
}


@pytest.mark.parametrize("case", NO_RESULTS)
def test_what_was_asked_for_is_no_result_and_the_answer_is_kept_for_a_person(case: str) -> None:
    image_task = looked_up(NO_RESULTS[case])
    assert (image_task.status, image_task.images) == (ImageTaskStatus.COMPLETED, ())
    assert image_task.answer is not None and ID in image_task.answer


@pytest.mark.parametrize("case", [name for name in NO_RESULTS if name != "other schemes"])
def test_a_result_beside_what_was_asked_for_is_the_only_one(case: str) -> None:
    assert links({**NO_RESULTS[case], "outputs": [{"url": URL}]}) == [URL]


def test_a_link_of_the_request_is_no_result_wherever_else_it_stands() -> None:
    """A new signature makes it no other link."""
    assert links({"input": {"url": OURS}, "outputs": [f"{OURS}?sig=2", URL]}) == [URL]
    assert links({"outputs": [f"{OURS}?sig=2", URL]}, sent=[OURS]) == [URL]
    assert links({"result": {"data": [{"url": OURS}]}}, sent=[OURS]) == []


def test_without_references_nothing_can_be_an_echo() -> None:
    assert links({"image_urls": [URL]}, sent=[]) == [URL]
    assert links({"image_urls": [URL]}, sent=[OURS]) == links({"image_urls": [URL]}) == []


def test_what_was_sent_is_known_unless_it_is_uploaded_first() -> None:
    request = ImageRequest.parse({"prompt": "x", "reference_images": [OURS], "extra_body": {"mask": {"url": URL}}})
    assert request.sent_links() == frozenset({OURS, URL}) == links_in({"a": [OURS, "no link"], "b": {"c": URL}, "d": 3})
    assert ImageRequest.parse({"prompt": "x"}).sent_links() == frozenset()
    assert ImageRequest.parse({"prompt": "x", "reference_images": ["s3://b/x.png"]}).sent_links() is None


def test_all_images_are_returned_numbered_once_and_at_most_sixteen() -> None:
    many = [{"url": f"{URL}?{number}"} for number in range(40)]
    for body in ({"result": {"data": many}}, {"output": [entry["url"] for entry in many]}):
        images = looked_up(body).images
        assert [(image.index, image.url) for image in images] == [(n, f"{URL}?{n}") for n in range(16)]
    assert links({"images": [{"url": URL}, {"url": URL}, {"url": f"{URL}?2"}]}) == [URL, f"{URL}?2"]


def test_the_place_with_the_most_images_counts_and_no_other_doubles_them() -> None:
    signed = [{"url": f"{URL}?sig={number}"} for number in range(3)]
    assert len(links({"url": URL, "result": {"data": signed[:1]}, "images": signed})) == 3
    assert links({"url": f"{URL}?again", "result": {"data": [{"url": URL}]}}) == [URL]


@pytest.mark.parametrize(
    "hostile",
    [
        {"output": json.loads("[" * 400 + "]" * 400)},
        {"output": [{"a": n} for n in range(100_000)]},
        {"output": "[" * 100_000},
        {"output": "https://[::bad/x.png"},
        {"output": ["http://", "//", "/", "https://\ud800/x.png"]},
        {"url": "x" * 100_000},
    ],
)
def test_the_search_is_bounded_and_fails_on_nothing(hostile: dict[str, Any]) -> None:
    image_task = looked_up(hostile)
    assert image_task.images == () or all("png" in str(image.url) for image in image_task.images)
    assert image_task.answer is None or len(image_task.answer) <= 2000


def test_the_answer_for_a_person_is_bounded_and_holds_no_secret() -> None:
    body = {"result": {"note": f"key {KEY}", "link": "x https://f.example/a.bin?X-Amz-Signature=S3CRET", "b": PNG * 99}}
    text = looked_up(body).answer
    assert text is not None and len(text) <= 2000 and "https://f.example/a.bin?…" in text
    assert "S3CRET" not in text and "0123456789" not in text and PNG not in text


# --- status words ----------------------------------------------------------------------------------------------------

COMPLETED = ["succeed", "finished", "done", "complete", "OK", 1, "ready", "Generated", "TASK_STATUS_SUCCEED", "成功"]
FAILED = ["fail", "timeout", "TIMED_OUT", "Rejected", "Request Moderated", "blocked", "aborted", "task_failed", "失败"]
RUNNING = ["NOT_START", "in-progress", "inQueue", "IN_QUEUE", "retrying", "Not Started", 0, "排队中"]


@pytest.mark.parametrize("word", COMPLETED)
def test_a_word_for_completed(word: Any) -> None:
    assert looked_up({"url": URL}, status=word).status is ImageTaskStatus.COMPLETED


@pytest.mark.parametrize("word", FAILED)
def test_a_failed_status_with_a_link_stays_failed(word: str) -> None:
    image_task = looked_up({"url": URL, "error": {"message": "x"}}, status=word)
    assert (image_task.status, image_task.images) == (ImageTaskStatus.FAILED, ())


@pytest.mark.parametrize("word", RUNNING)
def test_a_running_status_with_a_preview_stays_running(word: Any) -> None:
    image_task = looked_up({"url": URL, "error": {"message": "x"}}, status=word)
    assert (image_task.status, image_task.images) == (ImageTaskStatus.RUNNING, ())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"url": URL}, ImageTaskStatus.COMPLETED),
        ({"images": [URL], "progress": 100}, ImageTaskStatus.COMPLETED),
        ({"images": [URL], "progress": "100%"}, ImageTaskStatus.COMPLETED),
        ({"url": URL, "error": {"message": "x"}}, ImageTaskStatus.COMPLETED),
        ({"url": URL, "progress": 99}, ImageTaskStatus.RUNNING),
        ({"url": URL, "progress": "40%"}, ImageTaskStatus.RUNNING),
        ({"error": {"message": "x"}}, ImageTaskStatus.FAILED),
        ({"error": "x"}, ImageTaskStatus.FAILED),
        ({"error": {"code": "", "message": ""}}, ImageTaskStatus.RUNNING),
        ({"error": None, "preview": URL}, ImageTaskStatus.RUNNING),
        ({"input": {"url": URL}}, ImageTaskStatus.RUNNING),
    ],
)
def test_an_unknown_word_is_what_stands_beside_it(fields: dict[str, Any], status: ImageTaskStatus) -> None:
    assert looked_up(fields, status="defrosting").status is status


@pytest.mark.parametrize("body", [{"status": "error", "message": "busy"}, {"status": 500, "error": "x"}])
def test_a_failed_call_is_never_a_failed_image_task(body: dict[str, Any]) -> None:
    """A failed image task is bought again."""
    with pytest.raises(TransientFailure):
        status_call(ID).parse(ApiResponse(200, {}, json.dumps(body).encode()), NOW)


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "data": {"task_id": ID, "status": "SUCCESS", "images": [URL]}},
        {"code": 200, "data": [{"task_id": ID, "status": "completed", "result": {"images": [{"url": [URL]}]}}]},
        {"request_id": "r", "output": {"task_id": ID, "task_status": "SUCCEEDED", "results": [{"url": URL}]}},
        {"data": {"taskId": ID, "state": "success", "resultJson": json.dumps({"resultUrls": [URL]})}},
        {"data": {"taskId": ID, "successFlag": 1, "response": {"resultImageUrl": URL}}},
        {"status": "success", "data": {"task_id": ID, "status": "succeed", "url": URL}},
    ],
)
def test_an_image_task_is_read_out_of_its_envelope(body: dict[str, Any]) -> None:
    image_task = status_call(ID).parse(ApiResponse(200, {}, json.dumps(body).encode()), NOW)
    assert (image_task.id, image_task.status) == (ID, ImageTaskStatus.COMPLETED)
    assert [image.url for image in image_task.images] == [URL]


TWO = ["https://photos.example/one.png", "https://photos.example/two.png"]


def test_the_documented_place_decides_and_another_only_adds() -> None:
    documented = {"result": {"data": [{"url": URL}]}}
    assert links({**documented, "images": [{"url": link} for link in TWO]}) == [URL]
    assert links({**documented, "images": [{"url": link} for link in (URL, *TWO)]}) == [URL, *TWO]
    assert links({**documented, "data": TWO}) == [URL]
    assert links({"result": {"data": []}, "images": [{"url": link} for link in TWO]}) == TWO
