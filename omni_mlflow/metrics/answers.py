"""What one published prediction row says: the truth, the answer, and whether the reply was JSON.

A row holds ``true_json`` and ``pred_json`` (seven keys each), ``true_label`` and ``predicted_label`` (the
action), ``raw_prediction`` (the reply as text), ``center_window`` and ``true_label_seen_in_train``. A reply
that is no JSON has an empty or null ``pred_json``; it is wrong at every question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from omni_mlflow.spine.strict_json import strict_json

PredictionRow = Mapping[str, Any]
RowScore = Callable[[PredictionRow], tuple[float, float] | None]
"""Numerator and denominator that a row adds to a metric; None where the row does not take part."""

UNKNOWN = "unknown"
ANSWER_KEYS = (
    "action",
    "subtask",
    "objects",
    "contact",
    "transition",
    "next_action",
    "evidence_window",
)
LABEL_QUESTIONS = ("action", "subtask", "contact", "transition", "next_action", "next_contact")
"""The questions whose answer is one label."""

_FENCE = re.compile(r"^```[a-zA-Z]*\s*")


class _EvidenceWindow(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    start_frame: int = Field(ge=0)
    end_frame: int

    @model_validator(mode="after")
    def _is_ordered(self) -> _EvidenceWindow:
        if self.end_frame < self.start_frame:
            raise ValueError("end_frame lies before start_frame")
        return self


class _StrictAnswer(BaseModel):
    """The specification's JSON, its seven keys and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")

    action: str
    subtask: str
    objects: list[str]
    contact: str
    transition: str
    next_action: str
    evidence_window: _EvidenceWindow


def parse_reply(raw: str) -> dict[str, Any] | None:
    """Read a reply as leniently as the published evaluation does; None when no object can be found.

    Code fences are stripped; then the whole text is tried, then everything from the first ``{`` to the
    last ``}``. The time it takes grows with the length of the reply, whatever a model repeats in it.
    """
    text = _FENCE.sub("", raw.strip())
    if text.endswith("```"):
        text = text[:-3].rstrip()
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def is_strict_answer(raw: str) -> bool:
    """Tell whether a reply, taken as it is, is the specified JSON with every value of the right kind."""
    try:
        _StrictAnswer.model_validate(strict_json(raw))
    except ValueError:
        return False
    return True


def true_answer(row: PredictionRow, question: str) -> Any:
    """The truth; None where nobody annotated it."""
    if question == "action":
        return row["true_label"]
    value = row["true_json"].get(question)
    return None if value == UNKNOWN else value


def given_answer(row: PredictionRow, question: str) -> Any:
    """What the model said; None where it said nothing that can be read."""
    if question == "action":
        return row["predicted_label"]
    answer = row["pred_json"]
    return answer.get(question) if isinstance(answer, Mapping) else None


def valid_json(row: PredictionRow) -> tuple[float, float]:
    """Published: a JSON object with all seven keys can be found in the reply."""
    answer = parse_reply(row["raw_prediction"])
    return (1.0 if answer is not None and answer.keys() >= set(ANSWER_KEYS) else 0.0, 1.0)


def strictly_valid_json(row: PredictionRow) -> tuple[float, float]:
    return (float(is_strict_answer(row["raw_prediction"])), 1.0)


def correct(question: str) -> RowScore:
    """Published: exact equality, over the rows whose truth is known."""

    def score(row: PredictionRow) -> tuple[float, float] | None:
        truth = true_answer(row, question)
        return None if truth is None else (float(given_answer(row, question) == truth), 1.0)

    return score


def correct_action_where(*, seen_in_train: bool) -> RowScore:
    def score(row: PredictionRow) -> tuple[float, float] | None:
        if bool(row["true_label_seen_in_train"]) is not seen_in_train:
            return None
        return correct("action")(row)

    return score


def object_overlap(row: PredictionRow) -> tuple[float, float]:
    """Published: F1 of object sets, 2 TP over 2 TP + FP + FN, to be summed over rows."""
    truth, given = _names(true_answer(row, "objects")), _names(given_answer(row, "objects"))
    return (2.0 * len(truth & given), float(len(truth) + len(given)))


def evidence_iou(row: PredictionRow) -> tuple[float, float] | None:
    """Intersection over union, in frames, of the evidence window that was given and the true one."""
    truth = _frames(true_answer(row, "evidence_window"))
    if truth is None:
        return None
    given = _frames(given_answer(row, "evidence_window"))
    return (_iou(truth, given) if given is not None else 0.0, 1.0)


PUBLISHED_SCORES: Mapping[str, RowScore] = {
    "accuracy": correct("action"),
    "json_validity_rate": valid_json,
    "subtask_accuracy": correct("subtask"),
    "transition_accuracy": correct("transition"),
    "next_action_accuracy": correct("next_action"),
    "contact_accuracy": correct("contact"),
    "object_micro_f1": object_overlap,
    "seen_label_accuracy": correct_action_where(seen_in_train=True),
    "unseen_label_accuracy": correct_action_where(seen_in_train=False),
}
"""Published metrics that are a sum over rows divided by another."""


def _names(value: Any) -> set[str]:
    return {name for name in value if isinstance(name, str)} if isinstance(value, list | tuple) else set()


def _frames(window: Any) -> _EvidenceWindow | None:
    """Read a window; other keys beside the two frames (``num_frames``) do not matter."""
    try:
        return _EvidenceWindow.model_validate({key: window[key] for key in ("start_frame", "end_frame")})
    except (ValidationError, TypeError, KeyError):
        return None


def _iou(one: _EvidenceWindow, other: _EvidenceWindow) -> float:
    first, last = max(one.start_frame, other.start_frame), min(one.end_frame, other.end_frame)
    shared = max(0, last - first + 1)
    covered = sum(window.end_frame - window.start_frame + 1 for window in (one, other))
    return shared / (covered - shared)
