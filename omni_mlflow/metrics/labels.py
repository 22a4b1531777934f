"""The published metrics of structured answers, with their published definitions, and label tables.

The published macro-F1 averages over a class set that grows with whatever a model says; it is kept under its
name because others report it. ``supported_class_macro_f1`` is the one to trust: its class set is declared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import fsum
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.metrics.answers import (
    LABEL_QUESTIONS,
    PredictionRow,
    RowScore,
    correct,
    correct_action_where,
    object_overlap,
    true_answer,
    valid_json,
)
from omni_mlflow.metrics.errors import NothingToScoreError, or_none
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, jackknife_estimate, ratio_estimate

P = ParamSpec("P")

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

_DEGENERATE_SHARE = 0.95


def published_metrics(rows: Sequence[PredictionRow], *, label_options: Sequence[str]) -> dict[str, Any]:
    """Compute every published metric under its published name; null where no row qualifies.

    Args:
        label_options: the action labels offered to the model, in the prompt's order.
    """
    labels = published_classes(rows, label_options=label_options)
    episodes = {row["episode_id"] for row in rows}
    unseen = [row for row in rows if not row["true_label_seen_in_train"]]
    macro_f1 = _value_of(action_macro_f1, rows, labels)
    return {
        **{name: _value_of(score_rows, rows, score) for name, score in PUBLISHED_SCORES.items()},
        "macro_f1": macro_f1,
        "action_macro_f1": macro_f1,
        "labels": labels,
        "num_samples": len(rows),
        "num_eval_episodes": len(episodes),
        "held_out_episode_count": len(episodes),
        "num_unseen_label_samples": len(unseen),
        "unseen_eval_labels": sorted({row["true_label"] for row in unseen}),
        "eval_label_counts": dict(Counter(row["true_label"] for row in rows).most_common()),
    }


def score_rows(rows: Sequence[PredictionRow], score: RowScore) -> EpisodeEstimate:
    """Sum a row score over rows and divide.

    Raises:
        NothingToScoreError: no row takes part.
    """
    scored = [(score(row), row["episode_id"]) for row in rows]
    parts = [(part, episode) for part, episode in scored if part is not None]
    return ratio_estimate(
        [part[0] for part, _ in parts], [part[1] for part, _ in parts], [episode for _, episode in parts]
    )


def published_classes(rows: Iterable[PredictionRow], *, label_options: Sequence[str]) -> list[str]:
    """The options, then true, then predicted action labels that are no option, in order of appearance."""
    rows = list(rows)
    labels = [*label_options, *(row["true_label"] for row in rows), *(row["predicted_label"] for row in rows)]
    return [label for label in dict.fromkeys(labels) if label is not None]


def supported_classes(rows: Iterable[PredictionRow], *, declared: Sequence[str]) -> list[str]:
    """The declared action classes that the truth names at least once; predictions have no say."""
    named = {row["true_label"] for row in rows}
    return [label for label in dict.fromkeys(declared) if label in named]


def action_macro_f1(rows: Sequence[PredictionRow], classes: Sequence[str]) -> EpisodeEstimate:
    """Unweighted mean of the per-class F1 over ``classes``; an absent and never predicted class counts 0.

    A wrong prediction counts against its class when that class is in the set; classes outside it do not
    count. The class set stays fixed while episodes are left out for the standard error.

    Raises:
        NothingToScoreError: there are no rows or no classes.
    """
    if not rows or not classes:
        raise NothingToScoreError("macro-F1 over no rows or no classes")
    episodes, counts = _counts_by_episode(rows, sorted(classes))
    total = counts.sum(axis=0)
    return jackknife_estimate(
        _macro_f1(total), [_macro_f1(total - counts[g]) for g in range(len(episodes))], episodes
    )


def closed_vocabulary_ceiling(rows: Sequence[PredictionRow]) -> float:
    """Share of samples whose action train shows: no model that only says those can be more accurate.

    Raises:
        NothingToScoreError: there are no rows.
    """
    if not rows:
        raise NothingToScoreError("no sample to average over")
    return sum(bool(row["true_label_seen_in_train"]) for row in rows) / len(rows)


def degenerate_questions(rows: Iterable[PredictionRow]) -> dict[str, dict[str, Any]]:
    """Questions of which one true answer makes up more than 95 %: a constant looks excellent there."""
    rows = list(rows)
    found = {}
    for question in LABEL_QUESTIONS:
        truths = Counter(truth for row in rows if (truth := true_answer(row, question)) is not None)
        for label, count in truths.most_common(1):
            if count / truths.total() > _DEGENERATE_SHARE:
                found[question] = {"answer": label, "share": count / truths.total()}
    return found


def per_class_rows(
    rows: Sequence[PredictionRow], *, classes: Sequence[str], seen_in_train: Iterable[str]
) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each action class, most frequent truth first; 0 where undefined."""
    from sklearn.metrics import precision_recall_fscore_support

    if not rows or not classes:
        return []
    codes = {label: code for code, label in enumerate(classes)}
    truth, given = _encoded(rows, codes)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, given, labels=np.arange(len(classes)), zero_division=0.0
    )
    predicted = Counter(given.tolist())
    seen = set(seen_in_train)
    table = [
        {
            "label": label,
            "support": int(support[code]),
            "predicted": predicted[code],
            "precision": float(precision[code]),
            "recall": float(recall[code]),
            "f1": float(f1[code]),
            "seen_in_train": int(label in seen),
        }
        for label, code in codes.items()
    ]
    return sorted(table, key=lambda row: (-row["support"], -row["predicted"], row["label"]))


def confusion_rows(rows: Iterable[PredictionRow]) -> list[dict[str, Any]]:
    """The confusion matrix of actions in long form: only pairs that occur, most frequent first.

    As a square of 1,200 labels it would be 1.4 million cells, nearly all of them 0.
    """
    pairs = Counter((row["true_label"], row["predicted_label"] or "") for row in rows)
    return [
        {"true_label": truth, "predicted_label": given, "count": count}
        for (truth, given), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    ]


def per_episode_rows(rows: Iterable[PredictionRow]) -> list[dict[str, Any]]:
    """Number of samples and share of correct actions and contacts of each episode; None where unknown."""
    by_episode = groupby(sorted(rows, key=_episode), key=_episode)
    table = []
    for episode, members in by_episode:
        found = list(members)
        shares = {
            name: _value_of(score_rows, found, PUBLISHED_SCORES[name])
            for name in ("accuracy", "contact_accuracy", "next_action_accuracy")
        }
        table.append({"episode_id": episode, "samples": len(found), **shares})
    return table


def _value_of(measure: Callable[P, EpisodeEstimate], *args: P.args, **kwargs: P.kwargs) -> float | None:
    estimate = or_none(measure, *args, **kwargs)
    return None if estimate is None else estimate.value


def _episode(row: PredictionRow) -> str:
    return str(row["episode_id"])


def _counts_by_episode(
    rows: Sequence[PredictionRow], classes: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """TP, FP and FN of each class in each episode: shape (episodes, classes, 3), episodes ascending."""
    from sklearn.metrics import multilabel_confusion_matrix

    codes = {label: code for code, label in enumerate(classes)}
    episodes, counts = [], []
    for episode, members in groupby(sorted(rows, key=_episode), key=_episode):
        truth, given = _encoded(list(members), codes)
        cells = multilabel_confusion_matrix(truth, given, labels=np.arange(len(classes)))
        episodes.append(episode)
        counts.append(np.stack([cells[:, 1, 1], cells[:, 0, 1], cells[:, 1, 0]], axis=1))
    return episodes, np.stack(counts).astype(np.int64)


def _encoded(
    rows: Sequence[PredictionRow], codes: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Action labels as class numbers; -1 for a label outside the class set."""
    truth = np.array([codes.get(row["true_label"], -1) for row in rows], dtype=np.int64)
    given = np.array([codes.get(row["predicted_label"], -1) for row in rows], dtype=np.int64)
    return truth, given


def _macro_f1(counts: NDArray[np.int64]) -> float:
    """Args: counts of shape (classes, 3): TP, FP, FN."""
    hits, false_alarms, misses = counts.T
    named = 2 * hits + false_alarms + misses
    return fsum((2 * hits / np.maximum(named, 1)).tolist()) / len(counts)
