"""Which metric grades which question, in the order in which reports list them."""

from __future__ import annotations

from collections.abc import Mapping

from omni_mlflow.metrics.answers import RowScore, evidence_iou, strictly_valid_json
from omni_mlflow.metrics.labels import PUBLISHED_SCORES
from omni_mlflow.metrics.metric import Metric

BEATS_FLOOR = "beats_floor"
DOES_NOT_BEAT_FLOOR = "does_not_beat_floor"

QUESTION_OF: Mapping[str, str | None] = {
    "accuracy": "action",
    "action_macro_f1": "action",
    "supported_class_macro_f1": "action",
    "seen_label_accuracy": "action",
    "unseen_label_accuracy": "action",
    "subtask_accuracy": "subtask",
    "object_micro_f1": "objects",
    "contact_accuracy": "contact",
    "transition_accuracy": "transition",
    "next_action_accuracy": "next_action",
    "evidence_window_iou": "evidence_window",
    "json_validity_rate": None,
    "strict_json_validity_rate": None,
}
"""Every metric that gets an interval, and the question it grades; None for the form of the reply."""

METRIC_OF: Mapping[str, str] = {
    "action": "accuracy",
    "subtask": "subtask_accuracy",
    "objects": "object_micro_f1",
    "contact": "contact_accuracy",
    "transition": "transition_accuracy",
    "next_action": "next_action_accuracy",
    "evidence_window": "evidence_window_iou",
}
"""The metric on which a question's verdict rests."""

LABEL_METRICS: Mapping[str, Metric] = {
    name: Metric(title=title)
    for name, title in {
        "accuracy": "Action accuracy",
        "action_macro_f1": "Action macro-F1, published class set",
        "supported_class_macro_f1": "Action macro-F1, declared classes with support",
        "seen_label_accuracy": "Action accuracy, label seen in train",
        "unseen_label_accuracy": "Action accuracy, label not in train",
        "subtask_accuracy": "Subtask accuracy",
        "object_micro_f1": "Object micro-F1",
        "contact_accuracy": "Contact accuracy",
        "transition_accuracy": "Transition accuracy",
        "next_action_accuracy": "Next-action accuracy",
        "evidence_window_iou": "Evidence-window IoU",
        "json_validity_rate": "JSON validity",
        "strict_json_validity_rate": "JSON validity, nothing rescued",
    }.items()
}
"""What the metrics of answers to label questions are called."""

HELD_OUT_EPISODES = Metric(title="Held-out episodes", unit="episodes")

ROW_SCORES: Mapping[str, RowScore] = {
    **PUBLISHED_SCORES,
    "strict_json_validity_rate": strictly_valid_json,
    "evidence_window_iou": evidence_iou,
}
