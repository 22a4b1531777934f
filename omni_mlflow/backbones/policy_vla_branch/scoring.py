"""Answers of a policy against the truth: labels, motion and retargeting, each by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.backbones.base import Exam, Scores
from omni_mlflow.backbones.policy_vla_branch.audit import (
    AUDIT_NAME,
    RetargetingAudit,
    audit_retargeting,
    bound_check,
)
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.backbones.policy_vla_branch.label_scoring import (
    AFFORDANCE_F1,
    QUESTIONS,
    afforded_overlap,
    annotated,
    class_counts,
    labelled_rows,
    rows_of,
    score_labels,
)
from omni_mlflow.backbones.policy_vla_branch.motion_exam import ONE_SAMPLE, MotionExam
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.trajectory_scoring import score_motion
from omni_mlflow.metrics.answers import correct
from omni_mlflow.metrics.errors import or_none
from omni_mlflow.metrics.labels import action_pairs, confusion_rows, score_rows
from omni_mlflow.metrics.trajectories import MPJPE
from omni_mlflow.spine.rows import read_document, read_json_rows
from omni_mlflow.spine.types import Check

PREDICTIONS = "policy_predictions.jsonl"
_MERGED = ("intervals", "baselines", "verdicts")
_ROUNDING = 1e-9


def score_exam(exam: Exam, settings: Settings) -> Scores:
    """Compare answers with targets; the three families of metrics never mix."""
    inputs = [Inputs.model_validate(sample.inputs) for sample in exam.samples]
    rows = labelled_rows(exam, exam.answers, settings)
    controls = {name: labelled_rows(exam, answers, settings) for name, answers in exam.controls.items()}
    metrics, headline = score_labels(rows, controls, exam)
    asked = MotionExam(exam, inputs)
    motion = score_motion(asked)
    audit = _audit(asked)
    for row, answer, (error, steps) in zip(rows, exam.answers, motion.per_sample, strict=True):
        row["actions"] = answer.values.get(ONE_SAMPLE)
        row[MPJPE] = {"sum": error, "of": steps} if steps else None
        row[AFFORDANCE_F1] = afforded_overlap(row)
    metrics = _joined(metrics, motion.metrics)
    metrics |= {
        "num_samples": len(exam.samples),
        "held_out_episode_count": len({sample.episode_id for sample in exam.samples}),
        "retargeting": _summary(audit) | _foretold_limits(asked),
    }
    return Scores(
        metrics=metrics,
        predictions=rows,
        tables={
            "trajectory_metrics.csv": motion.table,
            "action_confusion_matrix.csv": confusion_rows(action_pairs(annotated(rows))),
        },
        documents={AUDIT_NAME: audit.model_dump(mode="json"), "hand_paths.json": motion.paths},
        headline=_headline(headline, metrics),
    )


def _joined(labels: dict[str, Any], motion: dict[str, Any]) -> dict[str, Any]:
    """Put motion beside the labels, in the blocks that every report reads."""
    reasons = motion.pop("reasons")
    controls = {
        name: {**labels["controls"].get(name, {}), **motion["controls"].get(name, {})}
        for name in labels["controls"]
    }
    merged = {block: {**labels[block], **motion[block]} for block in _MERGED}
    more = {**labels["more"], "reasons": {**labels["more"]["reasons"], **reasons}}
    return {**labels, **motion, **merged, "controls": controls, "more": more}


def _headline(labels: Mapping[str, float], metrics: Mapping[str, Any]) -> dict[str, float]:
    counts = {name: float(metrics[name]) for name in ("held_out_episode_count", "num_samples")}
    found = {**labels, **counts}
    if metrics[MPJPE] is not None:
        found[MPJPE] = metrics[MPJPE]
        found[f"{MPJPE}_over_floor"] = metrics["baselines"][MPJPE]["difference"]["value"]
    return found


def _audit(asked: MotionExam) -> RetargetingAudit:
    fitted = asked.exam.fitted
    return audit_retargeting(
        asked.motion,
        episodes=asked.episodes,
        space=asked.space,
        maps=fitted.maps,
        actions=fitted.normalization.actions,
        fitted=fitted,
        unasked=asked.exam.unasked,
    )


def _foretold_limits(asked: MotionExam) -> dict[str, float]:
    """Say which share of the foretold numbers leads beyond the limits of what they move, where it has any."""
    chunks = asked.chunks(asked.exam.answers, ONE_SAMPLE)
    told = np.isfinite(chunks).all(axis=(1, 2))
    beyond = asked.space.beyond_limits(chunks, asked.motion.now)
    if beyond is None or not told.any():
        return {}
    limited = [dimension.limits is not None for dimension in asked.space.dimensions()]
    return {"share_of_foretold_beyond_limits": float(beyond[told][..., limited].mean())}


def _summary(audit: RetargetingAudit) -> dict[str, Any]:
    """The audit in a few numbers: what the space loses, and how often held-out hands leave its bounds."""
    measured = [each.round_trip for each in audit.episodes if each.round_trip is not None]
    values = sum(each.values for each in audit.episodes)
    return {
        "action_space": audit.action_space,
        "joint_limit_violations": audit.joint_limit_violations,
        "worst_episode_mean_mm": max((each.mean_mm for each in measured), default=None),
        "worst_step_mm": max((each.max_mm for each in measured), default=None),
        "bound": audit.bound.model_dump(),
        "episodes_within_bound": sum(bool(each.within_bound) for each in audit.episodes),
        "episodes": len(audit.episodes),
        "share_outside_train_bounds": sum(each.values_outside for each in audit.episodes) / max(values, 1),
    }


def check_outputs(evaluation: Path) -> list[Check]:
    """Hold metrics against the predictions they follow from, and motion against its bound."""
    audit = read_document(evaluation / AUDIT_NAME, RetargetingAudit)
    return [_metrics_check(evaluation), bound_check(audit)]


def _metrics_check(evaluation: Path) -> Check:
    """Compute accuracies and the mean joint error again from the predictions; ``metrics.json`` must agree."""
    claimed = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    rows = list(read_json_rows(evaluation / PREDICTIONS))
    found: dict[str, float | None] = {}
    for question, name in QUESTIONS.items():
        asked = rows_of(question, rows)
        estimate = or_none(score_rows, asked, correct(question))
        degenerate = len(class_counts(asked, question)) == 1
        found[name] = None if estimate is None or degenerate else estimate.value
    measured = [row[MPJPE] for row in rows if row[MPJPE] is not None]
    steps, total = sum(each["of"] for each in measured), sum(each["sum"] for each in measured)
    found[MPJPE] = total / steps if steps else None
    differing = {
        name: (claimed.get(name), value)
        for name, value in found.items()
        if not _equal(claimed.get(name), value)
    }
    return Check(
        rule="metrics_follow_from_predictions",
        subject="metrics.json",
        expected=f"what {PREDICTIONS} gives",
        found=f"{differing}" if differing else "the same",
        ok=not differing,
    )


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _ROUNDING * max(1.0, abs(other))
