"""ApiCall: what to send to the gateway and what its answer means, without I/O.

Both HTTP clients are shells over it and ``RequestRetry``; neither decides anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlsplit

from airflow_provider_nanobanana.toapis import errors, responses
from airflow_provider_nanobanana.toapis.classify import CallKind, classify, no_response_error
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask, links_in
from airflow_provider_nanobanana.toapis.responses import ApiResponse, Balance, NoResponse

T = TypeVar("T")

#: How the client ids begin that this package makes up (``durable.record``).
_OUR_CLIENT_IDS: Final = "nb-"
_URL_CHARACTERS: Final = re.compile(r"[!-~]+")
#: What people paste after the base URL: the version, or a whole route of the documentation.
_API_PATH: Final = re.compile(r"/+v1(/+((images|uploads|models|user|balance|chat|tasks)(/.*)?)?)?$")
#: A key that was never filled in: ``$KEY``, ``${KEY}``, ``{{ key }}``, ``<your key>``.
_PLACEHOLDER: Final = re.compile(r"[$<{%]")

_QUOTES: Final = "\"'`\u201c\u201d\u2018\u2019"

DEFAULT_HOST: Final = "https://toapis.com"
#: What a worker reads of an answer: the largest image that is landed (64 MiB) is 85.4 MiB as base64; what a 4K image of
#: 4096 x 4096 pixels has at most, noise in three bytes a pixel (48 MiB), is 64. Its JSON holds a few values beside it.
MAX_RESPONSE_BYTES: Final = 96 * 1024 * 1024
MAX_RESPONSE_VALUES: Final = 100_000
#: What a triggerer reads: an answer with links has one or two kilobytes and 30 values. Measured on a heap such as
#: Airflow's: a tenth of a second for one garbage collection, which the containers of one longer answer would cause.
MAX_POLLED_BYTES: Final = 256 * 1024
MAX_POLLED_VALUES: Final = 5_000


@dataclass(frozen=True)
class Upload:
    """A reference image on its way out."""

    filename: str
    content: bytes
    mime_type: str


@dataclass(frozen=True)
class ApiCall(Generic[T]):
    """One call to the gateway and how to read its answer.

    :param read: Turns a 2xx answer that is a JSON object into the result, or returns None when it holds none.
    """

    kind: CallKind
    method: str
    path: str
    read: Callable[[ApiResponse], T | None]
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    upload: Upload | None = None
    image_task_id: str | None = None

    def parse(self, response: ApiResponse | NoResponse, now: float) -> T:
        """Return the result of a response; ``now`` is epoch seconds.

        :raises ToApisError: the one error that the response is.
        """
        if isinstance(response, ApiResponse) and self._is_unread(response):
            response = NoResponse(sent=True, reason="the answer was too long", too_long=True)
        if isinstance(response, NoResponse):
            raise no_response_error(response, self.kind, self.image_task_id)
        body = response.json_object if 200 <= response.status < 300 else None
        if body is not None and not responses.is_refusal(body):
            result = self.read(response)
            if result is not None:
                return result
        raise classify(response, self.kind, now, self.image_task_id)

    def _is_unread(self, response: ApiResponse) -> bool:
        """Whether what an answer says is in what was not read of it; of an error's, status and beginning are enough.

        A submit is unknown then, whatever its status.
        """
        holds_result = 200 <= response.status < 300 and response.body[:64].lstrip()[:1] in (b"{", b"[")
        return response.too_long and (holds_result or self.kind is CallKind.SUBMIT)


def submit_call(request: ImageRequest, client_business_id: str | None = None) -> ApiCall[ImageTask]:
    """Return the call that buys one image; the request must have come out of :meth:`ImageRequest.parse`."""
    body = request.to_body(client_business_id)
    read = partial(responses.parse_submitted, client_business_id=client_business_id, sent=links_in(body))
    return ApiCall(CallKind.SUBMIT, "POST", "/v1/images/generations", read, body=body)


def status_call(
    image_task_id: str, sent: Collection[str] | None = None, *, by_client_id: bool | None = None
) -> ApiCall[ImageTask]:
    """Return the free call that asks for one image task, by its id or by its ``client_business_id``.

    :param sent: :meth:`ImageRequest.sent_links` of its request, where that is known.
    :param by_client_id: Whether the id is a client id, which the answer need not repeat; by default one of ours is.
    """
    chosen = image_task_id.startswith(_OUR_CLIENT_IDS) if by_client_id is None else by_client_id

    def read(response: ApiResponse) -> ImageTask | None:
        if responses.speaks_of_another(response, image_task_id, by_client_id=chosen):
            raise errors.TransientFailure(
                f"The answer to a status call for image task {image_task_id} speaks of another one; it is not taken.",
                image_task_id=image_task_id,
                http_status=response.status,
                charged="yes",
            )
        return responses.parse_polled(response, image_task_id, sent)

    # Half a character must not end a poll in an error of its own; the service knows no such id.
    segment = quote(image_task_id, safe="", errors="surrogatepass")
    # A lone "." or ".." would be taken for a step in the path, quoted or not.
    segment = segment if segment.strip(".") else "%2E" * len(segment)
    path = f"/v1/images/generations/{segment}"
    return ApiCall(CallKind.STATUS, "GET", path, read, image_task_id=image_task_id)


def models_call() -> ApiCall[list[str]]:
    """Return the free call that lists the image models this key sees (without ``type`` only text models are listed)."""
    return ApiCall(CallKind.ACCOUNT, "GET", "/v1/models", responses.parse_model_ids, params={"type": "image"})


def balance_call(*, of_key: bool = False) -> ApiCall[Balance]:
    """Return the free call that asks what the account has left, or what this key may still spend of it."""
    path = "/v1/balance" if of_key else "/v1/user/balance"
    return ApiCall(CallKind.ACCOUNT, "GET", path, responses.parse_balance)


def upload_call(upload: Upload) -> ApiCall[str]:
    """Return the free call that uploads a reference image and answers with its public URL."""
    return ApiCall(CallKind.UPLOAD, "POST", "/v1/uploads/images", responses.parse_upload_url, upload=upload)


def checked_key(api_key: str) -> str:
    """Return an API key without the blanks and line ends around it.

    :raises ConfigurationError: what stands in the password is no key; it is not repeated.
    """
    key = api_key.strip()
    if re.match(r"(authorization\b|bearer\b(?!-))", key, re.IGNORECASE):
        wrong = 'begins with "Bearer" or "Authorization", which is added by itself: leave it out'
    elif not key or key[0] in _QUOTES or key[-1] in _QUOTES:
        wrong = "stands in quotes: leave them out" if key else "is empty"
    elif _PLACEHOLDER.match(key):
        wrong = "is a placeholder that was never filled in"
    elif not _URL_CHARACTERS.fullmatch(key):
        wrong = "holds a blank, a line end or characters no key has (web pages add invisible ones): paste it again"
    else:
        return key
    raise errors.ConfigurationError(f"The API key (the connection's password) {wrong}. Nothing was sent.")


def normalise_host(host: str | None, *, allow_http: bool = False) -> str:
    """Return the base URL without ``/v1`` and trailing slash; ``host`` may lack a scheme.

    :raises ConfigurationError: with the form that is allowed.
    """
    text = (host or "").strip() or DEFAULT_HOST
    if "://" not in text:
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        hostname, port = parts.hostname, parts.port
    except ValueError:
        hostname, port = None, None
    # What was typed is not repeated: people paste keys into the wrong field.
    if not hostname or parts.scheme not in ("http", "https") or not _URL_CHARACTERS.fullmatch(text):
        raise errors.ConfigurationError(f"The host is no base URL; use a form like {DEFAULT_HOST!r}.")
    if parts.query or parts.fragment or parts.username is not None:
        raise errors.ConfigurationError(
            "The host may hold no user, password, query or fragment; the API key goes into the password."
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(hostname):
        raise errors.ConfigurationError(
            "The host is plain http, which would send the API key in the clear. Use https; http is allowed for "
            'loopback, or with the extra {"allow_http": true} for an emulator in a neighbouring container.'
        )
    path = _API_PATH.sub("", parts.path).rstrip("/")
    shown_host = f"[{hostname}]" if ":" in hostname else hostname
    return f"{parts.scheme}://{shown_host}{f':{port}' if port else ''}{path}"


def is_loopback(hostname: str) -> bool:
    """Whether a host name or literal address is this machine's own."""
    return hostname in ("localhost", "::1") or (hostname.startswith("127.") and hostname.replace(".", "").isdigit())
