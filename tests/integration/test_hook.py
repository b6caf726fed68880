"""The hook's own promises: free tests with useful words, connections in every form, clients closed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_nanobanana.emulator import Emulator, responses
from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.hooks.connection import check_account
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.toapis.catalogue import MODELS
from airflow_provider_nanobanana.toapis.protocol import balance_call
from airflow_provider_nanobanana.toapis.responses import Balance
from tests.integration.conftest import ServiceClock


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", json.dumps({"conn_type": "nanobanana", **fields}))


def test_a_good_connection_is_told_with_its_credits(emulator: Emulator) -> None:
    emulator.configure(credits=100)
    ok, message = NanoBananaHook().test_connection()
    assert ok
    assert "100 credits" in message
    assert "$0.50" in message
    assert emulator.ledger()["count"] == 0, "a connection test never buys"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"password": "sk-wrong-key"}, "API key is missing or wrong"),
        ({"password": ""}, "put it into the password field"),
        ({"password": None, "login": "sk-emulator"}, "login field"),
        ({"extra": {"model": "nano_banana_9"}}, "nano_banana_9"),
        ({"host": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"host": "http://example.com"}, "https"),
        ({"host": "https://user:pw@example.com"}, "no user"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"query_rate": 0}}, "query_rate"),
        ({"extra": {"prices": "cheap"}}, "prices"),
    ],
)
def test_a_bad_connection_is_told_by_its_cause(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], said: str
) -> None:
    connect(monkeypatch, **{"host": emulator.api_url, "password": emulator.api_key, **fields})
    ok, message = NanoBananaHook().test_connection()
    assert not ok
    assert said in message
    assert "sk-wrong-key" not in message
    assert "pw@" not in message


def test_an_empty_account_fails_the_test(emulator: Emulator) -> None:
    emulator.configure(credits=0)
    ok, message = NanoBananaHook().test_connection()
    assert not ok
    assert "no credits are left" in message


def test_a_host_that_serves_web_pages_is_told(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, host=f"{emulator.api_url}/console", password=emulator.api_key)
    ok, message = NanoBananaHook().test_connection()
    assert not ok
    assert "Check the host" in message


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_host_is_normalised(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    connect(monkeypatch, host=emulator.api_url + suffix, password=emulator.api_key)
    assert NanoBananaHook().test_connection()[0]


def test_the_uri_form_of_a_connection_works(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    port = emulator.api_url.rpartition(":")[2]
    uri = f"nanobanana://:{emulator.api_key}@127.0.0.1:{port}/?model=gemini-3.1-flash-image-preview&client_ids=false"
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", uri)
    hook = NanoBananaHook()
    assert hook.test_connection()[0]
    assert (hook.settings.model, hook.settings.client_ids) == ("gemini-3.1-flash-image-preview", False)
    assert hook.submit({"prompt": "x"}).client_business_id is None


def test_without_client_ids_a_lost_answer_is_unknown_at_once(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json(client_ids=False))
    emulator.fault(on="submit", kind="html", status=502, committed=True)
    with pytest.raises(NanoBananaException) as caught, NanoBananaHook() as hook:
        hook.submit({"prompt": "x"})
    assert caught.value.charged == "unknown"
    assert slept == []


def test_an_earlier_call_is_looked_up_as_long_as_it_may_stay_out_of_sight(
    emulator: Emulator, slept: list[float]
) -> None:
    with NanoBananaHook() as hook:
        first = hook.submit({"prompt": "x"}, client_business_id="mine", submitted_before=datetime.now(UTC))
        assert 63 <= sum(slept) <= 100 and len(slept) >= 3, "the HTTP timeout here is 3 s"
        waited = len(slept)
        again = hook.submit({"prompt": "x"}, client_business_id="mine", submitted_before=datetime.now(UTC))
        assert (again.id, len(slept)) == (first.id, waited)
        hook.submit({"prompt": "x"}, client_business_id="other")
        assert len(slept) == waited, "the first call with an id of one's own waits for nothing"
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        hook.submit({"prompt": "x"}, client_business_id="third", submitted_before=long_ago)
        assert sum(slept[waited:]) < 20
    assert emulator.ledger()["count"] == 3


def test_an_earlier_call_whose_result_has_expired_is_not_repeated(
    emulator: Emulator, service_clock: ServiceClock
) -> None:
    service_clock.offset = -2 * 86_400
    with NanoBananaHook() as hook:
        first = hook.submit({"prompt": "x"}, client_business_id="mine")
        with pytest.raises(NanoBananaException, match="another client_business_id") as caught:
            hook.submit({"prompt": "x"}, client_business_id="mine")
    assert (caught.value.charged, caught.value.image_task_id) == ("yes", first.id)
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize("client_id", ["order-42", "tsk_img_1", "nb"])
def test_an_own_id_finds_its_image_task_where_answers_do_not_repeat_it(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, client_id: str
) -> None:
    monkeypatch.setattr(responses, "_echo", lambda *about: None)
    with NanoBananaHook() as hook:
        first = hook.submit({"prompt": "x"}, client_business_id=client_id)
        assert hook.submit({"prompt": "x"}, client_business_id=client_id).id == first.id
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize(
    ("options", "client_ids", "words"),
    [
        ({"submitted_before": datetime.now(UTC)}, True, "goes with the client_business_id"),
        ({"submitted_before": datetime(2026, 1, 1), "client_business_id": "mine"}, True, "a time zone"),
        ({"client_business_id": "mine"}, False, "sends no client ids"),
    ],
)
def test_an_id_that_cannot_help_is_refused_before_anything_is_sent(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, options: Any, client_ids: bool, words: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json(client_ids=client_ids))
    with pytest.raises(AirflowFailException, match=words), NanoBananaHook() as hook:
        hook.submit({"prompt": "x"}, **options)
    assert emulator.requests() == []


def test_reads_are_repeated_and_then_given_up(emulator: Emulator, slept: list[float]) -> None:
    emulator.fault(on="balance", kind="server_error", times=2)
    assert NanoBananaHook().balance().unlimited
    assert len(slept) == 2
    emulator.fault(on="models", kind="html")
    with pytest.raises(NanoBananaException) as caught:
        NanoBananaHook().models()
    assert caught.value.retryable
    assert len(slept) == 5


def test_an_upload_is_public_and_repeated(emulator: Emulator, tmp_path: Any) -> None:
    from PIL import Image

    path = tmp_path / "cup.webp"
    Image.new("RGB", (8, 8)).save(path)
    emulator.fault(on="upload", kind="server_error", times=1)
    url = NanoBananaHook().upload(str(path))
    assert url.startswith(emulator.files_url)


def test_an_unknown_model_asks_for_its_dialect_and_sends_nothing(emulator: Emulator) -> None:
    with pytest.raises(AirflowFailException, match=r'\{"models":\{"nano_banana_9":\{"dialect":"reference"\}\}\}'):
        NanoBananaHook().submit({"prompt": "x", "model": "nano_banana_9"})
    assert emulator.stats()["requests"] == 0


def test_unknown_model_error_names_the_documented_ids(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"nano_banana_9": {"dialect": "guide"}}
    connect(monkeypatch, host=emulator.api_url, password=emulator.api_key, extra={"models": rows})
    with pytest.raises(AirflowFailException, match=r"gemini-3\.1-flash-image-preview"):
        NanoBananaHook().submit({"prompt": "x", "model": "nano_banana_9"})


def test_aget_task_and_get_task_agree(emulator: Emulator) -> None:
    with NanoBananaHook() as hook:
        image_task_id = hook.submit({"prompt": "x"}).id
        known = hook.get_task(image_task_id)

    async def ask() -> Any:
        async with NanoBananaHook() as hook:
            return await hook.aget_task(image_task_id)

    assert asyncio.run(ask()) == known


def test_calls_at_once_share_one_asyncio_client(emulator: Emulator) -> None:
    bought = NanoBananaHook().submit({"prompt": "a red kite"})

    async def go() -> list[Any]:
        hook = NanoBananaHook()
        clients = await asyncio.gather(*(hook.aclient() for _ in range(4)))
        found = await hook.aget_task(bought.id)
        await hook.aclose()
        return [*clients, found.id]

    *clients, found = asyncio.run(go())
    assert len(set(map(id, clients))) == 1
    assert found == bought.id


def test_clients_are_closed_and_can_be_opened_again(emulator: Emulator) -> None:
    with NanoBananaHook() as hook:
        first = hook.client
        hook.balance()
    with pytest.raises(RuntimeError, match="closed"):
        first.call(balance_call())
    assert hook.balance().unlimited
    hook.close()


def test_a_key_that_may_spend_nothing_more_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def balance(*, of_key: bool = False) -> Balance:
        return Balance(remain_credits=0.0 if of_key else 500.0)

    ok, message = check_account("nano_banana_2", lambda: ["nano_banana_2"], balance)
    assert not ok
    assert "this key's own quota" in message


def test_a_model_that_the_key_sees_and_nobody_describes_fails_the_test() -> None:
    def balance(*, of_key: bool = False) -> Balance:
        return Balance(remain_credits=500.0)

    ok, message = check_account("newest", lambda: ["newest"], balance)
    assert not ok and '{"models":{"newest":{"dialect":"reference"}}}' in message
    assert check_account("newest", lambda: ["newest"], balance, {"newest": MODELS["nano_banana_2"]})[0]


def test_the_model_of_extra_body_decides_what_is_allowed(emulator: Emulator) -> None:
    request = {"prompt": "x", "size": "21:9", "extra_body": {"model": "gemini-3.1-flash-image-preview"}}
    with NanoBananaHook() as hook:
        hook.submit(request)
    assert emulator.ledger()["image_tasks"][0]["size"] == "21:9"


def test_many_references_are_sent_with_a_warning(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    with NanoBananaHook() as hook:
        hook.submit({"prompt": "x", "reference_images": [f"https://example.com/{n}.png" for n in range(7)]})
    assert "7 reference images" in caplog.text
