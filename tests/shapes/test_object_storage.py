"""XComs, the workers' state store and the pictures in one bucket (S3), Airflow's database holding references alone.

Below Airflow 3.3 there is no state store: the ledger is in XComs there, and so in the bucket.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import USER
from tests.shapes import buying
from tests.shapes.bucket import Bucket
from tests.shapes.gallery_pages import fetch_page, gallery_page, ledger, pictures_seen, visitor
from tests.shapes.stacks import Started
from tests.support.versions import STATE_STORE, gives

HAS_STATE_STORE: Final = gives(STATE_STORE)


def settings(bucket: Bucket) -> dict[str, str]:
    """Return what puts every value into the bucket, however small."""
    found = {
        "CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "COMMON_IO__XCOM_OBJECTSTORAGE_PATH": bucket.uri("xcom"),
        "COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
    }
    if HAS_STATE_STORE:
        backend = "airflow.providers.common.io.state_store.backend.StateStoreObjectStorageBackend"
        found["WORKERS__STATE_STORE_BACKEND"] = backend
        found["COMMON_IO__STATE_STORE_OBJECTSTORAGE_PATH"] = bucket.uri("state")
        found["COMMON_IO__STATE_STORE_OBJECTSTORAGE_COMPRESSION"] = "gzip"
    named = {f"AIRFLOW__{name}": value for name, value in found.items()}
    return {**bucket.environment, **named}


def test_with_everything_in_a_bucket_pictures_are_bought_once(
    tmp_path: Path, emulator: Emulator, started: Started, bucket: Bucket
) -> None:
    if find_spec("airflow.providers.common.io") is None:
        pytest.skip("apache-airflow-providers-common-io is not installed (make venv)")
    # With a namespace no manifest can be found by its name alone.
    env = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": emulator.connection_json(namespace="shapes"), **settings(bucket)}
    stack = started.stack(tmp_path / "airflow", emulator, env)
    stack.start(timeout=400)
    place = buying.Place(lambda name: bucket.uri(f"pictures/{name}"), lambda name: bucket.pictures(f"pictures/{name}"))
    runs = buying.buy(stack.api, emulator, place)
    generate, _ = runs
    assert bucket.keys("xcom")
    assert str(generate.xcom("pictures")).startswith(bucket.uri("xcom")), "the database holds no result"
    if HAS_STATE_STORE:
        assert [key for key in bucket.keys("state") if "nanobanana_ledger" in key]
    with visitor(stack.url, USER, stack.password) as client:
        for run in runs:
            assert pictures_seen(client, run) == 3
            fetch_page(client, gallery_page(run))
        assert len(ledger(client, generate, "pictures")["rows"]) == 3
        assert generate.dag_id in client.get("nanobanana/api/spend").raise_for_status().text
    buying.clear(runs, emulator, place)


@pytest.mark.skipif(not HAS_STATE_STORE, reason="Airflow has a state store from 3.3 on")
def test_what_is_bought_again_where_records_are_gone_or_cut_off(
    tmp_path: Path, emulator: Emulator, started: Started, bucket: Bucket
) -> None:
    """As by a lifecycle rule on the records, and by an upload that broke off (a store of files; S3's are whole)."""
    stack = started.stack(tmp_path / "airflow", emulator, settings(bucket))
    stack.start(timeout=400)
    place = buying.Place(lambda name: bucket.uri(f"pictures/{name}"), lambda name: bucket.pictures(f"pictures/{name}"))
    runs = buying.buy(stack.api, emulator, place)
    generate, pipeline = runs
    bucket.delete(*bucket.keys("state"))
    buying.clear([generate], emulator, place)
    # A finished run that is cleared begins anew, and the ids of its submits are made from that: they buy again.
    buying.run_again([pipeline])
    again = {prompt: count for prompt, count in buying.charges(emulator).items() if count > 1}
    assert again == {f"{pipeline.dag_id} {number}": 2 for number in range(3)}

    charged = buying.charges(emulator)
    ledgers = {key: bucket.get(key) for key in bucket.keys("state") if "nanobanana_ledger" in key}
    for key, content in ledgers.items():
        bucket.put(key, content[:20])
    generate.clear("pictures")
    # After a failed try the next one reads again, until somebody removes what cannot be read.
    generate.wait_for("pictures", "up_for_retry", "failed", timeout=240)
    said = generate.log("pictures", try_number=generate.instances("pictures")[0]["try_number"])
    assert "could not be read" in said and "kubernetes-and-celery.md" in said, said[-3000:]
    bucket.delete(*ledgers)
    generate.wait(300)
    if generate.states()["pictures"] != ["success"]:
        generate.clear("pictures")
    assert generate.wait(300) == "success", generate.states()
    assert buying.charges(emulator) == charged
