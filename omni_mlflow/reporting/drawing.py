"""How every plot is drawn: 900 pixels wide, the same bytes for the same numbers.

Colours are the colour-blind-safe set of Okabe and Ito (2008); shape or position always says the same.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
INK, FAINT = "#222222", "#8a8a8a"
_DPI = 100
_WIDTH_IN = 9.0


def new_figure(height_in: float) -> tuple[Figure, Axes]:
    figure, [axes] = new_panels([height_in])
    return figure, axes


def new_panels(heights_in: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Axes one below the other, each with its own height."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, sum(heights_in)), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    grid = figure.add_gridspec(len(heights_in), 1, height_ratios=heights_in)
    panels = [figure.add_subplot(grid[place]) for place in range(len(heights_in))]
    for axes in panels:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=10)
    return figure, panels


def draw_interval(
    axes: Axes,
    line: float,
    value: float | None,
    interval: Mapping[str, Any] | None,
    *,
    colour: str,
    mark: str,
) -> None:
    if interval is not None and interval["low"] is not None:
        axes.plot(
            [interval["low"], interval["high"]],
            [line, line],
            color=colour,
            linewidth=2.4,
            solid_capstyle="butt",
        )
    if value is not None:
        axes.plot(value, line, mark, color=colour, markersize=7)


def label_lines(axes: Axes, labels: Sequence[str], *, below: float = 0.6) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 1 + below, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def value_axis(axes: Axes, title: str, unit: str | None) -> None:
    if unit is None:
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks(np.linspace(0, 1, 6))
    else:
        axes.set_xlim(left=0)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(title if unit is None else f"{title}; {unit}")


def legend(figure: Figure, looks: Sequence[tuple[str, str, str]]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=mark, markeredgecolor=INK, linestyle="", label=label)
        for colour, mark, label in looks
    ]
    columns = len(handles) if len(handles) <= 4 else 3
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)


def short(text: str, length: int) -> str:
    """Cut the middle out of a long label; a dollar sign stays one instead of starting a formula."""
    head = 2 * length // 3
    cut = text if len(text) <= length else f"{text[:head]}…{text[head + 1 - length :]}"
    return (cut or "(no label)").replace("$", r"\$")


def as_png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
