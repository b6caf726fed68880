"""What a connection test finds, in words that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.connection import ConnectionSettings
    from airflow_provider_nanobanana.toapis.answers import Balance


def diagnose(model: str, models: Callable[[], list[str]], balance: Callable[..., Balance]) -> tuple[bool, str]:
    """Return whether an image could be bought, and why or why not.

    :param model: The connection's model id.
    :param models: Lists the models the key sees; free.
    :param balance: Asks for the credits of the account, or with ``of_key=True`` of the key; free. A gateway without
        these routes does not fail the test.
    """
    visible = models()
    if model not in visible:
        shown = ", ".join(sorted(visible)[:10]) or "none"
        return False, (
            f"The key works, but the model {model!r} is not visible to it (visible image models: {shown}). Set the "
            "extra 'model', or allow the model for this key in the ToAPIs console."
        )
    try:
        left, of_key = balance(), balance(of_key=True)
    except NanoBananaException as failure:
        return True, f"Key and model {model!r} work; the balance could not be read ({failure.error.message})"
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


def with_host(error: errors.ToApisError, settings: ConnectionSettings | None) -> str:
    """Return what went wrong, with the host where that may be the cause."""
    wrong_host = isinstance(error, (errors.ConnectionFailed, errors.InvalidRequest, errors.TransientFailure))
    if settings is None or not wrong_host:
        return error.message
    return f"{error.message} Check the host: {settings.base_url} (default https://toapis.com)."
