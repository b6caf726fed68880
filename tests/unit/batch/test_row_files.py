"""Files of rows: what people save, and what a broken one is called before anything is sent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_provider_nanobanana.batch.items import build_items
from airflow_provider_nanobanana.batch.row_files import read_row_file
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, InvalidRequest
from tests.support.batch import MODEL, items, no_storage

PLAIN = [("a kite", "K", {"price": "3"}), ("a boat", "B", {"price": "4"})]


def rows_of(path: Path, content: bytes | None = None) -> list[tuple[str, str | None, Any]]:
    if content is not None:
        path.write_bytes(content)
    return [(item.request.prompt, item.name, item.meta) for item in items(read_row_file(path.as_uri()))]


def refusal(path: Path, content: bytes | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        rows_of(path, content)
    message = caught.value.message
    assert "othing was sent and nothing was charged" in message and len(message) < 1000
    return message


@pytest.mark.parametrize(
    "text",
    [
        "prompt,name,price\na kite,K,3\na boat,B,4\n",
        "prompt,name,price\r\na kite,K,3\r\na boat,B,4",
        "\ufeffprompt,name,price\na kite,K,3\na boat,B,4\n",
        "prompt;name;price\na kite;K;3\na boat;B;4\n",
        "prompt\tname\tprice\na kite\tK\t3\na boat\tB\t4\n",
        "prompt|name|price\na kite|K|3\na boat|B|4\n",
        "sep=;\r\nprompt;name;price\r\na kite;K;3\r\na boat;B;4\r\n",
        "\n prompt , name ,price\n\na kite,K,3\n,,\n  \na boat,B,4\n\n",
        'prompt,"name",price\n"a kite","K",3\n"a boat",B,"4"\n',
        "prompt,name,price,\na kite,K,3,\na boat,B,4,\n",
    ],
    ids=["lf", "crlf", "bom", "semicolon", "tab", "bar", "sep", "blank lines", "quotes", "trailing delimiter"],
)
def test_a_csv_is_read_as_it_was_saved(tmp_path: Path, text: str) -> None:
    assert rows_of(tmp_path / "rows.csv", text.encode()) == PLAIN


def test_a_quoted_cell_may_hold_anything(tmp_path: Path) -> None:
    text = 'prompt,"a;b;c"\n"two\nlines, ""so"" {x}",1\n'
    assert rows_of(tmp_path / "rows.csv", text.encode()) == [('two\nlines, "so" {x}', None, {"a;b;c": "1"})]
    text = "Preis, netto;prompt\n3,50;ein Drachen\n"
    assert rows_of(tmp_path / "rows.csv", text.encode()) == [("ein Drachen", None, {"Preis, netto": "3,50"})]


def test_blanks_around_a_field_are_none_of_it(tmp_path: Path) -> None:
    text = "name, prompt ,size,reference_images,note\n K1 , a kite ,\t16:9 , s3://b/a.png , as it is \n"
    (tmp_path / "rows.csv").write_text(text)
    (item,) = build_items(
        read_row_file(tmp_path / "rows.csv"), defaults={}, default_model=MODEL, digest_of=lambda uri: "0" * 64
    )
    assert (item.name, item.request.prompt, item.request.size) == ("K1", "a kite", "16:9")
    assert item.request.reference_images == ("s3://b/a.png",) and item.meta == {"note": "as it is "}


def test_a_quoted_cell_behind_a_blank_is_quoted_all_the_same(tmp_path: Path) -> None:
    text = 'name, prompt\nA, "a kite, red"\nB, "a boat"\n'
    assert rows_of(tmp_path / "rows.csv", text.encode()) == [("a kite, red", "A", None), ("a boat", "B", None)]


def test_what_an_export_writes_for_no_value_is_none(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("name,prompt,size,colour\nK,a,NULL,nan\nnull,b, NaN ,#REF!\nNA,c,N/A,None\n")
    taken = items(read_row_file(tmp_path / "rows.csv"))
    assert [(item.name, item.request.size, item.meta) for item in taken] == [
        ("K", "1:1", None),
        (None, "1:1", None),
        ("NA", "1:1", {"colour": "None"}),
    ]
    for cell in ("NULL", "N/A", "nan", "null"):
        assert "#0: prompt is blank" in refusal(tmp_path / "rows.csv", f"name,prompt\n,{cell}\n".encode()).replace(
            "prompt Field required", "prompt is blank"
        )
    assert "#0: cell 'prompt' is #REF!" in refusal(tmp_path / "rows.csv", b"name,prompt\n,#REF!\n")


def test_a_list_is_not_taken_for_json_lines(tmp_path: Path) -> None:
    content = b'[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n'
    assert "begins with a list, and JSON lines have one object a line" in refusal(tmp_path / "rows.jsonl", content)


def test_parquet_is_bounded_by_what_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that repeats is in the file once."""
    path = tmp_path / "rows.parquet"
    table = pa.table({"prompt": ["a"] * 5000, "html": ["x" * 20_000] * 5000})
    parquet.write_table(table, path)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr("airflow_provider_nanobanana.batch.row_files._MOST_BYTES", 50_000_000)
    assert "has more than 50,000,000 bytes" in refusal(path)
    monkeypatch.setattr("airflow_provider_nanobanana.batch.row_files._MOST_BYTES", 110_000_000)
    assert len(rows_of(path)) == 5000


def test_fields_of_a_text_file_may_hold_json(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "prompt": ["a", "b"],
            "reference_images": ['["https://h/a.png", "https://h/b.png"]', "https://h/c.png"],
            "extra_body": ['{"seed": 3}', None],
            "meta": ['{"sku": 7}', None],
        }
    )
    frame.to_csv(tmp_path / "rows.csv", index=False)
    first, second = items(read_row_file(tmp_path / "rows.csv"))
    assert first.request.reference_images == ("https://h/a.png", "https://h/b.png")
    assert second.request.reference_images == ("https://h/c.png",)
    assert (first.request.extra_body, first.meta) == ({"seed": 3}, {"sku": 7})
    for field in ("reference_images", "extra_body", "meta"):
        message = refusal(tmp_path / "rows.csv", f"prompt;{field}\na;[{{k:1}}\n".encode())
        assert f"#0: cell '{field}' holds '[{{k:1}}', which is no JSON" in message


def test_a_header_alone_is_no_rows_and_an_empty_file_is_a_mistake(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "rows.csv", b"prompt,name\n") == []
    assert rows_of(tmp_path / "rows.jsonl", b"") == []
    for content in (b"", b"\n \n", "\ufeff".encode()):
        assert "is empty: a CSV file has a header" in refusal(tmp_path / "rows.csv", content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"prompt,name\na,b,c\nfine,ok\nx\n", "2 of 3 requests cannot be accepted"),
        (b"prompt,name\na,b,c\n", "#0: has 3 cells, the header has 2"),
        ("prompt\ncaf\u00e9\n".encode("latin-1"), "is not UTF-8: byte 0xe9 at 3 of line 2"),
        ("prompt\na\n".encode("utf-16"), "is UTF-16, not text in UTF-8"),
        (b"PK\x03\x04...", "is a ZIP (Excel?)"),
        (b"\x1f\x8b...", "is gzip"),
        (b'prompt\n"a\nb\n', "is no CSV at line 3 as counted from the header: unexpected end of data"),
        (b'prompt\n"a" b\n', "is no CSV at line 2"),
        (b"prompt,name\ra,b\r", "is no CSV at line 1"),
        (b",prompt\n0,a\n", "Column 0 of"),
        (b"prompt,prompt\na,b\n", "more than one column called 'prompt'"),
        (b"prompt\n" + b"x" * 200_000, "field larger than field limit"),
        (b"prompt\n" + b"x" * 2_000_000, "Line 2 of"),
        (b"prompt\n" + b"a\n" * 20_001, "more than 20,000 requests"),
        (b"prompt\na\0b\n", "#0: prompt holds the control character U+0000"),
        (
            b"Prompt,sku\na,b\n",
            "no column 'prompt', and the argument prompt gives no template over its columns: Prompt",
        ),
    ],
)
def test_a_broken_csv_is_refused_with_the_place(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refusal(tmp_path / "rows.csv", content)


def test_a_bad_line_of_json_is_the_fault_of_its_row(tmp_path: Path) -> None:
    text = '{"prompt": "a", "tags": ["x"], "n": NaN}\n\n{bad\n{"prompt": "b", "prompt": "c"}\n[1]\n"x"\n{"prompt": "z"}'
    message = refusal(tmp_path / "rows.jsonl", text.encode() + b'\n{"prompt": "\xe9"}')
    assert message.startswith("5 of 7 requests") and "#0" not in message.replace("from #0", "") and "#5" not in message
    for words in ("#1: line 3 is no JSON", "#2: line 4 is no JSON: an object has a key twice", "#3: line 5 is list"):
        assert words in message
    read = read_row_file(tmp_path / "rows.jsonl")
    skipped: list[Any] = []
    taken = build_items(read, defaults={}, default_model=MODEL, digest_of=no_storage, on_skipped=skipped.append)
    assert [(item.index, item.meta) for item in taken] == [(0, {"tags": ["x"]}), (5, None)] and len(skipped) == 5


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "JSONL"])
def test_json_lines_need_not_have_the_same_keys(tmp_path: Path, suffix: str) -> None:
    text = '\ufeff{"prompt": "a", "name": "K"}\n{"prompt": "b", "colour": "red"}'
    assert rows_of(tmp_path / f"rows.{suffix}", text.encode()) == [("a", "K", None), ("b", None, {"colour": "red"})]


# --- Parquet --------------------------------------------------------------------------------------------------------


def test_a_parquet_file_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"prompt": ["a"], "name": ["K"], "tags": [["x"]]}), path)
    assert rows_of(path) == [("a", "K", {"tags": ["x"]})]
    frame = pd.DataFrame({"prompt": ["a", "b"], "name": ["K", "L"]})
    frame.set_index("name").to_parquet(path)
    assert rows_of(path)[0] == ("a", "K", None)
    frame.iloc[1:].to_parquet(path)
    assert rows_of(path) == [("b", "L", None)], "an index without a name is no column"


def test_a_parquet_file_that_is_none_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert "cannot be read (ArrowInvalid" in refusal(path, b"hello")
    parquet.write_table(pa.table({"prompt": ["a"] * 20_001}), path)
    assert "more than 20,000 requests" in refusal(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigurationError, match=r"airflow-provider-nanobanana\[tables\]"):
        read_row_file(path)


# --- where ----------------------------------------------------------------------------------------------------------


def test_a_file_in_a_store_is_read_from_there(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/rows/a.csv", b"prompt,name\na kite,K\n")
    assert [item.name for item in items(read_row_file("memory://rows/a.csv"))] == ["K"]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:///nowhere/rows.csv", "cannot be read (FileNotFoundError"),
        ("https://host/rows.csv", "is a link"),
        ("s3://user:secret@bucket/rows.csv", "holds a user and a password"),
        ("/tmp/rows.txt", "is no file of rows: give CSV, JSON lines or Parquet"),
        ("memory://rows/none.csv", "cannot be read (FileNotFoundError"),
    ],
)
def test_what_cannot_be_read_is_said_without_secrets(uri: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_row_file(uri)
    assert words in caught.value.message and "secret" not in caught.value.message


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    assert "IsADirectoryError" in refusal(tmp_path / "rows.csv")
