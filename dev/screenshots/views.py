"""What is looked at: each view with its address and what is done on it before the picture is taken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from dev.screenshots.scenario import Shown

Act = Callable[["Page"], None]
#: Milliseconds; the first page of an Airflow takes seconds on two cores.
_PATIENCE = 60_000


@dataclass(frozen=True)
class Look:
    """How it is looked at."""

    name: str
    dark: bool
    width: int
    height: int


@dataclass(frozen=True)
class View:
    """One picture.

    :param path: Relative to Airflow's base URL.
    :param act: Done when the page is there.
    :param since: The first Airflow that has it.
    :param ready: What stands on the page when it is complete.
    :param whole: Also what one must scroll to.
    :param narrow: Also on a narrow screen; pages of our own are always.
    """

    name: str
    path: str
    act: Act = lambda page: None
    since: tuple[int, int] = (3, 1)
    ready: str = ".nb[data-ready]"
    whole: bool = False
    narrow: bool = False

    def fits(self, look: Look) -> bool:
        """Whether there is anything to see: on a narrow screen Airflow's own pages leave a tab no room."""
        return look.width > 600 or self.narrow or self.path.startswith("nanobanana/")


LOOKS = (
    Look("light", dark=False, width=1360, height=900),
    Look("dark", dark=True, width=1360, height=900),
    Look("narrow", dark=False, width=390, height=844),
)


def views(shown: Shown, asset_id: int | None) -> list[View]:
    """List the views of these runs."""
    finished, catalogue = shown.finished, "summer_catalogue"
    form = _task("autumn_banners", shown.pending, "review", "required_actions")
    failed_task = f"{_page('winter_launch', shown.failed)}?task_id=pictures&map_index=-1"
    return [
        View("run-running", _tab(catalogue, shown.running)),
        View("run-finished", _tab(catalogue, finished)),
        View("run-filtered", _tab(catalogue, finished), _search("linen")),
        View("run-failures", _tab(catalogue, finished), _click("Failed")),
        View("run-mapped", _tab("posters", shown.mapped)),
        View("run-three-tasks", _tab("nanobanana_pipeline", shown.three_tasks)),
        View("page-finished", _page(catalogue, finished)),
        View("page-running", _page(catalogue, shown.running)),
        View("lightbox", _page(catalogue, finished), _open("cold-brew")),
        View("lightbox-failed", _page(catalogue, finished), _open("logo-shirt")),
        View("versions", _page(catalogue, shown.versions), _versions("straw-hat")),
        View("review-pending", _tab("autumn_banners", shown.pending), _tick),
        View("review-page", _page("autumn_banners", shown.pending), _tick),
        View("review-answered", _tab("autumn_banners", shown.answered)),
        View("review-form", form, ready="form, img", narrow=True),
        View("review-form-end", form, _to_the_end, ready="form, img", narrow=True),
        View("ledger", failed_task, _ledger, whole=True),
        View("task-details", _task(catalogue, finished, "pictures", "details"), ready="text=Gallery"),
        View("menu", "dags", _menu, ready="text=summer_catalogue"),
        View("spend", "plugin/nanobanana-spend"),
        View("spend-page", "nanobanana/spend", whole=True),
        View("task-tab", _task(catalogue, finished, "pictures", "plugin/nanobanana-task"), since=(3, 4)),
        View("asset-tab", f"assets/{asset_id}/plugin/nanobanana-asset", _settle, since=(3, 4)),
    ]


def take(page: Page, view: View, file: Path) -> None:
    """Open a view, do what is done on it, and write its picture."""
    page.set_default_timeout(_PATIENCE)
    page.goto(view.path)
    page.locator(view.ready).first.wait_for()
    _settle(page)
    view.act(page)
    _settle(page)
    page.screenshot(path=file, full_page=view.whole)


def excess_width(page: Page) -> int:
    """Tell by how many pixels a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def _settle(page: Page) -> None:
    """Wait until the pictures in sight are there; one that cannot be read is there, too.

    For a few seconds: what a frame cuts off is not loaded, and not seen either.
    """
    from playwright.sync_api import TimeoutError as NotInTime

    page.wait_for_timeout(400)
    with contextlib.suppress(NotInTime):
        page.wait_for_function(
            """() => [...document.querySelectorAll('.nb img')].every((image) => {
                const box = image.getBoundingClientRect();
                const seen = box.width > 0 && box.bottom > 0 && box.top < innerHeight;
                return !seen || image.complete;
            })""",
            timeout=5_000,
        )
    page.wait_for_timeout(200)


def _search(text: str) -> Act:
    return lambda page: page.locator(".nb input[type=search]").fill(text)


def _click(name: str) -> Act:
    return lambda page: page.locator(".nb-totals button", has_text=name).first.click()


def _open(name: str) -> Act:
    def act(page: Page) -> None:
        page.locator(".nb-card", has_text=name).first.locator(".nb-frame").click()
        page.locator("dialog[open]").wait_for()
        page.wait_for_timeout(700)

    return act


def _versions(name: str) -> Act:
    def act(page: Page) -> None:
        _open(name)(page)
        page.get_by_role("button", name="side by side").first.click()

    return act


def _tick(page: Page) -> None:
    for index in range(4):
        name = "Reject" if index == 2 else "Approve"
        tick = page.locator(".nb-card").nth(index).get_by_role("button", name=name).last
        if tick.get_attribute("aria-pressed") != "true":  # the session has kept those of the view before
            tick.click()


def _to_the_end(page: Page) -> None:
    page.get_by_role("button", name="Approve all").last.scroll_into_view_if_needed()


def _menu(page: Page) -> None:
    page.get_by_role("button", name="Browse").first.click()
    page.get_by_text("Image spend").first.wait_for()


def _ledger(page: Page) -> None:
    details = page.locator("details.nb-ledger").first
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    details.locator("table, .nb-note").first.wait_for()


def _run(dag_id: str, run_id: str) -> str:
    return f"dags/{dag_id}/runs/{quote(run_id, safe='')}"


def _tab(dag_id: str, run_id: str) -> str:
    return f"{_run(dag_id, run_id)}/plugin/nanobanana-run"


def _task(dag_id: str, run_id: str, task_id: str, tab: str) -> str:
    return f"{_run(dag_id, run_id)}/tasks/{task_id}/{tab}"


def _page(dag_id: str, run_id: str) -> str:
    return f"nanobanana/view/{dag_id}/{quote(run_id, safe='')}"
