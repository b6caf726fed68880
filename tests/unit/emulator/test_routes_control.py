"""Running it: the control routes, the command line, the pure parts."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator, __main__
from airflow_provider_nanobanana.emulator.__main__ import greeting, main, parser, settings_of
from airflow_provider_nanobanana.emulator.faults.kinds import ALIASES, KINDS
from airflow_provider_nanobanana.emulator.ledger import TaskLedger
from airflow_provider_nanobanana.emulator.requests import Submission
from airflow_provider_nanobanana.emulator.settings import Settings, connection_json


def test_the_request_log_tells_who_brought_a_key_where(
    emulator: Emulator, client: Any, image_url: Callable[..., str]
) -> None:
    url = image_url()
    httpx.get(url, trust_env=False)
    httpx.get(url, headers={"X-Key": emulator.api_key}, trust_env=False)
    client.get(url)
    api = [entry for entry in emulator.requests() if entry["kind"] == "api"]
    assert [(entry["point"], entry["method"], entry["status"]) for entry in api] == [
        ("submit", "POST", 200),
        ("status", "GET", 200),
    ]
    assert all(entry["authorization"] and entry["host"] == emulator.api_url.removeprefix("http://") for entry in api)
    files = [entry for entry in emulator.requests() if entry["kind"] == "files"]
    seen = [(entry["authorization"], entry["key_seen"]) for entry in files]
    assert seen == [(False, False), (False, True), (True, True)]
    stats = emulator.stats()
    assert stats["by_point"] == {"result": {"200": 3}, "status": {"200": 1}, "submit": {"200": 1}}
    assert stats["by_kind"] == {"api": {"200": 2}, "files": {"200": 3}}
    assert stats["image_tasks"]["by_status"] == {"completed": 1}
    assert stats["peak_per_second"].keys() == {"result", "status", "submit"}
    assert 1 <= stats["peak_per_second"]["result"] <= 3 and stats["peak_per_second"]["submit"] == 1


@pytest.mark.parametrize(("on", "alias"), ALIASES)
def test_a_rule_may_use_another_name_of_a_fault(emulator: Emulator, on: str, alias: str) -> None:
    emulator.fault(on=on, kind=alias)
    (rule,) = emulator.faults()
    assert (rule["on"], rule["kind"]) == (on, ALIASES[on, alias])


def test_the_control_api_does_what_the_methods_do(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    submit()
    assert client.post("/emulator/complete").json() == {"completed": 1}
    assert client.get("/emulator/ledger").json() == emulator.ledger()
    assert client.get("/emulator/requests").json()["requests"] == emulator.requests()
    assert client.get("/emulator/stats").json() == emulator.stats()
    rules = [{"on": "submit", "kind": "server_error", "times": 1}]
    assert client.post("/emulator/faults", json=rules).json()["faults"][0]["status"] == 500
    assert submit().status_code == 500
    refused = client.post("/emulator/faults", json=[{"on": "submit", "kind": "nonsense"}])
    assert refused.status_code == 400
    assert client.get("/emulator/faults").json()["faults"][0]["hits"] == 1  # a bad list changes nothing
    assert client.delete("/emulator/faults").json() == {"faults": []}
    assert client.post("/emulator/settings", json={"latency": 0, "credits": 10}).json()["latency"] == 0
    assert client.post("/emulator/settings", json={"speed": 1}).status_code == 400
    assert client.post("/emulator/settings", json={"latency": -1}).status_code == 400
    assert "api_key" not in client.get("/emulator/settings").json()
    assert client.post("/emulator/reset").json() == {"reset": True}
    assert (emulator.ledger()["count"], emulator.requests()) == (0, [])
    assert client.get("/emulator/settings").json()["latency"] == 50


def test_methods_work_from_other_threads_and_after_the_end(clock: Any) -> None:
    with Emulator(latency=0, clock=clock) as emulator:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: emulator.fault(on="status", kind="drop"), range(40)))
        assert len(emulator.faults()) == 40
    assert emulator.ledger()["count"] == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(emulator.api_url, trust_env=False)


def test_two_emulators_do_not_meet() -> None:
    with Emulator(latency=0) as one, Emulator(latency=0, api_key="sk-two") as two:
        key = {"Authorization": "Bearer sk-two"}
        assert httpx.get(one.api_url + "/v1/models", headers=key, trust_env=False).status_code == 401
        assert httpx.get(two.api_url + "/v1/models", headers=key, trust_env=False).status_code == 200
        assert len(one.requests()) == len(two.requests()) == 1


def test_it_ends_though_an_answer_is_still_being_held_back(caplog: pytest.LogCaptureFixture) -> None:
    with Emulator(latency=0) as emulator:
        emulator.fault(on="models", kind="slow", seconds=3600)
        headers = {"Authorization": "Bearer sk-emulator"}
        errors: list[type[Exception]] = []

        def wait() -> None:
            try:
                httpx.get(emulator.api_url + "/v1/models", headers=headers, timeout=60, trust_env=False)
            except httpx.TransportError as error:
                errors.append(type(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not emulator.faults()[0]["hits"]:
            pass
    waiting.join(30)
    assert errors == [httpx.RemoteProtocolError]
    assert [entry["status"] for entry in emulator.requests()] == [0]
    assert caplog.records == [], "no traceback of uvicorn's"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_prints_and_ends(number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "airflow_provider_nanobanana.emulator",
        "--port",
        "0",
        "--latency",
        "0",
        "--seed",
        "3",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        connection = json.loads(greeting.split("AIRFLOW_CONN_NANOBANANA_DEFAULT='")[1].rstrip("'\n"))
        with httpx.Client(base_url=connection["host"], trust_env=False) as client:
            client.headers["Authorization"] = f"Bearer {connection['password']}"
            body = {"model": "nano_banana_2", "prompt": "a kite"}
            key = client.post("/v1/images/generations", json=body).json()["id"]
            for _ in range(3):
                status = client.get(f"/v1/images/generations/{key}").json()
            assert f"files {status['result']['data'][0]['url'].split('/generated')[0]} " in greeting
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    lines = [line.split(" ", 1)[1] for line in out.splitlines()]
    assert lines == [
        f"submit {key} nano_banana_2 1:1 1K $0.025",
        f"completed {key} after 0.0 s, $0.025 settled",
    ]


def test_the_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--latency", "-1"])
    assert "latency: Input should be greater than or equal to 0" in capsys.readouterr().err
    with Emulator() as emulator:
        taken = emulator.api_url.rsplit(":", 1)[1]
        assert main(["--port", taken]) == 1
    assert "cannot listen" in capsys.readouterr().err


def test_the_command_line_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("The emulator needs uvicorn. ")


def test_the_command_line_defaults_are_the_settings_defaults() -> None:
    assert settings_of(parser().parse_args([])) == Settings()
    assert parser().parse_args([]).port == 8787


def test_a_neighbouring_container_may_use_plain_http() -> None:
    connection = connection_json("http://toapis:8787", Settings(submit_rate=7))
    assert connection["extra"] == {"submit_rate": 7, "query_rate": 50, "allow_http": True}


def test_the_public_address_stands_in_links(clock: Any) -> None:
    with Emulator(latency=0, clock=clock) as emulator:
        emulator.service.files_url = "http://emulator.test:9"
        headers = {"Authorization": "Bearer sk-emulator"}
        with httpx.Client(base_url=emulator.api_url, headers=headers, trust_env=False) as client:
            key = client.post("/v1/images/generations", json={"model": "nano_banana_2", "prompt": "x"}).json()["id"]
            answer = client.get(f"/v1/images/generations/{key}").json()
    assert answer["result"]["data"][0]["url"].startswith("http://emulator.test:9/generated/")


def test_the_same_seed_gives_the_same_ids_and_latencies() -> None:
    def run(seed: int) -> list[Any]:
        with Emulator(seed=seed, clock=lambda: 1000.0) as emulator:
            task = emulator.service.accept(Submission("nano_banana_2", "x"), {})
            return [task.id, task.done]

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_latencies_have_the_median_that_was_set() -> None:
    with Emulator(seed=1, latency=25, sigma=0.4, time_scale=2, clock=lambda: 0.0) as emulator:
        done = sorted(emulator.service.accept(Submission("nano_banana_2", "x"), {}).done for _ in range(2001))
    assert 48 < done[1000] < 52
    assert done[100] < 35
    assert done[1900] > 70


def test_the_ledger_counts_what_it_keeps() -> None:
    ledger = TaskLedger(random.Random(1))
    first = ledger.accept(Submission("m", "x", resolution="4K", client_business_id="a"), 0.0, 10.0)
    ledger.accept(Submission("m", "y", client_business_id="a"), 0.0, 10.0)
    assert (ledger.spent(0.0), ledger.as_dict(0.0)["duplicates"]) == (13, {"a": 2})
    assert ledger.complete_all(5.0) == 2
    assert ledger.complete_all(5.0) == 0
    assert first.state(5.0) == "completed"
    assert ledger.as_dict(4.0)["by_status"] == {"running": 2}


@pytest.mark.parametrize(
    "wrong",
    [{"latency": -1}, {"credits": float("nan")}, {"submit_rate": True}, {"result_format": "GIF"}, {"api_key": ""}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Emulator(**wrong)


def test_importing_the_package_loads_no_server() -> None:
    code = (
        "import sys, airflow_provider_nanobanana, airflow_provider_nanobanana.emulator;"
        "sys.exit(any(name in sys.modules for name in ('starlette', 'uvicorn', 'PIL', 'httpx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_of_the_client_is_used() -> None:
    code = (
        "import sys, airflow_provider_nanobanana.emulator.__main__;"
        "print([name for name in sys.modules if name.startswith('airflow') and '.emulator' not in name])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "['airflow_provider_nanobanana']"


def test_on_ipv6_the_addresses_are_urls() -> None:
    with Emulator(host="::1", latency=0, submit_rate=0, query_rate=0) as emulator:
        assert urlsplit(emulator.api_url).hostname == urlsplit(emulator.files_url).hostname == "::1"
        headers = {"Authorization": f"Bearer {emulator.api_key}"}
        with httpx.Client(base_url=emulator.api_url, headers=headers, trust_env=False) as client:
            key = client.post("/v1/images/generations", json={"model": "nano_banana_2", "prompt": "a kite"}).json()[
                "id"
            ]
            link = client.get(f"/v1/images/generations/{key}").json()["result"]["data"][0]["url"]
        assert httpx.get(link, trust_env=False).status_code == 200
        settings = emulator.service.settings
        host = json.loads(greeting(emulator._server, settings).partition("DEFAULT='")[2].rstrip("'"))["host"]
        assert host == emulator.api_url


def test_whoever_reaches_the_controls_cannot_shut_others_out(emulator: Emulator, client: httpx.Client) -> None:
    assert client.post("/emulator/settings", json={"api_key": "mine"}).status_code == 400
    assert client.post("/emulator/settings", json={"second_api_key": "mine"}).status_code == 400
    assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "rule",
    [
        {"on": "status", "kind": "stuck", "match": 5},
        {"on": "status", "kind": "stuck", "match": ["a"]},
        *[{"on": "status", "kind": "html", "status": status} for status in (-1, 99, 99999, True, 200.5)],
        {"on": "status", "kind": "slow", "seconds": -1},
        {"on": "status", "kind": "slow", "seconds": float("inf")},
        {"on": "status", "kind": "wrong_content_type", "content_type": "x\r\nX: y"},
        {"on": "status", "kind": "wrong_content_type", "content_type": "\u4e2d"},
        {"on": "status", "kind": "more_images", "images": 0},
        {"on": "status", "kind": "more_images", "images": 10**9},
        {"on": "status", "kind": "result_shape", "shape": []},
    ],
    ids=str,
)
def test_a_rule_that_cannot_be_played_is_refused(emulator: Emulator, client: httpx.Client, rule: Any) -> None:
    content = json.dumps([rule])
    assert client.post("/emulator/faults", content=content).status_code == 400
    assert emulator.faults() == []


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b'["\\ud800"]', b"\xff", b""])
def test_json_that_is_none_is_refused_everywhere(client: httpx.Client, body: bytes) -> None:
    for path in ("/v1/images/generations", "/emulator/faults", "/emulator/settings"):
        assert client.post(path, content=body).status_code == 400


@pytest.mark.parametrize(
    "changes", [{"seed": [1]}, {"result_suffix": 5}, {"ignore_client_ids": "no"}, {"latency": "x"}]
)
def test_a_setting_of_another_type_is_refused(client: httpx.Client, changes: dict[str, Any]) -> None:
    assert client.post("/emulator/settings", json=changes).status_code == 400


def test_no_name_of_a_file_is_an_error_of_the_emulators(emulator: Emulator, image_url: Callable[..., str]) -> None:
    url = image_url()
    astray = [url.replace("/generated/", f"/redirect/{hops}/") for hops in ("loop/99", "0/99", "x/302", "-1/302")]
    for bad in (url.replace("_0.", f"_{'1' * 5000}."), f"{url[:-4]}%00.png", *astray):
        assert httpx.get(bad, trust_env=False).status_code == 404


def test_an_image_task_may_name_more_pictures_than_asked(
    emulator: Emulator, client: httpx.Client, submit: Callable[..., httpx.Response]
) -> None:
    emulator.fault(on="status", kind="more_images", images=3)
    key = submit().json()["id"]
    emulator.complete_all()
    data = client.get(f"/v1/images/generations/{key}").json()["result"]["data"]
    assert len({httpx.get(one["url"], trust_env=False).content for one in data}) == 3
    assert emulator.ledger()["charged_usd"] == emulator.ledger()["net_usd"]


@pytest.mark.parametrize("shape", KINDS["result_shape"].params["shape"])
def test_results_may_stand_in_other_places(
    emulator: Emulator, client: httpx.Client, submit: Callable[..., httpx.Response], shape: str
) -> None:
    emulator.fault(on="status", kind="result_shape", shape=shape)
    key = submit().json()["id"]
    emulator.complete_all()
    body = client.get(f"/v1/images/generations/{key}").json()
    assert emulator.files_url in json.dumps(body) and not isinstance(body.get("data"), list)
    place = body.get("result")
    assert not (isinstance(place, dict) and "data" in place)
