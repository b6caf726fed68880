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

from dev.constraints import known_versions
from dev.stack.airflow_venv import HOME, REPO, run_in_venv

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

    from dev.screenshots.views import View
    from dev.stack.airflow_stack import AirflowStack
    from dev.stack.console import Progress
    from dev.stack.processes import Processes

#: Below it there is no gallery.
_FIRST = "3.1"
#: The pictures of README and docs, by view and look; those of the Airflow that make installs.
_IN_DOCS = {
    "run-finished-light": "gallery.webp",
    "lightbox-dark": "gallery-lightbox.webp",
    "review-pending-light": "gallery-review.webp",
}
_DOCS_AIRFLOW = "3.3.2"
_DOCS_WIDTH = 1100


def main(arguments: list[str] | None = None) -> int:
    """Run the program.

    :return: 0; 1 if a view could not be taken; 2 if an Airflow could not be installed or started.
    """
    options = _options(arguments)
    if options.docs:
        return _renew_docs(options.to)
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
    parser.add_argument("--docs", action="store_true", help="take nothing: put the best of that folder into docs/")
    return parser.parse_args(arguments)


def _renew_docs(folder: Path) -> int:
    from PIL import Image

    for name, target in _IN_DOCS.items():
        with Image.open(folder / f"{_DOCS_AIRFLOW}-{name}.png") as opened:
            height = opened.height * _DOCS_WIDTH // opened.width
            small = opened.convert("RGB").resize((_DOCS_WIDTH, height), Image.Resampling.LANCZOS)
        small.save(REPO / "docs" / target, quality=82, method=6)
    return 0


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
    missed = 0
    with started_browser() as browser:
        site = Site(browser, stack.url, stack.password)
        for look in LOOKS:
            with site.visit(dark=look.dark, width=look.width, height=look.height) as page:
                fitting = [view for view in chosen if view.fits(look)]
                files = {view: folder / f"{airflow}-{view.name}-{look.name}.png" for view in fitting}
                missed += sum(not _taken(page, view, file, progress) for view, file in files.items())
    progress.say(f"the pictures are in {folder}; {missed} could not be taken")
    return 1 if missed else 0


def _taken(page: Page, view: View, file: Path, progress: Progress) -> bool:
    """Take one picture, and say what the browser complains about meanwhile."""
    from playwright.sync_api import Error

    from dev.screenshots.views import excess_width, take

    complaints: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def on_error(error: Exception) -> None:
        complaints.append(str(error))

    page.on("console", on_console)
    page.on("pageerror", on_error)
    try:
        take(page, view, file)
        if excess := excess_width(page):
            complaints.append(f"it is {excess} pixels wider than its window")
    except Error as error:
        complaints.append(f"not taken: {error.message.splitlines()[0]}")
        page.screenshot(path=file.with_name(f"MISSED-{file.name}"))
        return False
    finally:
        page.remove_listener("console", on_console)
        page.remove_listener("pageerror", on_error)
        for complaint in dict.fromkeys(complaints):
            progress.say(f"{file.name}: {complaint[:300]}")
    return True


def _asset(stack: AirflowStack) -> int | None:
    found = stack.api.get("/assets", uri_pattern="summer-catalogue")["assets"]
    return int(found[0]["id"]) if found else None


if __name__ == "__main__":
    sys.exit(main())
