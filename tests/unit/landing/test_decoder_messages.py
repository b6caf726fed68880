"""What goes over the socket comes back as it was, and what is no answer is none."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.landing.decode_outcome import MachineLacks, NotAnImage, Outcome, TooCostly
from airflow_provider_nanobanana.landing.decoder_messages import (
    CHECK,
    CHECK_REFERENCE,
    FILE,
    THUMBNAIL,
    THUMBNAIL_ALONE,
    fit_for,
    formats_of,
    from_json,
    has_thumbnail,
    is_reference,
    receive,
    to_json,
)
from airflow_provider_nanobanana.landing.fit_reference import FORMATS
from airflow_provider_nanobanana.landing.image_file import ImageFacts


@pytest.mark.parametrize(
    "outcome",
    [ImageFacts("png", 1, 2), ImageFacts("avif", 9999, 1), NotAnImage("é"), TooCostly("long"), MachineLacks("little")],
)
def test_outcomes_come_back(outcome: Outcome) -> None:
    assert from_json(to_json(outcome)) == outcome


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["png", "tiff"]),
        lambda inner: st.dictionaries(st.sampled_from(["format", "width", "height", "too_costly"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_is_an_outcome_or_none(text: bytes) -> None:
    outcome = from_json(text)
    assert outcome is None or from_json(to_json(outcome)) == outcome


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"{}", b"[]", b"[" * 60_000, b"\xff", b'{"format": "tiff", "width": 1, "height": 1}',
        b'{"format": "png", "width": 0, "height": 1}', b'{"format": "png", "width": -1, "height": 1}',
        b'{"format": "png", "width": 1.5, "height": 1}', b'{"format": "png", "width": 1e99, "height": 1}',
        b'{"format": "png", "width": true, "height": 1}', b'{"format": ["png"], "width": 1, "height": 1}',
        b'{"too_costly": 1}', b"9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_answer(text: bytes) -> None:
    assert from_json(text) is None


def test_words_are_one_short_line() -> None:
    outcome = from_json(json.dumps({"not_an_image": "a\nb\x1b[31m" + "x" * 9000}).encode())
    assert isinstance(outcome, NotAnImage)
    assert len(outcome.reason) <= 300
    assert outcome.reason.isprintable()


def test_exactly_so_many_bytes_are_received_however_they_come() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = bytes(range(256)) * 9000

        def send() -> None:
            for at in range(0, len(data), 70_001):
                theirs.sendall(data[at : at + 70_001])
            theirs.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        assert receive(ours, 0) == b""
        assert receive(ours, 1_000_000) == data[:1_000_000]
        ours.settimeout(60)  # such a socket hands over what is there
        assert receive(ours, len(data) - 1_000_000) == data[1_000_000:]
        with pytest.raises(EOFError):
            receive(ours, 1)
        thread.join()


def test_what_is_wanted_has_its_own_bits() -> None:
    with_all = fit_for(FORMATS)
    assert formats_of(with_all) == FORMATS and is_reference(with_all) and not has_thumbnail(with_all)
    for wanted in (CHECK | THUMBNAIL, THUMBNAIL_ALONE):
        assert has_thumbnail(wanted) and not is_reference(wanted) and formats_of(wanted) == ()
        assert FILE.unpack(FILE.pack(1, wanted)) == (1, wanted)
    assert is_reference(CHECK_REFERENCE) and not is_reference(CHECK)
