"""What makes two requests the same one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.request_values import text_fault

GEMINI = "gemini-3.1-flash-image-preview"
REFERENCES = ("https://h/a.png", "s3://bucket/key.png")
_texts = st.text(max_size=9).filter(lambda text: text_fault(text) is None)
BASE: dict[str, Any] = {"prompt": "x", "reference_images": list(REFERENCES), "extra_body": {"a": {"b": 1}}}


def fingerprint(**fields: Any) -> str:
    return ImageRequest.parse({**BASE, **fields}).fingerprint()


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "y"},
        {"prompt": "x "},
        {"size": "16:9"},
        {"resolution": "2K"},
        {"model": GEMINI},
        {"variant": "2026-11-01"},
        {"extra_body": {"a": {"b": 2}}},
        {"extra_body": {"a": {"b": "1"}}},
        {"extra_body": {}},
        {"reference_images": []},
        {"reference_images": list(REFERENCES[::-1])},
        {"reference_images": ["http://h/a.png", REFERENCES[1]]},
        {"reference_images": ["https://h/b.png", REFERENCES[1]]},
        {"reference_images": [REFERENCES[0], "gs://bucket/key.png"]},
        {"reference_images": [REFERENCES[0], "s3://other/key.png"]},
        {"reference_images": [*REFERENCES, REFERENCES[0]]},
    ],
)
def test_every_field_changes_the_fingerprint(fields: dict[str, Any]) -> None:
    assert fingerprint(**fields) != fingerprint()


#: Two signatures of one object each, as the stores and networks make them (their public documentation).
AZURE = "sv=2025-01-05&st={0}&se={0}&sr=b&sp=r&skoid={0}&sktid={0}&skt={0}&ske={0}&sks=b&skv=2025-01-05&sig={0}"
SIGNED = (
    *("X-Amz-Signature={0}&Expires={0}", "AWSAccessKeyId=A{0}&Expires={0}&Signature=s{0}%3D"),
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A{0}&X-Amz-Date={0}&X-Amz-Expires={0}&X-Amz-SignedHeaders=host"
    "&X-Amz-Security-Token=t{0}&X-Amz-Signature=s{0}",
    "X-Goog-Algorithm=GOOG4&X-Goog-Credential=a{0}&X-Goog-Date={0}&X-Goog-Expires=9&X-Goog-SignedHeaders=host"
    "&X-Goog-Signature={0}",
    *("GoogleAccessId=a&Expires={0}&Signature={0}", "Expires={0}&Policy=p{0}&Signature=s{0}&Key-Pair-Id=K"),
    *(AZURE, "sp=r&spr=https&se={0}&sig={0}", "OSSAccessKeyId=A{0}&Expires={0}&Signature={0}&security-token={0}"),
    "x-oss-signature-version=OSS4&x-oss-credential={0}&x-oss-date={0}&x-oss-expires=9&x-oss-signature={0}",
    "q-sign-algorithm=sha1&q-ak={0}&q-sign-time={0}&q-key-time={0}&q-header-list=host&q-url-param-list=&q-signature={0}",
    *("X-Tos-Credential={0}&X-Tos-Date={0}&X-Tos-Signature={0}", "x-expires={0}&x-signature={0}", "auth_key={0}-0-0-a"),
    *("e={0}&token=ak:{0}", "token={0}&expires={0}", "ex={0}&is={0}&hm={0}&", "token=eyJh{0}.eyJl{0}.sig-{0}"),
)


@pytest.mark.parametrize("query", SIGNED)
def test_a_re_signed_link_is_the_same_reference(query: str) -> None:
    def signed(number: int, rest: str = "") -> str:
        return fingerprint(reference_images=[f"https://h/a.png?{query.format(number)}{rest}", REFERENCES[1]])

    assert signed(111) == signed(222) == fingerprint()
    assert signed(111, "&v=1") == signed(222, "&v=1") != signed(111, "&v=2")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("https://drive.google.com/uc?export=download&id=MUG", "https://drive.google.com/uc?export=download&id=LAMP"),
        ("https://cdn.shopify.com/a.jpg?v=1", "https://cdn.shopify.com/a.jpg?v=2"),
        ("https://h/render?sku=cup", "https://h/render?sku=lamp"),
        ("https://h/a.png?x-oss-process=image/resize,w_10", "https://h/a.png?x-oss-process=image/resize,w_20"),
        ("https://h/a.png?sr=1", "https://h/a.png?sr=2"),
        ("https://h/a.png?se=north", "https://h/a.png?se=south"),
        ("https://h/a.png?token=cup", "https://h/a.png?token=lamp"),
        ("https://h/a.png?versionId=1&X-Amz-Signature=1", "https://h/a.png?versionId=2&X-Amz-Signature=1"),
        ("https://h/a.png?X-Amz-Signature=1", "https://h/b.png?X-Amz-Signature=1"),
        ("https://h/?cup", "https://h/?lamp"),
        ("https://h/a.png?is=1", "https://h/a.png?is=2"),
    ],
)
def test_links_that_differ_by_more_than_a_signature_are_two_references(one: str, two: str) -> None:
    assert fingerprint(reference_images=[one]) != fingerprint(reference_images=[two])


def test_the_order_of_a_query_and_what_no_server_sees_make_no_other_reference() -> None:
    links = ("https://h/a?b=1&a=2", "https://h/a?a=2&b=1", "https://h/a?a=2&&b=1#top")
    assert len({fingerprint(reference_images=[link]) for link in links}) == 1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"extra_body": {"seed": 5}}, {"extra_body": {"seed": 5.0}}),
        ({"extra_body": {"a": [{"b": -0.0}]}}, {"extra_body": {"a": [{"b": 0}]}}),
        ({"prompt": "caf\u00e9"}, {"prompt": "cafe\u0301"}),
        ({"variant": "\u00c5"}, {"variant": "\u212b"}),
        ({"extra_body": {"\u00e9": "\u00e9"}}, {"extra_body": {"e\u0301": "e\u0301"}}),
        ({"variant": 7}, {"variant": "7"}),
    ],
)
def test_two_spellings_of_one_value_are_one_request(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert fingerprint(**one) == fingerprint(**two) != fingerprint()


@pytest.mark.parametrize("other", [5.5, True, "5", [5]])
def test_another_value_is_another_request(other: Any) -> None:
    assert fingerprint(extra_body={"seed": other}) != fingerprint(extra_body={"seed": 5})


def test_what_is_sent_is_as_it_was_given() -> None:
    request = ImageRequest.parse({"prompt": "cafe\u0301", "extra_body": {"seed": 5.0}})
    assert request.prompt == "cafe\u0301" and isinstance(request.extra_body["seed"], float)


def test_a_storage_reference_counts_by_content_where_that_is_known() -> None:
    request = ImageRequest.parse({"prompt": "x", "reference_images": ["s3://b/one.png", "https://h/a.png"]})
    other = ImageRequest.parse({"prompt": "x", "reference_images": ["s3://b/two.png", "https://h/a.png"]})
    assert request.fingerprint({"s3://b/one.png": "f" * 64}) == other.fingerprint({"s3://b/two.png": "f" * 64})
    assert request.fingerprint({"s3://b/one.png": "f" * 64}) != request.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("mark", ["#", "?"])
def test_two_objects_of_a_store_are_two_references(mark: str) -> None:
    """``#`` and ``?`` are ordinary characters of an object's key: two pictures of one folder are two requests."""
    one, two = (fingerprint(reference_images=[f"s3://bucket/hat{mark}{n}.png"]) for n in (1, 2))
    assert one != two


def test_the_fingerprint_ignores_the_order_of_keys_and_spells_out_the_default() -> None:
    assert fingerprint(extra_body={"p": 1, "q": 2}) == fingerprint(extra_body={"q": 2, "p": 1})
    assert fingerprint(model=None) == fingerprint(model="nano_banana_2") != ImageRequest(**BASE).fingerprint()


@given(_texts.filter(str.strip), _texts)
def test_the_fingerprint_is_a_function_of_the_request(prompt: str, variant: str) -> None:
    assert fingerprint(prompt=prompt, variant=variant) == fingerprint(variant=variant, prompt=prompt)


def test_the_form_of_the_answer_is_not_part_of_the_picture() -> None:
    assert fingerprint(response_format="b64_json") == fingerprint()
