"""ParsedRequests: the requests of a batch as given, parsed row by row, with every fault of every one collected.

A list of mappings is strict, so that a typo in a field's name is refused: data of the user's own has the key ``meta``.
Of a table the columns that are no fields are that data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_nanobanana.batch.cells import MAX_META, cell_text, json_cell, read_meta
from airflow_provider_nanobanana.batch.prompt_template import PromptTemplate
from airflow_provider_nanobanana.batch.row_locations import check_prompt
from airflow_provider_nanobanana.batch.row_names import name_error, name_of_cell
from airflow_provider_nanobanana.batch.rows import FIELDS, MAX_REQUESTS, NOTHING_SENT, read_rows
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.request_values import as_text, given_fields, is_blank, readable, table_fault

_MOST_LISTED: Final = 10
_MOST_COLUMNS: Final = 40
_LONGEST_FAULT: Final = 300
#: Fields that a shop's columns may be called like by chance.
_COMMON_COLUMNS: Final = ("model", "size", "resolution")
_NO_NAME_IN_IT: Final = "; make another column 'name', such as the SKU, and rename this one: it is data then"


def label(index: int, name: str | None) -> str:
    """Return how a request is spoken of: ``#12 'name'`` or ``#12``; counted from 0."""
    return f"#{index}" if name is None else f"#{index} {name!r}"


@dataclass(frozen=True)
class ParsedRequest:
    """A request that could be parsed, before its references are known by content; those of one row share its index."""

    index: int
    request: ImageRequest
    name: str | None
    meta: Mapping[str, Any] | None = None


@dataclass
class ParsedRequests:
    """What became of a list of requests: the parsed ones, and the first fault of each of the others.

    :param total: How many were given.
    :param faults: By position, from 0.
    :param notes: What of all this people may not expect, in words for the log.
    """

    total: int
    parsed: list[ParsedRequest] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def noting_faults(self, index: int) -> Iterator[None]:
        """Add the ``InvalidRequest`` raised within the block to the faults of a request."""
        try:
            yield
        except InvalidRequest as error:
            self.add_fault(index, error)

    def add_fault(self, index: int, error: InvalidRequest) -> None:
        """Add the fault of a request; its first one is enough."""
        self.faults.setdefault(index, error.message.rstrip("."))

    def fault(self, index: int) -> str:
        """Return the fault of a request, at most 300 characters."""
        return f"{self.faults[index]:.{_LONGEST_FAULT}}"

    def check(self) -> None:
        """Raise one ``InvalidRequest`` for all faults: what was wrong, what is allowed, what was charged."""
        if not self.faults:
            return
        shown = sorted(self.faults)[:_MOST_LISTED]
        listed = [f"  {label(i, self.names.get(i))}: {self.fault(i)}" for i in shown]
        more = [f"  and {len(self.faults) - _MOST_LISTED} more"] if len(self.faults) > _MOST_LISTED else []
        lines = "\n".join([*listed, *more])
        raise InvalidRequest(
            f"{len(self.faults)} of {self.total} requests cannot be accepted as they are (counted from #0):\n"
            f"{lines}\nA request is a prompt, or a mapping of {', '.join(FIELDS)}. Nothing was sent and nothing "
            "was charged. Fix the requests and clear the task; a retry would meet the same."
        )


def parse_requests(
    given: Any,
    defaults: Mapping[str, Any],
    default_model: str,
    *,
    models: catalogue.Rows | None = None,
    template: str | None = None,
    variants: int = 1,
) -> ParsedRequests:
    """Parse what a user gave: a prompt, a request, any iterable of both, or a table.

    :param models: The connection's own rows of models.
    :param template: A prompt over the columns of each row; one that a row has itself replaces it, unless it is in it.
    :param variants: How many requests to make of each row, told apart by ``variant``.
    :raises InvalidRequest: It is nothing of that, more than :data:`~.rows.MAX_REQUESTS`, or the template names what is
        a column of no row; other faults are noted.
    """
    rows = read_rows(given)
    if variants > 1 and len(rows.entries) * variants > MAX_REQUESTS:
        raise InvalidRequest(
            f"{len(rows.entries):,} requests with variants={variants} are more than {MAX_REQUESTS:,} images, which is "
            f"the most for one task. {NOTHING_SENT}"
        )
    requests = ParsedRequests(len(rows.entries))
    entries: dict[int, _Row] = {}
    for index, entry in enumerate(rows.entries):
        with requests.noting_faults(index):
            # First, so that whatever else is wrong with a row is told by its name.
            if (name := _good_name(entry, tabular=rows.tabular)) is not None:
                requests.names[index] = name
            entries[index] = _read_row(entry, tabular=rows.tabular)
    prompt = None if is_blank(template) else PromptTemplate(str(template))
    if prompt is None and rows.columns and "prompt" not in rows.columns:
        raise InvalidRequest(
            f"The table has no column 'prompt', and the argument prompt gives no template over its columns: "
            f"{_shown_columns(rows.columns)}. {NOTHING_SENT}"
        )
    if prompt is not None and entries:
        _check_template(prompt, rows.columns or dict.fromkeys(c for row in entries.values() for c in row.columns))
        _note_unused(requests, prompt, entries.values())
    if made := sum(row.made_name for row in entries.values()):
        requests.notes.append(
            f"Rows whose name cannot name a file: {made:,}; it was made one, and 'name' of their meta is what it was"
        )
    if left_out := Counter(column for row in entries.values() for column in row.left_out):
        listed = ", ".join(
            f"{column:.40} (of {number:,} rows)" for column, number in left_out.most_common(_MOST_LISTED)
        )
        requests.notes.append(
            f"Columns that meta leaves out, as it is plain JSON of at most {MAX_META:,} bytes a row: {listed}"
        )
    common = given_fields(defaults)
    for index, row in entries.items():
        with requests.noting_faults(index):
            _parse_row(
                requests,
                index,
                row,
                common=common,
                default_model=default_model,
                models=models,
                template=prompt,
                variants=variants,
            )
    _check_unique(requests, tabular=rows.tabular)
    return requests


@dataclass(frozen=True)
class _Row:
    """What one entry gives.

    :param fields: Of the request, and its name.
    :param meta: Plain JSON.
    :param columns: What a template may name.
    :param ambiguous: Columns that are in ``meta`` with another value, too.
    :param tabular: Whether it is the row of a table, whose columns may be called like fields by chance.
    :param made_name: Whether its name was made of a cell that could not name a file.
    :param left_out: Columns that do not fit into its meta.
    """

    fields: Mapping[str, Any]
    meta: Mapping[str, Any] | None
    columns: Mapping[str, Any]
    ambiguous: frozenset[str] = frozenset()
    tabular: bool = False
    made_name: bool = False
    left_out: tuple[str, ...] = ()

    def takes(self, template: PromptTemplate) -> bool:
        """Whether its prompt is made of a template; one of its own replaces that, unless it is in it."""
        return is_blank(self.fields.get("prompt")) or "prompt" in template.placeholders(self.columns.keys())


def _good_name(entry: Any, *, tabular: bool) -> str | None:
    """Return the name that an entry gives, if it is a good one."""
    with readable("it"):
        name = as_text(entry.get("name")) if isinstance(entry, Mapping) else None
        if isinstance(name, str) and tabular:
            name = name_of_cell(name)
        return name if isinstance(name, str) and name_error(name) is None else None


def _read_row(entry: Any, *, tabular: bool) -> _Row:
    """Return what an entry itself gives; what it leaves blank, as rows of a table do, is not given."""
    if isinstance(entry, InvalidRequest):
        raise entry
    if isinstance(entry, str):
        check_prompt(entry)
        return _Row({"prompt": entry}, None, {"prompt": entry})
    if isinstance(entry, ImageRequest):
        fields = entry.model_dump(exclude_unset=True)
        return _Row(fields, None, fields)
    if is_blank(entry):
        raise InvalidRequest(
            f"is {entry!r:.40}: a hole, such as a failed or skipped mapped task leaves; filter the list"
        )
    if not isinstance(entry, Mapping):
        kind = f"is {type(entry).__name__}, neither a prompt (text) nor a request (mapping)"
        raise InvalidRequest(f"{kind}: it {fault}" if (fault := table_fault(entry)) else kind)
    with readable("it"):
        return _read_table_row(entry) if tabular else _read_mapping(entry)


def _read_mapping(entry: Mapping[Any, Any]) -> _Row:
    if strangers := [key for key in entry if key not in FIELDS]:
        shown = ", ".join(f"{key!r:.40}" for key in strangers[:5])
        raise InvalidRequest(
            f"{shown} {'is no field' if len(strangers) == 1 else 'are no fields'} of a request; data of your own goes "
            "into 'meta'"
        )
    fields = dict(entry)
    own = own_data(fields.pop("meta", None))
    meta = read_meta(own)
    ambiguous = (key for key in meta if key in fields and not is_blank(fields[key]) and fields[key] != own[key])
    return _Row(given_fields(fields), meta or None, {**own, **fields}, frozenset(ambiguous))


def _read_table_row(entry: Mapping[Any, Any]) -> _Row:
    """Return what a row of a table gives: columns that are no fields are its own data."""
    fields = {key: value for key, value in entry.items() if key in FIELDS}
    own = {key: value for key, value in entry.items() if key not in FIELDS and not is_blank(value)}
    more = own_data(fields.pop("meta", None))
    if twice := next((key for key in more if key in own), None):
        raise InvalidRequest(f"cell 'meta' holds {twice!r:.40}, which is a column, too")
    given = given_fields(fields)
    if isinstance(references := given.get("reference_images"), str):
        given["reference_images"] = (
            json_cell(references, "reference_images") if references.lstrip().startswith("[") else [references]
        )
    if isinstance(body := given.get("extra_body"), str):
        given["extra_body"] = body = json_cell(body, "extra_body")
    if isinstance(body, Mapping):
        # A struct of arrow has every field in every row.
        given["extra_body"] = given_fields(body)
    ambiguous = frozenset(key for key in more if key in fields)
    name = as_text(given.get("name"))
    left_out: list[str] = []
    made_name = isinstance(name, str) and name_of_cell(name) not in ("", name)
    if made_name:
        given["name"] = name_of_cell(name)
        own = {"name": name, **own}
    meta = read_meta({**own, **more}, left_out)
    columns = {**more, **entry}
    return _Row(given, meta or None, columns, ambiguous, tabular=True, made_name=made_name, left_out=tuple(left_out))


def own_data(meta: Any) -> Mapping[Any, Any]:
    """Return the mapping that ``meta`` is, also as its JSON."""
    if is_blank(meta):
        return {}
    if isinstance(meta, str):
        meta = json_cell(meta, "meta")
    if not isinstance(meta, Mapping):
        raise InvalidRequest(f"meta is {type(meta).__name__}, no mapping of your own data")
    return meta


def _check_template(template: PromptTemplate, columns: Collection[str]) -> None:
    """Refuse a template with an identifier in braces that is a column of no row."""
    if unknown := template.unknown(columns):
        shown = ", ".join(f"{{{name:.40}}}" for name in unknown[:5])
        raise InvalidRequest(
            f"prompt is a template over the columns of the requests, and {shown} "
            f"{'is none' if len(unknown) == 1 else 'are none'} of them. There are: {_shown_columns(columns)}. "
            f"{NOTHING_SENT}"
        )


def _note_unused(requests: ParsedRequests, template: PromptTemplate, rows: Collection[_Row]) -> None:
    """Note how many rows have a prompt of their own that replaces the template.

    :raises InvalidRequest: All have: whoever gave the template would get pictures without it, and pay for them.
    """
    unused = sum(not row.takes(template) for row in rows)
    if unused == len(rows):
        raise InvalidRequest(
            f"prompt is a template over the requests, and nothing of it would be used: each of the {unused:,} has a "
            'prompt of its own, which replaces it. Put that into the template, as in "{prompt}, studio light", or '
            f"leave the argument prompt out. {NOTHING_SENT}"
        )
    if unused:
        requests.notes.append(
            f"Requests with a prompt of their own, which replaces the template: {unused:,} of {len(rows):,}; "
            "{prompt} in the template would put it there"
        )


def _shown_columns(columns: Collection[str]) -> str:
    return ", ".join(f"{column:.40}" for column in list(columns)[:_MOST_COLUMNS]) or "none"


def _parse_row(
    requests: ParsedRequests,
    index: int,
    row: _Row,
    *,
    common: Mapping[str, Any],
    default_model: str,
    models: catalogue.Rows | None,
    template: PromptTemplate | None,
    variants: int,
) -> None:
    """Add the requests of a row.

    :raises InvalidRequest: It has a fault.
    """
    fields = {**common, **row.fields}
    name = as_text(fields.pop("name", None))
    if name is not None and (fault := name_error(name)):
        raise InvalidRequest(f"{fault}{_NO_NAME_IN_IT}" if row.tabular and name_of_cell(str(name)) == "" else fault)
    if template is not None and row.takes(template):
        fields["prompt"] = _filled(template, row)
    try:
        request = ImageRequest.parse(fields, default_model, frame="{faults}", models=models)
    except InvalidRequest as error:
        by_chance = _by_chance(row, common, default_model, models) if row.tabular else ""
        raise InvalidRequest(f"{by_chance}{error.message}") from None
    if fault := _count_fault(request.asked_images):
        raise InvalidRequest(fault)
    made = [request]
    if variants > 1:
        stems = f"{request.variant}." if request.variant else ""
        made = [request.model_copy(update={"variant": f"{stems}{number}"}) for number in range(1, variants + 1)]
    requests.parsed.extend(ParsedRequest(index, each, name, row.meta) for each in made)


def _by_chance(row: _Row, common: Mapping[str, Any], default_model: str, models: catalogue.Rows | None) -> str:
    """Return what to do about columns that no image can be made with, such as a shop's own ``size``; empty for none."""
    given = {column: row.fields[column] for column in _COMMON_COLUMNS if column in row.fields}
    accepted: dict[str, Any] = {"prompt": "a", "model": common.get("model")}

    def is_taken(fields: Mapping[str, Any]) -> bool:
        try:
            ImageRequest.parse({**accepted, **fields}, default_model, models=models)
        except InvalidRequest:
            return False
        return True

    mistaken = []
    for column, value in () if is_taken(given) else given.items():
        if is_taken({column: value}):
            accepted[column] = value
        else:
            mistaken.append(column)
    if not mistaken:
        return ""
    named = " and ".join(map(repr, mistaken))
    kind = f"column {named} is a field" if len(mistaken) == 1 else f"columns {named} are fields"
    them = "it" if len(mistaken) == 1 else "them"
    return f"{kind} of a request; rename {them} if it is data of your own, such as to 'product_{mistaken[0]}': "


def _filled(template: PromptTemplate, row: _Row) -> str:
    """Return the prompt of a row.

    :raises InvalidRequest: A column is missing, blank, no text, or there twice.
    """
    columns = row.columns.keys()
    if unknown := template.unknown(columns):
        raise InvalidRequest(f"has no {unknown[0]!r:.40}, which the template of the prompt needs")
    named = template.placeholders(columns)
    if twice := next((column for column in named if column in row.ambiguous), None):
        raise InvalidRequest(
            f"{twice!r:.40}, which the template of the prompt needs, is a field and something else in meta; rename "
            "one of them"
        )
    return template.fill({column: cell_text(row.columns[column], column) for column in named}, columns)


def _count_fault(count: Any) -> str | None:
    """Return what is wrong with the number of images that a request asks for, or None for one."""
    if not isinstance(count, int) or isinstance(count, bool):
        return f"extra_body holds n={count!r:.40}, which is no whole number; a request is one image: leave n out"
    return None if count == 1 else f"extra_body asks for n={count} images; a request is one: give it {count} times"


def _check_unique(requests: ParsedRequests, *, tabular: bool) -> None:
    """Some file systems do not tell names apart by case, so neither do we; a faulty request has its name as well."""
    owners: dict[str, int] = {}
    for index, name in requests.names.items():
        owner = owners.setdefault(name.lower(), index)
        if owner != index:
            hint = "; call a column 'name' that tells them apart, such as the SKU" if tabular else ""
            fault = f"its name is also that of {label(owner, requests.names[owner])}{hint}"
            requests.add_fault(index, InvalidRequest(fault))
