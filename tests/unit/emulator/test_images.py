"""Result images: sizes, any text, and the cache."""

from __future__ import annotations

import asyncio
import io

import pytest
from PIL import Image

from airflow_provider_nanobanana.emulator import images
from airflow_provider_nanobanana.emulator.catalogue import pixel_size
from airflow_provider_nanobanana.emulator.faults.rules import without_words
from airflow_provider_nanobanana.emulator.images import ImageCache, ImageSpec, render


def spec(prompt: str = "a kite", width: int = 320, height: int = 200, index: int = 0) -> ImageSpec:
    return ImageSpec(prompt, "m  \u00b7  1:1\ntsk_img_1", width, height, index=index)


@pytest.mark.parametrize(
    ("ratio", "resolution", "pixels"),
    [
        ("1:1", "0.5K", (512, 512)),
        ("16:9", "1K", (1376, 768)),
        ("9:16", "4K", (3072, 5504)),
        ("2:3", "0.5K", (424, 632)),
        ("21:9", "0.5K", (792, 168)),
        ("1:8", "4K", (1536, 12288)),
        ("4:5", "2K", (1856, 2304)),
    ],
)
def test_pixel_sizes(ratio: str, resolution: str, pixels: tuple[int, int]) -> None:
    assert pixel_size(ratio, resolution) == pixels


@pytest.mark.parametrize(
    "prompt",
    [
        "a kite",
        "一只红色的风筝飞过沙丘",
        "🍌🍌",
        "x" * 3000,
        "word " * 900,
        "[[jpeg]]",
        "\ud800 broken",
        "tab\tand\nline",
    ],
)
@pytest.mark.parametrize("size", [(320, 200), (96, 768), (768, 96)])
def test_any_prompt_can_be_drawn(prompt: str, size: tuple[int, int]) -> None:
    picture = Image.open(io.BytesIO(render(spec(prompt, *size))))
    picture.load()
    assert picture.size == size


def test_different_prompts_and_indices_look_different() -> None:
    assert len({render(spec("a")), render(spec("b")), render(spec("a", index=1))}) == 3
    assert render(spec("a")) == render(spec("a"))


def test_words_are_not_drawn() -> None:
    assert without_words("a [[slow=60]] kite [[jpeg]]") == "a kite"


async def test_an_image_is_drawn_once_for_many_and_old_ones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def draw(asked: ImageSpec) -> bytes:
        drawn.append(asked.prompt)
        return asked.prompt.encode()

    monkeypatch.setattr(images, "render", draw)
    monkeypatch.setattr(images, "_CACHED_IMAGES", 2)
    cache = ImageCache()
    assert set(await asyncio.gather(*(cache.get(spec("a")) for _ in range(5)))) == {b"a"}
    assert drawn == ["a"]
    for prompt in ("b", "a", "c", "a", "b"):  # c pushes out b, the one not asked for longest
        await cache.get(spec(prompt))
    assert drawn == ["a", "b", "c", "b"]
    cache.close()
