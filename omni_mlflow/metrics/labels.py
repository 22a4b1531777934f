"""The published metrics of structured answers, with their published definitions, and label tables.

The published macro-F1 averages over a class set that grows with whatever a model says; it is kept under its
name because others report it. ``supported_class_macro_f1`` is the one to trust: its class set is declared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.metrics.answers import PUBLISHED_SCORES, PredictionRow, RowScore
from omni_mlflow.metrics.class_counts import ClassCounts
from omni_mlflow.metrics.episode_sums import EpisodeSums
from omni_mlflow.metrics.errors import or_none
from omni_mlflow.metrics.row_tally import RowTally
from omni_mlflow.metrics.uncertainty import EpisodeEstimate


def published_metrics(rows: Iterable[PredictionRow], *, label_options: Sequence[str]) -> dict[str, Any]:
    """Compute every published metric under its published name; null where no row qualifies.

    Args:
        rows: read once, in constant memory.
        label_options: the action labels offered to the model, in the prompt's order.
    """
    return RowTally.over(rows, PUBLISHED_SCORES).published(label_options=label_options)


def score_rows(rows: Iterable[PredictionRow], score: RowScore) -> EpisodeEstimate:
    """Sum a row score over rows and divide.

    Raises:
        NothingToScoreError: no row takes part.
    """
    return EpisodeSums.over(rows, score).estimate()


def published_classes(rows: Iterable[PredictionRow], *, label_options: Sequence[str]) -> list[str]:
    """The options, then true, then predicted action labels that are no option, in order of appearance."""
    return RowTally.over(rows, {}).published_classes(label_options)


def action_macro_f1(rows: Iterable[PredictionRow], classes: Sequence[str]) -> EpisodeEstimate:
    """See :meth:`omni_mlflow.metrics.class_counts.ClassCounts.macro_f1`."""
    return ClassCounts.over(rows).macro_f1(classes)


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
        estimates = {
            name: or_none(score_rows, found, PUBLISHED_SCORES[name])
            for name in ("accuracy", "contact_accuracy", "next_action_accuracy")
        }
        shares = {name: each and each.value for name, each in estimates.items()}
        table.append({"episode_id": episode, "samples": len(found), **shares})
    return table


def _episode(row: PredictionRow) -> str:
    return str(row["episode_id"])


def _encoded(
    rows: Sequence[PredictionRow], codes: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Action labels as class numbers; -1 for a label outside the class set."""
    truth = np.array([codes.get(row["true_label"], -1) for row in rows], dtype=np.int64)
    given = np.array([codes.get(row["predicted_label"], -1) for row in rows], dtype=np.int64)
    return truth, given
