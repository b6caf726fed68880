"""The operator that lands the images of completed image tasks in the team's own storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator

from airflow_provider_nanobanana.batch.lineage_operator import LineageOperator
from airflow_provider_nanobanana.compat import was_skipped
from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.landing.suspects import (
    PromptsByBytes,
    in_order,
    is_other_size,
    same_for_other_prompts,
)
from airflow_provider_nanobanana.operators.arguments import OnSuspect, check_choices
from airflow_provider_nanobanana.operators.manifest import (
    GrowingManifest,
    TaskManifest,
    push_result,
    with_manifest_error,
)
from airflow_provider_nanobanana.retry_policy import with_retry_policy
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.text_lines import fold
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import StoppableOperator, WorkerPool, take_each

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_nanobanana.batch.download_report import DownloadReport
    from airflow_provider_nanobanana.batch.task_lineage import TaskLineage
    from airflow_provider_nanobanana.batch.upstream_requests import Request
    from airflow_provider_nanobanana.landing.downloader import ImageDownloader
    from airflow_provider_nanobanana.landing.image_store import ImageStore
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = LineLogger(__name__)

Record = dict[str, Any]
Lost = tuple[Record, errors.ToApisError]
#: What the service says of an image task beyond the sensor's entry, by id.
Facts = Mapping[str, Record]

_FACTS: Final = {"model", "created_at", "completed_at", "client_business_id"}
#: Downloads under way at once; images are decoded one at a time.
_THREADS: Final = 4
#: Images that an error names.
_MOST_LISTED: Final = 10


class NanoBananaDownloadOperator(LineageOperator, StoppableOperator, BaseOperator):
    """Land every image of a sensor's list and return one small record an image.

    A record is ``{"uri", "id", "index", "sha256", "bytes", "format", "width", "height"}``, and what the submit task has
    handed on: ``name``, ``variant``, ``meta``, the beginning of the ``prompt``. What was not ready in time
    is asked about once more; what has not completed is left out. What can be landed is landed before anything is
    raised; a second run overwrites nothing and downloads nothing again. The records are in XCom also when the task
    fails. A manifest, named by the run, is written beside the images. Without entries it is skipped when its
    upstream was.

    :param images: What :class:`NanoBananaSensor` returned; also a list of such lists.
    :param destination: Any ``ObjectStoragePath`` URI of a folder, or a local path.
    :param on_suspect: What follows when an image looks empty or is the same as another prompt's (docs/suspects.md):
        ``warn``; ``fail`` with all in place; or ``quarantine``, kept apart as lost.
    :param thumbnails: Whether a small picture of each image that is landed is written, for the gallery in Airflow.
    :param nanobanana_conn_id: Id of the connection, to ask for links that are missing, refused or expired.
    :raises NanoBananaFailException: Nothing completed, the destination cannot work, or paid images are lost for good.
    :raises NanoBananaException: Images are missing that a retry may land, free of charge.
    """

    template_fields: Sequence[str] = ("images", "destination", "nanobanana_conn_id")
    ui_color = "#cdeac0"

    def __init__(
        self,
        *,
        images: Any,
        destination: str,
        on_suspect: OnSuspect = "warn",
        thumbnails: bool = True,
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(kwargs))
        self.images = images
        self.destination = destination
        self.on_suspect = on_suspect
        self.thumbnails = thumbnails
        self.nanobanana_conn_id = nanobanana_conn_id

    def execute(self, context: Context) -> list[Record]:
        """Land the images, write the manifest, then raise what could not be landed."""
        with airflow_errors():
            return self._run_stoppable(lambda: self._land(context))

    def on_kill(self) -> None:
        """Stop; what is in place stays, and the next attempt lands the rest."""
        self._stop()

    def _land(self, context: Context) -> list[Record]:
        from airflow_provider_nanobanana.batch.costs import format_usd
        from airflow_provider_nanobanana.batch.suspect_report import report_suspects
        from airflow_provider_nanobanana.batch.upstream_requests import pull_requests

        with airflow_errors():
            check_choices(self, flags=("thumbnails",))
            entries = list(_entries(self.images))
            if not entries and was_skipped(self, context):
                raise AirflowSkipException("There is nothing to land: the tasks before were skipped.")
            requests = pull_requests(self, context)
            with NanoBananaHook(self.nanobanana_conn_id) as hook:
                session = hook.session
                entries, facts = _poll_again(session, entries)
                wanted = _wanted(entries)
                with _open_downloader(session, self) as downloader:
                    store = downloader.store
                    manifest = TaskManifest.from_context(context, store, hook.settings.namespace)
                    manifest.announce(context)
                    landing = _Landing(manifest, session.clock, entries, wanted, facts, requests)
                    with self._telling_lineage(hook, landing.lineage):
                        self._land_all(downloader, landing)
                    report = landing.report()
                    records = report.result()
                    push_result(context, self, records)
                    content = landing.content_of(report, finished=True)
                    unwritten = manifest.write(content)
            landed, lost = landing.marked(), landing.lost
            uri = manifest.uri if unwritten is None else None
            cost = "" if content["cost_usd"] is None else f", {format_usd(content['cost_usd'])}"
            log.info("Landed %d of %d images%s: %s", len(landed), len(wanted), cost, store.uri(""))
            if uri is not None:
                log.info("Manifest: %s", uri)
            names = {image["uri"]: str(requests.get(str(image["id"]), {}).get("name") or "") for image in landed}
            suspicion = report_suspects(landed, names, self.on_suspect, conn_id=session.conn_id)
            error = _loss(lost, landed, requests) if lost else suspicion
            if error := with_manifest_error(error, unwritten, f"Images in place: {len(landed)}"):
                raise error
        return records

    def _land_all(self, downloader: ImageDownloader, landing: _Landing) -> None:
        """Land what can be landed; whatever happens to one image is no reason to lose the others."""
        from airflow_provider_nanobanana.batch.upstream_requests import pixels_of, spoken_of

        wanted, requests = landing.wanted, landing.requests
        prompts = PromptsByBytes()
        stems = _stems(downloader.store, wanted, requests)
        growing = GrowingManifest(landing.manifest, landing.content, landing.progress)

        def land(image: Record) -> Record | errors.ToApisError:
            try:
                with wrap_unexpected_errors("The image was not landed", image_task_id=str(image["id"])):
                    stem = stems.get((image["id"], image["index"]))
                    prompt = requests.get(str(image["id"]), {}).get("prompt")
                    stored = downloader.land(
                        *(image, pixels_of(image, requests)),
                        stem=stem,
                        judge=lambda stored: prompts.judge(stored.sha256, prompt),
                    )
                    return stored.record()
            except errors.ToApisError as error:
                log.error("Image %s was not landed: %s", spoken_of(image, requests), error.message)
                return error

        with WorkerPool(min(_THREADS, len(wanted))) as pool:
            for image, ended in zip(wanted, pool.map(land, wanted), strict=True):
                landing.take(image, ended)
                growing.write_when_due()


@dataclass
class _Landing:
    """What became of the images of one download by now; they end one after another, in the order of the wanted ones.

    :param entries: As the sensor returned them.
    :param facts: What the service says of each image task, by id.
    :param requests: What was asked for, by image task id.
    """

    manifest: TaskManifest
    clock: Callable[[], float]
    entries: Sequence[Record]
    wanted: Sequence[Record]
    facts: Facts
    requests: Mapping[str, Request]
    landed: list[Record] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def take(self, image: Record, ended: Record | errors.ToApisError) -> None:
        """Take note of what became of the next image."""
        if isinstance(ended, errors.ToApisError):
            self.lost.append((image, ended))
            return
        self.landed.append(ended)
        if len(self.landed) % 100 == 0:
            log.info("%d of %d images landed", len(self.landed), len(self.wanted))

    def progress(self) -> tuple[int, int]:
        """Return how many are in place, and how many are lost."""
        return len(self.landed), len(self.lost)

    def marked(self) -> list[Record]:
        """Return the records of what is in place, with what makes each suspect."""
        return _with_suspicion(self.landed, self.requests)

    def lineage(self) -> TaskLineage:
        """Return what is in place by now, and what the service says that the image tasks cost."""
        from airflow_provider_nanobanana.batch.task_lineage import of_download

        models = [facts.get("model") for facts in self.facts.values()]
        kept = sum(error.kept is not None for _, error in self.lost)
        return of_download(
            self.landed, lost=len(self.lost), quarantined=kept, models=models, cost_usd=self.report().cost_usd
        )

    def report(self) -> DownloadReport:
        """Return what the download comes to so far."""
        from airflow_provider_nanobanana.batch.download_report import DownloadReport

        return DownloadReport(
            *(self.entries, self.marked(), self.lost),
            facts=self.facts,
            requests=self.requests,
            under_way=self.wanted[sum(self.progress()) :],
        )

    def content(self) -> Record:
        """Return the manifest as of now."""
        return self.content_of(self.report(), finished=False)

    def content_of(self, report: DownloadReport, *, finished: bool) -> Record:
        """Return the manifest of a report."""
        place = self.manifest.store.uri("")
        return report.manifest(run=self.manifest.run, destination=place, now=self.clock(), finished=finished)


def _with_suspicion(landed: Sequence[Record], requests: Mapping[str, Request]) -> list[Record]:
    """Return the records with what shows only beside what was asked for, also of images that were in place."""
    from airflow_provider_nanobanana.batch.upstream_requests import pixels_of

    asked = {image["id"]: requests.get(str(image["id"]), {}).get("prompt") for image in landed}
    same = same_for_other_prompts((image["sha256"], asked[image["id"]]) for image in landed)
    marked = []
    for image in landed:
        codes = [*image["suspect"], *(["same_bytes"] if image["sha256"] in same else [])]
        if is_other_size(image["width"], image["height"], pixels_of(image, requests)):
            codes.append("other_size")
        marked.append({**image, "suspect": list(in_order(codes))})
    return marked


def _stems(store: ImageStore, wanted: Sequence[Record], requests: Mapping[str, Request]) -> dict[tuple[str, int], str]:
    """Return the names without suffix of the images that are named by their requests; the others have their ids'.

    What is there under its id stays there: it was landed before its request had a name, or was known, and may be the
    only copy of what is paid.
    """
    from airflow_provider_nanobanana.batch.upstream_requests import stem_of
    from airflow_provider_nanobanana.landing.file_names import stem_for

    stems = {(image["id"], image["index"]): stem for image in wanted if (stem := stem_of(image, requests))}
    by_id = {key: stem_for(*key) for key in stems}
    if not by_id:
        return {}
    named, unnamed = [*stems.values()], [*by_id.values()]
    there = store.present(unnamed) | store.in_quarantine(unnamed)
    there_by_name = store.present(named) if there else set()
    return {key: stem for key, stem in stems.items() if by_id[key] not in there or stem in there_by_name}


def _open_downloader(session: ToApisSession, operator: NanoBananaDownloadOperator) -> ImageDownloader:
    """Open the destination; where it cannot work, say what becomes of the images."""
    from airflow_provider_nanobanana.landing.downloader import ImageDownloader

    try:
        return ImageDownloader(
            session, operator.destination, on_suspect=operator.on_suspect, thumbnails=operator.thumbnails
        )
    except (errors.InvalidRequest, errors.ConfigurationError) as error:
        waiting = "The images are paid and wait at the service until their links expire; fix the destination and clear"
        raise error.reworded(
            f"{error.message} {waiting} this task.",
            charged="yes",
            first_step="Correct the destination, then clear this task; no other.",
        ) from error


def _poll_again(session: ToApisSession, entries: Sequence[Record]) -> tuple[list[Record], Facts]:
    """Return the entries, with what was not ready in time as it is now, and what the service says of each; free."""
    from airflow_provider_nanobanana.polling.poll_tracker import poll_once
    from airflow_provider_nanobanana.polling.result import WaitWindow

    now = session.clock()
    statuses = {id_: entry.get("status") for entry in entries if (id_ := _id(entry))}
    results = {result.id: result for result in poll_once(session, list(statuses))}
    facts = {
        result.id: result.image_task.model_dump(include=_FACTS)
        for result in results.values()
        if result.image_task is not None
    }
    late = {
        id_: results[id_].to_record(WaitWindow(now, now), now)
        for id_, status in statuses.items()
        if status == "timeout"
    }
    return [late.get(_id(entry), entry) for entry in entries], facts


def _id(entry: Record) -> str:
    """Return the id of an entry, empty where it has none."""
    id_ = entry.get("id")
    return id_ if isinstance(id_, str) else ""


def _entries(images: Any) -> Iterator[Record]:
    """Yield the sensor's entries out of one list, or out of the lists of several mapped sensors, holes left out."""
    if isinstance(images, dict):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, (str, bytes)):
        for entry in take_each(images):
            yield from _entries(entry)
    elif images is not None:
        rendered = " A template renders to text unless the DAG sets render_template_as_native_obj."
        # Not even the text of a number of 5,000 digits can be had.
        shown = f"{images!r:.80}" if isinstance(images, (str, bytes)) else f"a value of type {type(images).__name__}"
        raise errors.InvalidRequest(
            f"images holds {shown}; give what NanoBananaSensor returned (its .output), a list of mappings."
            + (rendered if isinstance(images, str) else "")
        )


def _wanted(entries: Sequence[Record]) -> list[Record]:
    if not entries:
        raise errors.InvalidRequest(
            "There is nothing to land: the sensor left no result. If it failed, fix its cause and clear it; paid "
            "images wait at the service until their links expire.",
            first_step="Clear the task that waits, then this one.",
        )
    wanted = [image for entry in entries if entry.get("status") == "completed" for image in _images(entry)]
    if not wanted:
        late = [str(entry.get("id")) for entry in entries if entry.get("status") == "timeout"]
        error_class = errors.ImageTaskTimeout if late else errors.ImageTaskFailed
        raise error_class(
            f"None of {len(entries)} image tasks completed, so there is nothing to land."
            + (f" {len(late)} may complete yet; a retry asks again for free." if late else ""),
            first_step=None if late else "See the error of the task that waits: it says which tasks to clear.",
        )
    return wanted


def _images(entry: Record) -> list[Record]:
    """Return the images of a completed entry, one without a link to be asked for; what is none of them fails alone."""
    images = entry.get("images") or [{}]
    links = [
        image.get("url") if isinstance(image, dict) else image
        for image in (images if isinstance(images, list) else [images])
    ]
    return [{"id": entry.get("id"), "index": index, "url": link} for index, link in enumerate(links)]


def _with_place(error: errors.ToApisError) -> str:
    """Return what happened, and where bytes are that failed a check."""
    uri = None if error.kept is None else str(error.kept.get("uri"))
    return error.message if uri is None or uri in error.message else f"{error.message} Its bytes are kept: {uri}"


def _loss(lost: Sequence[Lost], landed: Sequence[object], requests: Mapping[str, Request]) -> errors.ToApisError:
    """Return one error for all, which may be retried when any of them may."""
    from airflow_provider_nanobanana.batch.upstream_requests import spoken_of

    known = [error for _, error in lost]
    worst = next((error for error in known if error.retryable), known[0])
    advice = (
        "A retry, or a clear of this task, lands only what is missing, free of charge."
        if worst.retryable
        else "Nothing of this is bought again by itself."
    )
    lines = []
    for image, error in lost[:_MOST_LISTED]:
        # Also beside a name: what is paid is found by its image task.
        paid = f"{image['id']}/{image['index']}"
        spoken = spoken_of(image, requests)
        who = spoken if str(image["id"]) in spoken else f"{spoken}, {paid}"
        lines.append(fold(f"  {who}: {_with_place(error)}", indent="    "))
    if len(lost) > _MOST_LISTED:
        lines.append(f"  and {len(lost) - _MOST_LISTED} more")
    paragraphs = [f"{len(landed)} images landed, {len(lost)} not. {advice}", *lines]
    return worst.reworded("\n".join(paragraphs), charged="yes")
