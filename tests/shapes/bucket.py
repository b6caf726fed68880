"""A bucket of a store that speaks S3 (moto's), reached by Airflow's processes through an Amazon connection."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.moto_store import conditional_writes

NAME = "shapes"
CONNECTION = "store"


def missing_packages() -> list[str]:
    """Return which packages of the extra ``dev`` are not installed here, and are needed."""
    return [name for name in ("moto", "flask", "flask_cors", "s3fs") if importlib.util.find_spec(name) is None]


class Bucket:
    """What lies in the store, seen past Airflow.

    :param endpoint: The store's address.
    """

    def __init__(self, endpoint: str) -> None:
        import boto3

        self._client: Any = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        self._client.create_bucket(Bucket=NAME)
        extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        connection = json.dumps({"conn_type": "aws", "login": "key", "password": "secret", "extra": extra})
        #: What each process needs.
        self.environment = {f"AIRFLOW_CONN_{CONNECTION.upper()}": connection, "AWS_EC2_METADATA_DISABLED": "true"}

    def uri(self, folder: str) -> str:
        """Return the URI of a folder as a destination or a setting has it."""
        return f"s3://{CONNECTION}@{NAME}/{folder}"

    def keys(self, folder: str) -> list[str]:
        """List the objects of a folder, all levels."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=NAME, Prefix=f"{folder}/")
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        """Return an object."""
        content: bytes = self._client.get_object(Bucket=NAME, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        """Replace an object."""
        self._client.put_object(Bucket=NAME, Key=key, Body=content)

    def delete(self, *keys: str) -> None:
        """Remove objects."""
        for key in keys:
            self._client.delete_object(Bucket=NAME, Key=key)

    def pictures(self, folder: str) -> dict[str, str]:
        """Return the pictures of a folder by name, each with the hash of its bytes."""
        found = (key for key in self.keys(folder) if key.endswith(".png") and "/.nanobanana/" not in key)
        return {key.rpartition("/")[2]: hashlib.sha256(self.get(key)).hexdigest() for key in found}


@contextlib.contextmanager
def running_bucket() -> Iterator[Bucket]:
    """Serve the store as long as the context lasts."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # moto's stores are this process's: another test's pictures would be in place already.
    httpx.post(f"http://{host}:{port}/moto-api/reset", trust_env=False).raise_for_status()
    try:
        with conditional_writes():
            yield Bucket(f"http://{host}:{port}")
    finally:
        server.stop()
