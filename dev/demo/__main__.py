"""``make demo``: real pictures from a real Airflow, started for the purpose and stopped again.

``FORM=one`` (the default) runs ``example_dags/nanobanana_generate.py``, ``FORM=three`` submit, sensor and download of
``example_dags/nanobanana_pipeline.py``. Without a key the pictures come from a local emulator, cost nothing and are
replaced by the next demo. With ``TOAPIS_API_KEY`` set they come from the real service (``TOAPIS_BASE_URL`` optional),
cost real money, and are kept in ``demo-images/``: neither this program nor ``make clean`` deletes anything there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dev.demo.report import Line, lines_of_generate, lines_of_three_tasks, problems, sheet, table
from dev.stack.airflow_api import AirflowApi
from dev.stack.airflow_stack import USER, AirflowStack
from dev.stack.console import Progress, run_program
from dev.stack.emulator_process import Service, list_price, real_service, start_emulator
from dev.stack.processes import REPO, Processes

PROMPTS = (
    "A ripe banana on a marble pedestal, museum light, product photo",
    "Cold brew in a tall glass, condensation, golden hour on a terrace",
    "Running shoe floating over wet asphalt, neon reflections",
    "Linen summer dress on a rail, morning light, soft shadows",
    "Flat lay of a picnic: bread, figs, a checked cloth, seen from above",
    "A paper lighthouse in a paper storm, tilt-shift, stop motion",
)


@dataclass(frozen=True)
class Form:
    """One way to make the pictures.

    :param dag_id: The example that is run.
    :param reuses: Whether what an earlier run bought is found and not bought again.
    :param gather: Reads from Airflow what a run made: ``gather(api, dag_id, run_id, prompts)``.
    """

    dag_id: str
    reuses: bool
    gather: Callable[..., list[Line]]


FORMS: Mapping[str, Form] = {
    "one": Form("nanobanana_generate", reuses=True, gather=lines_of_generate),
    "three": Form("nanobanana_pipeline", reuses=False, gather=lines_of_three_tasks),
}


@dataclass(frozen=True)
class Folders:
    """Where a demo writes.

    :param root: The repository.
    :param real: Whether the pictures cost money.
    """

    root: Path
    real: bool

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME; made from nothing each time."""
        return self.root / ".demo" / "airflow"

    @property
    def emulated(self) -> Path:
        """Log and pictures of the emulator; made from nothing each time."""
        return self.root / ".demo" / "emulator"

    @property
    def images(self) -> Path:
        """The destination of the run."""
        return self.root / "demo-images" if self.real else self.emulated / "images"

    def prepare(self) -> None:
        """Delete what the demo before left, but nothing that was paid."""
        for folder in (self.airflow, self.emulated):
            shutil.rmtree(folder, ignore_errors=True)
        self.images.mkdir(parents=True, exist_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    :return: 0 if every image is on disk, 1 if one is missing, 2 if Airflow did not come up, 130 after Ctrl-C.
    """
    options = _options(arguments)
    paid = "; images already submitted stay paid" if real_service(os.environ) else ""
    return run_program(
        lambda processes, progress: _demo(processes, progress, FORMS[options.form], keep=options.keep),
        when_interrupted=f"interrupted{paid}",
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--form", choices=FORMS, default="one", help="one task, or three (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave Airflow up at the end, until Ctrl-C")
    return parser.parse_args(arguments)


def _demo(processes: Processes, progress: Progress, form: Form, *, keep: bool) -> int:
    real = real_service(os.environ)
    folders = Folders(REPO, real=real is not None)
    folders.prepare()
    if real is None:
        progress.say("no TOAPIS_API_KEY: using the local emulator, which draws pictures for free")
        service = start_emulator(processes, folders.emulated / "emulator.log")
    else:
        most = " at most (what an earlier demo bought is used)" if form.reuses else ""
        progress.say(f"TOAPIS_API_KEY is set: {len(PROMPTS)} images will cost ${list_price(len(PROMPTS)):.3f}{most}")
        service = real
    env = {**service.environment, "AIRFLOW__NANOBANANA__GALLERY_ROOTS": folders.images.as_uri()}
    stack = AirflowStack(folders.airflow, [REPO / "example_dags"], env=env, say=progress.say, processes=processes)
    stack.start()
    progress.say(f"Airflow is up: {stack.url} (user {USER}, password {stack.password})")
    run_id, lines = _make_images(stack.api, progress, form, folders.images)
    _show(lines, service, form, folders.images)
    if keep:
        progress.say(f"still up: {stack.url} (user {USER}, password {stack.password}); Ctrl-C ends it")
        tab = f"dags/{form.dag_id}/runs/{quote(run_id, safe='')}/plugin/nanobanana-run"
        progress.say(f"its gallery: {stack.url}/{tab}")
        while True:
            processes.check()
            time.sleep(1)
    return 0 if all(line.path for line in lines) else 1


def _make_images(api: AirflowApi, progress: Progress, form: Form, images: Path) -> tuple[str, list[Line]]:
    api.wait_for_dag(form.dag_id)
    run_id = api.trigger(form.dag_id, {"prompts": list(PROMPTS), "destination": images.as_uri()})
    progress.say(f"run {run_id} of {form.dag_id}: {len(PROMPTS)} images")
    state = api.wait_for_run(form.dag_id, run_id, timeout=1200, watch=progress.watch)
    progress.say(f"the run ended: {state}")
    if state != "success":
        _show_failures(api, form.dag_id, run_id)
    return run_id, form.gather(api, form.dag_id, run_id, PROMPTS)


def _show_failures(api: AirflowApi, dag_id: str, run_id: str) -> None:
    for failed in api.instances(dag_id, run_id):
        if failed["state"] != "failed":
            continue
        entries = api.log_entries(dag_id, run_id, failed["task_id"], failed["map_index"], failed["try_number"])
        print(f"\n{failed['task_id']} failed:")
        for line in problems(entries):
            print(f"    {line}")


def _show(lines: list[Line], service: Service, form: Form, images: Path) -> None:
    ledger = service.ledger()
    source = "the local emulator" if ledger is not None else "ToAPIs"
    stored = sum(line.path is not None for line in lines)
    target = sheet(
        lines,
        images / f"contact-sheet-{time.strftime('%Y%m%d-%H%M%S')}.png",
        title=f"{stored} images from one Airflow run",
        subtitle=f"{form.dag_id}, made by {source}, {time.strftime('%Y-%m-%d %H:%M')}",
    )
    print(f"\n{table(lines, REPO)}\n")
    if ledger is not None:
        net, count, twice = ledger["net_usd"], ledger["count"], len(ledger["duplicates"])
        print(f"The emulator charged ${net:.3f} for {count} image tasks, {twice} of them twice (no real money).")
    print(f"Contact sheet: {target}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
