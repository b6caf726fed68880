"""What one process has seen of the image tasks it waits for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.hooks.sightings import look_again, look_at
from airflow_provider_nanobanana.toapis.outcome import Sighting, Wait

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.errors import ToApisError


class View:
    """The latest sighting of each image task; what has settled is not asked about again.

    :param image_task_ids: In the order of the records to come.
    """

    def __init__(self, image_task_ids: Sequence[str], wait: Wait) -> None:
        self.wait = wait
        self._sightings = {image_task_id: Sighting(image_task_id) for image_task_id in image_task_ids}
        # One moment for all that is said of one look.
        self._now = time.time()

    @property
    def ids(self) -> list[str]:
        """The image tasks, in order."""
        return list(self._sightings)

    def look(self, hook: NanoBananaHook) -> ToApisError | None:
        """Look at what has not settled; the last look of a wait is repeated where it failed for a moment.

        Return the refusal when no look succeeded: then it is the key's. A refusal of some image tasks while others are
        shown is theirs alone.
        """
        fresh = look_at(hook, [sighting.id for sighting in self.unsettled()])
        self._now = time.time()
        if self.wait.over(self._now):
            fresh = look_again(hook, fresh)
        self._sightings.update((sighting.id, sighting) for sighting in fresh)
        if any(sighting.image_task is not None for sighting in fresh):
            return None
        return next((sighting.error for sighting in fresh if sighting.refused), None)

    def unsettled(self) -> list[Sighting]:
        """Return the sightings that another look may change."""
        return [sighting for sighting in self._sightings.values() if not sighting.settled(self.wait, self._now)]

    @property
    def over(self) -> bool:
        """Whether waiting is over: its time is up, or nothing is left but what this key is not shown."""
        return self.wait.over(self._now) or all(sighting.refused for sighting in self.unsettled())

    @property
    def models(self) -> dict[str, str | None]:
        """The model of each image task, as far as the service named it."""
        return {
            sighting.id: sighting.image_task.model if sighting.image_task else None
            for sighting in self._sightings.values()
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one plain record for each image task, in order."""
        return [sighting.record(self.wait, self._now) for sighting in self._sightings.values()]
