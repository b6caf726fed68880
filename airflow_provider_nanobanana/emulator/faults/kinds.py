"""Every fault the emulator can play: where it applies and which parameters it takes, with their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["answer", "distort", "shape", "picture"]

API_POINTS = ("submit", "status", "models", "balance", "upload")
POINTS = (*API_POINTS, "result")


@dataclass(frozen=True, slots=True)
class Kind:
    """One fault.

    :param role: ``answer`` replaces the answer, ``distort`` spoils the right one on its way, ``shape`` changes what
        the image task or its status body says, ``picture`` changes the bytes or the link of a result.
    :param points: Where it may be asked for.
    :param params: Parameters and their defaults.
    """

    role: Role
    points: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)


def _answer(**params: Any) -> Kind:
    return Kind("answer", POINTS, {"committed": False, **params})


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
    "not_found": _answer(status=404, spelling="404"),
    "html": _answer(status=None),
    "empty_body": _answer(status=200),
    "not_json": _answer(status=200, text="upstream connect error"),
    "garbage": _answer(status=200, bytes=256),
    "success_false": _answer(status=200, text="operation failed"),
    "envelope": _answer(shape="E5", status=500, code="fail_to_fetch_task", text="upstream trouble"),
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
    "late_404": Kind("shape", ("submit",), {"seconds": 0.0, "polls": 0, "spelling": "404"}),
    "failed": Kind(
        "shape",
        ("submit", "status"),
        {
            "code": "generation_failed",
            "text": "call upstream API failed: upstream returned status 422",
            "shape": "object",
        },
    ),
    "latency": Kind("shape", ("submit",), {"seconds": 0.0}),
    "id_in_data": Kind("shape", ("submit",), {"field": "task_id"}),
    "no_id": Kind("shape", ("submit",)),
    "already_completed": Kind("shape", ("submit",)),
    "picture_format": Kind("shape", ("submit",), {"format": "JPEG"}),
    # at status: how the body is spelled
    "status_word": Kind("shape", ("submit", "status"), {"word": "in_progress"}),
    "success_word": Kind("shape", ("status",), {"word": "succeeded"}),
    "failure_word": Kind("shape", ("status",), {"word": "FAILURE"}),
    "stuck": Kind("shape", ("status",)),
    "top_level_url": Kind("shape", ("status",)),
    "data_url": Kind("shape", ("status",)),
    "result_url": Kind("shape", ("status",)),
    "no_url": Kind("shape", ("status",)),
    "result_shape": Kind("shape", ("status",), {"shape": "images"}),
    "more_images": Kind("shape", ("status",), {"images": 2}),
    "url": Kind("shape", ("status",), {"url": "https://169.254.169.254/latest/meta-data"}),
    "billing": Kind("shape", ("status",), {"value": "absent"}),
    "expires_at": Kind("shape", ("status",), {"value": "missing"}),
    "bad_b64": Kind("shape", ("status",), {"value": "invalid"}),
    # at the result file
    "wrong_suffix": Kind("shape", ("status", "result"), {"suffix": ".jpg"}),
    "redirect": Kind("picture", ("result",), {"hops": 1, "loop": False, "status": 302}),
    "expired": Kind("picture", ("result",), {"status": 410}),
    "oversized": Kind("picture", ("result",), {"bytes": 100_000_000, "content_length": True, "gzip": False}),
    "bomb": Kind("picture", ("result",), {"width": 60_000, "height": 60_000}),
    "wrong_pixel_size": Kind("picture", ("result",), {"width": 640, "height": 360}),
    "wrong_format": Kind("picture", ("result",), {"format": "WEBP"}),
}

REDIRECTS = (301, 302, 303, 307, 308)
#: What goes into a header.
_IN_HEADERS = ("content_type", "url", "retry_after", "category", "suffix")
_MOST_IMAGES = 100

_FORMATS = ("PNG", "JPEG", "WEBP")
CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("envelope", "shape"): ("E1", "E2", "E3", "E4", "E5", "E6", "E7", "E7m", "E8"),
    ("failed", "shape"): ("object", "string", "fail_reason"),
    ("not_found", "spelling"): ("404", "400", "E5"),
    ("late_404", "spelling"): ("404", "400", "E5"),
    ("id_in_data", "field"): ("task_id", "id", "top", "taskId", "list"),
    # as seen of this gateway and of its forks (docs/toapis.md, "Result links")
    ("result_shape", "shape"): ("images", "result_images", "output", "results", "texts", "json_text"),
    ("picture_format", "format"): _FORMATS,
    ("wrong_format", "format"): _FORMATS,
    ("bad_b64", "value"): ("invalid", "data_uri"),
}

ALIASES: dict[tuple[str, str], str] = {
    ("status", "unknown_status"): "status_word",
    ("status", "late_404"): "not_found",
    ("submit", "unknown_status"): "status_word",
    ("submit", "refused"): "content_policy",
    ("result", "bad_image"): "truncated_image",
}


def check_param(kind: str, name: str, value: Any) -> None:
    """Refuse a parameter whose value could not be played.

    :raises ValueError: The value is of another type than the default, or not one of the choices.
    """
    allowed, default = CHOICES.get((kind, name)), KINDS[kind].params[name]
    if allowed and value not in allowed:
        raise ValueError(f"{name} of fault {kind!r} must be one of {', '.join(allowed)}, not {value!r}")
    number = isinstance(default, int | float) and not isinstance(default, bool)
    loose = default is None or name in ("retry_after", "value")  # what a server may send here has no type
    fits = isinstance(value, int | float) if number else isinstance(value, type(default))
    if not loose and not fits:
        raise ValueError(f"{name} of fault {kind!r} must be like {default!r}, not {value!r}")
    _check_playable(kind, name, value, number=number)


def _check_playable(kind: str, name: str, value: Any, *, number: bool) -> None:
    if name == "status" and value is not None and not (type(value) is int and 200 <= value <= 599):
        raise ValueError(f"status of fault {kind!r} must be 200 to 599, not {value!r}")
    if name == "images" and not (type(value) is int and 1 <= value <= _MOST_IMAGES):
        raise ValueError(f"images of fault {kind!r} must be 1 to {_MOST_IMAGES}, not {value!r}")
    if number and name not in ("code", "retry_after") and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} of fault {kind!r} must be a number of at least 0, not {value!r}")
    if name in _IN_HEADERS and isinstance(value, str) and not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name} of fault {kind!r} goes into a header: plain ASCII in one line, not {value!r}")


# What only means something once an image task is completed; it is not used up on the queries before.
COMPLETED_ONLY = frozenset(
    {"success_word", "top_level_url", "data_url", "result_url", "no_url", "url", "billing", "expires_at", "bad_b64",
     "wrong_suffix", "result_shape", "more_images"}
)  # fmt: skip
