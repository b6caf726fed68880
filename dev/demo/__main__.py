"""``make demo``: real pictures from a real Airflow, started for the purpose and stopped again.

Without a key the pictures come from a local emulator and cost nothing. With ``TOAPIS_API_KEY`` set they come from the
real service (``TOAPIS_BASE_URL`` optional) and cost real money. Everything is kept in ``.demo/``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time

from dev.demo.report import Line, gather, problems, sheet, table
from dev.stack.airflow_api import AirflowApi
from dev.stack.airflow_stack import USER, AirflowStack
from dev.stack.console import Progress, run_program
from dev.stack.emulator_process import Service, list_price, real_service, start_emulator
from dev.stack.processes import REPO, Processes

HOME = REPO / ".demo"
IMAGES = HOME / "images"
DAG_ID = "nanobanana_pipeline"
PROMPTS = (
    "A ripe banana on a marble pedestal, museum light, product photo",
    "Cold brew in a tall glass, condensation, golden hour on a terrace",
    "Running shoe floating over wet asphalt, neon reflections",
    "Linen summer dress on a rail, morning light, soft shadows",
    "Flat lay of a picnic: bread, figs, a checked cloth, seen from above",
    "A paper lighthouse in a paper storm, tilt-shift, stop motion",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    :return: 0 if every image is on disk, 1 if one is missing, 2 if Airflow did not come up, 130 after Ctrl-C.
    """
    options = _options(arguments)
    paid = "; images already submitted stay paid" if real_service(os.environ) else ""
    return run_program(
        lambda processes, progress: _demo(processes, progress, keep=options.keep),
        when_interrupted=f"interrupted{paid}",
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave Airflow up at the end, until Ctrl-C")
    return parser.parse_args(arguments)


def _demo(processes: Processes, progress: Progress, *, keep: bool) -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    IMAGES.mkdir(parents=True)
    service = _service(processes, progress)
    stack = AirflowStack(
        HOME / "airflow", [REPO / "example_dags"], env=service.environment, say=progress.say, processes=processes
    )
    stack.start()
    progress.say(f"Airflow is up: {stack.url} (user {USER}, password {stack.password})")
    lines = _make_images(stack.api, progress)
    _show(lines, service)
    if keep:
        progress.say(f"still up: {stack.url} (user {USER}, password {stack.password}); Ctrl-C ends it")
        while True:
            processes.check()
            time.sleep(1)
    return 0 if all(line.path for line in lines) else 1


def _service(processes: Processes, progress: Progress) -> Service:
    if service := real_service(os.environ):
        progress.say(f"TOAPIS_API_KEY is set: {len(PROMPTS)} images will cost about ${list_price(len(PROMPTS)):.3f}")
        return service
    progress.say("no TOAPIS_API_KEY: using the local emulator, which draws pictures for free")
    return start_emulator(processes, HOME / "emulator.log")


def _make_images(api: AirflowApi, progress: Progress) -> list[Line]:
    api.wait_for_dag(DAG_ID)
    run_id = api.trigger(DAG_ID, {"prompts": list(PROMPTS), "destination": IMAGES.as_uri()})
    progress.say(f"run {run_id} of {DAG_ID}: {len(PROMPTS)} images")
    state = api.wait_for_run(DAG_ID, run_id, timeout=1200, watch=progress.watch)
    progress.say(f"the run ended: {state}")
    if state != "success":
        _show_failures(api, run_id)
    return gather(api, DAG_ID, run_id, PROMPTS)


def _show_failures(api: AirflowApi, run_id: str) -> None:
    for failed in api.instances(DAG_ID, run_id):
        if failed["state"] != "failed":
            continue
        entries = api.log_entries(DAG_ID, run_id, failed["task_id"], failed["map_index"], failed["try_number"])
        print(f"\n{failed['task_id']} failed:")
        for line in problems(entries):
            print(f"    {line}")


def _show(lines: list[Line], service: Service) -> None:
    ledger = service.ledger()
    source = "the local emulator" if ledger is not None else "ToAPIs"
    landed = sum(line.path is not None for line in lines)
    target = sheet(
        lines,
        HOME / "contact-sheet.png",
        title=f"{landed} images from one Airflow run",
        subtitle=f"{DAG_ID}, made by {source}, {time.strftime('%Y-%m-%d %H:%M')}",
    )
    print(f"\n{table(lines, REPO)}\n")
    if ledger is not None:
        net, count, twice = ledger["net_usd"], ledger["count"], len(ledger["duplicates"])
        print(f"The emulator's bank charged ${net:.3f} for {count} image tasks, {twice} of them twice (no real money).")
    print(f"Contact sheet: {target}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
