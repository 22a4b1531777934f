"""Answers that need no model: what a number must beat before it says anything.

Each floor answers the same samples as the model, as prediction rows, so every metric applies to both.

- ``majority``: the most frequent train label; for objects the constant set with the best F1 on train.
- ``train_prior``: a label drawn from the train distribution, by a hash of the sample's id; for objects as
  many as some train sample names, each drawn so. Where one label answers, it is graded by its chance to be
  right, so that luck has no part in it; macro-F1 and objects grade the one draw.

The published F1 of objects grades ``unknown``, where nobody annotated them, like the name of an object. So
these two say it as well, as often as train has it.

- ``same_as_now`` (``next_action``, ``next_contact``): the TRUE current action or contact. A model has to
  recognise it first, so this floor knows more than a model; it is what "nothing changes" scores, and a
  forecast that does not beat it has not shown that it foresees a change. Where nobody annotated what is now
  it answers nothing, so a model is held against it over the other samples. Without any annotation of now
  there is no such floor.
- ``next_given_current`` (``next_action``, ``next_contact``): the most frequent train successor of the TRUE
  current action or contact, or the most frequent next one where train never shows what is now.
- ``copy_prompt`` (``evidence_window``): the window that the prompt already names.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate, count
from typing import Any

from omni_mlflow.metrics.answers import (
    LABEL_QUESTIONS,
    NOW_OF,
    UNKNOWN,
    PredictionRow,
    RowScore,
    is_unknown_now,
    true_answer,
)
from omni_mlflow.metrics.priors import TrainPriors, most_common
from omni_mlflow.metrics.questions import QUESTION_OF, ROW_SCORES

Answers = dict[str, Any]
"""A floor's answer to each question that it answers."""

FLOORS_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*LABEL_QUESTIONS, "objects"), ("majority", "train_prior")),
    "next_action": ("majority", "train_prior", "same_as_now", "next_given_current"),
    "next_contact": ("majority", "train_prior", "same_as_now", "next_given_current"),
    "evidence_window": ("copy_prompt",),
}
"""Which floors answer a question; the first one is named when two score the same."""


SAME_AS_NOW = "same_as_now"
_FITTED = ("majority", "train_prior", "next_given_current")


class Urn:
    """Labels with their train counts, from which one is drawn by a key instead of by chance."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._labels = sorted(label for label in counts if counts[label] > 0)
        self._upto = list(accumulate(counts[label] for label in self._labels))

    def draw(self, key: str) -> str | None:
        """Draw in proportion to the counts; the same key draws the same label. None from an empty urn."""
        if not self._labels:
            return None
        return self._labels[bisect_right(self._upto, _uniform(key) * self._upto[-1])]

    def draw_different(self, number: int, *, key: str) -> list[str]:
        """Draw and put back until ``number`` different labels were drawn, or all that there are."""
        drawn: set[str | None] = set()
        turns = count()
        while len(drawn) < min(number, len(self._labels)):
            drawn.add(self.draw(f"{key}:{next(turns)}"))
        return [label for label in self._labels if label in drawn]


def floors_for(question: str | None, priors: TrainPriors | None) -> tuple[str, ...]:
    """Names of the floors of a question; those fitted on train only where train has answers to it."""
    if question is None:
        return ()
    names = FLOORS_OF[question]
    if priors is not None and question != "evidence_window" and label_counts(priors, question):
        return names
    return tuple(name for name in names if name not in _FITTED)


def floors_of(priors: TrainPriors) -> dict[str, Callable[[PredictionRow], PredictionRow]]:
    """Return, by floor, what turns a row into one in which the floor has answered instead of the model.

    Questions that a floor does not answer, or that no train sample answers, are null.
    """
    constant = _constant_answers(priors)
    successors = {
        later: {now: most_common(counts) for now, counts in following.items()}
        for later, following in (
            ("next_action", priors.next_given_action),
            ("next_contact", priors.next_given_contact),
        )
    }
    answers: dict[str, Callable[[PredictionRow], Answers]] = {
        "majority": lambda _: constant,
        "train_prior": _drawing(priors),
        "same_as_now": _same_as_now,
        "next_given_current": lambda row: {
            later: successor.get(true_answer(row, NOW_OF[later]), constant[later])
            for later, successor in successors.items()
        },
        "copy_prompt": lambda row: {"evidence_window": row["center_window"]},
    }
    return {name: partial(_answered, answer) for name, answer in answers.items()}


def _same_as_now(row: PredictionRow) -> Answers:
    return {later: true_answer(row, now) for later, now in NOW_OF.items()}


def floor_scores(floor: str, priors: TrainPriors | None) -> dict[str, RowScore]:
    """Return what the rows of a floor add to each metric whose question it answers."""
    found = {}
    for metric in ROW_SCORES:
        question, score = QUESTION_OF[metric], score_against(floor, metric)
        if floor in floors_for(question, priors):
            is_drawn = floor == "train_prior" and question in LABEL_QUESTIONS
            found[metric] = _expected(score, question, priors) if is_drawn and question and priors else score
    return found


def score_against(floor: str, metric: str) -> RowScore:
    """Return how rows are graded where they are held against a floor: over those that the floor answers."""
    score, question = ROW_SCORES[metric], QUESTION_OF[metric]
    if floor == SAME_AS_NOW and question is not None and question in NOW_OF:
        return partial(_where_now_is_known, score, question)
    return score


def _where_now_is_known(score: RowScore, question: str, row: PredictionRow) -> tuple[float, float] | None:
    return None if is_unknown_now(row, question) else score(row)


def _expected(score: RowScore, question: str, priors: TrainPriors) -> RowScore:
    """Grade a drawn label by its chance to be right: the train share of the truth."""
    counts = label_counts(priors, question)
    total = sum(counts.values())

    def expected(row: PredictionRow) -> tuple[float, float] | None:
        return score(row) and (counts.get(true_answer(row, question), 0) / total, 1.0)

    return expected


def label_counts(priors: TrainPriors, question: str) -> dict[str, int]:
    """Number of train samples per label of a question (per object for ``objects``)."""
    counts: dict[str, int] = getattr(priors, question)
    return counts


def best_constant_objects(priors: TrainPriors) -> tuple[str, ...]:
    """The most frequent objects, as many of them as give the best micro-F1 on train as a constant answer.

    ``unknown`` is one of them, the answer to samples whose objects nobody annotated.
    """
    counts = Counter(priors.objects) + Counter({UNKNOWN: priors.num_without_objects})
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    named = counts.total()
    best, best_f1, hits = 0, 0.0, 0
    for size, name in enumerate(ranked, start=1):
        hits += counts[name]
        f1 = 2 * hits / (size * priors.num_samples + named)
        if f1 > best_f1:
            best, best_f1 = size, f1
    return tuple(sorted(ranked[:best]))


def _constant_answers(priors: TrainPriors) -> Answers:
    labels = {question: most_common(label_counts(priors, question)) for question in LABEL_QUESTIONS}
    return {**labels, "objects": list(best_constant_objects(priors))}


def _drawing(priors: TrainPriors) -> Callable[[PredictionRow], Answers]:
    """Draw what a draw is graded by: action, for macro-F1, and objects. Other labels are graded by chance."""
    actions, objects = Urn(label_counts(priors, "action")), _drawing_objects(priors)
    return lambda row: {"action": actions.draw(f"action:{row['id']}"), "objects": objects(row["id"])}


def _drawing_objects(priors: TrainPriors) -> Callable[[str], list[str]]:
    """Draw how many objects a train sample names, or that nobody annotated any; then as many objects."""
    sizes = {str(size): samples for size, samples in enumerate(priors.objects_per_sample)}
    how_many, objects = Urn({**sizes, UNKNOWN: priors.num_without_objects}), Urn(priors.objects)

    def draw(sample: str) -> list[str]:
        number = how_many.draw(f"number of objects:{sample}")
        if number == UNKNOWN:
            return [UNKNOWN]
        return objects.draw_different(int(number or 0), key=f"objects:{sample}")

    return draw


def _answered(answer: Callable[[PredictionRow], Answers], row: PredictionRow) -> PredictionRow:
    answers = answer(row)
    return {**row, "pred_json": answers, "predicted_label": answers.get("action")}


def _uniform(key: str) -> float:
    """A number in [0, 1) that depends on nothing but ``key``."""
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53
