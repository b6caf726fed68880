"""What an attempt takes over: what failed or vanished is taken up again, what earlier runs landed is not bought."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.batch.outcome import EXPIRED
from airflow_provider_nanobanana.hooks import extras
from airflow_provider_nanobanana.landing.reuse import find_landed

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.entry import Entry
    from airflow_provider_nanobanana.hooks.workshop import Workshop

log = logging.getLogger(__name__)


def reopen(shop: Workshop) -> None:
    """Take up again what ended without an image, where another attempt may bring it, and what is no longer in place."""
    landed = [(order, entry.landed) for order in shop.orders if (entry := shop.entry(order)).landed is not None]
    # By the name it has: a request that got another name keeps its picture.
    stems = {order.key: PurePosixPath(file.name).stem for order, file in landed if file}
    present = shop.retrieval.landing.present(set(stems.values()))
    lost = 0
    for order in shop.orders:
        entry = shop.entry(order)
        gone = order.key in stems and stems[order.key] not in present
        lost += gone
        if entry.status == "failed" and _again(shop, entry):
            shop.reopen(order, anew=entry.refunded or (entry.error is not None and entry.error.code == EXPIRED))
        elif entry.landed is not None and (gone or _wanted_anew(shop, entry)):
            shop.reopen(order, anew=entry.record is None or _wanted_anew(shop, entry))
        elif entry.status == "open" and entry.submitted_at is not None:
            shop.reopen(order)
    if lost:
        log.warning("%d images that were in place are gone from the destination", lost)
    extras.take_over(shop)


def _again(shop: Workshop, entry: Entry) -> bool:
    """Whether a failure may be worth another attempt: looking is free, and a clear asks for it once."""
    cleared = shop.attempt.cleared and _before_clear(shop, entry)
    return entry.error is None or entry.error.again or entry.error.charged == "unknown" or cleared


def _wanted_anew(shop: Workshop, entry: Entry) -> bool:
    """Whether the user cleared the task for another picture of the same request, and this is not it yet."""
    made_for = entry.record.regeneration if entry.record else 0
    # What was bought before the clear and landed after it serves, too.
    return not shop.rules.reuse_existing and made_for != shop.regeneration and _before_clear(shop, entry)


def _before_clear(shop: Workshop, entry: Entry) -> bool:
    return entry.record is None or entry.record.max_tries < shop.attempt.max_tries


def reuse(shop: Workshop, until: float) -> int:
    """Find what earlier runs landed for the same requests: it is verified and costs nothing.

    :return: How many orders the search has come past.
    """
    if not shop.rules.reuse_existing:
        return 0
    # A broken file leaves no other trace than that the search came past it.
    blank = [order for order in shop.orders[shop.notebook.note.searched :] if shop.untouched(order)]
    wanted = [(order.key, order.stem()) for order in blank]
    found = find_landed(shop.retrieval.landing, wanted, enough=lambda: shop.hook.clock() >= until)
    beside = extras.find(
        shop, {key: stem for key, stem in wanted if key in found.images}, lambda: shop.hook.clock() >= until
    )
    for order in blank:
        if image := found.images.get(order.key):
            shop.reused(order, image, beside.get(order.key, ()))
    shop.unverified = frozenset(found.unverified)
    if found.images:
        log.info("%d of %d images are in place already and cost nothing", len(found.images), len(shop.orders))
    left = (position for position, order in enumerate(shop.orders) if order.key in found.unverified)
    return next(left, len(shop.orders))
