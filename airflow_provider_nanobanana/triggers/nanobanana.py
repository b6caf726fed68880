"""NanoBananaTrigger: polls image tasks in the triggerer while their task instance holds no worker."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.stored_forms import WAIT
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.triggers.newer_wait import wake_later

if TYPE_CHECKING:
    from airflow_provider_nanobanana.polling.subscription import Subscription
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

log = LineLogger(__name__)

#: An event is logged whole and stored; so many statuses, and bytes of them as JSON, keep it below 4 kB.
_MOST_LISTED, _MOST_LISTED_BYTES = 40, 2000
#: Different statuses counted; what is rarer is left out.
_MOST_COUNTED = 20
#: What to do where a triggerer does not see a connection that workers do.
NOT_SEEN: Final = (
    "Triggers read connections from Airflow's database, a secrets backend, or the triggerer's own environment. A "
    "connection that belongs to a team (Airflow 3.2 and later) is seen by no trigger: use one without a team, or wait "
    "in the worker (deferrable=False)."
)
#: Set when this process has imported what a wait needs.
_preloaded = threading.Event()


class NanoBananaTrigger(BaseTrigger):
    """Poll image tasks until all have ended, the deadline has passed or polling is refused; then yield one event.

    The event wakes a worker, which reads the results itself: no link and no key travels through it. It is
    ``{"version": 1, "outcome": "finished"|"enough"|"timeout"|"refused", "error_code", "started_at", "deadline",
    "counts", "statuses"}``, below 4 kB. All triggers of a connection in one process share a poller, which keeps the
    account's ``query_rate``.

    :param image_task_ids: The image tasks still running when the wait was deferred.
    :param nanobanana_conn_id: Id of the connection.
    :param started_at: When the wait began, in epoch seconds.
    :param deadline: When the wait ends, in epoch seconds; wall clock, since a trigger moves between processes.
    :param poll_interval: Seconds between two polls of one image task.
    :param created_at: For each id when it was submitted, in epoch seconds, or None; decides when polling begins.
    :param kinds: For each id, or one for all, what decides how long it takes: model, or model and resolution
        (``nano_banana_2/2K``).
    :param not_before: Epoch seconds before which nothing is polled.
    :param enough: How many image tasks must be final to wake the worker; all when None.
    :param version: Of these arguments, as they are stored. A newer one that this triggerer does not know wakes the
        worker after a minute, which asks for itself; unknown arguments of a version that it knows are left out.
    """

    def __init__(
        self,
        *,
        image_task_ids: Sequence[str] = (),
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        started_at: float = 0.0,
        deadline: float = 0.0,
        poll_interval: float = 5.0,
        created_at: Sequence[float | None] | None = None,
        kinds: Sequence[str] | str = "",
        not_before: float = 0.0,
        enough: int | None = None,
        version: int = WAIT.version,
        # A newer version may have stored more; an older triggerer must still start.
        **from_newer_versions: Any,
    ) -> None:
        super().__init__()
        self.image_task_ids = list(image_task_ids)
        self.nanobanana_conn_id = nanobanana_conn_id
        self.started_at = started_at
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.created_at = None if created_at is None else list(created_at)
        self.kinds = kinds if isinstance(kinds, str) else list(kinds)
        self.not_before = not_before
        self.enough = enough
        self.version = version
        self.from_newer_versions = from_newer_versions

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; they are stored in clear text and hold no secret."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "image_task_ids": self.image_task_ids,
            "nanobanana_conn_id": self.nanobanana_conn_id,
            "started_at": self.started_at,
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "created_at": self.created_at,
            "kinds": self.kinds,
            "not_before": self.not_before,
            "enough": self.enough,
            "version": self.version,
            **self.from_newer_versions,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is something to wake a worker for, then yield one event."""
        if WAIT.is_newer(self.version):
            # What a wait of any version has, comes back as it is: without it a sensor's timeout would begin anew.
            known = {"started_at": self.started_at, "deadline": self.deadline} if self.deadline else {}
            yield TriggerEvent({**await wake_later(self.version), **known})
            return
        if self.from_newer_versions:
            log.info("Left out, since only a later version knows it: %s", ", ".join(sorted(self.from_newer_versions)))
        if not _preloaded.is_set():
            await asyncio.to_thread(_preload)
        from airflow_provider_nanobanana.polling.poller import shared_poller

        # Every start begins again from the arguments: a restarted triggerer knows nothing of the former one.
        subscription = self._subscription()
        async with shared_poller(self.nanobanana_conn_id, read_settings) as poller:
            await poller.wait_until_over(subscription)
        yield TriggerEvent(self._event(subscription))

    async def on_kill(self) -> None:
        """Log what goes on: Airflow 3.3 and later call this when a user ends or clears the deferred task."""
        log.warning(
            "The wait was ended by hand. The service has no cancel: image tasks that go on and stay paid: %d (%s)",
            len(self.image_task_ids),
            ", ".join(self.image_task_ids),
        )

    def _subscription(self) -> Subscription:
        from airflow_provider_nanobanana.polling.result import WaitWindow
        from airflow_provider_nanobanana.polling.subscription import PollTarget, Subscription

        created_at = self.created_at or [None] * len(self.image_task_ids)
        kinds = [self.kinds] * len(self.image_task_ids) if isinstance(self.kinds, str) else self.kinds
        return Subscription(
            [PollTarget(*target) for target in zip(self.image_task_ids, created_at, kinds, strict=True)],
            wait=WaitWindow(self.started_at or time.time(), self.deadline),
            interval=self.poll_interval,
            not_before=self.not_before,
            enough=self.enough,
            log=log,
        )

    def _event(self, subscription: Subscription) -> dict[str, Any]:
        """Return what wakes the worker: ids and statuses, and the moments that a deferral loses."""
        statuses = {
            image_task_id: subscription.statuses.get(image_task_id, "unseen") for image_task_id in self.image_task_ids
        }
        return {
            "version": WAIT.version,
            "outcome": subscription.outcome,
            "error_code": subscription.error_code,
            "started_at": self.started_at,
            "deadline": self.deadline,
            "counts": dict(Counter(statuses.values()).most_common(_MOST_COUNTED)),
            "statuses": _first_that_fit(statuses),
        }


async def read_settings(nanobanana_conn_id: str) -> ToApisSettings:
    """Read a connection without blocking the event loop; 42 to 85 ms of the triggerer's supervisor.

    :raises AirflowNotFoundException: The triggerer does not see it, though a worker did.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    # To its end, also when the trigger is cancelled: Airflow 3.0 would take the answer that nobody awaits for that to
    # its next question ("Response read out of order!"), which ends the triggerer.
    try:
        return await asyncio.shield(NanoBananaHook(nanobanana_conn_id).asettings())
    except AirflowNotFoundException as missing:
        raise AirflowNotFoundException(f"{missing}, for the triggerer. {NOT_SEEN}") from None


def _first_that_fit(statuses: Mapping[str, str]) -> dict[str, str]:
    """Return the first of the statuses, as many as an event has room for, whatever the ids look like."""
    listed: dict[str, str] = {}
    room = _MOST_LISTED_BYTES
    for image_task_id, status in list(statuses.items())[:_MOST_LISTED]:
        room -= len(json.dumps({image_task_id: status}))
        if room < 0:
            break
        listed[image_task_id] = status
    return listed


def _preload() -> None:
    """Import what a wait needs, in a thread: on the event loop it would hold up every other trigger."""

    import airflow_provider_nanobanana.hooks.connection
    import airflow_provider_nanobanana.polling.poller
    import airflow_provider_nanobanana.polling.subscription
    import airflow_provider_nanobanana.toapis.client  # noqa: F401 - imported for those who come later

    metrics.prepare()
    _preloaded.set()
