"""What the script shows and does, before an Airflow that answers what the test says; nothing of Airflow is started."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from dev.stack.browser import Site
from tests.browser.fake_airflow import RUN, FakeAirflow, card, failed, review, serving, task, under_way

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Visit = Callable[..., AbstractContextManager["Page"]]
KEYS = [card(number)["key"] for number in range(4)]


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    """An Airflow with one run of four pictures."""
    with serving(FakeAirflow(tasks=[task("pictures", [card(number) for number in range(4)])])) as airflow:
        yield airflow


@pytest.fixture
def visit(browser: Browser) -> Visit:
    """Open the gallery of an Airflow: ``with visit(airflow, width=360) as page``."""

    @contextmanager
    def visit(airflow: FakeAirflow, path: str = f"nanobanana/view/spring_banners/{RUN}", **how: Any) -> Iterator[Page]:
        with Site(browser, airflow.url, "").visit(None, **how) as page:
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.clock.install()
            page.goto(path)
            page.locator("[data-ready]").wait_for()
            yield page
            assert problems == []

    return visit


def cards(page: Page) -> Locator:
    """The cards that are shown."""
    return page.locator(".nb-card:visible")


def until(page: Page, expression: str) -> None:
    """Wait until JavaScript is true; the page's own policy forbids what Playwright would do for it."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not true after 10 s: {expression}")


def galleries(airflow: FakeAirflow) -> int:
    """How often the gallery was asked for."""
    return sum(one.startswith("gallery") for one in airflow.asked)


def a_poll_later(page: Page, airflow: FakeAirflow) -> None:
    """Let the page ask once more."""
    before = galleries(airflow)
    for number in range(100):
        if number % 10 == 0:  # again: what it waits for may have been set only since
            page.clock.fast_forward(5_000)
        if galleries(airflow) > before:
            return
        page.wait_for_timeout(50)
    pytest.fail("asked nothing in a minute of its own clock")


def test_pictures_appear_while_the_batch_runs_and_what_is_there_stays(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.tasks = [task("pictures", [card(0), under_way(1), under_way(2)], state="deferred")]
    with visit(airflow) as page:
        assert cards(page).count() == 3
        assert page.locator(".nb-card img").count() == 1
        page.locator(".nb-card").first.evaluate("node => node.kept = true")
        airflow.tasks = [task("pictures", [card(0), card(1), failed(2)])]
        a_poll_later(page, airflow)
        page.locator(".nb-card img").nth(1).wait_for()
        assert page.locator(".nb-card").first.evaluate("node => node.kept")
        assert page.get_by_text("may show a person who exists").is_visible()
        # All of it is finished: nothing is asked any more.
        asked = galleries(airflow)
        page.clock.fast_forward(120_000)
        page.wait_for_timeout(300)
        assert galleries(airflow) == asked


def test_nothing_is_asked_while_the_tab_is_hidden(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.tasks = [task("pictures", [card(0), under_way(1)])]
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')) }"
    with visit(airflow) as page:
        page.evaluate(hide, True)
        asked = galleries(airflow)
        page.clock.fast_forward(600_000)
        page.wait_for_timeout(300)
        assert galleries(airflow) == asked
        airflow.tasks = [task("pictures", [card(0), card(1)])]
        page.evaluate(hide, False)
        page.locator(".nb-card img").nth(1).wait_for()


def test_the_lightbox_by_keyboard(airflow: FakeAirflow, visit: Visit) -> None:
    with visit(airflow) as page:
        page.get_by_label("Search names and prompts").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.locator(".nb-frame").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.ariaLabel").startswith("SKU-001: Cold brew")
        page.keyboard.press("Enter")
        box = page.get_by_role("dialog")
        box.wait_for()
        assert box.get_by_text("2 / 4").is_visible()
        page.keyboard.press("ArrowRight")
        assert box.get_by_role("heading", name="SKU-002").is_visible()
        until(page, "document.querySelector('.nb-stage img').src.includes('/api/image/')")
        page.keyboard.press("z")
        assert page.locator(".nb-stage img").evaluate("image => image.getBoundingClientRect().width") == 1024
        for _ in range(25):  # the focus stays inside
            page.keyboard.press("Tab")
            assert page.evaluate(
                "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
            )
        page.keyboard.press("Escape")
        box.wait_for(state="hidden")
        assert page.evaluate("document.activeElement.ariaLabel").startswith("SKU-002")


def test_the_lightbox_tells_what_is_known_and_what_one_can_do(airflow: FakeAirflow, visit: Visit) -> None:
    rejected = {"by": "anna", "comment": "the handle is missing", "rejected_at": "2026-11-26T09:00:00+00:00"}
    airflow.versions = [
        {"version": 1, "rejected": rejected, "there": True},
        {"version": 2, "rejected": None, "there": True},
    ]
    with visit(airflow) as page:
        page.locator(".nb-frame").first.click()
        box = page.get_by_role("dialog")
        for words in ('redo=["SKU-000"]', "buys nothing", "season", "tsk_img_000000"):
            assert box.get_by_text(words).first.is_visible()
        assert "download=1" in (box.get_by_role("link", name="Download").get_attribute("href") or "")
        href = box.get_by_role("link", name="Task instance").get_attribute("href") or ""
        assert href.endswith("/dags/spring_banners/runs/manual__2026-11-26T09%3A00%3A00%2B00%3A00/tasks/pictures")
        box.get_by_text("Record in the manifest").click()
        assert '"file": "SKU-000' in (box.locator("pre").text_content() or "")
        page.keyboard.press("v")
        assert box.locator("figure").count() == 2
        assert box.get_by_text("rejected by anna: the handle is missing").is_visible()


def test_a_review_by_ticks_and_keys(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.reviews = [review(KEYS)]
    with visit(airflow) as page:
        page.get_by_role("button", name="Approve SKU-000").click()
        page.locator(".nb-frame").nth(1).focus()
        page.keyboard.press("r")  # and the next one has the focus
        page.keyboard.press("a")
        assert page.get_by_text("2 approved · 1 rejected · 1 undecided").is_visible()
        page.get_by_label("Comment").fill("crop tighter")
        page.reload()  # the ticks are kept
        page.get_by_text("2 approved · 1 rejected · 1 undecided").wait_for()
        page.get_by_role("button", name="Submit review").click()
        # What nobody decided would be rejected, and bought again: that takes a second look.
        assert page.get_by_text("1 image is undecided and would be rejected.").is_visible()
        assert airflow.answers == []
        page.get_by_role("button", name="Back").click()
        page.locator(".nb-frame").nth(3).focus()
        page.keyboard.press("x")
        page.get_by_role("button", name="Submit review").click()
        page.get_by_text("Sent: 2 approved, 2 rejected.").wait_for()
        approved = {"approved": [KEYS[0], KEYS[2]], "comment": "crop tighter"}
        assert airflow.answers == [{"chosen_options": ["Approve selected"], "params_input": approved}]
        page.get_by_text("Approved by anna").first.wait_for()
        assert page.get_by_text("Approved by anna").count() == 2
        assert page.get_by_text("Rejected by anna").count() == 2


@pytest.mark.parametrize(("tick", "option"), [("Approve 4 shown", "Approve all"), ("Reject 4 shown", "Reject all")])
def test_one_answer_for_all(airflow: FakeAirflow, visit: Visit, tick: str, option: str) -> None:
    airflow.reviews = [review(KEYS)]
    with visit(airflow) as page:
        page.get_by_role("button", name=tick).click()
        page.get_by_role("button", name="Submit review").click()
        page.get_by_text("The run goes on.").wait_for()
        assert [answer["chosen_options"] for answer in airflow.answers] == [[option]]


def test_a_second_answer_is_refused_in_words(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.reviews = [review(KEYS)]
    with visit(airflow) as one, visit(airflow) as other:
        for page in (one, other):
            page.get_by_role("button", name="Approve 4 shown").click()
        one.get_by_role("button", name="Submit review").click()
        one.get_by_text("Sent: 4 approved").wait_for()
        other.get_by_role("button", name="Submit review").click()
        other.get_by_text("Not sent: answered already, by anna. Yours changed nothing.").wait_for()
        assert len(airflow.answers) == 1


def test_an_answer_that_comes_too_late_while_it_waits_is_refused_in_words(airflow: FakeAirflow, visit: Visit) -> None:
    asked_now = datetime.now(tz=UTC).isoformat()  # so that the answer waits until the task is asleep
    airflow.reviews = [review(KEYS, created_at=asked_now)]
    with visit(airflow) as page:
        page.get_by_role("button", name="Approve 4 shown").click()
        page.get_by_role("button", name="Submit review").click()
        anna = {"id": "anna", "name": "anna"}
        airflow.reviews[0].update(response_received=True, chosen_options=["Reject all"], responded_by_user=anna)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # which asks anew
        page.get_by_text("Rejected by anna").first.wait_for()
        page.clock.fast_forward(6_000)
        page.get_by_text("Not sent: answered already, by anna.").wait_for()
        assert airflow.answers == []


def test_who_is_not_asked_reads_who_is(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.reviews = [review(KEYS, assigned_users=[{"id": "7", "name": "anna"}])]
    airflow.refuses_answers = True
    with visit(airflow) as page:
        page.get_by_role("button", name="Approve 4 shown").click()
        page.get_by_role("button", name="Submit review").click()
        page.get_by_text("Not sent: you are not asked. This review asks anna.").wait_for()
        # The ticks are still there, for whoever may.
        assert page.get_by_text("4 approved · 0 rejected").is_visible()


def test_of_several_reviews_any_can_be_answered(airflow: FakeAirflow, visit: Visit) -> None:
    # More than one page of them, and the one that is wanted is the last.
    airflow.reviews = [review(KEYS[:2], map_index=at, subject="Anna's", state="failed") for at in range(100)]
    airflow.reviews += [review(KEYS[:2], map_index=100), review(KEYS[2:], map_index=101, subject="Bob's")]
    with visit(airflow) as page:
        page.get_by_role("button", name="Approve 2 shown").click()
        page.get_by_label("Which review").select_option("2 of 2: Bob's · review [101]")
        assert page.get_by_text("0 approved · 0 rejected · 2 undecided").is_visible()
        page.get_by_role("button", name="Approve SKU-002").click()
        page.get_by_role("button", name="Reject SKU-003").click()
        page.get_by_role("button", name="Submit review").click()
        page.get_by_text("Sent: 1 approved, 1 rejected.").wait_for()
        assert airflow.reviews[101]["params_input"]["approved"] == [KEYS[2]]
        assert not airflow.reviews[100]["response_received"]
        page.get_by_text("2 approved · 0 rejected").wait_for()  # the ticks of the other one are still there


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_review_that_no_task_waits_for_is_not_answered(airflow: FakeAirflow, visit: Visit, state: str) -> None:
    airflow.reviews = [review(KEYS, state=state)]
    with visit(airflow) as page:
        words = f"Asked, never answered: the task ended ({state})"
        assert page.get_by_text(words).count() == len(KEYS)
        assert page.get_by_role("button", name="Submit review").is_hidden()


def test_an_answer_to_a_task_that_has_ended_meanwhile_is_not_sent(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.reviews = [review(KEYS)]
    with visit(airflow) as page:
        page.get_by_role("button", name="Approve 4 shown").click()
        airflow.reviews[0]["task_instance"]["state"] = "failed"
        page.get_by_role("button", name="Submit review").click()
        page.get_by_text("Not sent: the task asks no longer").wait_for()
        assert airflow.answers == []


def answered(airflow: FakeAirflow) -> None:
    """Let somebody else be faster."""
    bob = {"id": "bob", "name": "Bob"}
    airflow.reviews[0].update(response_received=True, chosen_options=["Reject all"], responded_by_user=bob)


def asked_anew(airflow: FakeAirflow) -> None:
    """Let the task be cleared, and ask again."""
    airflow.reviews[0] = review(KEYS, created_at="2026-11-26T10:00:00+00:00")


def ended(airflow: FakeAirflow) -> None:
    """Let the time be up, where the review has no answer for that."""
    airflow.reviews[0]["task_instance"]["state"] = "failed"


@pytest.mark.parametrize(
    ("happens", "words"),
    [(answered, "was answered by Bob"), (asked_anew, "was cleared, or has asked anew"), (ended, "waits no longer")],
)
def test_ticks_that_lead_nowhere_are_told(
    airflow: FakeAirflow, visit: Visit, happens: Callable[[FakeAirflow], None], words: str
) -> None:
    airflow.reviews = [review(KEYS)]
    with visit(airflow) as page:
        page.get_by_role("button", name="Approve SKU-000").click()
        happens(airflow)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.get_by_text(f"{words} meanwhile. Your ticks were not sent.").wait_for()


def test_pictures_that_nobody_can_see_here_are_not_rejected_here(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.reviews = [review([*KEYS, "elsewhere"])]
    with visit(airflow) as page:
        page.get_by_role("button", name="Approve 4 shown").click()
        assert page.get_by_text("1 undecided · 1 not on this page").is_visible()
        page.get_by_role("button", name="Submit review").click()
        assert page.get_by_text("1 undecided image is not on this page").is_visible()
        assert page.get_by_role("button", name="Reject these").is_hidden()
        href = page.get_by_role("link", name="Airflow's form").get_attribute("href") or ""
        assert href.endswith("/tasks/review/required_actions")
        assert airflow.answers == []


def test_a_picture_that_is_asked_about_shows_its_tick_alone(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.tasks = [task("pictures", [card(0, rejected=True), card(1, rejected=True)])]
    airflow.reviews = [review(KEYS[:1])]
    with visit(airflow) as page:
        grey = [page.locator(".nb-card img").nth(at).evaluate("one => getComputedStyle(one).filter") for at in (0, 1)]
        assert grey == ["none", "grayscale(0.6)"]


def test_sums_of_a_part_say_so(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.unread_tasks = 952
    with visit(airflow) as page:
        assert page.get_by_text("Paid, at least").is_visible()
        assert page.get_by_text("952 task instances are not read yet").is_visible()
        assert page.get_by_text("The first 4 of 4").count() == 0


def test_an_answer_that_is_none_ends_no_polling(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.tasks = [task("pictures", [card(0), under_way(1)])]
    with visit(airflow) as page:
        # A picture that is asked for only now would be refused, too, and its place hold words for good.
        until(page, "document.querySelector('.nb-card img').naturalWidth > 0")
        airflow.wants_login = True
        a_poll_later(page, airflow)
        page.get_by_text("Not up to date: This is no answer of Airflow's.").wait_for()
        airflow.wants_login = False
        airflow.tasks = [task("pictures", [card(0), card(1)])]
        a_poll_later(page, airflow)
        page.locator(".nb-card img").nth(1).wait_for()


def test_a_poll_leaves_the_focus_the_zoom_and_the_record(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.tasks = [task("pictures", [card(0), under_way(1), under_way(2)])]
    with visit(airflow) as page:
        page.get_by_role("button", name="Under way: 2").focus()
        airflow.tasks = [task("pictures", [card(0), card(1), under_way(2)])]
        a_poll_later(page, airflow)
        page.get_by_role("button", name="Under way: 1").wait_for()
        assert page.evaluate("document.activeElement.dataset.show") == "under_way"
        page.get_by_role("link", name="pictures").focus()
        airflow.tasks = [task("pictures", [card(0), card(1), under_way(2)], state="running")]
        a_poll_later(page, airflow)
        page.get_by_text("running").wait_for()
        assert page.evaluate("document.activeElement.textContent") == "pictures"
        page.locator(".nb-frame").first.click()
        page.keyboard.press("z")
        page.get_by_text("Record in the manifest").click()
        airflow.tasks = [task("pictures", [card(0, rejected=True), card(1), under_way(2)])]
        a_poll_later(page, airflow)
        page.locator(".nb-panel .nb-rejected").wait_for()
        assert page.locator(".nb-zoomed").count() == 1
        assert page.locator(".nb-panel details").get_attribute("open") is not None


def test_a_role_without_rights_reads_why(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.forbidden = True
    with visit(airflow) as page:
        assert page.get_by_text("Your role may not read this").is_visible()
        assert cards(page).count() == 0


def test_below_a_path(visit: Visit) -> None:
    airflow = FakeAirflow(tasks=[task("pictures", [card(number) for number in range(4)])], base="/af")
    airflow.reviews = [review(KEYS)]
    with serving(airflow), visit(airflow) as page:
        until(page, "[...document.images].every(image => image.complete && image.naturalWidth)")
        addresses = page.evaluate("[...document.querySelectorAll('[src], [href]')].map(one => one.src || one.href)")
        assert [one for one in addresses if not one.startswith(airflow.url)] == []
        page.get_by_role("button", name="Approve 4 shown").click()
        page.get_by_role("button", name="Submit review").click()
        page.get_by_text("Sent: 4 approved").wait_for()


def test_a_filter_survives_a_reload(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.tasks = [task("pictures", [card(0), card(1), failed(2), failed(3), card(5, reused=True)])]
    with visit(airflow) as page:
        page.get_by_role("button", name="Failed: 2").click()
        assert cards(page).count() == 2
        page.get_by_label("Search names and prompts").fill("sku-003")
        assert cards(page).count() == 1
        assert page.url.endswith("#show=failed&q=sku-003")
        page.reload()
        page.locator("[data-ready]").wait_for()
        assert cards(page).count() == 1
        page.get_by_role("button", name="All: 5").click()
        page.get_by_label("Search names and prompts").fill("linen summer")
        assert cards(page).get_by_text("SKU-005").is_visible()


def test_of_two_thousand_cards_only_what_changed_is_built_anew(airflow: FakeAirflow, visit: Visit) -> None:
    many = [card(number) for number in range(1999)]
    airflow.tasks = [task("pictures", [*many, under_way(1999)])]
    with visit(airflow) as page:
        assert page.locator(".nb-card").count() == 2000
        assert 0 < sum(one.startswith("thumb") for one in airflow.asked) < 200
        page.evaluate("""() => { globalThis.built = 0; new MutationObserver(changes => {
            for (const change of changes) for (const node of change.addedNodes) built += node.className === "nb-card";
        }).observe(document.body, {subtree: true, childList: true}) }""")
        airflow.tasks = [task("pictures", [*many, card(1999)])]
        a_poll_later(page, airflow)
        until(page, "globalThis.built > 0")
        assert page.evaluate("built") == 1


def test_more_cards_come_when_one_scrolls_there(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.tasks = [task("pictures", [card(number) for number in range(2010)])]
    with visit(airflow) as page:
        assert page.get_by_text("The first 2,000 of 2,010 are loaded.").is_visible()
        page.evaluate("document.querySelector('.nb-end').scrollIntoView()")
        until(page, "document.querySelectorAll('.nb-card').length === 2010")


def test_instances_of_a_mapped_task_share_a_grid(airflow: FakeAirflow, visit: Visit) -> None:
    unread = "The api-server cannot read this store."
    airflow.tasks = [task("banner", [card(number)], map_index=number) for number in range(3)]
    airflow.tasks += [task("banner", [], map_index=number, problem=unread) for number in (3, 4)]
    with visit(airflow) as page:
        assert page.get_by_role("heading", name="banner").count() == 1
        assert cards(page).get_by_text("[2]").is_visible()
        assert page.get_by_text(f"2 instances: {unread}").is_visible()


def test_what_a_user_wrote_is_text(airflow: FakeAirflow, visit: Visit) -> None:
    evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    airflow.tasks = [task("pictures", [card(0, label=evil, name=evil, prompt=evil, meta={evil: evil}, file=evil)])]
    with visit(airflow) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        page.locator(".nb-frame").first.click()
        page.get_by_role("dialog").get_by_role("heading", name=evil).wait_for()
        assert page.locator(".nb script, [onerror]").count() == 0


def test_the_ledger_in_words(airflow: FakeAirflow, visit: Visit) -> None:
    row = {"label": "SKU-000", "state": "in place", "image_task_id": "tsk_img_1", "paid_usd": 0.025}
    row |= {"money": "paid", "retry": "uses it and buys nothing", "clear": "uses it and buys nothing"}
    airflow.ledger = {
        "summary": ["A retry buys nothing."],
        "source": "the XComs of the task instance",
        "rows": [row],
        "skipped": [],
    }
    airflow.ledger["rows"].append(row | {"label": "SKU-001", "why": "The prompt was refused."})
    airflow.ledger["more"] = 3
    with visit(airflow) as page:
        page.get_by_text("Ledger:").click()
        page.get_by_role("row", name=re.compile("SKU-000 in place tsk_img_1 .0.025")).wait_for()
        assert page.get_by_text("A retry buys nothing.").is_visible()
        assert page.get_by_text("The prompt was refused.").is_visible()
        assert page.get_by_text("3 more rows are not shown here").is_visible()
        assert page.get_by_text("Read from the XComs of the task instance.").is_visible()


def test_the_spend_page(airflow: FakeAirflow, visit: Visit) -> None:
    sums = {"paid_usd": 1.275, "bought": 51, "shared": 1, "reused": 2, "refunded": 3, "failed": 4}
    tables = {"dag": [{"key": ["banners"], **sums}], "run": [{"key": ["banners", "a/b"], **sums}]}
    tables |= {"model": [{"key": [""], **sums}], "day": [{"key": ["2026-11-26"], **sums}]}
    months = {
        "2026-11": {"totals": sums, "tables": tables},
        "2026-10": {"totals": sums | {"paid_usd": 0.5}, "tables": {}},
    }
    airflow.spend = {"months": list(months), "month": months, "skipped": ["One was left out."], "destinations": 2}
    with visit(airflow, "nanobanana/spend") as page:
        assert page.get_by_text("Paid in November 2026").is_visible()
        assert page.get_by_role("row", name="banners $1.275 51 1 2 3 4").first.is_visible()
        link = page.get_by_role("link", name="banners · a/b")
        assert (link.get_attribute("href") or "").endswith("/nanobanana/view/banners/a%2Fb")
        assert page.get_by_text("One was left out.").is_visible()
        page.get_by_role("button", name="October 2026").click()
        assert page.get_by_text("$0.50").is_visible()


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_shows_all_of_it_and_colours_can_be_read(
    airflow: FakeAirflow, visit: Visit, dark: bool
) -> None:
    long: dict[str, Any] = {"label": "x" * 300, "prompt": "y" * 3000, "file": "z" * 200, "model": "m" * 80}
    airflow.tasks = [
        task("p" * 200, [card(0, **long), failed(1, message="e" * 400), under_way(2), card(3, cost_usd=None)])
    ]
    airflow.reviews = [review(KEYS)]
    with visit(airflow, width=360, height=760, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.locator(".nb-frame").first.click()
        assert page.get_by_role("dialog").evaluate("box => box.scrollWidth") == 360
        for name in ("fg", "muted", "accent", "good", "bad", "warn"):
            assert page.evaluate(CONTRAST, name) >= 4.5, name


#: WCAG's contrast of one of our colours on the ground.
CONTRAST = """name => {
  const style = getComputedStyle(document.documentElement);
  const light = variable => {
    const [, hex] = style.getPropertyValue(variable).match(/#([0-9a-f]+)/);
    const parts = hex.length === 3 ? [...hex].map(one => one + one) : hex.match(/../g);
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parts.map(part => linear(parseInt(part, 16) / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const [one, other] = [light("--nb-own-" + name), light("--nb-own-bg")];
  return Math.max(one, other) / Math.min(one, other);
}"""


def test_every_picture_and_button_has_words(airflow: FakeAirflow, visit: Visit) -> None:
    airflow.reviews = [review(KEYS)]
    airflow.tasks = [task("pictures", [card(0), card(1, prompt=None), failed(2), under_way(3)])]
    with visit(airflow) as page:
        page.locator(".nb-frame").first.click()
        silent = """() => [...document.querySelectorAll('button, img')].filter(one => one.matches('img')
            ? !one.alt : !(one.ariaLabel || one.textContent).trim()).map(one => one.outerHTML)"""
        assert page.evaluate(silent) == []
        # One card is in the order of Tab.
        assert page.locator(".nb-frame[tabindex='0']").count() == 1


def test_the_page_of_a_review_asks_its_own_question_and_shows_its_pictures(airflow: FakeAirflow, visit: Visit) -> None:
    second = review(KEYS[2:], subject="Bob's")
    second["task_instance"] |= {"map_index": 1, "state": "deferred"}
    first = review(KEYS[:2], subject="Anna's")
    first["task_instance"] |= {"map_index": 0, "state": "deferred"}
    airflow.reviews = [first, second]
    for map_index, asked in enumerate(([0, 1], [2, 3])):
        path = f"nanobanana/view/spring_banners/{RUN}?task_id=review&map_index={map_index}"
        with visit(airflow, path) as page:
            assert cards(page).count() == 4
            ticked = [place for place in range(4) if cards(page).nth(place).locator(".nb-ticks button").count() == 2]
            assert ticked == asked
