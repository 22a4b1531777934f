"""What backbones that answer label questions share: the answer's JSON, and prediction rows.

Only in that JSON a missing annotation is spelled ``unknown``; everywhere else it is None.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import partial
from itertools import chain
from typing import Any

from omni_mlflow.backbones.base import Exam
from omni_mlflow.metrics.answers import ANSWER_KEYS, UNKNOWN, read_reply
from omni_mlflow.metrics.priors import yes_no
from omni_mlflow.spine.made_rows import MadeRows
from omni_mlflow.spine.types import Answer, Labels, Outcome, Sample, Span, Target

Row = dict[str, Any]


def answer_of(labels: Labels, span: Span) -> dict[str, Any]:
    """Return the specification's answer to a window: its seven keys, in its order."""
    return {
        "action": labels.action or UNKNOWN,
        "subtask": labels.subtask or UNKNOWN,
        "objects": [UNKNOWN] if labels.objects is None else list(labels.objects),
        "contact": yes_no(labels.in_contact) or UNKNOWN,
        "transition": yes_no(labels.transition) or UNKNOWN,
        "next_action": labels.next_action or UNKNOWN,
        "evidence_window": span.model_dump(),
    }


def compact(value: Any) -> str:
    """Spell JSON without spaces, in the order of its keys."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def prediction_rows(
    exam: Exam, answers: Sequence[Answer], *, asked: Collection[str] = ANSWER_KEYS
) -> Sequence[Row]:
    """Return the published columns of every sample, in order, and beside them ``anchor`` and ``outcome``.

    Rows are made when they are asked for, so that a million of them need no memory.

    Args:
        answers: of the intact samples or of a control; each ``raw`` is a JSON like :func:`answer_of`.
        asked: the keys that are graded; ``true_json`` holds the truth of no other.
    """
    made = partial(_row, asked=asked, in_train=exam.fitted.action)
    return MadeRows(made, exam.samples, exam.targets, answers)


def _row(
    sample: Sample, target: Target, answer: Answer, *, asked: Collection[str], in_train: Collection[str]
) -> Row:
    truth = answer_of(target.labels, target.span)
    return {
        "id": sample.id,
        "episode_id": sample.episode_id,
        "split": sample.split.value,
        "target": "episode_qa",
        "anchor": sample.anchor,
        "outcome": answer.outcome.value,
        "center_window": {**truth["evidence_window"], "num_frames": len(target.span)},
        "true_json": {key: value for key, value in truth.items() if key in asked},
        **_said(answer, truth["action"]),
        "true_label_seen_in_train": int(target.labels.action in in_train),
    }


def answered_instead(row: Row, answer: Answer) -> Row:
    """Return the prediction row of the same sample with another answer to it, such as that of a control."""
    return {**row, "outcome": answer.outcome.value, **_said(answer, row["true_label"])}


def _said(answer: Answer, true_label: str) -> Row:
    is_invalid = answer.outcome is Outcome.MODEL_INVALID
    given = {} if is_invalid else read_reply(answer.raw).answer or {}
    predicted = given.get("action")
    label = predicted if isinstance(predicted, str) else None
    return {
        "pred_json": given,
        "raw_prediction": answer.raw,
        "true_label": true_label,
        "predicted_label": label,
        "correct": None if true_label == UNKNOWN else int(label == true_label),
    }


def of_another_episode(samples: Sequence[Sample]) -> list[Sample]:
    """For each sample, the one half the list away, or the next one there that is of another episode.

    What a control takes its exchanged input from. Where all samples are of one episode, so is the other.
    """
    others = []
    for index, sample in enumerate(samples):
        half = (index + len(samples) // 2) % len(samples)
        around = (samples[place] for place in chain(range(half, len(samples)), range(half)))
        others.append(next((each for each in around if each.episode_id != sample.episode_id), samples[half]))
    return others
