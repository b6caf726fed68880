"""ResponseBody: what is kept of an answer, and that no more than that is ever unpacked."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.landing.image_file import MAX_BYTES
from airflow_provider_nanobanana.toapis import protocol
from airflow_provider_nanobanana.toapis.response_body import ResponseBody, has_more_values

TEXT = json.dumps({"id": "x", "status": "in_progress", "prompt": "a red kite over dunes " * 40}).encode()
PACKED = {
    "": TEXT,
    "identity": TEXT,
    "br": TEXT,  # not asked for, and no JSON then; but who says so may be wrong
    "gzip": gzip.compress(TEXT),
    " X-GZIP ": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
}


def body(encoding: str = "", *, most_bytes: int = 10_000, most_values: int = 10_000) -> ResponseBody:
    return ResponseBody(encoding, most_bytes=most_bytes, most_values=most_values)


@given(st.sampled_from([*PACKED]), st.integers(1, 3000))
def test_an_answer_is_unpacked_wherever_it_is_cut(encoding: str, length: int) -> None:
    kept = body(encoding, most_bytes=len(TEXT) + 256 * len(TEXT))
    packed = PACKED[encoding]
    assert all(kept.add(packed[at : at + length]) for at in range(0, len(packed), length))
    assert (kept.content, kept.too_long) == (TEXT, False)


@pytest.mark.parametrize("length", [1, 2, 7, 5000])
def test_deflate_without_a_header_is_understood_too(length: int) -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(TEXT) + packer.flush()
    kept = body("deflate", most_bytes=1_000_000)
    for at in range(0, len(packed), length):
        kept.add(packed[at : at + length])
    assert kept.content == TEXT


def test_what_is_not_packed_as_it_says_is_an_error() -> None:
    with pytest.raises(zlib.error):
        body("gzip").add(b"\xff" * 40)
    kept = body("gzip")
    assert kept.add(gzip.compress(bytes(1000) + TEXT)[:40])
    with pytest.raises(zlib.error):
        kept.add(b"\xff" * 1000)


def test_a_bomb_is_never_unpacked_beyond_the_bound() -> None:
    bomb = gzip.compress(bytes(50_000_000), 9)
    kept = body("gzip")
    tracemalloc.start()
    try:
        assert not kept.add(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(kept.content), kept.too_long) == (10_000, True)
    assert peak < 200_000


def test_gzip_that_unpacks_to_nothing_ends_as_well() -> None:
    """A stored block of no bytes, again and again: nothing ever comes out."""
    kept = body("deflate")
    assert kept.add(b"\x78\x9c")
    pieces = sum(1 for _ in iter(lambda: kept.add(b"\x00\x00\x00\xff\xff" * 50), False))
    assert pieces <= 10_000 / 250 and kept.too_long and kept.content == b""


def test_pieces_are_counted_however_short_they_are() -> None:
    kept = body()
    pieces = sum(1 for _ in iter(lambda: kept.add(b"x"), False))
    assert pieces == 10_000 // 256 and kept.too_long


def test_the_bound_itself_fits() -> None:
    kept = body()
    assert (kept.add(b"x" * 10_000), kept.too_long, len(kept.content)) == (True, False, 10_000)
    assert (kept.add(b"x"), kept.too_long, len(kept.content)) == (False, True, 10_000)


@pytest.mark.parametrize("content", [b"[" + b"[]," * 4000 + b"0]", b"{" + b'"k":{},' * 4000 + b'"k":0}', b"1," * 6000])
def test_many_values_are_too_long_whatever_they_are(content: bytes) -> None:
    kept = body(most_bytes=100_000, most_values=5000)
    assert kept.add(content) and kept.too_long
    assert not has_more_values(content, 100_000)


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_fewer_values_are_counted_than_there_are(value: object) -> None:
    def values(of: object) -> int:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
        return sum(map(values, inner)) + len(list(inner)) if isinstance(of, (dict, list)) else 0

    content = json.dumps(value).encode()
    count = values(value)
    # However short the text is: what is not counted cannot be more than its bytes.
    assert count == 0 or has_more_values(content + b" " * len(content), count - 1)


def test_a_worker_s_bound_fits_the_largest_image() -> None:
    base64 = (MAX_BYTES + 2) // 3 * 4
    noise_4k = 4096 * (4096 * 3 + 1)
    beside = 64 * 1024
    assert noise_4k * 4 // 3 + beside < base64 + beside < protocol.MAX_RESPONSE_BYTES


def test_an_answer_in_many_pieces_is_as_long_as_they_are() -> None:
    kept = body(most_bytes=100_000)
    assert all(kept.add(piece) for piece in repeat(b"x" * 256, 390)) and not kept.too_long


def test_what_stands_behind_the_end_of_the_stream_is_not_collected() -> None:
    """It is copied with each piece otherwise, which takes seconds of 16 MiB."""
    kept = body("gzip")
    assert kept.add(gzip.compress(b"{}")) and kept.add(b"x" * 5_000)
    assert (kept.content, kept._inflater.unused_data) == (b"{}", b"")
    assert not kept.add(b"x" * 5_000) and kept.too_long
