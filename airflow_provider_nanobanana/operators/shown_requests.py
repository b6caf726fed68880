"""What Airflow keeps of a task's requests for people: its page *Rendered Templates*, and the name of a grid's row.

Both are written to Airflow's database at each start of the task, so both are bounded, however many requests there are.
What is shown is never what is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.toapis.redaction import bare_links, one_line
from airflow_provider_nanobanana.toapis.request_values import as_text, is_blank, table_fault

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_nanobanana.batch.items import BatchItem

#: Characters of Python's spelling of what is shown; above 4,096 (``max_templated_field_length``) Airflow cuts it to a
#: text in which nothing can be read.
_LONGEST: Final = 3_800
#: Characters of one text of a request, where there are too many requests to show all.
_LONGEST_TEXT: Final = 300
#: Requests of which one is looked at after the other to find out whether all can be shown.
_MOST_SHOWN: Final = 400
#: Characters of a row's name; Airflow fails a task whose row has one of more than 250.
_LONGEST_ROW_NAME: Final = 80
_LONGEST_VARIANT: Final = 20
#: Fields of a request that are shown where they are not at their default.
_FIELDS: Final = ("variant", "size", "resolution", "model", "reference_images")


class _RowName(str):
    """A ``map_index_template`` of ours, told by its class from one that the DAG gives."""

    __slots__ = ()


def shown_requests(requests: Any) -> Any:
    """Return what is shown of requests as they were given: all where they are few, else their beginning.

    Links are shown without what may be secret in them. What may be read only once, or asks Airflow for each of its
    entries, is not touched.
    """
    if isinstance(requests, (list, tuple)):
        return bare_links(requests) if _fits(requests) else _beginning(map(_shortened, requests), len(requests))
    if isinstance(requests, Mapping):
        return bare_links(requests) if _fits([requests]) else _shortened(requests)
    if table_fault(requests):
        return f"a table ({type(requests).__name__}); its requests are shown here once it has been read"
    return requests


def shown_items(items: Sequence[BatchItem]) -> list[Any]:
    """Return what is shown of the requests of a batch, once they have been read."""
    return _beginning(map(_shown_item, items), len(items))


def name_row(operator: BaseOperator, context: Context, name: str | None) -> None:
    """Name the row that a mapped task instance has in the grid, unless the DAG gives a ``map_index_template``.

    Airflow renders the template that it finds in the context when the task has ended, 3.2 and later also before it
    begins.

    :param name: None where there is nothing to call it by.
    """
    given = context.get("map_index_template")
    mapped = getattr(context.get("ti"), "map_index", -1) >= 0
    if name is None or not mapped or (given is not None and not isinstance(given, _RowName)):
        return
    # A native environment reads the text of a template as Python: as a text in quotes it stays the text it is.
    native = operator.has_dag() and operator.dag.render_template_as_native_obj
    text = repr(name) if native else name
    context["map_index_template"] = _RowName(f"{{{{ {text!a} }}}}")


def row_name(name: Any, prompt: Any, variant: Any = None) -> str | None:
    """Return how a request is called in the grid: by its name, else by the beginning of its prompt; and its variant."""
    called = one_line(as_text(prompt) if is_blank(name) else as_text(name), limit=_LONGEST_ROW_NAME)
    told_apart = one_line(as_text(variant), limit=_LONGEST_VARIANT)
    return (f"{called}, {told_apart}" if told_apart else called) or None if called else None


def row_name_of(requests: Any) -> str | None:
    """Return how several requests are called in the grid: after the first of them."""
    if isinstance(requests, (str, Mapping)):
        requests = [requests]
    if not isinstance(requests, (list, tuple)) or not requests:
        return None
    first = requests[0]
    if isinstance(first, Mapping):
        return _and_more(row_name(first.get("name"), first.get("prompt"), first.get("variant")), len(requests))
    return _and_more(row_name(None, first) if isinstance(first, str) else None, len(requests))


def row_name_of_items(items: Sequence[BatchItem]) -> str | None:
    """Return how the requests of a batch are called in the grid, once they have been read."""
    if not items:
        return None
    first = items[0]
    return _and_more(row_name(first.name, first.request.prompt, first.request.variant), len(items))


def _and_more(called: str | None, total: int) -> str | None:
    return called if called is None or total == 1 else f"{called} and {total - 1:,} more"


def _fits(requests: Sequence[Any]) -> bool:
    """Whether all of them can be shown as they are: a few texts and mappings of plain values."""
    if len(requests) > _MOST_SHOWN:
        return False
    room = _LONGEST
    for request in requests:
        if not isinstance(request, (str, Mapping, type(None))):
            return False
        room -= _size(request)
        if room < 0:
            return False
    return True


def _beginning(shown: Iterable[Any], total: int) -> list[Any]:
    """Return the first of what is shown, as many as there is room for, and how many more there are."""
    beginning: list[Any] = []
    room = _LONGEST
    for one in shown:
        room -= _size(one)
        if room < 0:
            break
        beginning.append(one)
    left = total - len(beginning)
    return [*beginning, f"... and {left:,} more"] if left else beginning


def _size(value: Any) -> int:
    return len(str(value)) + 4  # quotes, a comma and a blank


def _shortened(request: Any) -> Any:
    if isinstance(request, Mapping):
        return {str(key): _short(value) for key, value in _first(request.items())}
    return _short(request)


def _first(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    for number, pair in enumerate(pairs):
        if number == 20:
            return
        yield pair


def _short(value: Any) -> Any:
    value = bare_links(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else f"{value}"
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _shown_item(item: BatchItem) -> dict[str, Any]:
    given = item.request.model_dump(mode="json", exclude_defaults=True, include=set(_FIELDS))
    if references := given.get("reference_images"):
        given["reference_images"] = ", ".join(bare_links(references))
    fields = {"name": item.name, "prompt": item.request.prompt, **given}
    shown = {key: _short(value) for key, value in fields.items() if value}
    return {**shown, "meta": _short(dict(item.meta))} if item.meta else shown
