"""Suspects: pictures that are whole, and yet most likely not what was asked for.

:data:`RULES` is the one table of what makes a picture suspect. The rules of how a picture looks
(:func:`empty_look`) are applied to its decoded pixels in the decoder's process, with the decoding; those of its size
and of its bytes where results are put together. A suspect picture is paid and whole: what follows is up to whoever
asked for it (``on_suspect``), and none of it buys anything.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from PIL.Image import Image

OnSuspect = Literal["warn", "fail", "quarantine"]
#: How a picture looks, of which at most one is said of it: the first that holds.
Look = Literal["one_pixel", "transparent", "one_colour"]
SuspectCode = Look | Literal["same_bytes", "other_size"]

LOOKS: Final[tuple[Look, ...]] = get_args(Look)


@dataclass(frozen=True)
class SuspectRule:
    """What makes a picture suspect.

    :param threshold: Up to which it is; None where there is nothing to measure.
    :param noise: Up to which single pixels may differ besides.
    :param words: What a person is told of the picture.
    :param legal: What looks similar and is not suspect.
    """

    code: SuspectCode
    threshold: int | None
    words: str
    legal: str
    noise: int = 0

    @property
    def measure(self) -> int:
        """The threshold of a rule that measures something."""
        return self.threshold or 0


#: In the order in which they are told. Levels are of the 256 that an eight-bit channel has; of a picture with 16 bits a
#: channel, of its upper eight. Colours are compared as means of 16x16 pixels, so that noise is none: of a plain picture
#: with a noise of two levels, stored as JPEG, pixels were seen up to 17 levels apart, and such means up to 3.
RULES: Final = (
    SuspectRule(
        "one_pixel", 1, "it is 1x1 pixels", "any other size, however small: icons, lines of one pixel's height"
    ),
    SuspectRule(
        "transparent",
        8,
        "it is fully transparent",
        "a picture with one pixel that can be seen; colours below what cannot be seen do not count",
    ),
    SuspectRule(
        "one_colour",
        4,
        "it is all of one colour",
        "white product shots, black and white masks, line art, shapes cut out of one colour, gradients of more levels",
        noise=20,
    ),
    SuspectRule(
        "same_bytes",
        None,
        "it is byte for byte the image of another prompt",
        "the same image for the same prompt: variants, mapped tasks, what is in place already",
    ),
    SuspectRule(
        "other_size",
        0,
        "it has other pixels than were asked for",
        "any size where that of the request is not known (a model without a table of sizes, extra_body)",
    ),
)
_RULE: Final[dict[str, SuspectRule]] = {rule.code: rule for rule in RULES}

#: Pixels looked at together: most pictures are found to be none of these after the first strip.
_STRIP_PIXELS: Final = 1 << 20
#: Side of the squares of which means are compared, in pixels.
_MEAN_OF: Final = 16
#: Of the largest value: 16 bits a channel.
_SIXTEEN_BITS: Final = 257
_WITH_ALPHA: Final = frozenset({"RGBA", "RGBa", "LA", "La"})
#: What Pillow raises where it has no way to measure a kind of picture, or to find a second frame of a broken file.
_NOT_MEASURED: Final = (ValueError, OSError, EOFError, SyntaxError, MemoryError, LookupError, TypeError, struct.error)
#: Smallest and largest value of each channel, in levels.
Extremes = list[tuple[float, float]]


def empty_look(image: Image, *, moves: bool = False) -> Look | None:
    """Return which empty look a decoded picture has, or None.

    What cannot be measured is not suspect. Of an animation only the first frame is decoded, and many begin with an
    empty one: it is judged by its size alone.

    :param moves: Whether the file has further frames that the decoder was not given.
    """
    if image.size == (1, 1):
        return "one_pixel"
    with contextlib.suppress(*_NOT_MEASURED):
        look = _measured(image)
        if look is not None and not moves and not getattr(image, "is_animated", False):
            return look
    return None


def _measured(image: Image) -> Look | None:
    single: Extremes = []
    means: Extremes = []
    has_alpha = False
    for strip, unit in _strips(image):
        has_alpha = strip.mode in _WITH_ALPHA
        single = _wider(single, strip, unit)
        if has_alpha and single[-1][1] <= _RULE["transparent"].measure:
            continue
        if _spread(single) > _RULE["one_colour"].noise:
            return None
        means = _wider(means, strip.reduce(_MEAN_OF), unit)
        if _spread(means) > _RULE["one_colour"].measure:
            return None
    if has_alpha and single[-1][1] <= _RULE["transparent"].measure:
        return "transparent"
    return "one_colour"


def _wider(extremes: Extremes, strip: Image, unit: int) -> Extremes:
    """Return the extremes of each channel, in levels, those of a strip included."""
    found: Any = strip.getextrema()
    pairs = found if len(strip.getbands()) > 1 else (found,)
    levels = [(low / unit, high / unit) for low, high in pairs]
    if not extremes:
        return levels
    return [(min(low, a), max(high, b)) for (low, high), (a, b) in zip(extremes, levels, strict=True)]


def _strips(image: Image) -> Iterator[tuple[Image, int]]:
    """Yield the picture piece by piece, in a mode whose channels can be measured, and what one level is in it."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    see_through = "transparency" in image.info
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        if strip.mode == "PA" or (see_through and strip.mode in ("P", "L", "RGB", "1")):
            strip = strip.convert("RGBA")
        elif strip.mode == "P":
            strip = strip.convert("RGB")
        elif strip.mode == "1":
            strip = strip.convert("L")
        elif strip.mode.startswith("I;16"):
            strip = strip.convert("I")
        yield strip, _SIXTEEN_BITS if strip.mode.startswith("I") else 1


def _spread(extremes: Extremes) -> float:
    """Return the levels between the extremes of the channel in which they lie farthest apart."""
    return max(high - low for low, high in extremes)


def is_other_size(width: int | None, height: int | None, expected: tuple[int, int] | None) -> bool:
    """Say whether a picture has other pixels than were asked for, as far as both are known."""
    if width is None or height is None or expected is None:
        return False
    return max(abs(width - expected[0]), abs(height - expected[1])) > _RULE["other_size"].measure


def same_for_other_prompts(images: Iterable[tuple[str | None, str | None]]) -> set[str]:
    """Return the hashes that pictures of different prompts have in common.

    :param images: SHA-256 and prompt of each; one of which either is not known counts for nothing.
    """
    prompts: defaultdict[str, set[str]] = defaultdict(set)
    for sha256, prompt in images:
        if sha256 is not None and prompt is not None:
            prompts[sha256].add(prompt)
    return {sha256 for sha256, asked in prompts.items() if len(asked) > 1}


class PromptsByBytes:
    """Which prompts brought which bytes, for pictures judged as they come; safe to use from several threads.

    :param known: SHA-256 and prompt of what is there already.
    """

    def __init__(self, known: Iterable[tuple[str | None, str]] = ()) -> None:
        self._lock = threading.Lock()
        self._prompts: defaultdict[str, set[str]] = defaultdict(set)
        for sha256, prompt in known:
            if sha256 is not None:
                self._prompts[sha256].add(prompt)

    def judge(self, sha256: str, prompt: str | None) -> tuple[SuspectCode, ...]:
        """Return what is wrong with a picture whose bytes came for another prompt before; the first one passes."""
        if prompt is None:
            return ()
        with self._lock:
            self._prompts[sha256].add(prompt)
            return ("same_bytes",) if len(self._prompts[sha256]) > 1 else ()


def in_order(codes: Iterable[str]) -> tuple[SuspectCode, ...]:
    """Return codes as they are told, each once; what is none is left out."""
    found = set(codes)
    return tuple(rule.code for rule in RULES if rule.code in found)


def in_words(codes: Iterable[str]) -> str:
    """Return why a picture is suspect, as a part of a sentence."""
    return " and ".join(_RULE[code].words for code in in_order(codes))
