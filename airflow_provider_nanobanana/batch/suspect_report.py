"""What is said of the suspect pictures of a finished batch that are in place: one line of the log, or the error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.landing.suspects import in_order, in_words
from airflow_provider_nanobanana.toapis.errors import ImageSuspect
from airflow_provider_nanobanana.toapis.failure_codes import SUSPECT
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.suspects import OnSuspect

log = LineLogger(__name__)

_MOST_LISTED: Final = 20


def report_suspects(
    images: Iterable[Mapping[str, Any]], names: Mapping[str, str], on_suspect: OnSuspect, **tags: str | None
) -> ImageSuspect | None:
    """Log the suspect pictures that are in place, and return the error they amount to with ``fail``.

    Nothing is bought, moved or lost by it: no retry changes what the pictures show.

    :param images: Records of the images of a result.
    :param names: What people call an image, by its URI; the others go by the name of their file.
    :param tags: Of the metric of what is only seen here: the same bytes for different prompts.
    """
    suspects = [image for image in images if image.get("suspect")]
    if not suspects:
        return None
    if same := sum("same_bytes" in image["suspect"] for image in suspects):
        metrics.count("suspect", same, **tags, code="same_bytes")
    counts = Counter(code for image in suspects for code in image["suspect"])
    kinds = ", ".join(f"{code} {counts[code]:,}" for code in in_order(counts))
    log.warning(
        "Suspect pictures in place: %d (%s): %s", len(suspects), kinds, ", ".join(_listed(suspects, names, words=False))
    )
    if on_suspect != "fail":
        return None
    lines = "\n".join(_listed(suspects, names, words=True))
    return ImageSuspect(
        f"{len(suspects):,} pictures are suspect ({kinds}). They are paid and in place; a retry or a clear buys "
        f"nothing.\n{lines}",
        code=SUSPECT.code,
    )


def _listed(suspects: Sequence[Mapping[str, Any]], names: Mapping[str, str], *, words: bool) -> list[str]:
    """Return the names of the first pictures, with what makes each suspect where asked for."""
    shown = [
        _name(image, names) + (f": {in_words(image['suspect'])}" if words else "") for image in suspects[:_MOST_LISTED]
    ]
    more = len(suspects) - len(shown)
    return [*shown, *([f"and {more:,} more"] if more else [])]


def _name(image: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return names.get(image["uri"]) or PurePosixPath(image["uri"]).name
