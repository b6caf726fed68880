"""RequestOperator: what the operators that take requests have in common: how their templates are rendered and shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_nanobanana.operators.shown_requests import name_row, row_name
from airflow_provider_nanobanana.toapis.request_values import as_text

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context


class RequestOperator(BaseOperator):
    """Base of the operators that take requests: renders the arguments that are one text as the text they are.

    ``render_template_as_native_obj`` reads a text that looks like Python as Python: the prompt ``"['a', 'b']"`` would
    become two, ``"1984"`` a number, ``"None"`` nothing. Here a template that is one expression gives that expression's
    value (a list stays a list, to be refused in words), and any other is text. Airflow before 3.2 besides leaves a
    template in place that renders to nothing; here it is the empty text.
    """

    #: The templated arguments that are one text each, or what the one expression in that text stands for.
    text_fields: ClassVar[Sequence[str]] = (
        "prompt",
        "size",
        "resolution",
        "model",
        "variant",
        "name",
        "redo",
        "variants",
        "is_dry_run",
        "nanobanana_conn_id",
    )

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Render the texts; Airflow renders the rest.

        Should a later Airflow not call it, numbers still become their texts and lists are still refused.
        """
        # No public method does for this one: on 3.0.6 to 3.3.2 a mapped task is rendered by this method of its
        # unmapped operator and never by render_template_fields(), and render_template() is not told the field.
        others: list[str] = []
        for name in _templates(self, template_fields):
            value = getattr(parent, name, None)
            is_file = isinstance(value, str) and value.endswith(tuple(self.template_ext))
            # What came through XCom is no template (its id is among those seen, but for .expand_kwargs()).
            if name not in self.text_fields or not isinstance(value, str) or is_file or id(value) in seen_oids:
                others.append(name)
            else:
                setattr(parent, name, _render(jinja_env.from_string(value), context))
        super()._do_render_template_fields(parent, others, context, jinja_env, seen_oids)
        if parent is self:
            self._show_what_is_asked(context)

    def _show_what_is_asked(self, context: Context) -> None:
        """Name the row of a mapped task instance in the grid; called when everything is rendered."""
        called = row_name(getattr(self, "name", None), getattr(self, "prompt", None), getattr(self, "variant", None))
        name_row(self, context, called)


def _templates(operator: BaseOperator, template_fields: Iterable[str]) -> Iterator[str]:
    """Yield the fields that may hold templates: none that ``.expand_kwargs()`` takes from a task before.

    Airflow renders those (3.0.6 to 3.3.2, ``ListOfDictsExpandInput.resolve``), while it leaves what ``.expand()`` takes
    as it is: a text out of a product feed would be read as a template, and could ask for connections.
    """
    # The operator that is rendered is the unmapped one, which does not know what it was mapped over.
    mapped: Any = operator.dag.task_dict.get(operator.task_id) if operator.has_dag() else None
    rows = getattr(mapped, "expand_input", None)
    given = getattr(rows, "value", None)
    is_feed = getattr(rows, "EXPAND_INPUT_TYPE", "") == "list-of-dicts" and (
        not isinstance(given, (list, tuple)) or not all(isinstance(row, Mapping) for row in given)
    )
    written = getattr(mapped, "partial_kwargs", {})
    for name in template_fields:
        if not is_feed or name in written or name.removeprefix("is_") in written:
            yield name


def _render(template: jinja2.Template, context: Context) -> Any:
    """Return what a template stands for: the value of its one expression, or the text of all its parts."""
    import jinja2

    parts: list[Any] = list(template.root_render_func(template.new_context(dict(context))))
    if len(parts) == 1 and not isinstance(parts[0], (str, jinja2.Undefined)):
        return as_text(parts[0])
    return "".join(map(str, parts))
