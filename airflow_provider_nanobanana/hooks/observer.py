"""What a submission tells whoever drives many of them; this listener keeps no accounts and refuses nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)


class Observer:
    """Hears of every step of one submission."""

    def says(self, line: str) -> None:
        """Take note of a decision, in words."""
        log.info("Submission: %s", line)

    def saw(self, image_task: ImageTask) -> None:
        """Take note of an image task that was looked up, whatever its status."""

    def about_to_buy(self) -> None:
        """Take note that a POST follows; an error raised here keeps it from leaving."""

    def turn_came(self) -> None:
        """Take note that the wait for a turn is over and a POST leaves at once; an error raised here keeps it back."""
