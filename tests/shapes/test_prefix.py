"""All of Airflow below a path, as behind a proxy that other programs share: tasks, gallery, links, review and spend."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

from airflow_provider_nanobanana.emulator import Emulator
from tests.shapes import buying
from tests.shapes.gallery_pages import fetch_page, gallery_page, pictures_seen, plugin_bundles, visitor
from tests.shapes.stacks import Started

REVIEW = "nanobanana_review"
#: Pictures and links in the text of a form, which is Markdown.
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_below_a_path_everything_is_bought_once_and_seen(tmp_path: Path, emulator: Emulator, started: Started) -> None:
    env = {"AIRFLOW__NANOBANANA__GALLERY_ROOTS": tmp_path.as_uri()}
    stack = started.stack(tmp_path / "airflow", emulator, env, path="/airflow", users={"vera": "viewer"})
    stack.start(timeout=400)
    place = buying.local_place(tmp_path / "images")
    review = buying.start(
        stack.api, REVIEW, destination=place.uri("asked"), published=(tmp_path / "published").as_uri()
    )
    runs = buying.buy(stack.api, emulator, place)
    review.wait_for("review", "awaiting_input", "deferred", timeout=240)
    with visitor(stack.url, "vera", stack.password) as vera, visitor(stack.url, None) as nobody:
        for run in runs:
            assert pictures_seen(vera, run) == 3
            fetch_page(vera, gallery_page(run))
        fetch_page(vera, "nanobanana/spend")
        assert vera.get("nanobanana/api/spend").raise_for_status().json()
        for address in plugin_bundles(runs[0]):
            assert address.startswith("/airflow/nanobanana/static/"), address
            vera.get(urljoin(stack.url, address)).raise_for_status()
        links = runs[0].api.get(f"/dags/{runs[0].dag_id}/dagRuns/{runs[0].run_id}/taskInstances/pictures/links")[
            "extra_links"
        ]
        # Airflow's page has the base URL as its base address.
        assert 'data-nanobanana="gallery"' in vera.get(urljoin(f"{stack.url}/", links["Gallery"])).text
        (question,) = stack.api.questions(REVIEW, review.run_id)
        addresses = _LINK.findall(question["body"])
        assert addresses
        for address in addresses:
            vera.get(urljoin(f"{stack.url}/", address)).raise_for_status()
        # Whoever is not logged in is sent to where that is done, below the path too.
        refused = nobody.get(gallery_page(runs[0]))
        assert refused.status_code == 401
        assert 'href="/airflow/api/v2/auth/login?next=%2Fairflow%2Fnanobanana%2Fview' in refused.text
        assert nobody.get("nanobanana/api/spend").status_code == 401
    stack.api.answer(REVIEW, review.run_id, "review", "Approve all")
    buying.clear(runs, emulator, place)
