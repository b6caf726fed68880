from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.review import (
    APPROVE_ALL,
    APPROVE_SELECTED,
    OPTIONS,
    REJECT_ALL,
    Decision,
    escape_markdown,
    form_text,
    labels,
    shown_first,
)
from airflow_provider_nanobanana.landing.file_names import image_key
from airflow_provider_nanobanana.toapis.errors import TransientFailure

KEYS = {"k1": "aa", "k2": "bb", "k3": ""}


def answer(option: Any, fields: Any = None, user: Any = None) -> dict[str, Any]:
    chosen = option if isinstance(option, list) else [option]
    return {"chosen_options": chosen, "params_input": fields, "responded_by_user": user}


def decide(option: Any, fields: Any = None, user: Any = None) -> Decision:
    return Decision.of_answer(answer(option, fields, user), KEYS)


@pytest.mark.parametrize(
    ("option", "fields", "approved"),
    [
        (APPROVE_ALL, None, KEYS),
        (APPROVE_ALL, {}, KEYS),
        (APPROVE_ALL, {"approved": ["k1"]}, KEYS),
        (REJECT_ALL, {"approved": ["k1"]}, []),
        (APPROVE_SELECTED, {"approved": ["k2"]}, ["k2"]),
        (APPROVE_SELECTED, {"approved": [*KEYS]}, KEYS),
        (APPROVE_SELECTED, {"approved": ["k2", "k2", "unknown"]}, ["k2"]),
        (APPROVE_SELECTED, {"approved": ("k1", "k3"), "more": 1}, ["k1", "k3"]),
    ],
)
def test_what_is_approved(option: str, fields: Any, approved: list[str]) -> None:
    decision = decide(option, fields, {"name": "uma"})
    assert decision.approved == set(approved)
    assert decision.rejected == set(KEYS) - set(approved)
    assert Decision.of_plain(json.loads(json.dumps(decision.plain()))) == decision
    assert decision.in_words().startswith(f"uma: {len(approved)} approved, {3 - len(approved)} rejected")


@pytest.mark.parametrize(
    ("option", "fields"),
    [
        ("Approve", {"approved": ["k1"]}),
        ([], {}),
        ([APPROVE_ALL, REJECT_ALL], {}),
        (None, {}),
        (APPROVE_SELECTED, None),
        (APPROVE_SELECTED, {"approved": []}),
        (APPROVE_SELECTED, {"approved": None}),
        (APPROVE_SELECTED, {"approved": ["unknown"]}),
        (APPROVE_SELECTED, {"approved": "k1"}),
        (APPROVE_SELECTED, {"approved": [1]}),
        (APPROVE_SELECTED, {"approved": {"k1": True}}),
    ],
)
def test_an_answer_that_decides_nothing_rejects_nothing(option: Any, fields: Any) -> None:
    with pytest.raises(TransientFailure, match="Nothing was decided") as refused:
        decide(option, fields)
    assert (refused.value.retryable, refused.value.charged) == (True, "no")


@pytest.mark.parametrize(
    ("user", "by"),
    [
        (None, None),
        ({"id": "7", "name": "Uma"}, "Uma"),
        ({"id": "7", "name": ""}, "7"),
        ({"id": "", "name": None}, None),
    ],
)
def test_who_decided(user: Any, by: str | None) -> None:
    assert decide(APPROVE_ALL, user=user).by == by


@pytest.mark.parametrize(("given", "kept"), [(" ", None), (None, None), (7, None), ("too dark", "too dark")])
def test_a_comment_is_a_text(given: Any, kept: str | None) -> None:
    assert decide(REJECT_ALL, {"comment": given}).comment == kept


def test_there_are_no_more_options_than_every_airflow_shows() -> None:
    assert len(OPTIONS) <= 3


# --- the form ------------------------------------------------------------------------------------------------------

CUP: dict[str, Any] = {
    "uri": "file:///x/cup-1.png",
    "request": 0,
    "name": "cup",
    "prompt": "a cup",
    "variant": "",
    "sha256": "ab" * 32,
}
RUN = {"dag_id": "shop", "run_id": "r+1", "task_id": "group.review", "map_index": 2}
MAKER = {"dag_id": "shop", "run_id": "r+1", "task_id": "make", "map_index": -1}


def image(**more: Any) -> dict[str, Any]:
    return {**CUP, **more}


@pytest.mark.parametrize(
    ("record", "called"),
    [
        (CUP, "cup · a cup"),
        (image(variant="2"), "cup/2 · a cup"),
        (image(version=1), "cup · a cup"),
        (image(version=3), "cup · version 3 · a cup"),
        (image(name=None), "#0 · a cup"),
        (image(suspect=["blank"]), "cup · a cup · suspect: blank"),
        ({"uri": "file:///x/cup-1.png"}, "cup-1.png"),
        ({"uri": "file:///x/tsk_1-0.png", "name": None, "prompt": "a cup"}, "a cup"),
        (image(prompt="a\nb  c"), "cup · a b c"),
    ],
)
def test_what_an_image_is_called(record: dict[str, Any], called: str) -> None:
    assert labels([record]) == {image_key(record["uri"]): called}


def test_two_that_are_called_the_same_are_told_apart() -> None:
    twins = [CUP, image(uri="file:///x/cup-2.png")]
    assert [*labels(twins).values()] == ["cup · a cup (cup-1.png)", "cup · a cup (cup-2.png)"]


def text_of(images: list[dict[str, Any]], places: dict[str, Any] | None = None, intro: str | None = None) -> str:
    return form_text(intro, images, labels(images), run=RUN, places=places or {})


def test_the_form_shows_pictures_that_lead_to_the_gallery() -> None:
    text = text_of([CUP], {CUP["uri"]: MAKER}, "Please *look*.")
    page = "nanobanana/view/shop/r%2B1?task_id=group.review&map_index=2"
    assert text.startswith(f"Please *look*.\n\n**1 image** to review. [Open the gallery]({page})")
    key = image_key(CUP["uri"])
    assert f"](nanobanana/api/thumb/shop?run_id=r%2B1&task_id=make&map_index=-1&key={key}&v=abababab)](nano" in text
    assert "](/" not in text and "http" not in text, "relative: right below any base path"


def test_without_its_place_there_is_a_name_and_no_picture() -> None:
    text = text_of([CUP])
    assert "![" not in text
    assert text.endswith("* cup · a cup")


def test_of_many_the_first_are_shown() -> None:
    many = [image(uri=f"file:///x/{number}.png", name=f"n{number}") for number in range(1000)]
    assert shown_first(many) == many[:6]
    text = text_of(many, {each["uri"]: MAKER for each in many})
    assert (text.count("!["), len(text) < 5_000) == (6, True)
    assert "**1,000 images**" in text and text.endswith("* and 994 more, in the gallery")


@pytest.mark.parametrize(
    "hostile",
    [
        "](https://evil.example/) ![x](https://evil.example/p.png)",
        "<img src=x onerror=alert(1)>",
        "# heading\n\n* list\n```code```",
        "[a]: https://evil.example\n[a]",
        "\\](x) &lt; $x$ ~~y~~ |a|",
    ],
)
def test_a_prompt_is_shown_as_it_is(hostile: str) -> None:
    escaped = escape_markdown(hostile)
    assert "\n" not in escaped
    read, position = "", 0
    while position < len(escaped):
        if escaped[position] == "\\":
            position += 1
        else:
            assert escaped[position].isalnum() or escaped[position] == " ", "punctuation that Markdown would read"
        read += escaped[position]
        position += 1
    assert read == " ".join(hostile.split())
    text = text_of([image(prompt=hostile)], {CUP["uri"]: MAKER})
    assert text.count("](") == 3 and "](https" not in text
