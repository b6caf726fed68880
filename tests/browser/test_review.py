"""The example with a review in a real Airflow: pictures while it runs, one person's ticks, another's late answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.browser.conftest import ONE_DAG
from tests.system.harness import System

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from dev.stack.browser import Site

REVIEW = "nanobanana_review"
pytestmark = pytest.mark.timeout(600)


def decide(page: Page, *approved: bool) -> None:
    """Tick the cards in their order, and submit."""
    for place, tick in enumerate(approved):
        verb = "Approve" if tick else "Reject"
        page.locator(".nb-card").nth(place).get_by_role("button", name=f"{verb} ").click()
    page.get_by_role("button", name="Submit review").click()


def test_a_review_from_the_first_picture_to_the_last(system: System, site: Site, below_af: Site) -> None:
    published = system.images.with_name("published")
    run = system.start(REVIEW, published=published.as_uri())
    tab = f"dags/{REVIEW}/runs/{quote(run.run_id, safe='')}/plugin/nanobanana-run"
    page_path = f"nanobanana/view/{REVIEW}/{quote(run.run_id, safe='')}"
    with site.visit("olga", dark=True) as olga, site.visit("vera") as vera, below_af.visit() as late:
        olga.goto(tab)
        # The page was open before there was anything; the ticks come by themselves.
        olga.get_by_role("button", name="Approve ", exact=False).nth(2).wait_for(timeout=240_000)
        assert olga.locator(".nb-card img").count() == 3
        for page, path in ((vera, page_path), (late, tab)):
            page.goto(path)
            page.get_by_role("button", name="Submit review").wait_for(timeout=60_000)
        decide(vera, True, True, True)  # a viewer may look, and not decide
        vera.get_by_text("Not sent: you are not asked.").wait_for(timeout=30_000)
        decide(olga, True, False, True)
        olga.get_by_text("Sent: 2 approved, 1 rejected. The run goes on.").wait_for(timeout=30_000)
        decide(late, False, False, False)
        late.get_by_text("Not sent: answered already").wait_for(timeout=30_000)
        assert run.wait() == "success", run.states()
        late.reload()
        late.get_by_text("Rejected by olga").first.wait_for(timeout=60_000)
        sources = late.evaluate("[...document.images].map(image => image.src)")
        assert [one for one in sources if "/nanobanana/" in one and "/af/nanobanana/" not in one] == []
    answer = run.xcom("review")
    assert answer["by"] == "olga"
    assert [len(answer[name]) for name in ("approved", "rejected")] == [2, 1]
    assert len(json.loads((published / "published.json").read_text())) == 3


def test_behind_fab_the_page_of_another_dag_is_refused(system: System, fab: Site) -> None:
    system.stack.api.wait_for_dag(REVIEW)
    with fab.visit("dora") as page:  # she may read one DAG alone
        answer = page.goto(f"nanobanana/view/{REVIEW}/none")
        assert answer is not None
        assert answer.status == 403
        page.goto(f"nanobanana/view/{ONE_DAG}/none")
        page.get_by_text("No images here.").wait_for()
