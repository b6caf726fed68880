from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.landing import decode_b64
from airflow_provider_nanobanana.toapis.errors import ImageInvalid


class Sink(io.BytesIO):
    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def write(self, piece: bytes) -> int:  # type: ignore[override]
        self.largest = max(self.largest, len(piece))
        return super().write(piece)


@given(
    st.integers(0, 5).map(lambda extra: bytes(range(256)) * 1000 + b"x" * extra) | st.binary(min_size=1, max_size=100),
    st.sampled_from(["", "data:image/png;base64,", "DATA:;base64,", "  data:image/webp;charset=x;base64, "]),
    st.sampled_from(["", "\n", " \r\n"]),
)
def test_round_trip_in_pieces(data: bytes, prefix: str, end: str) -> None:
    sink = Sink()
    assert decode_b64(prefix + base64.b64encode(data).decode() + end, sink) == len(data)
    assert sink.getvalue() == data
    assert sink.largest <= 256 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "data:image/png;base64,", "data:image/png,abcd", "a", "ab", "abc", "ab=", "ab=c", "====", "ab==ab==",
        "ab\ncd", "ab cd", "ab-_", "äbcd", "ab==x", "<html>", "https://files.toapis.com/a.png",
        "A" * 262_142 + "==" + "AAAA", "A" * 262_144 + "A", "A" * 262_144 + "!AAA",
    ],
)  # fmt: skip
def test_what_is_not_base64_is_invalid(text: str) -> None:
    with pytest.raises(ImageInvalid, match="b64_json"):
        decode_b64(text, io.BytesIO())


def test_size_is_bounded_before_anything_is_decoded() -> None:
    sink = Sink()
    limit = 3000
    assert decode_b64(base64.b64encode(bytes(limit)).decode(), sink, max_bytes=limit) == limit
    sink = Sink()
    with pytest.raises(ImageInvalid, match="3,000 bytes"):
        decode_b64(base64.b64encode(bytes(limit + 3)).decode(), sink, max_bytes=limit)
    assert sink.getvalue() == b""
