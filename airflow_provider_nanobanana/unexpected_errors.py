"""wrap_unexpected_errors(): an error that nobody foresaw ends the image it happened to, and none beside it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from airflow_provider_nanobanana.toapis.errors import Charged, ToApisError, TransientFailure
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.redaction import one_line

log = LineLogger(__name__)

#: The path of a link may be as secret as its query.
_LINK: Final = re.compile(r"https?://\S+", re.IGNORECASE)
#: Kinds and places of errors that this process has logged with their traceback.
_logged: Final[set[tuple[str, str]]] = set()


class Unexpected(TransientFailure):
    """An error that this package does not foresee; it may pass."""


@contextmanager
def wrap_unexpected_errors(what: str, *, image_task_id: str | None = None, charged: Charged = "yes") -> Iterator[None]:
    """Turn an error of the block that is no :class:`ToApisError` into one that may be retried.

    The log has the traceback, once for each place in a process. What ends a task (``AirflowTaskTimeout``,
    ``KeyboardInterrupt``, ``SystemExit``) passes.

    :param what: What did not succeed, as the beginning of a sentence.
    :param charged: What is known of the money.
    :raises Unexpected: In place of any other ``Exception``.
    """
    try:
        yield
    except ToApisError:
        raise
    except Exception as error:  # noqa: BLE001 - foreign code meets foreign bytes here, and what is paid goes on
        kind = type(error).__name__
        words = _LINK.sub("<link>", one_line(str(error)))
        _log_once(kind, _place(error), words, "".join(traceback.format_tb(error.__traceback__)))
        message = f"{what}: unexpected {kind}, with its traceback in the log. It may pass: a retry tries again."
        # The words of a foreign error may hold what is secret; they go into the log, cleaned, and no further.
        raise Unexpected(message, image_task_id=image_task_id, charged=charged) from None


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _log_once(kind: str, place: str, words: str, frames: str) -> None:
    if (kind, place) not in _logged:
        _logged.add((kind, place))
        log.error("Unexpected %s: %s\n%sMore of this kind are logged in short.", kind, words, frames)
