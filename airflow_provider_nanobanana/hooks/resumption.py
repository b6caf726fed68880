"""What an attempt takes over: what failed or vanished is taken up again, what earlier runs landed is not bought."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.batch.outcome import EXPIRED
from airflow_provider_nanobanana.hooks import extras
from airflow_provider_nanobanana.landing.reuse import find_landed

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.durable.entry import Entry
    from airflow_provider_nanobanana.hooks.workshop import Workshop
    from airflow_provider_nanobanana.landing.reuse import Reusable

log = logging.getLogger(__name__)


def reopen(shop: Workshop) -> None:
    """Take up again what ended without an image, where another attempt may bring it, and what is no longer in place."""
    landed = [(order, entry.landed) for order in shop.orders if (entry := shop.entry(order)).landed is not None]
    # By the name it has: a request that got another name keeps its picture.
    stems = {order.key: PurePosixPath(file.name).stem for order, file in landed if file}
    present = shop.retrieval.landing.present(set(stems.values()))
    gone = [order for order, _ in landed if order.key in stems and stems[order.key] not in present]
    lost = {order.key for order in gone}
    for order in shop.orders:
        entry = shop.entry(order)
        anew = shop.bought_again(order)
        if entry.status == "failed" and _again(shop, entry):
            expired = entry.error is not None and entry.error.code == EXPIRED
            shop.reopen(order, anew=anew or entry.refunded or expired)
        elif entry.landed is not None and (order.key in lost or _wanted_anew(shop, entry)):
            shop.reopen(order, anew=anew or entry.record is None or _wanted_anew(shop, entry))
        elif entry.status == "open" and entry.submitted_at is not None:
            shop.reopen(order, anew=anew)
    _tell_lost(shop, gone, "gone from the destination")
    extras.take_over(shop)


def _tell_lost(shop: Workshop, lost: Sequence[Order], how: str) -> None:
    if lost:
        anew = sum(shop.to_buy(order) for order in lost)
        log.warning(
            "%d images that were in place are %s. Those whose links live are landed again for free; %d are to be "
            "bought again.",
            *(len(lost), how, anew),
        )


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
    return entry.record is None or shop.attempt.seems_cleared_since(entry.record)


def reuse(shop: Workshop, until: float, *, verify: bool) -> int:
    """Find what earlier runs landed for the same requests: it is verified and costs nothing.

    :param verify: Whether to look at what this run landed, too: a clear relies on no file that may have been cut short
        or replaced since.
    :return: How many orders the search has come past.
    """
    ahead = shop.orders[shop.notebook.note.searched :]
    # A broken file leaves no other trace than that the search came past it.
    blank = [order for order in ahead if shop.rules.reuse_existing and shop.untouched(order)]
    landed = {order.key: file for order in ahead if verify and (file := shop.entry(order).landed)}
    wanted = [(order.key, order.stem()) for order in blank]
    wanted += [(key, PurePosixPath(file.name).stem) for key, file in landed.items()]
    if not wanted:
        return len(shop.orders)
    found = find_landed(shop.retrieval.landing, wanted, enough=lambda: shop.hook.clock() >= until)
    beside = extras.find(
        shop, {key: stem for key, stem in wanted if key in found.images}, lambda: shop.hook.clock() >= until
    )
    for order in blank:
        if image := found.images.get(order.key):
            shop.reused(order, image, beside.get(order.key, ()))
    _take_back(shop, [order for order in ahead if order.key in landed], found)
    shop.unverified = frozenset(found.unverified)
    if reused := sum(order.key in found.images for order in blank):
        log.info("%d of %d images are in place already and cost nothing", reused, len(shop.orders))
    left = (position for position, order in enumerate(shop.orders) if order.key in found.unverified)
    return next(left, len(shop.orders))


def _take_back(shop: Workshop, landed: Sequence[Order], found: Reusable) -> None:
    """Take up again what lies under its name and is no whole image; another whole image there is left as it is."""
    for order in landed:
        if (image := found.images.get(order.key)) is not None:
            shop.verified(order, image)
    broken = [order for order in landed if order.key not in found.images and order.key not in found.unverified]
    for order in broken:
        shop.reopen(order, anew=shop.bought_again(order) or shop.entry(order).record is None)
    _tell_lost(shop, broken, "no whole images any more")
