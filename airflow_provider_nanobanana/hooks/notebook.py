"""What an attempt has found out about service and destination, kept beside the ledger for its next process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.durable import orderbook
from airflow_provider_nanobanana.hooks.echo import known_not_to_resolve, known_to_resolve

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.orderbook import Note
    from airflow_provider_nanobanana.durable.shelf import Shelf


class Notebook:
    """The note of an attempt, and the uploads of its round; any thread may use it.

    :param note: As the last process left it, or a new one.
    :param base_url: Of the service that is asked.
    :param max_tries: Airflow's count of the round.
    :param uploads: How many uploads are kept already.
    :ivar note: What is known by now.
    """

    def __init__(self, shelf: Shelf, note: Note, *, base_url: str, max_tries: int, uploads: int) -> None:
        self.note = note
        self._shelf = shelf
        self._base_url = base_url
        self._max_tries = max_tries
        self._uploads = uploads
        self._kept: Note | None = None
        self._lock = threading.RLock()

    @property
    def blind(self) -> bool:
        """Whether the service does not resolve client ids."""
        return self.note.blind or known_not_to_resolve(self._base_url)

    @property
    def proved(self) -> bool:
        """Whether what was bought is known to be found again by its client id."""
        return self.note.proved or known_to_resolve(self._base_url)

    def keep(self, **changes: Any) -> None:
        """Change the note; nothing is written where nothing changes.

        :raises TransientFailure: It is not known to be kept.
        """
        with self._lock:
            note = replace(self.note, **changes)
            if note != self._kept:
                orderbook.save_checkpoint(self._shelf, note)
                self.note = self._kept = note

    def save(self, urls: Mapping[str, str], *, blocked: bool) -> None:
        """Keep what was found out since.

        :param urls: The uploads, by content.
        :param blocked: Whether nothing could be landed lately.
        :raises TransientFailure: It is not known to be kept.
        """
        with self._lock:
            if len(urls) > self._uploads:
                orderbook.save_uploads(self._shelf, dict(urls), self._max_tries)
                self._uploads = len(urls)
            self.keep(blind=self.blind, proved=self.proved, blocked=blocked)
