"""Hits, false alarms and misses of each action class in each episode, and the macro-F1 they give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import fsum
from sys import intern

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.metrics.answers import UNKNOWN, PredictionRow
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, jackknife_estimate

_HIT, _FALSE_ALARM, _MISS = range(3)


class ClassCounts:
    """Counts by episode and label, of the labels that occur there and of no other.

    Memory grows with the number of pairs of an episode and a label in it, never with rows.
    """

    def __init__(self) -> None:
        self._of: dict[str, tuple[dict[str, int], dict[str, int], dict[str, int]]] = {}

    @classmethod
    def over(cls, rows: Iterable[PredictionRow]) -> ClassCounts:
        counts = cls()
        for row in rows:
            counts.add(row["episode_id"], row["true_label"], row["predicted_label"])
        return counts

    def add(self, episode: str, truth: str, given: str | None, *, times: int = 1) -> None:
        """Count one sample, or several; ``given`` is None where no label could be read.

        A sample whose action nobody annotated says nothing about any class.
        """
        if truth == UNKNOWN:
            return
        counts = self._of.get(episode)
        if counts is None:
            counts = self._of[episode] = ({}, {}, {})
        if given == truth:
            _count(counts[_HIT], truth, times)
            return
        _count(counts[_MISS], truth, times)
        if given is not None:
            _count(counts[_FALSE_ALARM], given, times)

    def macro_f1(self, classes: Sequence[str]) -> EpisodeEstimate:
        """Unweighted mean of the per-class F1 over ``classes``; an absent and never predicted class counts 0.

        A wrong prediction counts against its class when that class is in the set; classes outside it do not
        count. The class set stays fixed while episodes are left out for the standard error.

        Raises:
            NothingToScoreError: there are no rows or no classes.
        """
        if not self._of or not classes:
            raise NothingToScoreError("macro-F1 over no rows or no classes")
        place_of = {label: place for place, label in enumerate(sorted(classes))}
        episodes = sorted(self._of)
        parts = [self._of_episode(episode, place_of) for episode in episodes]
        total = np.zeros((len(place_of), 3), dtype=np.int64)
        for places, counts in parts:
            total[places] += counts
        scores = _f1(total)
        without = []
        for places, counts in parts:
            left = scores.copy()
            left[places] = _f1(total[places] - counts)
            without.append(_mean(left))
        return jackknife_estimate(_mean(scores), without, episodes)

    def _of_episode(
        self, episode: str, place_of: dict[str, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the episode's labels in the class set, and their counts: shape (labels, 3)."""
        kinds = self._of[episode]
        labels = [label for label in dict.fromkeys(chain(*kinds)) if label in place_of]
        places = np.array([place_of[label] for label in labels], dtype=np.int64)
        counts = [[kind.get(label, 0) for kind in kinds] for label in labels]
        return places, np.array(counts, dtype=np.int64).reshape(-1, 3)


def _count(counts: dict[str, int], label: str, times: int) -> None:
    label = intern(label)  # every row brings a copy of its own
    counts[label] = counts.get(label, 0) + times


def _f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    hits, false_alarms, misses = counts.T
    f1: NDArray[np.float64] = 2 * hits / np.maximum(2 * hits + false_alarms + misses, 1)
    return f1


def _mean(scores: NDArray[np.float64]) -> float:
    return fsum(scores.tolist()) / len(scores)
