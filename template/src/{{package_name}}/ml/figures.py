"""One look for all plots: matplotlib figures without global state, as small inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#334155"
MUTED = "#94a3b8"
ACCENT = "#2563eb"

STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
    # Text stays text: smaller, and it can be selected.
    "svg.fonttype": "none",
    # Without a salt, ids differ from one drawing of the same plot to the next.
    "svg.hashsalt": "figures",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
# Ids such as "axes_1", which every plot repeats and nothing refers to.
UNUSED_ID = re.compile(r' id="[A-Za-z0-9.]+_\d+"')


def draw(plot: Callable[[Axes], None], xlabel: str, ylabel: str) -> str:
    """Return what `plot` draws on a pair of axes as an SVG element; same data, same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.grid(linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        plot(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    svg = buffer.getvalue()
    return UNUSED_ID.sub("", svg[svg.index("<svg") :])


def thin(*series: NDArray[np.float64], points: int = 200) -> list[NDArray[np.float64]]:
    """Keep evenly spaced points of curves of equal length, including the first and the last."""
    length = series[0].size
    keep = np.unique(np.linspace(0, length - 1, min(points, length)).astype(int))
    return [values[keep] for values in series]
