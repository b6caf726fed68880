"""``read_task_ledger``: what a task instance keeps of its image tasks, and what lies at its destination, as it stands.

For people who look from outside: nothing is written, no attempt is begun, no service is asked. What cannot be read is
said beside the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.input_content import unpack
from airflow_provider_nanobanana.batch.ledger_words import LedgerRow, LooseClaim, TaskLedger
from airflow_provider_nanobanana.durable import checkpoint, record_store
from airflow_provider_nanobanana.durable.claims import Buyer, Claim
from airflow_provider_nanobanana.durable.image_outlook import ClaimSeen, TryCounts, WantedImage
from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
from airflow_provider_nanobanana.durable.record import SubmissionIdentity
from airflow_provider_nanobanana.landing.file_names import is_stem
from airflow_provider_nanobanana.landing.versions import VersionFolder, Versions, versioned_stem
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, StorageFailed, TransientFailure
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.open_claims import OpenClaim
    from airflow_provider_nanobanana.durable.state_store import StateStore
    from airflow_provider_nanobanana.landing.storage.base import Storage

log = LineLogger(__name__)

_UNSEEN: Final = "so what is said of a retry and a clear leaves out the files and claims there"


@dataclass(frozen=True)
class TaskFacts:
    """What Airflow knows of a task instance.

    :param try_number: Of the try that is at work, or was last; 0 before the first.
    :param retries: The task's own; None where they are not known.
    :param survives: Whether its records outlive a try (Airflow 3.3 and later).
    :param survives_clear: Whether they outlive a clear, too (Airflow 3.3).
    :param names_others: Whether whoever reads this may know of other DAGs, of all files, and what the storage says.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    retries: int | None = None
    state: str | None = None
    survives: bool = True
    survives_clear: bool = True
    names_others: bool = True


@dataclass
class _Destination:
    """What lies at a destination, as far as it could be read.

    :ivar present: Stems of files in place; None where that is not known.
    :ivar versions: Of images that have more than a first version, or a rejection, by the stem of the first.
    """

    present: set[str] | None = None
    held: set[str] = field(default_factory=set)
    versions: dict[str, Versions] = field(default_factory=dict)
    claims: dict[str, OpenClaim] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def read_task_ledger(
    store: StateStore, task: TaskFacts, storage: Storage | None, source: str, now: float
) -> TaskLedger:
    """Return the ledger of a generate or submit task instance.

    :param store: Where its records are.
    :param storage: Its destination; None where there is none, or where it may not be read.
    :param source: What ``store`` is, in words.
    :param now: Epoch seconds.
    """
    try:
        ledger = Ledger.load(store)
        snapshot = checkpoint.load_last_input(store)
        last = checkpoint.load_checkpoint(store)
        items, former, _ = unpack(snapshot.content, None) if snapshot is not None else ([], [], {})
    except TransientFailure as failure:
        counts = TryCounts(task.try_number, task.max_tries, task.max_tries if task.retries is None else task.retries)
        return TaskLedger(source, "generate", counts, state=task.state, unreadable=True, skipped=[failure.message])
    retries = task.retries if task.retries is not None else snapshot.retries if snapshot else task.max_tries
    counts = TryCounts(task.try_number, task.max_tries, retries)
    whole = TaskLedger(
        source, "generate", counts, state=task.state, survives=task.survives, survives_clear=task.survives_clear
    )
    if snapshot is None and (submitted := _submitted(ledger, task)) is not None:
        return replace(whole, form="submit", rows=[submitted])
    there = _at_destination(storage, items, ledger, task)
    model = WantedImage(
        SubmissionIdentity((), ""),
        complete=ledger.complete and task.survives,
        claimed=last is None or last.claims is True,
        ids_resolve=last.client_ids_resolve if last is not None else None,
    )
    goes_on = task.survives and snapshot is not None and snapshot.of_round(task.max_tries, retries)

    def wanted(item: BatchItem) -> WantedImage:
        return _wanted(replace(model, entry=ledger.get(item.key)), item, task, there, now)

    def told_of(item: BatchItem) -> LedgerRow:
        chosen, redone = _chosen_anew(item, there)
        anew = replace(wanted(chosen), redone=redone)
        cleared = _after_clear(anew, task)
        rejected = item.version in there.versions.get(item.base_stem, Versions()).rejected
        return LedgerRow(item.label, ledger.get(item.key), wanted(item), None if goes_on else anew, cleared, rejected)

    told = [told_of(item) for item in items]
    known = {item.key for item in items}
    names = {item.key: item.label for item in former}
    told += [
        LedgerRow(f"{names.get(key, key)} (not asked for any more)", entry, None)
        for key, entry in ledger.items()
        if key not in known
    ]
    loose = _loose_claims(there.claims, known, task, now)
    stop = last.stop_reason if last is not None and last.try_number == task.try_number else ""
    return replace(whole, rows=told, claims=loose, stop_reason=stop, skipped=there.skipped)


def _submitted(ledger: Ledger, task: TaskFacts) -> LedgerRow | None:
    """Return the one row of a submit, or None where the ledger is not one."""
    entries = dict(ledger.items())
    if entries.keys() != {record_store.KEY}:
        return None
    entry = entries[record_store.KEY]
    record = entry.record
    if record is None:
        return None
    identity = SubmissionIdentity(
        (), record.fingerprint, clear_number=record.clear_number, name=record.name, salt=record.salt
    )
    image = WantedImage(identity, entry if task.survives else LedgerEntry(), single=True)
    return LedgerRow(record.name or "the image", entry, image, cleared=_after_clear(image, task))


def _after_clear(image: WantedImage, task: TaskFacts) -> WantedImage:
    """Return what is found of an image after a clear, which may have discarded the records."""
    return image if task.survives_clear else replace(image, entry=LedgerEntry(), complete=False)


def _stems(items: Sequence[BatchItem], ledger: Ledger) -> Iterator[str]:
    """Yield the stems of the files of the items, by the name they were landed under; of names of no file, none."""
    for item in items:
        stored = ledger.get(item.key).stored
        for stem in (item.stem(), stored and stored.stem):
            if stem and is_stem(stem):
                yield stem


def _chosen_anew(item: BatchItem, there: _Destination) -> tuple[BatchItem, bool]:
    """Return an item with the version that an attempt chooses which reads the requests anew, as far as is known.

    Also whether ``redo``, which is not known, would have it buy a new one: an own version is used as long as nobody
    rejects it.
    """
    versions, present = there.versions.get(item.base_stem), there.present
    if versions is None or present is None or (item.version > 1 and item.version not in versions.rejected):
        return item, False
    number = versions.current(lambda number: versioned_stem(item.base_stem, number) in present)
    return replace(item, version=number), item.version in versions.rejected


def _wanted(image: WantedImage, item: BatchItem, task: TaskFacts, there: _Destination, now: float) -> WantedImage:
    """Return what the next attempt will find of an item.

    :param image: With its entry, as the last attempt left it.
    """
    found = image.entry if task.survives else LedgerEntry()
    stem = found.stored.stem if found.stored is not None else item.stem()
    claim = there.claims.get(item.stem())
    return replace(
        image,
        identity=SubmissionIdentity((), item.fingerprint, item.key),
        entry=found,
        claim=None if claim is None else _seen(claim, task, now),
        in_place=None if there.present is None else stem in there.present,
        in_quarantine=item.stem() in there.held,
        buyer=_buyer(claim, task),
    )


def _seen(claim: OpenClaim, task: TaskFacts, now: float) -> ClaimSeen:
    made = claim.claim
    whose = "somebody"
    if isinstance(made, Claim):
        own = made.by.is_same_task_instance(_buyer(claim, task))
        whose = "" if own else str(made.by) if task.names_others else "another task"
    return ClaimSeen(made, claim.book, claim.task_age(now), whose)


def _buyer(claim: OpenClaim | None, task: TaskFacts) -> Buyer:
    """Return the task instance as it claims; its connection's namespace is that of claims of the same names."""
    made = claim.claim if claim is not None else None
    return Buyer(
        namespace=made.by.namespace if isinstance(made, Claim) else "",
        dag_id=task.dag_id,
        run_id=task.run_id,
        task_id=task.task_id,
        map_index=task.map_index,
        try_number=task.try_number + 1,
    )


def _loose_claims(claims: Mapping[str, OpenClaim], known: set[str], task: TaskFacts, now: float) -> list[LooseClaim]:
    """Return the open claims of the task instance on files that its ledger does not know."""
    return [
        LooseClaim(
            stem, _seen(claim, task, now), claim.book.detail if claim.book and claim.book.outcome == "bought" else None
        )
        for stem, claim in claims.items()
        if stem not in known
        and isinstance(claim.claim, Claim)
        and claim.claim.by.is_same_task_instance(_buyer(claim, task))
    ]


def _at_destination(
    storage: Storage | None, items: Sequence[BatchItem], ledger: Ledger, task: TaskFacts
) -> _Destination:
    """Return what lies at a destination of these images, and which claims are open there."""
    from airflow_provider_nanobanana.batch.open_claims import read_open_claims
    from airflow_provider_nanobanana.landing.image_file import SUFFIXES
    from airflow_provider_nanobanana.landing.quarantine import QUARANTINE_FOLDER, Quarantine
    from airflow_provider_nanobanana.landing.storage.base import stems_present
    from airflow_provider_nanobanana.landing.storage.destination import RESERVED

    there = _Destination()
    if storage is None:
        there.skipped.append(f"The destination is not known, or may not be read from here, {_UNSEEN}.")
        return there
    unread: list[str] = []
    try:
        # Before the files: what lands meanwhile counts as in place.
        found = read_open_claims(storage, lambda uri, why: unread.append(f"{uri}: {why}"))
        claims = {claim.stem: claim for claim in found}
        folder = VersionFolder(lambda name: storage.below(f"{RESERVED}/{name}"))
        versions = {item.base_stem: folder.of(item.base_stem) for item in items}
        there.versions = {base: of for base, of in versions.items() if of != Versions()}
        stems = [*_stems(items, ledger)]
        stems += [versioned_stem(base, number) for base, of in there.versions.items() for number in of.alive]
        quarantine = Quarantine(lambda: storage.below(f"{RESERVED}/{QUARANTINE_FOLDER}"))
        there.held = quarantine.stems().intersection(stems)
        there.present = stems_present(storage, stems, tuple(SUFFIXES.values())) if stems else set()
        there.claims = {stem: claim for stem, claim in claims.items() if stem not in there.present}
    except (StorageFailed, ConfigurationError) as failure:
        unread.append(failure.message)
        there.skipped.append(f"The destination could not be read, {_UNSEEN}.")
    if task.names_others:
        there.skipped += unread
    elif unread:
        log.warning("Of the ledger of %s.%s was not read: %s", task.dag_id, task.task_id, "; ".join(unread[:20]))
        if not there.skipped:
            there.skipped.append(f"Claims and books at the destination that could not be read: {len(unread):,}.")
    return there
