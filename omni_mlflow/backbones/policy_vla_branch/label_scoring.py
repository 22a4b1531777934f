"""The questions with a label: the metrics library's verdicts under the names of the policy contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omni_mlflow.backbones.base import Exam
from omni_mlflow.backbones.label_answers import Row, prediction_rows
from omni_mlflow.backbones.policy_vla_branch.affordance import with_afforded
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.metrics.answers import UNKNOWN, object_overlap, true_answer
from omni_mlflow.metrics.episode_sums import EpisodeSums
from omni_mlflow.metrics.errors import or_none
from omni_mlflow.metrics.label_scores import label_scores
from omni_mlflow.metrics.metric import LABEL_METRICS, Metric
from omni_mlflow.metrics.priors import yes_no
from omni_mlflow.metrics.questions import METRIC_OF
from omni_mlflow.metrics.score_rows import interval_row
from omni_mlflow.spine.types import Answer

AFFORDANCE_F1 = "object_affordance_f1"

NAMES = {
    "accuracy": "action_accuracy",
    "action_macro_f1": "action_macro_f1",
    "supported_class_macro_f1": "supported_class_macro_f1",
    "seen_label_accuracy": "seen_label_accuracy",
    "unseen_label_accuracy": "unseen_label_accuracy",
    "next_action_accuracy": "next_action_accuracy",
    "next_contact_accuracy": "contact_accuracy",
    "object_micro_f1": AFFORDANCE_F1,
}
"""What is kept of the metrics of label questions, and what the contract calls it."""

_OF_NEXT = {name: ours for name, ours in NAMES.items() if name.startswith("next_")}
_OF_NOW = {name: ours for name, ours in NAMES.items() if name not in _OF_NEXT}

QUESTIONS = {
    "action": "action_accuracy",
    "next_action": "next_action_accuracy",
    "next_contact": "contact_accuracy",
}

_ALSO_DEGENERATE = {
    "action": (
        "action_macro_f1",
        "supported_class_macro_f1",
        "seen_label_accuracy",
        "unseen_label_accuracy",
    ),
    "next_contact": ("contact_f1",),
}
"""What else a constant answers where a question of :data:`QUESTIONS` has one true class alone."""

LABELS: Mapping[str, Metric] = {
    **{name: LABEL_METRICS[published] for published, name in NAMES.items()},
    "contact_accuracy": Metric(title="Contact accuracy, next window", question="next_contact"),
    "contact_f1": Metric(title="Contact F1, next window", question="next_contact"),
    AFFORDANCE_F1: Metric(title="Object-affordance micro-F1", truth="objects"),
}

_ASKED = ("action", "objects", "contact", "next_action", "evidence_window")
_BLOCKS = ("intervals", "baselines")


def labelled_rows(exam: Exam, answers: Sequence[Answer], settings: Settings) -> list[Row]:
    """Return one prediction row per sample: its objects are those that the window affords an action on."""
    rule = settings.targets.object_affordance
    derived = replace(exam, targets=[with_afforded(target, rule) for target in exam.targets])
    rows = list(prediction_rows(derived, answers, asked=_ASKED))
    for row, target in zip(rows, exam.targets, strict=True):
        row["target"] = "policy"
        row["true_json"]["next_contact"] = yes_no(target.labels.next_in_contact) or UNKNOWN
    return rows


def score_labels(
    rows: Sequence[Row], controls: Mapping[str, Sequence[Row]], exam: Exam
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the labels' part of ``metrics.json``, and the few numbers to compare.

    A window takes part in what its own label answers: without an action label it still says what comes next.
    A question with one true class alone is null: a constant answers it.
    """
    now, now_headline = _scored(
        annotated(rows), {name: annotated(each) for name, each in controls.items()}, exam, _OF_NOW
    )
    metrics, headline = _scored(rows, controls, exam, _OF_NEXT)
    _join(metrics, now)
    metrics["more"]["class_counts"] = {
        question: class_counts(rows_of(question, rows), question) for question in (*QUESTIONS, "objects")
    }
    metrics["more"]["samples_without_action_label"] = len(rows) - len(annotated(rows))
    _add_contact_f1(metrics, rows)
    _leave_out_degenerate(metrics)
    return metrics, {
        name: value
        for name, value in (headline | now_headline).items()
        if metrics.get(name.removesuffix("_over_floor")) is not None
    }


def rows_of(question: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows that a question is asked; those without its truth do not count."""
    return annotated(rows) if question in ("action", "objects") else rows


def afforded_overlap(row: Row) -> dict[str, float] | None:
    """Return what a row adds to the F1 of objects; None where nobody annotated the action they are of."""
    if row["true_label"] == UNKNOWN:
        return None
    found, named = object_overlap(row)
    return {"sum": found, "of": named}


def annotated(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose action somebody annotated; objects are those that this action acts on."""
    return [row for row in rows if row["true_label"] != UNKNOWN]


def _scored(
    rows: Sequence[Row], controls: Mapping[str, Sequence[Row]], exam: Exam, names: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Score ``rows``, and keep the metrics of ``names`` under the names of the contract."""
    found, headline = label_scores(
        rows,
        priors=exam.fitted,
        controls=controls,
        label_options=sorted(exam.fitted.action),
        declared=exam.classes,
    )
    return _under_our_names(found, names), {
        names[metric] + name[len(metric) :]: value
        for name, value in headline.items()
        if (metric := name.removesuffix("_over_floor")) in names
    }


def _join(metrics: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Add the metrics of ``other``; what both say of the samples as such stays as ``metrics`` says it."""
    for key, value in other.items():
        if key not in metrics:
            metrics[key] = value
        elif isinstance(value, dict):
            _join(metrics[key], value)


def _under_our_names(found: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Keep the metrics of ``names``, under the names of the policy's contract."""
    more = found["more"]
    kept: dict[str, Any] = {
        **{ours: found.get(published, more.get(published)) for published, ours in names.items()},
        **{block: _kept(found[block], names) for block in _BLOCKS},
        "controls": {name: _kept(each, names) for name, each in found["controls"].items()},
        "verdicts": {
            question: {**verdict, "metric": names[verdict["metric"]]}
            for question, verdict in found["verdicts"].items()
            if verdict["metric"] in names
        },
        "clusters": {**found["clusters"], "worth": _kept(found["clusters"]["worth"], names)},
        "more": {"reasons": _kept_reasons(more["reasons"], names)},
    }
    if names is _OF_NOW:
        kept |= {name: found[name] for name in ("labels", "unseen_eval_labels", "eval_label_counts")}
        kept["more"]["closed_vocabulary_ceiling"] = more["closed_vocabulary_ceiling"]
        kept["more"]["num_unseen_label_samples"] = found["num_unseen_label_samples"]
    else:
        kept["more"]["unknown_now"] = more["unknown_now"]
    return kept


def _kept(block: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in block.items() if name in names}


def _kept_reasons(reasons: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    kept = {}
    for key, reason in reasons.items():
        block, dot, name = key.rpartition(".")
        if name in names:
            kept[f"{block}{dot}{names[name]}"] = reason
        elif name == "intervals" or (block == "verdicts" and METRIC_OF[name] in names):
            kept[key] = reason
    return kept


def class_counts(rows: Sequence[Row], question: str) -> dict[str, int]:
    """Count the true classes of a question; a set of objects is one class."""
    truths = [truth for row in rows if (truth := true_answer(row, question)) is not None]
    if question == "objects":
        truths = [", ".join(sorted(truth)) or "none" for truth in truths if truth != [UNKNOWN]]
    return dict(sorted(Counter(truths).items()))


def _add_contact_f1(metrics: dict[str, Any], rows: Sequence[Row]) -> None:
    """F1 of the answer ``yes``, over the rows whose truth is known; summed over rows."""
    sums = EpisodeSums()
    for row in rows:
        truth = true_answer(row, "next_contact")
        if truth is not None:
            given = row["pred_json"].get("next_contact")
            both = float(truth == given == "yes")
            sums.add(row["episode_id"], (2 * both, float(truth == "yes") + float(given == "yes")))
    estimate = or_none(sums.estimate)
    metrics["contact_f1"] = None if estimate is None else estimate.value
    if estimate is None:
        metrics["more"]["reasons"]["contact_f1"] = "no contact in truth or answers"
    else:
        metrics["intervals"]["contact_f1"] = interval_row(estimate)


def _leave_out_degenerate(metrics: dict[str, Any]) -> None:
    told_of = (metrics["intervals"], metrics["baselines"], metrics["clusters"]["worth"])
    for question, name in {**QUESTIONS, "objects": AFFORDANCE_F1}.items():
        counts = metrics["more"]["class_counts"][question]
        if len(counts) == 1:
            for each in (name, *_ALSO_DEGENERATE.get(question, ())):
                metrics[each] = None
                metrics["more"]["reasons"][each] = f"one true class alone: {counts}"
                for block in (*told_of, *metrics["controls"].values()):
                    block.pop(each, None)
            metrics["verdicts"].pop(question, None)
