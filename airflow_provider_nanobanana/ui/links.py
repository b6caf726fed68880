"""``GalleryLink``: the link to the pictures on each task instance of this provider's operators.

Airflow asks it in the api-server for every request, with nothing but the task instance's key: it works for old runs,
mapped task instances, and while one is deferred or has failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_nanobanana.batch.gallery_paths import gallery_path

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: What Airflow calls the operators whose task instances have pictures (``TaskInstance.operator_name``).
OPERATOR_NAMES: Final = ("NanoBananaGenerateOperator", "NanoBananaDownloadOperator", "@task.nanobanana")
#: The one that asks about the pictures of others: its page is about its own question.
REVIEW_NAME: Final = "NanoBananaReviewOperator"
#: The classes of which each task instance has a page of its own.
_OWN_PAGE: Final = (
    *("NanoBananaGenerateOperator", "NanoBananaDownloadOperator", "_NanoBananaDecoratedOperator"),
    REVIEW_NAME,
)


class GalleryLink(BaseOperatorLink):
    """The link ``Gallery`` among the details of a task instance."""

    name = "Gallery"

    @property
    def operators(self) -> list[type[BaseOperator]]:  # type: ignore[override]
        """The operators that have it; imported only where Airflow loads links."""
        from airflow_provider_nanobanana.decorators.nanobanana import _NanoBananaDecoratedOperator
        from airflow_provider_nanobanana.operators.download import NanoBananaDownloadOperator
        from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator
        from airflow_provider_nanobanana.operators.review import NanoBananaReviewOperator
        from airflow_provider_nanobanana.operators.submit import NanoBananaSubmitOperator
        from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor

        return [
            *(NanoBananaGenerateOperator, NanoBananaDownloadOperator, _NanoBananaDecoratedOperator),
            *(NanoBananaSubmitOperator, NanoBananaSensor, NanoBananaReviewOperator),
        ]

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page of the task instance, or of its run where the pictures are another task's."""
        if operator.task_type not in _OWN_PAGE:
            return gallery_path(ti_key.dag_id, ti_key.run_id)
        return gallery_path(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
