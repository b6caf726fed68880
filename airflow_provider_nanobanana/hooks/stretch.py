"""One stretch of work on a batch: buy for a while, land meanwhile what is ready, save as it goes, and stop in time."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.waves import STRETCH_SECONDS, Progress, enough, wake_by
from airflow_provider_nanobanana.hooks.buyer import Buyer
from airflow_provider_nanobanana.hooks.collector import Collector
from airflow_provider_nanobanana.toapis.latency import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.hooks.workshop import Workshop

log = logging.getLogger(__name__)

#: Seconds between two rounds of collecting while the buying goes on.
_BETWEEN_ROUNDS: Final = 3.0
#: Airflow up to 3.3 fails some tasks that resume within seconds of deferring.
_LIMIT_PAUSE: Final = 20.0


@dataclass(frozen=True)
class Pause:
    """What a batch waits for between two stretches; moments are epoch seconds.

    :param image_task_ids: What runs; empty when the account's limit alone is waited for.
    :param wake_at: When to wake whatever has happened.
    :param enough: How many of them must have ended to wake before.
    """

    image_task_ids: list[str]
    created_at: list[float | None]
    kinds: list[str]
    wake_at: float
    enough: int


class Stretch:
    """A stretch of work in this process."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._collector = Collector(shop)
        settings = shop.hook.settings
        self._progress = Progress(shop.hook.clock(), shop.plan(), settings.submit_rate)

    def run(self) -> None:
        """Work until the stretch is over or nothing is left to do.

        :raises ToApisError: The trouble that let this stretch come nowhere.
        """
        shop = self._shop
        before = shop.plan()
        unsent = [] if shop.halt else shop.unsent()
        over = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="stretch") as side:
            collecting = side.submit(self._collect_until, over)
            try:
                if unsent:
                    Buyer(shop).buy(unsent, until=shop.hook.clock() + STRETCH_SECONDS)
            finally:
                over.set()
            collecting.result()
        self._collector.collect(shop.running()) if not unsent else self._collector.collect_ripe()
        shop.ledger.save()
        self._say(last=True)
        if shop.trouble is not None and shop.plan() == before:
            raise shop.trouble

    def pause(self) -> Pause | None:
        """Return what to wait for next, or None when the batch has ended."""
        shop = self._shop
        running, unsent = shop.running(), shop.unsent()
        more = 0 if shop.halt or self._broke(unsent) else len(unsent)
        if not running and not more:
            return None
        now = shop.hook.clock()
        # With nothing under way the account's limit alone is waited for.
        deadline = max((shop.submitted_at(order) + shop.timeout for order in running), default=now + _LIMIT_PAUSE)
        return Pause(
            image_task_ids=[shop.image_task_id(order) or "" for order in running],
            created_at=[shop.entry(order).submitted_at for order in running],
            kinds=[kind_of(order.request.model, order.request.resolution) for order in running],
            wake_at=wake_by(now, deadline, more),
            enough=enough(len(running), more),
        )

    def _broke(self, unsent: Sequence[Order]) -> bool:
        """Whether the limit of cost lets no further order through."""
        return bool(unsent) and not self._shop.budget.may_buy(unsent[0], self._shop.spent)

    def _collect_until(self, over: threading.Event) -> None:
        while not over.wait(_BETWEEN_ROUNDS):
            self._collector.collect_ripe()
            self._say()

    def _say(self, *, last: bool = False) -> None:
        shop = self._shop
        if line := self._progress.line(shop.hook.clock(), shop.plan(), shop.spent.usd, last=last):
            log.info("%s", line)
