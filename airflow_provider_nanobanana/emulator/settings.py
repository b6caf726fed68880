"""What can be set about an emulator: :class:`Settings`, and the Airflow connection that leads to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from airflow_provider_nanobanana.emulator.catalogue import ImageFormat
from airflow_provider_nanobanana.emulator.rate_limit import BURST_SECONDS, LimiterKind

T = TypeVar("T")

Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_UNLIMITED = 1000.0  # the connection knows no "unlimited"; far above what one client reaches


class Settings(BaseModel):
    """Everything a user may set; times in seconds, rates in requests per second."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    #: The key that is accepted.
    api_key: str = Field("sk-emulator", min_length=1)
    #: The key of a second account, which finds none of the first one's image tasks; empty for no such account.
    second_api_key: str = ""
    #: Median seconds from acceptance to completion; 0 completes at the first status query.
    latency: Number = 25.0
    #: Spread of the lognormal latency; 0 makes every latency exactly the median.
    sigma: Number = 0.4
    #: Multiplies every latency.
    time_scale: Number = 1.0
    #: Submit allowance (docs/toapis.md, "Rate limits": 5 for the default group); 0 lifts the limit.
    submit_rate: Number = 5.0
    #: Status query allowance (docs/toapis.md, "Rate limits": 50); 0 lifts the limit.
    query_rate: Number = 50.0
    #: What enforces both (docs/toapis.md, "Rate limits": a token bucket); see :mod:`.rate_limit`.
    limiter: LimiterKind = "token_bucket"
    #: What may pass at once after a pause, in seconds' worth of the rate: the burst of ``token_bucket``, the tolerance
    #: of ``gcra``.
    burst_seconds: Number = BURST_SECONDS
    #: Whether a refusal carries ``Retry-After`` and ``X-RateLimit-*``.
    limit_headers: bool = True
    #: Credits of the account (200 are one USD); ``None`` is unlimited.
    credits: Number | None = None
    #: Makes latencies and ids repeatable.
    seed: int | None = None
    #: Life of a result link after completion (docs/toapis.md, "Result links": 24 hours).
    link_seconds: Number = 86_400.0
    #: Seconds after acceptance before a ``client_business_id`` resolves.
    lookup_delay: Number = 0.0
    #: At most so many seconds more, another number for each image task.
    lookup_spread: Number = 0.0
    #: A submit is accepted at most so many seconds after it arrived, each after its own number of seconds and without
    #: asking whether the client still waits for the answer.
    commit_delay: Number = 0.0
    #: Share (0 to 1) of the submits accepted although their client hung up during ``commit_delay``.
    orphan_share: float = Field(1.0, ge=0, le=1)
    #: Client ids are ignored: never echoed, never resolved.
    ignore_client_ids: bool = False
    #: A submit that carries a client id is answered 400.
    reject_client_ids: bool = False
    #: What a submit with a used client id does: ``buy`` once more, ``return`` what the first one bought, or be
    #: ``refuse``d with 409.
    repeated_client_ids: Literal["buy", "return", "refuse"] = "buy"
    #: Format of images whose request does not name one.
    result_format: ImageFormat = "PNG"
    #: Suffix of every result link, right or wrong; empty is the right one.
    result_suffix: str = ""

    def changed(self, **changes: object) -> Settings:
        """Return a copy with some settings changed.

        :raises ValueError: A name is unknown or a value is out of range.
        """
        return validated(TypeAdapter(Settings), self.model_dump() | changes)

    def account_of(self, key: str) -> int | None:
        """Return whose key it is, 1 or 2; None for a key that is not accepted."""
        return {self.second_api_key: 2, self.api_key: 1, "": None}.get(key)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON, without the keys."""
        return self.model_dump(exclude={"api_key", "second_api_key"})


def validated(adapter: TypeAdapter[T], values: object) -> T:
    """Return values as the type of the adapter.

    :raises ValueError: They do not fit; the message names each field at fault in one line.
    """
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ValueError("; ".join(faults)) from error


def connection_json(api_url: str, settings: Settings, **extra: Any) -> dict[str, Any]:
    """Return the connection as Airflow's JSON form; ``allow_http`` is set where the host is not this machine."""
    own: dict[str, Any] = {
        "submit_rate": settings.submit_rate or _UNLIMITED,
        "query_rate": settings.query_rate or _UNLIMITED,
    }
    if urlsplit(api_url).hostname not in ("127.0.0.1", "localhost", "::1"):
        own["allow_http"] = True
    return {"conn_type": "nanobanana", "host": api_url, "password": settings.api_key, "extra": own | extra}


def url_host(host: str) -> str:
    """Return a host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
