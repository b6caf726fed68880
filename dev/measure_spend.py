"""How long ``spend`` takes, and how much memory, over a folder of many manifests::

    .venv/bin/python -m dev.measure_spend [--manifests 2000] [--images 500] [--claims 0] [-- --by request ...]

Makes the manifests in a temporary folder (a million images take 1.3 GB), as generate writes them: a tenth of the
images reused, a hundredth failed and refunded, each prompt another one. With ``--claims`` so many of the images have
claims and books of 25, too, a hundredth of them without a file or a manifest. Then runs the command in a process of its
own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.batch.manifest import utc_text
from airflow_provider_nanobanana.stored_forms import MANIFEST

_PROMPT = "a hat of colour {} on a shelf of oak, in the light of a late afternoon, seen from below; " * 4
_BOOK = 25
#: When the first image was submitted, in epoch seconds.
_FIRST = 1795698873.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the folder, run the command, print seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=2000)
    parser.add_argument("--images", type=int, default=500, help="of each manifest")
    parser.add_argument("--claims", type=int, default=0, help="how many images have claims and books")
    parser.add_argument("options", nargs="*", help="of the command")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nanobanana-spend-") as name:
        folder = Path(name)
        began = time.monotonic()
        size = make_folder(folder, options.manifests, options.images, options.claims)
        print(f"made {size / 1e9:.2f} GB in {time.monotonic() - began:.0f} s", file=sys.stderr)
        return _measure(folder, options.options)


def make_folder(folder: Path, manifests: int, images: int, claims: int = 0) -> int:
    """Write manifests, claims and books; return the bytes of the manifests."""
    dice = random.Random(1)
    claim_folder, book_folder = folder / ".nanobanana" / "claims", folder / ".nanobanana" / "books"
    claim_folder.mkdir(parents=True)
    book_folder.mkdir()
    size = 0
    for number in range(manifests):
        run = {"dag_id": f"dag_{number % 20}", "run_id": f"scheduled__{number}", "task_id": "generate", "map_index": -1}
        entries = [_image(number, index, dice) for index in range(images)]
        text = json.dumps(_manifest(run, entries, folder), indent=2, sort_keys=True)
        if claims > 0:
            _write_claims(folder, run, entries[:claims])
            claims -= len(entries[:claims])
        size += (folder / f"manifest-{number}.json").write_text(text)
    return size


def _image(manifest: int, index: int, dice: random.Random) -> dict[str, Any]:
    prompt = _PROMPT.format(f"{manifest}.{index}", 1, 2, 3)
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    reused, failed = dice.random() < 0.1, dice.random() < 0.01
    entry = {
        "bytes": 1_400_000 + index,
        "charged": "no",
        "cost_is_listed": index % 7 == 0,
        "cost_usd": 0.0 if reused or failed else 0.025,
        "digest": digest,
        "fields": {
            "extra_body": {},
            "model": "nano_banana_2",
            "prompt": prompt,
            "reference_images": [],
            "resolution": "1K",
            "response_format": "url",
            "size": "1:1",
            "variant": "",
        },
        "format": "png",
        "height": 1024,
        "id": None if reused else f"tsk_img_{digest[:26].upper()}",
        "index": 0,
        "key": f"{digest[:16]}-0",
        "model": "nano_banana_2",
        "name": None,
        "paid_usd": 0.0 if reused or failed else 0.025,
        "request": index,
        "reused": reused,
        "sha256": digest,
        "shared": False,
        "times": {"submitted_at": utc_text(_FIRST + 3600 * manifest + index)},
        "uri": f"s3://my_aws_connection@my-bucket/pictures/{digest[:16]}-0.png",
        "width": 1024,
    }
    return entry | ({"code": "generation_failed", "message": "failed"} if failed else {})


def _manifest(run: dict[str, Any], entries: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    paid = round(sum(entry["paid_usd"] for entry in entries), 6)
    return {
        "version": MANIFEST.version,
        **run,
        "destination": folder.as_uri(),
        "cost_usd": paid,
        "paid_usd": paid,
        "of_which_listed_usd": 0.0,
        "images": [entry for entry in entries if "code" not in entry],
        "failed": [entry for entry in entries if "code" in entry],
        "former": [],
        "abandoned": [],
        "quarantined": [],
    }


def _write_claims(folder: Path, run: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    by = {"namespace": "", "dag": run["dag_id"], "run": run["run_id"], "task": run["task_id"], "map": -1, "try": 1}
    for start in range(0, len(entries), _BOOK):
        book = hashlib.sha256(entries[start]["digest"].encode()).hexdigest()[:32]
        bought = {}
        for entry in entries[start : start + _BOOK]:
            stem = entry["key"]
            claim = {"v": 1, "stem": stem, "digest": entry["digest"], "nonce": entry["digest"][:32], "n": 0, "by": by}
            claim |= {"because": "first", "prev": None, "at": _FIRST + entry["request"], "book": book}
            (folder / ".nanobanana" / "claims" / f"{stem}.g0.json").write_text(json.dumps(claim))
            lost = entry["request"] % 100 == 0
            bought[f"{stem}.g0"] = ["bought", f"tsk_lost_{stem}" if lost else entry["id"] or f"tsk_{stem}"]
            if not lost:
                (folder / f"{stem}.png").touch()
        content = {"v": 1, "entries": bought, "by": by, "models": dict.fromkeys(bought, "nano_banana_2")}
        (folder / ".nanobanana" / "books" / f"{book}.json").write_text(json.dumps(content))


def _measure(folder: Path, options: Sequence[str]) -> int:
    """Run the command, and print what it took."""
    code = (
        "import sys; from airflow_provider_nanobanana.__main__ import main; status = main(sys.argv[1:]); "
        "sys.stderr.write(open('/proc/self/status').read()); sys.exit(status)"
    )
    began = time.monotonic()
    command = [sys.executable, "-c", code, "spend", str(folder), *options]
    ended = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    peak = re.search(r"VmHWM:\s+(\d+) kB", ended.stderr)
    print(ended.stderr.partition("Name:")[0], file=sys.stderr)
    megabytes = int(peak[1]) / 1000 if peak else float("nan")
    print(f"{seconds:.1f} s, {megabytes:.0f} MB at most, exit status {ended.returncode}", file=sys.stderr)
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
