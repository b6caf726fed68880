"""Where the images stand in the answer of an image task that is over: documented places first, then one bounded search.

The search takes links from below keys that name results and never from below keys that name what was asked for. Shapes
of other gateways, and why a request's own links may be in the answer: ``docs/toapis.md``,
"Result links".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from airflow_provider_nanobanana.toapis.fingerprint import unsigned
from airflow_provider_nanobanana.toapis.response_values import json_inside

#: Several drafts or layers are one image task; more are a mistake, or an attack on the storage.
MOST_IMAGES: Final = 16
_MOST_NODES: Final = 20_000
_DEEPEST: Final = 16
_LONGEST_LINK: Final = 16_384
#: Characters of a text that tell whether it is base64; the decoder checks the rest.
_HEAD: Final = 400

#: What was asked for; keys are compared without case, ``_`` and ``-``. No link below them is a result, wherever else in
#: the answer it stands.
_ASKED: Final = re.compile(
    r"^(\w*(input|request|reference)|req$|param|prompt|ref(image|url|s$|$)|source|src(image|url)|init|mask|control|"
    "metadata|arg(s|ument)|options|config|settings)"
)
#: What accompanies a result without being one.
_ASIDE: Final = re.compile(
    "^(thumb|preview|callback|webhook|notify|poll|status|cancel|avatar|logo|icon|watermark|error|billing|usage|user|"
    "video|audio|docs?$|help|console|homepage|self$|get$|stream|log)"
)
#: Fields of a request that services repeat beside the result; below a key that names a result they are the result.
_ECHOES: Final = frozenset({"imageurls", "referenceimages"})
_RESULTS: Final = re.compile(
    "^(result|output|response|generated|generations?$|artifact|samples?$|choices|candidates|predictions?$|images$)"
)
#: Keys whose text, when it is a link, is a result.
_LINKS: Final = re.compile(
    r"^(ur[li]s?|links?|href|src|files?|media|assets?|pictures?|photos?|img|imgs|images?|download|content|data|"
    r"samples?|artifacts?|(outputs?|results?|generated|final)\w*|"
    r"\w*(image|img|picture|photo|output|result|file|media|asset|download|cdn|oss|public|signed|hosted|full|raw)s?"
    r"(url|uri|link|src|path)s?(list)?)$"
)
_BASE64_KEYS: Final = re.compile("(b64|base64)|^(image)?bytes$")
#: How PNG, JPEG, WebP, GIF and AVIF files begin in base64.
_MAGIC: Final = re.compile(r"\s*(iVBORw0KGgo|/9j/|_9j_|UklGR|R0lGOD|AAAA[A-Za-z0-9+/_-]{2}Z0eXB)")
_BASE64_TEXT: Final = re.compile(r"[A-Za-z0-9+/_\-\s]{24,}={0,2}\s*")
_DATA_URI: Final = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
_LINK: Final = re.compile(r"https?://", re.IGNORECASE)
_LOCAL: Final = re.compile(r"/?[^\s:/?#]+([/?]\S*)?")
_PICTURE: Final = re.compile(r"\.(png|jpe?g|webp|gif|avif|heic|bmp|tiff?)$", re.IGNORECASE)
_ORIGINAL: Final = re.compile("^orig")


@dataclass(frozen=True)
class FoundImage:
    """What an answer gives of one image: a link, the bytes as text, or both."""

    url: str | None = None
    b64_json: str | None = field(default=None, repr=False)


def find_images(
    body: Mapping[str, Any], base_url: str = "", sent: Collection[str] | None = None
) -> tuple[FoundImage, ...]:
    """Return the images that an answer names, without duplicates, in its order, at most 16.

    :param body: The answer's JSON object, an envelope around the image task taken off.
    :param base_url: Where the answer came from: links without a host are completed with it.
    :param sent: The links of the request, none of which is ever a result; None where they are not known. Then what may
        be an echo of the request is not taken either.
    """
    ours = {_place(link) for link in sent or ()}
    found = _documented(body, base_url, ours)
    return tuple(found or _Search(base_url, ours, trusting=sent is not None and not sent).run(body))


def _documented(body: Mapping[str, Any], base_url: str, ours: set[str]) -> list[FoundImage]:
    """Return what the first place has that names an image, the documented one first, or what another adds to it.

    Another place with more images counts where it repeats those of the first: what it holds else may be no result.
    """
    result = body.get("result")
    inside = [result.get("data"), result, result.get("images")] if isinstance(result, Mapping) else [result]
    places = [*inside, body.get("data"), body, body.get("images")]
    found = [_without(_entries(place, base_url), ours) for place in places]
    first = next((images for images in found if images), [])
    known = set(map(_identity, first))
    fuller = [images for images in found if known <= set(map(_identity, images))]
    return max(fuller, key=len, default=first)


def _identity(image: FoundImage) -> str:
    return _place(image.url) if image.url else image.b64_json or ""


def _entries(place: Any, base_url: str) -> Iterator[FoundImage]:
    for entry in place if isinstance(place, list) else [place]:
        if isinstance(entry, Mapping):
            image, inline = _read(entry.get("url"), base_url, bare=True, spaced=True), entry.get("b64_json")
            if isinstance(inline, str) and inline.strip():
                image = FoundImage(image.url if image else None, inline)
        else:
            image = _read(entry, base_url)
        if image:
            yield image


def _without(images: Iterable[FoundImage], ours: set[str]) -> list[FoundImage]:
    """Return the images without duplicates and without links of ours, at most 16."""
    kept = (image for image in images if not image.url or _place(image.url) not in ours)
    return list(islice(dict.fromkeys(kept), MOST_IMAGES))


def _read(value: Any, base_url: str, *, bare: bool = False, spaced: bool = False) -> FoundImage | None:
    """Return the image that a text stands for: a link, a ``data:`` URI or base64; None for anything else.

    :param bare: Whether a link may lack its host.
    :param spaced: Whether any link may hold blanks, and not only one to a picture file.
    """
    if not isinstance(value, str):
        return None
    if _DATA_URI.match(value) or (_MAGIC.match(value) and _BASE64_TEXT.fullmatch(value[:_HEAD])):
        return FoundImage(b64_json=value)
    if len(value) > _LONGEST_LINK:
        return None
    link = re.sub(r"[\x00-\x1f\x7f]", "", value).strip()
    try:
        if bare:
            link = _with_host(link, base_url)
        parts = urlsplit(link)
        if not _LINK.match(link) or not parts.hostname:
            return None
        return FoundImage(url=link) if spaced or " " not in link or _PICTURE.search(parts.path) else None
    except ValueError:
        return None


def _with_host(link: str, base_url: str) -> str:
    """Return a link completed with what the base URL has; a text that is no link to a file here as it is."""
    if link.startswith("//"):
        return f"{urlsplit(base_url).scheme or 'https'}:{link}"
    if base_url and _LOCAL.fullmatch(link) and (link.startswith("/") or _PICTURE.search(urlsplit(link).path)):
        return urljoin(f"{base_url}/", link)
    return link


def _place(link: str) -> str:
    """Return what identifies a link, without scheme: a new signature changes only what is left out."""
    try:
        parts = urlsplit(unsigned(link.strip()))
    except ValueError:
        return link
    return f"{parts.netloc.lower()}{parts.path}?{parts.query}" if parts.netloc else link.strip()


@dataclass
class _Search:
    """One walk through an answer; what it may not take is kept out wherever else it stands.

    :param trusting: Whether nothing was sent that the answer could repeat.
    """

    base_url: str
    ours: set[str]
    trusting: bool
    nodes: int = 0
    likely: list[FoundImage] = field(default_factory=list)
    #: Links to pictures below keys that do not name a result; taken only where nothing else is there.
    possible: list[FoundImage] = field(default_factory=list)

    def run(self, body: Mapping[str, Any]) -> list[FoundImage]:
        """Return what was found below keys that name results, else what else looks like a picture."""
        self._walk(body, "", _Where())
        return _without(self.likely, self.ours) or _without(self.possible, self.ours)

    def _walk(self, value: Any, key: str, where: _Where) -> None:
        self.nodes += 1
        if self.nodes > _MOST_NODES or where.depth > _DEEPEST:
            return
        while isinstance(value, str) and (inner := json_inside(value)) is not None:
            value, where = inner, where.deeper()
        if isinstance(value, Mapping):
            self._walk_mapping(value, where)
        elif isinstance(value, list):
            for inner in value:
                self._walk(inner, key, where.deeper(result=key == "data" and not _is_task(inner)))
        elif isinstance(value, str) and (image := self._take(value, key, where)):
            self.likely.append(image)

    def _walk_mapping(self, mapping: Mapping[str, Any], where: _Where) -> None:
        """Walk on; several texts of one mapping are one image: its link and its bytes, or its variants."""
        own: int | None = None
        for name, value in mapping.items():
            key = re.sub(r"[\W_]", "", str(name)[:80]).lower()
            below = where.below(key, trusting=self.trusting)
            if not isinstance(value, str) or json_inside(value) is not None:
                self._walk(value, key, below)
            elif image := self._take(value, key, below):
                if own is None:
                    own = len(self.likely)
                    self.likely.append(image)
                elif bool(self.likely[own].url) != bool(image.url):
                    first = self.likely[own]
                    self.likely[own] = FoundImage(first.url or image.url, first.b64_json or image.b64_json)

    def _take(self, text: str, key: str, where: _Where) -> FoundImage | None:
        """Return the image that a text below a key is."""
        named = bool(_LINKS.search(key))
        image = _read(text, self.base_url, bare=named)
        if where.asked or where.aside:
            if image and image.url and where.asked:
                self.ours.add(_place(image.url))
            return None
        if image is None:
            inline = _BASE64_KEYS.search(key) and _BASE64_TEXT.fullmatch(text[:_HEAD])
            return FoundImage(b64_json=text) if inline else None
        if image.b64_json or (named and not _ORIGINAL.search(key)):
            return image
        if image.url and _PICTURE.search(urlsplit(image.url).path):
            self.possible.append(image)
        return None


@dataclass(frozen=True)
class _Where:
    """Where the walk is.

    :param asked: Below a key that names what was asked for.
    :param aside: Below a key that names what only accompanies a result.
    :param inside: Below a key that names a result.
    """

    depth: int = 0
    asked: bool = False
    aside: bool = False
    inside: bool = False

    def deeper(self, *, result: bool = False) -> _Where:
        """Return the place of what a list or a text holds."""
        return _Where(self.depth + 1, self.asked, self.aside, self.inside or result)

    def below(self, key: str, *, trusting: bool) -> _Where:
        """Return the place below a key of a mapping."""
        echo = key in _ECHOES and not trusting and not self.inside
        asked = self.asked or echo or bool(_ASKED.search(key))
        aside, inside = self.aside or bool(_ASIDE.search(key)), self.inside or bool(_RESULTS.search(key))
        return _Where(self.depth + 1, asked, aside, inside)


def _is_task(value: Any) -> bool:
    """Whether a value is an image task, which may repeat its request beside its result."""
    return isinstance(value, Mapping) and any(key in value for key in ("task_id", "taskId", "prompt"))
