"""The gallery and a review in a real Airflow: pictures of its tasks, rights of its auth managers, its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.system.harness import Run, System

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from dev.stack.browser import Site

GENERATE = "nanobanana_generate"
REVIEW = "nanobanana_review"
CATALOGUE_ROWS = 3
pytestmark = pytest.mark.timeout(600)


def tab(run: Run) -> str:
    return f"dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}/plugin/nanobanana-run"


def page_of(run: Run) -> str:
    return f"nanobanana/view/{run.dag_id}/{quote(run.run_id, safe='')}"


def wait_for_pictures(page: Page, count: int) -> None:
    """Wait until so many cards have a picture that the browser could read."""
    page.wait_for_function(
        "count => [...document.querySelectorAll('.nb-card img')].filter(image => image.naturalWidth).length === count",
        arg=count,
        timeout=60_000,
    )


@pytest.fixture(scope="module")
def finished() -> dict[str, Run]:
    """The run of the first test, for those after it."""
    return {}


def test_pictures_are_seen_while_the_batch_runs(system: System, site: Site, finished: dict[str, Run]) -> None:
    run = system.start(GENERATE, prompts=["a red kite over dunes", "a paper boat [[slow=40]]"])
    finished["run"] = run
    with site.visit("vera") as page:
        page.set_default_timeout(120_000)
        page.goto(tab(run))
        wait_for_pictures(page, 1)
        assert page.locator('.nb-card[data-kind="under_way"]').count() == 1
        assert run.wait() == "success", run.states()
        wait_for_pictures(page, 2)


def test_the_original_by_keyboard(system: System, site: Site, finished: dict[str, Run]) -> None:
    with site.visit("vera", width=390) as page:
        page.goto(page_of(finished["run"]))
        wait_for_pictures(page, 2)
        page.locator(".nb-frame").first.focus()
        page.keyboard.press("Enter")
        stage = page.locator("dialog[open] .nb-stage img")
        stage.wait_for()
        page.wait_for_function("() => document.querySelector('dialog[open] .nb-stage img').naturalWidth === 1376")
        assert "kite" in (stage.get_attribute("alt") or "")
        page.keyboard.press("ArrowRight")
        page.locator("dialog[open] .nb-stage img[alt*=boat]").wait_for()
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0


def test_below_a_path(below_af: Site, finished: dict[str, Run]) -> None:
    for address in (tab, page_of):
        with below_af.visit() as page:
            page.goto(address(finished["run"]))
            wait_for_pictures(page, 2)


def test_behind_fab_a_viewer_sees_the_page_and_whoever_may_not_read_the_dag_sees_why(
    fab: Site, finished: dict[str, Run]
) -> None:
    path = page_of(finished["run"])
    for user in ("vera", "uma", "olga"):
        with fab.visit(user) as page:
            page.goto(path)
            wait_for_pictures(page, 2)
    asked = f"nanobanana/api/gallery/{GENERATE}?run_id={quote(finished['run'].run_id)}"
    with fab.visit("dora") as page:
        assert page.request.get(asked).status == 403
        assert page.request.get(path).status == 403
        assert page.request.get("nanobanana/api/gallery/nanobanana_catalogue?run_id=x").status == 200
    with fab.visit(None) as page:
        assert page.request.get(asked).status == 401


def test_a_review_by_ticks_goes_on_and_a_second_answer_is_refused(system: System, site: Site) -> None:
    run = system.start(REVIEW, published=(system.images / "published").as_uri())
    run.wait_for("review", "awaiting_input", "deferred", timeout=240)
    with site.visit("uma") as page, site.visit("olga") as late:
        for each in (page, late):
            each.set_default_timeout(60_000)
            each.goto(tab(run))
            wait_for_pictures(each, CATALOGUE_ROWS)
        page.get_by_role("button", name="Approve").first.click()
        page.locator(".nb-frame").nth(1).focus()
        page.keyboard.press("r")
        page.keyboard.press("a")
        page.get_by_text("2 approved · 1 rejected").wait_for()
        late.get_by_role("button", name="Reject 3 shown").click()
        page.get_by_role("button", name="Submit review").click()
        page.get_by_text("Sent: 2 approved, 1 rejected.").wait_for()
        late.get_by_role("button", name="Submit review").click()
        late.get_by_text("Not sent: answered already").wait_for()
    assert run.wait() == "success", run.states()
    answer = run.xcom("review")
    assert (len(answer["approved"]), len(answer["rejected"]), answer["by"]) == (2, 1, "uma")
    assert len(list((system.images / "published").glob("*.png"))) == CATALOGUE_ROWS
