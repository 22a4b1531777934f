"""The plots of a report as PNG. Same numbers, same bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

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
    new_figure,
    short,
    value_axis,
)
from omni_mlflow.reporting.facts import RunFacts
from omni_mlflow.reporting.wording import control_title, floor_title

_FLOOR_MARKS = {
    "majority": "s",
    "train_prior": "^",
    "same_as_now": "D",
    "next_given_current": "v",
    "copy_prompt": "P",
}
_OWN_FLOOR_MARKS = ("X", "*", "p", "<", ">")
_CONTROL_LOOKS = ((ORANGE, "s"), (GREEN, "^"), (RED, "D"), (PURPLE, "v"))
_MOST_LABELS = 12
_OF_TOKENS = ("Mean loss of the answer's tokens.", "loss per answer token (nats)")
_OF_ANY_KIND = ("The loss that the training wrote down, in the backbone's own units.", "loss")


@dataclass(frozen=True)
class ReportFigure:
    """A plot, its file name without ending, its title, and the sentence that says what to see in it."""

    name: str
    title: str
    caption: str
    png: bytes


def figures_of(
    facts: RunFacts,
    *,
    per_episode: Sequence[Mapping[str, Any]],
    confusion: Sequence[Mapping[str, Any]],
    progress: Iterable[Mapping[str, Any]],
) -> list[ReportFigure]:
    """Draw every figure that the facts allow, in the order of the report.

    Args:
        per_episode, confusion: rows of ``omni_mlflow.metrics.labels``; none of them, no figure.
        progress: rows of the training's ``progress.jsonl``.
    """
    progress = list(progress)
    drawn = []
    with_floor = [name for name, baseline in facts.section("baselines").items() if baseline]
    for unit, names in _by_unit(facts, with_floor).items():
        caption = "Every metric with its 95 % interval over episodes, and the answers that need no model."
        title, png = "The model against its floors", floors_forest(facts, names, unit)
        drawn.append(ReportFigure(_named("floors", unit), title, caption, png))
    for unit, names in _by_unit(facts, facts.controlled_metrics).items():
        caption = "The same samples with one input exchanged or removed; what needs that input gets worse."
        title, png = "With one input exchanged or removed", controls_chart(facts, names, unit)
        drawn.append(ReportFigure(_named("controls", unit), title, caption, png))
    if any(row.get("accuracy") is not None for row in per_episode):
        caption = "Action accuracy of each held-out episode: is the mean carried by a few of them?"
        drawn.append(ReportFigure("episodes", "Each held-out episode", caption, episodes_chart(per_episode)))
    if confusion:
        caption = (
            "The most frequent true actions; a number counts samples, the shade is their share of a row."
        )
        drawn.append(
            ReportFigure(
                "confusion", "Which actions are taken for which", caption, confusion_chart(confusion)
            )
        )
    if any("loss" in row for row in progress):
        caption, axis = _OF_TOKENS if facts.questions else _OF_ANY_KIND
        drawn.append(ReportFigure("loss", "Training loss", caption, loss_curve(progress, axis=axis)))
    return drawn


def loss_curve(progress: Iterable[Mapping[str, Any]], *, axis: str) -> bytes:
    """Training and validation loss by step, from the rows of ``progress.jsonl``."""
    rows = list(progress)
    figure, axes = new_figure(3.4)
    steps = [(row["step"], row["loss"]) for row in rows if row.get("event") == "step" and "loss" in row]
    validated = [(row["step"], row["loss"]) for row in rows if row.get("event") == "validation"]
    if steps:
        axes.plot(*zip(*steps, strict=True), color=BLUE, linewidth=1.2, label="train, one batch")
    if validated:
        axes.plot(*zip(*validated, strict=True), color=RED, marker="o", markersize=4, label="validation")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(axis)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    if steps or validated:
        axes.legend(frameon=False, loc="upper right")
    return as_png(figure)


def _by_unit(facts: RunFacts, names: Collection[str]) -> dict[str | None, list[str]]:
    """Metrics that can share an axis, in the order of the report; None stands for shares of 1."""
    groups: dict[str | None, list[str]] = {}
    for name in (name for name in facts.reported_metrics if name in names):
        groups.setdefault(facts.kind(name).unit, []).append(name)
    return groups


def _named(figure: str, unit: str | None) -> str:
    return figure if unit is None else f"{figure}_{re.sub('[^a-z0-9]+', '_', unit.lower())}"


def floors_forest(facts: RunFacts, names: Sequence[str], unit: str | None) -> bytes:
    """Each metric with its 95 % interval over episodes, and every floor of it on the same line."""
    figure, axes = new_figure(1.5 + 0.42 * len(names))
    floors_of = {name: facts.section("baselines")[name]["floors"] for name in names}
    marks = _marks({floor for floors in floors_of.values() for floor in floors})
    for line, name in enumerate(names):
        draw_interval(axes, line, facts.value(name), facts.interval(name), colour=BLUE, mark="o")
        for floor, value in floors_of[name].items():
            axes.plot(
                value,
                line + 0.22,
                marks[floor],
                color=ORANGE,
                markeredgecolor=INK,
                markersize=6,
            )
    label_lines(axes, [facts.title(name) for name in names])
    value_axis(axes, "value; bar: 95 % interval over episodes", unit)
    legend(
        figure,
        [(BLUE, "o", "model")] + [(ORANGE, mark, floor_title(floor)) for floor, mark in marks.items()],
    )
    return as_png(figure)


def _marks(floors: Collection[str]) -> dict[str, str]:
    """A mark for each floor: those of label questions keep theirs, a backbone's own ones follow by name."""
    known = {floor: mark for floor, mark in _FLOOR_MARKS.items() if floor in floors}
    own = zip(sorted({*floors} - {*known}), cycle(_OWN_FLOOR_MARKS), strict=False)
    return known | dict(own)


def controls_chart(facts: RunFacts, names: Sequence[str], unit: str | None) -> bytes:
    """The intact run and every control on the same line, for each metric."""
    controls = sorted(facts.section("controls"))
    figure, axes = new_figure(1.5 + 0.5 * len(names))
    for line, name in enumerate(names):
        draw_interval(axes, line, facts.value(name), facts.interval(name), colour=BLUE, mark="o")
        for place, control in enumerate(controls):
            found = facts.section("controls")[control].get(name)
            if found is not None:
                colour, mark = _CONTROL_LOOKS[place % len(_CONTROL_LOOKS)]
                offset = 0.18 + 0.14 * place
                axes.plot(
                    found["value"], line + offset, mark, color=colour, markeredgecolor=INK, markersize=6
                )
        if baseline := facts.section("baselines").get(name):
            floor = baseline["floors"][baseline["best"]]
            axes.plot(
                [floor, floor], [line - 0.2, line + 0.6], color=FAINT, linewidth=1.2, linestyle=(0, (2, 2))
            )
    label_lines(axes, [facts.title(name) for name in names], below=0.75)
    value_axis(axes, "value; bar: 95 % interval of the intact run; dashed: hardest floor", unit)
    looks = [
        (*_CONTROL_LOOKS[place % len(_CONTROL_LOOKS)], control_title(control))
        for place, control in enumerate(controls)
    ]
    legend(figure, [(BLUE, "o", "intact"), *looks])
    return as_png(figure)


def episodes_chart(per_episode: Sequence[Mapping[str, Any]]) -> bytes:
    """One dot per held-out episode, lowest first: is the mean carried by a few of them?

    Args:
        per_episode: rows with ``episode_id``, ``samples`` and ``accuracy``; null ones are left out.
    """
    rows = sorted(
        (row for row in per_episode if row.get("accuracy") is not None),
        key=lambda row: (row["accuracy"], row["episode_id"]),
    )
    figure, axes = new_figure(1.2 + 0.28 * len(rows))
    axes.hlines(range(len(rows)), 0, [row["accuracy"] for row in rows], color="#d9d9d9", linewidth=2)
    axes.plot([row["accuracy"] for row in rows], range(len(rows)), "o", color=BLUE)
    label_lines(axes, [f"{short(row['episode_id'], 34)}  (n={row['samples']})" for row in rows])
    value_axis(axes, "action accuracy", None)
    return as_png(figure)


def confusion_chart(confusion: Sequence[Mapping[str, Any]]) -> bytes:
    """Where the most frequent true labels go: share of each row, with everything else in a last column.

    Args:
        confusion: rows with ``true_label``, ``predicted_label`` and ``count``.
    """
    truths: Counter[str] = Counter()
    for row in confusion:
        truths[row["true_label"]] += row["count"]
    labels = sorted(truths, key=lambda label: (-truths[label], label))[:_MOST_LABELS]
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1))
    for row in confusion:
        if row["true_label"] in place:
            counts[place[row["true_label"]], place.get(row["predicted_label"], len(labels))] += row["count"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(2.6 + 0.42 * len(labels))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[i, j] > 0.55 else INK
        axes.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_yticks(range(len(labels)), [short(label, 30) for label in labels])
    columns = [*(short(label, 24) for label in labels), "any other"]
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted action")
    axes.set_ylabel("true action")
    axes.tick_params(length=0)
    for edge in range(1, max(counts.shape)):
        axes.axhline(edge - 0.5, color="white", linewidth=1.5)
        axes.axvline(edge - 0.5, color="white", linewidth=1.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    return as_png(figure)
