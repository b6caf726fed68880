from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Callable

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


DATA = bytes(range(256)) * 2000 + b"\xfb\xff\xbf?>"


def lines(text: str, width: int = 76, end: str = "\r\n") -> str:
    return end.join(text[at : at + width] for at in range(0, len(text), width))


@pytest.mark.parametrize("extra", [b"", b"x", b"xy"])
@pytest.mark.parametrize(
    "spelling",
    [
        lines,
        lambda text: lines(text, 1000, "\n\n \t"),
        lambda text: text.rstrip("="),
        lambda text: text + "=" * (-len(text) % 4),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: f'"{text}"\n',
        lambda text: "'data:image/png;base64," + text + "'",
        lambda text: text.replace("/", "\\/"),
        lambda text: lines(text, 64, "\\n"),
        lambda text: text.replace("/", "\\u002f").replace("+", "\\u002B").replace("=", "\\u003d"),
        lambda text: text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
        lambda text: " \n" + lines(text) + "\n" * 300_000,
    ],
)
def test_whatever_loses_nothing_is_taken(spelling: Callable[[str], str], extra: bytes) -> None:
    sink = Sink()
    text = spelling(base64.b64encode(DATA + extra).decode())
    assert decode_b64(text, sink) == len(DATA + extra)
    assert sink.getvalue() == DATA + extra


@given(st.text(alphabet="ABCabc019+/=-_ \n\t.:,;dataimgbse64%\\u\u00e9\ud800", max_size=60))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    with contextlib.suppress(ImageInvalid):
        assert decode_b64(text, io.BytesIO()) > 0


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "data:image/png;base64,", "data:image/png,abcd", "a", "abcde", "ab=c", "====", "ab==ab==", "ab===",
        "ab\0cd", "ab.cd", "äbcd", "ab==x", "<html>", "https://files.toapis.com/a.png", "100%", "a\\xcd", '{"a":1}',
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
