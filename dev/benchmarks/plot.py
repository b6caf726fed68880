"""The picture of the page: how late images are noticed, and how many by when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.benchmarks.bench import Figures
from dev.benchmarks.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _BASELINE, _TRUTH, _INK = "#0b6e99", "#d9730d", "#8f8d88", "#37352f"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": "#9b9a97",
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": _INK,
    "axes.grid": True,
    "grid.color": "#ecebe9",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.hashsalt": "benchmarks",
}


def drawable(result: Result) -> bool:
    """Whether both sides noticed anything."""
    return all(side is not None and side["delay"] for side in (result.measured.ours, result.measured.baseline))


def draw(result: Result, path: Path) -> None:
    """Draw the figures of ``poll-1000``; the suffix of the path decides the format.

    :raises ImportError: matplotlib is not there (the extra ``bench``).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    measured = result.measured
    assert measured.baseline is not None
    with pyplot.rc_context(_STYLE):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11.5, 4.4), layout=ConstrainedLayoutEngine(w_pad=0.12))
        _delays(left, measured.ours, measured.baseline)
        _progress(right, measured.ours, measured.baseline)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata, facecolor="white", dpi=130)
        pyplot.close(figure)


def _delays(axes: Axes, ours: Figures, baseline: Figures) -> None:
    axes.set_title("How late a finished image is noticed")
    for figures, colour, name in ((ours, _OURS, "one poller"), (baseline, _BASELINE, "a client per trigger")):
        curve, spread = figures["delay_curve"], figures["delay"]
        shares = [100 * step / (len(curve) - 1) for step in range(len(curve))]
        curve, shares = [*curve, max(baseline["delay"]["max"], curve[-1])], [*shares, 100.0]
        label = f"{name}\n{spread['mean']:.1f} s on average, 95 % within {spread['p95']:.0f} s"
        axes.plot(curve, shares, color=colour, linewidth=2.6, label=label)
        axes.axvline(spread["mean"], color=colour, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.set_xlabel("seconds from completion to detection")
    axes.set_ylabel("share of the image tasks, %")
    axes.set_xlim(0, 1.15 * baseline["delay"]["p99"])
    axes.set_ylim(0, 102)
    _legend(axes)


def _progress(axes: Axes, ours: Figures, baseline: Figures) -> None:
    axes.set_title(f"{ours['count']:,} image tasks submitted at once")
    series = (
        (ours["completed_by"], _TRUTH, "completed at the service"),
        (ours["detected_by"], _OURS, "noticed by one poller"),
        (baseline["detected_by"], _BASELINE, "noticed with a client per trigger"),
    )
    end = max(_moment(counts, 0.99) for counts, _, _ in series) * 1.1
    for counts, colour, label in series:
        held = counts + [counts[-1]] * max(0, int(end) + 2 - len(counts))
        axes.plot(range(len(held)), held, color=colour, linewidth=2.6, label=label)
    axes.set_xlabel("seconds since the submit")
    axes.set_ylabel("image tasks")
    axes.set_xlim(0, end)
    axes.set_ylim(0, ours["count"] * 1.02)
    _legend(axes)


def _moment(counts: list[int], share: float) -> int:
    """Return the second by which this share of the last count was reached."""
    return next(second for second, count in enumerate(counts) if count >= share * counts[-1])


def _legend(axes: Axes) -> None:
    legend = axes.legend(loc="lower right", labelcolor="linecolor", handlelength=1.2, labelspacing=0.9)
    # A line that runs behind the words must not run through them.
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.92)
