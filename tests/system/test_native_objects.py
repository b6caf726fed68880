"""``render_template_as_native_obj`` by ``dag.test()``; ``make shapes`` has it with real processes and a clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.processes import REPO
from tests.system.harness import DagTester

FILE = REPO / "tests" / "shapes" / "dags" / "native.py"
#: Python would read the first as a list of two prompts.
TEXTS = ["['native [[slow=1]]', 'like a list']", "'native quoted [[slow=1]]'"]
pytestmark = pytest.mark.timeout(300)


def test_a_prompt_that_looks_like_python_is_one_prompt(
    dag_tester: DagTester, emulator: Emulator, tmp_path: Path
) -> None:
    texts = [TEXTS[0], *TEXTS]
    few = ["native listed [[slow=1]]"]
    tested = dag_tester(FILE, "shapes_native", texts=texts, few=few, destination=tmp_path.as_uri())
    assert tested.state == "success", tested.output[-3000:]
    sold = [task["prompt"] for task in emulator.ledger()["image_tasks"] if "native" in task["prompt"]]
    # Twice by the mapped task: the same file, bought once; and what the submit adds to it.
    assert sorted(sold) == sorted([TEXTS[0], *TEXTS[1:], f"{TEXTS[0]} 7", *few])
    assert len(list(tmp_path.rglob("*.png"))) == 5
