"""``GalleryLink``: the link to the pictures on each task instance of this provider's operators.

Airflow asks it in the api-server for every request, with nothing but the task instance's key: it works for old runs,
mapped task instances, and while one is deferred or has failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: Below which path of the api-server the web application is mounted.
PREFIX: Final = "/nanobanana"
#: What Airflow calls the operators whose task instances have pictures (``TaskInstance.operator_name``).
OPERATOR_NAMES: Final = ("NanoBananaGenerateOperator", "NanoBananaDownloadOperator", "@task.nanobanana")


def gallery_path(dag_id: str, run_id: str, task_id: str | None = None, map_index: int = -1) -> str:
    """Return the address of the gallery's page, relative to Airflow's own base: it is right below any base path.

    :param task_id: None for all pictures of the run.
    :param map_index: Of the task instance; below 0 for one that is not mapped.
    """
    query = {} if task_id is None else {"task_id": task_id, "map_index": str(map_index)}
    path = f"{PREFIX.lstrip('/')}/view/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
    return f"{path}?{urlencode(query)}" if query else path


class GalleryLink(BaseOperatorLink):
    """The link ``Gallery`` on the details of a task instance."""

    name = "Gallery"

    @property
    def operators(self) -> list[type[BaseOperator]]:  # type: ignore[override]
        """The operators that have it; imported only where Airflow loads links."""
        return [*_with_pictures(), *_of_whole_runs()]

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page of the task instance's pictures, or of its run's where the pictures are another task's."""
        if operator.task_type in {operator_class.__name__ for operator_class in _of_whole_runs()}:
            return gallery_path(ti_key.dag_id, ti_key.run_id)
        return gallery_path(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)


def _with_pictures() -> list[type[BaseOperator]]:
    from airflow_provider_nanobanana.decorators.nanobanana import _NanoBananaDecoratedOperator
    from airflow_provider_nanobanana.operators.download import NanoBananaDownloadOperator
    from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator

    return [NanoBananaGenerateOperator, NanoBananaDownloadOperator, _NanoBananaDecoratedOperator]


def _of_whole_runs() -> list[type[BaseOperator]]:
    from airflow_provider_nanobanana.operators.submit import NanoBananaSubmitOperator
    from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor

    return [NanoBananaSubmitOperator, NanoBananaSensor]
