"""``.github/``: what the workflows call exists, may do little, keeps no secret, and is pinned."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
GITHUB = REPO / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
#: Each action with its one commit: the workflows say the same of it everywhere.
PINNED = re.compile(r"^\s*-? ?uses: ([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$", re.MULTILINE)
#: What a job may have beyond reading: who publishes, who deploys, who reports findings.
WRITES = {
    ("docs.yml", "deploy"): {"pages", "id-token"},
    ("release.yml", "attest"): {"id-token", "attestations"},
    ("release.yml", "publish"): {"id-token"},
    ("security.yml", "codeql"): {"security-events"},
    ("security.yml", "zizmor"): {"security-events"},
}
by_name = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def load(path: Path) -> dict[str, Any]:
    """Read a workflow; ``on`` is a boolean in YAML 1.1."""
    workflow = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in workflow.items()}


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each job as its file's name, its id and what it says."""
    for path in WORKFLOWS:
        for name, job in load(path)["jobs"].items():
            yield path.name, name, job


def commands() -> Iterator[str]:
    """Each command that a job runs."""
    for _, _, job in jobs():
        for step in job["steps"]:
            yield from step.get("run", "").splitlines()


def versions(job: dict[str, Any]) -> set[str]:
    """The Airflow versions of a job's matrix."""
    matrix = job["strategy"]["matrix"]
    return {str(entry["airflow"]) for entry in matrix.get("include", ())} | set(matrix.get("airflow", ()))


def test_there_is_what_a_project_needs() -> None:
    assert {path.stem for path in WORKFLOWS} == {"docs", "nightly", "release", "security", "tests"}
    (updates,) = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    assert (updates["package-ecosystem"], updates["schedule"]["interval"]) == ("github-actions", "weekly")


@by_name
def test_every_action_is_pinned_by_commit_with_its_version(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"^\s*-? ?uses:", text, re.MULTILINE)
    assert used
    assert len(PINNED.findall(text)) == len(used)


def test_one_action_is_one_commit() -> None:
    pins = {found for path in WORKFLOWS for found in PINNED.findall(path.read_text())}
    # init and analyze of CodeQL are two folders of one repository.
    repositories = {("/".join(action.split("/")[:2]), sha, version) for action, sha, version in pins}
    assert len({repository for repository, _, _ in repositories}) == len(repositories)


def test_jobs_may_read_and_little_else() -> None:
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {}, path.name
    given = {(file, name): job["permissions"] for file, name, job in jobs()}
    for key, permissions in given.items():
        writes = {scope for scope, level in permissions.items() if level == "write"}
        assert writes == WRITES.get(key, set()), key
        assert set(permissions) - writes <= {"contents"}, key
    assert given.keys() >= WRITES.keys()


def test_who_publishes_runs_nothing_of_ours() -> None:
    """A job with rights neither checks the repository out nor runs a command, but to scan it."""
    for file, name, job in jobs():
        if (file, name) in WRITES and file != "security.yml":
            assert not any("run" in step or "checkout" in step["uses"] for step in job["steps"]), (file, name)


@by_name
def test_no_secret_is_used(path: Path) -> None:
    text = path.read_text()
    assert "secrets" not in text
    assert not re.search(r"(?i)\b(password|token)\s*:\s*\S*\$\{\{", text)
    assert "pull_request_target" not in load(path)["on"]


def test_no_checkout_keeps_its_credentials() -> None:
    for file, name, job in jobs():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"] == {"persist-credentials": False}, (file, name)


def test_no_expression_stands_in_a_command() -> None:
    """What an expression holds would be run; it comes as a variable of the environment instead."""
    assert [command for command in commands() if "${{" in command] == []


def test_every_job_ends() -> None:
    assert all(0 < job["timeout-minutes"] <= 90 for _, _, job in jobs())


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    called = {
        word
        for command in commands()
        if command.startswith("make ")
        for word in shlex.split(command)[1:]
        if re.fullmatch(r"[a-z-]+", word)
    }
    assert called >= {"lint", "types", "wheel", "docs", "test", "matrix", "shapes", "chaos", "release-check"}
    assert called <= targets


def test_the_versions_are_those_with_constraints() -> None:
    known = {path.stem for path in (REPO / "constraints").glob("*.in")}
    found = {(file, name): versions(job) for file, name, job in jobs() if name == "matrix"}
    assert found == {("tests.yml", "matrix"): known, ("nightly.yml", "matrix"): known}
    assert all(job["strategy"]["fail-fast"] is False for _, name, job in jobs() if name == "matrix")


def test_the_pythons_are_those_promised_and_one_more_that_may_fail() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    promised = {each.rpartition(" ")[2] for each in project["classifiers"] if re.search(r"Python :: 3\.\d", each)}
    entries = load(GITHUB / "workflows" / "tests.yml")["jobs"]["matrix"]["strategy"]["matrix"]["include"]
    assert {entry["python"] for entry in entries if not entry.get("may-fail")} == promised
    unproven = {entry["python"] for entry in entries} - promised
    assert unproven == {"3.14"}


def test_what_is_in_full_is_the_airflow_of_the_environment() -> None:
    check = load(GITHUB / "workflows" / "tests.yml")["jobs"]["check"]
    (newest,) = re.findall(r"^CONSTRAINTS := constraints/constraints-(.+)\.txt$", (REPO / "Makefile").read_text(), re.M)
    assert f"Airflow {newest}, " in check["name"]
    (cache,) = (step["with"] for step in check["steps"] if step.get("uses", "").startswith("actions/cache@"))
    assert f"constraints-{newest}.txt" in cache["key"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_has_ids_of_its_own_and_asks_for_no_key(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)
    if path.stem != "2-feature":
        assert "no API key" in path.read_text()


def test_the_bug_form_asks_for_what_explains_a_bug() -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "1-bug.yml").read_text())
    ids = {field.get("id") for field in form["body"]}
    assert ids >= {"versions", "executor", "log", "check", "manifest"}


def test_vulnerabilities_are_reported_where_the_project_says() -> None:
    source = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    (link,) = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "config.yml").read_text())["contact_links"]
    assert link["url"] == f"{source}/security/advisories/new"
    assert link["url"] in (REPO / "SECURITY.md").read_text()
