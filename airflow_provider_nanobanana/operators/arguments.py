"""Arguments that several operators take, checked when a task runs: only then are they rendered and mapped."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from airflow_provider_nanobanana.landing import suspects
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.model_row import MAX_REFERENCE_IMAGES
from airflow_provider_nanobanana.toapis.request_values import as_text, is_blank, listed, table_fault

AllowPartial = bool | Literal["after_retries"]
OnBadRow = Literal["fail", "skip"]
OnSuspect = suspects.OnSuspect

#: The arguments of which each operator that has one takes the same values, beside ``on_unknown_submission``.
_CHOICES: Final = {
    "allow_partial": (True, False, "after_retries"),
    "on_bad_row": get_args(OnBadRow),
    "on_suspect": get_args(OnSuspect),
}
#: A wait beyond it is a mistake, in seconds; links live for a day.
_LONGEST: Final = timedelta(days=30).total_seconds()
#: As many as there are requests in one task.
_MOST_REDONE: Final = 20_000
MOST_VARIANTS: Final = 100


def check_choices(operator: object, *, flags: Collection[str]) -> None:
    """Check the arguments that have a few values, and what is true or false.

    :param flags: The names of the latter.
    :raises InvalidRequest: An argument is none of its choices; nothing was sent.
    """
    from airflow_provider_nanobanana.durable.claims import ClaimMode
    from airflow_provider_nanobanana.durable.reconcile import OnExpired, OnUnknownSubmission

    known: dict[str, tuple[object, ...]] = {
        "on_unknown_submission": get_args(OnUnknownSubmission),
        "on_expired": get_args(OnExpired),
        "claims": get_args(ClaimMode),
        **_CHOICES,
    }
    choices = {
        **{name: values for name, values in known.items() if hasattr(operator, name)},
        **dict.fromkeys(flags, (True, False)),
    }
    faults = [
        f"{name} is {' or '.join(map(repr, allowed))}, not {getattr(operator, name)!r:.40}"
        for name, allowed in choices.items()
        if getattr(operator, name) not in allowed
    ]
    if faults:
        raise InvalidRequest(f"Refused before sending: {'; '.join(faults)}. Nothing was charged.")


def parse_seconds(value: Any, name: str) -> float:
    """Return a number of seconds or a timedelta as seconds.

    :raises InvalidRequest: It is neither, or negative, or more than 30 days.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= _LONGEST:
        raise InvalidRequest(
            f"{name} is a number of seconds or a timedelta, from 0 to 30 days, not {value!r}. Nothing was charged."
        )
    return float(seconds)


def parse_usd(value: Any) -> Any:
    """Return an amount in USD as a number also where a template rendered it to text; what is none stays, to be refused.

    Only None stands for no limit: a text without a number is what a template makes of a misspelt name, and a limit that
    was asked for is no reason to spend without one.

    :raises InvalidRequest: A text that is no number.
    """
    if value is None or isinstance(value, bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        if not isinstance(value, str):
            return value
    raise InvalidRequest(
        f"max_cost_usd rendered to the text {value!r:.40}, which is no number of USD; for no limit leave it out. "
        "Nothing was sent and nothing was charged; a retry would meet the same."
    )


def parse_variants(value: Any) -> int:
    """Return how many pictures to make of each request, also where a template rendered it to text.

    :raises InvalidRequest: It is no whole number from 1 to 100; nothing was sent.
    """
    text = as_text(value)
    if isinstance(text, str) and text.strip().isascii() and text.strip().isdecimal():
        number = int(text.strip()[:10])
        if 1 <= number <= MOST_VARIANTS:
            return number
    raise InvalidRequest(
        f"variants is a whole number from 1 to {MOST_VARIANTS}, not {value!r:.40}. Nothing was sent and nothing was "
        "charged; a retry would meet the same."
    )


def parse_flag(value: Any, name: str) -> bool:
    """Return a value that is true or false, also where a template rendered it to ``True`` or ``false``.

    :raises InvalidRequest: It is anything else; nothing was sent.
    """
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("true", "false"):
        return word == "true"
    raise InvalidRequest(
        f"{name} is True or False, not {value!r:.40}. Nothing was sent and nothing was charged; a retry would meet the "
        "same."
    )


def one_prompt(value: Any) -> Any:
    """Return the argument ``prompt`` as one text, or None where it is not given.

    :raises InvalidRequest: It is anything else, such as a list, of which each entry would be bought.
    """
    text = as_text(value)
    if isinstance(text, str):
        return text
    if is_blank(text):
        return None
    raise InvalidRequest(
        f"prompt is one text, not {type(value).__name__}; for several pictures use requests (a list of texts and "
        "mappings) or .expand(prompt=[...]). Nothing was sent and nothing was charged; a retry would meet the same."
    )


def as_list(value: Any) -> Any:
    """Return reference images that can be read only once as a list, since each request reads them.

    :raises InvalidRequest: Reading it fails, or it is too long.
    """
    return listed(value, MAX_REFERENCE_IMAGES + 1, "reference_images") if isinstance(value, Iterator) else value


def parse_redo(value: Any) -> list[str]:
    """Return the images to make again: of each a name, the position of its request in digits, or a URI.

    :param value: One of them (a position may be a number), the record of an image (a mapping with its ``uri``, as in
        what a review returned), or a list of these; a list as text, in JSON or as Python spells it, which is what
        ``{{ params.redo }}`` renders to; None, the text ``None``, or a blank text, for none.
    :raises InvalidRequest: It is anything else; nothing was sent.
    """
    entries = _listed_in_text(value) if isinstance(value, str) else value
    if is_blank(entries):
        return []
    one = isinstance(entries, (str, Mapping)) or isinstance(as_text(entries), str)
    if not one and (isinstance(entries, bytes) or not isinstance(entries, Iterable) or table_fault(entries)):
        raise _no_redo(value)
    given = [entries] if one else listed(entries, _MOST_REDONE, "redo")
    texts = [as_text(entry.get("uri") if isinstance(entry, Mapping) else entry) for entry in given]
    if any(not isinstance(text, str) or is_blank(text) for text in texts):
        raise _no_redo(value)
    return texts


def _listed_in_text(text: str) -> Any:
    """Return the list that a text spells, None for the text ``None``, else the text."""
    if text.strip() == "None":
        return None
    if text.lstrip().startswith(("[", "{")):
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                return read(text.strip())
    return text


def _no_redo(value: Any) -> InvalidRequest:
    return InvalidRequest(
        "redo is a list of names, positions (from 0), URIs or records of images, in a template {{ params.redo }}, not "
        f"{value!r:.80}. Nothing was sent and nothing was charged; a retry would meet the same."
    )


def parse_meta(value: Any) -> dict[str, Any] | None:
    """Return a row's own data, given as a mapping or as its JSON; None where there is none.

    :raises InvalidRequest: It is no mapping, no JSON, or too large; nothing was sent.
    """
    from airflow_provider_nanobanana.batch.cells import read_meta
    from airflow_provider_nanobanana.batch.requests import own_data

    try:
        return read_meta(own_data(value)) or None
    except InvalidRequest as error:
        raise error.reworded(f"{error.message}. Nothing was sent and nothing was charged.") from error


def parse_adopt(value: Any) -> dict[str, str]:
    """Return the image tasks chosen by a person, by the ``client_business_id`` of the submit they belong to.

    :param value: A mapping, or its JSON as text, which is what a template renders to; None or nothing for none.
    :raises InvalidRequest: It is no mapping of text to text.
    """
    chosen = value
    if isinstance(value, str):
        try:
            chosen = json.loads(value) if value.strip() else None
        except ValueError:
            chosen = value
    if chosen is None:
        return {}
    if isinstance(chosen, Mapping) and all(isinstance(text, str) for pair in chosen.items() for text in pair):
        return dict(chosen)
    raise InvalidRequest(
        "adopt is a mapping of client_business_id to image task id, both texts, or its JSON (in a template: "
        f"{{{{ var.json.get('nanobanana_adopt', None) | tojson }}}}), not {value!r:.80}. Nothing was sent "
        "and nothing was charged; a retry would meet the same."
    )
