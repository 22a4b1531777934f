"""What the rows of each episode add to a metric: a million rows take no more memory than a thousand."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from omni_mlflow.metrics.answers import PredictionRow, RowScore
from omni_mlflow.metrics.uncertainty import (
    EpisodeEstimate,
    anova_correlation,
    ratio_estimate,
    size_of_independent_sample,
)

_BITS = 1074  # every double is a whole number of 2 ** -1074
_ONE = 1 << _BITS


class EpisodeSums:
    """Sums of one metric by episode. They are exact, so no order of rows changes a bit of the result."""

    def __init__(self) -> None:
        self._of: dict[str, list[int]] = {}

    @classmethod
    def over(cls, rows: Iterable[PredictionRow], score: RowScore) -> EpisodeSums:
        sums = cls()
        for row in rows:
            sums.add_score(row, score)
        return sums

    def add_score(self, row: PredictionRow, score: RowScore) -> None:
        """Add what a row contributes; nothing where it does not take part."""
        part = score(row)
        if part is not None:
            self.add(row["episode_id"], *part)

    def add(self, episode: str, numerator: float, denominator: float) -> None:
        sums = self._of.get(episode)
        if sums is None:
            sums = self._of[episode] = [0, 0, 0, 0]
        sums[0] += 1
        sums[1] += _exact(numerator)
        sums[2] += _exact(denominator)
        sums[3] += _exact(numerator * numerator)

    @property
    def num_samples(self) -> int:
        return sum(sums[0] for sums in self._of.values())

    def estimate(self) -> EpisodeEstimate:
        """The sum of numerators over that of denominators.

        Raises:
            NothingToScoreError: the denominators sum to zero.
        """
        names = sorted(self._of)
        tops, bottoms = ([self._of[name][place] / _ONE for name in names] for place in (1, 2))
        return ratio_estimate(tops, bottoms, names)

    def intraclass_correlation(self) -> float:
        """Of the numerators: see :func:`omni_mlflow.metrics.uncertainty.intraclass_correlation`."""
        sizes, tops, squares = self._moments()
        within = float(np.maximum(squares - np.square(tops) / np.maximum(sizes, 1), 0.0).sum())
        return anova_correlation(sizes, tops / np.maximum(sizes, 1), within)

    def effective_sample_size(self) -> float:
        """Of a mean: see :func:`omni_mlflow.metrics.uncertainty.effective_sample_size`."""
        sizes, tops, squares = self._moments()
        spread = max(float(squares.sum() - tops.sum() ** 2 / max(sizes.sum(), 1)), 0.0)
        return size_of_independent_sample(self.estimate(), int(sizes.sum()), spread)

    def _moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cells = [self._of[name] for name in sorted(self._of)]
        sizes = np.array([cell[0] for cell in cells], dtype=np.int64)
        tops, squares = (np.array([cell[place] / _ONE for cell in cells], dtype=float) for place in (1, 3))
        return sizes, tops, squares


@lru_cache(maxsize=4096)
def _exact(value: float) -> int:
    """``value`` in units of 2 ** -1074: whole numbers add up without rounding."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_BITS - denominator.bit_length() + 1)
