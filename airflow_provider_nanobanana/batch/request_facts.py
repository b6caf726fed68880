"""RequestFacts: what result, manifest and index say of the request of an image or a failure, in both forms alike.

Generate knows all of it. A download knows what the submit task has handed on, and of an image task from elsewhere
nothing. No link leaves here with what may be secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.toapis.fingerprint import unsigned
from airflow_provider_nanobanana.toapis.models import ImageRequest, is_link
from airflow_provider_nanobanana.toapis.redaction import bare_links

#: Characters of a prompt that go through XCom.
PROMPT_BEGINNING: Final = 80
#: Fields of a request that may hold links.
_WITH_LINKS: Final = ("reference_images", "extra_body")


@dataclass(frozen=True)
class RequestFacts:
    """What is known of one request; None for what is not.

    :param index: Position of its row in the list as given, from 0; several variants of a row share it.
    :param version: Which picture of the request, from 1.
    :param meta: The row's own data, plain JSON.
    :param prompt: All of it.
    :param key: The stem of its file's name without the picture's own number.
    :param digest: Hash of the request; 64 hex digits.
    :param fields: What was asked for, as ``ImageRequest`` names it; links without query and user.
    """

    index: int | None = None
    name: str | None = None
    variant: str | None = None
    version: int | None = None
    meta: Mapping[str, Any] | None = None
    prompt: str | None = None
    model: str | None = None
    key: str | None = None
    digest: str | None = None
    fields: Mapping[str, Any] | None = None

    @classmethod
    def of_item(cls, item: BatchItem) -> Self:
        """Return what a batch knows of an item."""
        request = item.request
        return cls(
            index=item.index,
            name=item.name,
            variant=request.variant,
            version=item.version,
            meta=_mapping(item.meta),
            prompt=request.prompt,
            model=request.model,
            key=item.key,
            digest=item.fingerprint,
            fields=_bare_fields(request.model_dump(mode="json")),
        )

    @classmethod
    def of_submit(cls, pushed: Any, model: str | None = None) -> Self:
        """Return what a submit task has handed on under the XCom key ``nanobanana_request``; it may be anything.

        The row of a mapped task is its map index.

        :param pushed: None, or no mapping, where nothing was handed on.
        :param model: What the service says, where the submit task said nothing.
        """
        if not isinstance(pushed, Mapping):
            return cls(model=model)
        row = pushed.get("map_index")
        return cls(
            index=row if isinstance(row, int) and row >= 0 else None,
            name=_text(pushed.get("name")),
            variant=_text(pushed.get("variant")),
            meta=_mapping(pushed.get("meta")),
            prompt=_text(pushed.get("prompt")),
            model=_text(pushed.get("model")) or model,
            fields=_bare_fields({key: pushed[key] for key in ImageRequest.model_fields if key in pushed}),
        )

    def brief(self) -> dict[str, Any]:
        """Return what goes through XCom: name, variant, meta, and the beginning of the prompt."""
        prompt = self.prompt and self.prompt[:PROMPT_BEGINNING]
        return {"name": self.name, "variant": self.variant, "meta": self.meta, "prompt": prompt}

    def whole(self) -> dict[str, Any]:
        """Return what goes into the manifest."""
        return {
            "request": self.index,
            "name": self.name,
            "variant": self.variant,
            "version": self.version,
            "meta": self.meta,
            "prompt": self.prompt,
            "model": self.model,
            "key": self.key,
            "digest": self.digest,
            "fields": self.fields,
        }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _mapping(meta: Any) -> dict[str, Any] | None:
    """Return a row's own data, its links as they are but for a signature, which opens what it is part of."""
    return _unsigned(dict(meta)) if isinstance(meta, Mapping) else None


def _unsigned(value: Any) -> Any:
    """Return JSON in which no link holds a signature; a link without one stays as it is written."""
    if isinstance(value, dict):
        return {key: _unsigned(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unsigned(inner) for inner in value]
    if not isinstance(value, str) or "?" not in value:
        return value
    try:
        if not is_link(value):
            return value
        bare = unsigned(value)
        return bare if len(urlsplit(bare).query) < len(urlsplit(value).query) else value
    except ValueError:
        return value


def _bare_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: bare_links(value) if key in _WITH_LINKS else value for key, value in fields.items()}
