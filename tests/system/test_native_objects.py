"""``render_template_as_native_obj`` by ``dag.test()``; ``make shapes`` has it with real processes and a clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from tests.system.harness import DagTester

FILE = Path(__file__).parent / "dags" / "native_objects.py"
#: Python would read it as a list of two prompts.
TEXT = "['native [[slow=1]]', 'like a list']"
pytestmark = pytest.mark.timeout(300)


def test_a_prompt_that_looks_like_python_is_one_prompt(
    dag_tester: DagTester, emulator: Emulator, tmp_path: Path
) -> None:
    few = ["native listed [[slow=1]]"]
    tested = dag_tester(FILE, "native_objects", texts=[TEXT], few=few, destination=tmp_path.as_uri())
    assert tested.state == "success", tested.output[-3000:]
    sold = [task["prompt"] for task in emulator.ledger()["image_tasks"] if "native" in task["prompt"]]
    # By two tasks, which have another variant and another destination; and with what the submit adds to it.
    assert sorted(sold) == sorted([TEXT, TEXT, f"{TEXT} 7", *few])
    assert len(list(tmp_path.rglob("*.png"))) == 4
