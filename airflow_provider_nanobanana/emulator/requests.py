"""One submission: the body of ``POST /v1/images/generations``, checked as the service would (``docs/toapis.md``)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from airflow_provider_nanobanana.emulator import errors
from airflow_provider_nanobanana.emulator.catalogue import MAX_REFERENCES, MIME_TYPES, MODELS, ImageFormat, Model
from airflow_provider_nanobanana.emulator.settings import Settings

_CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_FORMATS = {mime_type: name for name, mime_type in MIME_TYPES.items()}


class RequestRejected(Exception):
    """A submission the service does not accept; nothing is charged.

    :param answer: What the service says.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(bytes(answer.body).decode())
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Submission:
    """What was asked for, after the dialect of the model has been read.

    :param count: Images asked for (``n``).
    :param image_format: Where the request names one.
    """

    model: str
    prompt: str
    size: str = "1:1"
    resolution: str = "1K"
    count: int = 1
    references: tuple[str, ...] = ()
    response_format: str = "url"
    client_business_id: str | None = None
    image_format: ImageFormat | None = None


def read_json(raw: bytes) -> Any:
    """Return the value of a JSON body that can be written as JSON again.

    :raises ValueError: It is no JSON, too deep, or holds half a character.
    """
    try:
        value = json.loads(raw)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    return value


def parse(body: Any, settings: Settings) -> Submission:
    """Return the submission a JSON body asks for.

    :raises RequestRejected: The body breaks a documented rule.
    """
    if not isinstance(body, dict):
        raise _invalid("request body must be a JSON object")
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise _invalid("metadata must be an object", "metadata")
    name, model = _model(body)
    guide = model.dialect == "guide"
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise _invalid("prompt is required", "prompt")
    if body.get("callback_url"):
        raise _invalid("no webhook is configured for this key", "callback_url", "webhook_not_configured")
    return Submission(
        model=name,
        prompt=prompt,
        size=_choice(body.get("size", "1:1"), model.ratios, "size"),
        resolution=_choice((body if guide else metadata).get("resolution", "1K"), model.resolutions, "resolution"),
        count=_count(body.get("n", 1), model),
        references=_references(body, "reference_images" if guide else "image_urls"),
        response_format=_choice(body.get("response_format", "url"), ("url", "b64_json"), "response_format"),
        client_business_id=_client_id(body, metadata, settings),
        image_format=_image_format(metadata),
    )


def _invalid(message: str, param: str = "", code: str = "invalid_request") -> RequestRejected:
    return RequestRejected(errors.error(400, code, message, param=param))


def _model(body: dict[str, Any]) -> tuple[str, Model]:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise _invalid("model is required", "model")
    if name not in MODELS:
        message = f"No available channel for model {name} under group default"
        raise RequestRejected(errors.error(503, "model_not_found", message, shape="E4"))
    return name, MODELS[name]


def _choice(value: Any, allowed: tuple[str, ...], param: str) -> str:
    if value not in allowed:
        raise _invalid(f"unsupported {param} {value!r}, must be one of: {', '.join(allowed)}", param)
    return str(value)


def _count(value: Any, model: Model) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid("n must be a number, not a string", "n")
    if not 1 <= value <= model.max_count:
        raise _invalid(f"n must be between 1 and {model.max_count}", "n")
    return value


def _references(body: dict[str, Any], read: str) -> tuple[str, ...]:
    for name in ("reference_images", "image_urls"):
        if _urls(body, name) and len(_urls(body, name)) > MAX_REFERENCES:
            raise _invalid(f"too many images, at most {MAX_REFERENCES}", name)
    return _urls(body, read)


def _urls(body: dict[str, Any], name: str) -> tuple[str, ...]:
    given = body.get(name) or []
    if not isinstance(given, list):
        raise _invalid(f"{name} must be an array", name)
    return tuple(_url(item.get("url") if isinstance(item, dict) else item, name) for item in given)


def _url(value: Any, name: str) -> str:
    if isinstance(value, str) and value.lower().startswith(("http://", "https://")):
        return value
    if isinstance(value, str) and value.lower().startswith("data:"):
        raise _invalid("base64 image is not allowed, upload the file and pass its url", name)
    raise _invalid("invalid image_url, must be a public http(s) url", name)


def _client_id(body: dict[str, Any], metadata: dict[str, Any], settings: Settings) -> str | None:
    value = body.get("client_business_id", metadata.get("client_business_id"))
    if value is None:
        return None
    if settings.reject_client_ids:
        raise _invalid("unknown parameter: client_business_id", "client_business_id")
    if not isinstance(value, str) or not _CLIENT_ID.fullmatch(value):
        raise _invalid("client_business_id must be 1 to 128 of A-Za-z0-9._:-", "client_business_id")
    return value


def _image_format(metadata: dict[str, Any]) -> ImageFormat | None:
    options = metadata.get("imageOutputOptions")
    mime = options.get("mimeType") if isinstance(options, dict) else None
    if mime is None:
        return None
    if mime not in _FORMATS:
        raise _invalid(f"unsupported mimeType {mime!r}", "metadata.imageOutputOptions.mimeType")
    return _FORMATS[mime]
