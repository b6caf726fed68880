"""``make release-check``: whether this checkout may be published as its version, and the files that would be.

Version, changelog and tag agree; wheel and sdist hold what they should and nothing of this machine; PyPI can render the
page; the tests that start no Airflow pass from the unpacked sdist. What was built is left in ``dist/``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path

from airflow_provider_nanobanana import __version__

_REPO = Path(__file__).resolve().parents[1]
_PACKAGE = "airflow_provider_nanobanana"
#: Files of the wheel that no import would miss.
_IN_WHEEL = (
    "py.typed",
    "get_provider_info.py",
    "manifest.schema.json",
    "ui/static/nanobanana.js",
    "ui/static/icon.svg",
)
#: What a distributor or a user who looks into the sdist needs.
_IN_SDIST = (
    *(".airflow-registry.yaml", ".github/workflows/tests.yml", ".pre-commit-config.yaml", "CHANGELOG.md", "LICENSE"),
    *("CONTRIBUTING.md", "Makefile", "README.md", "SECURITY.md", "mkdocs.yml", "pyproject.toml", "dev/constraints.py"),
    *("docs/index.md", "docs/logo.svg", "constraints/lowest.in", "tests/conftest.py", "example_dags/products.csv"),
)
#: Homes of people, this project's working folders, and where packages came from if not from PyPI.
_OF_A_MACHINE = re.compile(
    r"(?<![\w.])(?:/home/[a-z][\w-]*/|/Users/\w+/|/root/\.|/work/(?:wt|main|shared)/)"
    r"|--(?:extra-)?index-url[ =]\S+|https?://[^\s/]+/(?:[\w.-]+/)*simple/(?!pypi)"
)


def version_faults(version: str, changelog: str, tag: str | None) -> list[str]:
    """Compare the version with the changelog and the tag.

    :param changelog: The text of ``CHANGELOG.md``.
    :param tag: Such as ``v1.2.3``; None where there is none yet.
    """
    faults = [f"the tag {tag} is not v{version}"] if tag is not None and tag != f"v{version}" else []
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    headings = [section.partition("\n")[0] for section in sections]
    if not headings or headings[0] != "[Unreleased]":
        return [*faults, "CHANGELOG.md does not begin with ## [Unreleased]"]
    if sections[0].partition("\n")[2].strip():
        faults.append("CHANGELOG.md: what stands below [Unreleased] belongs to a version")
    newest = headings[1] if len(headings) > 1 else ""
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", newest):
        faults.append(f"CHANGELOG.md: the newest version is {newest or 'none'!r}, not [{version}] with its day")
    return faults


def wheel_faults(names: Collection[str]) -> list[str]:
    """Tell what a wheel lacks, and what does not belong into it.

    :param names: The files in it.
    """
    faults = [f"the wheel lacks {name}" for name in _IN_WHEEL if f"{_PACKAGE}/{name}" not in names]
    if not any(re.fullmatch(r"[^/]+\.dist-info/licenses/LICENSE", name) for name in names):
        faults.append("the wheel lacks LICENSE")
    for name in sorted(names):
        top = name.split("/", 1)[0]
        foreign = top != _PACKAGE and not top.endswith(".dist-info")
        if foreign or "/tests/" in name or "__pycache__" in name:
            faults.append(f"the wheel holds {name}")
    return faults


def sdist_faults(names: Collection[str]) -> list[str]:
    """Tell what an sdist lacks, and what does not belong into it.

    :param names: The files in it, without its top folder.
    """
    faults = [f"the sdist lacks {name}" for name in _IN_SDIST if name not in names]
    unwanted = re.compile(r"(^|/)(__pycache__|\.venv|\.git|\.demo|\.stack|\.docs-site|dist|demo-images)(/|$)")
    return [*faults, *(f"the sdist holds {name}" for name in sorted(names) if unwanted.search(name))]


def metadata_faults(metadata: Message, version: str) -> list[str]:
    """Tell what is wrong with the metadata of a wheel or an sdist."""
    wanted = {"Name": "airflow-provider-nanobanana", "Version": version, "License-Expression": "Apache-2.0"}
    faults = [f"{key} is {metadata[key]!r}, not {value!r}" for key, value in wanted.items() if metadata[key] != value]
    links = {link.partition(",")[0] for link in metadata.get_all("Project-URL", [])}
    faults += [f"there is no Project-URL {name}" for name in ("Documentation", "Source") if name not in links]
    if "LICENSE" not in metadata.get_all("License-File", []):
        faults.append("License-File does not name LICENSE")
    return faults


def machine_faults(texts: Mapping[str, str]) -> list[str]:
    """Find paths of a machine and addresses of a package index in the files that are shipped.

    :param texts: The text of each file.
    """
    return [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}"
        for name, text in texts.items()
        for found in _OF_A_MACHINE.finditer(text)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, check and print every fault.

    :return: 0 where there is none.
    """
    parser = argparse.ArgumentParser(prog="python -m dev.release_check", description=__doc__)
    parser.add_argument("--tag", help="that of the release, such as v1.2.3")
    parser.add_argument("--no-tests", action="store_true", help="do not run the tests of the sdist")
    options = parser.parse_args(arguments)
    faults = version_faults(__version__, (_REPO / "CHANGELOG.md").read_text(), options.tag)
    wheel, sdist = _build(_REPO / "dist")
    faults += _wheel(wheel)
    with tempfile.TemporaryDirectory(prefix="nanobanana-release-") as scratch:
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        (root,) = Path(scratch).iterdir()
        faults += _sdist(root)
        if not _passes([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]):
            faults.append("twine check: PyPI would not render the page as it is meant")
        if not options.no_tests and not _tests(root):
            faults.append("tests fail from the unpacked sdist")
    for fault in faults:
        print(f"not to be released: {fault}", file=sys.stderr)
    if not faults:
        print(f"{wheel.name} and {sdist.name} may be released")
    return int(bool(faults))


def _build(target: Path) -> tuple[Path, Path]:
    """Build both anew with the backend that is installed; ``dist/`` then holds these two files and no other."""
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--no-build-isolation", "--wheel", "--sdist"]
    subprocess.run([*command, "--out-dir", str(target), str(_REPO)], check=True, cwd=_REPO)
    (target / ".gitignore").unlink(missing_ok=True)
    (wheel,) = target.glob("*.whl")
    (sdist,) = target.glob("*.tar.gz")
    return wheel, sdist


def _wheel(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        texts = dict(_texts((name, archive.read(name)) for name in names))
    (metadata,) = (text for name, text in texts.items() if name.endswith(".dist-info/METADATA"))
    return [
        *wheel_faults(names),
        *metadata_faults(Parser().parsestr(metadata), __version__),
        *machine_faults(texts),
    ]


def _sdist(root: Path) -> list[str]:
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    texts = dict(_texts((name, path.read_bytes()) for name, path in files.items()))
    # This file and its tests name what they look for.
    texts = {name: text for name, text in texts.items() if "release_check" not in name}
    metadata = Parser().parsestr(texts["PKG-INFO"])
    return [*sdist_faults(files), *metadata_faults(metadata, __version__), *machine_faults(texts)]


def _texts(files: Iterable[tuple[str, bytes]]) -> Iterable[tuple[str, str]]:
    for name, content in files:
        try:
            yield name, content.decode()
        except UnicodeDecodeError:
            continue


def _tests(root: Path) -> bool:
    """Run the tests that start no Airflow process from the unpacked sdist, with its own code."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"PYTHONPATH": str(root), "AIRFLOW_HOME": str(root / ".test-airflow")}
    env |= {"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__CORE__DAGS_FOLDER": str(root / "example_dags")}
    selected = ["-m", "not system and not campaign", "tests/unit", "tests/integration"]
    return _passes([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *selected], cwd=root, env=env)


def _passes(command: Sequence[str], cwd: Path = _REPO, env: Mapping[str, str] | None = None) -> bool:
    return subprocess.run(command, cwd=cwd, env=env, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
