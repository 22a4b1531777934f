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


def action_macro_f1(rows: Iterable[PredictionRow], classes: Sequence[str]) -> EpisodeEstimate:
    """See :meth:`omni_mlflow.metrics.class_counts.ClassCounts.macro_f1`."""
    return ClassCounts.over(rows).macro_f1(classes)


def action_pairs(rows: Iterable[PredictionRow]) -> Counter[tuple[str, str | None]]:
    """Number of rows by true and predicted action label."""
    return RowTally.over(rows, {}).pairs


def per_class_rows(
    pairs: Mapping[tuple[str, str | None], int], *, classes: Sequence[str], seen_in_train: Iterable[str]
) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each action class, most frequent truth first; 0 where undefined.

    Args:
        pairs: number of samples by true and predicted label; None where no label could be read.
    """
    from sklearn.metrics import precision_recall_fscore_support

    if not pairs or not classes:
        return []
    codes: dict[str | None, int] = {label: code for code, label in enumerate(classes)}
    truth, given = ([codes.get(pair[side], -1) for pair in pairs] for side in (0, 1))
    counts = list(pairs.values())
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, given, labels=np.arange(len(classes)), sample_weight=counts, zero_division=0.0
    )
    predicted = np.bincount(np.array(given) + 1, weights=counts, minlength=len(classes) + 1)[1:]
    seen = set(seen_in_train)
    table = [
        {
            "label": label,
            "support": int(support[code]),
            "predicted": int(predicted[code]),
            "precision": float(precision[code]),
            "recall": float(recall[code]),
            "f1": float(f1[code]),
            "seen_in_train": int(label in seen),
        }
        for label, code in codes.items()
    ]
    return sorted(table, key=lambda row: (-row["support"], -row["predicted"], row["label"]))


def confusion_rows(pairs: Mapping[tuple[str, str | None], int]) -> list[dict[str, Any]]:
    """The confusion matrix of actions in long form: only pairs that occur, most frequent first.

    As a square of 1,200 labels it would be 1.4 million cells, nearly all of them 0.
    """
    spelled: Counter[tuple[str, str]] = Counter()
    for (truth, given), count in pairs.items():
        spelled[truth, given or ""] += count
    return [
        {"true_label": truth, "predicted_label": given, "count": count}
        for (truth, given), count in sorted(spelled.items(), key=lambda item: (-item[1], item[0]))
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
