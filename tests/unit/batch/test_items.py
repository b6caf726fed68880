"""Orders: every fault at once, and an identity that no new order of the list changes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch import rows
from airflow_provider_nanobanana.batch.items import BatchItem, build_items, take_numbers
from airflow_provider_nanobanana.batch.rows import FIELDS, MAX_REQUESTS
from airflow_provider_nanobanana.landing.file_names import _STEM
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageRequest
from tests.support.batch import MODEL, items

GEMINI = "gemini-3.1-flash-image-preview"


def refusal(given: Any, **defaults: Any) -> str:
    with pytest.raises(errors.InvalidRequest) as caught:
        items(given, **defaults)
    assert not caught.value.retryable and caught.value.charged == "no"
    assert "nothing charged" in caught.value.message or "nothing was charged" in caught.value.message
    assert "a retry would meet the same" in caught.value.message
    return caught.value.message


class Contents:
    """Storage references by content; counts how often each is read."""

    def __init__(self, **contents: str) -> None:
        self.contents = contents
        self.reads: Counter[str] = Counter()

    def digest(self, uri: str) -> str:
        self.reads[uri] += 1
        name = uri.rpartition("/")[2]
        if name not in self.contents:
            raise errors.InvalidRequest(f"Reference image {uri!r} cannot be read.")
        return hashlib.sha256(self.contents[name].encode()).hexdigest()

    def take(self, given: Any, **how: Any) -> list[BatchItem]:
        return build_items(given, defaults={}, default_model=MODEL, digest_of=self.digest, **how)


def pairs(taken: list[BatchItem]) -> dict[str, tuple[str, str | None]]:
    return {item.key: (item.request.prompt, item.name) for item in taken}


@pytest.mark.parametrize(
    "given",
    [
        "a kite",
        {"prompt": "a kite"},
        ["a kite"],
        ({"prompt": "a kite"},),
        iter(["a kite"]),
        {"prompt": "a kite", "model": None, "name": None, "size": None, "extra_body": None},
        ImageRequest(prompt="a kite"),
        [ImageRequest(prompt="a kite")],
    ],
)
def test_one_prompt_in_any_form_is_one_and_the_same_order(given: Any) -> None:
    (taken,) = items(given)
    assert taken == BatchItem(0, ImageRequest.parse({"prompt": "a kite"}), None, 0, taken.fingerprint)
    assert taken.fingerprint == ImageRequest.parse({"prompt": "a kite"}).fingerprint()
    assert (taken.key, taken.label) == (f"{taken.fingerprint[:16]}-0", "#0")


def test_an_empty_list_is_no_item_and_no_error() -> None:
    assert items([]) == []


def test_what_a_request_leaves_open_is_filled_by_the_operator_then_by_the_connection() -> None:
    given = ["a", {"prompt": "b", "size": "3:4", "variant": "mine"}, ImageRequest(prompt="c", resolution="4K")]
    taken = items(given, size="16:9", resolution="2K", variant="day", model=None, extra_body=None)
    requests = [item.request for item in taken]
    assert [(r.size, r.resolution, r.variant, r.model) for r in requests] == [
        ("16:9", "2K", "day", MODEL),
        ("3:4", "2K", "mine", MODEL),
        ("16:9", "4K", "day", MODEL),
    ]
    other = build_items(given[0], defaults={"model": GEMINI}, default_model=MODEL, digest_of=str)
    assert other[0].request.model == GEMINI


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (None, "#1: is None: a hole"),
        (float("nan"), "#1: is nan: a hole"),
        ({"prompt": "a", "extra_body": {"n": "1"}}, "#1: extra_body holds n='1', which is no whole number"),
        ({"prompt": "a", "extra_body": {"n": True}}, "#1: extra_body holds n=True, which is no whole number"),
        ({"prompt": "a", "extra_body": {"n": 3}}, "#1: extra_body asks for n=3 images"),
        ({"prompt": ["a", "b"]}, "#1: prompt is list, not one text"),
        (7, "#1: is int, neither a prompt (text) nor a request (mapping)"),
        (["a"], "#1: is list, neither"),
        (b"a", "#1: is bytes, neither"),
        ("  ", "#1: prompt is blank"),
        ({"size": "1:1"}, "#1: prompt Field required"),
        ({"prompt": None}, "#1: prompt Field required"),
        ({"promt": "a", 3: "b"}, "#1: 'promt', 3 are no fields of a request"),
        ({"prompt": "a", "size": "7:3"}, "#1: size '7:3' is no ratio of nano_banana_2; allowed: 1:1, 16:9"),
        (
            {"prompt": "a", "reference_images": ["data:xx"], "name": "hat"},
            "#1 'hat': reference_images entry 0 is a data",
        ),
    ],
)
def test_a_fault_names_its_request_and_what_is_allowed(entry: Any, words: str) -> None:
    message = refusal(["fine", entry])
    assert message.startswith(f"1 of 2 requests cannot be accepted as they are (counted from #0):\n  {words}")
    assert f"a mapping of {', '.join(FIELDS)}" in message
    assert "Image request refused before sending" not in message


def test_all_faults_are_told_at_once_the_first_ten_in_words() -> None:
    given = [{"prompt": "", "name": f"n{number}"} if number % 2 else f"fine {number}" for number in range(50)]
    message = refusal(given)
    assert message.startswith("25 of 50 requests") and "  and 15 more\n" in message
    assert "#19 'n19'" in message and "#21" not in message and len(message) < 4000


def test_a_fault_never_fills_the_log() -> None:
    assert len(refusal([{"prompt": "a", "k" * 99_999: 1, "reference_images": ["data:" + "x" * 99_999]}])) < 1000


@pytest.mark.parametrize("given", [None, 5, b"a kite", 1.5])
def test_what_is_no_request_at_all_is_refused(given: Any) -> None:
    assert f"There is no request in {type(given).__name__}" in refusal(given)


def test_a_list_without_end_is_refused() -> None:
    assert MAX_REQUESTS == 20_000 and "more than 20,000 requests" in refusal(repeat("a kite"))


def test_the_most_requests_are_taken_and_one_more_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_REQUESTS", 20)
    assert len(items(["a kite"] * 20)) == 20
    assert "split them" in refusal(["a kite"] * 21)


# --- identity -------------------------------------------------------------------------------------------------------


def test_identical_requests_are_separate_items() -> None:
    taken = items(["a", "b", "a", {"prompt": "a"}, "b"])
    assert [item.occurrence for item in taken] == [0, 0, 1, 2, 1]
    assert len({item.key for item in taken}) == 5
    assert len({item.fingerprint for item in taken}) == 2


def test_requests_without_a_name_are_numbered_among_themselves() -> None:
    """Otherwise naming one of two equal requests would rename the file of the other, and buy it again."""
    before = items(["a", "a", "a"])
    taken = items(["a", {"prompt": "a", "name": "hat"}, "a", {"prompt": "a", "name": "cap"}])
    assert [item.occurrence for item in taken] == [0, 0, 1, 0]
    assert [item.key for item in taken if item.name is None] == [item.key for item in before[:2]]


@given(
    wanted=st.lists(st.sampled_from("ab"), min_size=1, max_size=5),
    there=st.sets(st.integers(0, 9)),
    paid=st.sets(st.integers(0, 9)),
)
def test_equal_requests_take_what_is_there_then_what_is_paid_then_the_lowest_numbers(
    wanted: list[str], there: set[int], paid: set[int]
) -> None:
    built = items([*wanted, {"prompt": "a", "name": "hat"}])
    head = items("a")[0].head
    taken = take_numbers(built, *({f"{head}-{number}" for number in numbers} for numbers in (there, paid)))
    assert [replace(item, occurrence=0) for item in taken] == [replace(item, occurrence=0) for item in built]
    assert len({item.key for item in taken}) == len(taken) and taken[-1] == built[-1]
    order = [*sorted(there), *sorted(paid - there), *sorted(set(range(5)) - there - paid)]
    numbers = [item.occurrence for item in taken[:-1] if item.request.prompt == "a"]
    assert numbers == sorted(order[: wanted.count("a")])
    others = [item.occurrence for item in taken if item.request.prompt == "b"]
    assert others == list(range(len(others)))


@pytest.mark.parametrize(
    "stem", ["{head}-01", "{head}-1-tag", "{head}-1.1", "{head}-1234567890", "hat-1", "x{head}-1", ""]
)
def test_only_a_number_is_taken_from_a_file(stem: str) -> None:
    built = items("a")
    assert take_numbers(built, [stem.format(head=built[0].head)]) == built


def test_an_item_is_its_file() -> None:
    for item in items(["a", {"prompt": "a", "name": "hat"}]):
        assert item.key == item.stem()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12).flatmap(
        lambda requests: st.tuples(st.just(requests), st.permutations(range(len(requests))))
    )
)
def test_a_new_order_of_the_list_changes_no_identity(drawn: tuple[list[tuple[str, bool]], list[int]]) -> None:
    requests, permutation = drawn
    given: list[Any] = [
        {"prompt": prompt, "name": f"name{number}"} if named else prompt
        for number, (prompt, named) in enumerate(requests)
    ]
    first, second = items(given), items([given[position] for position in permutation])
    assert pairs(first) == pairs(second) and len(pairs(first)) == len(given)
    assert [item.index for item in second] == list(range(len(given)))


def test_what_makes_a_picture_another_one_makes_another_order() -> None:
    base: dict[str, Any] = {"prompt": "a"}
    changes: list[dict[str, Any]] = [
        {"size": "16:9"},
        {"resolution": "2K"},
        {"variant": "x"},
        {"model": GEMINI},
        {"extra_body": {"s": 1}},
    ]
    assert len({item.fingerprint for item in items([base, *({**base, **change} for change in changes)])}) == 6
    same: list[dict[str, Any]] = [{"response_format": "b64_json"}, {"name": "hat"}, {"model": MODEL}]
    assert len({item.fingerprint for item in items([base, *({**base, **change} for change in same)])}) == 1


def test_storage_references_count_by_content_and_are_kept_as_uris() -> None:
    contents = Contents(old="1", copy="1", new="2")
    uris = [f"s3://bucket/{name}" for name in ("old", "copy", "new")]
    taken = contents.take([{"prompt": "a", "reference_images": ["https://h/x.png?sig=1", uri]} for uri in uris])
    assert taken[0].fingerprint == taken[1].fingerprint != taken[2].fingerprint
    assert [item.occurrence for item in taken] == [0, 1, 0]
    assert [item.request.reference_images for item in taken] == [("https://h/x.png?sig=1", uri) for uri in uris]
    re_signed = contents.take({"prompt": "a", "reference_images": ["https://h/x.png?sig=2", uris[0]]})
    assert re_signed[0].key == taken[0].key


def test_each_reference_is_read_once_also_side_by_side() -> None:
    contents = Contents(a="1", b="2")
    given = [{"prompt": f"p{n}", "reference_images": ["s3://k/a", "file:///b", "s3://k/a"]} for n in range(20)]
    with ThreadPoolExecutor(4) as pool:
        together = contents.take(given, each=pool.map)
    assert contents.reads == {"s3://k/a": 1, "file:///b": 1}
    assert together == contents.take(given)


def test_a_reference_that_cannot_be_read_is_a_fault_of_each_request_that_names_it() -> None:
    contents = Contents(good="1")
    bad = {"prompt": "a", "reference_images": ["s3://k/good", "s3://k/bad"]}
    with pytest.raises(errors.InvalidRequest) as caught:
        contents.take(["fine", bad, bad, {"prompt": ""}])
    message = caught.value.message
    assert message.startswith("3 of 4 requests") and "#3: prompt is blank" in message
    assert message.count("Reference image 's3://k/bad' cannot be read\n") == 2 and contents.reads["s3://k/bad"] == 1


def test_a_storage_that_does_not_answer_is_no_fault_of_a_request() -> None:
    def unreachable(uri: str) -> str:
        raise errors.StorageFailed("no answer", charged="no")

    with pytest.raises(errors.StorageFailed):
        build_items(
            [{"prompt": "a", "reference_images": ["s3://k/a"]}, ""],
            defaults={},
            default_model=MODEL,
            digest_of=unreachable,
        )


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a", "0", "_", "hat-12", "Hat.red", "x" * 80, "a..b", "v1.5", "0123456789abcdef", "CON"]
)
def test_a_good_name_names_the_file(name: str) -> None:
    (taken,) = items({"prompt": "a", "name": name})
    assert taken.stem() == f"{name}-{taken.fingerprint[:10]}" and taken.label == name
    for stem in (taken.stem(), taken.stem("t" * 8)):
        assert _STEM.fullmatch(stem)
    assert taken.stem("two") == f"{taken.stem()}-two"


def test_another_request_under_the_same_name_is_another_file() -> None:
    """Otherwise the old picture would be reused for a changed prompt, or would keep the new one from being landed."""
    first, changed, renamed = (
        items(fields)[0].stem()
        for fields in (
            {"prompt": "a", "name": "hat"},
            {"prompt": "a red one", "name": "hat"},
            {"prompt": "a", "name": "cap"},
        )
    )
    assert len({first, changed, renamed}) == 3 and first.startswith("hat-") and changed.startswith("hat-")


@pytest.mark.parametrize(
    "name",
    [".", "..", ".hidden", "-x", "a/b", "../a", "a\\b", "a b", "a\n", "ü", "x" * 81, "a\0", "a:b", True, 7.5, ["a"]],
)
def test_a_name_that_cannot_name_a_file_is_refused(name: Any) -> None:
    assert "allowed: 1 to 80 of A-Z a-z 0-9 _ . -" in refusal({"prompt": "a", "name": name})


@pytest.mark.parametrize("number", [7, 7.0])
def test_a_number_is_a_name(number: Any) -> None:
    assert items({"prompt": "a", "name": number})[0].name == "7"


@pytest.mark.parametrize("name", ["hat.png", "hat.JPG", "hat.webp", "a.json", "hat.jpeg"])
def test_a_name_with_a_suffix_is_refused(name: str) -> None:
    assert "leave the suffix out" in refusal({"prompt": "a", "name": name})


def test_a_name_may_not_look_like_ours() -> None:
    (unnamed,) = items("a")
    for stem in (unnamed.stem(), unnamed.stem("tag"), unnamed.stem().upper()):
        assert "looks like the names made for requests without one" in refusal({"prompt": "b", "name": stem})


def test_names_are_unique_whatever_their_case() -> None:
    given = [{"prompt": "a", "name": "Hat"}, "b", {"prompt": "c", "name": "hat"}, {"prompt": "", "name": "HAT"}]
    message = refusal(given)
    assert "2 of 4" in message and "#2 'hat': its name is also that of #0 'Hat'" in message
    assert "#3 'HAT': prompt is blank" in message


@pytest.mark.parametrize("suffix", ["a/b", "x" * 9, " ", "ü"])
def test_a_suffix_that_landing_would_refuse_is_found_before_anything_is_bought(suffix: str) -> None:
    with pytest.raises(ValueError, match="no suffix"):
        items("a")[0].stem(suffix)


def test_stems_without_a_name_are_told_apart_by_a_suffix() -> None:
    (taken,) = items("a")
    assert taken.stem() == f"{taken.fingerprint[:16]}-0" and taken.stem("r1") == f"{taken.stem()}-r1"


def test_a_lazy_sequence_is_read_once() -> None:
    def lazy() -> Iterator[Any]:
        yield "a"
        yield {"prompt": "b"}

    assert [item.request.prompt for item in items(lazy())] == ["a", "b"]
