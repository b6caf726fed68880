"""A process under test that draws, decodes or lands images, and says how long it took: one line of JSON.

``python -m dev.benchmarks.decode_process FOLDER draw SIDE`` writes eight files, ``... decode child`` and ``... decode
here`` decode them; ``... make KIND MEBIBYTES`` writes a bomb, and ``... land`` lands it among seven images.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_nanobanana.toapis.errors import ImageInvalid

_THREADS = 4


def draw(folder: Path, side: str) -> dict[str, Any]:
    """Write two each of the emulator's PNG and JPEG, and of noisy ones."""
    from PIL import Image

    from airflow_provider_nanobanana.emulator.images import ImageSpec, render

    size = int(side)
    for number in range(2):
        for kind in ("PNG", "JPEG"):
            drawn = render(ImageSpec(f"picture {number}", "4K", size, size, kind))
            (folder / f"drawn-{number}.{kind}").write_bytes(drawn)
        grain = Image.frombytes("L", (size // 2, size // 2), random.Random(number).randbytes(size * size // 4))
        noise = Image.blend(grain.resize((size, size), Image.Resampling.BICUBIC), Image.new("L", (size, size), 99), 0.7)
        photo = Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180)))
        photo.save(folder / f"photo-{number}.PNG", compress_level=1)
        photo.save(folder / f"photo-{number}.JPEG", quality=92)
    return {}


def decode(folder: Path, where: str) -> dict[str, Any]:
    """Decode what was drawn, one file after another."""
    from airflow_provider_nanobanana.landing.decoder import decode_file
    from airflow_provider_nanobanana.landing.image_file import inspect_bytes

    files = sorted([*folder.glob("*.PNG"), *folder.glob("*.JPEG")])
    began = time.perf_counter()
    for file in files:
        _ = decode_file(file) if where == "child" else inspect_bytes(file.read_bytes())
    seconds = time.perf_counter() - began
    family = [psutil.Process(), *psutil.Process().children()]
    cpu_seconds = sum(sum(one.cpu_times()[:2]) for one in family)
    return {"files": len(files), "seconds": seconds, "cpu_seconds": cpu_seconds}


def make(folder: Path, kind: str, mebibytes: str) -> dict[str, Any]:
    """Write a bomb, and an image that is none."""
    from dev.benchmarks import bombs

    (folder / "bomb").write_bytes(bombs.make(kind, float(mebibytes)))
    (folder / "good").write_bytes(_noise())
    return {}


def land(folder: Path) -> dict[str, Any]:
    """Land the bomb and seven images."""
    from airflow_provider_nanobanana.landing.image_store import ImageStore

    destination = folder / "images"
    shutil.rmtree(destination, ignore_errors=True)
    store = ImageStore(str(destination))

    def one(number: int) -> str:
        source = folder / ("bomb" if number == 1 else "good")
        try:
            store.land(f"image-{number}", f"task_{number}", 0, partial(_copy, source))
        except ImageInvalid as invalid:
            assert invalid.kept is not None
            return "quarantined"
        return "landed"

    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        ended = list(pool.map(one, range(8)))
    return {
        "seconds": time.perf_counter() - began,
        "before": before,
        "good": sum(state == "landed" for number, state in enumerate(ended) if number != 1),
        **{state: ended.count(state) for state in ("landed", "quarantined")},
    }


def _copy(source: Path, sink: io.BufferedIOBase) -> None:
    with source.open("rb") as file:
        for piece in _pieces(file.read):
            sink.write(piece)


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(65_536):
        yield piece


def _noise() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.frombytes("RGB", (1024, 1024), random.Random(1).randbytes(3 * 1024 * 1024)).save(buffer, "png")
    return buffer.getvalue()


if __name__ == "__main__":
    parts: dict[str, Callable[..., dict[str, Any]]] = {"draw": draw, "decode": decode, "make": make, "land": land}
    print(json.dumps(parts[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])))
