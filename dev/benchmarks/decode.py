"""How long and in how much memory files are decoded: those of a 4K image, and those made to take all there is.

- `decode-4k`: eight images of 4096x4096 pixels, two each of the emulator's PNG and JPEG, and of noisy ones like photos.
  Ours decodes them in the child process, its start included; the baseline is the same check in the process itself, as
  it was before. Both in fresh processes, five times in turn; of each side the fastest run counts.
- `bombs`: each bomb lands among seven images of 1024x1024 pixels with four threads, in a fresh process, as one of 16
  and one of 64 MiB: legal files, in which something small stands as often as fits, and pictures of 19 megapixels whose
  decoders need memory of their own (`dev/benchmarks/bombs.py`). The memory is the resident memory of the process and
  its child, sampled every 10 ms, above what the process had before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from dev.benchmarks import bombs
from dev.benchmarks.scenario import Bench, Figures, Goal, Measured, Scenario
from dev.stack.processes import REPO, child_environment

_ROUNDS = 5
_SIDE = 4096
_SAMPLE = 0.01
_GOOD = 7


def measure_4k(bench: Bench) -> Measured:
    """Decode the same eight files on both sides, in turn."""
    folder = bench.fresh("decode-4k")
    _process(folder, "draw", 512 if bench.quick else _SIDE)
    runs: dict[str, list[Figures]] = {"child": [], "here": []}
    for _ in range(1 if bench.quick else _ROUNDS):
        for where, of in runs.items():
            of.append(_process(folder, "decode", where)[0])
    best = {where: min(of, key=lambda run: float(run["seconds"])) for where, of in runs.items()}
    bench.say(f"decode-4k: {best['child']['seconds']:.2f} s in the child, {best['here']['seconds']:.2f} s before")
    ours = {**best["child"], "ratio": best["child"]["seconds"] / best["here"]["seconds"]}
    return Measured({"files": 8, "side": 512 if bench.quick else _SIDE}, ours, {**best["here"], "ratio": 1.0})


def measure_bombs(bench: Bench) -> Measured:
    """Land one bomb after the other among good images."""
    folder = bench.fresh("bombs")
    found: Figures = {}
    for kind in ("jpeg-app", "jpeg-heavy-scans") if bench.quick else bombs.BOMBS:
        for size in (1,) if bench.quick else (16, 64):
            _process(folder, "make", kind, size)
            (line, peak) = _process(folder, "land")
            found[f"{kind}-{size}"] = line | {"added_bytes": peak - line.pop("before")}
            bench.say(f"bombs: {kind} of {size} MiB: {found[f'{kind}-{size}']}")
    return Measured({"good": _GOOD}, {"bombs": found})


def _process(folder: Path, *arguments: object) -> tuple[Figures, int]:
    """Run ``python -m dev.benchmarks.decode_process`` and return its last line, and the most memory of its family."""
    command = [sys.executable, "-m", "dev.benchmarks.decode_process", str(folder), *map(str, arguments)]
    peak = 0
    with subprocess.Popen(command, cwd=REPO, env=child_environment(), stdout=subprocess.PIPE, text=True) as process:
        one = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _resident(one))
            time.sleep(_SAMPLE)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    if process.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return dict(json.loads(lines[-1])), peak


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:  # ended meanwhile
        pass
    return total


def _worst(of: Figures, figure: str) -> tuple[str, float]:
    name = max(of["bombs"], key=lambda one: of["bombs"][one][figure])
    return name, float(of["bombs"][name][figure])


def _shown_worst(of: Figures) -> str:
    slowest, seconds = _worst(of, "seconds")
    largest, added = _worst(of, "added_bytes")
    return f"{seconds:.1f} s ({slowest}), {added / 1e6:.0f} MB ({largest})"


def _is_bounded(ours: Figures) -> bool:
    return _worst(ours, "seconds")[1] <= 15 and _worst(ours, "added_bytes")[1] <= 600e6


def _is_accounted_for(ours: Figures) -> bool:
    """Say whether all good images landed, and each bomb did, too, or is in quarantine."""
    return all(
        bomb["landed"] + bomb["quarantined"] == _GOOD + 1 and bomb["good"] == _GOOD for bomb in ours["bombs"].values()
    )


SCENARIOS = [
    Scenario(
        "decode-4k",
        measure_4k,
        [
            Goal(
                "eight 4K files decoded: time over that of decoding in the process itself",
                "<= 1.10",
                lambda of: f"{of['ratio']:.2f} ({of['seconds']:.2f} s, {of['cpu_seconds']:.2f} s of CPU)",
                lambda ours, _: ours["ratio"] <= 1.1,
                today="1.00",
            )
        ],
    ),
    Scenario(
        "bombs",
        measure_bombs,
        [
            Goal(
                "a bomb among seven images: longest time, most memory added",
                "<= 15 s, <= 600 MB",
                _shown_worst,
                lambda ours, _: _is_bounded(ours),
                today="11 s to hours, up to 4.4 GB",
            ),
            Goal(
                "good images landed beside each bomb, which landed or is in quarantine",
                "7 of 7, always",
                lambda of: f"{min(bomb['good'] for bomb in of['bombs'].values())} of {_GOOD}",
                lambda ours, _: _is_accounted_for(ours),
            ),
        ],
    ),
]
