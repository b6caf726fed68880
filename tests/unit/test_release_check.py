"""What ``make release-check`` refuses, with inputs that are broken in one place each."""

from __future__ import annotations

from email.message import Message

import pytest

from dev import release_check
from dev.release_check import machine_faults, metadata_faults, sdist_faults, version_faults, wheel_faults

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-27\n\n### Added\n\n- A thing.\n"
WHEEL = [
    *(f"airflow_provider_nanobanana/{name}" for name in release_check._IN_WHEEL),
    "airflow_provider_nanobanana-1.2.3.dist-info/licenses/LICENSE",
]
SDIST = list(release_check._IN_SDIST)


def metadata(**changes: str) -> Message:
    """The metadata of a good release, with some headers replaced; underscores stand for hyphens."""
    headers = {
        "Name": "airflow-provider-nanobanana",
        "Version": "1.2.3",
        "License-Expression": "Apache-2.0",
        "License-File": "LICENSE",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    message = Message()
    for name, value in headers.items():
        message[name] = value
    for link in ("Documentation, https://docs.example", "Source, https://source.example"):
        message["Project-URL"] = link
    return message


def test_a_good_release_has_no_fault() -> None:
    assert version_faults("1.2.3", CHANGELOG, "v1.2.3") == []
    assert version_faults("1.2.3", CHANGELOG, None) == []
    assert wheel_faults(WHEEL) == sdist_faults(SDIST) == metadata_faults(metadata(), "1.2.3") == []


@pytest.mark.parametrize(
    ("changelog", "tag", "said"),
    [
        (CHANGELOG, "1.2.3", "the tag 1.2.3 is not v1.2.3"),
        (CHANGELOG, "v1.2.4", "the tag v1.2.4 is not v1.2.3"),
        (CHANGELOG.replace("## [Unreleased]\n\n", ""), None, "does not begin with"),
        ("", None, "does not begin with"),
        (CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- Something.\n"), None, "belongs to a version"),
        (CHANGELOG.replace("[1.2.3]", "[1.2.2]"), None, "not [1.2.3] with its day"),
        (CHANGELOG.replace(" - 2026-11-27", ""), None, "not [1.2.3] with its day"),
        (CHANGELOG.replace("2026-11-27", "unreleased"), None, "not [1.2.3] with its day"),
        ("# Changelog\n\n## [Unreleased]\n", None, "the newest version is 'none'"),
    ],
)
def test_version_changelog_and_tag_agree(changelog: str, tag: str | None, said: str) -> None:
    (fault,) = version_faults("1.2.3", changelog, tag)
    assert said in fault


@pytest.mark.parametrize("name", WHEEL)
def test_a_wheel_lacks_nothing(name: str) -> None:
    (fault,) = wheel_faults([other for other in WHEEL if other != name])
    assert fault == f"the wheel lacks {name.removeprefix('airflow_provider_nanobanana/').rpartition('licenses/')[2]}"


@pytest.mark.parametrize(
    "name",
    ["tests/conftest.py", "dev/__init__.py", "airflow_provider_nanobanana/tests/test_x.py", "LICENSE",
     "airflow_provider_nanobanana/__pycache__/a.pyc"],
)  # fmt: skip
def test_a_wheel_holds_nothing_else(name: str) -> None:
    assert wheel_faults([*WHEEL, name]) == [f"the wheel holds {name}"]


@pytest.mark.parametrize("name", SDIST)
def test_an_sdist_lacks_nothing(name: str) -> None:
    assert sdist_faults([other for other in SDIST if other != name]) == [f"the sdist lacks {name}"]


@pytest.mark.parametrize("name", [".venv/bin/python", "tests/__pycache__/a.pyc", "dist/a.whl", "demo-images/a.png"])
def test_an_sdist_holds_nothing_of_a_checkout(name: str) -> None:
    assert sdist_faults([*SDIST, name]) == [f"the sdist holds {name}"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Version": "1.2.4"}, "Version is '1.2.4'"),
        ({"License_Expression": "MIT"}, "License-Expression is 'MIT'"),
        ({"License_File": "NOTICE"}, "License-File does not name LICENSE"),
    ],
)
def test_metadata_is_that_of_the_release(changes: dict[str, str], said: str) -> None:
    (fault,) = metadata_faults(metadata(**changes), "1.2.3")
    assert said in fault


@pytest.mark.parametrize(
    "text",
    [
        "open('/home/anna/pictures')",
        "/Users/anna/x",
        "cache: /root/.cache",
        "see /work/wt/house/README.md",
        "pip install --index-url https://mirror.example/pypi x",
        # In two parts: this file is looked at, too.
        "https://mirror.example/pypi/" + "simple/httpx",
    ],
)
def test_nothing_of_a_machine_is_shipped(text: str) -> None:
    (fault,) = machine_faults({"a.py": f"first\n{text}\n"})
    assert fault.startswith("a.py:2: ")


@pytest.mark.parametrize("text", ["https://example.com/home/page/", "a simple/b", "/srv/pictures", "file:///data/x"])
def test_ordinary_addresses_are_none_of_a_machine(text: str) -> None:
    assert machine_faults({"a.py": text}) == []
