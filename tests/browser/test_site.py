"""The ground the other tests of this folder stand on: Airflow in a browser, below a path, and behind FAB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.conftest import ONE_DAG
from tests.system.harness import System

if TYPE_CHECKING:
    from dev.stack.browser import Site


def test_whoever_is_logged_in_sees_the_dags_and_nobody_else(system: System, site: Site) -> None:
    system.stack.api.wait_for_dag(ONE_DAG)
    with site.visit("vera", dark=True) as page:
        page.goto("dags")
        page.get_by_text(ONE_DAG).first.wait_for()
        assert "dark" in (page.locator("html").get_attribute("class") or "")
    with site.visit(None) as page:
        page.goto("dags")
        page.get_by_role("button", name="Sign in").wait_for()
        assert page.get_by_text(ONE_DAG).count() == 0


def test_the_same_below_a_path(system: System, below_af: Site) -> None:
    system.stack.api.wait_for_dag(ONE_DAG)
    with below_af.visit() as page:
        page.goto("dags")
        page.get_by_text(ONE_DAG).first.wait_for()
        assert page.evaluate("document.baseURI") == f"{below_af.url}/"


def test_behind_fab_one_sees_what_ones_role_may(system: System, fab: Site) -> None:
    system.stack.api.wait_for_dag(ONE_DAG)
    with fab.visit("dora") as page:
        assert page.request.get(f"api/v2/dags/{ONE_DAG}").status == 200
        assert page.request.get("api/v2/dags/nanobanana_generate").status == 403
