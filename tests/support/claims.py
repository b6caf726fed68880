"""Claims and books as they lie at a destination, for tests that only read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.durable.claims import BookEntry, Buyer, Claim, encode_book

BOOK = "c" * 32
BUYER = Buyer(dag_id="kites", run_id="monday", task_id="generate", try_number=1)


def claim(stem: str = "hero-5f0c6e9a1b", n: int = 0, **fields: Any) -> Claim:
    given = {"digest": "a" * 64, "nonce": f"{n:032x}", "at": 1795698873.0, "by": BUYER, "book": BOOK, **fields}
    return Claim(stem=stem, n=n, **given)


def write_claim(folder: Path, made: Claim) -> Path:
    return write(folder, "claims", f"{made.name}.json", made.encode())


def write_book(folder: Path, entries: Mapping[str, BookEntry], name: str = BOOK, buyer: Buyer = BUYER) -> Path:
    models = dict.fromkeys(entries, "nano_banana_2")
    return write(folder, "books", f"{name}.json", encode_book(entries, buyer=buyer, models=models))


def write(folder: Path, kind: str, name: str, content: bytes) -> Path:
    path = folder / ".nanobanana" / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
