"""The ledger of one task instance, read in the api-server or by a command: Airflow's database, and its destination.

What our tasks keep is read where Airflow keeps it: in the task state store (3.3 and later) or in XComs. It is put into
words by :mod:`~airflow_provider_nanobanana.batch.ledger_words`. Nothing is written. All of it blocks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import func, or_, select

from airflow_provider_nanobanana.batch.ledger_words import ledger_words
from airflow_provider_nanobanana.batch.task_ledger import TaskFacts, read_task_ledger
from airflow_provider_nanobanana.compat import clear_discards_task_state
from airflow_provider_nanobanana.durable.ledger import NAME
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore, unreadable
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.ui.confinement import NotReadable
from airflow_provider_nanobanana.ui.gallery import UNREADABLE, without_uris
from airflow_provider_nanobanana.ui.manifests import find_place, gallery_of, gallery_roots, storage_of
from airflow_provider_nanobanana.ui.referenced_values import state_value, xcom_values
from airflow_provider_nanobanana.ui.task_records import TaskRecord, read_tasks

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_provider_nanobanana.durable.state_store import StateStore
    from airflow_provider_nanobanana.landing.storage.base import Storage

log = LineLogger(__name__)

#: Rows of an answer to a browser.
MOST_ROWS: Final = 2_000
_PREFIX: Final = "nanobanana_"
_ROW: Final[Mapping[str, Any]] = {
    "label": "",
    "state": "",
    "image_task_id": None,
    "paid_usd": None,
    "money": "",
    "why": None,
    "retry": "",
    "clear": "",
    "retry_buys": "no",
    "clear_buys": "no",
}


def ledger_json(
    session: Session, dag_id: str, run_id: str, task_id: str, map_index: int, *, now: float | None = None
) -> dict[str, Any]:
    """Return the ledger of a task instance in words, for whoever may read its DAG, and no more than that.

    As :func:`~airflow_provider_nanobanana.batch.ledger_words.ledger_words` returns it, with ``more``: how many rows
    were left out. No URI is in it, no word of the storage's own, and no other DAG; and nothing is read that the
    confinement does not allow.

    :param now: Epoch seconds; None is now.
    """
    words = _Reader(session, time.time() if now is None else now, confined=True).read(
        dag_id, run_id, task_id, map_index
    )
    rows = [{**row, "why": row["why"] and without_uris(row["why"])} for row in words["rows"]]
    shown = rows if len(rows) <= MOST_ROWS else sorted(rows, key=is_in_order)[:MOST_ROWS]
    skipped = [without_uris(line) for line in words["skipped"][:MOST_ROWS]]
    return {**words, "rows": shown, "more": len(rows) - len(shown), "skipped": skipped}


def whole_ledger(
    session: Session, dag_id: str, run_id: str, task_id: str, map_index: int, *, now: float
) -> dict[str, Any]:
    """Return the same for whoever runs a command where Airflow is configured: whole, and with URIs.

    :param now: Epoch seconds.
    """
    return _Reader(session, now, confined=False).read(dag_id, run_id, task_id, map_index) | {"more": 0}


def task_instances_of(session: Session, dag_id: str, run_id: str, task_id: str | None = None) -> list[tuple[str, int]]:
    """Return task instances of a run by task id and map index: of one task, or those that use one of our operators."""
    names = (TaskInstance.operator, TaskInstance.custom_operator_name)
    ours = or_(*(func.lower(name).contains("nanobanana") for name in names))
    wanted = TaskInstance.task_id == task_id if task_id else ours
    found = session.execute(
        select(TaskInstance.task_id, TaskInstance.map_index)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, wanted)
        .order_by(TaskInstance.task_id, TaskInstance.map_index)
    )
    return list(dict.fromkeys((task, index) for task, index in found))


def is_in_order(row: Mapping[str, Any]) -> bool:
    """Whether nobody needs to look at a row: where some are left out, these are."""
    return str(row["state"]).startswith("in place") and row["retry_buys"] == row["clear_buys"] == "no"


@dataclass(frozen=True)
class _Reader:
    """Reads for a browser or for a command.

    :param confined: Whether only that is read, and named, which a user of this DAG may see.
    """

    session: Session
    now: float
    confined: bool

    def read(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
        """Return the ledger in words."""
        instance = self._instance(dag_id, run_id, task_id, map_index)
        if instance is None:
            return {
                "summary": ["There is no such task instance."],
                "source": "Airflow's database",
                "rows": [],
                "skipped": [],
            }
        facts = self._facts(instance)
        records = read_tasks(self.session, dag_id, run_id, task_id, map_index)
        record = records[0] if records else None
        store, source, facts = self._store(instance, facts)
        if _has_ledger(store):
            storage, why = self._storage(record)
            ledger = read_task_ledger(store, facts, storage, source=source, now=self.now)
            return ledger_words(replace(ledger, skipped=[*ledger.skipped, *why]), self.now)
        if "sensor" in f"{instance.operator} {instance.custom_operator_name}".lower():
            return _sensor_words(self._waited_for(instance))
        if record is not None and record.manifest is not None:
            return self._of_manifest(record)
        return ledger_words(
            read_task_ledger(InMemoryStateStore(), facts, None, source=source, now=self.now), self.now
        ) | {"skipped": []}

    def _instance(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskInstance | None:
        found = self.session.scalars(
            select(TaskInstance).where(
                TaskInstance.dag_id == dag_id,
                TaskInstance.run_id == run_id,
                TaskInstance.task_id == task_id,
                TaskInstance.map_index == map_index,
            )
        ).all()
        # From 3.4 on a task instance may have several rows, of which one is at work.
        return next((one for one in found if getattr(one, "working_set", True)), None)

    def _facts(self, instance: TaskInstance) -> TaskFacts:
        state = instance.state
        return TaskFacts(
            instance.dag_id,
            instance.run_id,
            instance.task_id,
            instance.map_index,
            try_number=instance.try_number,
            max_tries=instance.max_tries,
            state=None if state is None else str(getattr(state, "value", state)),
            survives_clear=not clear_discards_task_state(),
            names_others=not self.confined,
        )

    def _store(self, instance: TaskInstance, facts: TaskFacts) -> tuple[StateStore, str, TaskFacts]:
        """Return where the records of a task instance are, in words, too, and whether they outlive a try."""
        try:
            from airflow.state import TaskScope, get_state_backend
        except ImportError:
            return self._xcoms(instance), "the XComs of the task instance", replace(facts, survives=False)
        region = {"region_id": instance.region_id} if hasattr(instance, "region_id") else {}
        index = getattr(instance, "region_index", instance.map_index)
        scope = TaskScope(instance.dag_id, instance.run_id, instance.task_id, index, **region)
        return _StateStoreReader(get_state_backend(), scope, self.session), "Airflow's task state store", facts

    def _xcoms(self, instance: TaskInstance) -> StateStore:
        rows = self.session.scalars(
            select(XComModel).where(
                XComModel.dag_id == instance.dag_id,
                XComModel.run_id == instance.run_id,
                XComModel.task_id == instance.task_id,
                XComModel.map_index == instance.map_index,
                XComModel.key.startswith(_PREFIX),
            )
        ).all()
        stored = [XComModel.deserialize_value(row) for row in rows]
        values = xcom_values([(row.dag_id, value) for row, value in zip(rows, stored, strict=True)])
        # Of what cannot be read the reference stays, as tasks get it: no record, which is not the same as none.
        found = {
            row.key: reference if value is None else value
            for row, reference, value in zip(rows, stored, values, strict=True)
        }
        return InMemoryStateStore({key: value for key, value in found.items() if isinstance(value, str)})

    def _storage(self, record: TaskRecord | None) -> tuple[Storage | None, list[str]]:
        """Return the destination of a task instance, where it may be read; otherwise why not."""
        if record is None:
            return None, []
        try:
            if self.confined:
                place = find_place(record, gallery_roots())
                return (None, []) if place is None else (storage_of(place.folder), [])
            folder = record.manifest.rpartition("/")[0] if record.manifest else record.destination
            return (open_storage(folder), []) if folder else (None, [])
        except NotReadable as refused:
            return None, [str(refused)]
        except ToApisError as failure:
            log.warning("The ledger's destination cannot be read: %s", failure.message)
            return None, [UNREADABLE if self.confined else failure.message]

    def _waited_for(self, instance: TaskInstance) -> list[str]:
        fields = self.session.scalar(
            select(RenderedTaskInstanceFields.rendered_fields)
            .select_from(TaskInstance)
            .join(TaskInstance.rendered_task_instance_fields)
            .where(TaskInstance.id == instance.id)
        )
        ids: Any = fields.get("image_task_ids") if isinstance(fields, dict) else None
        ids = [ids] if isinstance(ids, str) else ids
        return [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []

    def _of_manifest(self, record: TaskRecord) -> dict[str, Any]:
        """Return what the manifest tells of a task instance that keeps no ledger, such as a download."""
        gallery, _ = gallery_of(record, gallery_roots())
        rows = [_card_row(card) for card in gallery.cards]
        return {
            "summary": [
                "This task keeps no ledger: the tasks before it buy, and it lands what they bought. A retry, or a "
                "clear, of it buys nothing.",
                *_counted(rows),
            ],
            "source": "the manifest of the task instance",
            "rows": rows,
            "skipped": [gallery.problem] if gallery.problem else [],
        }


class _StateStoreReader:
    """The task state store of one task instance (Airflow 3.3 and later), as the api-server reads it."""

    def __init__(self, backend: Any, scope: Any, session: Session) -> None:
        self._backend = backend
        self._scope = scope
        self._session = session

    def read(self, name: str) -> str | None:
        """Return the text.

        :raises TransientFailure: It cannot be read, or is no text: a worker's own backend keeps it elsewhere, or it was
            edited by hand.
        """
        stored = self._backend.get(self._scope, name, session=self._session)
        if stored is None:
            return None
        try:
            value = state_value(json.loads(stored), self._scope.dag_id)
        except (ValueError, RecursionError) as error:
            raise unreadable(name, error) from error
        except ToApisError as failure:
            log.warning("The workers' state store cannot be read in the api-server: %s", failure.message)
            raise unreadable(name, "it lies in an object store that cannot be read here") from failure
        if value is not None and not isinstance(value, str):
            raise unreadable(
                name, f"it is {type(value).__name__}, no text; a backend of the workers may keep it elsewhere"
            )
        return value

    def write(self, name: str, text: str) -> None:
        """Refuse: only the task itself writes."""
        raise NotImplementedError(f"{name} is only read here")


def _has_ledger(store: StateStore) -> bool:
    try:
        return any(store.read(name) is not None for name in (NAME, f"{NAME}_0"))
    except ToApisError:
        # There is something: whoever reads all of it says what is wrong.
        return True


def _sensor_words(ids: Sequence[str]) -> dict[str, Any]:
    """Return what there is to say of a sensor: it pays nothing."""
    waits = "waits for it again, or sees how it ended, and buys nothing"
    rows = [
        {**_ROW, "label": one, "state": "waited for", "image_task_id": one, "paid_usd": 0.0}
        | {"money": "nothing: the task that submitted it pays", "retry": waits, "clear": waits}
        for one in ids
    ]
    return {
        "summary": [
            "A sensor keeps no ledger and pays nothing: it waits for image tasks that the task before it bought. A "
            "retry, or a clear, waits again and buys nothing."
        ],
        "source": "the rendered fields of the task instance",
        "rows": rows,
        "skipped": [],
    }


def _card_row(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card of the gallery as a row: what was landed, and what was not."""
    states = {
        "image": "in place",
        "under_way": "still to be landed",
        "quarantined": "in quarantine",
        "skipped": "skipped",
    }
    course = "uses it and buys nothing" if card["kind"] == "image" else "tries to land it again and buys nothing"
    paid = card.get("paid_usd")
    return {
        **_ROW,
        "label": card["label"],
        "state": states.get(card["kind"], f"failed: {card.get('code') or 'unknown'}"),
        "image_task_id": card.get("id"),
        "paid_usd": paid,
        "money": "the task that submitted it pays" if paid is None else f"${paid:.3f} paid",
        "why": card.get("message"),
        "retry": course,
        "clear": course,
    }


def _counted(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if rows:
        in_place = sum(row["state"] == "in place" for row in rows)
        yield f"{in_place:,} of {len(rows):,} are in place."
