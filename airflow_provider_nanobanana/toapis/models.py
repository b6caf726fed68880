"""What goes to the gateway and what comes back, parsed once: frozen, tolerant of fields and statuses we do not know."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set, Sized
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.fingerprint import canonical, unsigned
from airflow_provider_nanobanana.toapis.model_row import (
    MAX_REFERENCE_IMAGES,
    UNSAID_RESOLUTION,
    UNSAID_SIZE,
    ModelRow,
)
from airflow_provider_nanobanana.toapis.request_values import (
    as_reference,
    as_text,
    given_fields,
    is_blank,
    listed,
    table_fault,
    text_fault,
    values_in,
)
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus, says_expired
from airflow_provider_nanobanana.toapis.storage_uris import is_object_address

_FROZEN = ConfigDict(frozen=True, extra="forbid")
#: Far beyond any documented body.
_DEEPEST = 50
_MOST_VALUES = 10_000
#: What Seedream may make where a request asks for images in sequence and says no number.
_MOST_IN_SEQUENCE = 15
#: What people put between addresses, and another one behind it.
_SEVERAL = re.compile(r"[\s,;|][A-Za-z][A-Za-z0-9+.-]*://")
_BLANK = re.compile(r"\s")
_REFUSED = "Image request refused before sending: {faults}. Nothing was charged."

#: Links live this long after completion (docs.toapis.com, image status, read 2026-08).
LINK_LIFETIME_SECONDS = 86_400
#: What a link's moment of death is uncertain by: an image is made in minutes, and clocks differ.
LINK_MARGIN_SECONDS = 3600.0


class ImageRequest(BaseModel):
    """One image to make.

    A field that is blank (None, NaN, NA, white space) is not given; a whole number where a text belongs is its text.

    :param prompt: What the picture shows; not blank.
    :param size: Aspect ratio such as ``16:9``; pixels or words for some models (docs/requests.md).
    :param resolution: ``0.5K``, ``1K``, ``2K``, ``3K`` or ``4K``, in capitals for every model; each takes some of them.
        ``1K`` is also what a request has that says none: where the model has no 1K, its first one is sent.
    :param reference_images: http(s) URLs, storage URIs or path objects, as many as the model takes; never data URIs.
    :param model: Model id; None stands for the connection's default.
    :param response_format: ``url`` or ``b64_json``.
    :param extra_body: Fields sent as they are; they win over ours.
    :param variant: Makes an otherwise equal request a different one; never sent.
    """

    model_config = _FROZEN

    prompt: str
    size: str = UNSAID_SIZE
    resolution: str = UNSAID_RESOLUTION
    reference_images: tuple[str, ...] = ()
    model: str | None = None
    response_format: Literal["url", "b64_json"] = "url"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    variant: str = ""

    #: The connection's own row of the model. No part of the request: how it is written changes nothing of what it is.
    _own_row: ModelRow | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_given(cls, fields: Any) -> Any:
        return given_fields(fields) if isinstance(fields, Mapping) else fields

    @field_validator("prompt", "size", "resolution", "model", "variant", mode="before")
    @classmethod
    def _as_text(cls, value: Any, info: ValidationInfo) -> Any:
        text = as_text(value)
        if isinstance(text, (str, int, float)):
            return text
        several = "; several pictures are several requests" if info.field_name == "prompt" else ""
        raise ValueError(f"is {type(value).__name__}, not one text{several}")

    @field_validator("prompt", "size", "resolution", "model", "variant")
    @classmethod
    def _sendable(cls, text: str | None) -> str | None:
        if fault := text_fault(text or ""):
            raise ValueError(fault)
        return text

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("is blank; describe the picture in at least one word")
        return prompt

    @field_validator("reference_images", mode="before")
    @classmethod
    def _list_of_texts(cls, references: Any) -> Any:
        if isinstance(references, str):
            raise ValueError("is one text; give a list of URLs")
        if isinstance(references, (bytes, Mapping)) or not isinstance(references, Iterable):
            return references
        if table_fault(references):
            raise ValueError(f"is a table ({type(references).__name__}); give a list of texts")
        if isinstance(references, Set):
            raise ValueError("is a set, which has no order; give a list")
        if not isinstance(references, Sized):
            references = listed(references, MAX_REFERENCE_IMAGES + 1, "reference_images")
        if len(references) > MAX_REFERENCE_IMAGES:
            raise ValueError(f"has {len(references)} entries; at most {MAX_REFERENCE_IMAGES} are allowed")
        entries = listed(references, len(references), "reference_images")
        return ["" if is_blank(entry) else as_reference(entry) for entry in entries]

    @field_validator("reference_images")
    @classmethod
    def _usable_references(cls, references: tuple[str, ...]) -> tuple[str, ...]:
        for position, reference in enumerate(references):
            if fault := _reference_fault(reference):
                raise ValueError(f"entry {position} {fault}")
        return references

    @field_validator("extra_body", mode="before")
    @classmethod
    def _json_only(cls, extra_body: Any) -> Any:
        if not isinstance(extra_body, Mapping):
            return extra_body
        try:
            texts = [text for text in values_in(extra_body, _DEEPEST, _MOST_VALUES) if isinstance(text, str)]
            json.dumps(extra_body if isinstance(extra_body, dict) else dict(extra_body), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON ({error}); give texts, numbers, lists and mappings only") from None
        if fault := next(filter(None, map(text_fault, texts)), None):
            raise ValueError(fault)
        if _sets(extra_body, "client_business_id"):
            raise ValueError("holds client_business_id, by which a retry finds what is paid; leave it out")
        if not isinstance(extra_body.get("model", ""), str):
            raise ValueError(f"holds a model that is {type(extra_body['model']).__name__}, not a text")
        return extra_body

    @classmethod
    def parse(
        cls,
        value: ImageRequest | Mapping[str, Any],
        default_model: str = catalogue.DEFAULT_MODEL,
        frame: str = _REFUSED,
        *,
        models: catalogue.Rows | None = None,
    ) -> ImageRequest:
        """Return the request with its model filled in and checked against what is known of that.

        :param frame: The words around the ``{faults}``.
        :param models: The connection's own rows of models.
        :raises InvalidRequest: with every fault and what is allowed; nothing was sent.
        """
        if not isinstance(value, (ImageRequest, Mapping)):
            raise InvalidRequest(
                f"An image request is a mapping with a 'prompt', not {type(value).__name__}; nothing was sent."
            )
        try:
            request = value if isinstance(value, cls) else cls.model_validate(dict(value))
        except ValidationError as error:
            raise InvalidRequest(frame.format(faults="; ".join(_faults(error)))) from None
        model = request.extra_body.get("model") or request.model or default_model
        request = request.model_copy(update={"model": model}).with_models(models)
        if faults := [*_prompt_faults(request.prompt), *request._model_faults(models)]:
            raise InvalidRequest(frame.format(faults="; ".join(faults)))
        return request

    def with_models(self, models: catalogue.Rows | None) -> ImageRequest:
        """Return the request as the rows of a connection have its model; one that was stored knows none of them."""
        copy = self.model_copy()
        copy._own_row = (models or {}).get(copy.model or catalogue.DEFAULT_MODEL)
        return copy

    @property
    def row(self) -> ModelRow | None:
        """What is known of its model; None for a model that nobody gave a row."""
        return self._own_row or catalogue.row_for(self.model or catalogue.DEFAULT_MODEL)

    def check_model(self) -> None:
        """Make sure that it is known how to write the request.

        :raises InvalidRequest: Nobody says how requests for its model are written, or nobody does any more.
        """
        if self.row is None:
            raise InvalidRequest(_REFUSED.format(faults=catalogue.no_row(self.model or "")))

    def _model_faults(self, models: catalogue.Rows | None) -> list[str]:
        model, row = self.model or catalogue.DEFAULT_MODEL, self.row
        if row is None:
            return [catalogue.no_row(model, models)]
        return row.faults(
            model,
            None if "size" in self.extra_body else self.size,
            None if _sets(self.extra_body, "resolution") else self.resolution,
            self.sent_references,
        )

    def to_body(self, client_business_id: str | None = None) -> dict[str, Any]:
        """Return the JSON body of a submit in the dialect of its model; ``extra_body`` wins, also inside objects.

        :raises InvalidRequest: As of :meth:`check_model`.
        """
        self.check_model()
        model = self.model or catalogue.DEFAULT_MODEL
        body: dict[str, Any] = {"model": model, "prompt": self.prompt, "size": self.size}
        if self.row is not None:
            resolution = self.row.sent_resolution(self.resolution)
            self.row.dialect.write(body, resolution, self.reference_images, self.response_format)
        if client_business_id is not None:
            body["client_business_id"] = client_business_id
        return self._with_extra(body)

    def _with_extra(self, body: dict[str, Any]) -> dict[str, Any]:
        for key, value in self.extra_body.items():
            ours = body.get(key)
            body[key] = {**ours, **value} if isinstance(ours, dict) and isinstance(value, dict) else value
        return body

    @property
    def sent_resolution(self) -> str:
        """The resolution as it is sent, which ``extra_body`` may set; spelled in capitals, as in a request."""
        return self._sent_shape()[1]

    @property
    def sent_references(self) -> int:
        """How many reference images are sent, those in ``extra_body`` included."""
        if not self.extra_body or self.row is None:
            return len(self.reference_images)
        return self.row.dialect.count_references(self.to_body())

    @property
    def asked_images(self) -> Any:
        """How many images one submit asks for, as ``extra_body`` may set it; not checked, it may be no number.

        Seedream makes several in sequence, each charged, also without ``n`` (docs.toapis.com, seedream-5.0-pro).
        """
        metadata = self.extra_body.get("metadata")
        if "n" not in self.extra_body and isinstance(metadata, Mapping):
            options = metadata.get("sequential_image_generation_options")
            most = options.get("max_images") if isinstance(options, Mapping) else None
            if metadata.get("sequential_image_generation", "disabled") != "disabled":
                return _MOST_IN_SEQUENCE if most is None else most
        return self.extra_body.get("n", 1)

    @property
    def billed_references(self) -> int:
        """How many of its reference images the model's price list bills."""
        return 0 if self.row is None else self.row.billed_references(self.sent_references)

    @property
    def billed_as(self) -> str:
        """What decides its price, for books: model id, resolution and, if any is billed, how many reference images."""
        words = [self.model or catalogue.DEFAULT_MODEL, self.sent_resolution]
        return " ".join([*words, *([str(self.sent_references)] if self.billed_references else [])])

    def list_price(self, overrides: catalogue.Prices | None = None, *, references: int | None = None) -> float | None:
        """Return the list price of its image in USD, reference images included; None where none is known.

        :param overrides: The connection's own prices.
        :param references: How many there are to be; None for those of the request.
        """
        model = self.model or catalogue.DEFAULT_MODEL
        own = {model: self._own_row} if self._own_row else None
        number = self.sent_references if references is None else references
        return catalogue.list_price(model, self.sent_resolution, overrides, own=own, references=number)

    def expected_pixels(self) -> tuple[int, int] | None:
        """Return the width and height that the request as it is sent stands for, or None where they are not known."""
        return None if self.row is None else self.row.pixel_size(*self._sent_shape())

    def _sent_shape(self) -> tuple[str, str]:
        """Return size and resolution as they are sent; the resolution as asked for where the model takes none."""
        if self.row is None:
            return self.size, self.resolution
        body = self.to_body()
        return str(body.get("size")), self.row.dialect.read_resolution(body) or self.resolution

    def sent_links(self) -> frozenset[str] | None:
        """Return the links in the body, or None where a reference is uploaded first: its link is not known yet."""
        if all(map(is_link, self.reference_images)):
            return links_in([self.prompt, list(self.reference_images), self.extra_body])
        return None

    def fingerprint(self, contents: Mapping[str, str] | None = None) -> str:
        """Return the hash that makes two requests the same one: 64 hex digits.

        Fields at their default are left out, so that a field added later changes no hash; so are what re-signing
        changes of a link, the form of the answer, and what is spelled in two ways: texts count in their composed form
        (NFC), and ``5.0`` is ``5``.

        :param contents: Digests of storage references, by their URI: those count by content.
        """
        known = contents or {}
        content = canonical(self.model_dump(mode="json", exclude_defaults=True, exclude={"response_format"}))
        # The scheme sets a content apart from any link.
        content["reference_images"] = [
            f"sha256:{known[uri]}" if uri in known else unsigned(uri) for uri in self.reference_images
        ]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_link(reference: str) -> bool:
    """Whether the service itself fetches a reference image: http(s) links; anything else is in a storage."""
    return urlsplit(reference.strip()).scheme.lower() in ("http", "https")


def links_in(body: Any) -> frozenset[str]:
    """Return the http(s) links anywhere in the body of a submit; none of them is ever a result."""
    texts = (value for value in values_in(body, _DEEPEST, 2 * _MOST_VALUES) if isinstance(value, str))
    return frozenset(text for text in texts if text.strip().lower().startswith(("http://", "https://")))


class GeneratedImage(BaseModel):
    """One image of a completed image task: a link that dies, or the bytes themselves.

    :param url: An absolute http(s) link, as far as it could be made one.
    :param b64_json: Base64 as the service wrote it, or a ``data:`` URI.
    """

    model_config = _FROZEN

    id: str
    index: int = 0
    url: str | None = Field(default=None, repr=False)
    b64_json: str | None = Field(default=None, repr=False)


class Billing(BaseModel):
    """What the service says an image task cost; amounts only once settled or refunded."""

    model_config = _FROZEN

    status: str
    cost_usd: float | None = None
    credits: float | None = None


class ImageTaskError(BaseModel):
    """Why the service ended an image task without an image."""

    model_config = _FROZEN

    code: str
    message: str


class ImageTask(BaseModel):
    """An image task as one answer showed it; times are epoch seconds.

    :param status: What the wire status amounts to.
    :param wire_status: The service's own word, for logs; one printable line of at most 64 characters.
    :param images: Numbered from 0; at most 16.
    :param answer: The answer itself as text, where it is completed and no image was found in it: at most 2,000
        characters, without key and without queries of links, for a person to fetch what was paid.
    """

    model_config = _FROZEN

    id: str
    status: ImageTaskStatus
    wire_status: str = ""
    model: str | None = None
    progress: float | None = None
    created_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    images: tuple[GeneratedImage, ...] = ()
    error: ImageTaskError | None = None
    billing: Billing | None = None
    client_business_id: str | None = None
    answer: str | None = Field(default=None, repr=False)

    @property
    def terminal(self) -> bool:
        """Whether the image task has ended."""
        return self.status is not ImageTaskStatus.RUNNING

    @property
    def expired_at_service(self) -> bool:
        """Whether the service itself calls the result expired: it was paid, it is lost and nothing is refunded."""
        return says_expired(self.wire_status)

    def expires(self, now: float) -> float:
        """Return when the links die, in epoch seconds: as reported, else 24 hours after completion (or ``now``)."""
        completed_at = self.completed_at or now
        # A moment at or before completion is a mistake of the service, not an image that was dead from the start.
        if self.expires_at is not None and self.expires_at > (self.completed_at or 0.0):
            return self.expires_at
        return completed_at + LINK_LIFETIME_SECONDS

    @property
    def cost_usd(self) -> float | None:
        """The cost the service settled, or None while it says nothing; absent never means free."""
        return self.billing.cost_usd if self.billing else None


def _sets(extra_body: Mapping[str, Any], field: str) -> bool:
    """Whether extra fields set a field of ours, at the top or in the metadata."""
    metadata = extra_body.get("metadata")
    return field in extra_body or (isinstance(metadata, Mapping) and field in metadata)


def _reference_fault(reference: str) -> str | None:
    if not reference:
        return "is blank; give a URL or a storage URI"
    if reference[:5].lower() == "data:":
        return (
            "is a data URI, which the service refuses; give an http(s) URL, or a storage URI (s3://, gs://, file://), "
            "which is uploaded for you"
        )
    if fault := _address_fault(reference):
        return fault
    try:
        urlsplit(reference)
    except ValueError:
        return f"is {reference!r:.80}, which is no URL"
    return None


def _address_fault(reference: str) -> str | None:
    if _SEVERAL.search(reference):
        return 'is several addresses in one text; give a list, in a cell of a file as JSON: ["https://...", "s3://..."]'
    if fault := text_fault(reference, lines=False):
        return fault
    if reference.lower().startswith(("http://", "https://")) and _BLANK.search(reference):
        return f"is {reference!r:.80}: a link holds no blank; write it as %20"
    return None


def _prompt_faults(prompt: str) -> Iterator[str]:
    """Yield what is wrong with a new prompt; no rule of the model, as a stored list may be paid and stays readable."""
    # Not repeated: it may hold credentials.
    if is_object_address(prompt):
        yield (
            "prompt is the address of a file or an object, and describes no picture; an XCom whose object is gone from "
            "the XCom backend's store comes as its address"
        )


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            yield f"{field!r} is no field of an image request; allowed: {', '.join(ImageRequest.model_fields)}"
        else:
            yield f"{field} {fault['msg'].removeprefix('Value error, ')}"
