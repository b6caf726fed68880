"""What OpenLineage is told of a task instance; needs the OpenLineage provider (the extra ``[openlineage]``).

Imported where that provider asks for it, and nowhere else. The schemas of our own facets are in ``docs/openlineage``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attr
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset, InputDataset, OutputDataset
from openlineage.client.generated.base import DatasetFacet, RunFacet
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet

from airflow_provider_nanobanana import __version__
from airflow_provider_nanobanana.batch.task_lineage import LandedImage, TaskLineage
from airflow_provider_nanobanana.get_provider_info import DOCUMENTATION
from airflow_provider_nanobanana.lineage import MOST, dataset_name, files_or_folders, plain_uri

#: ``Source`` of ``[project.urls]`` in pyproject.toml.
SOURCE: Final = "https://github.com/airflow-provider-nanobanana/airflow-provider-nanobanana"
PRODUCER: Final = f"{SOURCE}/tree/v{__version__}"
#: A schema is never changed: a facet with other fields has another version, and the old file stays.
SCHEMAS: Final = f"{DOCUMENTATION}openlineage/1-0-0/"


@attr.define
class NanobananaImagesRunFacet(RunFacet):
    """What a task instance made and paid; the names are those of its result."""

    form: str
    models: list[str] = attr.field(factory=list)
    count: int | None = None
    extra_count: int | None = None
    shared: int | None = None
    reused: int | None = None
    completed: int | None = None
    failed_count: int | None = None
    timed_out: int | None = None
    quarantined_count: int | None = None
    cost_usd: float | None = None
    paid_usd: float | None = None
    lost_race: float | None = None

    _additional_skip_redact: ClassVar[list[str]] = ["form"]

    @staticmethod
    def _get_schema() -> str:
        return f"{SCHEMAS}NanobananaImagesRunFacet.json#/$defs/NanobananaImagesRunFacet"


@attr.define
class NanobananaImageDatasetFacet(DatasetFacet):
    """What is known of one image."""

    sha256: str
    bytes: int
    format: str
    width: int
    height: int
    image_task_id: str | None = None
    origin: str | None = None

    _additional_skip_redact: ClassVar[list[str]] = ["sha256", "format", "origin"]

    @staticmethod
    def _get_schema() -> str:
        return f"{SCHEMAS}NanobananaImageDatasetFacet.json#/$defs/NanobananaImageDatasetFacet"


def operator_lineage(lineage: TaskLineage) -> OperatorLineage[Any, Any]:
    """Return what a task instance read, wrote and paid, for an event of its run.

    One dataset an image, and one a reference; of more than :data:`MOST` of them one a folder, with count and size.
    """
    told: Mapping[str, Any] = {**lineage.counts, **lineage.money}
    run_facet = NanobananaImagesRunFacet(form=lineage.form, models=list(lineage.models), producer=PRODUCER, **told)
    return OperatorLineage(
        inputs=_inputs(lineage),
        outputs=_outputs(lineage),
        run_facets={"nanobanana_images": run_facet},
    )


def _inputs(lineage: TaskLineage) -> list[Dataset]:
    digests = {uri: digest for given, digest in lineage.references.items() if (uri := plain_uri(given))}
    return [InputDataset(*dataset_name(uri), facets=_version(digests.get(uri))) for uri in files_or_folders(digests)]


def _outputs(lineage: TaskLineage) -> list[Dataset]:
    images = {uri: image for image in lineage.images if (uri := plain_uri(image.record["uri"]))}
    if len(images) <= MOST:
        return [
            _output(uri, [image], {**_version(image.record["sha256"]), **_image_facet(image)})
            for uri, image in images.items()
        ]
    folders: dict[str, list[LandedImage]] = {folder: [] for folder in files_or_folders(images)}
    for uri, image in images.items():
        if (folder := uri.rpartition("/")[0]) in folders:
            folders[folder].append(image)
    return [_output(folder, inside, {}) for folder, inside in folders.items()]


def _output(uri: str, images: list[LandedImage], facets: dict[str, DatasetFacet]) -> Dataset:
    sizes = [image.record["bytes"] for image in images]
    size = None if None in sizes else sum(sizes)
    statistics = OutputStatisticsOutputDatasetFacet(size=size, fileCount=len(images), producer=PRODUCER)
    return OutputDataset(*dataset_name(uri), facets=facets, outputFacets={"outputStatistics": statistics})


def _version(sha256: str | None) -> dict[str, DatasetFacet]:
    """Return the facet of a file's content: its SHA-256 is its version."""
    if sha256 is None:
        return {}
    return {"version": DatasetVersionDatasetFacet(datasetVersion=f"sha256:{sha256}", producer=PRODUCER)}


def _image_facet(image: LandedImage) -> dict[str, DatasetFacet]:
    """Return the facet of one image; none where only its place is known."""
    told = {name: image.record[name] for name in ("sha256", "bytes", "format", "width", "height")}
    if None in told.values():
        return {}
    facet = NanobananaImageDatasetFacet(
        **told, image_task_id=image.record["id"] or None, origin=image.origin, producer=PRODUCER
    )
    return {"nanobanana_image": facet}
