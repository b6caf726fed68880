"""One submission: the body of ``POST /v1/images/generations``, checked as the service would (``docs/toapis.md``)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from airflow_provider_nanobanana.emulator import errors
from airflow_provider_nanobanana.emulator.catalogue import MIME_TYPES, MODELS, ImageFormat, Model, model_of
from airflow_provider_nanobanana.emulator.settings import Settings

_CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: A picture and what it is made of.
_LAYERED_FILES = 4
_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif")
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

    :param resolution: In capitals, however the model spells it.
    :param count: Images asked for, and paid each.
    :param files: Files that come of it, layers included.
    :param image_format: Where the request names one.
    """

    model: str
    prompt: str
    size: str = "1:1"
    resolution: str = "1K"
    count: int = 1
    files: int = 1
    references: tuple[str, ...] = ()
    response_format: str = "url"
    client_business_id: str | None = None
    image_format: ImageFormat | None = None

    @property
    def credits(self) -> float:
        """What it costs, in credits."""
        price = model_of(self.model).price(self.resolution, self.count, len(self.references))
        return int(price) if price == int(price) else price


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
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise _invalid("prompt is required", "prompt")
    if body.get("callback_url"):
        raise _invalid("no webhook is configured for this key", "callback_url", "webhook_not_configured")
    count = _count(body.get("n", 1), metadata, model)
    layered = _layered(body, model)
    return Submission(
        model=name,
        prompt=prompt,
        size=_size(body.get("size", "1:1"), model, layered=layered),
        resolution=_resolution(body, metadata, model),
        count=count,
        files=_LAYERED_FILES if layered else count,
        references=_references(body, model),
        response_format=_choice(body.get("response_format", "url"), ("url", "b64_json"), "response_format"),
        client_business_id=_client_id(body, metadata, settings),
        image_format=_image_format(metadata, model),
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


def _size(value: Any, model: Model, *, layered: bool) -> str:
    if layered and value in model.resolutions:
        return str(value)
    if not model.takes_size(value):
        raise _invalid(f"unsupported size {value!r}, must be one of: {', '.join(model.sizes or ('a ratio',))}", "size")
    return str(value)


def _resolution(body: dict[str, Any], metadata: dict[str, Any], model: Model) -> str:
    if model.resolution == "nowhere":
        return model.default
    place = body if model.resolution == "top" else metadata
    return _choice(place.get("resolution", model.default), model.resolutions, "resolution").upper()


def _layered(body: dict[str, Any], model: Model) -> bool:
    value = body.get("layer_decomposition", False)
    if not isinstance(value, bool):
        raise _invalid("layer_decomposition must be a boolean", "layer_decomposition")
    return value and model.layers


def _count(value: Any, metadata: dict[str, Any], model: Model) -> int:
    options = metadata.get("sequential_image_generation_options")
    if value == 1 and metadata.get("sequential_image_generation") == "auto" and isinstance(options, dict):
        value = options.get("max_images", value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid("n must be a number, not a string", "n")
    if not 1 <= value <= model.max_count:
        raise _invalid(f"n must be between 1 and {model.max_count}", "n")
    return value


def _references(body: dict[str, Any], model: Model) -> tuple[str, ...]:
    for name in ("reference_images", "image_urls"):
        if len(_urls(body, name)) > model.max_references:
            raise _invalid(f"too many images, at most {model.max_references}", name)
    found = next((urls for name in model.references if (urls := _urls(body, name))), ())
    for url in found:
        suffix = url.partition("?")[0].rpartition("/")[2].rpartition(".")[2].lower()
        if suffix in _SUFFIXES and suffix not in model.formats:
            raise _invalid(f"unsupported image format {suffix}, must be one of: {', '.join(model.formats)}", name)
    return found


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


def _image_format(metadata: dict[str, Any], model: Model) -> ImageFormat | None:
    if model.resolution == "nowhere" and "response_format" in metadata:
        return "JPEG" if _choice(metadata["response_format"], ("png", "jpg"), "response_format") == "jpg" else "PNG"
    options = metadata.get("imageOutputOptions")
    mime = options.get("mimeType") if isinstance(options, dict) else None
    if mime is None:
        return None
    if mime not in _FORMATS:
        raise _invalid(f"unsupported mimeType {mime!r}", "metadata.imageOutputOptions.mimeType")
    return _FORMATS[mime]
