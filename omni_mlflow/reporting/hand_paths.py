"""Where hands went and where they were foretold to go, drawn as someone sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omni_mlflow.reporting.drawing import BLUE, INK, ORANGE, as_png, legend, new_figure, short
from omni_mlflow.reporting.figures import ReportFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HAND_PATHS = "hand_paths.json"
"""By sample and hand the wrist's path, true and foretold: metres, x right, y down for whom ``seen`` names."""

_COLUMNS = 3
_CAPTION = (
    "Both wrists over the horizon, {seen}; a dot is where the hand is now. "
    "Samples are spread evenly over those held out: neither the best nor the worst are picked."
)


def hand_paths_figure(document: Mapping[str, Any]) -> ReportFigure:
    """Draw one panel per sample of a ``hand_paths.json``."""
    samples: Sequence[Mapping[str, Any]] = document["samples"]
    rows = -(-len(samples) // _COLUMNS)
    figure, axes = new_figure(0.6 + 2.6 * rows)
    axes.remove()
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel().tolist()
    for panel in panels[len(samples) :]:
        panel.remove()
    for panel, sample in zip(panels, samples, strict=False):
        _draw(panel, sample)
    legend(figure, [(BLUE, "o", "true"), (ORANGE, "s", "foretold")])
    caption = _CAPTION.format(seen=document["seen"])
    return ReportFigure("hand_paths", "True and foretold hand paths", caption, as_png(figure))


def _draw(axes: Axes, sample: Mapping[str, Any]) -> None:
    for hand in sample["hands"].values():
        for name, colour, style in (("true", BLUE, "-"), ("foretold", ORANGE, "--")):
            path = hand[name]
            axes.plot([x for x, _ in path], [y for _, y in path], style, color=colour, linewidth=1.8)
        axes.plot(*hand["now"], "o", color=INK, markersize=4)
    axes.set_title(short(sample["id"], 34), fontsize=8)
    axes.invert_yaxis()
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("x (m)", fontsize=7)
    axes.set_ylabel("y (m)", fontsize=7)
