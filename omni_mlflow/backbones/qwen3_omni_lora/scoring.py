"""Answers and targets to the published prediction rows, and what the metrics library says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omni_mlflow.backbones.base import Exam, Scores
from omni_mlflow.backbones.qwen3_omni_lora.prompt import answer_of, label_options
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.metrics.answers import parse_reply
from omni_mlflow.metrics.label_scores import label_scores
from omni_mlflow.metrics.labels import confusion_rows, per_class_rows, published_classes
from omni_mlflow.spine.types import Answer, Sample, Target

Row = dict[str, Any]


def score_exam(exam: Exam, settings: Settings) -> Scores:
    """Compare answers with targets. A reply that is not JSON is wrong at every question, never dropped."""
    options = label_options(exam.fitted, max_options=settings.prompt.max_label_options)
    rows = prediction_rows(exam, exam.answers)
    controls = {name: prediction_rows(exam, answers) for name, answers in exam.controls.items()}
    metrics, headline = label_scores(rows, priors=exam.fitted, controls=controls, label_options=options)
    classes = published_classes(rows, label_options=options)
    return Scores(
        metrics=metrics,
        predictions=rows,
        tables={
            "predictions.csv": [flat_row(row) for row in rows],
            "per_class_metrics.csv": per_class_rows(rows, classes=classes, seen_in_train=exam.fitted.action),
            "confusion_matrix.csv": confusion_rows(rows),
        },
        headline=headline,
    )


def prediction_rows(exam: Exam, answers: Sequence[Answer]) -> list[Row]:
    """Return the published columns of every sample, in order, and beside them ``anchor`` and ``outcome``."""
    return [
        _row(sample, target, answer, seen=target.labels.action in exam.fitted.action)
        for sample, target, answer in zip(exam.samples, exam.targets, answers, strict=True)
    ]


def flat_row(row: Row) -> Row:
    """Return a prediction row for a table: JSON objects as one column per question."""
    plain = {key: value for key, value in row.items() if not isinstance(value, dict)}
    window = row["center_window"]
    truth, given = row["true_json"], row["pred_json"]
    questions = [key for key in truth if key not in ("action", "evidence_window")]
    return {
        **plain,
        "start_frame": window["start_frame"],
        "end_frame": window["end_frame"],
        **{f"true_{key}": _cell(truth[key]) for key in questions},
        **{f"predicted_{key}": _cell(given.get(key)) for key in questions},
    }


def _row(sample: Sample, target: Target, answer: Answer, *, seen: bool) -> Row:
    truth = answer_of(target.labels, target.span)
    given = parse_reply(answer.raw) or {}
    predicted = given.get("action")
    label = predicted if isinstance(predicted, str) else None
    return {
        "id": sample.id,
        "episode_id": sample.episode_id,
        "split": sample.split.value,
        "target": "episode_qa",
        "anchor": sample.anchor,
        "outcome": answer.outcome.value,
        "center_window": {**truth["evidence_window"], "num_frames": len(target.span)},
        "true_json": truth,
        "pred_json": given,
        "raw_prediction": answer.raw,
        "true_label": truth["action"],
        "predicted_label": label,
        "correct": int(label == truth["action"]),
        "true_label_seen_in_train": int(seen),
    }


def _cell(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value
