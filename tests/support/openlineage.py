"""OpenLineage's events as tests read them: whether our part is as the schemas say, and what the page shows of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
from referencing import Registry, Resource

from airflow_provider_nanobanana.batch.openlineage import PRODUCER
from tests.support.pages import snippets

SCHEMAS: Final = Path(__file__).parents[2] / "docs" / "openlineage"
_SPEC: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
_FACET: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"_producer": {"type": "string"}, "_schemaURL": {"type": "string"}},
    "required": ["_producer", "_schemaURL"],
}
#: What our schemas refer to of OpenLineage's own, which its packages do not have: a facet of a dataset, and of a run.
_BASE: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": _SPEC,
    "$defs": {
        "RunFacet": _FACET,
        "DatasetFacet": {**_FACET, "properties": {**_FACET["properties"], "_deleted": {"type": "boolean"}}},
    },
}
_OURS: Final = [json.loads(path.read_text()) for path in sorted(SCHEMAS.glob("*/*.json"))]
_REGISTRY: Final[Registry[Any]] = Registry().with_resources(
    [(schema["$id"], Resource.from_contents(schema)) for schema in (_BASE, *_OURS)]
)
#: OpenLineage's facets that we fill, by the class that its client has for each.
_STANDARD: Final[Mapping[str, Any]] = {
    "version": DatasetVersionDatasetFacet,
    "outputStatistics": OutputStatisticsOutputDatasetFacet,
}


def facets_of_ours(event: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return each facet of an event's JSON that this provider fills, with its name."""
    of_run = event["run"]["facets"]
    yield from ((name, facet) for name, facet in of_run.items() if name.startswith("nanobanana"))
    for dataset in (*event["inputs"], *event["outputs"]):
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from dataset.get(kind, {}).items()


def facet_faults(event: Mapping[str, Any]) -> list[str]:
    """Say in what the facets of an event's JSON that this provider fills differ from their schemas; keys that those do
    not name are faults.
    """
    found = []
    for name, facet in facets_of_ours(event):
        if facet["_producer"] != PRODUCER:
            found.append(f"{name}: {facet['_producer']} is not us")
        if name in _STANDARD:
            own = _STANDARD[name](**{key: value for key, value in facet.items() if not key.startswith("_")})
            found += [] if facet["_schemaURL"] == own._schemaURL else [f"{name}: {facet['_schemaURL']}"]
            continue
        schema = {"$ref": facet["_schemaURL"], "unevaluatedProperties": False}
        errors = Draft202012Validator(schema, registry=_REGISTRY).iter_errors(facet)
        found += [f"{name}: {error.message}" for error in errors]
    return found


def shown(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what docs/lineage.md shows of an event's JSON.

    Who did what, our facets without the addresses of producer and schema, the first input and the first output.
    """
    return {
        "eventType": event["eventType"],
        "job": {name: event["job"][name] for name in ("namespace", "name")},
        "run": {"facets": _bare({"nanobanana_images": event["run"]["facets"]["nanobanana_images"]})},
        "inputs": [_dataset(one) for one in event["inputs"][:1]],
        "outputs": [_dataset(one) for one in event["outputs"][:1]],
    }


def shown_example() -> dict[str, Any]:
    """Return the event that docs/lineage.md shows."""
    (example,) = (json.loads(each.text) for each in snippets("json") if each.page == "lineage.md")
    return dict(example)


def shape(value: Any) -> Any:
    """Return JSON with the types of its values in their place."""
    if isinstance(value, Mapping):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


def _dataset(dataset: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {kind: _bare(facets) for kind in ("facets", "outputFacets") if (facets := dataset.get(kind))}
    return {"namespace": dataset["namespace"], "name": dataset["name"], **kinds}


def _bare(facets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in facet.items() if not key.startswith("_")} for name, facet in facets.items()
    }
