"""What a ``nanobanana`` connection holds, read once and checked before anything is sent."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.errors import ConfigurationError
from airflow_provider_nanobanana.toapis.protocol import checked_key, is_loopback, normalise_host

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

_VERSION_PATH = "v1"
#: No image costs as much; what is far above is a slip of the pen.
_MOST_USD: Final = 1000
_KINDS: Final = ((str, "a text"), (bool, "true or false"), ((int, float), "a number"), ((list, tuple), "a list"))


class ToApisSettings(BaseModel):
    """The fields of a ``nanobanana`` connection, with their defaults; unknown extras are ignored.

    :param base_url: Without ``/v1`` and trailing slash.
    :param timeout: Seconds for one HTTP call.
    :param submit_rate: Submits per second that the account allows; all processes of one machine keep it together.
    :param query_rate: Status calls per second that the account allows.
    :param prices: USD per image by resolution (for every model), or by model and resolution, where the account's differ
        from the list or none is known: the generate operator estimates with them, and ``max_cost_usd`` counts them
        until the service says what was billed.
    :param client_ids: Whether submits carry a ``client_business_id``.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    base_url: str
    api_key: SecretStr
    model: str = Field(default=catalogue.DEFAULT_MODEL, min_length=1)
    timeout: float = Field(default=30.0, gt=0, le=600)
    submit_rate: float = Field(default=5.0, gt=0, le=10_000)
    query_rate: float = Field(default=50.0, gt=0, le=10_000)
    prices: dict[str, float | dict[str, float]] = Field(default_factory=dict)
    client_ids: bool = True
    allow_http: bool = Field(default=False, exclude=True)

    @field_validator("timeout", "submit_rate", "query_rate", mode="before")
    @classmethod
    def _no_switch(cls, number: Any) -> Any:
        if isinstance(number, bool):
            raise ValueError(f"is a number, not {str(number).lower()}")
        return number

    @field_validator("prices", mode="before")
    @classmethod
    def _from_text(cls, prices: Any) -> Any:
        # In the URI form of a connection every extra is a text.
        try:
            return json.loads(prices) if isinstance(prices, str) else prices
        except ValueError:
            raise ValueError('is no JSON; use a form like {"1K": 0.025}') from None

    @field_validator("prices")
    @classmethod
    def _real_prices(cls, prices: dict[str, float | dict[str, float]]) -> dict[str, float | dict[str, float]]:
        groups = (price.values() if isinstance(price, dict) else (price,) for price in prices.values())
        if not all(0 <= price <= _MOST_USD for group in groups for price in group):
            raise ValueError(f'holds a price that is none (0 to {_MOST_USD} USD); use a form like {{"1K": 0.025}}')
        return prices

    @classmethod
    def read(cls, connection: Connection, extra: Any) -> ToApisSettings:
        """Return the settings of a connection; ``extra`` is its decoded extra (async callers fetch it differently).

        :raises ConfigurationError: naming the field, what is wrong and what is allowed; never the key.
        """
        name = f"Connection {connection.conn_id!r}"
        if not (connection.password or "").strip():
            hint = " (it seems to be in the login field)" if connection.login else ""
            raise ConfigurationError(f"{name} holds no API key: put it into the password field{hint}.")
        try:
            key = checked_key(connection.password or "")
            given = {field: value for field, value in _object(extra).items() if value not in (None, "")}
            settings = cls.model_validate({**given, "base_url": _host(connection), "api_key": key})
            base_url = normalise_host(settings.base_url, allow_http=settings.allow_http)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error.message}") from None
        except ValidationError as error:
            raise ConfigurationError(f"{name}: {_explain(error)}.") from None
        return settings.model_copy(update={"base_url": base_url})


def _object(extra: Any) -> Mapping[str, Any]:
    """Return the extra as an object; JSON inside a JSON text, as in an environment variable, is read once more.

    :raises ConfigurationError: It is another JSON value.
    """
    if isinstance(extra, str):
        with contextlib.suppress(ValueError, RecursionError):
            extra = json.loads(extra)
    if extra is None or isinstance(extra, Mapping):
        return extra or {}
    kind = next((word for kinds, word in _KINDS if isinstance(extra, kinds)), type(extra).__name__)
    # Not repeated: people paste keys into the wrong field.
    raise ConfigurationError(f'extra must be a JSON object such as {{"timeout": 30}}, it is {kind}.')


def _host(connection: Connection) -> str:
    """Join what the forms of a connection scatter: scheme and path may sit in host or schema, the port apart."""
    host = unquote((connection.host or "").strip())
    schema = (connection.schema or "").strip().strip("/")
    if not host:
        return ""
    scheme, separator, rest = host.rpartition("://")
    authority, slash, path = rest.partition("/")
    if authority.count(":") > 1 and not authority.startswith("["):
        authority = f"[{authority}]"  # a bare IPv6 address
    name, colon, _ = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not separator:
        loopback = is_loopback((name if colon else authority).strip("[]").lower())
        scheme = schema if schema in ("http", "https") else "http" if loopback else "https"
    if connection.port and not colon:
        authority = f"{authority}:{connection.port}"
    if schema and schema not in ("http", "https", _VERSION_PATH):
        path = f"{path.rstrip('/')}/{schema}".lstrip("/")
    return f"{scheme}://{authority}{slash or ('/' if path else '')}{path}"


def _explain(error: ValidationError) -> str:
    # include_input would quote the key.
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"extra {'.'.join(map(str, fault['loc']))!r}: {fault['msg'].removeprefix('Value error, ')}" for fault in faults
    )
