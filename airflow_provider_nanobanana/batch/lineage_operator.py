"""``LineageOperator``: what the operators and the sensor have in common where they tell what they read and wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana import lineage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_nanobanana.batch.task_lineage import TaskLineage


class LineageOperator:
    """Mixin that tells Airflow's collector of lineage, and OpenLineage where that is installed."""

    #: Returns what the task instance has read, written and paid by now; None before there is anything.
    _task_lineage: Callable[[], TaskLineage] | None = None

    @contextmanager
    def _telling_lineage(self, hook: Any, task_lineage: Callable[[], TaskLineage]) -> Iterator[None]:
        """Tell of all the task instance has read and written when the block ends, also in an error; not when it defers.

        :param task_lineage: Asked where somebody wants to know.
        """
        self._task_lineage = task_lineage
        try:
            yield
        except Exception:
            _tell(hook, task_lineage)
            raise
        _tell(hook, task_lineage)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return inputs, outputs and cost for OpenLineage's event; its provider calls it in the task's process."""
        if self._task_lineage is None:
            return None
        from airflow_provider_nanobanana.batch.openlineage import operator_lineage

        return operator_lineage(self._task_lineage())

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what was in place and paid when the task instance failed."""
        return self.get_openlineage_facets_on_complete(task_instance)


def _tell(hook: Any, task_lineage: Callable[[], TaskLineage]) -> None:
    once = cache(task_lineage)
    lineage.report(
        hook,
        inputs=lambda: once().references,
        outputs=lambda: (image.record["uri"] for image in once().images),
    )
