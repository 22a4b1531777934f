"""What one published prediction row says: the truth, the answer, and whether the reply was JSON.

A row holds ``true_json`` and ``pred_json`` (seven keys each), ``true_label`` and ``predicted_label`` (the
action), ``raw_prediction`` (the reply as text), ``center_window`` and ``true_label_seen_in_train``. A reply
that is no JSON has an empty or null ``pred_json``; it is wrong at every question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from omni_mlflow.spine.strict_json import made_storable, may_not_be_storable, strict_json

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

NOW_OF: Mapping[str, str] = {"next_action": "action", "next_contact": "contact"}
"""What a question about the future asks of now."""

_ALL_KEYS = frozenset(ANSWER_KEYS)
_FENCE = re.compile(r"^```[a-zA-Z]*\s*")


class _EvidenceWindow(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    start_frame: int
    end_frame: int


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


class Reply(NamedTuple):
    """What can be read of one reply.

    Attributes:
        answer: as :func:`parse_reply` finds it, but for values that no file can hold, such as NaN: those are
            null. Several rows may hold it, so nobody changes it.
        is_strict: taken as it is, the reply is the specified JSON with every value of the right kind.
    """

    answer: Mapping[str, Any] | None
    is_strict: bool


@lru_cache(maxsize=64)  # a row reads its reply for several columns and metrics, one after the other
def read_reply(raw: str) -> Reply:
    """Read a reply both as leniently as the published evaluation does and strictly, and parse it once."""
    try:
        found = strict_json(raw)
    except ValueError:
        return Reply(made_storable(parse_reply(raw)), is_strict=False)
    answer = found if isinstance(found, dict) else parse_reply(raw)
    if may_not_be_storable(raw):
        answer = made_storable(answer)
    try:
        _StrictAnswer.model_validate(found)
    except ValidationError:
        return Reply(answer, is_strict=False)
    return Reply(answer, is_strict=frames_of(found["evidence_window"]) is not None)


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


def is_readable(raw: str) -> bool:
    """Tell whether an answer can be found in a reply, by the lenient reading that grades it.

    Where none can, the reply is invalid and wrong at every question. One that has to be rescued, or lacks
    keys, is an answer; ``strict_json_validity_rate`` and ``json_validity_rate`` say how many are not whole.
    """
    return bool(read_reply(raw).answer)


def true_answer(row: PredictionRow, question: str) -> Any:
    """The truth; None where nobody annotated it."""
    value = row["true_label"] if question == "action" else row["true_json"].get(question)
    return None if value == UNKNOWN else value


def is_unknown_now(row: PredictionRow, later: str) -> bool:
    """Tell whether nobody annotated what is now, of a question about the future."""
    return true_answer(row, NOW_OF[later]) is None


def given_answer(row: PredictionRow, question: str) -> Any:
    """What the model said; None where it said nothing that can be read."""
    if question == "action":
        return row["predicted_label"]
    answer = row["pred_json"]
    return answer.get(question) if isinstance(answer, dict) else None


def valid_json(row: PredictionRow) -> tuple[float, float]:
    """Published: a JSON object with all seven keys can be found in the reply."""
    answer = read_reply(row["raw_prediction"]).answer
    return _RIGHT if answer is not None and answer.keys() >= _ALL_KEYS else _WRONG


def strictly_valid_json(row: PredictionRow) -> tuple[float, float]:
    return _RIGHT if read_reply(row["raw_prediction"]).is_strict else _WRONG


_RIGHT, _WRONG = (1.0, 1.0), (0.0, 1.0)


def correct(question: str) -> RowScore:
    """Published: exact equality, over the rows whose truth is known."""

    def score(row: PredictionRow) -> tuple[float, float] | None:
        truth = true_answer(row, question)
        if truth is None:
            return None
        return _RIGHT if given_answer(row, question) == truth else _WRONG

    return score


def correct_action_where(*, seen_in_train: bool) -> RowScore:
    correct_action = correct("action")

    def score(row: PredictionRow) -> tuple[float, float] | None:
        return correct_action(row) if bool(row["true_label_seen_in_train"]) is seen_in_train else None

    return score


def object_overlap(row: PredictionRow) -> tuple[float, float]:
    """Published: F1 of object sets, 2 TP over 2 TP + FP + FN, to be summed over rows."""
    truth, given = _names(true_answer(row, "objects")), _names(given_answer(row, "objects"))
    return (2.0 * len(truth & given), float(len(truth) + len(given)))


def evidence_iou(row: PredictionRow) -> tuple[float, float] | None:
    """Intersection over union, in frames, of the evidence window that was given and the true one."""
    truth = frames_of(true_answer(row, "evidence_window"))
    if truth is None:
        return None
    given = frames_of(given_answer(row, "evidence_window"))
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
    return {name for name in value if isinstance(name, str)} if isinstance(value, (list, tuple)) else set()


def frames_of(window: Any) -> tuple[int, int] | None:
    """First and last frame of a window; other keys beside the two (``num_frames``) do not matter."""
    try:
        first, last = window["start_frame"], window["end_frame"]
    except (TypeError, KeyError):
        return None
    are_frames = type(first) is int and type(last) is int and 0 <= first <= last  # True is no frame
    return (first, last) if are_frames else None


def _iou(one: tuple[int, int], other: tuple[int, int]) -> float:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]) + 1)
    covered = one[1] - one[0] + 1 + other[1] - other[0] + 1
    return shared / (covered - shared)
