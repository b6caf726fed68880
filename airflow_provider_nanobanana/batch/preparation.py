"""``BatchPreparation``: makes the ``BatchState`` of an attempt, or of a process that goes on after a pause.

It reads what was asked for (or what the attempt before was asked for), what earlier attempts bought and earlier runs
landed of that, and logs what the rest will cost. Nothing is submitted here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.budget import Budget, check_balance
from airflow_provider_nanobanana.batch.cost_tracker import CostTracker
from airflow_provider_nanobanana.batch.costs import Cost, format_usd
from airflow_provider_nanobanana.batch.dry_run import TrialStore
from airflow_provider_nanobanana.batch.input_content import pack, unpack, unpack_skipped
from airflow_provider_nanobanana.batch.items import (
    BatchItem,
    EmptyBatch,
    SkippedRow,
    build_items,
    count_unnamed,
    take_numbers,
)
from airflow_provider_nanobanana.batch.prompt_template import PromptTemplate
from airflow_provider_nanobanana.batch.removed_items import left_over, restore_former_items, still_expected
from airflow_provider_nanobanana.batch.rows import Rows, read_rows
from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.batch.stop_conditions import StopConditions
from airflow_provider_nanobanana.batch.versions import VersionChoice, redo_keys
from airflow_provider_nanobanana.durable import checkpoint
from airflow_provider_nanobanana.durable.checkpoint import CheckpointStore
from airflow_provider_nanobanana.durable.claims import CLAIMS_FOLDER, Buyer
from airflow_provider_nanobanana.durable.ledger import Ledger, check_room
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.durable.taking_up import is_wanted_again, is_worth_another_attempt
from airflow_provider_nanobanana.landing.reuse import find_existing, find_numbered
from airflow_provider_nanobanana.submission.claims import ClaimFolder, MachineClock, unreadable_claims
from airflow_provider_nanobanana.submission.references import ReferenceUploader
from airflow_provider_nanobanana.toapis.errors import (
    ConfigurationError,
    InsufficientCredits,
    InvalidRequest,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.result_links import MOST_IMAGES
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import TaskAttempt
    from airflow_provider_nanobanana.durable.claims import ClaimMode
    from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
    from airflow_provider_nanobanana.durable.state_store import StateStore
    from airflow_provider_nanobanana.landing.downloader import ImageDownloader
    from airflow_provider_nanobanana.landing.image_store import StoredImage
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = LineLogger(__name__)

#: References read at once.
_THREADS: Final = 8
_MOST_SKIPPED_LOGGED: Final = 20


@dataclass(frozen=True)
class BatchSpec:
    """What a user asked for.

    :param given: Returns a prompt, a request, or an iterable of both; not asked when an earlier attempt is continued.
    :param claims: Whether purchases are claimed beside their files: ``auto`` where the destination can, ``require`` or
        fail, ``off``.
    :param at_hand: The same as plain JSON, where that is to be had without asking anybody; else None.
    :param defaults: Fields of the requests that do not give them.
    :param timeout: Seconds that one attempt waits for an image.
    :param adopt: Image tasks chosen by a person, by ``client_business_id``.
    :param redo: Names, positions or URIs of images to make a new version of.
    :param prepare_references: Whether reference images are made fit for the service.
    :param template: A prompt over the columns of each row.
    :param variants: How many pictures to make of each row.
    :param skips_bad_rows: Whether rows with a fault are left out, instead of refusing all.
    :param dry_run: Whether nothing is to be bought or taken; the store must keep nothing then (``TrialStore``).
    """

    given: Callable[[], Any]
    defaults: Mapping[str, Any]
    budget: Budget
    timeout: float
    preflight_balance: bool
    adopt: Mapping[str, str]
    claims: ClaimMode = "auto"
    at_hand: Any = None
    redo: Sequence[str] = ()
    prepare_references: bool = True
    template: str | None = None
    variants: int = 1
    skips_bad_rows: bool = False
    dry_run: bool = False

    def digest(self) -> str | None:
        """Return what tells this list from another, or None where it is not at hand."""
        if self.at_hand is None:
            return None
        return checkpoint.input_digest(
            [self.at_hand, dict(self.defaults), self.template, self.variants, self.skips_bad_rows, *self.redo]
        )


@dataclass(frozen=True)
class BatchPreparation:
    """Prepares the batch of a task instance.

    :param attempt: As Airflow counts; its start is that of this process.
    :param retries: As the task has them now.
    :param resumed: Whether this process goes on after a pause, as Airflow says; it may be mistaken (its issue 62845).
    """

    session: ToApisSession
    downloader: ImageDownloader
    store: StateStore
    spec: BatchSpec
    attempt: TaskAttempt
    retries: int
    policy: SubmissionPolicy
    resumed: bool
    #: What was found whole in place while versions were chosen, by stem.
    _verified: dict[str, StoredImage] = field(default_factory=dict, init=False)

    def prepare(self) -> BatchState:
        """Return the state of the batch, ready for a slice of work.

        What failed before is taken up again, what earlier runs landed is found, and the rest is estimated.

        :raises ToApisError: Something is wrong with what was asked for, or could not be read; nothing was sent.
        """
        last = checkpoint.load_checkpoint(self.store)
        snapshot = checkpoint.load_input(self.store, self.attempt.max_tries, self.retries)
        resumed = self._goes_on(snapshot, last)
        # A pause that lost its records follows a slice that may have sent anything.
        first = not self.resumed and (
            not (self.attempt.retry or self.attempt.cleared) or checkpoint.followed_dry_run(self.store, self.attempt)
        )
        ledger = Ledger.load(self.store, first=first or (snapshot is not None and snapshot.first))
        content, snapshot = self._content(snapshot, ledger, first=first)
        items, former, digests = unpack(content, self.session.settings.models)
        references = ReferenceUploader.of(
            self.session, digests=digests, bound=True, prepare=self.spec.prepare_references
        )
        references.prepared.update(content.get("prepared", {}))
        references.expect(item.request for item in (*items, *former))
        state = self._build_state(items, references, ledger, last, resumed=resumed, former=former)
        state.skipped = unpack_skipped(content)
        state.claims = self._claims(state.checkpoints)
        _hold_costs(state)
        if not resumed:
            self._warn_of_another_list(snapshot)
            _log_skipped(state.skipped)
            _reopen_items(state)
            restore_former_items(state)
            # A process that goes on after a pause need not: none pauses before the search is over.
            verify = self.attempt.cleared and snapshot.try_number == self.attempt.try_number
            _reuse_stored(state, verify=verify, verified=self._verified)
            _settle_quarantined(state, trial=self.spec.dry_run)
            self._estimate(state)
        elif state.claims is not None:
            # Other runs may have landed meanwhile what this one waits for.
            _reuse_stored(state, verify=False, verified=self._verified)
        if (
            self.spec.preflight_balance
            and state.stops.account_error is None
            and any(map(state.needs_lookup, state.pending()))
        ):
            state.preflight = lambda: self._check_balance(state)
        ledger.save()
        # Built now: what keeps any call from being sent is known before anything is written ahead, and the ledger
        # says that nothing was sent.
        _ = self.session.client
        return state

    def is_under_way(self) -> bool:
        """Whether this process goes on with a batch that this very try began.

        :raises TransientFailure: That could not be read; nothing was sent.
        """
        if not self.resumed:
            return False
        snapshot = checkpoint.load_input(self.store, self.attempt.max_tries, self.retries)
        return self._goes_on(snapshot, checkpoint.load_checkpoint(self.store))

    def _goes_on(self, snapshot: checkpoint.InputSnapshot | None, last: checkpoint.AttemptCheckpoint | None) -> bool:
        is_of_this_try = last is not None and last.try_number == self.attempt.try_number
        return self.resumed and snapshot is not None and is_of_this_try

    def rehearse(self) -> BatchState:
        """Return what :meth:`prepare` would, of a batch that is not to be worked on; nothing is kept of it.

        But that this try sent nothing, where none before it did: the next one is a first one then.

        :raises ToApisError: As of :meth:`prepare`.
        """
        state = replace(self, store=TrialStore(self.store)).prepare()
        if state.ledger.complete and not any(entry.record for _, entry in state.ledger.items()):
            checkpoint.save_dry_run(self.store, self.attempt.try_number)
        return state

    def _claims(self, checkpoints: CheckpointStore) -> ClaimFolder | None:
        """Return where purchases are claimed, or None where they are not; which it is stays so for the task instance.

        :raises ConfigurationError: They have to be, and cannot be.
        :raises TransientFailure: Whether they can could not be found out; nothing was sent.
        """
        if self.spec.claims == "off" or (checkpoints.current.claims is False and self.spec.claims == "auto"):
            return None
        store = self.downloader.store
        if checkpoints.current.claims is None or self.spec.claims == "require":
            with unreadable_claims():
                missing = store.reserved(CLAIMS_FOLDER).missing_exclusivity()
            if missing and self.spec.claims == "require":
                raise ConfigurationError(
                    f'claims="require", and purchases cannot be claimed at the destination: {missing}. Nothing was '
                    "sent and nothing charged; a retry would meet the same."
                )
            if missing:
                log.warning(
                    "Purchases cannot be claimed at the destination: %s. Each image is paid once in this task "
                    "instance; other runs, mapped tasks and installations that want the same files at the same time "
                    "may buy them too (docs/paying-once.md).",
                    missing,
                )
            checkpoints.update(claims=not missing)
            if missing:
                return None
        elif not checkpoints.current.claims:
            return None
        namespace = self.session.settings.namespace
        dag_id, run_id, task_id, map_index = self.attempt.scope[-4:]
        buyer = Buyer(
            namespace=namespace,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=int(map_index),
            try_number=self.attempt.try_number,
        )
        return ClaimFolder(store, buyer, MachineClock(self.session.clock))

    def _content(
        self, snapshot: checkpoint.InputSnapshot | None, ledger: Ledger, *, first: bool
    ) -> tuple[dict[str, Any], checkpoint.InputSnapshot]:
        """Return what this round is to make, and its snapshot; the snapshot is saved now if the round begins."""
        if snapshot is not None:
            return snapshot.content, snapshot
        references = ReferenceUploader.of(self.session, bound=True, prepare=self.spec.prepare_references)
        skipped: list[SkippedRow] = []
        with WorkerPool(_THREADS) as pool:
            rows = read_rows(self.spec.given())
            _log_rows(rows, self.spec.template)
            items = build_items(
                rows,
                defaults=self.spec.defaults,
                default_model=self.session.settings.model,
                models=self.session.settings.models,
                digest_of=references.digest,
                each=pool.map,
                formats=references,
                template=self.spec.template,
                variants=self.spec.variants,
                on_skipped=skipped.append if self.spec.skips_bad_rows else None,
                on_note=lambda note: log.warning("%s", note),
            )
        if not items:
            raise EmptyBatch("There is nothing to make: the list of requests is empty. Nothing was charged.")
        if self.policy.reuse_existing:
            in_place = find_numbered(self.downloader.store, count_unnamed(items))
            items = take_numbers(items, in_place, still_expected(ledger, self.session.clock()))
        items = self._with_versions(items, skipped)
        check_room(self.store, len(items))
        content = pack(items, references.digests, self._left_over(items, ledger), skipped)
        content["prepared"] = dict(references.prepared)
        snapshot = checkpoint.InputSnapshot(
            self.attempt.max_tries,
            first,
            content,
            retries=self.retries,
            try_number=self.attempt.try_number,
            given=self.spec.digest(),
        )
        checkpoint.save_input(self.store, snapshot)
        return content, snapshot

    def _with_versions(self, items: list[BatchItem], skipped: Sequence[SkippedRow]) -> list[BatchItem]:
        """Return the items with the version of each that this round is to have."""
        redo = redo_keys(self.spec.redo, items, skipped)
        if self.policy.reuse_existing:
            # The run's, not the task instance's: whatever task of it makes the same image shares it.
            run = self.attempt.scope[:-2]
            choice = VersionChoice(self.downloader.store, run, self.session.clock(), trial=self.spec.dry_run)
            items = choice.choose(items, redo)
            self._verified.update(choice.verified)
        elif redo:
            raise InvalidRequest(
                "redo makes new versions of some images, and reuse_existing=False makes all of them again: give one of "
                "them. Nothing was sent and nothing was charged; a retry would meet the same."
            )
        return items

    def _left_over(self, items: list[BatchItem], ledger: Ledger) -> list[BatchItem]:
        """Return what the list before a clear had that is paid and not landed, and that this list has not."""
        earlier = checkpoint.load_earlier_input(self.store, self.attempt.max_tries, self.retries)
        if earlier is None:
            return []
        try:
            before, older, _ = unpack(earlier.content, self.session.settings.models)
        except TransientFailure as unreadable:
            log.warning("%s What it holds is listed by its ids.", unreadable.message)
            return []
        return left_over(before, older, items, ledger, self.session.clock())

    def _warn_of_another_list(self, snapshot: checkpoint.InputSnapshot) -> None:
        """Say that an attempt goes on with the list it has, where another one is given by now."""
        given = self.spec.digest()
        if None not in (given, snapshot.given) and given != snapshot.given:
            log.warning(
                "What is asked for now differs from what try %d was asked for. This attempt goes on with the list of "
                "that try, so that nothing is bought twice. Clear the task once more to take the new list.",
                snapshot.try_number,
            )
        elif self.attempt.try_number > snapshot.try_number:
            # What a file or a function gives by now is not asked for again.
            log.info("Requests: as try %d read them; a clear reads them anew", snapshot.try_number)

    def _build_state(
        self,
        items: list[BatchItem],
        references: ReferenceUploader,
        ledger: Ledger,
        last: checkpoint.AttemptCheckpoint | None,
        *,
        resumed: bool,
        former: list[BatchItem],
    ) -> BatchState:
        current = self._checkpoint(last, resumed=resumed)
        attempt = replace(self.attempt, started_at=current.started_at)
        if self.resumed and not ledger.complete:
            attempt = replace(attempt, retry=True)
        seed = "|".join((*self.attempt.scope, str(attempt.tries_before_clear))).encode("utf-8", "surrogatepass")
        budget = replace(self.spec.budget, prices=self.session.settings.prices)
        return BatchState(
            session=self.session,
            items=items,
            ledger=ledger,
            downloader=self.downloader,
            references=references,
            budget=budget,
            costs=CostTracker(budget, ledger.items(), [*items, *former]),
            attempt=attempt,
            policy=self.policy,
            scope=self.attempt.scope,
            timeout=self.spec.timeout,
            checkpoints=CheckpointStore(self.store, current),
            name_suffix="" if self.policy.reuse_existing else hashlib.sha256(seed).hexdigest()[:8],
            adopt=self.spec.adopt,
            former_items=former,
            stops=StopConditions(
                InsufficientCredits(current.stop_reason) if current.stop_reason else None,
                storage_blocked=current.storage_blocked,
            ),
        )

    def _checkpoint(self, last: checkpoint.AttemptCheckpoint | None, *, resumed: bool) -> checkpoint.AttemptCheckpoint:
        """Return the checkpoint of this attempt: the last process's, or a new one with what was learnt before."""
        current = checkpoint.AttemptCheckpoint(self.attempt.try_number, self.attempt.started_at)
        if last is None:
            return current
        learnt = replace(
            current,
            client_ids_resolve=last.client_ids_resolve,
            storage_blocked=last.storage_blocked,
            claims=last.claims,
        )
        return last if resumed else learnt

    def _estimate(self, state: BatchState) -> None:
        """Say what is going to be bought, what perhaps is, and whether the account can pay for the former."""
        unsent = state.pending()
        estimate = state.budget.estimate(
            filter(state.will_be_bought, unsent), state.costs.counted_usd, state.costs.bills
        )
        log.info("%s", estimate.line())
        unknown = [item for item in unsent if not state.will_be_bought(item)]
        if unknown:
            perhaps = state.budget.estimate(filter(state.may_be_bought, unknown), bills=state.costs.bills)
            log.info(
                "May have been bought by an earlier attempt: %d more, which are looked up before any is bought. Up to "
                "%d of them, %s, are bought if what was sent for them was not accepted, failed or has expired.",
                *(len(unknown), perhaps.images, format_usd(perhaps.total_usd)),
            )
        if self.spec.preflight_balance and estimate.images:
            try:
                check_balance(self.session.balance(), estimate)
            except InsufficientCredits as too_little:
                if not unknown and not state.running() and not state.former_items:
                    raise
                state.stop_buying(too_little)

    def _check_balance(self, state: BatchState) -> None:
        """Compare the account with what is to be bought, now that nothing is in doubt any more."""
        to_buy = [item for item in state.pending() if not state.needs_lookup(item)]
        check_balance(self.session.balance(), state.budget.estimate(to_buy, state.costs.counted_usd, state.costs.bills))


def _log_rows(rows: Rows, template: str | None) -> None:
    """Say how a table was understood, and what of the template looks like a placeholder and is none."""
    if rows.tabular:
        log.info("%s", rows.line())
    for text in PromptTemplate(template or "").doubtful(rows.columns or ()):
        log.warning("The prompt holds %.80s, which is sent as it is: a placeholder is a column's name in braces", text)


def _log_skipped(skipped: Sequence[SkippedRow]) -> None:
    """Say which rows no picture is made of, and why."""
    for row in skipped[:_MOST_SKIPPED_LOGGED]:
        log.warning("Skipped row %s: %s", row.label, row.message)
    if len(skipped) > _MOST_SKIPPED_LOGGED:
        log.warning("Skipped rows in all: %s; the manifest lists them", f"{len(skipped):,}")


def _hold_costs(state: BatchState) -> None:
    """Count against the limit what may be paid: each item whose last submit left no answer, found out about or not."""
    for item in (*state.items, *state.former_items):
        record = state.entry(item).record
        if record is not None and record.state is RecordState.INTENT:
            state.costs.hold(item)


def _reopen_items(state: BatchState) -> None:
    """Take up again what ended without an image, where another attempt may bring it, and what is no longer in place."""
    # By the name it was landed under: one of a round without reuse ends in that round's tag.
    landed = [(item, file.stem) for item in state.items if (file := state.entry(item).stored)]
    beside = {file.stem for item in state.items for file in state.entry(item).extras}
    present = state.downloader.store.present({*(stem for _, stem in landed), *beside})
    gone = [item for item, stem in landed if stem not in present]
    lost = {item.key for item in gone}
    held = _in_quarantine(state)
    for item in state.items:
        entry = state.entry(item)
        rebuy = state.will_be_rebought(item)
        wanted_again = is_wanted_again(entry, state.attempt, state.policy)
        if item.key in held and entry.status == "failed":
            continue
        if entry.status == "failed" and is_worth_another_attempt(entry, state.attempt):
            expired = entry.error is not None and entry.error.code == EXPIRED.code
            state.reopen(item, rebuy=rebuy or entry.refunded or expired)
        elif entry.stored is not None and (item.key in lost or wanted_again):
            state.reopen(item, rebuy=rebuy or entry.record is None or wanted_again)
        elif entry.status == "open" and entry.submitted_at is not None:
            state.reopen(item, rebuy=rebuy)
    _log_lost(state, gone, "gone from the destination")
    _drop_missing_extras(state, present)


def _in_quarantine(state: BatchState) -> set[str]:
    """Return the keys of the items without an image of which a suspect picture is in quarantine: it is paid."""
    stems = {item.key: item.stem(state.name_suffix) for item in state.items if state.entry(item).stored is None}
    held = state.downloader.store.in_quarantine(set(stems.values())) if stems else set()
    return {key for key, stem in stems.items() if stem in held}


def _settle_quarantined(state: BatchState, *, trial: bool) -> None:
    """Take note of suspect pictures in quarantine, whoever bought them: they are neither bought nor fetched again.

    They are put in place for free where suspect pictures are accepted by now.

    :param trial: Whether they stay where they are, and only count as if they were in place.
    """
    store = state.downloader.store
    held = _in_quarantine(state)
    accepted = 0
    items = [item for item in state.items if item.key in held and state.entry(item).status in ("open", "failed")]
    paid = _paid_before(state, [item for item in items if state.untouched(item)])
    for item in items:
        stem = item.stem(state.name_suffix)
        picture = store.find_in_quarantine(stem, state.image_task_id(item) or "")
        if picture is None:
            continue
        if state.downloader.on_suspect != "quarantine":
            accept = store.as_accepted if trial else store.accept
            state.mark_accepted(item, accept(stem, picture), paid=paid.get(item.key))
            accepted += 1
        elif state.entry(item).status == "open":
            state.mark_quarantined(item, picture, paid=paid.get(item.key))
    if accepted:
        what = "A run now would take from quarantine" if trial else "Suspect pictures taken from quarantine"
        log.info("%s, as they are accepted by now: %d; they cost nothing", what, accepted)


def _drop_missing_extras(state: BatchState, present: Collection[str]) -> None:
    """Forget the further images that are gone, and after a clear those that no retry brings: a person was told.

    A further image that is gone, or lost, is no reason to take an item up again: that may buy its first one again.

    :param present: The stems that are at the destination.
    """
    wanted = {item.key: state.entry(item) for item in state.items}
    gone = 0
    for key, entry in wanted.items():
        extras = tuple(file for file in entry.extras if file.stem in present)
        lost = tuple(one for one in entry.lost if one.error.retryable or not state.attempt.cleared)
        if (extras, lost) != (entry.extras, entry.lost):
            gone += len(entry.extras) + len(entry.lost) - len(extras) - len(lost)
            state.ledger.update(key, extras=extras, lost=lost)
    if gone:
        log.warning("Images that came beside others and are gone from the destination, or were given up: %d", gone)


def _log_lost(state: BatchState, lost: Sequence[BatchItem], how: str) -> None:
    if lost:
        rebuy = sum(state.will_be_bought(item) for item in lost)
        log.warning(
            "Images that were in place and are %s: %d. Those whose links live are landed again for free. To be bought "
            "again: %d.",
            *(how, len(lost), rebuy),
        )


def _reuse_stored(state: BatchState, *, verify: bool, verified: Mapping[str, StoredImage]) -> None:
    """Find what earlier runs landed for the same requests: it is verified (about 30 ms an image) and costs nothing.

    :param verify: Whether to verify what this run landed, too: a clear relies on no file that may have been cut short
        or replaced since.
    :param verified: What this process found whole already, by stem.
    """
    blank = [item for item in state.items if state.policy.reuse_existing and state.untouched(item)]
    landed = [(item, file) for item in state.items if verify and (file := state.entry(item).stored)]
    wanted = [(item.key, item.stem()) for item in blank]
    wanted += [(item.key, file.stem) for item, file in landed]
    if not wanted:
        return
    found = {key: verified[stem] for key, stem in wanted if stem in verified}
    found |= find_existing(state.downloader.store, ((key, stem) for key, stem in wanted if key not in found))
    beside = _find_extras(state, {key: stem for key, stem in wanted if key in found})
    paid = _paid_before(state, [item for item in blank if item.key in found])
    for item in blank:
        if image := found.get(item.key):
            state.mark_reused(item, image, beside.get(item.key, ()), paid=paid.get(item.key))
    _recheck_stored(state, [item for item, _ in landed], found)
    if reused := sum(item.key in found for item in blank):
        log.info("%d of %d images are in place already and cost nothing", reused, len(state.items))


def _paid_before(state: BatchState, items: Sequence[BatchItem]) -> dict[str, Cost]:
    """Return what this task instance itself paid for images in place, by item key, where only the claims remember it.

    So it is at a retry before Airflow 3.3. What was billed is not on record there: list prices stand for it.
    """
    claims = state.claims
    if claims is None or state.ledger.complete or not (state.attempt.retry or state.attempt.cleared):
        return {}
    with unreadable_claims(), WorkerPool(_THREADS) as pool:
        bought = pool.map(lambda item: claims.bought_by_us(item.stem(state.name_suffix), item.fingerprint), items)
        prices = {item.key: (state.budget.price(item), number) for item, number in zip(items, bought, strict=True)}
    return {
        key: Cost(None if price is None else price * number, listed=True)
        for key, (price, number) in prices.items()
        if number
    }


def _find_extras(state: BatchState, stems: Mapping[str, str]) -> dict[str, list[StoredImage]]:
    """Return the further images that earlier runs landed beside the first ones, verified, by item key.

    :param stems: Of the first ones, by item key.
    """
    found: dict[str, list[StoredImage]] = {}
    left = dict(stems)
    for index in range(1, MOST_IMAGES):
        if not left:
            break
        wanted = [(key, f"{stem}.{index}") for key, stem in left.items()]
        images = find_existing(state.downloader.store, wanted)
        for key, image in images.items():
            found.setdefault(key, []).append(image.model_copy(update={"index": index}))
        # They are numbered without a gap, so that one listing is enough where there are none.
        left = {key: stem for key, stem in left.items() if key in images}
    return found


def _recheck_stored(state: BatchState, landed: Sequence[BatchItem], found: Mapping[str, StoredImage]) -> None:
    """Open again what is stored under its name and is no whole image; another whole image there is left as it is."""
    for item in landed:
        if image := found.get(item.key):
            state.mark_verified(item, image)
    broken = [item for item in landed if item.key not in found]
    for item in broken:
        state.reopen(item, rebuy=state.will_be_rebought(item) or state.entry(item).record is None)
    _log_lost(state, broken, "no whole images any more")
