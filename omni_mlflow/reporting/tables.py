"""The tables of a report, as text cells; Markdown and HTML print the same ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omni_mlflow.reporting.facts import RunFacts
from omni_mlflow.reporting.spelling import NOTHING, bounds, number, signed
from omni_mlflow.reporting.wording import BEATS, control_title, floor_of, interval_of, undecided, verdict

_MOST_REASONS = 40
_EXAMPLES = 2


@dataclass(frozen=True)
class Table:
    """Cells as plain text.

    Attributes:
        numeric: columns that hold numbers, aligned right.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


def identity_table(facts: RunFacts) -> Table:
    openings = facts.seal_openings
    rows = (
        ("Backbone", f"{facts.display_name} ({facts.backbone})"),
        ("Base model", f"{facts.base_model} at revision {facts.base_revision}"),
        ("Checkpoint", facts.checkpoint_digest),
        ("Split", facts.split_digest),
        ("Dataset", facts.dataset_digest),
        ("Contract", facts.contract_digest),
        ("Trained on", f"{facts.train_episodes} episodes"),
        ("Held-out episodes", f"{facts.answered_episodes} of {facts.split_episodes} answered"),
        ("Held-out samples (anchors)", f"{facts.answered_samples} of {facts.split_samples} answered"),
        (
            "Held-out targets opened",
            f"{openings} time{'' if openings == 1 else 's'} in this workspace, this one included",
        ),
    )
    return Table(("What", "Value"), rows)


def results_table(facts: RunFacts) -> Table:
    """Every reported metric with its interval, its hardest floor and the paired difference to that floor."""
    rows = []
    for name in facts.reported_metrics:
        baseline = facts.section("baselines").get(name)
        difference = baseline["difference"] if baseline else None
        floor = baseline["floors"][baseline["best"]] if baseline else None
        rows.append(
            (
                facts.title(name),
                number(facts.value(name)),
                interval_of(facts, name),
                floor_of(facts, name, baseline["best"]) if baseline else NOTHING,
                number(floor),
                signed(difference["value"]) if difference else NOTHING,
                bounds(difference),
                verdict(baseline, facts.evidence),
            )
        )
    header = (
        "Metric",
        "Value",
        "95 % interval",
        "Hardest floor",
        "Floor",
        "Better by",
        "Its 95 % interval",
        "Verdict",
    )
    return Table(header, tuple(rows), frozenset({1, 2, 4, 5, 6}))


def floors_table(facts: RunFacts) -> Table:
    """Every floor of every graded metric."""
    rows = []
    for name in facts.graded_metrics:
        baseline = facts.section("baselines")[name]
        for floor, value in sorted(baseline["floors"].items()):
            difference = baseline["differences"][floor]
            rows.append(
                (
                    facts.title(name),
                    floor_of(facts, name, floor),
                    number(value),
                    signed(difference["value"]),
                    bounds(difference),
                )
            )
    header = ("Metric", "Floor", "Value", "Difference", "Its 95 % interval")
    return Table(header, tuple(rows), frozenset({2, 3, 4}))


def controls_table(facts: RunFacts) -> Table:
    """Every metric under each control, against the intact run; above zero is what it got worse by."""
    rows = []
    for control, metrics in sorted(facts.section("controls").items()):
        for name in (name for name in facts.controlled_metrics if name in metrics):
            baseline = facts.section("baselines").get(name)
            difference = metrics[name]["difference"]
            rows.append(
                (
                    control_title(control),
                    facts.title(name),
                    number(facts.value(name)),
                    number(metrics[name]["value"]),
                    number(baseline["floors"][baseline["best"]]) if baseline else NOTHING,
                    signed(difference["value"]),
                    bounds(difference),
                    _control_words(
                        difference,
                        metrics[name].get("over_floor"),
                        beat_floor=verdict(baseline, facts.evidence) == BEATS,
                    ),
                )
            )
    header = (
        "Control",
        "Metric",
        "Intact",
        "Control",
        "Hardest floor",
        "Worse by",
        "Its 95 % interval",
        "Reading",
    )
    return Table(header, tuple(rows), frozenset({2, 3, 4, 5, 6}))


def seen_table(facts: RunFacts) -> Table:
    """Action accuracy apart for labels that train shows and labels that it does not."""
    worth = facts.section("clusters").get("worth", {})
    rows = tuple(
        (
            title,
            str(worth[name]["samples"]),
            number(facts.value(name)),
            bounds(facts.interval(name)),
        )
        for name, title in (
            ("seen_label_accuracy", "seen in train"),
            ("unseen_label_accuracy", "not in train"),
        )
        if name in worth
    )
    return Table(("True action", "Samples", "Accuracy", "95 % interval"), rows, frozenset({1, 2, 3}))


def clusters_table(facts: RunFacts) -> Table:
    """What the samples are worth: windows of one episode resemble each other."""
    worth = facts.section("clusters").get("worth", {})
    rows = tuple(
        (
            facts.title(name),
            str(worth[name]["samples"]),
            NOTHING
            if worth[name]["effective_samples"] is None
            else f"{worth[name]['effective_samples']:.0f}",
            number(worth[name]["intraclass_correlation"]),
        )
        for name in facts.reported_metrics
        if name in worth
    )
    header = ("Metric", "Samples", "Worth as independent samples", "Intraclass correlation")
    return Table(header, rows, frozenset({1, 2, 3}))


def flows_table(facts: RunFacts) -> Table:
    rows = tuple(
        (flow.stage, flow.unit, str(flow.taken), str(flow.made), str(flow.skipped)) for flow in facts.flows
    )
    return Table(("Stage", "Of what", "In", "Out", "Skipped"), rows, frozenset({2, 3, 4}))


def skips_table(facts: RunFacts) -> Table:
    """Everything that was left out, counted by stage and reason, most frequent first."""
    subjects: dict[tuple[str, str], list[str]] = defaultdict(list)
    for skip in facts.skipped:
        subjects[skip.stage, skip.reason].append(skip.subject)
    counts = Counter({key: len(found) for key, found in subjects.items()})
    ordered = sorted(counts, key=lambda key: (-counts[key], key))
    rows = [
        (stage, reason, str(counts[stage, reason]), _examples(subjects[stage, reason]))
        for stage, reason in ordered[:_MOST_REASONS]
    ]
    if rest := ordered[_MOST_REASONS:]:
        rows.append(("…", f"{len(rest)} more reasons", str(sum(counts[key] for key in rest)), ""))
    return Table(("Stage", "Reason", "Count", "Examples"), tuple(rows), frozenset({2}))


def files_table(facts: RunFacts) -> Table:
    rows = tuple((each.name, each.holds, f"{each.size_bytes:,}", each.sha256) for each in facts.files)
    return Table(("File", "Holds", "Bytes", "sha256"), rows, frozenset({2}))


def _examples(subjects: list[str]) -> str:
    shown = sorted(subjects)[:_EXAMPLES]
    return ", ".join(shown) + (", …" if len(subjects) > len(shown) else "")


def _control_words(lost: Mapping[str, Any], over_floor: Mapping[str, Any] | None, *, beat_floor: bool) -> str:
    """Read a control by what it lost against the intact run and what it still has over the floor.

    The words hold for a share that falls and for an error that rises. Only what was clearly better than its
    floor, on held-out evidence, can have stopped to be.
    """
    if lost["low"] is None or lost["high"] is None:
        return undecided(lost)
    if lost["low"] <= 0:
        return "better" if lost["high"] < 0 else "no clear change"
    if not over_floor or not beat_floor:
        return "worse"
    stays = over_floor["low"] is not None and over_floor["low"] > 0
    return "worse, still better than its floor" if stays else "worse, no longer clearly better than its floor"
