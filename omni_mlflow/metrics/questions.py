"""Which metric grades which question, in the order in which reports list them."""

from __future__ import annotations

from collections.abc import Mapping

from omni_mlflow.metrics.answers import (
    PUBLISHED_SCORES,
    RowScore,
    correct,
    evidence_iou,
    strictly_valid_json,
)
from omni_mlflow.metrics.metric import LABEL_METRICS

BEATS_FLOOR = "beats_floor"
DOES_NOT_BEAT_FLOOR = "does_not_beat_floor"

QUESTION_OF: Mapping[str, str | None] = {name: metric.question for name, metric in LABEL_METRICS.items()}
"""Every metric that gets an interval, and the question it grades; None for the form of the reply."""

METRIC_OF: Mapping[str, str] = {
    "action": "accuracy",
    "subtask": "subtask_accuracy",
    "objects": "object_micro_f1",
    "contact": "contact_accuracy",
    "transition": "transition_accuracy",
    "next_action": "next_action_accuracy",
    "next_contact": "next_contact_accuracy",
    "evidence_window": "evidence_window_iou",
}
"""The metric on which a question's verdict rests."""

ROW_SCORES: Mapping[str, RowScore] = {
    **PUBLISHED_SCORES,
    "strict_json_validity_rate": strictly_valid_json,
    "evidence_window_iou": evidence_iou,
    "next_contact_accuracy": correct("next_contact"),
}
