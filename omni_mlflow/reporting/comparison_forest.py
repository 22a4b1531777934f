"""The forest plot of a comparison."""

from __future__ import annotations

from omni_mlflow.metrics.comparison import ComparedMetric
from omni_mlflow.reporting.comparison_facts import ComparisonFacts
from omni_mlflow.reporting.drawing import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    as_png,
    draw_interval,
    label_lines,
    legend,
    new_panels,
    value_axis,
)

_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"), (PURPLE, "v"))
_STEP = 0.22


def forest_plot(facts: ComparisonFacts) -> bytes:
    """Draw, for each metric, the difference of every row to the reference; without another row the seeds.

    Metrics of one unit share an axis.
    """
    return _differences(facts) if len(facts.rows) > 1 else _seeds(facts)


def _differences(facts: ComparisonFacts) -> bytes:
    others = facts.rows[1:]
    looks = {row.name: _LOOKS[place % len(_LOOKS)] for place, row in enumerate(others)}
    groups = _by_unit(facts)
    figure, panels = new_panels([1.6 + (0.3 + 0.2 * len(others)) * len(group) for group in groups.values()])
    for axes, (unit, group) in zip(panels, groups.items(), strict=True):
        for line, metric in enumerate(group):
            for place, contrast in enumerate(metric.contrasts):
                colour, mark = looks[contrast.row]
                limits = {"low": contrast.low, "high": contrast.high}
                draw_interval(
                    axes, line + place * _STEP, contrast.difference, limits, colour=colour, mark=mark
                )
        axes.axvline(0, color=FAINT, linewidth=1.2)
        label_lines(axes, [metric.title for metric in group], below=0.6 + _STEP * (len(others) - 1))
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        furthest = max([0.05, *(abs(limit) for limit in axes.get_xlim())])
        axes.set_xlim(-furthest, furthest)
        axes.set_xlabel(_difference_to(facts.rows[0].name, unit))
    legend(figure, [(*looks[row.name], row.title) for row in others])
    return as_png(figure)


def _difference_to(reference: str, unit: str | None) -> str:
    told = f"difference to {reference}, positive in the row's favour; bar: 95 % interval"
    return told if unit is None else f"{told}; {unit}"


def _seeds(facts: ComparisonFacts) -> bytes:
    groups = _by_unit(facts)
    figure, panels = new_panels([1.6 + 0.42 * len(group) for group in groups.values()])
    for axes, (unit, group) in zip(panels, groups.items(), strict=True):
        for line, metric in enumerate(group):
            for score in metric.scores:
                limits = {"low": score.low, "high": score.high}
                draw_interval(axes, line, score.value, limits, colour=BLUE, mark="o")
                values = list(score.seeds.by_run.values()) if score.seeds else []
                axes.plot(values, [line + _STEP] * len(values), "x", color=INK, markersize=6)
        label_lines(axes, [metric.title for metric in group])
        value_axis(axes, "value; bar: 95 % interval over episodes", unit)
    legend(figure, [(BLUE, "o", facts.rows[0].title), (INK, "x", "one seed")])
    return as_png(figure)


def _by_unit(facts: ComparisonFacts) -> dict[str | None, list[ComparedMetric]]:
    groups: dict[str | None, list[ComparedMetric]] = {}
    for metric in facts.metrics:
        groups.setdefault(metric.unit, []).append(metric)
    return groups
