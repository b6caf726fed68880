"""Row files: the rows of a CSV, JSON lines or Parquet file, in a storage or on this machine.

Nothing of a file is kept but its rows, and no more is read than one task may make. Parquet needs pyarrow, the extra
``[tables]``.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO, Final

from airflow_provider_nanobanana.batch.row_locations import allowed_files, suffix_of
from airflow_provider_nanobanana.batch.rows import (
    FIELDS,
    MAX_REQUESTS,
    NOTHING_SENT,
    Rows,
    check_columns,
    not_too_many,
    table_rows,
)
from airflow_provider_nanobanana.landing.storage.base import LASTING_ERRORS, storage_failures
from airflow_provider_nanobanana.landing.storage.local import local_path
from airflow_provider_nanobanana.landing.storage.object_store import file_system, object_path, require_connection
from airflow_provider_nanobanana.toapis.errors import (
    ConfigurationError,
    InvalidRequest,
    StorageFailed,
    ToApisError,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.request_values import as_reference
from airflow_provider_nanobanana.toapis.storage_uris import shown

#: Bytes of one file, of Parquet unpacked.
_MOST_BYTES: Final = 256 * 1024 * 1024
_LONGEST_LINE: Final = 1024 * 1024
_CHUNK: Final = 64 * 1024
#: Few: what a row takes unpacked is known when it is.
_ROWS_AT_ONCE: Final = 100
_BOMS: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "a ZIP (Excel?)", b"\x1f\x8b": "gzip"}
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_DELIMITERS: Final = (",", ";", "\t", "|")
#: Excel's own first line.
_SEPARATOR_LINE: Final = re.compile(r"sep=(.)\s*", re.IGNORECASE)
#: What an export writes where there is no value, as pandas reads it; NA is left: it is Namibia, too.
_NO_VALUE: Final = frozenset({"NULL", "null", "NaN", "nan", "N/A", "n/a", "<NA>"})
#: What a spreadsheet writes where a formula failed.
_FORMULA_ERRORS: Final = frozenset(
    {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"}
)


def read_row_file(path_or_uri: str | os.PathLike[str]) -> Rows:
    """Return the rows of a file, read from a local path or any ``ObjectStoragePath`` (URI or object).

    :raises InvalidRequest: Not there, not readable, in no form that is read, or too large; nothing was sent.
    :raises ConfigurationError: No file system serves the scheme, its connection is missing, or pyarrow is.
    :raises TransientFailure: The storage could not be asked; nothing was sent.
    """
    uri = str(as_reference(path_or_uri))
    what = f"{shown(uri)!r:.200}"
    reader = _READERS.get(suffix_of(uri))
    if reader is None:
        raise InvalidRequest(f"{what} is no file of rows: give {allowed_files()}. {NOTHING_SENT}")
    if uri.lower().startswith(("http://", "https://")):
        raise InvalidRequest(f"{what} is a link: give rows in a storage, or read them in a task before. {NOTHING_SENT}")
    try:
        with storage_failures(f"read {what}", Exception):
            return _read(uri, what, reader)
    except StorageFailed as failure:
        raise TransientFailure(
            f"{failure.message}. Nothing was sent and nothing charged; a retry reads it again."
        ) from failure


def _read(uri: str, what: str, reader: Callable[[Any, str], Rows]) -> Rows:
    try:
        with _opened(uri) as file:
            return reader(file, what)
    except LASTING_ERRORS as error:
        words = " ".join(str(error).split())
        raise InvalidRequest(f"{what} cannot be read ({type(error).__name__}: {words:.200}). {NOTHING_SENT}") from error


def _opened(uri: str) -> Any:
    """Return the open file, a context manager."""
    if (local := local_path(uri)) is not None:
        return local.open("rb")
    path = object_path(uri)
    require_connection(path, shown(uri))
    return file_system(path, shown(uri)).open(str(path.path), "rb")


# --- CSV ------------------------------------------------------------------------------------------------------------


def _read_csv(file: BinaryIO, what: str) -> Rows:
    """Return the rows of a CSV file in UTF-8 with a header; the delimiter is found out by the latter."""
    lines = _texts(file, what)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise InvalidRequest(f"{what} is empty: a CSV file has a header of columns. {NOTHING_SENT}")
    told = _SEPARATOR_LINE.fullmatch(first)
    if told:
        first = next(lines, "")
    # ``strict``: a quote that is never closed must not make one cell of the rest of the file.
    reader = csv.reader(
        chain([first], lines), delimiter=told[1] if told else _delimiter(first), strict=True, skipinitialspace=True
    )
    try:
        header = [name.strip() for name in next(reader, [])]
        entries = _csv_entries(reader, header, what)
    except csv.Error as error:
        raise InvalidRequest(
            f"{what} is no CSV at line {reader.line_num} as counted from the header: {error}. {NOTHING_SENT}"
        ) from error
    columns = check_columns([name for name in header if name])
    return Rows(not_too_many(entries), tabular=True, columns=tuple(columns))


def _csv_entries(reader: Any, header: Sequence[str], what: str) -> list[Any]:
    """Return a mapping a row, or its fault; a line without any content is no row."""
    entries: list[Any] = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(entries) > MAX_REQUESTS:
            break
        if len(cells) != len(header):
            entries.append(
                InvalidRequest(f"has {len(cells)} cells, the header has {len(header)}: is a delimiter not quoted?")
            )
            continue
        if unnamed := next((n for n, cell in enumerate(cells) if cell.strip() and not header[n]), None):
            raise InvalidRequest(_unnamed_column(unnamed, what))
        if cells[0].strip() and not header[0]:
            raise InvalidRequest(_unnamed_column(0, what))
        row = {name: _csv_cell(cell, is_field=name in FIELDS) for name, cell in zip(header, cells, strict=True) if name}
        wrong = next((name for name in row if name in FIELDS and row[name] in _FORMULA_ERRORS), None)
        entries.append(
            row if wrong is None else InvalidRequest(f"cell {wrong!r} is {row[wrong]}: a formula of the table failed")
        )
    return entries


def _csv_cell(cell: str, *, is_field: bool) -> str | None:
    """Return a cell, None for what an export writes where there is no value.

    What is typed for us has no blanks around it; data of the user's own stays as it is.
    """
    bare = cell.strip()
    if bare in _NO_VALUE or (bare in _FORMULA_ERRORS and not is_field):
        return None
    return bare if is_field else cell


def _unnamed_column(position: int, what: str) -> str:
    return (
        f"Column {position} of {what} (counted from 0) has no name in the header: name it, or leave it out (pandas "
        f"writes its index so: to_csv(..., index=False)). {NOTHING_SENT}"
    )


def _delimiter(header: str) -> str:
    """Return what separates the columns: what makes fields of them before what makes most columns, a comma at first."""

    def rank(delimiter: str) -> tuple[bool, int]:
        try:
            names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter, strict=True), [])]
        except csv.Error:
            return False, 0
        return any(name in FIELDS for name in names), len(names)

    return max(_DELIMITERS, key=rank)


# --- JSON lines -----------------------------------------------------------------------------------------------------


def _read_json_lines(file: BinaryIO, what: str) -> Rows:
    """Return the rows of a file with one JSON object a line; one that is none is the fault of its row."""
    entries: list[Any] = []
    for number, line in _lines(file, what):
        if not line.strip():
            continue
        if len(entries) > MAX_REQUESTS:
            break
        if not entries and line.lstrip().startswith(b"["):
            raise InvalidRequest(
                f"{what} begins with a list, and JSON lines have one object a line: write each row on a line of its "
                f'own, without commas between (pandas: to_json(..., orient="records", lines=True)). {NOTHING_SENT}'
            )
        entries.append(_json_entry(line, number))
    return Rows(not_too_many(entries), tabular=True)


def _json_entry(line: bytes, number: int) -> Any:
    try:
        entry = json.loads(line.decode(), object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        return InvalidRequest(f"line {number} is no JSON: {error!s:.100}")
    return entry if isinstance(entry, dict) else InvalidRequest(f"line {number} is {type(entry).__name__}, no object")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has a key twice")
    return value


# --- Parquet --------------------------------------------------------------------------------------------------------


def _read_parquet(file: BinaryIO, what: str) -> Rows:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigurationError(
            f"{what} is Parquet, which needs pyarrow: install airflow-provider-nanobanana[tables]. {NOTHING_SENT}"
        ) from error
    opened = parquet.ParquetFile(file)
    facts = opened.metadata
    if facts.num_rows > MAX_REQUESTS:
        not_too_many([None] * (MAX_REQUESTS + 1))
    if sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups)) > _MOST_BYTES:
        raise _too_large(what)
    names = opened.schema_arrow.names
    return table_rows(names, _parquet_rows(opened, what))


def _parquet_rows(opened: Any, what: str) -> Iterator[Sequence[Any]]:
    """Yield the rows; texts that repeat take little in the file, and each its own room here."""
    size = 0
    for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE):
        size += batch.nbytes
        if size > _MOST_BYTES:
            raise _too_large(f"Unpacked, {what}")
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


# --- text -----------------------------------------------------------------------------------------------------------


def _texts(file: BinaryIO, what: str) -> Iterator[str]:
    """Yield the lines of a text in UTF-8."""
    for number, line in _lines(file, what):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"{what} is not UTF-8: byte {line[error.start]:#04x} at {error.start} of line {number}. Save it as "
                f'UTF-8 (Excel: "CSV UTF-8"). {NOTHING_SENT}'
            ) from error


def _lines(file: BinaryIO, what: str) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its end, and its number from 1; what marks UTF-8 at the beginning is left out.

    :raises InvalidRequest: It begins like another format, a line is endless, or the file is.
    """
    rest, number, size = b"", 0, 0
    while chunk := file.read(_CHUNK):
        if size == 0:
            other = next((kind for mark, kind in _BOMS.items() if chunk.startswith(mark)), None)
            if other:
                raise InvalidRequest(f"{what} is {other}, not text in UTF-8. {NOTHING_SENT}")
            chunk = chunk.removeprefix(_UTF8_BOM)
        size += len(chunk)
        if size > _MOST_BYTES:
            raise _too_large(what)
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield number, line + b"\n"
        if len(rest) > _LONGEST_LINE:
            raise InvalidRequest(f"Line {number + 1} of {what} has more than {_LONGEST_LINE:,} bytes. {NOTHING_SENT}")
    if rest:
        yield number + 1, rest


def _too_large(what: str) -> ToApisError:
    return InvalidRequest(
        f"{what} has more than {_MOST_BYTES:,} bytes: leave out what no prompt needs, or split it. {NOTHING_SENT}"
    )


_READERS: Final[dict[str, Callable[[Any, str], Rows]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
