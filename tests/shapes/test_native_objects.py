"""``render_template_as_native_obj`` with real processes: texts that look like Python stay one prompt each."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_nanobanana.emulator import Emulator
from tests.shapes import buying
from tests.shapes.stacks import DAGS, Started

DAG = "native_objects"
TEXTS = ["['looks', 'like a list']", "1984", "None", "'a quoted word'"]
FEW = ["native one", "native two"]
#: By folder, how many pictures there must be.
WANTED = {"mapped": 4, "listed": 2, "three": 1, "single": 1}


def test_texts_that_look_like_python_are_bought_as_they_are(
    tmp_path: Path, emulator: Emulator, started: Started
) -> None:
    stack = started.stack(tmp_path / "airflow", emulator, dags=(DAGS,))
    stack.start(timeout=400)
    place = buying.local_place(tmp_path / "images")
    run = buying.start(stack.api, DAG, destination=(tmp_path / "images").as_uri())
    assert run.wait(420) == "success", run.states()
    charged = buying.charges(emulator)
    # One of them is bought by two tasks, which have another variant and another destination.
    assert charged == {**dict.fromkeys([*TEXTS, *FEW, f"{TEXTS[0]} 7"], 1), TEXTS[3]: 2}
    pictures = {name: place.pictures(name) for name in WANTED}
    assert {name: len(found) for name, found in pictures.items()} == WANTED
    run.clear("mapped", "listed", "submit", "wait", "download", "single")
    assert run.wait(420) == "success", run.states()
    assert min(one["try_number"] for one in run.instances() if one["task_id"] != "texts") >= 2
    assert buying.charges(emulator) == charged
    assert {name: place.pictures(name) for name in WANTED} == pictures
