"""The picture of the page: how late images are noticed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dev.benchmarks.scenario import Figures, Measured


def draw(measured: Measured, others: Mapping[str, Figures], path: Path) -> None:
    """Draw the delays of ``poll-1000`` as SVG; nothing where a side noticed no image.

    :param others: Ours under other limiters, by their names.
    :raises ImportError: matplotlib is not there (the extra ``bench``).
    """
    sides = {"one poller": measured.ours, "a client per trigger": measured.baseline}
    if not all(figures and figures["delay"] for figures in sides.values()):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "benchmarks", "axes.grid": True, "grid.alpha": 0.3}):
        figure, axes = pyplot.subplots(figsize=(8, 4.4), layout="constrained")
        for name, figures in sides.items():
            assert figures is not None
            delay = figures["delay"]
            label = f"{name}: {delay['mean']:.1f} s on average, 95 % within {delay['p95']:.0f} s"
            axes.plot(figures["delay_curve"], range(101), label=label)
        for figures in others.values():
            if figures["delay"]:
                axes.plot(figures["delay_curve"], range(101), color="0.6", linewidth=0.6, zorder=1)
        if others:
            axes.plot([], [], color="0.6", linewidth=0.6, label=f"one poller, {len(others)} other limiters")
        axes.set(title=f"How late {measured.ours['count']:,} finished images are noticed")
        axes.set(xlabel="seconds from completion to detection", ylabel="share of the image tasks, %", xlim=0, ylim=0)
        axes.legend(loc="lower right")
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
