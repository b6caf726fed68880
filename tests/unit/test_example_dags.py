"""What the example DAGs promise before anything runs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_dags"
#: ``task_instance.rendered_map_index`` is a String(250); PostgreSQL refuses a longer text, after the image was paid.
LONGEST_MAP_INDEX = 250


@pytest.mark.parametrize("dag_id", ["nanobanana_pipeline", "nanobanana_creative_refresh"])
def test_the_name_of_a_mapped_task_fits_whatever_the_prompt(dag_id: str) -> None:
    submit = runpy.run_path(str(EXAMPLES / f"{dag_id}.py"))["submit"]
    values = {"prompt": "a red kite over dunes, " * 220}
    fields = values if dag_id == "nanobanana_pipeline" else {**values, "size": "9:16"}
    task = submit.unmap(fields)
    name = submit.dag.get_template_env().from_string(submit.partial_kwargs["map_index_template"]).render(task=task)
    assert "a red kite over dunes" in name
    assert len(name) <= LONGEST_MAP_INDEX
