"""``make constraints``: the full set of pins of each Airflow version, from the few that its ``.in`` file gives.

``constraints/<version>.in`` holds Airflow's version and the pins that it lacks, each with its reason, and in comments
which extras of ``pyproject.toml`` are pinned (``# extras: dev, fab``) and, where not the newest of each package is
wanted, ``# resolution: lowest-direct``. ``constraints/constraints-<version>.txt`` is written from it, for any platform
and every Python that version takes. Both are committed, so a release of another project cannot turn CI red.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_REPO = Path(__file__).resolve().parents[1]
_FOLDER = _REPO / "constraints"


def main(versions: Sequence[str]) -> int:
    """Write the constraint files of these versions, or of all.

    :return: 0, or 1 where one could not be resolved; the others are written all the same.
    """
    everything = sorted(path.stem for path in _FOLDER.glob("*.in"))
    failed = [version for version in versions or everything if not _write(version)]
    if failed:
        print(f"not resolved, and left as it was: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def known_versions() -> list[str]:
    """List the Airflow versions that have an ``.in`` file; ``lowest`` is none, but one of them with other packages."""
    return sorted(path.stem for path in _FOLDER.glob("[0-9]*.in"))


def extras(version: str) -> list[str]:
    """List the extras of ``pyproject.toml`` that the constraint file of a version pins."""
    return re.split(r",\s*", _option((_FOLDER / f"{version}.in").read_text(), "extras") or "")


def _write(version: str) -> bool:
    source = _FOLDER / f"{version}.in"
    resolution = _option(source.read_text(), "resolution") or "highest"
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--no-annotate", "--no-header", "--resolution", resolution, "--prerelease=if-necessary-or-explicit"]
    command += [f"--extra={extra}" for extra in extras(version)]
    done = subprocess.run(
        [*command, "-c", str(source), "pyproject.toml"], cwd=_REPO, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return False
    head = f"# Written by `make constraints` from constraints/{source.name}.\n"
    (_FOLDER / f"constraints-{version}.txt").write_text(head + done.stdout)
    print(f"constraints-{version}.txt: {len(done.stdout.splitlines())} packages")
    return True


def _option(text: str, name: str) -> str | None:
    found = re.search(rf"^# {name}: (.+)$", text, re.MULTILINE)
    return found and found[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
