"""Tables, files, templates and dry runs, told in purchases: a bad row buys nothing, and no retry forgets one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.decorators.nanobanana import nanobanana_task
from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from tests.integration.batch.harness import GenerateTask
from tests.support.pages import quoted, snippets, table
from tests.support.text import flat

TABLE = {"name": ["K", "B", "X"], "colour": ["red", "blue", None], "price": [1.5, 2.5, 3.5]}
TEMPLATE = "{name} in {colour}"


def as_csv(folder: Path) -> str:
    path = folder / "rows.csv"
    pd.DataFrame(TABLE).to_csv(path, index=False)
    return path.as_uri()


def decorated(batch: GenerateTask, returned: Any, **options: Any) -> None:
    """Make the task one of ``@task.nanobanana`` whose function returns a value."""
    from airflow.sdk import DAG

    with DAG("dag", schedule=None):
        made: Any = nanobanana_task(
            task_id="generate", destination=batch.folder.as_uri(), retries=batch.retries, **options
        )(lambda: returned)()
    batch.operator = lambda **_: made.operator  # type: ignore[method-assign]


@pytest.mark.parametrize("source", ["pandas", "csv", "path"])
@pytest.mark.parametrize("form", ["operator", "decorator"])
def test_a_table_becomes_pictures(with_store: GenerateTask, tmp_path: Path, source: str, form: str) -> None:
    uri = as_csv(tmp_path)
    given = {"pandas": pd.DataFrame(TABLE), "csv": uri, "path": Path(uri.removeprefix("file://"))}[source]
    options: dict[str, Any] = {"prompt": TEMPLATE, "on_bad_row": "skip"}
    if form == "decorator":
        decorated(with_store, given, **options)
        run = with_store.attempt()
    else:
        run = with_store.attempt(requests=given, **options)
    assert run.error is None and with_store.charges == 2
    assert sorted(name.partition("-")[0] for name in with_store.files) == ["B", "K"]
    assert {task["prompt"] for task in with_store.emulator.ledger()["image_tasks"]} == {"K in red", "B in blue"}


def test_one_bad_row_refuses_all_before_money(with_store: GenerateTask) -> None:
    run = with_store.attempt(requests=pd.DataFrame(TABLE), prompt=TEMPLATE)
    assert isinstance(run.error, NanoBananaFailException) and "cell 'colour' is blank" in flat(run.error)
    assert with_store.posts == 0


@pytest.mark.parametrize("first", [None, 1, 2, 3, 5, 8, 13])
def test_what_was_skipped_and_the_meta_outlive_a_killed_attempt(batch: GenerateTask, first: int | None) -> None:
    given = [
        {"name": "K", "meta": {"colour": "red"}},
        {"name": "B", "meta": {"colour": "blue"}},
        {"name": "X"},
    ]
    options: dict[str, Any] = {"prompt": TEMPLATE, "on_bad_row": "skip", "variants": 2}
    states = []
    original = NanoBananaGenerateOperator._run

    def spy(self: Any, context: Any, state: Any, began: float, *, resumed: bool) -> Any:
        states.append(state)
        return original(self, context, state, began, resumed=resumed)

    NanoBananaGenerateOperator._run = spy  # type: ignore[method-assign]
    try:
        batch.attempt(crash_at=first, requests=given, **options)
        run = batch.attempt(requests=given, **options)
    finally:
        NanoBananaGenerateOperator._run = original  # type: ignore[method-assign]
    assert run.error is None and batch.charges == 4
    assert run.result["skipped_count"] == 1
    assert [(row["request"], row["name"]) for row in batch.manifest["skipped"]] == [(2, "X")]
    for state in states:
        assert [(row.index, row.name) for row in state.skipped] == [(2, "X")]
        assert [(item.index, item.meta) for item in state.items] == [
            (0, {"colour": "red"}),
            (0, {"colour": "red"}),
            (1, {"colour": "blue"}),
            (1, {"colour": "blue"}),
        ]


def test_a_changed_price_buys_nothing_and_another_variant_does(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=[{"prompt": "a", "name": "K", "meta": {"price": 1}}])
    batch.next_run("second")
    batch.attempt(requests=[{"prompt": "a", "name": "K", "meta": {"price": 2}}])
    assert batch.charges == 1
    batch.next_run("third")
    batch.attempt(requests=[{"prompt": "a", "name": "K"}], variants="2")
    assert batch.charges == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": "{name}", "requests": None}, None),
        ({"prompt": TEMPLATE, "requests": [{"name": "K"}]}, "{colour} is none of them"),
        ({"requests": "file:///nowhere/rows.csv"}, "cannot be read (FileNotFoundError"),
        ({"requests": "a kite"}, "names no file of rows"),
        ({"requests": "s3://bucket/rows.xlsx"}, "no file of rows that can be read"),
        ({"prompt": "s3://bucket/rows.csv", "requests": None}, "file of rows and no prompt"),
        ({"requests": ["a"], "variants": 0}, "variants is a whole number from 1 to 100"),
        ({"requests": ["a"], "variants": "three"}, "variants is a whole number from 1 to 100"),
        ({"requests": ["a"], "variants": True}, "variants is a whole number from 1 to 100"),
        ({"requests": ["a"], "on_bad_row": "ignore"}, "on_bad_row is 'fail' or 'skip'"),
        ({"requests": ["a"], "dry_run": "None"}, "dry_run is True or False"),
        ({"requests": pd.DataFrame({"sku": [1]})}, "no column 'prompt'"),
    ],
)
def test_a_mistake_buys_nothing(with_store: GenerateTask, options: dict[str, Any], words: str | None) -> None:
    run = with_store.attempt(**options)
    if words is None:
        # Without requests a prompt is a prompt, braces and all.
        assert run.error is None and with_store.posts == 1
        return
    assert isinstance(run.error, NanoBananaFailException) and words in " ".join(str(run.error).split())
    assert with_store.posts == 0


def test_requests_that_turn_out_to_be_nothing_do_not_make_the_template_a_prompt(with_store: GenerateTask) -> None:
    operator = with_store.operator(prompt="{name} in red", requests=["upstream"])
    operator.requests = None  # as a template, or the output of a task, may render
    with_store.operator = lambda **_: operator  # type: ignore[method-assign]
    run = with_store.attempt()
    assert isinstance(run.error, NanoBananaFailException) and "requests is None" in " ".join(str(run.error).split())
    assert with_store.posts == 0


@pytest.mark.parametrize(
    "text",
    [
        *("s3://bucket/rows.xlsx", "/data/rows.csv.gz", "file:///nowhere/rows.csv", "https://host/rows.csv"),
        *("data/products.csv", "products.xlsx"),
    ],
)
def test_a_function_that_returns_where_a_table_is_buys_no_picture_of_the_address(
    with_store: GenerateTask, text: str
) -> None:
    decorated(with_store, text)
    assert isinstance(with_store.attempt().error, NanoBananaFailException) and with_store.posts == 0


@pytest.mark.parametrize("returned", [["a kite", "a boat"], "a kite", pd.DataFrame({"prompt": ["a kite"]})])
def test_a_decorator_s_template_is_never_left_out_of_what_is_bought(with_store: GenerateTask, returned: Any) -> None:
    decorated(with_store, returned, prompt="studio light, white background")
    run = with_store.attempt()
    assert isinstance(run.error, NanoBananaFailException) and with_store.posts == 0
    assert "nothing of it would be used" in " ".join(str(run.error).split())


def test_the_log_says_how_many_rows_replace_the_template(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"name": "K"}, {"name": "B", "prompt": "a boat"}]
    assert with_store.attempt(requests=rows, prompt="a kite, {name}").error is None
    assert "replaces the template: 1 of 2" in " ".join(caplog.text.split())


def test_a_retry_says_that_it_goes_on_with_the_file_as_it_was_read(
    with_store: GenerateTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rows = tmp_path / "rows.csv"
    rows.write_text("name,prompt\nK,a kite\nB,[[fail]] a boat\n")
    with_store.attempt(requests=rows.as_uri())
    assert "as try" not in caplog.text
    rows.write_text("name,prompt\nK,a kite\nB,a boat\n")
    with_store.attempt(requests=rows.as_uri())
    assert "Requests: as try 1 read them; a clear reads them anew" in caplog.text
    with_store.clear()
    assert with_store.attempt(requests=rows.as_uri()).error is None and with_store.charges == 2


@pytest.mark.parametrize("given", ["rows.xlsx", "s3://bucket/rows.csv.gz"])
def test_a_retry_goes_on_with_what_is_paid_whatever_is_given_by_then(
    with_store: GenerateTask, tmp_path: Path, given: str
) -> None:
    """The DAG was edited meanwhile: what is given now is refused with the next clear."""
    with_store.attempt(requests=as_csv(tmp_path), prompt="{name}", crash_on=("before land", 1))
    assert with_store.charges == 3 and not with_store.files
    again = with_store.attempt(requests=given, prompt="{name}")
    assert again.error is None and again.result["count"] == 3 == with_store.charges


# --- dry runs -------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_a_run_would_do_and_leaves_nothing(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    batch.attempt(requests=["a kite"])
    batch.next_run("second")
    before = {path: path.read_bytes() for path in batch.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(metrics, "_stats", type("Stats", (), {"incr": lambda *a, **k: sent.append("x")}))
    requests = ["a kite", {"prompt": "a boat", "name": "B", "meta": {"p": 1}}, ""]
    run = batch.attempt(requests=requests, dry_run="True", on_bad_row="skip", outlets=[])
    assert run.error is None and batch.posts == 1 and sent == []
    assert run.result["dry_run"] is True
    counts = {key: run.result[key] for key in ("requests", "in_place", "to_buy", "perhaps_paid", "skipped_count")}
    assert counts == {"requests": 2, "in_place": 1, "to_buy": 1, "perhaps_paid": 0, "skipped_count": 1}
    assert run.result["estimate_usd"] == 0.025
    kite, boat = run.result["images"]
    assert (kite["state"], kite["uri"]) == ("in_place", next(p.as_uri() for p in before if p.suffix == ".png"))
    assert (boat["state"], boat["name"], boat["prompt"], boat["uri"]) == ("to_buy", "B", "a boat", None)
    assert {path: path.read_bytes() for path in batch.folder.rglob("*") if path.is_file()} == before
    if batch.store is not None:
        assert set(batch.store.rows) == {"nanobanana_dry_run"}


def test_the_run_after_a_dry_run_is_a_first_one(with_store: GenerateTask, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing has to be looked up: nothing was ever sent."""
    batch = with_store
    batch.attempt(requests=["a", "b"], dry_run=True)
    batch.clear()
    batch.attempt(requests=["a", "b"], dry_run=True)
    batch.clear()
    caplog.set_level("INFO")
    run = batch.attempt(requests=["a", "b"], on_unknown_submission="fail")
    assert run.error is None and batch.charges == 2
    assert "Estimate: 2 images to buy" in caplog.text and "May have been bought" not in caplog.text


def test_a_dry_run_that_airflow_resumes_by_mistake_is_one_all_the_same(batch: GenerateTask) -> None:
    """Airflow's issue 62845: the wait of an earlier try leaks into one that never waited."""
    run = batch.attempt(requests=["a", "b"], dry_run=True, leaked=True)
    assert run.error is None and run.result["to_buy"] + run.result["perhaps_paid"] == 2 and batch.posts == 0
    batch.clear()
    batch.attempt(requests=["a"], crash_on=("before land", 1))
    assert batch.charges == 1
    batch.clear()
    run = batch.attempt(requests=["a", "b"], dry_run=True, leaked=True)
    assert run.error is None and run.result["dry_run"] is True and batch.posts == 1
    batch.clear()
    assert batch.attempt(requests=["a", "b"]).error is None and batch.charges == 2


def test_a_batch_that_waits_goes_on_when_dry_run_is_switched_on(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it bought is landed: a dry run would leave it behind."""
    monkeypatch.setattr(batch, "on_pause", lambda: batch.options.update(dry_run=True))
    run = batch.attempt(requests=["a", "b"])
    assert batch.pauses and "dry_run" not in run.result and run.result["count"] == 2 and batch.charges == 2


@pytest.mark.parametrize("crash_at", range(1, 30, 3))
def test_a_dry_run_between_two_tries_buys_and_forgets_nothing(batch: GenerateTask, crash_at: int) -> None:
    batch.attempt(crash_at=crash_at, requests=["a", "b"])
    paid = batch.charges
    dry = batch.attempt(requests=["a", "b"], dry_run=True)
    assert dry.error is None and batch.charges == paid
    assert dry.result["in_place"] + dry.result["to_buy"] + dry.result["perhaps_paid"] + dry.result["failed_count"] == 2
    assert batch.attempt(requests=["a", "b"]).error is None
    assert batch.charges == 2


# --- docs/tables.md -------------------------------------------------------------------------------------------------


def test_the_table_of_the_docs_becomes_what_the_docs_show(with_store: GenerateTask, tmp_path: Path) -> None:
    from airflow.sdk import DAG

    (rows,) = (each.text for each in snippets("csv") if each.page == "tables.md")
    (tmp_path / "products.csv").write_text(rows)
    shown = next(each.text for each in snippets("python") if each.page == "tables.md")
    space: dict[str, Any] = {}
    exec(
        compile(
            shown.replace("with DAG(", "with DAG(dag_id=", 1).replace("    NanoB", "    operator = NanoB"),
            "docs",
            "exec",
        ),
        space,
    )
    operator = space["operator"]
    assert isinstance(operator.dag, DAG) and operator.is_dry_run == "{{ params.dry_run }}"
    operator.requests = (tmp_path / "products.csv").as_uri()
    operator.destination = with_store.folder.as_uri()
    operator.is_dry_run = "False"
    with_store.operator = lambda **_: operator  # type: ignore[method-assign]
    states = []
    operator._show_what_was_read = lambda context, items: states.append(items)
    assert with_store.attempt().error is None and with_store.charges == 3
    made = [[f"`{item.name}`", item.request.prompt, f"`{json.dumps(dict(item.meta or {}))}`"] for item in states[0]]
    assert made == table("tables.md", "# From a table to pictures")


def test_the_keys_of_a_dry_run_are_those_of_the_docs_and_of_a_run(with_store: GenerateTask) -> None:
    result = with_store.attempt(requests=["a"], dry_run=True).result
    with_store.clear()
    of_a_run = with_store.attempt(requests=["a"]).result
    described = {key for row in table("tables.md", "## Dry run") for key in quoted(row[0])}
    assert described | set(of_a_run) == set(result)
    kinds = {key: type(value) for key, value in of_a_run.items() if key != "manifest"}
    assert {key: type(result[key]) for key in kinds} == kinds and result["manifest"] is None


def test_the_last_line_says_how_many_rows_were_skipped(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert with_store.attempt(requests=["a", "", ""], on_bad_row="skip").error is None
    assert "Images in place: 1, missing: 0; rows skipped: 2; the batch has cost $0.025" in caplog.text
