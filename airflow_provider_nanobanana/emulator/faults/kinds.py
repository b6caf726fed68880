"""Every fault the emulator can play: where it applies and which parameters it takes, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from airflow_provider_nanobanana.emulator.settings import Number

API_POINTS = ("submit", "status", "models", "balance", "upload")
POINTS = (*API_POINTS, "result")


@dataclass(frozen=True, slots=True)
class Kind:
    """One fault.

    :param role: ``answer`` replaces the answer, ``distort`` spoils the right one on its way, ``shape`` changes what
        the image task or its status body says, ``picture`` changes the bytes or the link of a result.
    :param points: Where it may be asked for.
    :param params: Parameters and their defaults; a tuple lists the only values, the default first.
    :param state: The only state of an image task in which a shape applies; the queries before do not use it up.
    """

    role: Literal["answer", "distort", "shape", "picture"]
    points: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)
    state: Literal["", "completed", "failed"] = ""

    @property
    def defaults(self) -> dict[str, Any]:
        """Every parameter with its default."""
        return {name: value[0] if isinstance(value, tuple) else value for name, value in self.params.items()}


def _answer(**params: Any) -> Kind:
    return Kind("answer", POINTS, {"committed": False, **params})


def _completed(**params: Any) -> Kind:
    return Kind("shape", ("status",), params, "completed")


_NOT_FOUND_SPELLINGS = ("404", "400", "E5")

KINDS: dict[str, Kind] = {
    # answers in place of the right one; on submit, committed=True creates and charges the image task first
    "rate_limit": _answer(retry_after=1, date=False, text="Too many requests", category="", code="rate_limit_exceeded"),
    "server_error": _answer(status=500, code="internal_error", text="internal server error", retry_after=None),
    "unavailable": _answer(retry_after=None),
    "no_channel": _answer(code="circuit_broken"),
    "model_not_found": _answer(),
    "pricing_failed": _answer(),
    "unauthorized": _answer(),
    "forbidden": _answer(text="this key may not use the model"),
    "quota": _answer(status=402, text="user quota is not enough"),
    "bad_request": _answer(code="invalid_request", text="invalid parameter", param=""),
    "content_policy": _answer(text="prompt was refused by the content policy"),
    "too_large": _answer(),
    "not_found": _answer(status=404, spelling=_NOT_FOUND_SPELLINGS),
    "html": _answer(status=None),
    "empty_body": _answer(status=200),
    "not_json": _answer(status=200, text="upstream connect error"),
    "garbage": _answer(status=200, bytes=256),
    "success_false": _answer(status=200, text="operation failed"),
    "envelope": _answer(
        shape=("E5", "E1", "E2", "E3", "E4", "E6", "E7", "E7m", "E8"),
        status=500,
        code="fail_to_fetch_task",
        text="upstream trouble",
    ),
    "integer_code": _answer(status=500, code=500, text="internal server error"),
    "redirect_to": _answer(url="http://169.254.169.254/latest/meta-data", status=302),
    "drop": _answer(reset=False),
    # the right answer, spoiled on its way
    "truncated_json": Kind("distort", API_POINTS, {"fraction": 0.5, "honest_length": True}),
    "drop_mid_body": Kind("distort", POINTS, {"fraction": 0.5, "reset": False}),
    "slow": Kind("distort", POINTS, {"seconds": 1.0, "committed": True}),
    "slow_headers": Kind("distort", POINTS, {"seconds": 1.0}),
    "slow_body": Kind("distort", POINTS, {"seconds": 1.0, "chunks": 10}),
    "wrong_content_type": Kind("distort", POINTS, {"content_type": "text/html"}),
    "truncated_image": Kind("distort", ("result",), {"fraction": 0.5, "honest_length": True}),
    # at submit: what becomes of the accepted image task, and how the answer spells its id
    "late_404": Kind("shape", ("submit",), {"seconds": 0.0, "polls": 0, "spelling": _NOT_FOUND_SPELLINGS}),
    "failed": Kind(
        "shape",
        ("submit", "status"),
        {
            "code": "generation_failed",
            "text": "call upstream API failed: upstream returned status 422",
            "shape": ("object", "string", "fail_reason"),
        },
    ),
    "latency": Kind("shape", ("submit",), {"seconds": 0.0}),
    "id_in_data": Kind("shape", ("submit",), {"field": ("task_id", "id", "top", "taskId", "list")}),
    "no_id": Kind("shape", ("submit",)),
    "already_completed": Kind("shape", ("submit",)),
    "picture_format": Kind("shape", ("submit",), {"format": ("JPEG", "PNG", "WEBP")}),
    # at status: how the body is spelled
    "status_word": Kind("shape", ("submit", "status"), {"word": "in_progress"}),
    "success_word": _completed(word="succeeded"),
    "failure_word": Kind("shape", ("status",), {"word": "FAILURE"}, "failed"),
    "stuck": Kind("shape", ("status",)),
    "top_level_url": _completed(),
    "data_url": _completed(),
    "result_url": _completed(),
    "no_url": _completed(),
    # as seen of this gateway and of its forks (docs/toapis.md, "Result links")
    "result_shape": _completed(shape=("images", "result_images", "output", "results", "texts", "json_text")),
    "more_images": _completed(images=2),
    "url": _completed(url="https://169.254.169.254/latest/meta-data"),
    "billing": _completed(value="absent"),
    "expires_at": _completed(value="missing"),
    "bad_b64": _completed(value=("invalid", "data_uri")),
    "wrong_suffix": Kind("shape", ("status", "result"), {"suffix": ".jpg"}, "completed"),
    # at the result file
    "redirect": Kind("picture", ("result",), {"hops": 1, "loop": False, "status": 302}),
    "expired": Kind("picture", ("result",), {"status": 410}),
    "oversized": Kind("picture", ("result",), {"bytes": 100_000_000, "content_length": True, "gzip": False}),
    "bomb": Kind("picture", ("result",), {"width": 60_000, "height": 60_000}),
    "wrong_pixel_size": Kind("picture", ("result",), {"width": 640, "height": 360}),
    "wrong_format": Kind("picture", ("result",), {"format": ("WEBP", "PNG", "JPEG")}),
}

#: Other names that rules may use, by point: part of the control routes, as scripts may have them.
ALIASES: dict[tuple[str, str], str] = {
    ("status", "unknown_status"): "status_word",
    ("status", "late_404"): "not_found",
    ("submit", "unknown_status"): "status_word",
    ("submit", "refused"): "content_policy",
    ("result", "bad_image"): "truncated_image",
}

_Count = Annotated[int, Field(ge=0)]
_Status = Annotated[int, Field(ge=200, le=599)]
_HeaderText = Annotated[str, Field(pattern="^[ -~]*$")]  # plain ASCII in one line


@with_config(ConfigDict(strict=True, extra="forbid"))
class RuleFields(TypedDict, total=False):
    """What a rule may hold, and the types of all parameters; which of them a kind takes is in :data:`KINDS`."""

    on: Literal["submit", "status", "models", "balance", "upload", "result"]
    kind: str
    times: int | None
    match: str | None
    skip: int
    # answers
    status: _Status | None
    code: str | int
    text: str
    param: str
    shape: str
    spelling: str
    committed: bool
    retry_after: int | float | _HeaderText | None
    date: bool
    category: _HeaderText
    content_type: _HeaderText
    # on the way
    seconds: Number
    fraction: Number
    chunks: _Count
    bytes: _Count
    reset: bool
    honest_length: bool
    # image tasks and status bodies
    polls: _Count
    field: str
    word: str
    value: Any
    images: Annotated[int, Field(ge=1, le=100)]
    # result files
    url: _HeaderText
    suffix: _HeaderText
    format: str
    hops: _Count
    loop: bool
    content_length: bool
    gzip: bool
    width: _Count
    height: _Count
