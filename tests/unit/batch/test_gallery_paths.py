from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from airflow_provider_nanobanana.batch.gallery_paths import gallery_path, thumbnail_path
from airflow_provider_nanobanana.landing.file_names import image_key

RUN = "manual__2026-11-26T08:00:00+00:00/ü"


def test_addresses_are_relative_and_hold_any_run_id() -> None:
    path = gallery_path("my.dag", RUN)
    assert path == "nanobanana/view/my.dag/manual__2026-11-26T08%3A00%3A00%2B00%3A00%2F%C3%BC"
    assert gallery_path("d", "r", "group.task", 3) == "nanobanana/view/d/r?task_id=group.task&map_index=3"


def test_a_thumbnail_names_its_task_instance_and_no_place() -> None:
    run = {"dag_id": "my.dag", "run_id": RUN, "task_id": "make", "map_index": -1}
    path = thumbnail_path(run, "s3://conn@bucket/cup.png", "0123456789abcdef")
    parts = urlsplit(path)
    assert parts.path == "nanobanana/api/thumb/my.dag"
    assert parse_qs(parts.query) == {
        "run_id": [RUN],
        "task_id": ["make"],
        "map_index": ["-1"],
        "key": [image_key("s3://conn@bucket/cup.png")],
        "v": ["01234567"],
    }
    assert not set("()<> \"'[]") & set(path), "it stands in Markdown"
    assert "v=" not in thumbnail_path(run, "file:///cup.png", None)
