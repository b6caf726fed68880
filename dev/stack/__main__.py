"""Start a real Airflow with the example DAGs and a local emulator behind them; Ctrl-C ends it.

Without ``--airflow`` it is the Airflow of the Python that runs this; with it that version, in an environment of its
own below ``.stack/``. ``--check`` runs one example DAG to its end instead of waiting, and exits with 0 if each image
was paid once and landed. The emulator draws the images: nothing costs money, whatever key the environment holds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dev.constraints import known_versions
from dev.stack.airflow_venv import HOME, REPO, run_in_venv

if TYPE_CHECKING:
    from dev.stack.airflow_stack import AirflowStack
    from dev.stack.console import Progress
    from dev.stack.emulator_process import Service
    from dev.stack.processes import Processes

CHECKED_DAG = "nanobanana_pipeline"


def main(arguments: list[str] | None = None) -> int:
    """Run the program.

    :return: 0; 1 if a checked DAG failed; 2 if Airflow could not be installed or started; 130 after Ctrl-C.
    """
    options = _options(arguments)
    if options.airflow is None:
        from dev.stack.console import run_program

        return run_program(lambda processes, progress: _stack(processes, progress, options.check))
    check = [] if options.check is None else ["--check", options.check]
    return run_in_venv(options.airflow, "dev.stack", *check)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description=__doc__)
    versions = known_versions()
    parser.add_argument("--airflow", choices=versions, metavar="VERSION", help=f"one of {', '.join(versions)}")
    parser.add_argument(
        "--check", nargs="?", const=CHECKED_DAG, metavar="DAG_ID", help=f"run this example ({CHECKED_DAG}) and exit"
    )
    return parser.parse_args(arguments)


def _stack(processes: Processes, progress: Progress, checked_dag: str | None) -> int:
    from dev.stack.airflow_stack import USER, AirflowStack
    from dev.stack.emulator_process import start_emulator

    airflow = version("apache-airflow")
    home = HOME / airflow / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    service = start_emulator(processes, home / "logs" / "emulator.log")
    stack = AirflowStack(home, [REPO / "example_dags"], env=service.environment, say=progress.say, processes=processes)
    stack.start()
    progress.say(f"Airflow {airflow} is up: {stack.url} (user {USER}, password {stack.password})")
    progress.say(f"connection nanobanana_default leads to the emulator, {service.control_url}/emulator/ledger counts")
    if checked_dag is not None:
        return 0 if _check(stack, service, checked_dag, home / "images", progress) else 1
    progress.say(f"logs are in {(home / 'logs').relative_to(REPO)}; Ctrl-C ends everything")
    while True:
        processes.check()
        time.sleep(1)


def _check(stack: AirflowStack, service: Service, dag_id: str, images: Path, progress: Progress) -> bool:
    """Run a DAG to its end; tell whether it succeeded and each image was paid once and landed."""
    stack.api.wait_for_dag(dag_id)
    run_id = stack.api.trigger(dag_id, {"destination": images.as_uri()})
    state = stack.api.wait_for_run(dag_id, run_id, timeout=600, watch=progress.watch)
    if state != "success":
        for failed in stack.api.instances(dag_id, run_id):
            if failed["state"] == "failed":
                log = stack.api.log(dag_id, run_id, failed["task_id"], failed["map_index"], failed["try_number"])
                print(f"\n{failed['task_id']} failed:", *log.splitlines()[-20:], sep="\n    ", flush=True)
    files = [path for path in images.rglob("*") if path.is_file() and ".nanobanana" not in path.parts]
    landed = [path for path in files if path.suffix != ".json"]
    ledger = service.ledger() or {}
    paid, twice = ledger["count"], len(ledger["duplicates"])
    progress.say(f"{dag_id}: {state}; {paid} image tasks paid, {twice} of them twice, {len(landed)} images landed")
    return state == "success" and not twice and 0 < paid == len(landed)


if __name__ == "__main__":
    sys.exit(main())
