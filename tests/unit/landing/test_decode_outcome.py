"""Whose fault it is that a file was not decoded: the image's, which is final, or the machine's, which is not."""

from __future__ import annotations

import signal

import pytest

from airflow_provider_nanobanana.landing.decode_outcome import (
    IMAGE_LIMITS,
    LARGE_REFERENCE_LIMITS,
    MIB,
    NO_MEMORY_STATUS,
    Ending,
    MachineLacks,
    TooCostly,
    judge_ending,
    limits_for,
    memory_outcome,
)


@pytest.mark.parametrize(
    ("ending", "kind", "words"),
    [
        # Too much processor time is the image's at once: it would take it again.
        (Ending(-signal.SIGXCPU), TooCostly, "more processor time than one file may: 10 s up to 20 megapixels"),
        # A crash is when it happens again.
        (Ending(-signal.SIGSEGV), MachineLacks, "SIGSEGV"),
        (Ending(-signal.SIGSEGV, again=True), TooCostly, "crashed twice (SIGSEGV)"),
        (Ending(-signal.SIGBUS, again=True), TooCostly, "SIGBUS"),
        (Ending(1), MachineLacks, "exit status 1"),
        (Ending(1, again=True), TooCostly, "exit status 1"),
        # Reaped by somebody else: nothing is known, and what is kept is not lost.
        (Ending(0, again=True), TooCostly, "exit status 0"),
        # The kernel, or a person: never the image's, however often.
        (Ending(-signal.SIGKILL), MachineLacks, "SIGKILL"),
        (Ending(-signal.SIGKILL, again=True), MachineLacks, "SIGKILL"),
        (Ending(-signal.SIGTERM, again=True), MachineLacks, "SIGTERM"),
        (Ending(-signal.SIGSYS, again=True), MachineLacks, "SIGSYS"),
        (Ending(-63, again=True), MachineLacks, "63"),
        (Ending(NO_MEMORY_STATUS, again=True), MachineLacks, "too little memory"),
        (Ending(None, again=True), MachineLacks, "did not answer"),
        # Out of time: who had the processor?
        (Ending(None, overdue=True), MachineLacks, "too little processor time in 60 s"),
        (Ending(None, overdue=True, cpu_seconds=1.0, again=True), MachineLacks, "too little processor time"),
        (Ending(None, overdue=True, cpu_seconds=7.0), TooCostly, "7 s of processor time and 60 s in all"),
    ],
)
def test_endings(ending: Ending, kind: type, words: str) -> None:
    outcome = judge_ending(ending, IMAGE_LIMITS)
    assert isinstance(outcome, kind)
    assert words in str(outcome)


def test_memory_that_the_machine_would_give_is_refused_to_the_image() -> None:
    assert memory_outcome(IMAGE_LIMITS, granted=False) == MachineLacks("there is too little memory")
    outcome = memory_outcome(IMAGE_LIMITS, granted=True)
    assert isinstance(outcome, TooCostly)
    assert "more than 512 MiB" in outcome.reason


def test_limits() -> None:
    assert (IMAGE_LIMITS.cpu_seconds, IMAGE_LIMITS.memory) == (10, 512 * MIB)
    assert limits_for(20_000_000) is IMAGE_LIMITS
    assert limits_for(20_000_001) is limits_for(80_000_000) is LARGE_REFERENCE_LIMITS
    assert (LARGE_REFERENCE_LIMITS.cpu_seconds, LARGE_REFERENCE_LIMITS.memory) == (40, 2048 * MIB)
