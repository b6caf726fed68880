"""The system's Chromium, driven by Playwright: pages of an Airflow as somebody who is logged in sees them.

Playwright comes from PyPI, the browser from the system (``apt-get install chromium``): nothing is downloaded when this
runs. :func:`no_browser` says in words which of the two is missing.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Find the browser of this system; None where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def no_browser() -> str | None:
    """Say why no page can be looked at here; None where one can."""
    if find_spec("playwright") is None:
        return "Playwright is not installed (make venv)"
    return None if chromium() else f"there is no browser ({' or '.join(_NAMES)}; apt-get install chromium)"


@contextlib.contextmanager
def started_browser() -> Iterator[Browser]:
    """Start a browser without a window, and end it.

    No asyncio loop may run in this thread before the end: Playwright has one.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root there is no sandbox; what is looked at is our own.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class Site:
    """One Airflow as people open it.

    :param url: Base URL of an api-server, with the path below which it is served.
    :param password: Of each of its users.
    """

    browser: Browser
    url: str
    password: str

    @contextlib.contextmanager
    def visit(
        self, user: str | None = "admin", *, dark: bool = False, width: int = 1280, height: int = 900
    ) -> Iterator[Page]:
        """Give an empty page in a session of its own; ``page.goto("dags/...")`` is relative to the base URL.

        :param user: Who is logged in; None for nobody.
        """
        context = self.browser.new_context(
            base_url=f"{self.url}/",
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            timezone_id="UTC",
            locale="en-GB",
        )
        # What Airflow's own switch writes; without it the interface follows the browser's preference.
        context.add_init_script(f"localStorage.setItem('theme', '{'dark' if dark else 'light'}')")
        try:
            if user is not None:
                self._log_in(context, user)
            yield context.new_page()
        finally:
            context.close()

    def token(self, user: str) -> str:
        """Ask for the token that a log-in of this user gets."""
        login = {"username": user, "password": self.password}
        answer = httpx.post(f"{self.url}/auth/token", json=login, trust_env=False, timeout=60)
        return str(answer.raise_for_status().json()["access_token"])

    def _log_in(self, context: BrowserContext, user: str) -> None:
        parts = urlsplit(self.url)
        # The cookie that Airflow's page for logging in sets.
        context.add_cookies(
            [
                {
                    "name": "_token",
                    "value": self.token(user),
                    "domain": parts.hostname or "",
                    "path": f"{parts.path}/",
                    "httpOnly": True,
                    "sameSite": "Lax",
                }
            ]
        )
