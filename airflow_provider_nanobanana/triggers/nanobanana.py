"""The trigger that watches image tasks without a worker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook

if TYPE_CHECKING:
    from airflow_provider_nanobanana.triggers.poller import Watch

#: An event is logged whole and stored; this many statuses keep it below 4 kB.
_MOST_LISTED = 40


class NanoBananaTrigger(BaseTrigger):
    """Poll image tasks until all have ended, the deadline has passed or polling is refused; then yield one event.

    The event wakes a worker, which reads the results itself: no link and no key travels through it.

    :param image_task_ids: The image tasks still running when the wait was deferred.
    :param nanobanana_conn_id: Id of the connection.
    :param started_at: When the watch began, in epoch seconds.
    :param deadline: When it ends, in epoch seconds; wall clock, since a trigger moves between processes.
    :param poll_interval: Seconds between two polls of one image task.
    :param first_polls: For each id the moment from which polling pays, in epoch seconds; now when left out.
    """

    def __init__(
        self,
        *,
        image_task_ids: Sequence[str],
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        started_at: float = 0.0,
        deadline: float = 0.0,
        poll_interval: float = 5.0,
        first_polls: Sequence[float] | None = None,
        # A newer version may have stored more; an older triggerer must still start.
        **_from_newer_versions: Any,
    ) -> None:
        super().__init__()
        self.image_task_ids = list(image_task_ids)
        self.nanobanana_conn_id = nanobanana_conn_id
        self.started_at = started_at
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.first_polls = None if first_polls is None else list(first_polls)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; they are stored in clear text and hold no secret."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "image_task_ids": self.image_task_ids,
            "nanobanana_conn_id": self.nanobanana_conn_id,
            "started_at": self.started_at,
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "first_polls": self.first_polls,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch, then yield one event."""
        from airflow_provider_nanobanana.toapis.outcome import Wait
        from airflow_provider_nanobanana.triggers.poller import Watch

        # Every start begins anew from the arguments: a restarted triggerer knows nothing of the former one.
        first_polls = self.first_polls if self.first_polls is not None else [time.time()] * len(self.image_task_ids)
        async with NanoBananaHook(self.nanobanana_conn_id) as hook:
            settings = await hook.asettings()
            watch = Watch(
                list(zip(self.image_task_ids, first_polls, strict=True)),
                look=hook.aget_task,
                wait=Wait(self.started_at or time.time(), self.deadline),
                interval=self.poll_interval,
                rate=settings.query_rate,
                log=self.log,
            )
            await watch.run()
        yield TriggerEvent(self._event(watch))

    def _event(self, watch: Watch) -> dict[str, Any]:
        """Return what wakes the worker: ids and statuses, and the moments that a deferral loses."""
        statuses = {image_task_id: watch.statuses.get(image_task_id, "unseen") for image_task_id in self.image_task_ids}
        return {
            "version": 1,
            "outcome": watch.outcome,
            "error_code": watch.error_code,
            "started_at": self.started_at,
            "deadline": self.deadline,
            "counts": dict(Counter(statuses.values())),
            "statuses": dict(list(statuses.items())[:_MOST_LISTED]),
        }
