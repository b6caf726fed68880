"""``check`` against the service in every way it may take client ids, with a clock that waits for nobody."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.cli.check import Output, check
from airflow_provider_nanobanana.cli.connection import CommandLineHook
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from tests.support.pages import snippets

KEY = "sk-1f7d93ab54c20e68"


class Clock:
    """Epoch seconds of service and check alike; it passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def emulator(clock: Clock) -> Iterator[Emulator]:
    with Emulator(latency=10, sigma=0, submit_rate=0, query_rate=0, seed=3, clock=clock, api_key=KEY) as running:
        yield running


@dataclass
class Checked:
    """What one run of the command came to."""

    status: int
    out: str
    err: str = ""

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document

    def mark(self, about: str) -> str:
        (found,) = (finding["mark"] for finding in self.document["findings"] if finding["about"] == about)
        return str(found)


@dataclass
class Command:
    """The command at the emulator."""

    clock: Clock
    monkeypatch: pytest.MonkeyPatch
    emulator: Emulator
    prepare: Callable[[NanoBananaHook], None] = field(default=lambda hook: None)

    def __call__(self, *, buy_one: bool = True, as_json: bool = True, out: Any = None, **extra: Any) -> Checked:
        self.monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", self.emulator.connection_json(**extra))
        out, err = out or io.StringIO(), io.StringIO()
        with CommandLineHook() as hook:
            hook.clock = self.clock
            hook.sleep = self.clock.sleep
            self.prepare(hook)
            status = check(hook, buy_one=buy_one, output=Output(as_json, out, err))
        checked = Checked(status, out.getvalue(), err.getvalue())
        self.account_for(checked)
        return checked

    def account_for(self, checked: Checked) -> None:
        """Every image task of the service is told, by its own id or the client id that leads to it; the key is not."""
        told = checked.out + checked.err
        for image_task in self.emulator.ledger()["image_tasks"]:
            assert image_task["id"] in told or (image_task["client_business_id"] or "no id") in told
        assert KEY not in told


@pytest.fixture
def command(clock: Clock, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(clock, monkeypatch, emulator)


#: Settings of the service; exit status, client_ids, on_unknown_submission, image tasks, marks of id and repetition.
MODES: dict[str, tuple[dict[str, Any], int, bool, str, int, str, str | None]] = {
    "as documented": ({}, 0, True, "resubmit", 2, "fine", "note"),
    "late": ({"lookup_delay": 20}, 0, True, "resubmit", 2, "fine", "note"),
    "too late": ({"lookup_delay": 40}, 1, True, "fail", 2, "missing", "note"),
    "client ids off": ({"ignore_client_ids": True}, 1, False, "fail", 2, "missing", "note"),
    "rejected": ({"reject_client_ids": True}, 1, False, "fail", 1, "missing", None),
    "deduplicating": ({"repeated_client_ids": "return"}, 0, True, "resubmit", 1, "fine", "fine"),
    "refusing": ({"repeated_client_ids": "refuse"}, 0, True, "resubmit", 1, "fine", "fine"),
    "too late, deduplicating": (
        {"lookup_delay": 40, "repeated_client_ids": "return"}, 1, True, "fail", 1, "missing", "fine",
    ),
    "never, deduplicating": (
        {"lookup_delay": 1e6, "repeated_client_ids": "return"}, 1, False, "fail", 1, "missing", "fine",
    ),
    "never, refusing": (
        {"lookup_delay": 1e6, "repeated_client_ids": "refuse"}, 1, False, "fail", 1, "missing", "fine",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_take_client_ids_is_told_and_answered(command: Command, emulator: Emulator, mode: str) -> None:
    settings, status, client_ids, on_unknown, bought, client_id, repetition = MODES[mode]
    emulator.configure(**settings)
    checked = command()
    document = checked.document
    assert checked.mark("client id") == client_id
    assert {finding["mark"] for finding in document["findings"] if finding["about"] == "repetition"} == (
        {repetition} if repetition else set()
    )
    assert document["set"]["extra"]["client_ids"] is client_ids
    assert document["set"]["arguments"] == {"on_unknown_submission": on_unknown}
    assert checked.status == document["exit_status"] == status
    assert emulator.ledger()["count"] == bought
    assert [each["cost_usd"] for each in document["bought"]] == [0.025] * bought
    assert document["may_be_bought"] == []
    assert "two for $0.05" in checked.err.splitlines()[1], "what it costs is said before anything is sent"


def test_without_being_told_to_nothing_is_bought(command: Command, emulator: Emulator) -> None:
    checked = command(buy_one=False, as_json=False)
    assert checked.status == 0
    assert "The key has no limit of its own." in checked.out
    assert "$0.025" in checked.out and "two for $0.05" in checked.out
    assert "HTTP 404 task_not_found" in checked.out
    assert emulator.ledger()["count"] == 0
    assert "submit" not in emulator.stats()["by_point"]


def test_what_may_be_pasted_is_the_whole_extra(command: Command) -> None:
    checked = command(as_json=False, timeout=20, model="gemini-3.1-flash-image-preview")
    lines = checked.out.splitlines()
    extra = json.loads(lines[lines.index("Set the connection's extra to:") + 1])
    assert extra == {
        **{"model": "gemini-3.1-flash-image-preview", "timeout": 20.0, "query_rate": 1000.0},
        **{"client_ids": True, "submit_rate": 1000.0},
    }


# --- answers that are lost, refused or late --------------------------------------------------------------------------


def test_a_lost_answer_is_found_by_its_client_id(command: Command, emulator: Emulator) -> None:
    emulator.fault(on="submit", kind="drop", committed=True, times=1)
    checked = command()
    assert (checked.status, len(checked.document["bought"])) == (0, 2)
    assert checked.document["may_be_bought"] == []


def test_after_a_lost_answer_that_is_not_found_nothing_more_is_bought(command: Command, emulator: Emulator) -> None:
    emulator.configure(ignore_client_ids=True)
    emulator.fault(on="submit", kind="drop", committed=True)
    checked = command()
    (image_task,) = emulator.ledger()["image_tasks"]
    (lost,) = checked.document["may_be_bought"]
    assert lost["client_business_id"] == image_task["client_business_id"]
    assert checked.status == 2
    assert checked.mark("client id") == "untried"
    assert checked.document["set"]["arguments"] == {"on_unknown_submission": "fail"}


def test_a_second_answer_that_is_lost_is_told_by_where_the_id_leads(command: Command, emulator: Emulator) -> None:
    emulator.fault(on="submit", kind="drop", committed=True, skip=1)
    checked = command()
    assert emulator.ledger()["count"] == 2
    ids = {image_task["id"] for image_task in emulator.ledger()["image_tasks"]}
    assert {each["image_task_id"] for each in checked.document["bought"]} == ids
    assert checked.mark("repetition") == "note"


def test_a_second_answer_that_is_lost_for_good_is_not_taken_for_a_deduplication(
    command: Command, emulator: Emulator
) -> None:
    emulator.fault(on="submit", kind="drop", committed=True, skip=1)
    emulator.configure(lookup_delay=1e6)
    checked = command()
    assert checked.mark("repetition") == "untried"
    assert len(checked.document["may_be_bought"]) == 1


def test_an_answer_that_only_looks_like_the_first_one_is_checked_against_the_bill(
    command: Command, emulator: Emulator
) -> None:
    """It deduplicates, and somebody else spends credits meanwhile: better to say that it is not sure."""
    emulator.configure(repeated_client_ids="return")
    hidden: list[float] = []

    def spend(hook: NanoBananaHook) -> None:
        known = emulator.service.ledger.spent

        def spent(now: float) -> float:
            hidden.append(now)
            return known(now) + len(hidden)

        command.monkeypatch.setattr(emulator.service.ledger, "spent", spent)

    command.prepare = spend
    checked = command()
    assert checked.mark("repetition") == "untried"
    assert checked.status == 2


def test_an_account_that_pays_for_one_image_only(command: Command, emulator: Emulator) -> None:
    emulator.configure(credits=5)
    checked = command()
    assert (checked.status, checked.mark("repetition")) == (2, "untried")
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize(("faults", "status"), [({"kind": "quota"}, 1), ({"kind": "no_channel"}, 2)])
def test_a_submit_that_is_not_taken(command: Command, emulator: Emulator, faults: dict[str, Any], status: int) -> None:
    emulator.fault(on="submit", **faults)
    checked = command()
    assert checked.status == status
    assert checked.document["bought"] == []
    assert emulator.ledger()["count"] == 0


def test_a_rate_limit_is_obeyed_and_told(command: Command, emulator: Emulator, clock: Clock) -> None:
    emulator.fault(on="submit", kind="rate_limit", times=1, retry_after=7, category="async_submit")
    began = clock.now
    checked = command(as_json=False)
    assert checked.status == 0
    assert "1 of the calls were answered 429, asking for a pause of up to 7 s" in " ".join(checked.out.split())
    assert clock.now - began >= 7
    assert emulator.ledger()["count"] == 2


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "mark"),
    [
        ({"kind": "result_shape", "shape": "images"}, 0, "fine"),
        ({"kind": "result_shape", "shape": "json_text"}, 0, "fine"),
        ({"kind": "top_level_url"}, 0, "fine"),
        ({"kind": "no_url"}, 1, "missing"),
        ({"kind": "failed"}, 2, "untried"),
        ({"kind": "stuck"}, 2, "untried"),
        ({"kind": "billing", "value": "absent"}, 0, "fine"),
        ({"kind": "expires_at", "value": "missing"}, 0, "fine"),
    ],
    ids=lambda value: str(value.get("kind")) if isinstance(value, dict) else None,
)
def test_every_shape_of_a_result(
    command: Command, emulator: Emulator, fault: dict[str, Any], status: int, mark: str
) -> None:
    emulator.fault(on="status", **fault)
    checked = command()
    assert (checked.mark("result"), checked.status) == (mark, status)
    assert checked.document["fields"]


def test_a_price_of_the_accounts_own_is_proposed(command: Command, emulator: Emulator) -> None:
    checked = command(prices={"1K": 0.03, "4K": 0.05})
    assert checked.document["set"]["extra"]["prices"] == {"1K": 0.03, "4K": 0.05, "nano_banana_2": {"1K": 0.025}}


# --- what keeps it from buying ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "settings", "status", "said"),
    [
        ({"model": "nano_banana_9"}, {}, 1, "nano_banana_9"),
        ({"model": "gemini-3.1-flash-image-preview-vip"}, {}, 2, "price is not known"),
        ({"model": "doubao-seedream-5-0", "prices": {"1K": 0.03}}, {}, 2, "price is not known"),
        ({}, {"credits": 0}, 1, "no credits are left"),
        ({"timeout": "soon"}, {}, 2, "timeout"),
    ],
)
def test_nothing_is_bought_where_it_cannot_be_said_what_it_costs_or_nothing_would_come_of_it(
    command: Command, emulator: Emulator, extra: dict[str, Any], settings: dict[str, Any], status: int, said: str
) -> None:
    emulator.configure(**settings)
    checked = command(**extra)
    assert checked.status == status
    assert said in checked.out
    assert "submit" not in emulator.stats()["by_point"]


@pytest.mark.parametrize(
    ("connection", "status", "said"),
    [
        ({"password": "sk-another-key-0000"}, 1, "API key is missing or wrong"),
        ({"host": "http://127.0.0.1:9"}, 2, "http://127.0.0.1:9"),
        ({"password": ""}, 2, "holds no API key"),
    ],
)
def test_a_connection_that_leads_nowhere(
    command: Command, emulator: Emulator, connection: dict[str, Any], status: int, said: str
) -> None:
    whole = {**json.loads(emulator.connection_json()), **connection}
    command.monkeypatch.setattr(emulator, "connection_json", lambda **extra: json.dumps(whole))
    checked = command()
    assert checked.status == status
    assert said in checked.out
    assert "another-key" not in checked.out + checked.err


def test_an_id_that_nobody_used_must_not_be_there(command: Command, emulator: Emulator) -> None:
    emulator.fault(on="status", kind="not_json", times=5)
    checked = command(buy_one=False)
    assert (checked.status, checked.mark("unknown id")) == (1, "missing")


def test_an_error_that_repeats_the_key_does_not_bring_it_out(command: Command, emulator: Emulator) -> None:
    emulator.fault(on="submit", kind="bad_request", text=f"Incorrect API key provided: {KEY}", times=1)
    emulator.fault(on="submit", kind="content_policy", text=f"refused for {KEY}")
    assert command(as_json=False).status == 1


# --- interruptions ---------------------------------------------------------------------------------------------------


def test_an_interruption_while_waiting_tells_what_was_bought(command: Command, emulator: Emulator) -> None:
    waits: list[float] = []

    def interrupt(hook: NanoBananaHook) -> None:
        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if seconds == 5:
                raise KeyboardInterrupt

        hook.sleep = sleep

    command.prepare = interrupt
    checked = command()
    assert checked.status == 2
    assert len(checked.document["bought"]) == emulator.ledger()["count"] == 2
    assert checked.mark("end") == "untried"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_submit_that_is_cut_off_says_under_which_id_to_look(
    command: Command, emulator: Emulator, error: type[BaseException]
) -> None:
    def interrupt(hook: NanoBananaHook) -> None:
        client = hook.client
        send = client.call

        def call(call: Any, *args: Any) -> Any:
            answer = send(call, *args)
            if call.method == "POST":
                raise error
            return answer

        command.monkeypatch.setattr(client, "call", call)

    command.prepare = interrupt
    out, err = io.StringIO(), io.StringIO()
    command.monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json())
    hook = CommandLineHook()
    interrupt(hook)
    if error is KeyboardInterrupt:
        assert check(hook, buy_one=True, output=Output(False, out, err)) == 2
    else:
        with pytest.raises(error):
            check(hook, buy_one=True, output=Output(False, out, err))
    (image_task,) = emulator.ledger()["image_tasks"]
    last = out.getvalue().splitlines()[-1]
    assert last.startswith("MAY BE BOUGHT")
    assert image_task["client_business_id"] in last


class Gone(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_has_gone_does_not_hide_what_was_bought(command: Command, emulator: Emulator) -> None:
    checked = command(as_json=False, out=Gone())
    ids = [image_task["id"] for image_task in emulator.ledger()["image_tasks"]]
    assert len(ids) == 2 and all(image_task_id in checked.err for image_task_id in ids)


@pytest.mark.parametrize("as_json", [True, False])
def test_where_nobody_listens_nothing_is_bought(
    command: Command, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json())
    with CommandLineHook() as hook, pytest.raises(BrokenPipeError):
        check(hook, buy_one=True, output=Output(as_json, Gone(), Gone()))
    assert emulator.ledger()["count"] == 0


def test_a_terminal_that_knows_no_chinese_is_told_all_the_same(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json())
    emulator.fault(on="submit", kind="server_error", text="系统繁忙", skip=1)
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    with CommandLineHook() as hook:
        hook.clock, hook.sleep = clock, clock.sleep
        assert check(hook, buy_one=True, output=Output(False, out, out)) == 2
    out.seek(0)
    shown = out.read()
    assert emulator.ledger()["image_tasks"][0]["id"] in shown
    assert "\\u7cfb" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_process_that_is_interrupted_tells_what_was_bought(number: signal.Signals, tmp_path: Path) -> None:
    with Emulator(latency=600, sigma=0, api_key=KEY) as emulator:
        environment = {**os.environ, "AIRFLOW_CONN_NANOBANANA_DEFAULT": emulator.connection_json()}
        line = [sys.executable, "-m", "airflow_provider_nanobanana", "check", "--buy-one"]
        with subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            read = []
            for shown in running.stdout:
                read.append(shown)
                if shown.startswith("Image task"):
                    running.send_signal(number)
                    break
            rest, _ = running.communicate(timeout=60)
        out = "".join(read) + rest
        assert running.returncode == 2
        told = [each for each in rest.splitlines() if each.startswith("BOUGHT image task")]
        assert len(told) == emulator.ledger()["count"] == 2
        assert KEY not in out


# --- the page --------------------------------------------------------------------------------------------------------

#: What differs from run to run, or from machine to machine.
OWN = re.compile(r"nb-check-\w+|tsk_img_\w+|127\.0\.0\.1:\d+")
SHOWN: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({}, True),
    ({"ignore_client_ids": True}, True),
    ({"lookup_delay": 20, "repeated_client_ids": "return"}, True),
]


@pytest.mark.parametrize(("number", "mode"), list(enumerate(SHOWN)), ids=["free", "as documented", "off", "late"])
def test_the_page_shows_what_is_said(
    command: Command, emulator: Emulator, number: int, mode: tuple[dict[str, Any], bool]
) -> None:
    settings, buy_one = mode
    emulator.configure(credits=200, latency=8, **settings)
    block = [each for each in snippets("text") if each.page == "check.md"][number]
    said = command(buy_one=buy_one, as_json=False, submit_rate=5, query_rate=50).out
    known = OWN.sub("", said).splitlines()
    shown = [OWN.sub("", line) for line in block.text.splitlines() if line != "..."]
    assert shown == [line for line in known if line in shown]
