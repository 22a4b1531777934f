"""What the metrics library says of the answers, and the published tables."""

from __future__ import annotations

from typing import Any

from omni_mlflow.backbones.base import Exam, Scores
from omni_mlflow.backbones.label_answers import Row, answered_instead, prediction_rows
from omni_mlflow.backbones.qwen3_omni_lora.prompt import label_options
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.metrics.label_exam import LabelExam, answers_tally
from omni_mlflow.metrics.label_scores import exam_scores, headline
from omni_mlflow.metrics.labels import confusion_rows, per_class_rows
from omni_mlflow.spine.stored_rows import StoredRows


def score_exam(exam: Exam, settings: Settings) -> Scores:
    """Compare answers with targets. A reply that is not JSON is wrong at every question, never dropped."""
    options = label_options(exam.fitted, max_options=settings.prompt.max_label_options)
    rows: StoredRows[Row] = StoredRows()
    graded = LabelExam(exam.fitted, label_options=options, declared=exam.classes)
    controls = {name: answers_tally() for name in exam.controls}
    for row, *answers in zip(prediction_rows(exam, exam.answers), *exam.controls.values(), strict=True):
        rows.append(row)
        graded.add(row)
        for tally, answer in zip(controls.values(), answers, strict=True):
            tally.add_answers(answered_instead(row, answer))
    metrics = exam_scores(graded, controls)
    pairs, classes = graded.model.pairs, graded.model.published_classes(options)
    return Scores(
        metrics=metrics,
        predictions=rows,
        tables={
            "per_class_metrics.csv": per_class_rows(pairs, classes=classes, seen_in_train=exam.fitted.action),
            "confusion_matrix.csv": confusion_rows(pairs),
        },
        flattened={"predictions.csv": flat_row},
        headline=headline(metrics),
    )


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


def _cell(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value
