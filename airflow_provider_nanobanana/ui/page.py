"""The two HTML pages: the gallery of a run, and the image spend. Each is a shell that the script fills.

For those whose role shows no plugin tabs (FAB's Viewer and User), and for links. No text of a user stands in them but
in attributes, escaped; no inline script or style is needed, so the policy allows none.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final, Literal
from urllib.parse import quote

from airflow_provider_nanobanana import __version__
from airflow_provider_nanobanana.batch.gallery_paths import PREFIX

#: Of both pages. Pictures and data come from Airflow itself; it may show the page in a frame, nobody else may.
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def page(view: Literal["gallery", "spend"], title: str, base_path: str, names: Mapping[str, str]) -> str:
    """Return the HTML of a page.

    :param view: What the script is to show.
    :param base_path: Airflow's own, without a slash at its end; empty at the root of a host.
    :param names: What is shown, by the names of data attributes (``dag-id``).
    """
    static = escape(f"{base_path}{PREFIX}/static")
    query = f"?v={quote(__version__)}"
    data = "".join(f' data-{name}="{escape(value)}"' for name, value in names.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="{static}/icon.svg">
<link rel="stylesheet" href="{static}/nanobanana.css{query}">
<script type="module" src="{static}/nanobanana.js{query}"></script>
</head>
<body>
<div data-nanobanana="{view}" data-base="{escape(base_path)}"{data}></div>
<noscript>This page needs JavaScript.</noscript>
</body>
</html>
"""


def login_page(login: str) -> str:
    """Return the HTML for somebody who is not logged in.

    :param login: Where they may do so.
    """
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Log in</title></head>
<body><p>You are not logged in to Airflow. <a href="{escape(login)}">Log in</a></p></body>
</html>
"""
