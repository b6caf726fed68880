"""``@task.nanobanana``: a function that says what to draw becomes a task that makes the images."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, overload

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_nanobanana.operators.arguments import one_prompt
from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator
from airflow_provider_nanobanana.operators.shown_requests import shown_items
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.durable.claims import ClaimMode
    from airflow_provider_nanobanana.durable.reconcile import OnExpired, OnUnknownSubmission
    from airflow_provider_nanobanana.operators.arguments import AllowPartial, OnBadRow, OnSuspect


class _NanoBananaDecoratedOperator(DecoratedOperator, NanoBananaGenerateOperator):
    """Call the function for a prompt, a request, a list of both, a table or the path of a file of rows, and make them.

    A retry goes on with what the first try's function returned; a clear calls it again.
    """

    custom_operator_name = "@task.nanobanana"
    #: Airflow 3.0 asks every decorated operator for it and calls none; the SDK's operators have none.
    xcom_push: ClassVar[None] = None
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *NanoBananaGenerateOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **NanoBananaGenerateOperator.template_fields_renderers,
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if "requests" in kwargs:
            raise TypeError("@task.nanobanana takes no requests: the function returns what to make")
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)

    def _make_images(self, context: Context, *, resumed: bool) -> Any:
        # Also where the function is not called again: Airflow renders map_index_template from it at the end.
        context_merge(context, self.op_kwargs)
        return super()._make_images(context, resumed=resumed)

    def _show_what_was_read(self, context: Context, items: Sequence[BatchItem]) -> None:
        super()._show_what_was_read(context, items)
        self.requests = shown_items(items)

    def _row_file(self) -> None:
        """Return nothing: after a pause the function is not called again, and a lineage that changes is none."""

    def _plain_requests(self) -> None:
        """Return nothing: what the function returns is not here before it is called, whatever is shown of it."""

    def _template(self) -> str | None:
        template: str | None = one_prompt(self.prompt)
        return template

    def _read_requests(self, context: Context) -> Any:
        from airflow_provider_nanobanana.batch.row_files import read_row_file
        from airflow_provider_nanobanana.batch.row_locations import names_path, names_row_file

        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        given = self.python_callable(*self.op_args, **kwargs)
        if names_path(given) or (isinstance(given, str) and names_row_file(given)):
            return read_row_file(given)
        if isinstance(given, str) and _is_json_list(given):
            raise InvalidRequest(
                "The function returned a list as one text (JSON): return the list itself, or [text] for one prompt "
                "that reads so. Nothing was sent and nothing was charged; a retry would meet the same."
            )
        return given


def _is_json_list(text: str) -> bool:
    if not text.lstrip().startswith("["):
        return False
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


@overload
def nanobanana_task(python_callable: Callable[..., Any]) -> TaskDecorator: ...


# For editors and type checkers; what is not given comes from the DAG's default_args or the operator.
@overload
def nanobanana_task(
    *,
    destination: str = ...,
    prompt: str | None = ...,
    size: str = ...,
    resolution: str = ...,
    reference_images: Sequence[str] | None = ...,
    model: str | None = ...,
    extra_body: Mapping[str, Any] | None = ...,
    variant: str = ...,
    max_cost_usd: float | str | None = ...,
    preflight_balance: bool = ...,
    allow_partial: AllowPartial = ...,
    variants: int | str = ...,
    on_bad_row: OnBadRow = ...,
    dry_run: bool | str = ...,
    redo: Any = ...,
    on_suspect: OnSuspect = ...,
    thumbnails: bool = ...,
    prepare_references: bool = ...,
    reuse_existing: bool = ...,
    on_unknown_submission: OnUnknownSubmission = ...,
    on_expired: OnExpired = ...,
    deferrable: bool = ...,
    timeout: float | timedelta = ...,
    poke_interval: float | timedelta = ...,
    slice_seconds: float | timedelta = ...,
    adopt: Mapping[str, str] | None = ...,
    claims: ClaimMode = ...,
    nanobanana_conn_id: str = ...,
    **kwargs: Any,
) -> TaskDecorator: ...


def nanobanana_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a function that returns a prompt, a request, a list of both or a table into a task that makes the images.

    :param kwargs: As for :class:`NanoBananaGenerateOperator`, without ``requests``; ``prompt`` is a template over the
        columns of what the function returns.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_NanoBananaDecoratedOperator,
        # Airflow would infer it from "-> dict", which speaks of one request and not of the task's result.
        **{"multiple_outputs": False, **kwargs},
    )
