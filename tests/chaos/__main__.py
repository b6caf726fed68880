"""``make chaos``: kill -9 Airflow's processes while they buy images, then compare what was paid and what was wanted."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from dev.stack.console import Progress
from dev.stack.processes import REPO
from tests.chaos import programs, report
from tests.chaos.campaigns import Campaign
from tests.chaos.emulator import Hostility
from tests.chaos.installation import InstallationSpec
from tests.chaos.postgres import PostgresServer
from tests.chaos.runner import Outcome, run

#: Runs that ask for the same pictures at one destination.
_SHARED: dict[str, Any] = {
    "shared": True,
    "run_size": 12,
    "latency": 20.0,
    # All runs but the last are under way from the start, and end together.
    "ahead": 0.5,
    "hostility": Hostility(failures=4),
}
CAMPAIGNS = {
    campaign.name: campaign
    for campaign in (
        Campaign("local", "chaos_provider", images=300, kills=120),
        Campaign("celery", "chaos_provider", images=130, kills=55, installation=InstallationSpec(celery_workers=2)),
        Campaign("ignored", "chaos_strict", images=90, kills=35, hostility=Hostility(ignore_client_ids=True)),
        Campaign("naive", "chaos_naive", images=60, kills=24),
        Campaign("overlap", "chaos_overlap", images=60, kills=50, **_SHARED),
        Campaign(
            "overlap-ignored", "chaos_overlap_strict", images=40, kills=25,
            **{**_SHARED, "hostility": Hostility(ignore_client_ids=True, failures=4)},
        ),
        Campaign("overlap-naive", "chaos_overlap_naive", images=40, kills=16, **_SHARED),
    )
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns one after another and write the report after each.

    :return: The exit status: 0 if every promise was kept, 1 if one was broken, 130 after Ctrl-C.
    """
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    chosen = [_shaped(CAMPAIGNS[name], options) for name in options.campaign or CAMPAIGNS]
    if not options.sqlite:
        _prepare(chosen, install=not options.no_install)
    progress, outcomes = Progress(), list[Outcome]()
    try:
        for campaign in chosen:
            progress.say(f"--- {campaign.name}: {campaign.images} images, {campaign.kills} kills, seed {options.seed}")
            folder = options.folder.resolve() / campaign.name
            shutil.rmtree(folder, ignore_errors=True)
            outcomes.append(run(campaign, folder, options.seed, progress.say))
            _write(options.folder, outcomes)
            print(f"\n{report.as_text(outcomes[-1:])}", flush=True)
    except KeyboardInterrupt:
        progress.say("interrupted")
        return 130
    if len(outcomes) > 1:
        print(report.as_text(outcomes))
    return int(any(report.broken(outcome) for outcome in outcomes))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    add = parser.add_argument
    add("campaign", nargs="*", help=f"which to run, of {', '.join(CAMPAIGNS)} (all)")
    add("--seed", type=int, default=1, help="decides who is killed and how; when is up to the machine (%(default)s)")
    add("--scale", type=float, default=1.0, help="multiplies images and kills of each campaign (%(default)s)")
    add("--images", type=int, help="images of each campaign")
    add("--kills", type=int, help="kills of each campaign")
    add("--pace", type=float, help="mean seconds between two kills")
    add("--run-size", type=int, help="images of one run")
    add("--folder", type=Path, default=REPO / ".chaos", help="where logs, images and reports go (.chaos)")
    add("--sqlite", action="store_true", help="no PostgreSQL, one triggerer; not for celery")
    add("--no-install", action="store_true", help="never call apt-get")
    options = parser.parse_args(arguments)
    if unknown := set(options.campaign) - set(CAMPAIGNS):
        parser.error(f"no campaign {', '.join(sorted(unknown))}; known are {', '.join(CAMPAIGNS)}")
    if options.sqlite and "celery" in (options.campaign or CAMPAIGNS):
        parser.error("celery needs PostgreSQL; name the other campaigns")
    return options


def _shaped(campaign: Campaign, options: argparse.Namespace) -> Campaign:
    given = {"images": options.images, "kills": options.kills, "pace": options.pace, "run_size": options.run_size}
    scaled = {"images": round(campaign.images * options.scale), "kills": round(campaign.kills * options.scale)}
    changes = scaled | {name: value for name, value in given.items() if value is not None}
    if options.sqlite:
        changes["installation"] = replace(campaign.installation, postgres=False, triggerers=1, celery_workers=0)
    return replace(campaign, **changes)


def _prepare(chosen: Sequence[Campaign], *, install: bool) -> None:
    wanted = ["postgres"]
    if any(campaign.installation.celery_workers for campaign in chosen):
        wanted.append("redis-server")
    if install:
        programs.install(*wanted)
    for program in wanted:
        programs.require(program)
    if not PostgresServer.possible():
        raise programs.MissingProgram("The drivers psycopg2-binary and asyncpg are missing: pip install -e '.[chaos]'")


def _write(folder: Path, outcomes: Sequence[Outcome]) -> None:
    (folder / "report.txt").write_text(report.as_text(outcomes))
    (folder / "report.json").write_text(report.as_json(outcomes))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
