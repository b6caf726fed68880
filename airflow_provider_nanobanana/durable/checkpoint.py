"""``InputSnapshot`` and ``AttemptCheckpoint``: what a batch keeps beside its ledger, by way of a ``CheckpointStore``.

The snapshot holds the list of requests of one round (from one clear to the next), so that a retry goes on with the list
that was paid for, whatever a template renders to by now. The checkpoint holds what one attempt hands from process to
process. What cannot be read stops the attempt before anything is sent; it is never taken for "nothing was kept".
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.durable.state_store import check_version, decode, encode, unreadable
from airflow_provider_nanobanana.stored_forms import CHECKPOINT, DRY_RUN, INPUT, StoredForm
from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.state_store import StateStore

INPUT_NAME: Final = "nanobanana_input"
CHECKPOINT_NAME: Final = "nanobanana_checkpoint"
DRY_RUN_NAME: Final = "nanobanana_dry_run"
#: Characters of a value; Airflow's task state store holds 65,535 bytes of JSON.
_CHUNK: Final = 48_000


@dataclass(frozen=True)
class InputSnapshot:
    """What one round of a task instance is to make; a clear begins another round.

    :param max_tries: Airflow's count of the round.
    :param first: Whether nothing was ever sent when the snapshot was saved.
    :param content: Plain JSON.
    :param retries: The task's ``retries`` when the snapshot was saved. A clear sets ``max_tries`` to the tries so far
        plus these, so that a clear after they were lowered may leave ``max_tries`` as it was.
    :param try_number: The try that saved the snapshot.
    :param given: Digest of what was asked for, as it was given; None where that was not at hand.
    """

    max_tries: int
    first: bool
    content: Any
    retries: int
    try_number: int
    given: str | None = None

    def of_round(self, max_tries: int, retries: int) -> bool:
        """Whether no clear is between the snapshot and an attempt."""
        return (self.max_tries, self.retries) == (max_tries, retries)


@dataclass(frozen=True)
class AttemptCheckpoint:
    """What one attempt hands from process to process, and in part to the next attempt.

    :param try_number: The attempt's try.
    :param started_at: Epoch seconds.
    :param client_ids_resolve: Whether the service was seen to resolve client ids, in this attempt or before; None
        before it was asked.
    :param storage_blocked: Whether the destination took none of the last images.
    :param claims: Whether purchases are claimed beside their files; None before that was found out. It stays as it was
        found: a moment in which the destination does not answer must not switch the claims off.
    :param stop_reason: Why nothing is bought in this attempt; empty where something is.
    """

    try_number: int
    started_at: float
    client_ids_resolve: bool | None = None
    storage_blocked: bool = False
    stop_reason: str = ""
    claims: bool | None = None


def save_input(store: StateStore, snapshot: InputSnapshot) -> int:
    """Save what a round is to make, whatever its size, and return the number of values written.

    :raises TransientFailure: The snapshot is not known to be kept.
    """
    text = encode(snapshot.content)
    # Chunks are named by their content: another attempt that saves another list at this moment leaves them as they are.
    stamp = hashlib.sha256(text.encode()).hexdigest()[:12]
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    for number, chunk in enumerate(chunks):
        store.write(f"{INPUT_NAME}_{stamp}_{number}", chunk)
    # Last: whoever finds the index finds all chunks.
    facts = {name: value for name, value in vars(snapshot).items() if name != "content"}
    store.write(INPUT_NAME, encode({"version": INPUT.version, "chunks": len(chunks), "stamp": stamp, **facts}))
    return len(chunks) + 1


def load_input(store: StateStore, max_tries: int, retries: int) -> InputSnapshot | None:
    """Return what was saved in this round, or None where there certainly is nothing.

    :raises TransientFailure: It could not be read, is damaged, or was written by another version.
    """
    snapshot, names = _index(store)
    if snapshot is None or not snapshot.of_round(max_tries, retries):
        # Of an earlier round; a kill while this round's was being saved leaves the old index, too.
        return None
    return replace(snapshot, content=decode(INPUT_NAME, _joined(store, names)))


def load_earlier_input(store: StateStore, max_tries: int, retries: int) -> InputSnapshot | None:
    """Return what an earlier round was to make; None where there was none, or where it cannot be understood any more.

    :raises TransientFailure: It could not be read.
    """
    snapshot, names = _index(store)
    if snapshot is None or snapshot.of_round(max_tries, retries):
        return None
    text = _joined(store, names)
    try:
        return replace(snapshot, content=decode(INPUT_NAME, text))
    except TransientFailure:
        return None


def load_last_input(store: StateStore) -> InputSnapshot | None:
    """Return what was saved last, of whatever round; None where there certainly is nothing.

    :raises TransientFailure: It could not be read, is damaged, or was written by another version.
    """
    snapshot, names = _index(store)
    return None if snapshot is None else replace(snapshot, content=decode(INPUT_NAME, _joined(store, names)))


def _index(store: StateStore) -> tuple[InputSnapshot | None, list[str]]:
    """Return what was saved last, without its content, and the names under which the content is stored."""
    index = _value(store, INPUT_NAME, INPUT)
    if index is None:
        return None, []
    try:
        snapshot = InputSnapshot(
            max_tries=int(index["max_tries"]),
            first=index["first"] is True,
            content=None,
            retries=int(index["retries"]),
            try_number=int(index["try_number"]),
            given=index["given"],
        )
        return snapshot, [f"{INPUT_NAME}_{index['stamp']}_{number}" for number in range(index["chunks"])]
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable(INPUT_NAME, error) from error


def _joined(store: StateStore, names: list[str]) -> str:
    return "".join(store.read(name) or "" for name in names)


def input_digest(given: Any) -> str | None:
    """Return what tells one given list from another, or None where it is no plain JSON."""
    try:
        text = json.dumps(given, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_checkpoint(store: StateStore) -> AttemptCheckpoint | None:
    """Return the checkpoint of the attempt that was at work last; None where there certainly is none.

    :raises TransientFailure: It could not be read, is damaged, or was written by another version.
    """
    value = _value(store, CHECKPOINT_NAME, CHECKPOINT)
    if value is None:
        return None
    try:
        resolve = value["client_ids_resolve"]
        return AttemptCheckpoint(
            try_number=int(value["try_number"]),
            started_at=float(value["started_at"]),
            client_ids_resolve=resolve if resolve is None else resolve is True,
            storage_blocked=value["storage_blocked"] is True,
            stop_reason=str(value["stop_reason"]),
            claims=claims if (claims := value["claims"]) is None else claims is True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable(CHECKPOINT_NAME, error) from error


def save_dry_run(store: StateStore, try_number: int) -> None:
    """Note that a try, and all before it, sent nothing.

    :raises TransientFailure: It is not known to be kept.
    """
    store.write(DRY_RUN_NAME, encode({"version": DRY_RUN.version, "try_number": try_number}))


def followed_dry_run(store: StateStore, attempt: TaskAttempt) -> bool:
    """Whether the try right before an attempt, and all before that, certainly sent nothing.

    :raises TransientFailure: It could not be read, is damaged, or was written by another version.
    """
    value = _value(store, DRY_RUN_NAME, DRY_RUN)
    return value is not None and value.get("try_number") == attempt.try_number - 1


class CheckpointStore:
    """Holds the checkpoint of the attempt at work, and saves what changes of it; any thread may use it.

    :param current: As the process before left it, or a new one.
    :ivar current: What is known by now.
    """

    def __init__(self, store: StateStore, current: AttemptCheckpoint) -> None:
        self.current = current
        self._store = store
        self._saved: AttemptCheckpoint | None = None
        self._lock = threading.RLock()

    def is_last(self) -> bool:
        """Whether no other try has saved a checkpoint since: one that goes on beside its own retry is not the last.

        :raises TransientFailure: That could not be read.
        """
        last = load_checkpoint(self._store)
        return last is None or last.try_number == self.current.try_number

    def update(self, **changes: Any) -> None:
        """Change fields of the checkpoint and save it; nothing is written where nothing changed since the last save.

        :raises TransientFailure: It is not known to be kept.
        """
        with self._lock:
            self.current = replace(self.current, **changes)
            if self.current != self._saved:
                self._store.write(CHECKPOINT_NAME, encode({"version": CHECKPOINT.version, **asdict(self.current)}))
                self._saved = self.current


def _value(store: StateStore, name: str, form: StoredForm) -> dict[str, Any] | None:
    """Return a stored JSON object of our version, or None where there certainly is none."""
    text = store.read(name)
    if text is None:
        return None
    value = decode(name, text)
    if not isinstance(value, dict):
        raise unreadable(name, f"it is no {form.name}")
    check_version(form, name, value.get("version"))
    return value
