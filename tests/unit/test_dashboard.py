"""The dashboard in the docs: every metric is on it, and it asks for none, and for no label, that is not sent."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
import yaml

from airflow_provider_nanobanana import metrics
from tests.support.pages import REPO

GRAFANA = REPO / "docs" / "grafana"
BOARD: dict[str, Any] = json.loads((GRAFANA / "nanobanana.json").read_text())
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
#: As the mapping makes them of ours.
NAMES = {f"nanobanana_{name}_total": name for name in get_args(metrics.Counter)} | {
    f"nanobanana_{name}_seconds_bucket": name for name in get_args(metrics.Timing)
}
#: What a triggerer sends belongs to no task instance.
OF_TRIGGERERS = {"polls", "rate_limited", "detection_delay"}


def told_tags() -> dict[str, set[str]]:
    """The table of docs/metrics.md: the tags of each metric."""
    page = (REPO / "docs" / "metrics.md").read_text().partition("## Dashboard")[0]
    rows = re.findall(r"^\| `nanobanana\.(\w+)` \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", tags)) for name, tags in rows}


def test_the_page_has_every_metric() -> None:
    assert told_tags().keys() == {*get_args(metrics.Counter), *get_args(metrics.Timing)}


def test_the_dashboard_has_every_metric_and_no_other() -> None:
    assert {name for query in QUERIES for name in re.findall(r"nanobanana_\w+", query)} == NAMES.keys()


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_labels_that_are_sent(query: str) -> None:
    ours = [NAMES[name] for name in re.findall(r"nanobanana_\w+", query)]
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")}
    asked = (grouped | set(re.findall(r"(\w+)=~", query))) - {"le"}
    for name in ours:
        assert asked <= told_tags()[name] | (set() if name in OF_TRIGGERERS else {"dag_id", "task_id"})


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_can_be_read(query: str) -> None:
    """Grafana itself is not at hand: brackets pair, and every range is one."""
    left: list[str] = []
    for character in query:
        if character in "([{":
            left.append(character)
        elif character in ")]}":
            assert left and left.pop() + character in ("()", "[]", "{}")
    assert not left
    assert set(re.findall(r"\[([^]]*)\]", query)) <= {"1d", "$__rate_interval"}


def test_it_can_be_imported() -> None:
    variables = {each["name"]: each["type"] for each in BOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "dag": "query"}
    assert BOARD["schemaVersion"] >= 36 and BOARD["title"] and BOARD["uid"]
    ids = [panel["id"] for panel in BOARD["panels"]]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]}
    assert len({*ids}) == len(places) == len(ids)
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == {"${datasource}"}


def test_the_mapping_makes_these_names() -> None:
    counters, timers = yaml.safe_load((GRAFANA / "statsd-mapping.yml").read_text())["mappings"]
    assert (counters["match"], counters["name"]) == ("airflow.nanobanana.*", "nanobanana_${1}_total")
    assert timers["match"].removeprefix("airflow.nanobanana.") in get_args(metrics.Timing)
    assert f"{timers['name']}_bucket" in NAMES
