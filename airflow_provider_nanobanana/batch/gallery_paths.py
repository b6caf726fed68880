"""Addresses of the gallery and of its thumbnails, relative to Airflow's own base: they are right below any base path.

Who builds one knows a task instance and an image's key; what the key stands for the api-server alone finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from airflow_provider_nanobanana.landing.file_names import image_key

#: Below which path of the api-server the web application is mounted.
PREFIX: Final = "/nanobanana"
#: Digits of an image's hash that tell caches of two pictures under one name apart.
_HASH_DIGITS: Final = 8


def gallery_path(dag_id: str, run_id: str, task_id: str | None = None, map_index: int = -1) -> str:
    """Return the address of the gallery's page.

    :param task_id: None for all pictures of the run.
    :param map_index: Of the task instance; below 0 for one that is not mapped.
    """
    query = {} if task_id is None else {"task_id": task_id, "map_index": str(map_index)}
    path = f"{PREFIX.lstrip('/')}/view/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
    return f"{path}?{urlencode(query)}" if query else path


def thumbnail_path(run: Mapping[str, Any], uri: str, sha256: str | None) -> str:
    """Return the address of an image's thumbnail.

    :param run: ``dag_id``, ``run_id``, ``task_id`` and ``map_index`` of the task instance whose manifest has the image.
    :param uri: Of the image, as results and manifests have it.
    :param sha256: Of its bytes, None where that is not known.
    """
    query = {
        "run_id": run["run_id"],
        "task_id": run["task_id"],
        "map_index": run["map_index"],
        "key": image_key(uri),
        **({"v": sha256[:_HASH_DIGITS]} if sha256 else {}),
    }
    return f"{PREFIX.lstrip('/')}/api/thumb/{quote(run['dag_id'], safe='')}?{urlencode(query)}"
