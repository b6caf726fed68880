"""A virtual environment with a chosen Airflow and this provider in it, made on first use (:func:`run_in_venv`).

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dev.constraints import extras as pinned_extras

REPO = Path(__file__).resolve().parents[2]
HOME = REPO / ".stack"
_CONSTRAINTS = REPO / "constraints"


def make_venv(
    version: str, say: Callable[[str], None], *, interpreter: str = sys.executable, folder: Path | None = None
) -> Path:
    """Make ``.stack/<version>/venv``, or make it again where the constraints or ``pyproject.toml`` have changed.

    It holds what the constraint file of that version says, the extra ``dev``, the extra ``fab`` where that file has
    pins for it, and the provider as it stands in this checkout (editable).

    :param interpreter: The Python it is for: the one that runs this.
    :param folder: Where ``venv`` is put: ``.stack/<version>``.
    :return: Its Python.
    :raises subprocess.CalledProcessError: The installation failed; what pip or uv says is on standard error.
    """
    constraints = _CONSTRAINTS / f"constraints-{version}.txt"
    venv = (folder or HOME / version) / "venv"
    python = venv / "bin" / "python"
    stamp = venv / ".installed"
    inputs = [
        constraints.read_bytes(),
        (REPO / "pyproject.toml").read_bytes(),
        interpreter.encode(),
        sys.version.encode(),
    ]
    wanted = hashlib.sha256(b"".join(inputs)).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"installing Airflow {version} into {venv.relative_to(REPO)}, about a minute the first time")
    _run(interpreter, "-m", "venv", "--clear", str(venv))
    _run(str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", str(constraints), "uv")
    install = ("-m", "uv", "pip", "install", "--quiet", "--python", str(python))
    extras = ",".join(extra for extra in pinned_extras(version) if extra in ("dev", "fab"))
    _run(str(python), *install, "-c", str(constraints), "-e", f"{REPO}[{extras}]")
    stamp.write_text(wanted)
    return python


def run_in_venv(version: str, module: str, *arguments: str) -> int:
    """Become ``python -m module`` of the Airflow of that version, whose environment is made first.

    :return: 2 where it could not be installed; otherwise this does not return.
    """
    try:
        python = make_venv(version, lambda line: print(line, flush=True))
    except subprocess.CalledProcessError as error:
        print(f"Airflow {version} could not be installed: {error}", file=sys.stderr)
        return 2
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    os.execve(python, [str(python), "-m", module, *arguments], {**os.environ, "PYTHONPATH": path})


def _run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=REPO)
