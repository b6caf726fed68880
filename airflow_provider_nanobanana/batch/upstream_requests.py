"""What a submit task says of its request through XCom, and how a download finds it again by image task id.

A submit hands its image task id on as its result, and beside it, under the XCom key :data:`REQUEST_KEY`, what it asked
for. A download asks each submit task before it once, however many mapped instances that has; image tasks that none of
them bought have no request. Links are kept without what may be secret in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.request_facts import RequestFacts
from airflow_provider_nanobanana.batch.row_names import name_error
from airflow_provider_nanobanana.landing.file_names import named_stem
from airflow_provider_nanobanana.stored_forms import SUBMIT_REQUEST
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.redaction import bare_link, one_line
from airflow_provider_nanobanana.toapis.response_values import storable
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

log = LineLogger(__name__)

REQUEST_KEY: Final = "nanobanana_request"
#: Characters of a prompt that go through XCom: thousands of mapped tasks may each hand one on.
_LONGEST_PROMPT: Final = 4_000
#: And of it in a line of the log.
_SPOKEN_PROMPT: Final = 60

#: What one submit task handed on: ``version``, ``id``, ``map_index``, ``name``, ``variant``, ``meta``, ``prompt``,
#: ``model``, ``size``, ``resolution``, ``reference_images`` and ``pixels`` (width and height, None where not known).
Request = Mapping[str, Any]


def push_request(
    context: Context,
    operator: BaseOperator,
    image_task_id: str,
    request: ImageRequest | None,
    *,
    name: str | None,
    meta: Mapping[str, Any] | None,
) -> None:
    """Hand on what was asked for; trouble with it loses no paid image, and the file is named by its id then.

    :param request: None where the image task was bought for another request than today's.
    """
    if not operator.do_xcom_push:
        return
    asked: dict[str, Any] = {}
    if request is not None:
        asked = {
            "variant": request.variant,
            "prompt": request.prompt[:_LONGEST_PROMPT],
            "model": request.model,
            "size": request.size,
            # As it was sent: by it an image is priced.
            "resolution": request.sent_resolution,
            "reference_images": [bare_link(reference) for reference in request.reference_images],
            "pixels": request.expected_pixels(),
        }
    ti: Any = context["ti"]
    known = RequestFacts.of_submit({"meta": meta}).meta
    value = {
        "version": SUBMIT_REQUEST.version,
        "id": image_task_id,
        "map_index": ti.map_index,
        "name": name,
        "meta": known,
        **asked,
    }
    try:
        with SUPERVISOR_LOCK, wrap_unexpected_errors("The request could not be written to XCom"):
            ti.xcom_push(key=REQUEST_KEY, value=storable(value))
    except errors.ToApisError as error:
        log.warning("%s Its image is bought; what is downloaded will not know its prompt and name.", error.message)


def pull_requests(operator: BaseOperator, context: Context) -> dict[str, Request]:
    """Return what the submit tasks before a task asked for, by image task id; each is asked once.

    :raises ToApisError: XCom could not be read. It is no reason to go on: the files would get other names.
    """
    ti: Any = context["ti"]
    requests: dict[str, Request] = {}
    for submit in sorted(_submits_before(operator), key=lambda task: task.task_id):
        with SUPERVISOR_LOCK, wrap_unexpected_errors(f"What {submit.task_id} asked for could not be read from XCom"):
            rows = _rows_of(operator, submit, ti.map_index)
            pulled = ti.xcom_pull(task_ids=submit.task_id, key=REQUEST_KEY, **rows)
            # A single value where there is one instance.
            values = [pulled] if isinstance(pulled, Mapping) or not isinstance(pulled, Iterable) else list(pulled)
        for value in values:
            if isinstance(value, Mapping):
                SUBMIT_REQUEST.refuse_newer(value.get("version"), f"What {submit.task_id} said of its request in XCom")
            if isinstance(value, Mapping) and isinstance(value.get("id"), str):
                requests[value["id"]] = value
    return requests


def stem_of(image: Mapping[str, Any], requests: Mapping[str, Request]) -> str | None:
    """Return the name of an image's file without its suffix, the same at each attempt; None: by its id alone."""
    name = _name_of(image, requests)
    return None if name is None else named_stem(name, str(image["id"]), image["index"])


def spoken_of(image: Mapping[str, Any], requests: Mapping[str, Request]) -> str:
    """Return how the log speaks of an image: by name and the beginning of its prompt, else by the image task's id."""
    prompt = one_line(requests.get(str(image["id"]), {}).get("prompt"), limit=_SPOKEN_PROMPT)
    spoken = _name_of(image, requests) or str(image["id"])
    if image["index"]:
        spoken = f"{spoken}/{image['index']}"
    return f"{spoken} ({prompt})" if prompt else spoken


def spoken_of_all(operator: BaseOperator, context: Context, image_task_ids: Sequence[str]) -> dict[str, str]:
    """Return what people call some images, with the row of a mapped submit, by image task id, as far as it is known.

    Asked for a message only: trouble with it is no error.
    """
    if not image_task_ids:
        return {}
    try:
        requests = pull_requests(operator, context)
    except errors.ToApisError as error:
        log.debug("What the image tasks were asked for is not known: %s", error.message)
        return {}
    spoken = {}
    for id_ in image_task_ids:
        if id_ in requests:
            row = requests[id_].get("map_index")
            mapped = f"[{row}] " if isinstance(row, int) and row >= 0 else ""
            spoken[id_] = f"{mapped}{spoken_of({'id': id_, 'index': 0}, requests)}"
    return spoken


def pixels_of(image: Mapping[str, Any], requests: Mapping[str, Request]) -> tuple[int, int] | None:
    """Return the width and height that were asked for, None where they are not known."""
    pixels = requests.get(str(image["id"]), {}).get("pixels")
    if isinstance(pixels, list) and len(pixels) == 2 and all(type(number) is int for number in pixels):
        return pixels[0], pixels[1]
    return None


def _name_of(image: Mapping[str, Any], requests: Mapping[str, Request]) -> str | None:
    """Return the name of an image's request, None where it has none that can name a file."""
    name = requests.get(str(image["id"]), {}).get("name")
    return name if name is not None and name_error(name) is None else None


def _submits_before(operator: BaseOperator) -> Iterator[Any]:
    """Yield the submit tasks anywhere before a task, mapped or not; none for an operator without a DAG."""
    for task in operator.get_flat_relatives(upstream=True) if operator.has_dag() else ():
        task_class = getattr(task, "operator_class", type(task))
        if getattr(task_class, "hands_on_request", False):
            yield task


def _rows_of(operator: BaseOperator, submit: Any, map_index: int) -> dict[str, int]:
    """Return which instances of a submit task to ask: within a mapped task group that of the own row, else all."""
    own = {group.group_id for group in operator.iter_mapped_task_groups()}
    shared = any(group.group_id in own for group in submit.iter_mapped_task_groups())
    return {"map_indexes": map_index} if shared else {}
