"""Images that came beside the one an order asked for (drafts, layers): what an attempt knows of them from before."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.landing.reuse import find_existing
from airflow_provider_nanobanana.toapis.image_search import MOST_IMAGES

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.landing import StoredImage

log = logging.getLogger(__name__)


def take_over(state: BatchState) -> None:
    """Forget the further images that are gone, and after a clear those that no retry brings: a person was told.

    A further image that is gone, or lost, is no reason to take an order up again: that may buy its first one anew.
    """
    wanted = {item.key: state.entry(item) for item in state.items}
    names = {file.stem for entry in wanted.values() for file in entry.extras}
    present = state.downloader.landing.present(names) if names else set()
    gone = 0
    for key, entry in wanted.items():
        extras = tuple(file for file in entry.extras if file.stem in present)
        lost = tuple(one for one in entry.lost if one.fault.retryable or not state.attempt.cleared)
        if (extras, lost) != (entry.extras, entry.lost):
            gone += len(entry.extras) + len(entry.lost) - len(extras) - len(lost)
            state.ledger.update(key, extras=extras, lost=lost)
    if gone:
        log.warning("%d images that came beside others are gone from the destination, or were given up", gone)


def find(state: BatchState, stems: Mapping[str, str]) -> dict[str, list[StoredImage]]:
    """Return the further images that earlier runs landed beside the first ones, verified, by order key.

    :param stems: Of the first ones, by order key.
    """
    found: dict[str, list[StoredImage]] = {}
    left = dict(stems)
    for index in range(1, MOST_IMAGES):
        if not left:
            break
        wanted = [(key, f"{stem}.{index}") for key, stem in left.items()]
        images = find_existing(state.downloader.landing, wanted)
        for key, image in images.items():
            found.setdefault(key, []).append(image.model_copy(update={"index": index}))
        # They are numbered without a gap, so that one listing is enough where there are none.
        left = {key: stem for key, stem in left.items() if key in images}
    return found
