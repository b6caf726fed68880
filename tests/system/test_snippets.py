"""Every Python block of README and docs/ runs: DAGs by ``dag.test()`` against an emulator, tests by pytest, programs.

A block runs as it stands but for places: each folder or bucket is one of the test, with the files that the block reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from airflow_provider_nanobanana.emulator import Emulator
from tests.support.images import picture
from tests.support.pages import PAGES, Snippet, snippets
from tests.support.versions import EXCEPTION_IN_DAG_TEST, OUTLETS_IN_DAG_TEST, REVIEWS_IN_DAG_TEST, needs
from tests.system.harness import DagTester

if TYPE_CHECKING:
    from tests.system.harness import Tested

_PLACE = re.compile(r"s3://my_aws_connection@[a-z-]*bucket|(?:file://)?/tmp(?=/)")
_DAG_ID = re.compile(r'with DAG\(\s*"(\w+)"')
#: Shown for people who have Excel; what reads its files is not installed for the tests. One row: of each three images.
_EXCEL = 'read_excel("/data/products.xlsx")'
#: The DAG that the test which is shown imports.
KITES = """\
from airflow.sdk import DAG, Param

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

with DAG("kites", schedule=None, params={"destination": Param("s3://nobody@nowhere/kites", type="string")}) as dag:
    NanoBananaGenerateOperator(task_id="pictures", requests=["kite", "boat"], destination="{{ params.destination }}")
"""

SNIPPETS = snippets("python")
DAGS = [each for each in SNIPPETS if "with DAG(" in each.text]
TESTS = [each for each in SNIPPETS if "\ndef test_" in each.text]
PROGRAMS = [each for each in SNIPPETS if each not in DAGS + TESTS]
#: The DAG whose asset event starts another one, by the other's id.
STARTED_BY = {"shop": "products"}


def _needing(snippet: Snippet) -> object:
    if "ReviewOperator(" in snippet.text:
        return pytest.param(snippet, marks=needs(REVIEWS_IN_DAG_TEST))
    if "Asset(" in snippet.text:
        return pytest.param(snippet, marks=needs(OUTLETS_IN_DAG_TEST))
    return snippet


def _dag_id(snippet: Snippet) -> str:
    (dag_id,) = _DAG_ID.findall(snippet.text)
    return str(dag_id)


@pytest.fixture(scope="module")
def quick() -> Iterator[Emulator]:
    """An emulator whose images are ready at once."""
    with Emulator(latency=0, sigma=0, submit_rate=0, query_rate=0, seed=7) as emulator:
        yield emulator


class Place:
    """The folder in which the blocks of one test run, and the service they buy from."""

    def __init__(self, folder: Path, service: Emulator, dag_tester: DagTester) -> None:
        self.folder, self.service = folder, service
        self._dag_tester = dag_tester

    def adapt(self, snippet: Snippet) -> str:
        """Return the block with its places here, and make the files that it reads: the page's table, a photo."""
        text = _PLACE.sub(lambda found: self.folder.as_uri() if "://" in found[0] else str(self.folder), snippet.text)
        text = text.replace(_EXCEL, f'read_csv("{self.folder}/products.csv", nrows=1)')
        tables = [each.text for each in snippets("csv") if each.page == snippet.page]
        for name in re.findall(rf"{self.folder}/([\w/-]+\.(?:csv|jpg))", text):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(tables[0].encode() if name.endswith(".csv") else picture("jpeg"))
        return text

    def test(self, snippet: Snippet) -> Tested:
        """Run the DAG of a block by ``dag.test()``; whoever is asked rejects all images."""
        dag_id = _dag_id(snippet)
        file = self.folder / f"dags-{dag_id}" / "shown.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(self.adapt(snippet))
        env = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": self.service.connection_json()}
        return self._dag_tester(file, dag_id, env=env, reviewer="Reject all")

    def landed(self) -> int:
        """Return how many images are in place, each of which can be read; as many were sold."""
        images = [path for path in self.folder.rglob("*.png") if ".nanobanana" not in path.parts]
        for path in images:
            with Image.open(path) as image:
                image.load()
        assert len(images) == self.service.ledger()["count"]
        return len(images)


@pytest.fixture
def place(tmp_path: Path, quick: Emulator, dag_tester: DagTester) -> Place:
    quick.reset()
    return Place(tmp_path, quick, dag_tester)


def test_no_block_is_missed() -> None:
    """An indented one, say, or one whose language is spelled otherwise."""
    fences = re.findall(r"^[ \t]*(?:```|~~~)[ \t]*py.*$", "\n".join(path.read_text() for path in PAGES), re.MULTILINE)
    assert fences == ["```python"] * len(SNIPPETS)


@pytest.mark.parametrize("snippet", [_needing(each) for each in DAGS], ids=str)
def test_a_dag_that_is_shown_lands_what_it_buys(snippet: Snippet, place: Place) -> None:
    assert 'default_args={"retries": 2' in snippet.text and "claims=" not in snippet.text
    for each in (*(each for each in DAGS if _dag_id(each) == STARTED_BY.get(_dag_id(snippet))), snippet):
        tested = place.test(each)
        assert tested.state == "success", tested.output
        assert {*tested.tasks.values()} == {"success"}, tested.tasks
    assert place.landed()


@needs(EXCEPTION_IN_DAG_TEST)
def test_the_alert_that_is_shown_is_sent(place: Place) -> None:
    (snippet,) = (each for each in DAGS if each.page == "guides/alerts.md")
    shown = next(each.text for each in snippets("text") if each.page == snippet.page)
    place.service.fault(on="submit", kind="content_policy", match="a paper boat")
    tested = place.test(snippet)
    assert (tested.state, place.landed()) == ("failed", 1)
    pattern = re.escape(_of_any_run(shown.replace("/tmp", str(place.folder)))).replace(r"\.\.\.", ".*?")
    assert re.search(pattern, _of_any_run(tested.output)), tested.output


def _of_any_run(text: str) -> str:
    """Return a text as one line, without ids of a run."""
    return " ".join(re.sub(r"manual__\S+", "RUN", text).split())


@pytest.mark.parametrize("snippet", TESTS, ids=str)
def test_a_test_that_is_shown_passes(snippet: Snippet, dag_tester: DagTester, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "kites.py").write_text(KITES)
    (tmp_path / "test_kites.py").write_text(snippet.text)
    tested = dag_tester.pytest(tmp_path / "test_kites.py", dags=tmp_path / "dags")
    assert tested.state == "OK", tested.output
    assert "1 passed" in tested.output


@pytest.mark.parametrize("snippet", PROGRAMS, ids=str)
def test_a_program_that_is_shown_ends(snippet: Snippet, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", place.service.connection_json())
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    exec(compile(place.adapt(snippet), str(snippet), "exec"), {})
    assert place.landed() == snippet.text.count("hook.submit(")
