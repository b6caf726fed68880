"""The operator that lands the images of completed image tasks in the team's own storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_nanobanana.exceptions import airflow_errors, airflow_exception
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_nanobanana.hooks.retrieval import Retrieval

#: Downloads under way at once; images are decoded one at a time.
_THREADS = 4


class NanoBananaDownloadOperator(BaseOperator):
    """Land every image of a sensor's list and return one small record an image.

    A record is ``{"uri", "id", "index", "sha256", "bytes", "format", "width", "height"}``. Entries that are not
    completed are left out. What can be landed is landed before anything is raised; a second run overwrites nothing and
    downloads nothing again. A manifest, named by the run, lies beside the images.

    :param images: What :class:`NanoBananaSensor` returned; also a list of such lists.
    :param destination: Any ``ObjectStoragePath`` URI of a folder.
    :param nanobanana_conn_id: Id of the connection, to ask for links that are missing, refused or dead.
    """

    template_fields: Sequence[str] = ("images", "destination", "nanobanana_conn_id")
    ui_color = "#cdeac0"

    def __init__(
        self,
        *,
        images: Any,
        destination: str,
        nanobanana_conn_id: str = NanoBananaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = images
        self.destination = destination
        self.nanobanana_conn_id = nanobanana_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Land the images, write the manifest, then raise what could not be landed."""
        from airflow_provider_nanobanana.hooks.retrieval import Retrieval

        with airflow_errors():
            entries = list(_entries(self.images))
            wanted = _wanted(entries)
            with NanoBananaHook(self.nanobanana_conn_id) as hook, Retrieval(hook, self.destination) as retrieval:
                landed, lost = self._land_all(retrieval, wanted)
                manifest = retrieval.write_manifest(_manifest_name(context), _manifest(context, entries, landed, lost))
        self.log.info("Landed %d of %d images; manifest %s", len(landed), len(wanted), manifest)
        if lost:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=landed)
            raise airflow_exception(_loss(lost, landed))
        return landed

    def _land_all(
        self, retrieval: Retrieval, wanted: Sequence[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], errors.ToApisError]]]:
        def land(image: dict[str, Any]) -> dict[str, Any] | errors.ToApisError:
            try:
                return retrieval.land(image).record()
            except errors.ToApisError as error:
                self.log.error("Image %s/%d was not landed: %s", image["id"], image["index"], error.message)
                return error

        landed: list[dict[str, Any]] = []
        lost: list[tuple[dict[str, Any], errors.ToApisError]] = []
        with ThreadPoolExecutor(min(_THREADS, len(wanted))) as pool:
            for image, result in zip(wanted, pool.map(land, wanted), strict=True):
                if isinstance(result, errors.ToApisError):
                    lost.append((image, result))
                    continue
                landed.append(result)
                if len(landed) % 100 == 0:
                    self.log.info("%d of %d images landed", len(landed), len(wanted))
        return landed, lost


def _entries(images: Any) -> Iterator[dict[str, Any]]:
    """Yield the sensor's entries out of one list, or out of the lists of several mapped sensors, holes left out."""
    if isinstance(images, dict):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, (str, bytes)):
        for entry in images:
            yield from _entries(entry)
    elif images is not None:
        raise errors.InvalidRequest(
            f"images holds {images!r:.80}; give what NanoBananaSensor returned (its .output), a list of mappings."
        )


def _wanted(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if not entries:
        raise errors.InvalidRequest(
            "There is nothing to land: the sensor left no result. If it failed, mend its cause and clear it; paid "
            "images wait at the service until their links expire."
        )
    wanted = [
        {"id": entry.get("id"), "index": index, "url": image.get("url")}
        for entry in entries
        if entry.get("status") == "completed"
        for index, image in enumerate(entry.get("images") or [{}])
        if isinstance(image, dict)
    ]
    if not wanted:
        raise errors.ImageTaskFailed(f"None of {len(entries)} image tasks completed, so there is nothing to land.")
    return wanted


def _manifest_name(context: Context) -> str:
    ti: Any = context["ti"]
    mapped = f"-{ti.map_index}" if ti.map_index is not None and ti.map_index >= 0 else ""
    return f"manifest-{ti.dag_id}-{ti.run_id}-{ti.task_id}{mapped}"


def _manifest(
    context: Context,
    entries: Sequence[dict[str, Any]],
    landed: Sequence[dict[str, Any]],
    lost: Sequence[tuple[dict[str, Any], errors.ToApisError]],
) -> dict[str, Any]:
    """Return what a person needs who finds the folder later; links are left out, they are secrets and die."""
    ti: Any = context["ti"]
    costs = [entry["cost_usd"] for entry in entries if entry.get("cost_usd") is not None]
    return {
        "version": 1,
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "images": list(landed),
        "image_tasks": [
            {key: entry.get(key) for key in ("id", "status", "expires_at", "cost_usd", "error")} for entry in entries
        ],
        "not_landed": [{"id": image["id"], "index": image["index"], "error": error.message} for image, error in lost],
        "cost_usd": round(sum(costs), 6) if costs else None,
    }


def _loss(lost: Sequence[tuple[dict[str, Any], errors.ToApisError]], landed: Sequence[object]) -> errors.ToApisError:
    """Return one error for all; it may be retried when any of them may."""
    worst = next((error for _, error in lost if error.retryable), lost[0][1])
    listed = "; ".join(f"{image['id']}/{image['index']}: {error.message}" for image, error in lost[:10])
    more = f" and {len(lost) - 10} more" if len(lost) > 10 else ""
    advice = (
        "A retry, or a clear of this task, lands only what is missing, free of charge."
        if worst.retryable
        else "Nothing of this is bought again by itself."
    )
    return type(worst)(
        f"{len(landed)} images landed, {len(lost)} not: {listed}{more}. {advice}",
        image_task_id=worst.image_task_id,
        http_status=worst.http_status,
        code=worst.code,
        charged="yes",
    )
