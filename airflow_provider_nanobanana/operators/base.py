"""RequestOperator: what the operators that take requests have in common: how their templates are rendered and shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        literal = _fields_from_upstream(self, context) if parent is self else frozenset()
        for name in template_fields:
            value = getattr(parent, name, None)
            if name in literal:
                continue
            is_file = isinstance(value, str) and value.endswith(tuple(self.template_ext))
            # What came through XCom by ``expand`` is no template (its id is among those seen).
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


def _fields_from_upstream(operator: RequestOperator, context: Context) -> frozenset[str]:
    """Return the fields whose values came through ``expand_kwargs`` from another task, which are no templates.

    Airflow leaves those of ``expand`` alone, and renders these (3.0.6 to 3.3.2): ``{{ conn.shop.password }}`` in a
    supplier's text would be sent to the service, and be read in the manifest.
    """
    mapped: Any = operator.dag.task_dict.get(operator.task_id) if operator.has_dag() else None
    expanded = getattr(mapped, "expand_input", None)
    entries = getattr(expanded, "value", None)
    if getattr(expanded, "EXPAND_INPUT_TYPE", None) != "list-of-dicts":
        return frozenset()
    map_index: Any = context["ti"].map_index
    if isinstance(entries, Sequence) and isinstance(entries[map_index], Mapping):
        return frozenset()  # written in the DAG file
    written = list(mapped.partial_kwargs.values())
    given = ((name, getattr(operator, name, None)) for name in operator.template_fields)
    return frozenset(name for name, value in given if not any(_is_written(value, one) for one in written))


def _is_written(value: Any, written: Any) -> bool:
    """Whether a value is one that the DAG file gives all instances of a mapped task."""
    return value is written or (isinstance(value, str) and isinstance(written, str) and value == written)


def _render(template: jinja2.Template, context: Context) -> Any:
    """Return what a template stands for: the value of its one expression, or the text of all its parts."""
    import jinja2

    parts: list[Any] = list(template.root_render_func(template.new_context(dict(context))))
    if len(parts) == 1 and not isinstance(parts[0], (str, jinja2.Undefined)):
        return as_text(parts[0])
    return "".join(map(str, parts))
