"""A ``nanobanana`` connection: its forms read as settings (``read_connection``), and its test (``check_account``)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from pydantic import ValidationError

from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.toapis import catalogue, errors
from airflow_provider_nanobanana.toapis.errors import ConfigurationError
from airflow_provider_nanobanana.toapis.protocol import checked_key, is_loopback, normalise_host
from airflow_provider_nanobanana.toapis.settings import ToApisSettings

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_nanobanana.toapis.responses import Balance

_VERSION_PATH = "v1"
_KINDS: Final = ((str, "a text"), (bool, "true or false"), ((int, float), "a number"), ((list, tuple), "a list"))


def read_connection(connection: Connection, extra: Any) -> ToApisSettings:
    """Return the settings that a connection holds.

    :param connection: An Airflow connection; its extra is not read.
    :param extra: Its extra, decoded: a mapping, JSON as text, or None. Async callers fetch it in another way.
    :raises ConfigurationError: Names the field, what is wrong and what is allowed; never the key.
    """
    name = f"Connection {connection.conn_id!r}"
    if not (connection.password or "").strip():
        hint = " (it seems to be in the login field)" if connection.login else ""
        raise ConfigurationError(f"{name} holds no API key: put it into the password field{hint}.")
    try:
        key = checked_key(connection.password or "")
        given = {field: value for field, value in _object(extra).items() if value not in (None, "")}
        settings = ToApisSettings.model_validate({**given, "base_url": _host(connection), "api_key": key})
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


def check_account(
    model: str,
    models: Callable[[], list[str]],
    balance: Callable[..., Balance],
    rows: catalogue.Rows | None = None,
) -> tuple[bool, str]:
    """Return whether an image could be bought, and why or why not.

    :param model: The connection's model id.
    :param models: Lists the models the key sees; free.
    :param balance: Asks for the credits of the account, or with ``of_key=True`` of the key; free. A gateway without
        these routes does not fail the test.
    :param rows: The connection's own rows of models.
    """
    visible = models()
    if model not in visible:
        shown = ", ".join(sorted(visible)[:10]) or "none"
        return False, (
            f"The key works, but the model {model!r} is not visible to it (visible image models: {shown}). Set the "
            "extra 'model', or allow the model for this key in the ToAPIs console."
        )
    if catalogue.row_for(model, rows) is None:
        return False, f"The key works and sees the model {model!r}, but {catalogue.no_row(model, rows)}."
    try:
        left = balance()
        of_key = balance(of_key=True)
    except NanoBananaException as failure:
        return True, f"Key and model {model!r} work; the balance could not be read ({failure.error.message})"
    return _judge_balance(model, left, of_key)


def _judge_balance(model: str, left: Balance, of_key: Balance) -> tuple[bool, str]:
    if not left.unlimited and not left.remain_credits:
        return False, f"Key and model {model!r} work, but no credits are left: top up in the ToAPIs console."
    if not of_key.unlimited and of_key.remain_credits == 0:
        return (
            False,
            f"Key and model {model!r} work, but this key's own quota is spent: raise it in the ToAPIs console.",
        )
    if left.unlimited:
        return True, f"Key and model {model!r} work; the account has no credit limit."
    return True, f"Key and model {model!r} work; {left.remain_credits:g} credits left (about ${left.remain_usd:.2f})."


def failure_text(error: errors.ToApisError, settings: ToApisSettings | None) -> str:
    """Return what the connection test met, with the host where that may be the cause."""
    wrong_host = isinstance(error, (errors.ConnectionFailed, errors.InvalidRequest, errors.TransientFailure))
    if settings is None or not wrong_host:
        return error.message
    return f"{error.message} Check the host: {settings.base_url} (default https://toapis.com)."
