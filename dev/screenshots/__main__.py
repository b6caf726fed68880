"""``make screenshots``: each view of the gallery, of a review and of the spend page, on real Airflows, as PNG files.

Starts the Airflow of each version with an emulator behind it, lets DAGs run so that there is something to see, and
takes each view light, dark and narrow with the system's Chromium. Nothing costs money. Look at them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dev.stack.airflow_venv import HOME, REPO, known_versions, run_in_venv

if TYPE_CHECKING:
    from dev.screenshots.views import Look, View
    from dev.stack.airflow_stack import AirflowStack
    from dev.stack.browser import Site
    from dev.stack.console import Progress
    from dev.stack.processes import Processes

#: Below it there is no gallery.
_FIRST = "3.1"


def main(arguments: list[str] | None = None) -> int:
    """Run the program.

    :return: 0; 1 if a view could not be taken; 2 if an Airflow could not be installed or started.
    """
    options = _options(arguments)
    chosen = ["--to", str(options.to.resolve()), *(f"--view={name}" for name in options.view)]
    if options.airflow == "this":
        from dev.stack.console import run_program

        return run_program(
            lambda processes, progress: _take_all(processes, progress, options.to.resolve(), options.view)
        )
    if options.airflow is not None:
        return run_in_venv(options.airflow, "dev.screenshots", "--airflow", "this", *chosen)
    versions = [each for each in known_versions() if each >= _FIRST]
    program = (sys.executable, "-m", "dev.screenshots", *chosen, "--airflow")
    codes = [subprocess.run([*program, each], cwd=REPO, check=False).returncode for each in versions]
    return max(codes)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.screenshots", description=__doc__)
    versions = [*known_versions(), "this"]
    parser.add_argument(
        "--airflow", choices=versions, metavar="VERSION", help=f"one of {', '.join(versions)}; all without it"
    )
    parser.add_argument("--to", type=Path, default=HOME / "screenshots", help="the folder (%(default)s)")
    parser.add_argument("--view", action="append", default=[], help="this one only; may be given several times")
    return parser.parse_args(arguments)


def _take_all(processes: Processes, progress: Progress, folder: Path, only: list[str]) -> int:
    from dev.screenshots.scenario import play
    from dev.screenshots.views import LOOKS, views
    from dev.stack.airflow_stack import AirflowStack
    from dev.stack.browser import Site, no_browser, started_browser
    from dev.stack.emulator_process import start_emulator

    if missing := no_browser():
        progress.say(missing)
        return 2
    airflow = version("apache-airflow")
    home = HOME / airflow / "screenshots"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    folder.mkdir(parents=True, exist_ok=True)
    service = start_emulator(processes, home / "logs" / "emulator.log", latency=2)
    images = home / "images"
    env = {**service.environment, "AIRFLOW__NANOBANANA__GALLERY_ROOTS": images.as_uri()}
    dags = [REPO / "dev" / "screenshots" / "dags", REPO / "example_dags"]
    stack = AirflowStack(home, dags, env=env, say=progress.say, processes=processes)
    stack.start()
    progress.say("the runs begin")
    shown = play(stack.api, images)
    progress.say(f"there is something to see: {stack.url}")
    known = tuple(int(part) for part in airflow.split(".")[:2])
    chosen = [view for view in views(shown, _asset(stack)) if view.since <= known and (not only or view.name in only)]
    with started_browser() as browser:
        site = Site(browser, stack.url, stack.password)
        missed = [
            name
            for view in chosen
            for look in LOOKS
            if not _taken(site, view, look, folder / (name := f"{airflow}-{view.name}-{look.name}.png"), progress)
        ]
    progress.say(f"{len(chosen) * len(LOOKS) - len(missed)} pictures in {folder}, {len(missed)} could not be taken")
    return 1 if missed else 0


def _taken(site: Site, view: View, look: Look, file: Path, progress: Progress) -> bool:
    from playwright.sync_api import Error

    from dev.screenshots.views import excess_width, take

    with site.visit(dark=look.dark, width=look.width, height=look.height) as page:
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            take(page, view, str(file))
            if excess := excess_width(page):
                complaints.append(f"it is {excess} pixels wider than its window")
        except Error as error:
            progress.say(f"{file.name}: {error.message.splitlines()[0]}")
            page.screenshot(path=str(file.with_name(f"MISSED-{file.name}")))
            return False
        finally:
            for complaint in dict.fromkeys(complaints):
                progress.say(f"{file.name}: {complaint[:300]}")
    return True


def _asset(stack: AirflowStack) -> int | None:
    found = stack.api.get("/assets", uri_pattern="summer-catalogue")["assets"]
    return int(found[0]["id"]) if found else None


if __name__ == "__main__":
    sys.exit(main())
