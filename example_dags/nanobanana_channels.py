"""A picture for every channel: exact pixels and WebP, made by a task of your own with Pillow.

The service draws in ratios and not in pixels. ``channels`` cuts and scales what was bought and writes copies elsewhere,
a folder for each channel; the original is only read, and stays what was paid for. A copy is called like its original,
so a new version of a picture has copies of its own, and to make them again costs nothing.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

CHANNELS = {"feed": (1080, 1350), "story": (1080, 1920), "banner": (1200, 628)}

with DAG(
    "nanobanana_channels",
    schedule=None,
    catchup=False,
    tags=["nanobanana"],
    doc_md=__doc__,
    default_args={"retries": 2},
    params={
        "destination": Param("file:///tmp/nanobanana-channels/originals", type="string"),
        "copies": Param("file:///tmp/nanobanana-channels", type="string"),
    },
):

    @task.nanobanana(destination="{{ params.destination }}", size="1:1")
    def pictures() -> list[dict[str, str]]:
        return [{"name": "kite", "prompt": "a red kite over dunes, much sky around it"}]

    @task
    def channels(made: dict[str, Any], params: dict[str, str]) -> list[str]:
        from airflow.sdk import ObjectStoragePath
        from PIL import Image, ImageOps

        copies = []
        for image in made["images"]:
            original = ObjectStoragePath(image["uri"])
            for channel, pixels in CHANNELS.items():
                copy = ObjectStoragePath(params["copies"]) / channel / f"{original.stem}.webp"
                copy.parent.mkdir(parents=True, exist_ok=True)
                with original.open("rb") as source, Image.open(source) as picture, copy.open("wb") as target:
                    ImageOps.fit(picture.convert("RGB"), pixels, Image.Resampling.LANCZOS).save(target, "WEBP")
                copies.append(str(copy))
        return copies

    channels(pictures())
